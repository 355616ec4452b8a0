"""Pre-activation ResNets and CIFAR Wide ResNets: norm and activation precede each convolution.

- He et al. 2016, "Identity Mappings in Deep Residual Networks" (arXiv:1603.05027): Fig. 4e, the
  full pre-activation, and Table 3; depths on ImageNet are those of ResNet.
- Zagoruyko and Komodakis 2016, "Wide Residual Networks" (arXiv:1605.07146), Table 1: wrn*.

The paper puts the activation of the very first block before the fork, so that it is also on the
skip, even on an identity skip. Common implementations don't, and neither does this one.

Inside a block the child names are timm's (``norm1, conv1, norm2, conv2``), outside they are those
of ResNet (``conv1, layer1, fc``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from torch import nn

from senetzoo._utils.checks import Depths, PositiveInt
from senetzoo.errors import ConfigError
from senetzoo.models.family import HE_2016, ZAGORUYKO_2016, Family
from senetzoo.models.staged import (
    BASIC_DEPTHS,
    BOTTLENECK_DEPTHS,
    CIFAR_BOTTLENECKS,
    SHALLOW_DEPTHS,
    SMALL_FORM,
    Block,
    ResNet,
    basic,
    bottleneck,
    check_stem,
    cifar,
)
from senetzoo.nn.classifier import Config


@dataclass(frozen=True, kw_only=True)
class PreResNetConfig(Config):
    """A pre-activation ResNet.

    Args:
        block: ``"basic"`` (two 3x3) or ``"bottleneck"`` (1x1, 3x3, 1x1).
        depths: Blocks of each stage.
        width: Channels of the stem and, times `widen`, of the first stage's 3x3; doubled at each
            later stage.
        widen: Width of the first stage as a multiple of the stem's (k of Wide ResNet).
        stride_on: Which convolution of the first bottleneck of a stage has stride 2: the 3x3
            (timm) or the first 1x1 (the authors' code).
        stem_norm: Whether a norm and an activation follow the stem's last convolution. By default
            they don't (timm, and all networks for CIFAR): the first block starts with its own.
            The ImageNet networks of pytorchcv have both.
        last_norm: Whether they follow the last block. They don't in pytorchcv's SE networks for
            CIFAR, which end with the sum.
    """

    any_stem: ClassVar[bool] = True

    block: Literal["basic", "bottleneck"]
    depths: Depths
    width: PositiveInt = 64
    widen: PositiveInt = 1
    stride_on: Literal["1x1", "3x3"] = "3x3"
    stem_norm: bool = False
    last_norm: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block == "basic" and self.stride_on != "3x3":
            raise ConfigError(
                f"A basic block got stride_on={self.stride_on!r}.",
                "Basic blocks have two 3x3 convolutions and the stride on the first.",
                'Type for example: block="bottleneck"',
            )
        check_stem(self.width, self.stem, self.width)

    def build(self) -> ResNet:
        first = self.width * self.widen * (1 if self.block == "basic" else 4)
        widths, norm = (self.width, first), self.stem_norm
        # No next block follows the last sum with its norm and activation.
        last = self.last_norm
        return ResNet(self, self.depths, widths, self._block, stem_norm=norm, last_norm=last)

    def _block(self, inputs: int, outputs: int, stride: int, drop_path: float) -> Block:
        rows = basic(outputs, stride)
        if self.block == "bottleneck":
            rows = bottleneck((outputs // 4, outputs // 4), outputs, stride, self.stride_on)
        changes = stride > 1 or inputs != outputs
        # Without a norm, because its input is already normalized.
        shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else None
        return Block(inputs, rows, shortcut, drop_path, preact=True)


_basic = partial(PreResNetConfig, block="basic")
_bottleneck = partial(PreResNetConfig, block="bottleneck")

FAMILY = Family(
    title="PreResNet",
    papers={"preresnet*": HE_2016, "wrn*": ZAGORUYKO_2016},
    small=SMALL_FORM,
    networks={
        **{f"preresnet{depth}": _basic(depths=d) for depth, d in BASIC_DEPTHS.items()},
        **{f"preresnetbc{depth}": _bottleneck(depths=d) for depth, d in SHALLOW_DEPTHS.items()},
        **{f"preresnet{depth}": _bottleneck(depths=d) for depth, d in BOTTLENECK_DEPTHS.items()},
        # 6n+2 layers, as in the ResNet paper.
        **{f"preresnet{depth}": _basic(**cifar((depth - 2) // 6)) for depth in (20, 56, 110, 1202)},
        # 9n+2 layers (Identity Mappings, Table 3).
        **{f"preresnet{depth}": _bottleneck(**f) for depth, f in CIFAR_BOTTLENECKS.items()},
        # Table 1 of Wide Residual Networks: 6n+4 layers, without the dropout between a block's
        # convolutions that some of the paper's results use.
        **{
            f"wrn{depth}_{k}": _basic(**cifar((depth - 4) // 6), widen=k)
            for depth, k in ((16, 8), (16, 10), (28, 10), (40, 8))
        },
    },
)
