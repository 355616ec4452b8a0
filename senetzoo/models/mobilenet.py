"""MobileNet.

Howard et al. 2017, "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
Applications" (arXiv:1704.04861): Table 1, with the width multipliers of Tables 6 and 7.

Child names are timm's, so the state dict of its ``mobilenetv1_100`` loads strictly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Tensor, nn

from senetzoo._utils.checks import Gt, Le
from senetzoo.models.family import Family, arxiv
from senetzoo.models.inverted import reductions, rounded, stem_and_stages
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.init import init_separable
from senetzoo.nn.slots import Slots, unit

STEM_WIDTH = 32

# Table 1 by resolution: (stride of the first block, channels, blocks).
STAGES = (
    (1, 64, 1),
    (2, 128, 2),
    (2, 256, 2),
    (2, 512, 6),
    (2, 1024, 2),
)


@dataclass(frozen=True, kw_only=True)
class MobileNetConfig(Config):
    """A MobileNet.

    ``stem="cifar"`` is a variant for 32x32 images: the stem and the second stage have stride 1, so
    that the last map is 4x4.

    Args:
        width: Factor for all channels, which are rounded to multiples of 8 and at least 8.
        act: ``"relu6"`` (the authors' code, and timm), or ``"relu"`` (the paper, Fig. 3).
    """

    has_branches: ClassVar[bool] = False

    width: Annotated[float, Gt(0), Le(8)] = 1.0
    act: Literal["relu6", "relu"] = "relu6"

    def channels(self, full: int) -> int:
        """Channels of a layer that has `full` channels at width 1."""
        return rounded(full * self.width)

    def build(self) -> MobileNet:
        return MobileNet(self)


class Separable(nn.Module):
    """A depthwise 3x3 and a 1x1 convolution, each with norm and activation (Fig. 3, right)."""

    def __init__(self, inputs: int, outputs: int, stride: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv_pw = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act = act(inplace=True)
        self.slots = Slots({"pre": inputs, "standard": outputs, "inner": inputs})

    def body(self, x: Tensor) -> Tensor:
        """Both convolutions."""
        x = self.slots.at("inner", self.act(self.bn1(self.conv_dw(x))))
        return self.act(self.bn2(self.conv_pw(x)))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return unit(x, self.slots, self.body)


class MobileNet(Classifier):
    """MobileNet: built by `MobileNetConfig.build`."""

    head_name = "classifier"
    _config: MobileNetConfig
    classifier: nn.Linear

    def __init__(self, config: MobileNetConfig) -> None:
        super().__init__(config)
        act = nn.ReLU6 if config.act == "relu6" else nn.ReLU
        strides = stem_and_stages((stride for stride, _, _ in STAGES), small=config.small)
        inputs = config.channels(STEM_WIDTH)
        self.conv_stem = nn.Conv2d(config.in_chans, inputs, 3, strides[0], 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.act = act(inplace=True)
        self.blocks = nn.Sequential()
        for first, (_, width, depth) in zip(strides[1:], STAGES, strict=True):
            stage = nn.Sequential()
            for index in range(depth):
                outputs = config.channels(width)
                stage.append(Separable(inputs, outputs, 1 if index else first, act))
                inputs = outputs
            self.blocks.append(stage)
        levels = [[f"blocks.{index}"] for index in range(len(STAGES))]
        levels[0][:0] = ["conv_stem", "bn1", "act"]
        widths = (config.channels(width) for _, width, _ in STAGES)
        self.set_levels(levels, reductions(strides), widths)
        # It has the config's dropout, which neither the paper nor timm has.
        self.add_head(inputs)
        init_separable(self)


FAMILY = Family(
    title="MobileNet",
    papers={
        "*": arxiv(
            "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
            "1704.04861",
        )
    },
    small="The stem and the second stage have stride 1: the last map is 4x4.",
    networks={
        "mobilenet_v1": MobileNetConfig(),
        "mobilenet_v1_075": MobileNetConfig(width=0.75),
        "mobilenet_v1_050": MobileNetConfig(width=0.5),
        "mobilenet_v1_025": MobileNetConfig(width=0.25),
    },
)
