"""Coordinate attention.

Hou, Zhou, Feng 2021, "Coordinate Attention for Efficient Mobile Network Design"
(arXiv:2103.02907), Eq. 4 to 9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo._utils.checks import PerStage
from senetzoo.gates.common import FEWEST, GateModule, Init, hidden
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate


@dataclass(frozen=True)
class CoordinateAttention(Gate):
    """One factor for each row and one for each column of each channel.

    ``y = x * sigmoid(W1 r) * sigmoid(W2 c)`` with ``[r, c] = hardswish(norm(W [rows, columns]))``
    from the means of rows and columns.

    Args:
        reduction: Divides the channels to get the hidden channels, rounded down to at least 8: one
            number, or one per stage.
        bias: Bias in all layers (the authors' code has it, timm doesn't).
        init: ``"paper"`` (He initialization), or ``"identity"``: the last layers are zero and both
            gates doubled, so they start at exactly 1 and still learn.
    """

    name: ClassVar[str] = "coord"
    number: ClassVar[str] = "reduction"

    reduction: PerStage = 32
    bias: bool = True
    init: Init = "paper"

    def build(self, site: Site) -> RowsAndColumns:
        return RowsAndColumns(self, site)


class RowsAndColumns(GateModule):
    """The module of `CoordinateAttention`."""

    spec: CoordinateAttention

    def __init__(self, spec: CoordinateAttention, site: Site) -> None:
        super().__init__(spec, site)
        channels, width = site.channels, hidden(spec, site, FEWEST)
        self.conv1 = nn.Conv1d(channels, width, 1, bias=spec.bias)
        self.bn1 = nn.BatchNorm1d(width)
        self.conv_h = nn.Conv1d(width, channels, 1, bias=spec.bias)
        self.conv_w = nn.Conv1d(width, channels, 1, bias=spec.bias)
        self.draw(self.conv1, last=[self.conv_h, self.conv_w])

    @property
    def top(self) -> float:
        return super().top ** 2  # a product of two gates

    def forward(self, x: Tensor) -> Tensor:
        image = self.turned(x)
        height = image.shape[2]
        # A row and a column are two values per channel: always enough for the norm.
        z = torch.cat([image.mean(3), image.mean(2)], 2)
        z = F.hardswish(self.bn1(self.conv1(z)))
        rows = self.sigmoid(self.conv_h(z[:, :, :height]))
        columns = self.sigmoid(self.conv_w(z[:, :, height:]))
        return x * self.back(rows[:, :, :, None]) * self.back(columns[:, :, None, :])
