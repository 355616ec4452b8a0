"""Shuffle attention.

Zhang, Yang 2021, "SA-Net: Shuffle Attention for Deep Convolutional Neural Networks"
(arXiv:2102.00240), Eq. 1 to 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from senetzoo._utils.checks import PerStage
from senetzoo.errors import PolicyError
from senetzoo.gates.common import GateModule, for_stage
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate


@dataclass(frozen=True)
class ShuffleAttention(Gate):
    """Gate half of each group's channels by channel and half by pixel, then shuffle the channels.

    The first half: ``x * sigmoid(a mean(x) + b)``. The second: ``x * sigmoid(a norm(x) + b)``, with
    a norm over the pixels of each channel. ``a`` and ``b`` are one number for each channel of a
    group, shared by all groups. The shuffle interleaves the first half of all channels with the
    second.

    Args:
        groups: Groups of channels: one number, or one per stage. If twice that number doesn't
            divide the channels, the largest number that divides both it and half of the channels.
    """

    name: ClassVar[str] = "shuffle"
    number: ClassVar[str] = "groups"
    no_identity: ClassVar[str] = "ShuffleAttention reorders the channels, so it has no identity."

    groups: PerStage = 64

    def build(self, site: Site) -> ShuffledHalves:
        if site.channels % 2:
            raise PolicyError(
                f"{self.text()} got {site.channels} channels.",
                "It gates half of them by channel and half by pixel.",
                "Use it where the number of channels is even",
            )
        return ShuffledHalves(self, site)


class ShuffledHalves(GateModule):
    """The module of `ShuffleAttention`."""

    spec: ShuffleAttention

    def __init__(self, spec: ShuffleAttention, site: Site) -> None:
        super().__init__(spec, site)
        self.groups = math.gcd(site.channels // 2, for_stage(spec, "groups", site))
        channels = site.channels // (2 * self.groups)
        # As in the authors' code, the initial gates don't depend on the map.
        self.weight = nn.Parameter(torch.zeros(channels, 1, 1))
        self.bias = nn.Parameter(torch.ones(channels, 1, 1))
        self.norm = nn.GroupNorm(channels, channels)
        self.norm_weight = nn.Parameter(torch.zeros(channels, 1, 1))
        self.norm_bias = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        image = self.turned(x)
        halves = torch.unflatten(image, 1, (self.groups, 2, -1)).flatten(0, 1)
        first, second = halves.unbind(1)
        z = first.mean((2, 3), keepdim=True)
        first = first * torch.sigmoid(self.weight * z + self.bias)
        z = self.norm(second)
        second = second * torch.sigmoid(self.norm_weight * z + self.norm_bias)
        both = torch.stack([first, second], 1).reshape(len(image), 2, -1, *image.shape[2:])
        return self.back(both.transpose(1, 2).flatten(1, 2))
