"""Where a network looks: heat maps of one of its maps for one of its classes.

Captum's ``LayerGradCam`` takes the second dimension of a map for its channels, which in Swin is the
height, and it has no Layer-CAM; ``grad-cam`` has both and needs OpenCV.
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
    """Grad-CAM: where a class's evidence lies in a map of the network.

    Selvaraju et al. 2017 (arXiv:1610.02391), equations 1 and 2: the map's channels, each weighted
    with the mean over its pixels of the gradient of the class's logit, summed; what is below zero
    becomes zero.

    Args:
        model: A network of the zoo. It computes in eval mode, and gets its own mode back; its
            parameters' gradients are left alone.
        images: (N, in_chans, H, W), transformed.
        target: The class, for all images or (N,) one for each; None takes each image's most
            probable one.
        layer: The map: the number of a stage, from 1, or from the end as -1, for the map after it;
            or the name of a module in `model` that gives a map, for its output. None is the last
            map before the pooling.

    Returns:
        (N, h, w), of the map's own size, from 0, in units of the logit times pixels; not
        normalized, so that images can be compared.

    Raises:
        ConfigError: No such class or layer, images of a wrong shape, or a layer that gives no map
            or runs more than once.
        WeightsError: The logits are not finite.
        DataError: They are not, and the images are not.
    """
    return class_maps(model, images, target=target, layer=layer)[2]


def layer_cam(
    model: Classifier,
    images: Tensor,
    *,
    target: int | Tensor | None = None,
    layer: int | str | None = None,
) -> Tensor:
    """Layer-CAM: Grad-CAM with a weight for each pixel, which holds for early layers too.

    Jiang et al. 2021, "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization"
    (IEEE Transactions on Image Processing 30): each value of the map is weighted with its own
    gradient where that is positive; channels are summed, and what is below zero becomes zero.

    Arguments, result and errors are those of `grad_cam`.
    """
    return class_maps(model, images, target=target, layer=layer)[3]


def class_maps(
    model: Classifier, images: Tensor, *, target: int | Tensor | None, layer: int | str | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits (N, K), the target (N,), Grad-CAM and Layer-CAM; the arguments are `grad_cam`'s."""
    weight = next(model.parameters())
    # Also for a caller in inference mode, where nothing has gradients.
    model = evaluated(model)
    with torch.inference_mode(False), torch.enable_grad():
        images = images.detach().to(weight.device, weight.dtype, copy=True)
        model.check_input(images)
        if layer is None and not model.levels():  # a network of a caller's own
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
    """The map after a stage, as a leaf, and the logits. Nothing before the map has a graph."""
    levels = model.levels()
    count = len(levels)
    stage = -1 if layer is None else layer
    if isinstance(stage, bool) or not isinstance(stage, int) or not 1 <= abs(stage) <= count:
        raise ConfigError(
            f"There is no stage {stage!r} to look at.",
            f"The network has {count} stages, 1 to {count}, or from the end -1 to -{count}.",
            "Leave the layer out for the last map",
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
    """The output of a module, as a leaf, the logits, and the output's layout."""
    modules = {path: module for path, module in model.named_modules() if path}
    if name not in modules:
        raise ConfigError(
            f"There is no layer {name!r} to look at.",
            "A layer is a stage by its number, or a module by its name in model.named_modules().",
            nearest(name, modules),
        )
    leaves: list[Tensor] = []

    def unfit(why: str) -> ConfigError:
        remedy = "Name another, or a stage by its number"
        return ConfigError(f"The layer {name!r} can't be looked at.", why, remedy)

    def cut(module: nn.Module, args: object, out: object) -> Tensor:
        if leaves:
            raise unfit("It runs more than once for an image.")
        if not isinstance(out, Tensor) or out.ndim != 4:
            raise unfit("It gives no map of height, width and channels.")
        leaf, rest = _leaf(out)
        leaves.append(leaf)
        return rest

    modules[name].register_forward_hook(cut)  # of a copy, which goes with it
    logits = model(images)
    if not leaves:
        raise unfit("The network does not run it in eval mode.")
    # Swin's are (N, h, w, C) wherever they are not a convolution's.
    return leaves[0], logits, "nchw" if isinstance(modules[name], nn.Conv2d) else model.layout


def _leaf(x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` as the begin of a graph, and what goes on: a copy, which may be overwritten in place."""
    leaf = x.detach().clone().requires_grad_()
    return leaf, leaf.clone()


def _target(target: int | Tensor | None, logits: Tensor) -> Tensor:
    """(N,), the class of each image."""
    count, classes = logits.shape
    if target is None:
        return logits.detach().argmax(1)
    chosen = torch.as_tensor(target, device=logits.device)
    whole = not chosen.is_floating_point() and chosen.dtype != torch.bool
    if not whole or chosen.shape not in ((), (count,)):
        raise ConfigError(
            f"There is no class {target!r} for each of {count} images.",
            f"The target is one whole number, or a tensor of shape ({count},) of them.",
        )
    outside = chosen[(chosen < 0) | (chosen >= classes)]
    if outside.numel():
        raise ConfigError(
            f"There is no class {int(outside.flatten()[0])}.",
            f"The network has {classes} classes, from 0 to {classes - 1}.",
        )
    return chosen.long().expand(count)
