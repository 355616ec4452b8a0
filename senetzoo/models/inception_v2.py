"""Inception v2: factorized convolutions.

Szegedy et al. 2015, "Rethinking the Inception Architecture for Computer Vision"
(arXiv:1512.00567), Table 1; batch norm and ReLU follow every convolution, and no dropout is
mentioned. The table gives the size of each row's input and leaves three things open.

- It marks one convolution as padded and says that no other is, but its last one keeps the size of
  35x35, so it is padded here as well. The sizes of all other rows are consistent.
- The table refers to the modules as Fig. 5, 6 and 7, the text as "factorized", 5 and 6: the table
  is right. A module that reduces the grid (Fig. 10) comes before the 17x17 and the 8x8 modules.
- The widths inside the modules were in a file of the submission. Those below are our choice. They
  add up to the table's 288, 768, 1280 and 2048 channels, and are those of Inception v3's published
  code where its branches are the same. They give 24.9 million parameters (abstract: less than 25
  million) and 6.1 billion multiply-adds (Table 3: 4.8 billion).

Common libraries don't have this network; the child names are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from torch import nn

from senetzoo.models.family import SZEGEDY_2015, Family
from senetzoo.models.inception import Concat, Inception, conv, path
from senetzoo.nn.classifier import Config

# Table 1 up to the modules; all kernels are 3x3.
STEM = (
    # type stride padding channels; size of the input
    ("conv", 2, 0, 32),  # 299x299x3
    ("conv", 1, 0, 32),  # 149x149x32
    ("conv", 1, 1, 64),  # 147x147x32, "padded"
    ("pool", 2, 0, 64),  # 147x147x64
    ("conv", 1, 0, 80),  # 73x73x64
    ("conv", 2, 0, 192),  # 71x71x80
    ("conv", 1, 1, 288),  # 35x35x192
)


@dataclass(frozen=True, kw_only=True)
class InceptionV2Config(Config):
    """An Inception v2.

    With ``stem="cifar"`` a single padded 3x3 convolution of 288 channels and stride 1 replaces all
    layers before the modules. The maps of a 32x32 image are then 32x32, 15x15 and 7x7.
    """

    sizes = MappingProxyType({"imagenet": 299, "cifar": 32})
    has_branches: ClassVar[bool] = False

    @property
    def min_size(self) -> int:
        # The two unpadded reductions need seven pixels, for which the stem needs 75.
        return 7 if self.small else 75

    def build(self) -> Inception:
        stem, inputs = nn.Sequential(), self.in_chans
        for kind, stride, padding, width in (("conv", 1, 1, 288),) if self.small else STEM:
            pools = kind == "pool"
            layer = nn.MaxPool2d(3, stride) if pools else conv(inputs, width, 3, stride, padding)
            stem.append(layer)
            inputs = width
        layers = {
            "stem": stem,
            "stage1": nn.Sequential(figure5(), figure5(), figure5()),
            "stage2": nn.Sequential(
                figure10(288, (128, 384), (64, 96)),
                *(figure6(width) for width in (128, 128, 160, 160, 192)),
            ),
            "stage3": nn.Sequential(
                figure10(768, (192, 320), (192, 192)), figure7(1280), figure7(2048)
            ),
        }
        return Inception(self, layers, ("stage2", "stage3"), (288, 768, 2048), init="fan_out")


def module(inputs: int, outputs: int, *branches: nn.Module) -> Concat:
    """Parallel branches, which are numbered children of ``branches``."""
    inner = Concat({str(index): branch for index, branch in enumerate(branches)})
    return Concat({"branches": inner}, (inputs, outputs))


def expanded(inputs: int, outputs: int) -> Concat:
    """Parallel 1x3 and 3x1 convolutions: the expanded filter banks of Fig. 7."""
    return Concat({"wide": conv(inputs, outputs, (1, 3)), "high": conv(inputs, outputs, (3, 1))})


def around(inputs: int, outputs: int) -> nn.Module:
    """An average pool that keeps the size, and a 1x1 convolution."""
    return path(inputs, nn.AvgPool2d(3, 1, padding=1), (outputs, 1))


def figure5() -> Concat:
    """Fig. 5: two 3x3 convolutions instead of a 5x5."""
    return module(
        288,
        288,
        path(288, (64, 1), wrap=True),
        path(288, (48, 1), (64, 3)),
        path(288, (64, 1), (96, 3), (96, 3)),
        around(288, 64),
    )


def figure6(width: int) -> Concat:
    """Fig. 6 with n = 7: a 1x7 and a 7x1 convolution instead of a 7x7."""
    wide, high = (1, 7), (7, 1)
    return module(
        768,
        768,
        path(768, (192, 1), wrap=True),
        path(768, (width, 1), (width, wide), (192, high)),
        path(768, (width, 1), (width, wide), (width, high), (width, wide), (192, high)),
        around(768, 192),
    )


def figure7(inputs: int) -> Concat:
    """Fig. 7: expanded filter banks."""
    return module(
        inputs,
        2048,
        path(inputs, (320, 1), wrap=True),
        path(inputs, (384, 1), expanded(384, 384)),
        path(inputs, (448, 1), (384, 3), expanded(384, 384)),
        around(inputs, 192),
    )


def figure10(inputs: int, single: tuple[int, int], double: tuple[int, int]) -> Concat:
    """Fig. 10: reduces the grid with unpadded convolutions and a pool without projection.

    Args:
        inputs: Input channels.
        single: Channels of the 1x1 and of the 3x3 convolution.
        double: Channels of the 1x1 and of both 3x3 convolutions.
    """
    return module(
        inputs,
        single[1] + double[1] + inputs,
        path(inputs, (single[0], 1), (single[1], 3, 2, 0)),
        path(inputs, (double[0], 1), (double[1], 3), (double[1], 3, 2, 0)),
        nn.MaxPool2d(3, 2),
    )


FAMILY = Family(
    title="Inception v2",
    papers={"*": SZEGEDY_2015},
    small="One 3x3 convolution of 288 channels and stride 1 replaces the stem: the last map is "
    "7x7.",
    networks={"inception_v2": InceptionV2Config()},
)
