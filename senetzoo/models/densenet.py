"""DenseNet: every layer takes the outputs of all earlier layers in its block.

- Huang et al. 2016, "Densely Connected Convolutional Networks" (arXiv:1608.06993): Table 1 for
  ImageNet, Section 3 "Implementation Details" and Table 2 for CIFAR.
- Pleiss et al. 2017, "Memory-Efficient Implementation of DenseNets" (arXiv:1707.06990).

Child names are torchvision's, so its state dicts load strictly.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, cast

import torch
from torch import Tensor, nn

from senetzoo._utils.checks import Depths, Gt, Le, PositiveInt, Rate
from senetzoo.errors import ConfigError
from senetzoo.models.family import Family, arxiv
from senetzoo.models.staged import check_stem
from senetzoo.nn.checkpoint import recomputed
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.init import init_convs
from senetzoo.nn.maps import doubling
from senetzoo.nn.slots import Slots, TensorMap, chain
from senetzoo.nn.stem import as_stem, stem_convs

# Section 3, "Bottleneck layers": each 1x1 convolution has 4k output channels for growth rate k.
BOTTLENECK = 4


@dataclass(frozen=True, kw_only=True)
class DenseNetConfig(Config):
    """A DenseNet.

    A stem with a pool has a norm and a ReLU before the pool, as on ImageNet. A stem without a pool
    has only convolutions, as in the paper on CIFAR: the first dense layer starts with its own norm
    and ReLU.

    Args:
        depths: Layers of each dense block.
        growth: Channels that each layer adds (the paper's k).
        width: Channels of the stem.
        bottleneck: Whether a 1x1 convolution to 4k channels comes before each 3x3 (the B of
            DenseNet-BC).
        compression: Output channels of a transition as a fraction of its input channels, rounded
            down, in (0, 1] (the paper's theta; below 1 it is the C of DenseNet-BC).
        drop_rate: Dropout of the new features of each dense layer, in [0, 1); the paper uses 0.2
            on CIFAR and SVHN without augmentation.
        memory_efficient: Whether to recompute the concatenations, and the norm and the ReLU after
            them, in the backward pass instead of keeping their outputs. Memory then grows linearly
            with depth; outputs, gradients and running statistics are the same.
    """

    any_stem: ClassVar[bool] = True
    has_branches: ClassVar[bool] = False

    depths: Depths
    growth: PositiveInt = 32
    width: PositiveInt = 64
    bottleneck: bool = True
    compression: Annotated[float, Gt(0), Le(1)] = 0.5
    drop_rate: Rate = 0.0
    memory_efficient: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(inputs for inputs, _ in self.channels) < 1:
            raise ConfigError(
                f"compression={self.compression!r} leaves no channels after a transition.",
                "A transition keeps compression times its channels, at least 1.",
                "Type for example: compression=0.5",
            )
        check_stem(self.width, self.stem, self.width)

    @property
    def channels(self) -> tuple[tuple[int, int], ...]:
        """Channels before and after each dense block."""
        channels: list[tuple[int, int]] = []
        inputs = self.width
        for depth in self.depths:
            outputs = inputs + depth * self.growth
            channels.append((inputs, outputs))
            inputs = int(outputs * self.compression)
        return tuple(channels)

    @property
    def min_size(self) -> int:
        # The transitions' pools halve and round down, a stem's convolutions and pool round up.
        last = 1 << (len(self.depths) - 1)
        return (last - 1) * as_stem(self.stem).stride + 1

    def build(self) -> DenseNet:
        return DenseNet(self)


class DenseLayer(nn.Module):
    """The paper's H: norm, ReLU, 3x3; or norm, ReLU, 1x1, norm, ReLU, 3x3 with a bottleneck.

    Positions: ``pre`` is the layer's input, the concatenation of all earlier features of the block;
    ``standard`` is its output; ``post`` is the concatenation of both, which the later layers take
    as input. ``post`` of the last layer is the end of the block.
    """

    def __init__(self, inputs: int, config: DenseNetConfig) -> None:
        super().__init__()
        growth, squeezed = config.growth, BOTTLENECK * config.growth
        self.bottleneck = config.bottleneck
        self.memory_efficient = config.memory_efficient
        self.norm1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU(inplace=True)
        if self.bottleneck:
            self.conv1 = nn.Conv2d(inputs, squeezed, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(squeezed)
            self.relu2 = nn.ReLU(inplace=True)
            self.conv2 = nn.Conv2d(squeezed, growth, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(config.drop_rate) if config.drop_rate else None
        self.slots = Slots({"pre": inputs, "standard": growth, "post": inputs + growth})

    def forward(self, *features: Tensor) -> Tensor:
        """Compute the new features from the block's input and the outputs of earlier layers."""
        if self.memory_efficient and self.training and torch.is_grad_enabled():
            x = recomputed(self, self.first, *features)
        else:
            x = self.first(*features)
        if self.bottleneck:
            x = self.conv2(self.relu2(self.norm2(x)))
        x = self.slots.at("standard", x)
        return x if self.dropout is None else self.dropout(x)

    def first(self, *features: Tensor) -> Tensor:
        """The first convolution and everything before it: the part that is cheap to recompute.

        It can't use `unit`: ``pre`` is inside this part, but ``standard`` is after it.
        """
        x = self.slots.at("pre", _joined(features))
        return self.conv1(self.relu1(self.norm1(x)))  # type: ignore[no-any-return]


class DenseBlock(nn.Module):
    """Dense layers: each takes the concatenation of the block's input and all earlier outputs."""

    def __init__(self, inputs: int, depth: int, config: DenseNetConfig) -> None:
        super().__init__()
        for index in range(depth):
            layer = DenseLayer(inputs + index * config.growth, config)
            self.add_module(f"denselayer{index + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        # A list: each layer concatenates it itself, so that it doesn't have to keep the result.
        features = [x]
        for layer in cast("Iterator[DenseLayer]", self.children()):
            features.append(layer(*features))
            if layer.slots.get("post") is not None:
                features = [layer.slots.at("post", _joined(features))]
        return _joined(features)


def _joined(features: Iterable[Tensor]) -> Tensor:
    first, *others = features
    return torch.cat([first, *others], 1) if others else first


def transition(inputs: int, outputs: int) -> nn.Sequential:
    """The layers between two dense blocks: a 1x1 convolution and a pool of stride 2."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(inputs),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(inputs, outputs, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )


class DenseNet(Classifier):
    """DenseNet and DenseNet-BC: built by `DenseNetConfig.build`.

    Each dense block is a stage and each of its layers a block. A stage starts with the transition
    before it; its map is the dense block's output, in the last stage after the final norm and ReLU.
    """

    head_name = "classifier"
    _config: DenseNetConfig
    classifier: nn.Linear

    def __init__(self, config: DenseNetConfig) -> None:
        super().__init__(config)
        stem = as_stem(config.stem)
        layers = nn.Sequential()
        layers.add_module("conv0", stem_convs(stem, config.in_chans, config.width))
        if stem.pool:
            layers.add_module("norm0", nn.BatchNorm2d(config.width))
            layers.add_module("relu0", nn.ReLU(inplace=True))
            layers.add_module("pool0", nn.MaxPool2d(3, 2, padding=1))
        last = 0
        for index, (inputs, outputs) in enumerate(config.channels):
            if index:
                layers.add_module(f"transition{index}", transition(last, inputs))
            block = DenseBlock(inputs, config.depths[index], config)
            layers.add_module(f"denseblock{index + 1}", block)
            last = outputs
        layers.add_module("norm5", nn.BatchNorm2d(last))
        self.features = layers
        self.relu = nn.ReLU()
        levels = [
            [f"features.transition{index}", f"features.denseblock{index + 1}"]
            for index in range(len(config.depths))
        ]
        levels[0][:0] = [f"features.{name}0" for name in ("conv", "norm", "relu", "pool")]
        # In torchvision the ReLU is outside of `features`.
        levels[-1] += ["features.norm5", "relu"]
        channels = [outputs for _, outputs in config.channels]
        self.set_levels(levels, doubling(stem.stride, len(levels)), channels)
        self.add_head(last)
        # The paper's initialization (He et al. 2015), with fan-in as in its code and torchvision.
        init_convs(self, "fan_in")
        nn.init.zeros_(self.classifier.bias)

    def levels(self) -> tuple[TensorMap, ...]:
        # From the current children of `features`, including any that a user added.
        layers = list(self.features)
        ends = [index + 1 for index, layer in enumerate(layers) if isinstance(layer, DenseBlock)]
        ends[-1] = len(layers) + 1
        layers.append(self.relu)
        return tuple(
            chain(*layers[start:end]) for start, end in zip([0, *ends], ends, strict=False)
        )


def _imagenet(*depths: int, growth: int = 32) -> DenseNetConfig:
    """Table 1: DenseNet-BC with a stem of 2k channels.

    The name counts the layers with weights; DenseNet-264 has one more than its name says.
    """
    return DenseNetConfig(depths=depths, growth=growth, width=2 * growth)


def _cifar(depth: int, growth: int) -> DenseNetConfig:
    """Section 3: three blocks of (L - 4) / 3 layers after a stem of 16 channels."""
    return DenseNetConfig(
        depths=((depth - 4) // 3,) * 3,
        growth=growth,
        width=16,
        bottleneck=False,
        compression=1.0,
        num_classes=10,
        stem="cifar",
    )


def _cifar_bc(depth: int, growth: int) -> DenseNetConfig:
    """Section 3: a layer has two convolutions, and the stem has 2k channels."""
    return DenseNetConfig(
        depths=((depth - 4) // 6,) * 3,
        growth=growth,
        width=2 * growth,
        num_classes=10,
        stem="cifar",
    )


FAMILY = Family(
    title="DenseNet",
    papers={"*": arxiv("Densely Connected Convolutional Networks", "1608.06993")},
    small="The stem is one 3x3 convolution of stride 1 without norm and pool, as in the paper on "
    "CIFAR: the last map is 4x4 with four dense blocks, 8x8 with three.",
    networks={
        "densenet121": _imagenet(6, 12, 24, 16),
        "densenet161": _imagenet(6, 12, 36, 24, growth=48),
        "densenet169": _imagenet(6, 12, 32, 32),
        "densenet201": _imagenet(6, 12, 48, 32),
        "densenet264": _imagenet(6, 12, 64, 48),
        "densenet40_12": _cifar(40, growth=12),
        "densenet_bc_100_12": _cifar_bc(100, growth=12),
        "densenet_bc_190_40": _cifar_bc(190, growth=40),
    },
)
