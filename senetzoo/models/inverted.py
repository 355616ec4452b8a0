"""Inverted residuals, and the base of MobileNetV2, MobileNetV3 and EfficientNet.

Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (arXiv:1801.04381),
Section 3.3: a 1x1 convolution to more channels, a depthwise convolution, and a linear 1x1
convolution to fewer channels.

Child names are torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from operator import mul
from typing import TypeVar

from torch import Tensor, nn

from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.drop_path import DropPath, linear_rates
from senetzoo.nn.init import init_separable
from senetzoo.nn.slots import Position, Slots, chain, residual, unit

Row = TypeVar("Row")


def rounded(channels: float, multiple: int = 8) -> int:
    """Round to the nearest positive multiple, or up if that would remove more than a tenth."""
    nearest = max(int(channels + multiple / 2) // multiple * multiple, multiple)
    return nearest if nearest >= 0.9 * channels else nearest + multiple


def stem_and_stages(stages: Iterable[int], *, small: bool) -> tuple[int, ...]:
    """Strides of the stem, which is 2, and of each stage's first block.

    For small images the first two strides of 2 become 1: a 32x32 image ends as a 4x4 map, not 1x1.
    """
    strides = (2, *stages)
    if not small:
        return strides
    first, second = [index for index, stride in enumerate(strides) if stride == 2][:2]
    return tuple(1 if index in (first, second) else s for index, s in enumerate(strides))


def reductions(strides: Iterable[int]) -> list[int]:
    """Stride of each stage's map relative to the image, from those of `stem_and_stages`."""
    return [*accumulate(strides, mul)][1:]


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    act: Callable[[], nn.Module] | None = None,
) -> nn.Sequential:
    """A convolution that keeps the resolution at stride 1, its norm, and an activation if given."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        norm(outputs),
        *([act()] if act else []),
    )


class InvertedResidual(nn.Module):
    """An inverted residual block; it has a skip if input and output have the same shape.

    A block without a skip has no positions ``post`` and ``identity``.

    Args:
        layers: Layers in order, by name. The number of torchvision's SE module is skipped: the
            gate of the default policy is at ``slots.inner``.
        container: Name of the child that holds them.
        spatial: Number of layers before the position ``inner``; 0 if there is none, because the
            block ends with the spatial convolution.
        inputs: Input channels.
        width: Channels inside.
        outputs: Output channels.
        stride: Stride.
        drop_path: Rate of stochastic depth, for a block with a skip.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        *,
        container: str,
        spatial: int,
        inputs: int,
        width: int,
        outputs: int,
        stride: int,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.add_module(container, nn.ModuleDict(layers))
        self._container, self._spatial = container, spatial
        self.outputs = outputs
        self.skip = stride == 1 and inputs == outputs
        self.drop_path = DropPath(drop_path) if self.skip and drop_path else None
        channels: dict[Position, int] = {"pre": inputs, "standard": outputs}
        if self.skip:
            channels |= {"post": outputs, "identity": outputs}
        self.slots = Slots({**channels, **({"inner": width} if spatial else {})})

    def branch(self, x: Tensor) -> Tensor:
        """The convolutions."""
        for index, layer in enumerate(self.get_submodule(self._container).children(), 1):
            x = layer(x)
            if index == self._spatial:
                x = self.slots.at("inner", x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        if self.skip:
            return residual(x, self.slots, self.branch, drop_path=self.drop_path)
        return unit(x, self.slots, self.branch)


def stages_of(
    rows: Sequence[Sequence[Row]],
    block: Callable[[int, Row, int, float], InvertedResidual],
    *,
    inputs: int,
    strides: Sequence[int],
    drop_path: float,
) -> list[list[InvertedResidual]]:
    """The blocks of each stage.

    Args:
        rows: Rows of the table, one for each block of each stage.
        block: Builds a block from its input channels, row, stride and rate of stochastic depth.
        inputs: Channels of the stem.
        strides: Stride of each stage's first block; the others have stride 1.
        drop_path: Rate of stochastic depth at the last block.
    """
    stages = []
    every_rate = linear_rates(drop_path, [len(stage) for stage in rows])
    for stage, first, rates in zip(rows, strides, every_rate, strict=True):
        blocks = []
        for index, (row, rate) in enumerate(zip(stage, rates, strict=True)):
            blocks.append(block(inputs, row, 1 if index else first, rate))
            inputs = blocks[-1].outputs
        stages.append(blocks)
    return stages


class InvertedNet(Classifier):
    """A stem, stages of blocks, a last 1x1 convolution and a classifier.

    Args:
        config: The config.
        stem: The first convolution.
        stages: The blocks of each stage.
        last: The convolution before the pool.
        classifier: The layers after the pool.
        strides: Strides of the stem and of each stage's first block.
        nested: Whether the children of ``features`` are stages instead of blocks.
    """

    def __init__(
        self,
        config: Config,
        *,
        stem: nn.Module,
        stages: Sequence[Sequence[InvertedResidual]],
        last: nn.Sequential,
        classifier: nn.Sequential,
        strides: Sequence[int],
        nested: bool = False,
    ) -> None:
        super().__init__(config)
        layers: list[nn.Module] = [stem]
        levels = []
        for blocks in stages:
            parts = [nn.Sequential(*blocks)] if nested else blocks
            levels.append([f"features.{len(layers) + index}" for index in range(len(parts))])
            layers += parts
        levels[0].insert(0, "features.0")
        levels[-1].append(f"features.{len(layers)}")
        self.features = nn.Sequential(*layers, last)
        widths = [blocks[-1].outputs for blocks in stages[:-1]]
        end = last.get_submodule("0").get_parameter("weight").shape[0]
        self.set_levels(levels, reductions(strides), [*widths, end])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = classifier
        init_separable(self)

    def classifiers(self) -> tuple[str, ...]:
        return (f"classifier.{len(self.classifier) - 1}",)

    def pre_logits(self, features: Tensor) -> Tensor:
        return chain(*list(self.classifier)[:-1])(self.avgpool(features).flatten(1))
