"""AlexNet against torchvision and pytorchcv, and the network of 2012 against its paper."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from support import networks
from support.networks import on_meta, randomize, relative_error
from torch import Tensor, nn
from torch.nn import functional

from senetzoo import SE
from senetzoo.gates.se import SqueezeExcitation
from senetzoo.models.alexnet import AlexNet

build = partial(networks.built, AlexNet)


def test_2012_written_out() -> None:
    """Every equation of the paper's Section 3, the two GPUs' halves one by one."""
    model = build("alexnet_2012", widths=(6, 8, 8, 8, 4), hidden=12).double().eval()
    randomize(model)
    state = model.state_dict()
    x = 5 * torch.randn(1, 3, 67, 67, generator=torch.Generator().manual_seed(1)).double()

    def conv(x: Tensor, index: int, stride: int = 1, padding: int = 0) -> Tensor:
        weight, bias = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
        return functional.conv2d(x, weight, bias, stride, padding).clamp(min=0)

    def halves(x: Tensor, index: int, padding: int) -> Tensor:
        weight, bias = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
        towers = [
            functional.conv2d(part, w, b, padding=padding)
            for part, w, b in zip(x.chunk(2, 1), weight.chunk(2), bias.chunk(2), strict=True)
        ]
        return torch.cat(towers, 1).clamp(min=0)

    def norm(x: Tensor) -> Tensor:
        channels = x.shape[1]
        scales = []
        for i in range(channels):
            near = x[:, max(0, i - 2) : min(channels - 1, i + 2) + 1]
            scales.append((2 + 1e-4 / 5 * near.square().sum(1)) ** 0.75)
        return x / torch.stack(scales, 1)

    def pool(x: Tensor) -> Tensor:
        rows = [x[:, :, i : x.shape[2] - 2 + i : 2] for i in range(3)]
        tall = torch.stack(rows).amax(0)
        columns = [tall[:, :, :, i : x.shape[3] - 2 + i : 2] for i in range(3)]
        return torch.stack(columns).amax(0)

    y = pool(norm(conv(x, 0, stride=4)))
    y = pool(norm(halves(y, 4, padding=2)))
    y = halves(halves(conv(y, 8, padding=1), 10, padding=1), 12, padding=1)
    y = pool(y).expand(-1, -1, 6, 6).flatten(1)
    for index in (0, 3):
        weight, bias = state[f"classifier.{index}.weight"], state[f"classifier.{index}.bias"]
        y = (y @ weight.T + bias).clamp(min=0)
    y = y @ state["classifier.6.weight"].T + state["classifier.6.bias"]
    with torch.no_grad():
        assert relative_error(model(x), y) < 1e-12
        # The norms matter to what was compared.
        plain = build("alexnet_2012", widths=(6, 8, 8, 8, 4), hidden=12, lrn=False)
        renumbered = zip(plain.state_dict(), state.values(), strict=True)
        plain.double().eval().load_state_dict(dict(renumbered))
        assert relative_error(plain(x), y) > 1e-2


# Channels and side after each layer of Fig. 2 and its text.
LAYERS_2012 = [
    ("conv", 96, 55),
    ("pool", 96, 27),
    ("conv", 256, 27),
    ("pool", 256, 13),
    ("conv", 384, 13),
    ("conv", 384, 13),
    ("conv", 256, 13),
    ("pool", 256, 6),
]
# "The number of neurons in the network's remaining layers" (Fig. 2). The paper prints 253,440 for
# the first, which its own 55 x 55 x 96 is not.
NEURONS_2012 = [290_400, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]


@pytest.mark.parametrize(("size", "padding"), [(227, 0), (224, 2)])
def test_2012_has_the_papers_layers(size: int, padding: int) -> None:
    model = on_meta(lambda: build("alexnet_2012", padding=padding))
    assert model.input_size == size
    shapes: list[tuple[str, int, int]] = []
    neurons: list[int] = []

    def see(module: nn.Module, _: object, y: Tensor) -> None:
        if not isinstance(module, nn.MaxPool2d):
            neurons.append(y[0].numel())
        if not isinstance(module, nn.Linear):
            kind = "pool" if isinstance(module, nn.MaxPool2d) else "conv"
            shapes.append((kind, y.shape[1], y.shape[2]))

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.Linear)):
            module.register_forward_hook(see)
    model(torch.empty(1, 3, size, size, device="meta"))
    assert shapes == LAYERS_2012
    assert neurons == NEURONS_2012


def test_gates_sit_right_after_the_relus() -> None:
    """Before the local response norm, that is; ``pre`` is what the convolution gets."""
    model = build("alexnet_2012", stem="cifar", policy=SE() + SE().at("pre"))
    gates = {name: m for name, m in model.named_modules() if isinstance(m, SqueezeExcitation)}
    assert len(gates) == 10
    order: list[nn.Module] = []
    for module in (*gates.values(), *model.get_submodule("features").children()):
        module.register_forward_pre_hook(lambda module, _: order.append(module))
    model(torch.randn(2, 3, 32, 32))
    expected: list[nn.Module] = []
    units = iter([(1, 0), (2, 0), (3, 0), (3, 1), (3, 2)])
    for layer in model.get_submodule("features").children():
        if isinstance(layer, nn.Conv2d):
            stage, unit = next(units)
            expected.append(gates[f"slots{stage}.{unit}.pre"])
        expected.append(layer)
        if isinstance(layer, nn.ReLU):
            expected.append(gates[f"slots{stage}.{unit}.standard"])
    assert order == expected


def test_dropout_is_where_each_paper_has_it() -> None:
    def layers(name: str, **changes: Any) -> list[str]:
        model = on_meta(lambda: build(name, **changes))
        return [type(layer).__name__ for layer in model.classifier]

    linear = ["Linear", "ReLU"]
    drop, nothing = ["Dropout"], ["Identity"]
    assert layers("alexnet") == [*drop, *linear, *drop, *linear, "Linear"]
    assert layers("alexnet_2012") == [*linear, *drop, *linear, *drop, "Linear"]
    assert layers("alexnet_2012", dropout=0) == [*linear, *nothing, *linear, *nothing, "Linear"]
    for name, first in (("alexnet", 1), ("alexnet_2012", 0)):
        small = on_meta(lambda name=name: build(name, stem="cifar"))  # type: ignore[misc]
        weight = small.get_parameter(f"classifier.{first}.weight")
        assert weight.shape == (1024, 256 * 4 * 4)
