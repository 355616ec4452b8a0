"""Inception v2: factorised convolutions.

Szegedy et al. 2015, "Rethinking the Inception Architecture for Computer Vision"
(arXiv:1512.00567), Table 1; batch norm and ReLU follow every convolution, and no dropout is
mentioned. The table gives the size of each row's input and leaves three things open.

- It marks one convolution as padded and says that no other is, but its last one keeps 35x35
  pixels: it is padded here as well. All other rows chain as they are.
- The table names the modules by Fig. 5, 6 and 7, which the text calls "factorized", 5 and 6: the
  table is right. Before the modules of 17x17 and of 8x8 pixels stands a module that reduces the
  grid, of Fig. 10.
- The widths inside the modules were in a file that went with the submission. Those below are ours.
  They add up to the table's 288, 768, 1280 and 2048 channels, and are those of Inception v3's
  published code where its branches are the same. They come to 24.9 million parameters (abstract:
  less than 25 million) and 6.1 billion multiply-adds (Table 3: 4.8 billion).

No library at hand has this network; child names are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from torch import nn

from senetzoo.models.family import Family, Paper
from senetzoo.models.inception import Concat, Inception, InceptionNetwork, Kernel, conv
from senetzoo.nn.classifier import Config
from senetzoo.nn.init import init_convs

# Table 1 down to the modules; all windows are 3x3.
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

    With ``stem="cifar"`` a single padded 3x3 convolution of 288 channels and stride 1 takes the
    place of all layers before the modules. A 32x32 image then has maps of 32x32, 15x15 and 7x7.
    """

    sizes = MappingProxyType({"imagenet": 299, "cifar": 32})
    has_branches: ClassVar[bool] = False

    @property
    def min_size(self) -> int:
        # Two reductions without padding make one pixel of seven, and the stem seven of 75.
        return 7 if self.small else 75

    def build(self) -> InceptionV2:
        return InceptionV2(self)


def path(inputs: int, *layers: tuple[int, Kernel], stride: int = 1) -> nn.Sequential:
    """Convolutions one after the other, padded unless they reduce the grid.

    Args:
        inputs: Channels in.
        layers: Channels and kernel of each convolution.
        stride: Stride of the last one.
    """
    widths = [inputs, *(width for width, _ in layers)]
    strides = [1] * (len(layers) - 1) + [stride]
    return nn.Sequential(
        *(
            conv(before, width, kernel, step, 0 if step > 1 else "same")
            for before, (width, kernel), step in zip(widths, layers, strides, strict=False)
        )
    )


def expanded(inputs: int, outputs: int) -> Concat:
    """A 1x3 and a 3x1 convolution side by side: the expanded filter banks of Fig. 7."""
    return Concat({"wide": conv(inputs, outputs, (1, 3)), "high": conv(inputs, outputs, (3, 1))})


def module(inputs: int, outputs: int, *branches: nn.Module) -> Inception:
    """Branches side by side, numbered below the child ``branches``."""
    numbered = Concat({str(index): branch for index, branch in enumerate(branches)})
    return Inception(inputs, outputs, {"branches": numbered})


def _pooled(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.AvgPool2d(3, 1, padding=1), conv(inputs, outputs, 1))


def figure5() -> Inception:
    """Fig. 5: two 3x3 convolutions in place of a 5x5."""
    return module(
        288,
        288,
        path(288, (64, 1)),
        path(288, (48, 1), (64, 3)),
        path(288, (64, 1), (96, 3), (96, 3)),
        _pooled(288, 64),
    )


def figure6(width: int) -> Inception:
    """Fig. 6 with n = 7: a 1x7 and a 7x1 convolution in place of a 7x7."""
    wide, high = (1, 7), (7, 1)
    return module(
        768,
        768,
        path(768, (192, 1)),
        path(768, (width, 1), (width, wide), (192, high)),
        path(768, (width, 1), (width, wide), (width, high), (width, wide), (192, high)),
        _pooled(768, 192),
    )


def figure7(inputs: int) -> Inception:
    """Fig. 7: expanded filter banks."""
    return module(
        inputs,
        2048,
        path(inputs, (320, 1)),
        nn.Sequential(*path(inputs, (384, 1)), expanded(384, 384)),
        nn.Sequential(*path(inputs, (448, 1), (384, 3)), expanded(384, 384)),
        _pooled(inputs, 192),
    )


def figure10(inputs: int, single: tuple[int, int], double: tuple[int, int]) -> Inception:
    """Fig. 10: the grid is reduced by convolutions and by a pool that passes through.

    Args:
        inputs: Channels in.
        single: Channels of the 1x1 and of the 3x3 convolution.
        double: Channels of the 1x1 and of both 3x3 convolutions.
    """
    return module(
        inputs,
        single[1] + double[1] + inputs,
        path(inputs, (single[0], 1), (single[1], 3), stride=2),
        path(inputs, (double[0], 1), (double[1], 3), (double[1], 3), stride=2),
        nn.MaxPool2d(3, 2),
    )


class InceptionV2(InceptionNetwork):
    """Inception v2: built by `InceptionV2Config.build`."""

    _config: InceptionV2Config
    fc: nn.Linear

    def __init__(self, config: InceptionV2Config) -> None:
        super().__init__(config)
        self.stem = nn.Sequential()
        inputs = config.in_chans
        for kind, stride, padding, width in (("conv", 1, 1, 288),) if config.small else STEM:
            self.stem.append(
                conv(inputs, width, 3, stride, padding)
                if kind == "conv"
                else nn.MaxPool2d(3, stride)
            )
            inputs = width
        self.stage1 = nn.Sequential(figure5(), figure5(), figure5())
        self.stage2 = nn.Sequential(
            figure10(288, (128, 384), (64, 96)),
            *(figure6(width) for width in (128, 128, 160, 160, 192)),
        )
        self.stage3 = nn.Sequential(
            figure10(768, (192, 320), (192, 192)), figure7(1280), figure7(2048)
        )
        self.set_stages((["stem", "stage1"], ["stage2"], ["stage3"]), (288, 768, 2048))
        self.add_head(2048)
        init_convs(self, "fan_out")


SZEGEDY_2015 = Paper(
    "Rethinking the Inception Architecture for Computer Vision",
    2015,
    "https://arxiv.org/abs/1512.00567",
)

FAMILY = Family(
    title="Inception v2",
    papers={"*": SZEGEDY_2015},
    small="One 3x3 convolution of 288 channels and stride 1 takes the place of the stem: 7x7 "
    "before the pool.",
    networks={"inception_v2": InceptionV2Config()},
)
