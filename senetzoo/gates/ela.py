"""Efficient local attention.

Xu, Wan 2024, "ELA: Efficient Local Attention for Deep Convolutional Neural Networks"
(arXiv:2403.01123), Eq. 7 to 9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor, nn

from senetzoo._utils.checks import Ge, Odd
from senetzoo.gates.common import GateModule, Init, zero
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate

# Groups of the norm: the paper's ELA-B.
GROUPS = 16


@dataclass(frozen=True)
class ELA(Gate):
    """One factor for each row and one for each column of each channel, from their neighbors.

    ``y = x * sigmoid(norm(conv(rows))) * sigmoid(norm(conv(columns)))`` from the means of rows and
    columns, with a depthwise 1D convolution and a group norm of 16 groups (or the largest number
    that divides 16 and the channels). Rows and columns share the layers.

    Args:
        kernel: Kernel size (odd): 7 (the paper's ELA-B), or 5 (its ELA-T, which has 32 groups).
        init: ``"paper"`` (He initialization), or ``"identity"``: the norm is zero and both gates
            doubled, so they start at exactly 1 and still learn.
    """

    name: ClassVar[str] = "ela"
    number: ClassVar[str] = "kernel"

    kernel: Annotated[int, Ge(1), Odd()] = 7
    init: Init = "paper"

    def build(self, site: Site) -> LocalAttention:
        return LocalAttention(self, site)


class LocalAttention(GateModule):
    """The module of `ELA`."""

    spec: ELA

    def __init__(self, spec: ELA, site: Site) -> None:
        super().__init__(spec, site)
        channels = site.channels
        self.conv = nn.Conv1d(
            channels, channels, spec.kernel, padding=spec.kernel // 2, groups=channels, bias=False
        )
        self.norm = nn.GroupNorm(math.gcd(GROUPS, channels), channels)
        self.draw(self.conv)
        if self.identity:
            zero(self.norm)

    @property
    def top(self) -> float:
        return super().top ** 2  # a product of two gates

    def forward(self, x: Tensor) -> Tensor:
        image = self.turned(x)
        rows = self.sigmoid(self.norm(self.conv(image.mean(3))))
        columns = self.sigmoid(self.norm(self.conv(image.mean(2))))
        return x * self.back(rows[:, :, :, None]) * self.back(columns[:, :, None, :])
