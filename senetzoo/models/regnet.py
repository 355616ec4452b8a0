"""RegNet.

Radosavovic, Kosaraju, Girshick, He, Dollar 2020, "Designing Network Design Spaces"
(arXiv:2003.13678): widths that rise linearly and are quantized (Eq. 2 to 4), with the parameters of
its Tables 2 to 4 as in torchvision. RegNetY is RegNetX with Squeeze-and-Excitation, which is the
default policy of those names, so that it can be moved, replaced or left out.

Child names are torchvision's, except that the gate of the default policy is at ``slots.inner``
instead of ``f.se``.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated

from torch import Tensor, nn

from senetzoo._utils.checks import Gt, PositiveFloat, PositiveInt
from senetzoo.models.family import Family, arxiv
from senetzoo.models.inverted import conv_norm, reductions, rounded, stem_and_stages
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.drop_path import DropPath, linear_rates
from senetzoo.nn.slots import Slots, residual

STEM_WIDTH = 32


@dataclass(frozen=True, kw_only=True)
class RegNetConfig(Config):
    """A RegNet. The defaults are those of RegNetX-400MF.

    ``stem="cifar"`` is a variant for 32x32 images: the stem and the first stage have stride 1, so
    that the last map is 4x4.

    Args:
        depth: Number of blocks in all stages together.
        w_0: Width of the first block before quantization.
        w_a: Increase of the width from block to block, before quantization (Eq. 2).
        w_m: Factor between the widths of two stages (Eq. 3).
        group: Channels of each group of the 3x3 convolutions.
    """

    depth: PositiveInt = 22
    w_0: PositiveInt = 24
    w_a: PositiveFloat = 24.48
    w_m: Annotated[float, Gt(1)] = 2.54
    group: PositiveInt = 16

    @property
    def stages(self) -> tuple[tuple[int, int], ...]:
        """Channels and blocks of each stage."""
        widths = []
        for block in range(self.depth):
            factor = (self.w_0 + self.w_a * block) / self.w_0
            power = round(math.log(factor) / math.log(self.w_m))
            widths.append(8 * round(self.w_0 * self.w_m**power / 8))
        # The channels are a multiple of the group's, and a group has at most all channels.
        return tuple(
            (rounded(width, min(self.group, width)), len(list(blocks)))
            for width, blocks in groupby(widths)
        )

    def build(self) -> RegNet:
        return RegNet(self)


class Bottleneck(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolutions, all as wide as the block (Fig. 4)."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, group: int, drop_path: float
    ) -> None:
        super().__init__()
        self.proj = None
        if stride > 1 or inputs != outputs:
            self.proj = conv_norm(inputs, outputs, 1, stride)
        groups = outputs // min(group, outputs)
        self.f = nn.ModuleDict(
            {
                "a": conv_norm(inputs, outputs, 1, act=nn.ReLU),
                "b": conv_norm(outputs, outputs, 3, stride, groups=groups, act=nn.ReLU),
                "c": conv_norm(outputs, outputs, 1),
            }
        )
        self.drop_path = DropPath(drop_path) if drop_path else None
        self.activation = nn.ReLU(inplace=True)
        self.slots = Slots.residual(inputs, outputs, outputs)

    def branch(self, x: Tensor) -> Tensor:
        """The convolutions."""
        x = self.slots.at("inner", self.f["b"](self.f["a"](x)))
        return self.f["c"](x)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return residual(
            x,
            self.slots,
            self.branch,
            shortcut=self.proj,
            act=self.activation,
            drop_path=self.drop_path,
        )


class RegNet(Classifier):
    """RegNet: built by `RegNetConfig.build`."""

    _config: RegNetConfig
    fc: nn.Linear

    def __init__(self, config: RegNetConfig) -> None:
        super().__init__(config)
        strides = stem_and_stages([2] * len(config.stages), small=config.small)
        self.stem = conv_norm(config.in_chans, STEM_WIDTH, 3, strides[0], act=nn.ReLU)
        inputs = STEM_WIDTH
        rates = linear_rates(config.drop_path, [depth for _, depth in config.stages])
        self.trunk_output = nn.Sequential()
        levels = []
        for number, (width, _) in enumerate(config.stages, 1):
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            for index, drop_path in enumerate(rates[number - 1]):
                stride = 1 if index else strides[number]
                block = Bottleneck(inputs, width, stride, config.group, drop_path)
                blocks[f"block{number}-{index}"] = block
                inputs = width
            self.trunk_output.add_module(f"block{number}", nn.Sequential(blocks))
            levels.append([f"trunk_output.block{number}"])
        levels[0].insert(0, "stem")
        widths = [width for width, _ in config.stages]
        self.set_levels(levels, reductions(strides), widths)
        self.add_head(inputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # He initialization with the fan-out over all groups, as in the authors' code.
                outputs = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, std=(2 / outputs) ** 0.5)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)


def se_policy(config: RegNetConfig) -> str:
    """RegNetY's policy: SE after the 3x3, with a quarter of the block's inputs as hidden units."""
    rules, inputs = [], STEM_WIDTH
    for stage, (width, depth) in enumerate(config.stages, 1):
        first, others = (f"se(width={round(0.25 * channels)})" for channels in (inputs, width))
        rules.append(f"{first}@inner/s{stage}&b1")
        if depth > 1:
            rules.append(f"{others}@inner/s{stage}&~b1")
        inputs = width
    return "+".join(rules)


# Depth, w_0, w_a, w_m, channels of a group.
_X = {
    "400mf": (22, 24, 24.48, 2.54, 16),
    "800mf": (16, 56, 35.73, 2.28, 16),
    "1_6gf": (18, 80, 34.01, 2.25, 24),
    "3_2gf": (25, 88, 26.31, 2.25, 48),
    "8gf": (23, 80, 49.56, 2.88, 120),
    "16gf": (22, 216, 55.59, 2.1, 128),
    "32gf": (23, 320, 69.86, 2.0, 168),
}
_Y = {
    "400mf": (16, 48, 27.89, 2.09, 8),
    "800mf": (14, 56, 38.84, 2.4, 16),
    "1_6gf": (27, 48, 20.71, 2.65, 24),
    "3_2gf": (21, 80, 42.63, 2.66, 24),
    "8gf": (17, 192, 76.82, 2.19, 56),
    "16gf": (18, 200, 106.23, 2.48, 112),
    "32gf": (20, 232, 115.89, 2.53, 232),
}


def _config(depth: int, w_0: int, w_a: float, w_m: float, group: int) -> RegNetConfig:
    return RegNetConfig(depth=depth, w_0=w_0, w_a=w_a, w_m=w_m, group=group)


_NETWORKS = {
    f"regnet_{letter}_{size}": _config(*row)
    for letter, table in (("x", _X), ("y", _Y))
    for size, row in table.items()
}

FAMILY = Family(
    title="RegNet",
    papers={"*": arxiv("Designing Network Design Spaces", "2003.13678")},
    small="The stem and the first stage have stride 1: the last map is 4x4.",
    networks=_NETWORKS,
    defaults={
        name: se_policy(config) for name, config in _NETWORKS.items() if name.startswith("regnet_y")
    },
)
