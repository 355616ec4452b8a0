"""Grad-CAM and Layer-CAM: heat maps of where a network looks.

Captum's ``LayerGradCam`` expects channels in the second dimension, which is the height in Swin, and
it has no Layer-CAM; the package ``grad-cam`` has both but needs OpenCV.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from senetzoo.errors import ConfigError, nearest
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.modes import evaluated, finite


def grad_cam(
    model: Classifier,
    images: Tensor,
    *,
    target: int | Tensor | None = None,
    layer: int | str | None = None,
) -> Tensor:
    """Grad-CAM: where in a feature map the evidence for a class is.

    Selvaraju et al. 2017 (arXiv:1610.02391), Eq. 1 and 2: the sum of the map's channels, each
    weighted by the gradient of the class logit averaged over the pixels, followed by a ReLU.

    Args:
        model: A network of the zoo. It runs in eval mode; its mode and the gradients of its
            parameters don't change.
        images: (N, in_chans, H, W), preprocessed.
        target: The class of all images, or (N,) of each image; None for the most probable class of
            each image.
        layer: Which map: the number of a stage, from 1 or negative from the end, for the map after
            it; or the name of a module in `model`, for its output. None for the last map before
            the pooling.

    Returns:
        (N, h, w), in the resolution of the map, nonnegative, in units of the logit; not normalized,
        so images can be compared.

    Raises:
        ConfigError: There is no such class or layer, the images have a wrong shape, or the layer
            doesn't return a map or runs more than once.
        WeightsError: The logits aren't finite although the images are.
        DataError: Neither the logits nor the images are finite.
    """
    return class_maps(model, images, target=target, layer=layer)[2]


def layer_cam(
    model: Classifier,
    images: Tensor,
    *,
    target: int | Tensor | None = None,
    layer: int | str | None = None,
) -> Tensor:
    """Layer-CAM: Grad-CAM with a weight for each pixel, which also works for early layers.

    Jiang et al. 2021, "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization"
    (IEEE Transactions on Image Processing 30): the sum of the map's channels, each value weighted
    by its positive gradient, followed by a ReLU.

    Arguments, result and errors are the same as of `grad_cam`.
    """
    return class_maps(model, images, target=target, layer=layer)[3]


def class_maps(
    model: Classifier, images: Tensor, *, target: int | Tensor | None, layer: int | str | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits (N, K), target (N,), Grad-CAM and Layer-CAM, for the arguments of `grad_cam`."""
    weight = next(model.parameters())
    # The caller may be in inference mode, where nothing has gradients.
    model = evaluated(model)
    with torch.inference_mode(False), torch.enable_grad():
        images = images.detach().to(weight.device, weight.dtype, copy=True)
        model.check_input(images)
        if layer is None and not model.levels():  # a user's own network
            layer = next(path for path, m in model.named_modules() if m is model.cam_layer)
        if isinstance(layer, str):
            leaf, logits, layout = _through_module(model, images, layer)
        else:
            leaf, logits = _through_stages(model, images, layer)
            layout = model.layout
        logits = finite(logits, images)
        chosen = _target(target, logits)
        (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), leaf)
    values = leaf.detach()
    if layout == "nhwc":
        values, gradient = values.permute(0, 3, 1, 2), gradient.permute(0, 3, 1, 2)
    weights = gradient.mean((2, 3), keepdim=True)
    grad_cam = (weights * values).sum(1).relu()
    layer_cam = (gradient.relu() * values).sum(1).relu()
    return logits.detach(), chosen, grad_cam, layer_cam


def _through_stages(model: Classifier, images: Tensor, layer: int | None) -> tuple[Tensor, Tensor]:
    """The map after a stage as a leaf, and the logits. Layers before the map record no graph."""
    levels = model.levels()
    count = len(levels)
    stage = -1 if layer is None else layer
    if isinstance(stage, bool) or not isinstance(stage, int) or not 1 <= abs(stage) <= count:
        raise ConfigError(
            f"There is no stage {stage!r} to look at.",
            f"The network has {count} stages, 1 to {count}, or from the end -1 to -{count}.",
            "Leave out layer for the last map",
        )
    index = stage - 1 if stage > 0 else count + stage
    with torch.no_grad():
        x = images
        for level in levels[: index + 1]:
            x = level(x)
    leaf, x = _leaf(x)
    for level in levels[index + 1 :]:
        x = level(x)
    return leaf, model.forward_head(x if model.layout == "nchw" else x.permute(0, 3, 1, 2))


def _through_module(model: Classifier, images: Tensor, name: str) -> tuple[Tensor, Tensor, str]:
    """The output of a module as a leaf, the logits, and the layout of the output."""
    modules = {path: module for path, module in model.named_modules() if path}
    if name not in modules:
        raise ConfigError(
            f"There is no layer {name!r} to look at.",
            "A layer is the number of a stage, or the name of a module in model.named_modules().",
            nearest(name, modules),
        )
    leaves: list[Tensor] = []

    def unfit(why: str) -> ConfigError:
        remedy = "Use another layer, or the number of a stage"
        return ConfigError(f"The layer {name!r} can't be looked at.", why, remedy)

    def cut(module: nn.Module, args: object, out: object) -> Tensor:
        if leaves:
            raise unfit("It runs more than once for an image.")
        if not isinstance(out, Tensor) or out.ndim != 4:
            raise unfit("It doesn't return a map of height, width and channels.")
        leaf, rest = _leaf(out)
        leaves.append(leaf)
        return rest

    modules[name].register_forward_hook(cut)  # of the copy made by evaluated()
    logits = model(images)
    if not leaves:
        raise unfit("The network doesn't run it in eval mode.")
    # Maps of Swin are (N, h, w, C), except the outputs of convolutions.
    return leaves[0], logits, "nchw" if isinstance(modules[name], nn.Conv2d) else model.layout


def _leaf(x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` as a leaf, and a copy of it to continue with, which may be overwritten in place."""
    leaf = x.detach().clone().requires_grad_()
    return leaf, leaf.clone()


def _target(target: int | Tensor | None, logits: Tensor) -> Tensor:
    """The class of each image, (N,)."""
    count, classes = logits.shape
    if target is None:
        return logits.detach().argmax(1)
    chosen = torch.as_tensor(target, device=logits.device)
    whole = not chosen.is_floating_point() and chosen.dtype != torch.bool
    if not whole or chosen.shape not in ((), (count,)):
        raise ConfigError(
            f"There is no class {target!r} for each of {count} images.",
            f"The target is a whole number, or a tensor of shape ({count},).",
        )
    outside = chosen[(chosen < 0) | (chosen >= classes)]
    if outside.numel():
        raise ConfigError(
            f"There is no class {int(outside.flatten()[0])}.",
            f"The network has {classes} classes, from 0 to {classes - 1}.",
        )
    return chosen.long().expand(count)
