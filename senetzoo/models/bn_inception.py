"""BN-Inception: the Inception network of the batch norm paper.

Ioffe and Szegedy 2015, "Batch Normalization: Accelerating Deep Network Training by Reducing
Internal Covariate Shift" (arXiv:1502.03167), the table of its appendix, as in the Caffe networks
that the SE paper and others build on: convolutions have a bias before the batch norm, pools use
ceil mode, and the first convolution is not separable. The widths are the table's, also where its
column of output sizes contradicts them (4c, 4d, 4e).

Child names follow the paper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, TypeAlias

from torch import nn

from senetzoo.models.family import Family, arxiv
from senetzoo.models.inception import Concat, Inception, path
from senetzoo.nn.classifier import Config
from senetzoo.nn.conv import ConvNormAct

Row: TypeAlias = tuple[str, int, int, int, int, int, int, str, int]

# The ten modules. Those of stride 2 have no 1x1 branch, and no projection after the pool.
MODULES: tuple[Row, ...] = (
    # name stride #1x1 #3x3 reduce #3x3 double #3x3 reduce double #3x3 pool proj
    ("3a", 1, 64, 64, 64, 64, 96, "avg", 32),
    ("3b", 1, 64, 64, 96, 64, 96, "avg", 64),
    ("3c", 2, 0, 128, 160, 64, 96, "max", 0),
    ("4a", 1, 224, 64, 96, 96, 128, "avg", 128),
    ("4b", 1, 192, 96, 128, 96, 128, "avg", 128),
    ("4c", 1, 160, 128, 160, 128, 160, "avg", 128),
    ("4d", 1, 96, 128, 192, 160, 192, "avg", 128),
    ("4e", 2, 0, 128, 192, 192, 256, "max", 0),
    ("5a", 1, 352, 192, 320, 160, 224, "avg", 128),
    ("5b", 1, 352, 192, 320, 192, 224, "max", 128),
)

conv = partial(ConvNormAct, bias=True)


@dataclass(frozen=True, kw_only=True)
class BNInceptionConfig(Config):
    """A BN-Inception, without dropout by default (Section 4.2.1 of the paper).

    With ``stem="cifar"`` a single 3x3 convolution of 192 channels and stride 1 replaces all layers
    before module 3a. The maps of a 32x32 image are then 32x32, 16x16 and 8x8.
    """

    has_branches: ClassVar[bool] = False

    @property
    def min_size(self) -> int:
        # The stem's two pools need two pixels each; one pixel is enough for the modules.
        return 1 if self.small else 7

    def build(self) -> Inception:
        outputs = 192
        layers: dict[str, nn.Module] = {"stem": nn.Sequential(*_stem(self.in_chans, self.small))}
        for row in MODULES:
            layers[f"inception{row[0]}"] = module(outputs, row)
            outputs = _outputs(outputs, row)
        # A stage starts with the module that downsamples, as in other families.
        starts = ("inception3c", "inception4e")
        return Inception(self, layers, starts, (320, 608, 1024), init="fan_out")


def _stem(inputs: int, small: bool) -> tuple[nn.Module, ...]:
    if small:
        return (conv(inputs, 192, 3, padding=1),)
    return (
        conv(inputs, 64, 7, 2, 3),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        conv(64, 64, 1),
        conv(64, 192, 3, padding=1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
    )


def module(inputs: int, row: Row) -> Concat:
    """An Inception module: four parallel branches, or three in a module of stride 2."""
    _, stride, one, three_reduce, three, double_reduce, double, pool, project = row
    triple, last = ((double_reduce, 1), (double, 3, 1, 1)), (double, 3, stride, 1)
    projection = ((project, 1),) if project else ()
    branches = {
        **({"branch1x1": path(inputs, (one, 1), conv=conv)} if one else {}),
        "branch3x3": path(inputs, (three_reduce, 1), (three, 3, stride, 1), conv=conv),
        "branch_double3x3": path(inputs, *triple, last, conv=conv),
        "branch_pool": path(inputs, _pool(pool, stride), *projection, conv=conv, wrap=True),
    }
    return Concat(branches, (inputs, _outputs(inputs, row)))


def _outputs(inputs: int, row: Row) -> int:
    """Output channels of a module with `inputs` input channels."""
    _, _, one, _, three, _, double, _, project = row
    return one + three + double + (project or inputs)


def _pool(kind: str, stride: int) -> nn.Module:
    """The 3x3 pool of a module."""
    if stride == 1:
        return nn.AvgPool2d(3, 1, padding=1) if kind == "avg" else nn.MaxPool2d(3, 1, padding=1)
    # Ceil mode gives ceil(n / 2) pixels for even n, like the parallel convolutions, but one less
    # for odd n, for which Caffe's network can't be built. One pixel of padding on the right and
    # below fixes that and changes nothing for even n.
    return nn.Sequential(
        nn.ConstantPad2d((0, 1, 0, 1), -math.inf), nn.MaxPool2d(3, 2, ceil_mode=True)
    )


FAMILY = Family(
    title="BN-Inception",
    papers={
        "*": arxiv(
            "Batch Normalization: Accelerating Deep Network Training by Reducing Internal "
            "Covariate Shift",
            "1502.03167",
        )
    },
    small="One 3x3 convolution of 192 channels and stride 1 replaces the stem: the last map is "
    "8x8.",
    networks={"bn_inception": BNInceptionConfig()},
)
