"""Base of the ResNet families: a stem, stages of blocks, global average pooling, a linear layer.

Child names are torchvision's: ``conv1``, ``bn1``, ``maxpool``, ``layer1``, ``layer2`` ..., ``fc``;
inside a block ``conv1``, ``bn1`` ..., or timm's ``norm1``, ``conv1`` ... if norms come first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, nn

from senetzoo.errors import ConfigError
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.drop_path import DropPath, linear_rates
from senetzoo.nn.init import init_convs
from senetzoo.nn.maps import doubling
from senetzoo.nn.slots import Slots, residual, unit
from senetzoo.nn.stem import Stem, as_stem, stem_convs

Row: TypeAlias = tuple[int, int, int, int]
"""Output channels, kernel, stride and groups of a convolution of a block."""

SMALL_FORM = (
    "The stem is one 3x3 convolution of stride 1 without a pool: the last map is 4x4 with four "
    "stages, 8x8 with three."
)


# Blocks of each stage, by the number of layers. 18, 34, 50, 101 and 152 are from Table 1 of the
# ResNet paper, 200 is from Identity Mappings, and the others are from pytorchcv.
BASIC_DEPTHS = {
    10: (1, 1, 1, 1),
    12: (2, 1, 1, 1),
    14: (2, 2, 1, 1),
    16: (2, 2, 2, 1),
    18: (2, 2, 2, 2),
    26: (3, 3, 3, 3),
    34: (3, 4, 6, 3),
}
BOTTLENECK_DEPTHS = {
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
    269: (3, 30, 48, 8),
}
# Shallow networks of bottlenecks, which pytorchcv calls bc.
SHALLOW_DEPTHS = {14: (1, 1, 1, 1), 26: (2, 2, 2, 2), 38: (3, 3, 3, 3)}


def cifar(blocks: int) -> dict[str, Any]:
    """Section 4.2 of the ResNet paper: three stages of `blocks` blocks, 16, 32 and 64 channels."""
    return {"depths": (blocks,) * 3, "width": 16, "num_classes": 10, "stem": "cifar"}


# With bottlenecks: 9n+2 layers (164 and 1001 are from Table 3 of Identity Mappings, 272 and 542
# from pytorchcv).
CIFAR_BOTTLENECKS = {depth: cifar((depth - 2) // 9) for depth in (164, 272, 542, 1001)}


def basic(outputs: int, stride: int) -> tuple[Row, ...]:
    """Two 3x3 convolutions (ResNet paper, Fig. 5 left)."""
    return (outputs, 3, stride, 1), (outputs, 3, 1, 1)


def bottleneck(
    widths: tuple[int, int], outputs: int, stride: int, stride_on: str = "3x3", groups: int = 1
) -> tuple[Row, ...]:
    """1x1, 3x3, 1x1 (ResNet paper, Fig. 5 right; ResNeXt paper, Fig. 3c).

    Args:
        widths: Channels of the first 1x1 and of the 3x3.
        outputs: Output channels.
        stride: Stride of the block.
        stride_on: Which convolution has the stride, ``"1x1"`` (the first) or ``"3x3"``.
        groups: Groups of the 3x3.
    """
    before = stride if stride_on == "1x1" else 1
    return (widths[0], 1, before, 1), (widths[1], 3, stride // before, groups), (outputs, 1, 1, 1)


def projection(inputs: int, outputs: int, stride: int, kernel: int = 1) -> nn.Sequential:
    """Option B of the ResNet paper: a convolution with a norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Block(nn.Module):
    """Convolutions with their norms, and a shortcut.

    With `preact` the norm and the activation come before each convolution (Identity Mappings,
    Fig. 4e). The branch and a projection share the first of them; an identity skip takes the
    block's input unchanged.

    Args:
        inputs: Input channels.
        rows: The convolutions, from `basic` or `bottleneck`.
        shortcut: Module on the skip; None for the identity.
        drop_path: Rate of stochastic depth.
        preact: Whether norms and activations come first.
        skip: Whether there is a skip.
    """

    def __init__(
        self,
        inputs: int,
        rows: Sequence[Row],
        shortcut: nn.Module | None = None,
        drop_path: float = 0.0,
        *,
        preact: bool = False,
        skip: bool = True,
    ) -> None:
        super().__init__()
        self.depth, self.preact, self.skip = len(rows), preact, skip
        width = inputs
        for number, (outputs, kernel, stride, groups) in enumerate(rows, 1):
            if preact:
                self.add_module(f"norm{number}", nn.BatchNorm2d(width))
            conv = nn.Conv2d(width, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
            self.add_module(f"conv{number}", conv)
            width = outputs
            if not preact:
                self.add_module(f"bn{number}", nn.BatchNorm2d(width))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut
        self.drop_path = DropPath(drop_path) if drop_path else None
        inner = rows[-2][0]
        self.slots = (
            Slots.residual(inputs, width, inner)
            if skip
            else Slots({"pre": inputs, "standard": width, "inner": inner})
        )

    def norm_act(self, number: int, x: Tensor) -> Tensor:
        """Apply the norm `number` and the activation."""
        norm = getattr(self, f"norm{number}" if self.preact else f"bn{number}")
        # In place on the norm's output, which nothing else uses.
        return self.relu(norm(x))  # type: ignore[no-any-return]

    def branch(self, x: Tensor) -> Tensor:
        """The convolutions, with norms and activations between them."""
        for number in range(1, self.depth):
            x = getattr(self, f"conv{number}")(x)
            x = self.norm_act(number + 1 if self.preact else number, x)
        x = getattr(self, f"conv{self.depth}")(self.slots.at("inner", x))
        return x if self.preact else getattr(self, f"bn{self.depth}")(x)

    def forward(self, x: Tensor) -> Tensor:
        if not self.skip:
            return unit(x, self.slots, lambda y: self.relu(self.branch(y)))
        return residual(
            x,
            self.slots,
            self.branch,
            shortcut=self.downsample,
            preact=partial(self.norm_act, 1) if self.preact else None,
            act=None if self.preact else self.relu,
            drop_path=self.drop_path,
        )


class ResNet(Classifier):
    """A network of one of the ResNet families, built by `build` of its config.

    Each stage but the first starts with a block of stride 2 and doubles the channels.

    Args:
        config: Its config, whose `Config.any_stem` is true.
        depths: Blocks of each stage.
        widths: Channels of the stem, and of the map after the first stage.
        block: Builds a block from input and output channels, stride, and stochastic depth rate.
        pool: The stem's max pool, if it has one: ``"padded"`` by 1, or ``"ceil"``, unpadded in
            ceil mode.
        stem_norm: Whether a norm and an activation follow the stem's last convolution.
        last_norm: Whether they follow the last block, if blocks don't end with their own.
    """

    fc: nn.Linear

    def __init__(
        self,
        config: Config,
        depths: Sequence[int],
        widths: tuple[int, int],
        block: Callable[[int, int, int, float], nn.Module],
        *,
        pool: str = "padded",
        stem_norm: bool = True,
        last_norm: bool = False,
    ) -> None:
        super().__init__(config)
        inputs, first = widths
        stem, channels = as_stem(config.stem), doubling(first, len(depths))
        self.conv1 = stem_convs(stem, config.in_chans, inputs)
        self.bn1 = nn.BatchNorm2d(inputs) if stem_norm else None
        self.relu = nn.ReLU(inplace=True) if stem_norm else None
        padding, ceil = (1, False) if pool == "padded" else (0, True)
        self.maxpool = nn.MaxPool2d(3, 2, padding, ceil_mode=ceil) if stem.pool else None
        levels = []
        rates = linear_rates(config.drop_path, depths)
        for stage, (outputs, drop_paths) in enumerate(zip(channels, rates, strict=True), 1):
            blocks = nn.Sequential()
            for drop_path in drop_paths:
                stride = 2 if stage > 1 and not len(blocks) else 1
                blocks.append(block(inputs, outputs, stride, drop_path))
                inputs = outputs
            self.add_module(f"layer{stage}", blocks)
            levels.append([f"layer{stage}"])
        self.norm = nn.BatchNorm2d(inputs) if last_norm else None
        self.act = nn.ReLU() if last_norm else None
        levels[0][:0] = ["conv1", "bn1", "relu", "maxpool"]
        levels[-1] += ["norm", "act"]
        self.set_levels(levels, doubling(stem.stride, len(levels)), channels)
        self.add_head(inputs)
        # As in the authors' code.
        init_convs(self, "fan_out")


def check_stem(width: int, stem: Stem | str, channels: int) -> None:
    """Raise if a convolution of the stem, whose last one has `channels`, would have no channels."""
    if int(channels * min(as_stem(stem).widths)) < 1:
        raise ConfigError(
            f"width={width} with {stem!r} leaves no channels.",
            "Each stem convolution has width times its entry in widths channels, at least 1.",
            "Type for example: width=64",
        )


def smallest_image(stem: Stem | str, pool: str) -> int:
    """Size of the smallest image that has at least one pixel left after the stem.

    A padded convolution or pool of stride s divides the size by s, rounded up, so one pixel is
    enough; the unpadded pool in ceil mode needs two.
    """
    stem = as_stem(stem)
    return stem.stride // 2 + 1 if stem.pool and pool == "ceil" else 1
