"""What the whole ResNet line is: a stem, stages of blocks, a pool over the map, a linear layer.

The names are torchvision's: ``conv1``, ``maxpool``, ``layer1``, ``layer2`` ..., ``fc``. A family
says which blocks its stages have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from torch import nn

from senetzoo.errors import ConfigError
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.drop_path import linear_rates
from senetzoo.nn.init import init_convs
from senetzoo.nn.maps import doubling
from senetzoo.nn.stem import Stem, as_stem, stem_convs

Row: TypeAlias = tuple[int, int, int, int]
"""Output channels, kernel, stride and groups of a convolution of a block."""


def basic(outputs: int, stride: int) -> tuple[Row, ...]:
    """Two 3x3 convolutions (ResNet paper, Fig. 5 left)."""
    return (outputs, 3, stride, 1), (outputs, 3, 1, 1)


def bottleneck(
    widths: tuple[int, int], outputs: int, strides: tuple[int, int], groups: int = 1
) -> tuple[Row, ...]:
    """1x1, 3x3, 1x1 (ResNet paper, Fig. 5 right; ResNeXt paper, Fig. 3c).

    Args:
        widths: Channels of the first 1x1 and of the 3x3.
        outputs: Channels out.
        strides: Strides of the first 1x1 and of the 3x3.
        groups: Groups of the 3x3.
    """
    first, width = widths
    return (first, 1, strides[0], 1), (width, 3, strides[1], groups), (outputs, 1, 1, 1)


def block_conv(inputs: int, row: Row) -> nn.Conv2d:
    """A convolution of a block, padded to keep the size at stride 1."""
    outputs, kernel, stride, groups = row
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


class Staged(Classifier):
    """A network of stages; a subclass adds its stem and stages, then finishes it.

    Each stage but the first begins with a block of stride 2.

    Args:
        config: Its config, whose `Config.any_stem` is true.
        outputs: Channels of the map after each stage.
    """

    fc: nn.Linear

    def __init__(self, config: Config, outputs: Sequence[int]) -> None:
        super().__init__(config)
        self.outputs = tuple(outputs)
        self.maxpool: nn.Module | None = None

    def add_stem(self, outputs: int, *, norm: bool = True, pool: str = "padded") -> None:
        """The convolutions of the config's stem; with `norm`, a norm and an activation follow.

        Args:
            outputs: Channels of the last convolution.
            norm: Whether the norm and the activation after it are there.
            pool: ``"padded"`` by 1, or ``"ceil"``, unpadded in ceil mode, where the stem pools.
        """
        stem = as_stem(self._config.stem)
        self.conv1 = stem_convs(stem, self._config.in_chans, outputs)
        self.bn1 = nn.BatchNorm2d(outputs) if norm else None
        self.relu = nn.ReLU(inplace=True) if norm else None
        if stem.pool and pool == "padded":
            self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        elif stem.pool:
            self.maxpool = nn.MaxPool2d(3, 2, ceil_mode=True)

    def add_stages(
        self,
        inputs: int,
        depths: Sequence[int],
        block: Callable[[int, int, int, float], nn.Module],
    ) -> None:
        """The stages, with stochastic depth rising linearly from 0 to the config's rate.

        Args:
            inputs: Channels that the first block gets.
            depths: Blocks of each stage.
            block: Makes a block of its channels in and out, stride, and rate of stochastic depth.
        """
        rates = linear_rates(self._config.drop_path, depths)
        for index, (drop_paths, outputs) in enumerate(zip(rates, self.outputs, strict=True)):
            blocks: list[nn.Module] = []
            for number, drop_path in enumerate(drop_paths):
                stride = 2 if index > 0 and number == 0 else 1
                blocks.append(block(inputs, outputs, stride, drop_path))
                inputs = outputs
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))

    def finish(self) -> None:
        """The order of all modules, the head, and the initialization of the authors' code."""
        levels = [[f"layer{n}"] for n in range(1, len(self.outputs) + 1)]
        levels[0][:0] = ["conv1", "bn1", "relu", "maxpool"]
        levels[-1] += ["norm", "act"]
        first = as_stem(self._config.stem).stride
        self.set_levels(levels, doubling(first, len(levels)), self.outputs)
        self.add_head(self.outputs[-1])
        init_convs(self, "fan_out")


def check_stem(width: int, stem: Stem | str, channels: int, example: int = 64) -> None:
    """Refuse a width that leaves one of the stem's convolutions without channels.

    Args:
        width: The config's width.
        stem: The stem.
        channels: Channels of the stem's last convolution.
        example: A width that does, for the message.

    Raises:
        ConfigError: There is such a convolution.
    """
    if int(channels * min(as_stem(stem).widths)) < 1:
        raise ConfigError(
            f"width={width} with {stem!r} leaves no channels.",
            "The stem's convolutions have width times its widths channels, at least 1.",
            f"Type for example: width={example}",
        )


def smallest_image(stem: Stem | str, pool: str) -> int:
    """Side of the smallest image that leaves something after the stem.

    A padded convolution or pool of stride s leaves a pixel of every s begun, so even of one; the
    unpadded pool in ceil mode needs two.
    """
    stem = as_stem(stem)
    return stem.stride // 2 + 1 if stem.pool and pool == "ceil" else 1
