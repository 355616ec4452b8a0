"""GhostNet: 1x1 convolutions compute half of the channels, cheap depthwise 3x3 ones the others.

Han et al. 2019, "GhostNet: More Features from Cheap Operations" (arXiv:1911.11907), Table 1. Its
Squeeze-and-Excitation is the network's default policy, so that it can be moved, replaced or left
out.

Child names are timm's, except that the gate of the default policy is at ``slots.inner`` instead of
``se``.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo._utils.checks import Gt, Le, Rate
from senetzoo.models.family import Family, arxiv
from senetzoo.models.inverted import conv_norm, reductions, rounded, stem_and_stages
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.drop_path import DropPath, linear_rates
from senetzoo.nn.init import init_separable
from senetzoo.nn.slots import Slots, residual

STEM_WIDTH, HEAD_WIDTH = 16, 1280

Row = tuple[int, int, int]
# Table 1 by resolution, then by timm's stages: kernel, inner channels, output channels. The first
# block of each resolution has stride 2, except at the stem's resolution.
STAGES: tuple[tuple[tuple[Row, ...], ...], ...] = (
    (((3, 16, 16),),),
    (((3, 48, 24),), ((3, 72, 24),)),
    (((5, 72, 40),), ((5, 120, 40),)),
    (
        ((3, 240, 80),),
        ((3, 200, 80), (3, 184, 80), (3, 184, 80), (3, 480, 112), (3, 672, 112)),
    ),
    (((5, 672, 160),), ((5, 960, 160),) * 4),
)
# The hidden units are a quarter of the squeezed channels, rounded to multiples of 4: 20 for 72
# channels, and 32 for 120.
SE_POLICY = "+".join(
    (
        "se(width=20,gate=hardsigmoid)@inner/s3&b1",
        "se(width=32,gate=hardsigmoid)@inner/s3&b2",
        "se4(gate=hardsigmoid)@inner/s4&b5-6",
        "se4(gate=hardsigmoid)@inner/s5&b1,3,5",
    )
)


@dataclass(frozen=True, kw_only=True)
class GhostNetConfig(Config):
    """A GhostNet.

    ``stem="cifar"`` is a variant for 32x32 images: the stem and the second stage have stride 1, so
    that the last map is 4x4.

    Args:
        width: Factor for all channels but the head's hidden units; results are rounded to multiples
            of 4.
    """

    dropout: Rate = 0.2
    width: Annotated[float, Gt(0), Le(8)] = 1.0

    def build(self) -> GhostNet:
        return GhostNet(self)


class GhostModule(nn.Module):
    """A 1x1 convolution to half of the channels, and a depthwise 3x3 from these to the others."""

    def __init__(self, inputs: int, outputs: int, act: type[nn.Module] | None) -> None:
        super().__init__()
        half = outputs // 2
        self.primary_conv = conv_norm(inputs, half, 1, act=act)
        self.cheap_operation = conv_norm(half, half, 3, groups=half, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        x = self.primary_conv(x)
        return torch.cat((x, self.cheap_operation(x)), 1)


class GhostBottleneck(nn.Module):
    """Two ghost modules, with a depthwise convolution between them for the stride (Fig. 3).

    ``inner`` is before the second ghost module.
    """

    def __init__(
        self, inputs: int, width: int, outputs: int, kernel: int, stride: int, drop_path: float
    ) -> None:
        super().__init__()
        self.ghost1 = GhostModule(inputs, width, nn.ReLU)
        self.conv_dw = self.bn_dw = self.shortcut = None
        if stride > 1:
            self.conv_dw, self.bn_dw = conv_norm(width, width, kernel, stride, groups=width)
        self.ghost2 = GhostModule(width, outputs, None)
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                *conv_norm(inputs, inputs, kernel, stride, groups=inputs),
                *conv_norm(inputs, outputs, 1),
            )
        self.drop_path = DropPath(drop_path) if drop_path else None
        self.slots = Slots.residual(inputs, outputs, width)

    def branch(self, x: Tensor) -> Tensor:
        """The ghost modules."""
        x = self.ghost1(x)
        if self.conv_dw is not None and self.bn_dw is not None:
            x = self.bn_dw(self.conv_dw(x))
        return self.ghost2(self.slots.at("inner", x))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return residual(
            x, self.slots, self.branch, shortcut=self.shortcut, drop_path=self.drop_path
        )


class GhostNet(Classifier):
    """GhostNet: built by `GhostNetConfig.build`."""

    head_name = "classifier"
    _config: GhostNetConfig

    def __init__(self, config: GhostNetConfig) -> None:
        super().__init__(config)
        strides = stem_and_stages((1, 2, 2, 2, 2), small=config.small)

        def channels(full: int) -> int:
            return rounded(full * config.width, 4)

        inputs = width = channels(STEM_WIDTH)
        self.conv_stem = nn.Conv2d(config.in_chans, inputs, 3, strides[0], 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.act1 = nn.ReLU(inplace=True)
        self.blocks = nn.Sequential()
        levels, widths = [], []
        every_rate = linear_rates(config.drop_path, [sum(map(len, parts)) for parts in STAGES])
        for parts, stride, rates in zip(STAGES, strides[1:], every_rate, strict=True):
            start, rate = len(self.blocks), iter(rates)
            for rows in parts:
                blocks = nn.Sequential()
                for kernel, inside, outside in rows:
                    width, outputs = channels(inside), channels(outside)
                    block = GhostBottleneck(inputs, width, outputs, kernel, stride, next(rate))
                    blocks.append(block)
                    inputs, stride = outputs, 1
                self.blocks.append(blocks)
            levels.append([f"blocks.{index}" for index in range(start, len(self.blocks))])
            widths.append(inputs)
        conv, norm, act = conv_norm(inputs, width, 1, act=nn.ReLU)
        last = nn.Sequential(OrderedDict(conv=conv, bn1=norm, act1=act))
        self.blocks.append(nn.Sequential(last))
        levels[0][:0] = ["conv_stem", "bn1", "act1"]
        levels[-1].append(f"blocks.{len(self.blocks) - 1}")
        self.set_levels(levels, reductions(strides), [*widths[:-1], width])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.conv_head = nn.Conv2d(width, HEAD_WIDTH, 1)
        self.dropout = nn.Dropout(config.dropout) if config.dropout else None
        self.classifier = nn.Linear(HEAD_WIDTH, config.num_classes)
        init_separable(self)
        nn.init.zeros_(self.conv_head.get_parameter("bias"))

    def pre_logits(self, features: Tensor) -> Tensor:
        x = F.relu(self.conv_head(self.avgpool(features))).flatten(1)
        return x if self.dropout is None else self.dropout(x)


FAMILY = Family(
    title="GhostNet",
    papers={"*": arxiv("GhostNet: More Features from Cheap Operations", "1911.11907")},
    small="The stem and the second stage have stride 1: the last map is 4x4.",
    networks={"ghostnet_100": GhostNetConfig()},
    defaults={"ghostnet_100": SE_POLICY},
)
