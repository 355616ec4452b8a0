"""SENet-154, the largest network of the entry that won ILSVRC 2017.

Hu et al. 2017, "Squeeze-and-Excitation Networks" (arXiv:1709.01507), appendix "Details of
SENet-154": ResNeXt-152 (64x4d) with

- an SE gate in every block, which is the default policy here and not part of the trunk;
- half the channels in the first 1x1 of each bottleneck;
- three 3x3 convolutions instead of the 7x7;
- a 3x3 convolution instead of the 1x1 on the shortcuts of stride 2;
- dropout of 0.2 before the classifier.

Child names are those of torchvision's ResNet and of timm's ``senet154``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from senetzoo._utils.checks import Depths, PositiveInt, Rate
from senetzoo.errors import ConfigError
from senetzoo.models.family import Family, arxiv
from senetzoo.models.staged import Block, ResNet, bottleneck, check_stem, projection, smallest_image
from senetzoo.nn.classifier import Config
from senetzoo.nn.stem import Stem


@dataclass(frozen=True, kw_only=True)
class SENetConfig(Config):
    """A network like SENet-154.

    Args:
        depths: Blocks of each stage.
        width: Half the stem's channels. Blocks of the first stage have 4 times `width` output
            channels, doubled at each later stage.
        groups: Groups of the 3x3.
        group_width: Channels of one group in the first stage, for a `width` of 64.
        pool: The stem's max pool: ``"padded"`` by 1 (timm's ``senet154``), or ``"ceil"``: unpadded
            in ceil mode (the authors' Caffe network, timm's ``legacy_senet154``).
    """

    any_stem: ClassVar[bool] = True

    stem: Stem | str = "deep"
    dropout: Rate = 0.2
    depths: Depths
    width: PositiveInt = 64
    groups: PositiveInt = 64
    group_width: PositiveInt = 4
    pool: Literal["padded", "ceil"] = "padded"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stem(self.width, self.stem, 2 * self.width)
        first = self.inner_width // 2
        if first < 1 or first % self.groups:
            raise ConfigError(
                f"width={self.width} with groups={self.groups} and "
                f"group_width={self.group_width} gives no whole groups.",
                "Each group of the 3x3 has width * group_width / 128 input channels.",
                "Type for example: width=64, group_width=4",
            )

    @property
    def inner_width(self) -> int:
        """Channels of the 3x3 in the first stage."""
        return self.width * self.group_width // 64 * self.groups

    @property
    def min_size(self) -> int:
        return smallest_image(self.stem, self.pool)

    def build(self) -> ResNet:
        widths = (2 * self.width, 4 * self.width)
        return ResNet(self, self.depths, widths, self._block, pool=self.pool)

    def _block(self, inputs: int, outputs: int, stride: int, drop_path: float) -> Block:
        width = self.inner_width * outputs // (4 * self.width)
        shortcut = None
        if stride > 1 or inputs != outputs:
            shortcut = projection(inputs, outputs, stride, kernel=1 if stride == 1 else 3)
        rows = bottleneck((width // 2, width), outputs, stride, groups=self.groups)
        return Block(inputs, rows, shortcut, drop_path)


FAMILY = Family(
    title="SENet",
    papers={"senet154": arxiv("Squeeze-and-Excitation Networks", "1709.01507")},
    small="The stem is one 3x3 convolution of stride 1 without a pool: the last map is 4x4.",
    networks={"senet154": SENetConfig(depths=(3, 8, 36, 3))},
    # r = 16, as in the paper's other networks.
    defaults={"senet154": "se16"},
)
