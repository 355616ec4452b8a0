"""MNASNet.

Tan et al. 2018, "MnasNet: Platform-Aware Neural Architecture Search for Mobile"
(arXiv:1807.11626): the network of Fig. 7 without Squeeze-and-Excitation, MnasNet-B1, as in
torchvision. Child names are torchvision's, so its state dict loads strictly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from torch import Tensor, nn

from senetzoo._utils.checks import Gt, Le, Rate
from senetzoo.models.family import Family, arxiv
from senetzoo.models.inverted import (
    InvertedResidual,
    conv_norm,
    reductions,
    rounded,
    stages_of,
    stem_and_stages,
)
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.init import init_convs
from senetzoo.nn.stack import dropout

# Output channels of the stem's 3x3 convolution, and of its depthwise separable convolution.
STEM_WIDTHS = (32, 16)
HEAD_WIDTH = 1280

Row = tuple[int, int, int, int, int]
# Kernel, expansion, channels, blocks, stride of the first block.
STAGES: tuple[Row, ...] = (
    (3, 3, 24, 3, 2),
    (5, 3, 40, 3, 2),
    (5, 6, 80, 3, 2),
    (3, 6, 96, 2, 1),
    (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)
# 1 - 0.9997, the momentum of TensorFlow's norms.
MOMENTUM = 3e-4


@dataclass(frozen=True, kw_only=True)
class MNASNetConfig(Config):
    """A MNASNet.

    ``stem="cifar"`` is a variant for 32x32 images: the stem and the first stage have stride 1, so
    that the last map is 4x4.

    Args:
        width: Factor for all channels but the last convolution's; results are rounded to multiples
            of 8.
    """

    dropout: Rate = 0.2
    width: Annotated[float, Gt(0), Le(8)] = 1.0

    def build(self) -> MNASNet:
        return MNASNet(self)


def _block(
    inputs: int,
    row: Row,
    stride: int,
    drop_path: float,
    *,
    factor: float,
    norm: Callable[[int], nn.Module],
) -> InvertedResidual:
    kernel, expansion, full, _, _ = row
    width, outputs = inputs * expansion, rounded(full * factor)
    layers = [
        *conv_norm(inputs, width, 1, norm=norm, act=nn.ReLU),
        *conv_norm(width, width, kernel, stride, groups=width, norm=norm, act=nn.ReLU),
        *conv_norm(width, outputs, 1, norm=norm),
    ]
    return InvertedResidual(
        {str(index): layer for index, layer in enumerate(layers)},
        container="layers",
        spatial=6,
        inputs=inputs,
        width=width,
        outputs=outputs,
        stride=stride,
        drop_path=drop_path,
    )


class MNASNet(Classifier):
    """MNASNet: built by `MNASNetConfig.build`."""

    head_name = "classifier.1"
    _config: MNASNetConfig

    def __init__(self, config: MNASNetConfig) -> None:
        super().__init__(config)
        norm = partial(nn.BatchNorm2d, momentum=MOMENTUM)
        strides = stem_and_stages((stride for *_, stride in STAGES), small=config.small)
        stem, inputs = (rounded(width * config.width) for width in STEM_WIDTHS)
        stages = stages_of(
            [[row] * row[3] for row in STAGES],
            partial(_block, factor=config.width, norm=norm),
            inputs=inputs,
            strides=strides[1:],
            drop_path=config.drop_path,
        )
        widths = [blocks[-1].outputs for blocks in stages[:-1]]
        before = [
            *conv_norm(config.in_chans, stem, 3, strides[0], norm=norm, act=nn.ReLU),
            *conv_norm(stem, stem, 3, groups=stem, norm=norm, act=nn.ReLU),
            *conv_norm(stem, inputs, 1, norm=norm),
        ]
        last = conv_norm(stages[-1][-1].outputs, HEAD_WIDTH, 1, norm=norm, act=nn.ReLU)
        self.layers = nn.Sequential(*before, *(nn.Sequential(*stage) for stage in stages), *last)
        levels = [[f"layers.{len(before) + index}"] for index in range(len(stages))]
        levels[0][:0] = [f"layers.{index}" for index in range(len(before))]
        end = len(before) + len(stages)
        levels[-1] += [f"layers.{index}" for index in range(end, end + len(last))]
        self.set_levels(levels, reductions(strides), [*widths, HEAD_WIDTH])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            dropout(config.dropout), nn.Linear(HEAD_WIDTH, config.num_classes)
        )
        init_convs(self, "fan_out")

    def pre_logits(self, features: Tensor) -> Tensor:
        return self.classifier[0](self.avgpool(features).flatten(1))  # type: ignore[no-any-return]


FAMILY = Family(
    title="MNASNet",
    papers={
        "*": arxiv("MnasNet: Platform-Aware Neural Architecture Search for Mobile", "1807.11626")
    },
    small="The stem and the first stage have stride 1: the last map is 4x4.",
    networks={
        f"mnasnet{name}": MNASNetConfig(width=width)
        for name, width in (("0_5", 0.5), ("0_75", 0.75), ("1_0", 1.0), ("1_3", 1.3))
    },
)
