"""ResNet, ResNeXt, Wide ResNet and the CIFAR ResNets.

- He et al. 2015, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385): Table 1 for
  ImageNet, Section 4.2 for CIFAR-10.
- Xie et al. 2016, "Aggregated Residual Transformations" (arXiv:1611.05431): ResNeXt.
- Zagoruyko and Komodakis 2016, "Wide Residual Networks" (arXiv:1605.07146): wide_resnet*.
- He et al. 2016, "Identity Mappings" (arXiv:1603.05027), Table 3: resnet164, the original unit.

Child names are torchvision's, so its state dicts load strictly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo._utils.checks import Depths, PositiveInt
from senetzoo.errors import ConfigError
from senetzoo.models.family import Family, Paper
from senetzoo.models.staged import (
    Row,
    Staged,
    basic,
    block_conv,
    bottleneck,
    check_stem,
    smallest_image,
)
from senetzoo.nn.classifier import Config
from senetzoo.nn.drop_path import DropPath
from senetzoo.nn.maps import doubling
from senetzoo.nn.slots import Slots, residual


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(Config):
    """A network of the ResNet line.

    Args:
        block: ``"basic"`` (two 3x3) or ``"bottleneck"`` (1x1, 3x3, 1x1).
        depths: Blocks of each stage.
        width: Channels of the stem and of the first stage's 3x3; doubled at each later stage.
        groups: Groups of the bottleneck's 3x3 (ResNeXt's cardinality).
        group_width: Channels of one group in the first stage, for a `width` of 64.
        stride_on: Which convolution of the first bottleneck of a stage has stride 2: the 3x3
            (torchvision; Gross and Wilber's change, about half a point better) or the first 1x1
            (the paper, and the Caffe networks of the SE authors).
        pool: The stem's max pool: ``"padded"`` by 1 (torchvision), or ``"ceil"``: unpadded in
            ceil mode (Caffe).
        shortcut: Where the shape changes: ``"project"`` (the paper's option B, 1x1 convolution)
            or ``"pad"`` (option A: every second pixel, zeros for the new channels, no
            parameters).
    """

    any_stem: ClassVar[bool] = True

    block: Literal["basic", "bottleneck"]
    depths: Depths
    width: PositiveInt = 64
    groups: PositiveInt = 1
    group_width: PositiveInt = 64
    stride_on: Literal["1x1", "3x3"] = "3x3"
    pool: Literal["padded", "ceil"] = "padded"
    shortcut: Literal["project", "pad"] = "project"

    def __post_init__(self) -> None:
        super().__post_init__()
        own = {"groups": 1, "group_width": 64, "stride_on": "3x3"}
        given = [f"{field}={getattr(self, field)!r}" for field in own]
        if self.block == "basic" and any(getattr(self, f) != value for f, value in own.items()):
            raise ConfigError(
                f"A basic block got {', '.join(given)}.",
                "Basic blocks have two ungrouped 3x3 convolutions and the stride on the first.",
                'Type for example: block="bottleneck"',
            )
        if self.block == "bottleneck" and self.width * self.group_width < 64:
            raise ConfigError(
                f"width={self.width} with group_width={self.group_width} leaves no channels.",
                "A group of the first stage has width * group_width / 64 channels, at least 1.",
                "Type for example: width=64",
            )
        check_stem(self.width, self.stem, self.width)

    @property
    def min_size(self) -> int:
        return smallest_image(self.stem, self.pool)

    def build(self) -> ResNet:
        return ResNet(self)


class Block(nn.Module):
    """Convolutions, each with its norm, and a shortcut.

    The children are ``conv1``, ``bn1``, ``conv2``, ``bn2`` and so on.

    Args:
        inputs: Channels in.
        rows: The convolutions, of `basic` or `bottleneck`.
        shortcut: What is on the skip; None for the identity.
        drop_path: Rate of stochastic depth.
    """

    def __init__(
        self,
        inputs: int,
        rows: Sequence[Row],
        shortcut: nn.Module | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.depth = len(rows)
        width = inputs
        for number, row in enumerate(rows, 1):
            self.add_module(f"conv{number}", block_conv(width, row))
            width = row[0]
            self.add_module(f"bn{number}", nn.BatchNorm2d(width))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut
        self.drop_path = DropPath(drop_path) if drop_path else None
        self.slots = Slots.residual(inputs, width, inner=rows[-2][0])

    def branch(self, x: Tensor) -> Tensor:
        """The convolutions and their norms; the activation after the sum is not in it."""
        for number in range(1, self.depth):
            x = self.relu(self.conv_norm(number, x))
        return self.conv_norm(self.depth, self.slots.at("inner", x))

    def conv_norm(self, number: int, x: Tensor) -> Tensor:
        """The convolution of that number with its norm."""
        x = getattr(self, f"conv{number}")(x)
        return getattr(self, f"bn{number}")(x)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return residual(
            x,
            self.slots,
            self.branch,
            shortcut=self.downsample,
            act=self.relu,
            drop_path=self.drop_path,
        )


class PadShortcut(nn.Module):
    """Option A of the ResNet paper: every second pixel, zeros for the channels that are new.

    The paper does not say where the zeros go; they are split between both ends here, as in the
    widely used reimplementation akamaster/pytorch_resnet_cifar10.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        before = (outputs - inputs) // 2
        self.pad = (0, 0, 0, 0, before, outputs - inputs - before)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.pad)


def projection(inputs: int, outputs: int, stride: int, kernel: int = 1) -> nn.Sequential:
    """Option B of the ResNet paper: a convolution with a norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class ResNet(Staged):
    """ResNet, ResNeXt, Wide ResNet, CIFAR ResNet: built by `ResNetConfig.build`."""

    _config: ResNetConfig

    def __init__(self, config: ResNetConfig) -> None:
        expansion = 1 if config.block == "basic" else 4
        super().__init__(config, doubling(config.width * expansion, len(config.depths)))
        self.add_stem(config.width, pool=config.pool)
        self.add_stages(config.width, config.depths, self._block)
        self.finish()

    def _block(self, inputs: int, outputs: int, stride: int, drop_path: float) -> nn.Module:
        config = self._config
        shortcut: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            make = PadShortcut if config.shortcut == "pad" else projection
            shortcut = make(inputs, outputs, stride)
        rows = basic(outputs, stride)
        if config.block == "bottleneck":
            width = outputs // 4 * config.group_width // 64 * config.groups
            strides = (stride, 1) if config.stride_on == "1x1" else (1, stride)
            rows = bottleneck((width, width), outputs, strides, config.groups)
        return Block(inputs, rows, shortcut, drop_path)


def _basic(*depths: int) -> ResNetConfig:
    return ResNetConfig(block="basic", depths=depths)


def _bottleneck(*depths: int, groups: int = 1, group_width: int = 64) -> ResNetConfig:
    return ResNetConfig(block="bottleneck", depths=depths, groups=groups, group_width=group_width)


def _cifar(depth: int, shortcut: Literal["project", "pad"] = "project") -> ResNetConfig:
    """Section 4.2 of the ResNet paper: 6n+2 layers, three stages of n blocks, 16-32-64 wide."""
    return ResNetConfig(
        block="basic",
        depths=((depth - 2) // 6,) * 3,
        width=16,
        num_classes=10,
        stem="cifar",
        shortcut=shortcut,
    )


# Its CIFAR form in bottlenecks: 9n+2 layers, three stages of n blocks (He et al. 2016, Table 3).
RESNET_164 = ResNetConfig(
    block="bottleneck", depths=(18, 18, 18), width=16, num_classes=10, stem="cifar"
)

HE_2015 = Paper(
    "Deep Residual Learning for Image Recognition", 2015, "https://arxiv.org/abs/1512.03385"
)
HE_2016 = Paper(
    "Identity Mappings in Deep Residual Networks", 2016, "https://arxiv.org/abs/1603.05027"
)
XIE_2016 = Paper(
    "Aggregated Residual Transformations for Deep Neural Networks",
    2016,
    "https://arxiv.org/abs/1611.05431",
)
ZAGORUYKO_2016 = Paper("Wide Residual Networks", 2016, "https://arxiv.org/abs/1605.07146")

FAMILY = Family(
    title="ResNet",
    papers={
        "resnext*": XIE_2016,
        "wide_*": ZAGORUYKO_2016,
        "resnet164": HE_2016,
        "resnet*": HE_2015,
    },
    small="The stem is one 3x3 convolution of stride 1, without the pool: 4x4 before the pool of "
    "networks of four stages, 8x8 of three.",
    networks={
        "resnet18": _basic(2, 2, 2, 2),
        "resnet34": _basic(3, 4, 6, 3),
        "resnet50": _bottleneck(3, 4, 6, 3),
        "resnet101": _bottleneck(3, 4, 23, 3),
        "resnet152": _bottleneck(3, 8, 36, 3),
        "resnext50_32x4d": _bottleneck(3, 4, 6, 3, groups=32, group_width=4),
        "resnext101_32x4d": _bottleneck(3, 4, 23, 3, groups=32, group_width=4),
        "resnext101_32x8d": _bottleneck(3, 4, 23, 3, groups=32, group_width=8),
        "resnext101_64x4d": _bottleneck(3, 4, 23, 3, groups=64, group_width=4),
        "wide_resnet50_2": _bottleneck(3, 4, 6, 3, group_width=128),
        "wide_resnet101_2": _bottleneck(3, 4, 23, 3, group_width=128),
        **{f"resnet{depth}": _cifar(depth) for depth in (20, 32, 44, 56, 110)},
        **{f"resnet{depth}a": _cifar(depth, "pad") for depth in (20, 32, 44, 56, 110)},
        "resnet164": RESNET_164,
    },
)
