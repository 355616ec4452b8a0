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

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from senetzoo._utils.checks import Depths, PositiveInt
from senetzoo.errors import ConfigError
from senetzoo.models.family import Family
from senetzoo.models.resnet import HE_2016, ZAGORUYKO_2016
from senetzoo.models.staged import Staged, check_stem
from senetzoo.nn.config import Config
from senetzoo.nn.drop_path import DropPath
from senetzoo.nn.slots import Slots, TensorMap, residual


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


class _Block(nn.Module, ABC):
    """What both blocks do around their branch (Identity Mappings, Fig. 4e).

    The first norm and activation serve the branch and, where the shape changes, the projection;
    where it does not, the skip takes the block's input as it came.
    """

    norm1: nn.BatchNorm2d
    relu: nn.ReLU
    downsample: nn.Module | None
    drop_path: DropPath | None
    slots: Slots

    def preact(self, x: Tensor) -> Tensor:
        """The norm and activation that the block begins with."""
        # In place on the norm's output, which nobody else holds.
        return self.relu(self.norm1(x))  # type: ignore[no-any-return]

    @abstractmethod
    def branch(self, x: Tensor) -> Tensor:
        """The convolutions, with norms and activations between them."""

    def forward(self, x: Tensor) -> Tensor:
        return residual(
            x,
            self.slots,
            self.branch,
            shortcut=self.downsample,
            preact=self.preact,
            drop_path=self.drop_path,
        )


class PreBasicBlock(_Block):
    """Norm, activation, 3x3, twice.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        stride: Stride of the first convolution and of the projection.
        drop_path: Rate of stochastic depth.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.downsample = _projection(inputs, outputs, stride)
        self.drop_path = DropPath(drop_path) if drop_path else None
        self.slots = Slots.residual(inputs, outputs, outputs)

    def branch(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm2(self.conv1(x)))
        x = self.slots.at("inner", x)
        return self.conv2(x)  # type: ignore[no-any-return]


class PreBottleneck(_Block):
    """Norm, activation, convolution, three times: 1x1, 3x3, 1x1.

    Args:
        inputs: Channels in.
        outputs: Channels out; a quarter of them in between.
        strides: Strides of the first 1x1 and of the 3x3; the projection has both.
        drop_path: Rate of stochastic depth.
    """

    def __init__(
        self, inputs: int, outputs: int, strides: tuple[int, int], drop_path: float = 0.0
    ) -> None:
        super().__init__()
        width = outputs // 4
        self.norm1 = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(inputs, width, 1, strides[0], bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, strides[1], 1, bias=False)
        self.norm3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.downsample = _projection(inputs, outputs, strides[0] * strides[1])
        self.drop_path = DropPath(drop_path) if drop_path else None
        self.slots = Slots.residual(inputs, outputs, width)

    def branch(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm2(self.conv1(x)))
        x = self.relu(self.norm3(self.conv2(x)))
        x = self.slots.at("inner", x)
        return self.conv3(x)  # type: ignore[no-any-return]


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
        super().__init__(config, [first * 2**index for index in range(len(config.depths))])
        self.add_stem(config.width, norm=config.stem_norm)
        self.add_stages(config.width, config.depths, self._block)
        # The last sum has no norm and activation of a next block behind it: its own are here.
        self.norm = nn.BatchNorm2d(self.outputs[-1])
        self.act = nn.ReLU()
        self.finish()

    def _block(self, inputs: int, outputs: int, stride: int, drop_path: float) -> nn.Module:
        if self._config.block == "basic":
            return PreBasicBlock(inputs, outputs, stride, drop_path)
        strides = (stride, 1) if self._config.stride_on == "1x1" else (1, stride)
        return PreBottleneck(inputs, outputs, strides, drop_path)

    def levels(self) -> tuple[TensorMap, ...]:
        *others, last = super().levels()
        return (*others, lambda x: self.act(self.norm(last(x))))

    @property
    def cam_layer(self) -> nn.Module:
        return self.act


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
