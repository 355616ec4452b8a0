"""ResNet, ResNeXt, Wide ResNet and the CIFAR ResNets.

- He et al. 2015, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385): Table 1 for
  ImageNet, Section 4.2 for CIFAR-10.
- Xie et al. 2016, "Aggregated Residual Transformations" (arXiv:1611.05431): ResNeXt.
- Zagoruyko and Komodakis 2016, "Wide Residual Networks" (arXiv:1605.07146): wide_resnet*.
- He et al. 2016, "Identity Mappings" (arXiv:1603.05027), Table 3: resnet164 and resnet1001 with
  the original unit.

Child names are torchvision's, so its state dicts load strictly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo._utils.checks import Depths, PositiveInt
from senetzoo.errors import ConfigError
from senetzoo.models import staged
from senetzoo.models.family import HE_2015, HE_2016, ZAGORUYKO_2016, Family, arxiv
from senetzoo.models.staged import Block, ResNet, basic, bottleneck, cifar, projection
from senetzoo.nn.classifier import Config


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(Config):
    """A ResNet, ResNeXt or Wide ResNet.

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
        shortcut: Shortcut where the shape changes: ``"project"`` (the paper's option B, a 1x1
            convolution) or ``"pad"`` (option A: every second pixel, zeros for the new channels,
            no parameters).
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
        staged.check_stem(self.width, self.stem, self.width)

    @property
    def min_size(self) -> int:
        return staged.smallest_image(self.stem, self.pool)

    def build(self) -> ResNet:
        first = self.width * (1 if self.block == "basic" else 4)
        return ResNet(self, self.depths, (self.width, first), self._block, pool=self.pool)

    def _block(self, inputs: int, outputs: int, stride: int, drop_path: float) -> Block:
        shortcut: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            make = PadShortcut if self.shortcut == "pad" else projection
            shortcut = make(inputs, outputs, stride)
        rows = basic(outputs, stride)
        if self.block == "bottleneck":
            width = outputs // 4 * self.group_width // 64 * self.groups
            rows = bottleneck((width, width), outputs, stride, self.stride_on, self.groups)
        return Block(inputs, rows, shortcut, drop_path)


class PadShortcut(nn.Module):
    """Option A of the ResNet paper: every second pixel, zeros for the new channels.

    The paper does not say where the zeros go; here they are split between both ends, as in the
    widely used reimplementation akamaster/pytorch_resnet_cifar10.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        before = (outputs - inputs) // 2
        self.pad = (0, 0, 0, 0, before, outputs - inputs - before)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.pad)


_basic = partial(ResNetConfig, block="basic")
_bottleneck = partial(ResNetConfig, block="bottleneck")
# Section 4.2 of the ResNet paper: 6n+2 layers.
CIFAR = {depth: cifar((depth - 2) // 6) for depth in (20, 32, 44, 56, 110)}

FAMILY = Family(
    title="ResNet",
    papers={
        "resnext*": arxiv(
            "Aggregated Residual Transformations for Deep Neural Networks", "1611.05431"
        ),
        "wide_*": ZAGORUYKO_2016,
        **{f"resnet{depth}": HE_2016 for depth in staged.CIFAR_BOTTLENECKS},
        "resnet*": HE_2015,
    },
    small=staged.SMALL_FORM,
    networks={
        **{f"resnet{depth}": _basic(depths=d) for depth, d in staged.BASIC_DEPTHS.items()},
        **{f"resnetbc{depth}": _bottleneck(depths=d) for depth, d in staged.SHALLOW_DEPTHS.items()},
        "resnet50": _bottleneck(depths=(3, 4, 6, 3)),
        "resnet101": _bottleneck(depths=(3, 4, 23, 3)),
        "resnet152": _bottleneck(depths=(3, 8, 36, 3)),
        "resnext50_32x4d": _bottleneck(depths=(3, 4, 6, 3), groups=32, group_width=4),
        "resnext101_32x4d": _bottleneck(depths=(3, 4, 23, 3), groups=32, group_width=4),
        "resnext101_32x8d": _bottleneck(depths=(3, 4, 23, 3), groups=32, group_width=8),
        "resnext101_64x4d": _bottleneck(depths=(3, 4, 23, 3), groups=64, group_width=4),
        "wide_resnet50_2": _bottleneck(depths=(3, 4, 6, 3), group_width=128),
        "wide_resnet101_2": _bottleneck(depths=(3, 4, 23, 3), group_width=128),
        **{f"resnet{depth}": _basic(**fields) for depth, fields in CIFAR.items()},
        **{f"resnet{depth}a": _basic(**f, shortcut="pad") for depth, f in CIFAR.items()},
        "resnet1202": _basic(**cifar(200)),
        **{f"resnet{depth}": _bottleneck(**f) for depth, f in staged.CIFAR_BOTTLENECKS.items()},
    },
)
