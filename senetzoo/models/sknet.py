"""SKNet: ResNets in which two convolutions, mixed by channel, replace each 3x3.

Li et al. 2019, "Selective Kernel Networks" (arXiv:1903.06586), Section 3.1; `skresnext50_32x4d` is
its SKNet-50. The ResNets are timm's, where each of the two convolutions takes half of the channels.
The selection combines two maps into one, which a gate can't do, because its output has the shape of
its input. So the selection is part of the trunk, and gates are added as in a ResNet.

Child names are those of torchvision's ResNet, and inside a selective convolution timm's.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from senetzoo._utils.checks import PositiveInt
from senetzoo.models import staged
from senetzoo.models.family import Family, arxiv
from senetzoo.models.inverted import rounded
from senetzoo.models.resnet import ResNetConfig
from senetzoo.models.staged import Block


@dataclass(frozen=True, kw_only=True)
class SKNetConfig(ResNetConfig):
    """A ResNet or ResNeXt with selective kernels.

    Training needs batches of at least two images: the selection has a batch norm on 1x1 maps.

    Args:
        split: Whether each of the two convolutions takes half of the channels instead of all.
        reduction: Ratio of the channels to the hidden units of the selection.
        multiple: The number of hidden units is rounded to a multiple of it.
    """

    split: bool = True
    reduction: PositiveInt = 16
    multiple: PositiveInt = 8

    def _block(self, inputs: int, outputs: int, stride: int, drop_path: float) -> Block:
        block = super()._block(inputs, outputs, stride, drop_path)
        number = block.depth - 1
        plain: Any = block.get_submodule(f"conv{number}")
        hidden = rounded(plain.out_channels / self.reduction, self.multiple)
        block.add_module(f"conv{number}", SelectiveKernel(plain, hidden, self.split))
        # Its norms are inside. Its output is nonnegative, so the block's ReLU has no effect.
        block.add_module(f"bn{number}", nn.Identity())
        return block


class SelectiveKernel(nn.Module):
    """A 3x3 and a dilated 3x3 convolution (5x5 pixels), with norms and ReLUs, mixed by channel.

    Args:
        plain: The convolution that it replaces.
        hidden: Hidden units of the selection.
        split: Whether each convolution takes half of the channels.
    """

    def __init__(self, plain: nn.Conv2d, hidden: int, split: bool) -> None:
        super().__init__()
        self.split = split
        inputs, outputs = plain.in_channels // (2 if split else 1), plain.out_channels
        conv = partial(nn.Conv2d, stride=plain.stride[0], groups=plain.groups, bias=False)
        self.paths = nn.ModuleList(
            nn.Sequential(
                OrderedDict(
                    conv=conv(inputs, outputs, 3, padding=dilation, dilation=dilation),
                    bn=nn.BatchNorm2d(outputs),
                    act=nn.ReLU(inplace=True),
                )
            )
            for dilation in (1, 2)
        )
        self.attn = nn.Sequential(
            OrderedDict(
                fc_reduce=nn.Conv2d(outputs, hidden, 1, bias=False),
                bn=nn.BatchNorm2d(hidden),
                act=nn.ReLU(inplace=True),
                fc_select=nn.Conv2d(hidden, 2 * outputs, 1, bias=False),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, h, w)."""
        one, other = x.chunk(2, 1) if self.split else (x, x)
        maps = torch.stack([self.paths[0](one), self.paths[1](other)], 1)
        shares = self.attn(maps.sum(1).mean((2, 3), keepdim=True)).unflatten(1, (2, -1)).softmax(1)
        return (maps * shares).sum(1)  # type: ignore[no-any-return]


_basic = partial(SKNetConfig, block="basic", reduction=8, multiple=16)
_bottleneck = partial(SKNetConfig, block="bottleneck", depths=(3, 4, 6, 3))

FAMILY = Family(
    title="SKNet",
    papers={"*": arxiv("Selective Kernel Networks", "1903.06586")},
    small=staged.SMALL_FORM,
    networks={
        "skresnet18": _basic(depths=(2, 2, 2, 2)),
        "skresnet34": _basic(depths=(3, 4, 6, 3)),
        "skresnet50": _bottleneck(),
        "skresnext50_32x4d": _bottleneck(groups=32, group_width=4, split=False, multiple=32),
    },
)
