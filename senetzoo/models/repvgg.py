"""RepVGG: trained with a 1x1 convolution and an identity parallel to each 3x3, run as one 3x3.

Ding et al. 2021, "RepVGG: Making VGG-style ConvNets Great Again" (arXiv:2101.03697), Tables 2 and
3. `senetzoo.optimize` folds the three branches into one convolution (Section 3.3 of the paper).

Child names are timm's, except that ``stages`` is ``blocks`` here.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from typing import Annotated, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo._utils.checks import Depths, Gt, Le
from senetzoo.models.family import Family, arxiv
from senetzoo.models.inverted import stem_and_stages
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.conv import ConvNormAct
from senetzoo.nn.init import init_convs
from senetzoo.nn.maps import doubling
from senetzoo.nn.slots import Slots, unit

# Channels of the second stage at width 1; the first stage, one layer, never has more.
WIDTH = 64


@dataclass(frozen=True, kw_only=True)
class RepVGGConfig(Config):
    """A RepVGG with the branches used in training.

    ``stem="cifar"`` is a variant for 32x32 images: the first two stages have stride 1, so that the
    last map is 4x4.

    Args:
        depths: Layers of each stage after the first, which has one.
        width: Factor for the channels of all stages but the last (the paper's a).
        last: Factor for the channels of the last stage (b).
    """

    # Branches with stochastic depth could not be folded.
    has_branches: ClassVar[bool] = False

    depths: Depths
    width: Annotated[float, Gt(0), Le(8)] = 1.0
    last: Annotated[float, Gt(0), Le(8)] = 2.5

    @property
    def widths(self) -> list[int]:
        """Channels of each stage."""
        factors = [self.width] * (len(self.depths) - 1) + [self.last]
        full = zip(doubling(WIDTH, len(factors)), factors, strict=True)
        widths = [max(int(channels * factor), 1) for channels, factor in full]
        return [min(WIDTH, widths[0]), *widths]

    def build(self) -> RepVGG:
        return RepVGG(self)


class RepVGGBlock(nn.Module):
    """A 3x3, a 1x1 and, unless `first`, an identity, each with a norm; then a ReLU of their sum.

    As in VGG a gate is before or after the layer: inside, it would prevent folding the branches
    into one convolution. The first layer of a stage has no identity, even if its stride is 1, so
    that the weights of one variant fit the other.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, first: bool) -> None:
        super().__init__()
        self.identity = None if first else nn.BatchNorm2d(outputs)
        self.conv_kxk = ConvNormAct(inputs, outputs, 3, stride, "same", act=False)
        self.conv_1x1 = ConvNormAct(inputs, outputs, 1, stride, act=False)
        self.slots = Slots({"pre": inputs, "standard": outputs})

    def body(self, x: Tensor) -> Tensor:
        """The branches, their sum and the ReLU."""
        y = self.conv_1x1(x) + self.conv_kxk(x)
        return F.relu(y if self.identity is None else y + self.identity(x))

    def forward(self, x: Tensor) -> Tensor:
        return unit(x, self.slots, self.body)


class RepVGG(Classifier):
    """RepVGG: built by `RepVGGConfig.build`."""

    head_name = "head.fc"
    _config: RepVGGConfig

    def __init__(self, config: RepVGGConfig) -> None:
        super().__init__(config)
        strides = stem_and_stages([2] * len(config.depths), small=config.small)
        inputs, *widths = config.widths
        self.stem = RepVGGBlock(config.in_chans, inputs, strides[0], first=True)
        self.blocks = nn.Sequential()
        for outputs, depth, first in zip(widths, config.depths, strides[1:], strict=True):
            stage = nn.Sequential()
            for index in range(depth):
                stride = 1 if index else first
                stage.append(RepVGGBlock(inputs, outputs, stride, first=not index))
                inputs = outputs
            self.blocks.append(stage)
        levels = [["stem"], *([f"blocks.{index}"] for index in range(len(widths)))]
        self.set_levels(levels, accumulate(strides, mul), config.widths)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(config.dropout) if config.dropout else None
        self.head = nn.Sequential(OrderedDict(fc=nn.Linear(inputs, config.num_classes)))
        init_convs(self, "fan_out")

    def input_parameters(self) -> tuple[str, ...]:
        return ("stem.conv_kxk.conv.weight", "stem.conv_1x1.conv.weight")


FAMILY = Family(
    title="RepVGG",
    papers={"*": arxiv("RepVGG: Making VGG-style ConvNets Great Again", "2101.03697")},
    small="The first two stages have stride 1: the last map is 4x4.",
    networks={
        "repvgg_a0": RepVGGConfig(depths=(2, 4, 14, 1), width=0.75),
        "repvgg_b0": RepVGGConfig(depths=(4, 6, 16, 1)),
    },
)
