"""What SE adds, against the tables of its paper (arXiv:1709.01507, TPAMI version) and formulas.

The paper's rounded counts agree only where the running statistics of the batch norms are counted
too: `printed` does.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from support.networks import learnable, on_meta
from torch import nn

from senetzoo import SE, Policy, stage
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.counting import count
from senetzoo.nn.slots import Position
from senetzoo.zoo import create

# Blocks and output channels of the stages of ResNet-50.
DEPTHS, OUTPUTS, WIDTHS = (3, 4, 6, 3), (256, 512, 1024, 2048), (64, 128, 256, 512)
RESNET50 = 25_557_032


def built(name: str, policy: Policy | None = None) -> Classifier:
    model = on_meta(lambda: create(name, policy=policy, seed=0))
    return model


def added(channels: Iterable[int], reduction: int, bias: bool) -> int:
    """2 C C/r weights for each block (Eq. 5), and C + C/r biases."""
    return sum(2 * c * (c // reduction) + (c + c // reduction if bias else 0) for c in channels)


def channels_of(position: Position, stages: Iterable[int] = (1, 2, 3, 4)) -> list[int]:
    found: list[int] = []
    for number in stages:
        index = number - 1
        if position == "pre":
            first = OUTPUTS[index - 1] if index else 64
            found += [first] + [OUTPUTS[index]] * (DEPTHS[index] - 1)
        else:
            found += [(WIDTHS if position == "inner" else OUTPUTS)[index]] * DEPTHS[index]
    return found


def printed(model: nn.Module) -> float:
    """Millions, as the paper counts: with running means and variances, without counters."""
    statistics = sum(b.numel() for b in model.buffers() if b.is_floating_point())
    return round((learnable(model) + statistics) / 1e6, 1)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("position", ["standard", "pre", "post", "identity", "inner"])
def test_added_parameters(position: Position, bias: bool) -> None:
    model = built("resnet50", SE(bias=bias).at(position))
    assert learnable(model) - RESNET50 == added(channels_of(position), 16, bias)


@pytest.mark.parametrize(
    ("reduction", "millions"),
    # For r = 8 the paper prints 30.7. It is 30.64; with biases 30.66, but then r = 2 is 45.75.
    [(2, 45.7), (4, 35.7), (8, 30.6), (16, 28.1), (32, 26.9)],
)
def test_table_10_reduction(reduction: int, millions: float) -> None:
    assert printed(built("resnet50", SE(reduction, bias=False))) == millions


@pytest.mark.parametrize(
    # The paper counts stages from 2, which is our 1.
    ("stages", "millions"),
    [((1,), 25.6), ((2,), 25.7), ((3,), 26.4), ((1, 2, 3, 4), 28.1)],
)
def test_table_13_stages(stages: tuple[int, ...], millions: float) -> None:
    model = built("resnet50", SE(bias=False).on(stage(*stages)))
    assert learnable(model) - RESNET50 == added(channels_of("standard", stages), 16, False)
    assert printed(model) == millions


def test_table_15_inside_the_block() -> None:
    assert printed(built("resnet50", SE(bias=False))) == 28.1
    assert printed(built("resnet50", SE(bias=False).at("inner"))) == 25.8


def test_section_4_the_last_stage() -> None:
    """Section 4: about 10 % more parameters, about 4 % without those of the last stage."""
    whole = added(channels_of("standard"), 16, False)
    assert round(100 * whole / RESNET50) == 10
    without = added(channels_of("standard", (1, 2, 3)), 16, False)
    assert learnable(built("resnet50", SE(bias=False).on(~stage(4)))) - RESNET50 == without
    assert round(100 * without / RESNET50) == 4


VGG16 = [64, 64, 128, 128, *[256] * 3, *[512] * 6]
BN_INCEPTION = [256, 320, 576, 576, 576, 608, 608, 1056, 1024, 1024]


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("vgg16", VGG16),
        ("vgg16_bn", VGG16),
        ("mobilenet_v1", [64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]),
        ("bn_inception", BN_INCEPTION),
        # 5b; ten blocks, 6a; twenty blocks, 7a; ten blocks.
        ("inception_resnet_v2", [*[320] * 11, *[1088] * 21, *[2080] * 11]),
    ],
)
def test_other_networks(name: str, channels: list[int]) -> None:
    plain, gated = built(name), built(f"se_{name}")
    assert sorted(s.channels for s in plain.sites() if s.position == "standard") == sorted(channels)
    assert learnable(gated) - learnable(plain) == added(channels, 16, bias=True)
    # A gate's two products; the scaling itself is no product of matrices.
    assert count(gated).macs - count(plain).macs == added(channels, 16, bias=False)


def test_table_3_mobilenet() -> None:
    assert round(learnable(built("mobilenet_v1")) / 1e6, 1) == 4.2
    assert round(learnable(built("se_mobilenet_v1")) / 1e6, 1) == 4.7
    # After the depthwise convolutions, the other place for it, it would not have been 4.7 M.
    assert round(learnable(built("mobilenet_v1", SE().at("inner"))) / 1e6, 1) == 4.6


@pytest.mark.parametrize(
    ("name", "sides", "billions"),
    [
        ("vgg16_bn", [*[224] * 2, *[112] * 2, *[56] * 3, *[28] * 3, *[14] * 3], 15.48),
        ("mobilenet_v1", [112, 56, 56, 28, 28, *[14] * 6, 7, 7], 0.572),
    ],
)
def test_tables_2_and_3_count_the_scaling_of_the_maps(
    name: str, sides: list[int], billions: float
) -> None:
    gated = built(f"se_{name}")
    widths = [site.channels for site in gated.sites() if site.position == "standard"]
    scaled = sum(width * side**2 for width, side in zip(widths, sides, strict=True))
    digits = len(str(billions).partition(".")[2])
    assert round((count(gated).macs + scaled) / 1e9, digits) == billions
