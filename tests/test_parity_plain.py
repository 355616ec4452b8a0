"""The plain networks: torchvision's ResNet without its sums, and those for CIFAR written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.networks import (
    calibrate_on_next_batch,
    learnable,
    on_meta,
    randomize,
    relative_error,
)
from support.parity import SAME, TOLERANCE, compare
from torch import Tensor, nn
from torch.nn import functional

from senetzoo import SE, attach, block, create, stage
from senetzoo._utils.torchvision import import_torchvision
from senetzoo.nn.counting import count


def without_sums(depths: list[int]) -> nn.Module:
    """torchvision's ResNet, of blocks that have neither a projection nor a sum."""
    import_torchvision()
    from torchvision.models.resnet import BasicBlock, ResNet

    class Straight(BasicBlock):  # type: ignore[misc]
        def __init__(
            self,
            inplanes: int,
            planes: int,
            stride: int = 1,
            downsample: object = None,
            *rest: Any,
            **options: Any,
        ) -> None:
            super().__init__(inplanes, planes, stride, None, *rest, **options)

        def forward(self, x: Tensor) -> Tensor:
            for conv, bn in ((self.conv1, self.bn1), (self.conv2, self.bn2)):
                x = self.relu(bn(conv(x)))
            return x

    model: nn.Module = ResNet(Straight, depths)
    return model


@pytest.mark.parametrize(("name", "depths"), [("plain18", [2, 2, 2, 2]), ("plain34", [3, 4, 6, 3])])
def test_torchvision_without_its_sums(name: str, depths: list[int]) -> None:
    compare(
        lambda: create(name, seed=0),
        lambda: without_sums(depths),
        SAME,
        gradients=name == "plain18",
        record=(name, f"torchvision {name.replace('plain', 'resnet')} without its sums"),
    )


@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_cifar_written_out(depth: int) -> None:
    model = create(f"plain{depth}", seed=0).double()
    randomize(model)
    calibrate_on_next_batch(model)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        model(x)
        model.eval()
        state = model.state_dict()

        def layer(x: Tensor, path: str, number: int, stride: int = 1) -> Tensor:
            weight = state[f"{path}conv{number}.weight"]
            mean, var, scale, shift = (
                state[f"{path}bn{number}.{part}"][:, None, None]
                for part in ("running_mean", "running_var", "weight", "bias")
            )
            x = functional.conv2d(x, weight, stride=stride, padding=1)
            out: Tensor = ((x - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)
            return out

        y = layer(x, "", 1)
        for level, side in ((1, 32), (2, 16), (3, 8)):
            for number in range((depth - 2) // 6):
                path = f"layer{level}.{number}."
                y = layer(y, path, 1, 2 if level > 1 and number == 0 else 1)
                y = layer(y, path, 2)
            assert y.shape == (2, 8 * 2**level, side, side)
        expected = y.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]
        assert relative_error(model(x), expected) < TOLERANCE


def parameters(depths: tuple[int, ...], width: int, classes: int, stem: int) -> int:
    """Of 3x3 convolutions after a `stem` x `stem` one, each with a scale and a shift."""
    channels = [width * 2**index for index in range(len(depths))]
    total = stem**2 * 3 * width + 2 * width
    before = width
    for depth, after in zip(depths, channels, strict=True):
        total += 9 * before * after + (2 * depth - 1) * 9 * after**2 + 2 * depth * 2 * after
        before = after
    return total + before * classes + classes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain18", parameters((2, 2, 2, 2), 64, 1000, stem=7)),
        ("plain34", parameters((3, 4, 6, 3), 64, 1000, stem=7)),
        *((f"plain{6 * n + 2}", parameters((n, n, n), 16, 10, stem=3)) for n in (3, 5, 7, 9)),
    ],
)
def test_parameters_are_the_resnets_less_its_projections(name: str, expected: int) -> None:
    plain = on_meta(lambda: create(name, seed=0))
    assert learnable(plain) == expected
    resnet = on_meta(lambda: create(name.replace("plain", "resnet"), seed=0))
    projections = [m for path, m in resnet.named_modules() if path.endswith("downsample")]
    assert len(projections) == (3 if expected > 1e7 else 2)
    assert learnable(resnet) - sum(learnable(module) for module in projections) == expected
    # The depth of the name is its number of layers with weights.
    layers = [m for m in plain.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == int(name.removeprefix("plain"))


@pytest.mark.parametrize(("name", "billions"), [("plain18", 1.8), ("plain34", 3.6)])
def test_macs_of_table_1(name: str, billions: float) -> None:
    assert round(count(create(name, seed=0)).macs / 1e9, 1) == billions


def test_sites() -> None:
    """A block without a skip has nothing to put on one, and nothing to add after."""
    sites = create("plain18", seed=0).sites()
    assert [(s.path, s.channels) for s in sites if s.stage == 2 and s.block == 1] == [
        ("layer2.0.slots.pre", 64),
        ("layer2.0.slots.standard", 128),
        ("layer2.0.slots.inner", 128),
    ]


def test_gate_comes_after_the_activation() -> None:
    """`standard` of a unit is its output."""
    model = create("plain20", seed=0).double().eval()
    x = torch.randn(1, 3, 8, 8).double()
    with torch.no_grad():
        before = model.feature_maps(x)[0]
        (gate,) = attach(model, SE().on(stage(1) & block(-1)), seed=0).values()
        model.double()
        after = model.feature_maps(x)[0]
        assert torch.equal(after, gate(before))
    assert not torch.equal(after, before)
