"""Pre-activation ResNets and the CIFAR Wide ResNets, where norm and activation come first.

- He et al. 2016, "Identity Mappings in Deep Residual Networks" (arXiv:1603.05027): Fig. 4e, the
  full pre-activation, and Table 3; depths on ImageNet are those of ResNet.
- Zagoruyko and Komodakis 2016, "Wide Residual Networks" (arXiv:1605.07146), Table 1: wrn*.

The paper puts the activation of the very first block before the fork, so that its skip has it too
even where nothing is projected. The networks in use don't, and neither do these.

Inside a block the child names are timm's (``norm1, conv1, norm2, conv2``), outside they are those
of the ResNet line (``conv1, layer1, fc``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor, nn

from senetzoo._utils.checks import Depths, PositiveInt
from senetzoo.errors import ConfigError
from senetzoo.models.family import Family
from senetzoo.models.resnet import HE_2016, ZAGORUYKO_2016
from senetzoo.models.staged import Row, Staged, basic, block_conv, bottleneck, check_stem
from senetzoo.nn.classifier import Config
from senetzoo.nn.drop_path import DropPath
from senetzoo.nn.maps import doubling
from senetzoo.nn.slots import Slots, residual


@dataclass(frozen=True, kw_only=True)
class PreResNetConfig(Config):
    """A pre-activation ResNet.

    Args:
        block: ``"basic"`` (two 3x3) or ``"bottleneck"`` (1x1, 3x3, 1x1).
        depths: Blocks of each stage.
        width: Channels of the stem and, times `widen`, of the first stage's 3x3; doubled at each
            later stage.
        widen: How many times wider than the stem the first stage is (k of Wide ResNet).
        stride_on: Which convolution of the first bottleneck of a stage has stride 2: the 3x3
            (timm) or the first 1x1 (the authors' code).
        stem_norm: Whether a norm and an activation follow the stem's last convolution. By default
            they don't (timm, and all networks for CIFAR): the first block begins with its own.
            The ImageNet networks of pytorchcv have both.
    """

    any_stem: ClassVar[bool] = True

    block: Literal["basic", "bottleneck"]
    depths: Depths
    width: PositiveInt = 64
    widen: PositiveInt = 1
    stride_on: Literal["1x1", "3x3"] = "3x3"
    stem_norm: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block == "basic" and self.stride_on != "3x3":
            raise ConfigError(
                f"A basic block got stride_on={self.stride_on!r}.",
                "Basic blocks have two 3x3 convolutions and the stride on the first.",
                'Type for example: block="bottleneck"',
            )
        check_stem(self.width, self.stem, self.width)

    def build(self) -> PreResNet:
        return PreResNet(self)


class PreBlock(nn.Module):
    """Norm, activation and convolution, twice or three times (Identity Mappings, Fig. 4e).

    The first norm and activation serve the branch and, where the shape changes, the projection;
    where it does not, the skip takes the block's input as it came.

    Args:
        inputs: Channels in.
        rows: The convolutions, of `basic` or `bottleneck`.
        drop_path: Rate of stochastic depth.
    """

    def __init__(self, inputs: int, rows: Sequence[Row], drop_path: float = 0.0) -> None:
        super().__init__()
        self.depth = len(rows)
        width, stride = inputs, 1
        for number, row in enumerate(rows, 1):
            self.add_module(f"norm{number}", nn.BatchNorm2d(width))
            self.add_module(f"conv{number}", block_conv(width, row))
            width, stride = row[0], stride * row[2]
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _projection(inputs, width, stride)
        self.drop_path = DropPath(drop_path) if drop_path else None
        self.slots = Slots.residual(inputs, width, inner=rows[-2][0])

    def norm_act(self, number: int, x: Tensor) -> Tensor:
        """The norm of that number with its activation."""
        # In place on the norm's output, which nobody else holds.
        return self.relu(getattr(self, f"norm{number}")(x))  # type: ignore[no-any-return]

    def branch(self, x: Tensor) -> Tensor:
        """The convolutions, with norms and activations between them."""
        for number in range(1, self.depth):
            x = self.norm_act(number + 1, getattr(self, f"conv{number}")(x))
        return getattr(self, f"conv{self.depth}")(self.slots.at("inner", x))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return residual(
            x,
            self.slots,
            self.branch,
            shortcut=self.downsample,
            preact=partial(self.norm_act, 1),
            drop_path=self.drop_path,
        )


def _projection(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """A convolution without a norm, which its input has behind it; None where nothing changes."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


class PreResNet(Staged):
    """Pre-activation ResNet, CIFAR Wide ResNet: built by `PreResNetConfig.build`."""

    _config: PreResNetConfig

    def __init__(self, config: PreResNetConfig) -> None:
        first = config.width * config.widen * (1 if config.block == "basic" else 4)
        super().__init__(config, doubling(first, len(config.depths)))
        self.add_stem(config.width, norm=config.stem_norm)
        self.add_stages(config.width, config.depths, self._block)
        # The last sum has no norm and activation of a next block behind it: its own are here.
        self.norm = nn.BatchNorm2d(self.outputs[-1])
        self.act = nn.ReLU()
        self.finish()

    def _block(self, inputs: int, outputs: int, stride: int, drop_path: float) -> nn.Module:
        rows = basic(outputs, stride)
        if self._config.block == "bottleneck":
            strides = (stride, 1) if self._config.stride_on == "1x1" else (1, stride)
            rows = bottleneck((outputs // 4, outputs // 4), outputs, strides)
        return PreBlock(inputs, rows, drop_path)


def _basic(*depths: int) -> PreResNetConfig:
    return PreResNetConfig(block="basic", depths=depths)


def _bottleneck(*depths: int) -> PreResNetConfig:
    return PreResNetConfig(block="bottleneck", depths=depths)


def _cifar(depth: int) -> PreResNetConfig:
    """6n+2 layers, three stages of n basic blocks, 16-32-64 wide, as in the ResNet paper."""
    return PreResNetConfig(
        block="basic", depths=((depth - 2) // 6,) * 3, width=16, num_classes=10, stem="cifar"
    )


def _wide(depth: int, widen: int) -> PreResNetConfig:
    """Table 1 of Wide Residual Networks: 6n+4 layers, three stages of n blocks, 16-32-64 x k.

    Without the dropout between a block's convolutions that some of the paper's results have.
    """
    return PreResNetConfig(
        block="basic",
        depths=((depth - 4) // 6,) * 3,
        width=16,
        widen=widen,
        num_classes=10,
        stem="cifar",
    )


# 9n+2 layers, three stages of n bottlenecks (Identity Mappings, Table 3).
PRERESNET_164 = PreResNetConfig(
    block="bottleneck", depths=(18, 18, 18), width=16, num_classes=10, stem="cifar"
)

FAMILY = Family(
    title="PreResNet",
    papers={"preresnet*": HE_2016, "wrn*": ZAGORUYKO_2016},
    small="The stem is one 3x3 convolution of stride 1, without the pool: 4x4 before the pool of "
    "networks of four stages, 8x8 of three.",
    networks={
        "preresnet18": _basic(2, 2, 2, 2),
        "preresnet34": _basic(3, 4, 6, 3),
        "preresnet50": _bottleneck(3, 4, 6, 3),
        "preresnet101": _bottleneck(3, 4, 23, 3),
        **{f"preresnet{depth}": _cifar(depth) for depth in (20, 56, 110)},
        "preresnet164": PRERESNET_164,
        "wrn16_8": _wide(16, 8),
        "wrn28_10": _wide(28, 10),
    },
)
