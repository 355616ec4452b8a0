"""MobileNetV3.

Howard et al. 2019, "Searching for MobileNetV3" (arXiv:1905.02244), Tables 1 and 2. Their
Squeeze-and-Excitation is the network's default policy, so that it can be moved, replaced or left
out.

Child names are torchvision's. Inside a block the number of torchvision's SE module is skipped; the
gate of the default policy is at ``slots.inner`` instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Literal

from torch import nn

from senetzoo._utils.checks import PositiveFloat, Rate
from senetzoo.models.family import Family, arxiv
from senetzoo.models.inverted import (
    InvertedNet,
    InvertedResidual,
    conv_norm,
    stages_of,
    stem_and_stages,
)
from senetzoo.nn.classifier import Config
from senetzoo.nn.stack import dropout

STEM_WIDTH = 16

# Kernel, inner channels, output channels, SE, activation (RE: ReLU, HS: h-swish), stride.
# Consecutive blocks with the same number of output channels are a stage.
Row = tuple[int, int, int, bool, str, int]
LARGE: tuple[Row, ...] = (
    (3, 16, 16, False, "RE", 1),
    (3, 64, 24, False, "RE", 2),
    (3, 72, 24, False, "RE", 1),
    (5, 72, 40, True, "RE", 2),
    (5, 120, 40, True, "RE", 1),
    (5, 120, 40, True, "RE", 1),
    (3, 240, 80, False, "HS", 2),
    (3, 200, 80, False, "HS", 1),
    (3, 184, 80, False, "HS", 1),
    (3, 184, 80, False, "HS", 1),
    (3, 480, 112, True, "HS", 1),
    (3, 672, 112, True, "HS", 1),
    (5, 672, 160, True, "HS", 2),
    (5, 960, 160, True, "HS", 1),
    (5, 960, 160, True, "HS", 1),
)
SMALL: tuple[Row, ...] = (
    (3, 16, 16, True, "RE", 2),
    (3, 72, 24, False, "RE", 2),
    (3, 88, 24, False, "RE", 1),
    (5, 96, 40, True, "HS", 2),
    (5, 240, 40, True, "HS", 1),
    (5, 240, 40, True, "HS", 1),
    (5, 120, 48, True, "HS", 1),
    (5, 144, 48, True, "HS", 1),
    (5, 288, 96, True, "HS", 2),
    (5, 576, 96, True, "HS", 1),
    (5, 576, 96, True, "HS", 1),
)
# The table and the units of the hidden layer in the classifier.
TABLES: dict[str, tuple[tuple[Row, ...], int]] = {"large": (LARGE, 1280), "small": (SMALL, 1024)}

# The hidden units are a quarter of the squeezed channels, rounded to multiples of 8. A quarter of
# 72 is 18, which becomes 24, not 16, because the authors round down by at most a tenth.
_SE = "(width={width},gate=hardsigmoid)@inner"
SE_LARGE = f"se{_SE.format(width=24)}/s3&b1+se4{_SE.format(width='round8')}/(s3&~b1|s5-6)"
SE_SMALL = f"se4{_SE.format(width='round8')}/s1,3-5"


@dataclass(frozen=True, kw_only=True)
class MobileNetV3Config(Config):
    """A MobileNetV3.

    ``stem="cifar"`` is a variant for 32x32 images: the stem and the first stage of stride 2 have
    stride 1 instead, so that the last map is 4x4.

    Args:
        table: ``"large"`` (Table 1) or ``"small"`` (Table 2).
        eps: Epsilon of the norms.
    """

    dropout: Rate = 0.2
    table: Literal["large", "small"] = "large"
    eps: PositiveFloat = 1e-3

    @property
    def stages(self) -> list[list[Row]]:
        """The rows of the table by stage."""
        rows, _ = TABLES[self.table]
        return [list(stage) for _, stage in groupby(rows, lambda row: row[2])]

    def build(self) -> MobileNetV3:
        return MobileNetV3(self)


def _block(
    inputs: int, row: Row, stride: int, drop_path: float, conv: Callable[..., nn.Sequential]
) -> InvertedResidual:
    kernel, width, outputs, se, act, _ = row
    act_type = nn.ReLU if act == "RE" else nn.Hardswish
    layers = [conv(inputs, width, 1, act=act_type)] if width != inputs else []
    layers.append(conv(width, width, kernel, stride, groups=width, act=act_type))
    named = {str(index): layer for index, layer in enumerate(layers)}
    # Skip the number of torchvision's SE module, if it has one.
    named[str(len(layers) + se)] = conv(width, outputs, 1)
    return InvertedResidual(
        named,
        container="block",
        spatial=len(layers),
        inputs=inputs,
        width=width,
        outputs=outputs,
        stride=stride,
        drop_path=drop_path,
    )


class MobileNetV3(InvertedNet):
    """MobileNetV3: built by `MobileNetV3Config.build`."""

    def __init__(self, config: MobileNetV3Config) -> None:
        norm = partial(nn.BatchNorm2d, eps=config.eps, momentum=0.01)
        conv = partial(conv_norm, norm=norm)
        strides = stem_and_stages((rows[0][-1] for rows in config.stages), small=config.small)
        stages = stages_of(
            config.stages,
            partial(_block, conv=conv),
            inputs=STEM_WIDTH,
            strides=strides[1:],
            drop_path=config.drop_path,
        )
        inputs = stages[-1][-1].outputs
        last, hidden = 6 * inputs, TABLES[config.table][1]
        super().__init__(
            config,
            stem=conv(config.in_chans, STEM_WIDTH, 3, strides[0], act=nn.Hardswish),
            stages=stages,
            last=conv(inputs, last, 1, act=nn.Hardswish),
            classifier=nn.Sequential(
                nn.Linear(last, hidden),
                nn.Hardswish(),
                dropout(config.dropout),
                nn.Linear(hidden, config.num_classes),
            ),
            strides=strides,
        )


FAMILY = Family(
    title="MobileNetV3",
    papers={"*": arxiv("Searching for MobileNetV3", "1905.02244")},
    small="The stem and the first stage of stride 2 have stride 1 instead: the last map is 4x4.",
    networks={
        "mobilenet_v3_large": MobileNetV3Config(),
        "mobilenet_v3_small": MobileNetV3Config(table="small"),
    },
    defaults={"mobilenet_v3_large": SE_LARGE, "mobilenet_v3_small": SE_SMALL},
)
