"""Plain networks: ResNets without shortcuts, which get worse when they get deeper.

He et al. 2015, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385): Fig. 3 middle
and Table 2 for ImageNet, Section 4.2 and Fig. 6 left for CIFAR-10.

Child names and parameters are those of the ResNet of the same depth without its projections, so
the two networks differ only in the shortcuts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from senetzoo._utils.checks import Depths, PositiveInt
from senetzoo.models.family import HE_2015, Family
from senetzoo.models.staged import SMALL_FORM, Block, ResNet, basic, check_stem, cifar
from senetzoo.nn.classifier import Config


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

    def build(self) -> ResNet:
        return ResNet(self, self.depths, (self.width, self.width), self._block)

    def _block(self, inputs: int, outputs: int, stride: int, _: float) -> Block:
        """A basic block without its shortcut."""
        return Block(inputs, basic(outputs, stride), skip=False)


FAMILY = Family(
    title="Plain",
    papers={"plain*": HE_2015},
    small=SMALL_FORM,
    networks={
        "plain18": PlainConfig(depths=(2, 2, 2, 2)),
        "plain34": PlainConfig(depths=(3, 4, 6, 3)),
        # Section 4.2: 6n+2 layers, n pairs per stage.
        **{f"plain{6 * n + 2}": PlainConfig(**cifar(n)) for n in (3, 5, 7, 9)},
    },
)
