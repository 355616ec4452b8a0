"""Plain networks: ResNets without shortcuts, which get worse when they get deeper.

He et al. 2015, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385): Fig. 3 middle
and Table 2 for ImageNet, Section 4.2 and Fig. 6 left for CIFAR-10.

Child names are those of the ResNet of the same depth, whose parameters less the projections'
these are: layer for layer, the pair differs in the sum alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from senetzoo._utils.checks import Depths, PositiveInt
from senetzoo.models.family import Family
from senetzoo.models.resnet import HE_2015
from senetzoo.models.staged import Staged, check_stem
from senetzoo.nn.config import Config
from senetzoo.nn.slots import Slots, unit


@dataclass(frozen=True, kw_only=True)
class PlainConfig(Config):
    """A plain network: a stem, then pairs of 3x3 convolutions.

    Args:
        depths: Pairs of convolutions of each stage.
        width: Channels of the stem and of the first stage; doubled at each later stage.
    """

    any_stem: ClassVar[bool] = True
    has_branches: ClassVar[bool] = False

    depths: Depths
    width: PositiveInt = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stem(self.width, self.stem, self.width)

    def build(self) -> Plain:
        return Plain(self)


class PlainBlock(nn.Module):
    """What is left of a basic block when its shortcut is gone: the branch and the activation.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        stride: Stride of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.slots = Slots({"pre": inputs, "standard": outputs, "inner": outputs})

    def body(self, x: Tensor) -> Tensor:
        """Two convolutions, each with its norm and activation."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.slots.at("inner", x)
        return self.relu(self.bn2(self.conv2(x)))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return unit(x, self.slots, self.body)


class Plain(Staged):
    """A plain network: built by `PlainConfig.build`."""

    _config: PlainConfig

    def __init__(self, config: PlainConfig) -> None:
        super().__init__(config, [config.width * 2**index for index in range(len(config.depths))])
        self.add_stem(config.width)
        self.add_stages(
            config.width,
            config.depths,
            lambda inputs, outputs, stride, _: PlainBlock(inputs, outputs, stride),
        )
        self.finish()


def _cifar(depth: int) -> PlainConfig:
    """Section 4.2: 6n+2 layers, three stages of n pairs, 16-32-64 wide."""
    return PlainConfig(depths=((depth - 2) // 6,) * 3, width=16, num_classes=10, stem="cifar")


FAMILY = Family(
    title="Plain",
    papers={"plain*": HE_2015},
    small="The stem is one 3x3 convolution of stride 1, without the pool: 4x4 before the pool of "
    "networks of four stages, 8x8 of three.",
    networks={
        "plain18": PlainConfig(depths=(2, 2, 2, 2)),
        "plain34": PlainConfig(depths=(3, 4, 6, 3)),
        **{f"plain{depth}": _cifar(depth) for depth in (20, 32, 44, 56)},
    },
)
