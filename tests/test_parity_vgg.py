"""VGG against torchvision, and against Table 1 of its paper where torchvision has no network."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from support import networks
from support.networks import message, randomize, relative_error
from torch import Tensor, nn

from senetzoo.errors import ConfigError
from senetzoo.models.vgg import VGG
from senetzoo.nn.counting import count

# Table 1, with the kernel size before the channels, and M for a pool.
TABLE = {
    "vgg11": "3-64 M 3-128 M 3-256 3-256 M 3-512 3-512 M 3-512 3-512 M",
    "vgg11_lrn": "3-64 LRN M 3-128 M 3-256 3-256 M 3-512 3-512 M 3-512 3-512 M",
    "vgg13": "3-64 3-64 M 3-128 3-128 M 3-256 3-256 M 3-512 3-512 M 3-512 3-512 M",
    "vgg16_c": "3-64 3-64 M 3-128 3-128 M 3-256 3-256 1-256 M 3-512 3-512 1-512 M "
    "3-512 3-512 1-512 M",
    "vgg16": "3-64 3-64 M 3-128 3-128 M 3-256 3-256 3-256 M 3-512 3-512 3-512 M "
    "3-512 3-512 3-512 M",
    "vgg19": "3-64 3-64 M 3-128 3-128 M 3-256 3-256 3-256 3-256 M 3-512 3-512 3-512 3-512 M "
    "3-512 3-512 3-512 3-512 M",
}
BATCH_NORMS = [name for name in TABLE if name != "vgg11_lrn"]


build = partial(networks.built, VGG)
skeleton = partial(networks.skeleton, VGG)


# --- Tables --------------------------------------------------------------------------------------


def rows(name: str) -> list[str]:
    return TABLE[name.removesuffix("_bn")].split()


@pytest.mark.parametrize("name", [*TABLE, *(f"{name}_bn" for name in BATCH_NORMS)])
def test_layers_of_the_papers_table(name: str) -> None:
    model = skeleton(name)
    seen: list[tuple[str, int, int]] = []

    def see(module: nn.Module, _: object, y: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            row = f"{module.kernel_size[0]}-{module.out_channels}"
        else:
            row = "M" if isinstance(module, nn.MaxPool2d) else "LRN"
        seen.append((row, y.shape[1], y.shape[2]))

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.LocalResponseNorm)):
            module.register_forward_hook(see)
    model(torch.empty(1, 3, 224, 224, device="meta"))
    expected = []
    channels, side = 3, 224
    for row in rows(name):
        if "-" in row:
            channels = int(row.split("-")[1])
        elif row == "M":
            side //= 2
        expected.append((row, channels, side))
    assert seen == expected
    # "Weight layers" of Table 1: the number in the name.
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == int(name[3:5])


def test_macs_of_c() -> None:
    less = 8 * (256**2 * 56**2 + 512**2 * (28**2 + 14**2))
    assert count(skeleton("vgg16")).macs - count(skeleton("vgg16_c")).macs == less


# --- Dense evaluation ----------------------------------------------------------------------------


def test_dense_is_the_average_over_all_windows() -> None:
    model = build("vgg11", head="dense", hidden=16, num_classes=5).double().eval()
    randomize(model)
    features = torch.randn(2, 512, 9, 8, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        scores = [
            model.classifier(features[:, :, i : i + 7, j : j + 7].flatten(1))
            for i in range(3)
            for j in range(2)
        ]
        expected = torch.stack(scores).mean(0)
        assert relative_error(model.forward_head(features), expected) < 1e-12
        # Which the pool to 7x7 is not, except for maps of 7x7.
        pooled = build("vgg11", hidden=16, num_classes=5).double().eval()
        pooled.load_state_dict(model.state_dict())
        assert relative_error(pooled.forward_head(features), expected) > 1e-2
        features = features[:, :, :7, :7]
        expected = pooled.forward_head(features)
        assert relative_error(model.forward_head(features), expected) < 1e-12


def test_dense_takes_any_size_from_224() -> None:
    model = skeleton("vgg16", head="dense")
    assert model(torch.empty(2, 3, 256, 384, device="meta")).shape == (2, 1000)
    assert message(lambda: model(torch.empty(2, 3, 223, 384, device="meta")), ConfigError) == (
        "The network got images of 223x384 pixels.\n"
        "This VGG takes at least 224x224.\n"
        'Build it with stem="cifar", or enlarge the images'
    )


# --- Forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vgg11", "vgg11_lrn", "vgg16_c_bn", "vgg19"])
def test_small_form_has_one_linear_layer(name: str) -> None:
    model = skeleton(name, stem="cifar", num_classes=10)
    linear = [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)]
    assert linear == [(512, 10)]
    # The convolutions have the names that they have in the network for 224 pixels.
    trunk = {key for key in skeleton(name).state_dict() if key.startswith("features.")}
    assert {key for key in model.state_dict() if key.startswith("features.")} == trunk


def test_no_dropout() -> None:
    for changes in ({"stem": "cifar"}, {"stem": "imagenet"}):
        model = skeleton("vgg11", dropout=0, **changes)
        assert not any(isinstance(module, nn.Dropout) for module in model.modules())
        assert list(model.state_dict()) == list(skeleton("vgg11", **changes).state_dict())
