"""The plain networks: torchvision's ResNet without its sums, and those for CIFAR written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.parity import SAME, compare, compare_written_out
from torch import Tensor, nn

from senetzoo import SE, attach, block, create, stage
from senetzoo.nn.counting import count


def without_sums(depths: list[int]) -> nn.Module:
    """torchvision's ResNet, of blocks that have neither a projection nor a sum."""
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
    compare_written_out(f"plain{depth}", (depth - 2) // 6, skips=False)


@pytest.mark.parametrize(("name", "billions"), [("plain18", 1.8), ("plain34", 3.6)])
def test_macs_of_table_1(name: str, billions: float) -> None:
    assert round(count(create(name, seed=0)).macs / 1e9, 1) == billions


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
