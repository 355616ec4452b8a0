"""EfficientNet and EfficientNetV2.

Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"
(arXiv:1905.11946), Table 1, and 2021, "EfficientNetV2: Smaller Models and Faster Training"
(arXiv:2104.00298), Table 4. Their Squeeze-and-Excitation is the networks' default policy, so that
it can be moved, replaced or left out.

Child names are torchvision's. Inside a block the number of torchvision's SE module is skipped; the
gate of the default policy is at ``slots.inner`` instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from torch import nn

from senetzoo._utils.checks import Gt, Le, PositiveFloat, PositiveInt, Rate
from senetzoo.models.family import Family, arxiv
from senetzoo.models.inverted import (
    InvertedNet,
    InvertedResidual,
    conv_norm,
    rounded,
    stages_of,
    stem_and_stages,
)
from senetzoo.nn.classifier import Config
from senetzoo.nn.stack import dropout

# Expansion, kernel, stride of the first block, channels, blocks. A fused block combines its first
# two convolutions into one.
Row = tuple[bool, int, int, int, int, int]
FUSED, APART = True, False
# Table 1, stages 2 to 8.
V1: tuple[Row, ...] = (
    (APART, 1, 3, 1, 16, 1),
    (APART, 6, 3, 2, 24, 2),
    (APART, 6, 5, 2, 40, 2),
    (APART, 6, 3, 2, 80, 3),
    (APART, 6, 5, 1, 112, 3),
    (APART, 6, 5, 2, 192, 4),
    (APART, 6, 3, 1, 320, 1),
)
# Table 4 for S; M and L are from the authors' code, as in torchvision.
V2_S: tuple[Row, ...] = (
    (FUSED, 1, 3, 1, 24, 2),
    (FUSED, 4, 3, 2, 48, 4),
    (FUSED, 4, 3, 2, 64, 4),
    (APART, 4, 3, 2, 128, 6),
    (APART, 6, 3, 1, 160, 9),
    (APART, 6, 3, 2, 256, 15),
)
V2_M: tuple[Row, ...] = (
    (FUSED, 1, 3, 1, 24, 3),
    (FUSED, 4, 3, 2, 48, 5),
    (FUSED, 4, 3, 2, 80, 5),
    (APART, 4, 3, 2, 160, 7),
    (APART, 6, 3, 1, 176, 14),
    (APART, 6, 3, 2, 304, 18),
    (APART, 6, 3, 1, 512, 5),
)
V2_L: tuple[Row, ...] = (
    (FUSED, 1, 3, 1, 32, 4),
    (FUSED, 4, 3, 2, 64, 7),
    (FUSED, 4, 3, 2, 96, 7),
    (APART, 4, 3, 2, 192, 10),
    (APART, 6, 3, 1, 224, 19),
    (APART, 6, 3, 2, 384, 25),
    (APART, 6, 3, 1, 640, 7),
)
# The stem's channels and the stages.
TABLES: dict[str, tuple[int, tuple[Row, ...]]] = {
    "v1": (32, V1),
    "v2_s": (24, V2_S),
    "v2_m": (24, V2_M),
    "v2_l": (32, V2_L),
}
HEAD_WIDTH = 1280

# The hidden units are a quarter of the block's input channels. The policy counts the expanded
# channels, of which that is a quarter at expansion 1, a 16th at 4, and a 24th at 6.
SE_POLICY = "se4(act=silu)@inner/s1+se24(act=silu)@inner/~s1"
SE_POLICY_V2 = "se16(act=silu)@inner/s4+se24(act=silu)@inner/~s1-4"


@dataclass(frozen=True, kw_only=True)
class EfficientNetConfig(Config):
    """An EfficientNet. Dropout and stochastic depth are the papers' (Section 5.2 of the first).

    The rate of stochastic depth reaches `drop_path` at the last block, as in every network of this
    zoo; in torchvision and the authors' code it would reach it one block later.

    ``stem="cifar"`` is a variant for 32x32 images: the stem and the second stage have stride 1, so
    that the last map is 4x4.

    Args:
        table: Table of the stages: ``"v1"``, ``"v2_s"``, ``"v2_m"`` or ``"v2_l"``.
        width: Factor for all channels, which are rounded to multiples of 8.
        depth: Factor for the number of blocks of each stage, rounded up.
        resolution: Image size in pixels that the ``"imagenet"`` variant is meant for.
        eps: Epsilon of the norms.
        momentum: Momentum of the norms.
    """

    dropout: Rate = 0.2
    drop_path: Rate = 0.2
    table: Literal["v1", "v2_s", "v2_m", "v2_l"] = "v1"
    width: Annotated[float, Gt(0), Le(8)] = 1.0
    depth: Annotated[float, Gt(0), Le(8)] = 1.0
    resolution: PositiveInt = 224
    eps: PositiveFloat = 1e-5
    momentum: Annotated[float, Gt(0), Le(1)] = 0.1

    @property
    def input_size(self) -> int:
        return self.sizes["cifar"] if self.small else self.resolution

    @property
    def stages(self) -> tuple[Row, ...]:
        """The rows of the table, with this network's channels and blocks."""
        _, rows = TABLES[self.table]
        return tuple(
            (fused, e, k, s, rounded(channels * self.width), math.ceil(blocks * self.depth))
            for fused, e, k, s, channels, blocks in rows
        )

    def build(self) -> EfficientNet:
        return EfficientNet(self)


def _block(
    inputs: int, row: Row, stride: int, drop_path: float, norm: Callable[[int], nn.Module]
) -> InvertedResidual:
    fused, expansion, kernel, _, outputs, _ = row
    width = inputs * expansion
    conv = partial(conv_norm, norm=norm)
    if fused and expansion == 1:
        layers, spatial = {"0": conv(inputs, outputs, kernel, stride, act=nn.SiLU)}, 0
    elif fused:
        layers, spatial = {"0": conv(inputs, width, kernel, stride, act=nn.SiLU)}, 1
        layers["1"] = conv(width, outputs, 1)
    else:
        apart = [conv(inputs, width, 1, act=nn.SiLU)] if expansion > 1 else []
        apart.append(conv(width, width, kernel, stride, groups=width, act=nn.SiLU))
        layers, spatial = {str(i): layer for i, layer in enumerate(apart)}, len(apart)
        # Skip the number of torchvision's SE module.
        layers[str(spatial + 1)] = conv(width, outputs, 1)
    return InvertedResidual(
        layers,
        container="block",
        spatial=spatial,
        inputs=inputs,
        width=width,
        outputs=outputs,
        stride=stride,
        drop_path=drop_path,
    )


class EfficientNet(InvertedNet):
    """EfficientNet: built by `EfficientNetConfig.build`."""

    _config: EfficientNetConfig

    def __init__(self, config: EfficientNetConfig) -> None:
        norm = partial(nn.BatchNorm2d, eps=config.eps, momentum=config.momentum)
        strides = stem_and_stages((row[3] for row in config.stages), small=config.small)
        stem = rounded(TABLES[config.table][0] * config.width)
        stages = stages_of(
            [[row] * row[-1] for row in config.stages],
            partial(_block, norm=norm),
            inputs=stem,
            strides=strides[1:],
            drop_path=config.drop_path,
        )
        inputs = stages[-1][-1].outputs
        # Four times the last stage's channels; in the second paper 1280 for all sizes.
        last = 4 * inputs if config.table == "v1" else HEAD_WIDTH
        super().__init__(
            config,
            stem=conv_norm(config.in_chans, stem, 3, strides[0], norm=norm, act=nn.SiLU),
            stages=stages,
            last=conv_norm(inputs, last, 1, norm=norm, act=nn.SiLU),
            classifier=nn.Sequential(
                dropout(config.dropout),
                nn.Linear(last, config.num_classes),
            ),
            strides=strides,
            nested=True,
        )


# Width, depth, pixels, dropout.
_SCALED = {
    0: (1.0, 1.0, 224, 0.2),
    1: (1.0, 1.1, 240, 0.2),
    2: (1.1, 1.2, 260, 0.3),
    3: (1.2, 1.4, 300, 0.3),
    4: (1.4, 1.8, 380, 0.4),
    5: (1.6, 2.2, 456, 0.4),
    6: (1.8, 2.6, 528, 0.5),
    7: (2.0, 3.1, 600, 0.5),
}

FAMILY = Family(
    title="EfficientNet",
    papers={
        "efficientnet_b*": arxiv(
            "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", "1905.11946"
        ),
        "*": arxiv("EfficientNetV2: Smaller Models and Faster Training", "2104.00298"),
    },
    small="The stem and the second stage have stride 1: the last map is 4x4.",
    networks={
        **{
            f"efficientnet_b{number}": EfficientNetConfig(
                width=width,
                depth=depth,
                resolution=pixels,
                dropout=dropout,
                # From b5 on, torchvision's weights and norm options come from TensorFlow.
                eps=1e-3 if number >= 5 else 1e-5,
                momentum=0.01 if number >= 5 else 0.1,
            )
            for number, (width, depth, pixels, dropout) in _SCALED.items()
        },
        "efficientnet_v2_s": EfficientNetConfig(table="v2_s", resolution=384, eps=1e-3),
        "efficientnet_v2_m": EfficientNetConfig(
            table="v2_m", resolution=480, dropout=0.3, eps=1e-3
        ),
        "efficientnet_v2_l": EfficientNetConfig(
            table="v2_l", resolution=480, dropout=0.4, eps=1e-3
        ),
    },
    defaults={
        **{f"efficientnet_b{number}": SE_POLICY for number in _SCALED},
        **{f"efficientnet_v2_{size}": SE_POLICY_V2 for size in "sml"},
    },
)
