"""ShuffleNetV2.

Ma et al. 2018, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design"
(arXiv:1807.11164), Fig. 3c and 3d and Table 5. Child names are torchvision's, so its state dict
loads strictly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from senetzoo._utils.checks import Depths, Ge
from senetzoo.errors import ConfigError
from senetzoo.models.family import Family, arxiv
from senetzoo.models.inverted import conv_norm
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.init import init_separable
from senetzoo.nn.maps import doubling
from senetzoo.nn.slots import Position, Slots, chain, residual

STEM_WIDTH = 24


@dataclass(frozen=True, kw_only=True)
class ShuffleNetV2Config(Config):
    """A ShuffleNetV2.

    ``stem="cifar"`` is a variant for 32x32 images: the stem's convolution has stride 1 and no pool
    follows it, so that the last map is 4x4.

    Args:
        depths: Blocks of each stage.
        width: Channels of the first stage, an even number; doubled at each later stage.
        last: Channels of the last convolution.
    """

    # A block's branch is concatenated with the other half of the channels, not added to it.
    has_branches: ClassVar[bool] = False

    depths: Depths = (4, 8, 4)
    width: Annotated[int, Ge(2)] = 116
    last: Annotated[int, Ge(1)] = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % 2:
            raise ConfigError(
                f"{self.family} got width={self.width}.",
                "A block's branch outputs half of the channels.",
                f"Type for example: width={self.width + 1}",
            )

    def build(self) -> ShuffleNetV2:
        return ShuffleNetV2(self)


class ShuffleBlock(nn.Module):
    """Half of the channels is kept, half goes through convolutions; then the halves are mixed.

    The kept half is the skip, with which the branch's output is interleaved: ``pre`` and
    ``standard`` are before and after the convolutions, ``identity`` is on the skip, and ``post``
    follows the mixing. In a block of stride 2 both halves are computed from all channels.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.halved = stride == 1
        self.branch1 = None if self.halved else nn.Sequential(*apart(inputs, half, stride))
        taken = inputs // 2 if self.halved else inputs
        before = conv_norm(taken, half, 1, act=nn.ReLU)
        self.branch2 = nn.Sequential(*before, *apart(half, half, stride))
        channels: dict[Position, int] = {"pre": taken, "standard": half, "identity": half}
        self.slots = Slots({**channels, "post": outputs, "inner": half})

    def branch(self, x: Tensor) -> Tensor:
        """The convolutions; ``inner`` follows the norm of the depthwise one."""
        layers = list(self.branch2)
        x = self.slots.at("inner", chain(*layers[:5])(x))
        return chain(*layers[5:])(x)

    def forward(self, x: Tensor) -> Tensor:
        if self.branch1 is not None:
            return residual(x, self.slots, self.branch, shortcut=self.branch1, join=mixed)
        skip, x = x.chunk(2, 1)
        return residual(x, self.slots, self.branch, shortcut=lambda _: skip, join=mixed)


def apart(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """A depthwise 3x3 convolution without an activation, and a 1x1."""
    depthwise = conv_norm(inputs, inputs, 3, stride, groups=inputs)
    return [*depthwise, *conv_norm(inputs, outputs, 1, act=nn.ReLU)]


def mixed(y: Tensor, skip: Tensor) -> Tensor:
    """Interleave the channels of two maps, `skip`'s first: (N, C, H, W) each to (N, 2C, H, W)."""
    return torch.stack((skip, y), 2).flatten(1, 2)


class ShuffleNetV2(Classifier):
    """ShuffleNetV2: built by `ShuffleNetV2Config.build`."""

    _config: ShuffleNetV2Config
    fc: nn.Linear

    def __init__(self, config: ShuffleNetV2Config) -> None:
        super().__init__(config)
        small = config.small
        self.conv1 = conv_norm(config.in_chans, STEM_WIDTH, 3, 1 if small else 2, act=nn.ReLU)
        self.maxpool = None if small else nn.MaxPool2d(3, 2, 1)
        inputs, levels = STEM_WIDTH, []
        widths = doubling(config.width, len(config.depths))
        for number, (width, depth) in enumerate(zip(widths, config.depths, strict=True), 2):
            blocks = nn.Sequential()
            for index in range(depth):
                blocks.append(ShuffleBlock(inputs, width, 1 if index else 2))
                inputs = width
            self.add_module(f"stage{number}", blocks)
            levels.append([f"stage{number}"])
        self.conv5 = conv_norm(inputs, config.last, 1, act=nn.ReLU)
        levels[0][:0] = ["conv1", "maxpool"]
        levels[-1].append("conv5")
        strides = doubling(2 if small else 8, len(levels))
        self.set_levels(levels, strides, [*widths[:-1], config.last])
        self.add_head(config.last)
        init_separable(self)


FAMILY = Family(
    title="ShuffleNetV2",
    papers={
        "*": arxiv(
            "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design",
            "1807.11164",
        )
    },
    small="The stem has stride 1 and no pool: the last map is 4x4.",
    networks={
        "shufflenet_v2_x0_5": ShuffleNetV2Config(width=48),
        "shufflenet_v2_x1_0": ShuffleNetV2Config(),
        "shufflenet_v2_x1_5": ShuffleNetV2Config(width=176),
        "shufflenet_v2_x2_0": ShuffleNetV2Config(width=244, last=2048),
    },
)
