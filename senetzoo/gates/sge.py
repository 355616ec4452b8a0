"""Spatial group-wise enhancement.

Li, Hu, Yang 2019, "Spatial Group-wise Enhance: Improving Semantic Feature Learning in Convolutional
Networks" (arXiv:1905.09646), Eq. 1 to 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from senetzoo._utils.checks import PerStage
from senetzoo.gates.common import GateModule, Init, groups
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate

# The paper's epsilon, added to the standard deviation.
EPS = 1e-5


@dataclass(frozen=True)
class SGE(Gate):
    """``y = x * sigmoid(a * norm(<x, mean(x)>) + b)``, for each group of channels and each pixel.

    The product is over the channels of a group; the norm subtracts the mean over the pixels of an
    image and divides by their standard deviation. ``a`` and ``b`` are one number for each group.

    Args:
        groups: Groups of channels: one number, or one per stage. If they don't divide the
            channels, the largest number that divides both.
        init: ``"paper"`` (``a = 0``, ``b = 1``, as in the authors' code), or ``"identity"``: both
            are zero and the gate doubled, so it starts at exactly 1 and still learns.
    """

    name: ClassVar[str] = "sge"
    number: ClassVar[str] = "groups"

    groups: PerStage = 64
    init: Init = "paper"

    def build(self, site: Site) -> GroupEnhancement:
        return GroupEnhancement(self, site)


class GroupEnhancement(GateModule):
    """The module of `SGE`."""

    spec: SGE

    def __init__(self, spec: SGE, site: Site) -> None:
        super().__init__(spec, site)
        parts = groups(spec, site)
        self.weight = nn.Parameter(torch.zeros(parts))
        self.bias = nn.Parameter(torch.zeros(parts) if self.identity else torch.ones(parts))

    def forward(self, x: Tensor) -> Tensor:
        grouped = torch.unflatten(self.turned(x), 1, (len(self.weight), -1))
        # Products overflow fp16; after the division by their deviation they fit again.
        wide = grouped.to(torch.promote_types(x.dtype, torch.float32))
        z = (wide * wide.mean((3, 4), keepdim=True)).sum(2)
        # The deviation of a single pixel is 0, not undefined.
        several = int(z.shape[2] * z.shape[3] > 1)
        deviation = z.std((2, 3), correction=several, keepdim=True)
        z = (z - z.mean((2, 3), keepdim=True)) / (deviation + EPS)
        z = z.to(x.dtype)
        s = self.sigmoid(z * self.weight[:, None, None] + self.bias[:, None, None])
        return self.back((grouped * s[:, :, None]).flatten(1, 2))
