"""MobileNetV2.

Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (arXiv:1801.04381),
Table 2, with the width multipliers of Section 6.

Child names are torchvision's, so its state dict loads strictly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from torch import nn

from senetzoo._utils.checks import Gt, Le, Rate
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

STEM_WIDTH = 32
HEAD_WIDTH = 1280

Row = tuple[int, int, int, int]
# Table 2: expansion, channels, blocks, stride of the first block.
STAGES: tuple[Row, ...] = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


@dataclass(frozen=True, kw_only=True)
class MobileNetV2Config(Config):
    """A MobileNetV2.

    ``stem="cifar"`` is a variant for 32x32 images: the stem and the second stage have stride 1, so
    that the last map is 4x4.

    Args:
        width: Factor for all channels, which are rounded to multiples of 8; a factor below 1
            doesn't change the last convolution (Section 6.1).
    """

    dropout: Rate = 0.2
    width: Annotated[float, Gt(0), Le(8)] = 1.0

    def build(self) -> MobileNetV2:
        return MobileNetV2(self)


def _block(inputs: int, row: Row, stride: int, drop_path: float, factor: float) -> InvertedResidual:
    expansion, full, _, _ = row
    outputs = rounded(full * factor)
    width = inputs * expansion
    layers: list[nn.Module] = [conv_norm(inputs, width, 1, act=nn.ReLU6)] if expansion > 1 else []
    layers.append(conv_norm(width, width, 3, stride, groups=width, act=nn.ReLU6))
    spatial = len(layers)
    layers += [nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
    return InvertedResidual(
        {str(index): layer for index, layer in enumerate(layers)},
        container="conv",
        spatial=spatial,
        inputs=inputs,
        width=width,
        outputs=outputs,
        stride=stride,
        drop_path=drop_path,
    )


class MobileNetV2(InvertedNet):
    """MobileNetV2: built by `MobileNetV2Config.build`."""

    def __init__(self, config: MobileNetV2Config) -> None:
        strides = stem_and_stages((stride for *_, stride in STAGES), small=config.small)
        stem = rounded(STEM_WIDTH * config.width)
        stages = stages_of(
            [[row] * row[2] for row in STAGES],
            partial(_block, factor=config.width),
            inputs=stem,
            strides=strides[1:],
            drop_path=config.drop_path,
        )
        inputs = stages[-1][-1].outputs
        last = rounded(HEAD_WIDTH * max(1.0, config.width))
        super().__init__(
            config,
            stem=conv_norm(config.in_chans, stem, 3, strides[0], act=nn.ReLU6),
            stages=stages,
            last=conv_norm(inputs, last, 1, act=nn.ReLU6),
            classifier=nn.Sequential(
                dropout(config.dropout),
                nn.Linear(last, config.num_classes),
            ),
            strides=strides,
        )


FAMILY = Family(
    title="MobileNetV2",
    papers={"*": arxiv("MobileNetV2: Inverted Residuals and Linear Bottlenecks", "1801.04381")},
    small="The stem and the second stage have stride 1: the last map is 4x4.",
    networks={
        "mobilenet_v2": MobileNetV2Config(),
        "mobilenet_v2_140": MobileNetV2Config(width=1.4),
        "mobilenet_v2_075": MobileNetV2Config(width=0.75),
        "mobilenet_v2_050": MobileNetV2Config(width=0.5),
        "mobilenet_v2_035": MobileNetV2Config(width=0.35),
    },
)
