"""Grad-CAM and Layer-CAM against Captum, against other formulas, and by their properties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import skimage
import torch
from captum.attr import LayerGradCam
from PIL import Image
from support.networks import (
    SMALL,
    calibrate_on_next_batch,
    message,
    randomize,
    reduced,
    relative_error,
    tiny,
)
from torch import Tensor, nn

import senetzoo
from senetzoo import SE
from senetzoo.errors import ConfigError, DataError, WeightsError
from senetzoo.inspect import grad_cam, layer_cam
from senetzoo.nn.classifier import Classifier

CLASSES = 7
# Of the three images.
TARGETS = torch.tensor([0, 2, 5])


def settled(name: str) -> tuple[Classifier, Tensor]:
    """A small network of a family, with gates, in eval mode, and images for it."""
    still = reduced(name).replace(num_classes=CLASSES, stem="cifar", dropout=0.0, drop_path=0.0)
    model = still.replace(policy=SE(4)).build(seed=0).double()
    size = max(16, model.min_size)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, model.in_chans, size, size, generator=generator).double()
    calibrate_on_next_batch(model)
    with torch.no_grad():
        model(x)
    return model.eval(), x


class Cut(nn.Module):
    """The network, whose map after a stage (from 1), as NCHW, is the output of the child `map`."""

    def __init__(self, model: Classifier, stage: int) -> None:
        super().__init__()
        self.model = model
        self.stage = stage
        self.map = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        nhwc = self.model.layout == "nhwc"
        for number, level in enumerate(self.model.levels(), 1):
            x = level(x)
            if number == self.stage:
                # A copy, which a network that overwrites its input may have.
                y = self.map(x.permute(0, 3, 1, 2) if nhwc else x).clone()
                x = y.permute(0, 2, 3, 1) if nhwc else y
        return self.model.forward_head(x.permute(0, 3, 1, 2) if nhwc else x)


def by_hand(
    cut: Cut, x: Tensor, target: int
) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Map and gradient (C, h, w) of each image, one image at a time."""
    found = []
    for image in x:
        kept: list[Tensor] = []
        handle = cut.map.register_forward_hook(lambda _m, _a, out, kept=kept: kept.append(out))
        logits = cut(image[None])
        handle.remove()
        (gradient,) = torch.autograd.grad(logits[0, target], kept[0])
        found.append((kept[0][0].detach().numpy(), gradient[0].numpy()))
    return found


def check_against_captum(name: str, *stages: int) -> None:
    model, x = settled(name)
    for stage in stages:
        cut = Cut(model, stage % (len(model.levels()) + 1))
        captum = LayerGradCam(cut, cut.map)
        theirs = captum.attribute(x, TARGETS, relu_attributions=True)[:, 0]
        assert relative_error(grad_cam(model, x, target=TARGETS, layer=stage), theirs) < 1e-9
    if -1 in stages:
        last = grad_cam(model, x, target=TARGETS, layer=-1)
        assert torch.equal(grad_cam(model, x, target=TARGETS), last)


# The last maps of these are slow too; BN-Inception stands for its kind.
HEAVY = ("inception_v2", "inception_v3", "inception_v4", "inception_resnet_v1", "senet154")
KINDS = [
    pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in SMALL.values()
]


@pytest.mark.parametrize("name", KINDS)
def test_grad_cam_equals_captums(name: str) -> None:
    check_against_captum(name, *((1, 2, -1) if name in ("resnet20", "swin_t") else (-1,)))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL.values())
def test_grad_cam_of_the_first_stage_equals_captums(name: str) -> None:
    check_against_captum(name, 1)


@pytest.mark.parametrize("name", ["resnet20", "swin_t", "densenet40_12"])
def test_layer_cam_by_hand(name: str) -> None:
    model, x = settled(name)
    for stage in range(1, len(model.levels()) + 1):
        ours = layer_cam(model, x, target=2, layer=stage)
        for image, (values, gradient) in enumerate(by_hand(Cut(model, stage), x, 2)):
            expected = np.zeros(values.shape[1:])
            for k in range(len(values)):
                expected += np.where(gradient[k] > 0, gradient[k], 0) * values[k]
            expected = np.where(expected > 0, expected, 0)
            assert ours[image].shape == expected.shape
            np.testing.assert_allclose(
                ours[image].numpy(), expected, atol=1e-9 * expected.max(), rtol=1e-9
            )


def test_the_gradient_is_that_of_finite_differences() -> None:
    """The reference uses finite differences instead of autograd."""
    model, x = settled("swin_t")
    with torch.no_grad():
        features = model.forward_features(x[:1])
        channels = []
        for k in range(features.shape[1]):
            step = torch.zeros_like(features)
            step[0, k] = 1e-5
            up, down = (model.forward_head(features + s)[0, 3] for s in (step, -step))
            # All pixels of a channel at once: the sum of the gradient over them.
            channels.append((up - down) / 2e-5)
        weights = torch.stack(channels) / features[0, 0].numel()
        expected = torch.einsum("c,chw->hw", weights, features[0]).relu()
    assert relative_error(grad_cam(model, x[:1], target=3)[0], expected) < 1e-6


def test_behind_average_pooling_it_is_cam() -> None:
    """Zhou et al. 2016 (arXiv:1512.04150): the classifier's own weights; Selvaraju, Section 3.1."""
    model = tiny("bottleneck").double().eval()
    randomize(model)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        features = model.forward_features(x)
        weight = model.get_submodule("fc").weight
        assert isinstance(weight, Tensor)
        for target in range(5):
            cam = torch.einsum("c,nchw->nhw", weight[target], features).relu()
            pixels = features.shape[2] * features.shape[3]
            ours = grad_cam(model, x, target=target)
            torch.testing.assert_close(ours * pixels, cam, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "layer", "stage"),
    [("resnet20", "layer2.2", 2), ("swin_t", "features.3.1", 2), ("vgg11", "features.2", 1)],
)
def test_a_module_by_its_name(name: str, layer: str, stage: int) -> None:
    model, x = settled(name)
    for method in (grad_cam, layer_cam):
        named = method(model, x, target=1, layer=layer)
        assert relative_error(named, method(model, x, target=1, layer=stage)) < 1e-12


def test_maps_inside_blocks() -> None:
    """Also before an activation that overwrites its input, and of Swin's one convolution."""
    model, x = settled("swin_t")
    layer = model.get_submodule("features.0.0")
    theirs = LayerGradCam(model, layer).attribute(x, 4, relu_attributions=True)[:, 0]
    assert relative_error(grad_cam(model, x, target=4, layer="features.0.0"), theirs) < 1e-9
    model, x = settled("resnet20")
    layer = model.get_submodule("layer2.0.bn1")
    model.get_submodule("layer2.0").relu = nn.ReLU()
    theirs = LayerGradCam(model, layer).attribute(x, 4, relu_attributions=True)[:, 0]
    model.get_submodule("layer2.0").relu = nn.ReLU(inplace=True)
    assert relative_error(grad_cam(model, x, target=4, layer="layer2.0.bn1"), theirs) < 1e-9


def test_targets() -> None:
    model, x = settled("resnet20")
    best = model(x).argmax(1)
    own = torch.stack([grad_cam(model, x, target=int(k))[n] for n, k in enumerate(best)])
    for target in (None, best, best.int()):
        torch.testing.assert_close(grad_cam(model, x, target=target), own)
    # The map of an image doesn't depend on the other images of its batch.
    alone = torch.cat([grad_cam(model, image[None], target=2) for image in x])
    torch.testing.assert_close(grad_cam(model, x, target=2), alone)


@pytest.mark.parametrize("layer", [None, "layer3.0.conv1"])
def test_the_network_is_left_as_it_was(layer: str | None) -> None:
    model, x = settled("resnet20")
    model.train()
    model.get_submodule("layer1").eval()
    model.get_submodule("fc").requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    kept = x.clone().requires_grad_()
    plain = grad_cam(model, kept, layer=layer)
    assert not plain.requires_grad
    with pytest.raises(ConfigError, match="It takes images of shape"):
        grad_cam(model, x[:, :2], layer=layer)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert kept.grad is None
    assert all(parameter.grad is None for parameter in model.parameters())
    for surrounding in (torch.no_grad(), torch.inference_mode()):
        with surrounding:
            torch.testing.assert_close(grad_cam(model, x + 0, layer=layer), plain)
    model.requires_grad_(False)
    torch.testing.assert_close(grad_cam(model, x, layer=layer), plain)


STAGES = (
    "The network has 3 stages, 1 to 3, or from the end -1 to -3.\nLeave out layer for the last map"
)
MORE = "Use another layer, or the number of a stage"
NAMES = "A layer is the number of a stage, or the name of a module in model.named_modules()."


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (0, f"There is no stage 0 to look at.\n{STAGES}"),
        (-4, f"There is no stage -4 to look at.\n{STAGES}"),
        (True, f"There is no stage True to look at.\n{STAGES}"),
        (2.0, f"There is no stage 2.0 to look at.\n{STAGES}"),
        ("layr2", f"There is no layer 'layr2' to look at.\n{NAMES}\nDid you mean 'layer2'?"),
        ("", f"There is no layer '' to look at.\n{NAMES}"),
        ("layer1.0.relu", "The layer 'layer1.0.relu' can't be looked at.\n"
         f"It runs more than once for an image.\n{MORE}"),
        ("fc", "The layer 'fc' can't be looked at.\n"
         f"It doesn't return a map of height, width and channels.\n{MORE}"),
    ],
)  # fmt: skip
def test_layers_that_are_not_there(layer: int | str, text: str) -> None:
    model, x = settled("resnet20")
    assert message(lambda: grad_cam(model, x, layer=layer), ConfigError) == text
    assert not any(module._forward_hooks for module in model.modules())


def test_a_layer_that_does_not_run() -> None:
    model = senetzoo.config("googlenet").replace(aux=True, stem="cifar").build(seed=0)
    name = next(path for path, _ in model.named_modules() if path.startswith("aux"))
    assert message(lambda: grad_cam(model, torch.randn(1, 3, 32, 32), layer=name), ConfigError) == (
        f"The layer {name!r} can't be looked at.\nThe network doesn't run it in eval mode.\n{MORE}"
    )


def test_classes_that_are_not_there() -> None:
    model, x = settled("resnet20")
    for target, text in [
        (CLASSES, f"There is no class 7.\nThe network has {CLASSES} classes, from 0 to 6."),
        (
            torch.tensor([0, -1, 2]),
            f"There is no class -1.\nThe network has {CLASSES} classes, from 0 to 6.",
        ),
        (
            torch.tensor([1, 2]),
            "There is no class tensor([1, 2]) for each of 3 images.\n"
            "The target is a whole number, or a tensor of shape (3,).",
        ),
        (
            1.5,
            "There is no class 1.5 for each of 3 images.\n"
            "The target is a whole number, or a tensor of shape (3,).",
        ),
    ]:
        with pytest.raises(ConfigError) as caught:
            layer_cam(model, x, target=target)  # type: ignore[arg-type]
        assert str(caught.value) == text


def test_logits_that_are_not_finite() -> None:
    model, x = settled("resnet20")
    with pytest.raises(DataError, match="The images have values that aren't finite"):
        grad_cam(model, x * torch.nan)
    nn.init.constant_(next(model.parameters()), torch.inf)
    with pytest.raises(WeightsError, match="The network returned logits that aren't finite"):
        grad_cam(model, x)


def test_the_heat_is_where_the_cat_is() -> None:
    """A trained network, and a photograph in the left or right half of a gray image."""
    model = senetzoo.create("se_resnet20", pretrained=True)
    transform = senetzoo.transforms(model)
    photograph = Path(skimage.__file__).parent / "data" / "chelsea.png"
    cat = Image.open(photograph).crop((80, 0, 380, 300)).resize((20, 20))
    centers = {}
    for left in (0, 12):
        canvas = Image.new("RGB", (32, 32), (125, 123, 114))
        canvas.paste(cat, (left, 6))
        x = transform(canvas)[None]
        assert model(x).argmax() == 3
        for method in (grad_cam, layer_cam):
            heat = method(model, x)[0].sum(0)
            center = float((heat * torch.arange(8)).sum() / heat.sum())
            centers[method.__name__, left] = center
    for name in ("grad_cam", "layer_cam"):
        assert centers[name, 0] < 3.5 < centers[name, 12]
