"""ResNeSt: a ResNet whose 3x3 convolutions output several maps, mixed channel by channel.

Zhang et al. 2020, "ResNeSt: Split-Attention Networks" (arXiv:2004.08955), Section 3, with the deep
stem and the downsampling pools of its Section 3.2. The attention combines several maps into one,
which a gate can't do, because its output has the shape of its input. So the attention is part of
the trunk, and gates are added as in a ResNet.

Child names are timm's, so its state dict loads strictly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo._utils.checks import PositiveInt
from senetzoo.models.family import Family, arxiv
from senetzoo.models.inverted import rounded
from senetzoo.models.resnet import ResNetConfig
from senetzoo.models.staged import SMALL_FORM, Block, projection
from senetzoo.nn.stem import Stem


@dataclass(frozen=True, kw_only=True)
class ResNeStConfig(ResNetConfig):
    """A ResNeSt.

    Training needs batches of at least two images: the attention has a batch norm on 1x1 maps.

    Args:
        radix: Number of maps that are mixed, which the paper also calls splits.
    """

    stem: Stem | str = "deep"
    block: Literal["basic", "bottleneck"] = "bottleneck"
    radix: PositiveInt = 2

    def _block(self, inputs: int, outputs: int, stride: int, drop_path: float) -> Block:
        block = super()._block(inputs, outputs, stride, drop_path)
        number = block.depth - 1
        plain: Any = block.get_submodule(f"conv{number}")
        block.add_module(f"conv{number}", SplitAttention(plain, self.radix))
        # Its norm is inside. Its output is nonnegative, so the block's ReLU has no effect.
        block.add_module(f"bn{number}", nn.Identity())
        if block.downsample is not None:
            pool = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
            first = pool if stride > 1 else nn.Identity()
            block.downsample = nn.Sequential(first, *projection(inputs, outputs, 1))
        return block


class SplitAttention(nn.Module):
    """A 3x3 convolution to `radix` maps with norm and ReLU; mixes them, and pools for the stride.

    Args:
        plain: The convolution that it replaces.
        radix: Number of maps.
    """

    def __init__(self, plain: nn.Conv2d, radix: int) -> None:
        super().__init__()
        inputs, outputs, groups = plain.in_channels, plain.out_channels, plain.groups
        hidden = max(rounded(inputs * radix / 4), 32)
        self.radix, self.groups = radix, groups
        wide = radix * outputs
        self.conv = nn.Conv2d(inputs, wide, 3, padding=1, groups=groups * radix, bias=False)
        self.bn0 = nn.BatchNorm2d(wide)
        self.fc1 = nn.Conv2d(outputs, hidden, 1, groups=groups)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.fc2 = nn.Conv2d(hidden, wide, 1, groups=groups)
        self.pool = nn.AvgPool2d(3, plain.stride[0], 1) if plain.stride[0] > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, h, w)."""
        maps: Tensor = self.bn0(self.conv(x)).relu().unflatten(1, (self.radix, -1))
        pooled = maps.sum(1).mean((2, 3), keepdim=True)
        logits = self.fc2(F.relu(self.bn1(self.fc1(pooled))))
        # `fc2` orders its channels by group, then map; `maps` is by map first.
        apart = logits.unflatten(1, (self.groups, self.radix, -1)).transpose(1, 2)
        x = (maps * apart.softmax(1).flatten(2, 3)).sum(1)
        return x if self.pool is None else self.pool(x)


FAMILY = Family(
    title="ResNeSt",
    papers={"*": arxiv("ResNeSt: Split-Attention Networks", "2004.08955")},
    small=SMALL_FORM,
    networks={"resnest50": ResNeStConfig(depths=(3, 4, 6, 3))},
)
