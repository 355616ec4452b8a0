"""Xception.

Chollet 2016, "Xception: Deep Learning with Depthwise Separable Convolutions" (arXiv:1610.02357),
Fig. 5. Child names are those of timm's ``legacy_xception``, so its state dict loads strictly.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor, nn

from senetzoo._utils.checks import PositiveInt
from senetzoo.models.family import Family, arxiv
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.drop_path import DropPath, linear_rates
from senetzoo.nn.init import init_convs
from senetzoo.nn.slots import Slots, chain, residual

Row = tuple[tuple[int, ...], int]
# Channels of each separable convolution of a block, and the block's stride.
ENTRY: tuple[Row, ...] = (((128, 128), 2), ((256, 256), 2), ((728, 728), 2))
MIDDLE: Row = ((728, 728, 728), 1)
EXIT: Row = ((728, 1024), 2)
# Channels of the stem's convolutions, and of the separable convolutions at the end.
STEM_WIDTHS, LAST_WIDTHS = (32, 64), (1536, 2048)


@dataclass(frozen=True, kw_only=True)
class XceptionConfig(Config):
    """An Xception.

    ``stem="cifar"`` is a variant for 32x32 images: the convolutions of the stem are padded, and
    they and the first block have stride 1, so that the last map is 4x4.

    Args:
        middle: Blocks of the middle flow.
    """

    sizes = MappingProxyType({"imagenet": 299, "cifar": 32})

    middle: PositiveInt = 8

    @property
    def min_size(self) -> int:
        # The stem is not padded: its second convolution needs 3x3 pixels.
        return 1 if self.small else 7

    @property
    def stages(self) -> tuple[tuple[Row, ...], ...]:
        """The blocks of each stage."""
        first, *others = ENTRY
        first = (first[0], 1) if self.small else first
        return (first,), (others[0],), (others[1], *[MIDDLE] * self.middle), (EXIT,)

    def build(self) -> Xception:
        return Xception(self)


class SeparableConv(nn.Module):
    """A depthwise 3x3 and a 1x1 convolution, with nothing between them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        return self.pointwise(self.conv1(x))  # type: ignore[no-any-return]


class XceptionBlock(nn.Module):
    """Separable convolutions, each between a ReLU and a norm, and a max pool for the stride.

    ``inner`` is before the last separable convolution, after its ReLU.

    Args:
        inputs: Input channels.
        row: Channels of each separable convolution, and the stride.
        first: Whether it is the network's first block, whose input already went through a ReLU.
        drop_path: Rate of stochastic depth.
    """

    def __init__(self, inputs: int, row: Row, first: bool, drop_path: float) -> None:
        super().__init__()
        widths, stride = row
        outputs, width = widths[-1], inputs
        self.skip = self.skipbn = None
        if stride > 1 or outputs != inputs:
            self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.skipbn = nn.BatchNorm2d(outputs)
        self.rep = nn.Sequential()
        for index, channels in enumerate(widths):
            if index or not first:
                # Not in place on the block's input, which the skip uses too.
                self.rep.append(nn.ReLU(inplace=index > 0))
            inner, self._before = width, len(self.rep)
            self.rep += nn.Sequential(SeparableConv(width, channels), nn.BatchNorm2d(channels))
            width = channels
        if stride > 1:
            self.rep.append(nn.MaxPool2d(3, stride, 1))
        self.drop_path = DropPath(drop_path) if drop_path else None
        self.slots = Slots.residual(inputs, outputs, inner)

    def branch(self, x: Tensor) -> Tensor:
        """The separable convolutions."""
        layers = list(self.rep)
        x = self.slots.at("inner", chain(*layers[: self._before])(x))
        return chain(*layers[self._before :])(x)

    def shortcut(self, x: Tensor) -> Tensor:
        """The projection, or the identity if there is none."""
        return x if self.skip is None or self.skipbn is None else self.skipbn(self.skip(x))

    def forward(self, x: Tensor) -> Tensor:
        return residual(
            x, self.slots, self.branch, shortcut=self.shortcut, drop_path=self.drop_path
        )


class Xception(Classifier):
    """Xception: built by `XceptionConfig.build`."""

    _config: XceptionConfig
    fc: nn.Linear

    def __init__(self, config: XceptionConfig) -> None:
        super().__init__(config)
        stride, padding = (1, 1) if config.small else (2, 0)
        inputs, width = STEM_WIDTHS
        self.conv1 = nn.Conv2d(config.in_chans, inputs, 3, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv2 = nn.Conv2d(inputs, width, 3, padding=padding, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.act1, self.act2, self.act3, self.act4 = (nn.ReLU(inplace=True) for _ in range(4))
        levels: list[list[str]] = []
        number = 0
        rates = linear_rates(config.drop_path, [len(rows) for rows in config.stages])
        for rows, drop_paths in zip(config.stages, rates, strict=True):
            levels.append([])
            for row, drop_path in zip(rows, drop_paths, strict=True):
                number += 1
                block = XceptionBlock(width, row, number == 1, drop_path)
                self.add_module(f"block{number}", block)
                levels[-1].append(f"block{number}")
                width = row[0][-1]
        for number, outputs in enumerate(LAST_WIDTHS, 3):
            self.add_module(f"conv{number}", SeparableConv(width, outputs))
            self.add_module(f"bn{number}", nn.BatchNorm2d(outputs))
            width = outputs
        levels[0][:0] = ["conv1", "bn1", "act1", "conv2", "bn2", "act2"]
        levels[-1] += ["conv3", "bn3", "act3", "conv4", "bn4", "act4"]
        strides = [stride * s for s in ((1, 2, 4, 8) if config.small else (2, 4, 8, 16))]
        self.set_levels(levels, strides, [*(rows[-1][0][-1] for rows in config.stages[:-1]), width])
        self.add_head(width)
        init_convs(self, "fan_out")


FAMILY = Family(
    title="Xception",
    papers={
        "*": arxiv("Xception: Deep Learning with Depthwise Separable Convolutions", "1610.02357")
    },
    small="The stem and the first block have stride 1, and the stem is padded: the last map is "
    "4x4.",
    networks={"xception": XceptionConfig()},
)
