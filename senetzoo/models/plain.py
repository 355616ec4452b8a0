"""Plain networks: ResNets without shortcuts, which get worse when they get deeper.

He et al. 2015, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385): Fig. 3 middle
and Table 2 for ImageNet, Section 4.2 and Fig. 6 left for CIFAR-10.

Child names are those of the ResNet of the same depth, whose parameters less the projections'
these are: layer for layer, the pair differs in the sum alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from senetzoo._utils.checks import Depths, PositiveInt
from senetzoo.models.family import Family
from senetzoo.models.resnet import HE_2015, Block
from senetzoo.models.staged import Staged, basic, check_stem
from senetzoo.nn.classifier import Config
from senetzoo.nn.maps import doubling
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


class PlainBlock(Block):
    """What is left of a basic block when its shortcut is gone: the branch and the activation."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, basic(outputs, stride))
        self.slots = Slots({"pre": inputs, "standard": outputs, "inner": outputs})

    def forward(self, x: Tensor) -> Tensor:
        return unit(x, self.slots, lambda y: self.relu(self.branch(y)))


class Plain(Staged):
    """A plain network: built by `PlainConfig.build`."""

    _config: PlainConfig

    def __init__(self, config: PlainConfig) -> None:
        super().__init__(config, doubling(config.width, len(config.depths)))
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
