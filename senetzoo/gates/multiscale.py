"""Efficient multi-scale attention.

Ouyang, He, Zhang, Luo, Guo, Zhan, Huang 2023, "Efficient Multi-Scale Attention Module with
Cross-Spatial Learning" (arXiv:2305.13563), Section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from senetzoo._utils.checks import PerStage
from senetzoo.gates.common import GateModule, Init, groups, zero
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate


@dataclass(frozen=True)
class MultiScaleAttention(Gate):
    """One factor for each pixel of each group of channels, from two branches (EMA in the paper).

    ``y = x * sigmoid(softmax(mean(a)) b + softmax(mean(b)) a)``. The first branch is ``a =
    norm(x * sigmoid(W rows) * sigmoid(W columns))`` from the means of rows and columns, with a norm
    over the pixels of each channel; the second, ``b``, is a 3x3 convolution of ``x``. All groups
    share the layers.

    Args:
        groups: Groups of channels: one number, or one per stage. If they don't divide the
            channels, the largest number that divides both.
        init: ``"paper"`` (He initialization), or ``"identity"``: the norm and the second branch are
            zero and the gate doubled, so it starts at exactly 1 and still learns.
    """

    name: ClassVar[str] = "multiscale"
    number: ClassVar[str] = "groups"

    groups: PerStage = 8
    init: Init = "paper"

    def build(self, site: Site) -> CrossSpatial:
        return CrossSpatial(self, site)


class CrossSpatial(GateModule):
    """The module of `MultiScaleAttention`."""

    spec: MultiScaleAttention

    def __init__(self, spec: MultiScaleAttention, site: Site) -> None:
        super().__init__(spec, site)
        self.groups = groups(spec, site)
        channels = site.channels // self.groups
        self.conv1 = nn.Conv1d(channels, channels, 1)
        self.norm = nn.GroupNorm(channels, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.draw(self.conv1, last=[self.conv2])
        if self.identity:
            zero(self.norm)

    def forward(self, x: Tensor) -> Tensor:
        image = torch.unflatten(self.turned(x), 1, (self.groups, -1)).flatten(0, 1)
        rows = torch.sigmoid(self.conv1(image.mean(3)))[:, :, :, None]
        columns = torch.sigmoid(self.conv1(image.mean(2)))[:, :, None, :]
        a, b = self.norm(image * rows * columns), self.conv2(image)
        first, second = (z.mean((2, 3), keepdim=True).softmax(1) for z in (a, b))
        s = self.sigmoid((first * b + second * a).sum(1, keepdim=True))
        return self.back((image * s).reshape(self.turned(x).shape))
