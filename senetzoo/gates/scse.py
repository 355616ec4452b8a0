"""Concurrent spatial and channel Squeeze & Excitation.

Roy, Navab, Wachinger 2018, "Concurrent Spatial and Channel Squeeze & Excitation in Fully
Convolutional Networks" (arXiv:1803.02579), Section 2; the maximum is from the longer version,
"Recalibrating Fully Convolutional Networks with Spatial and Channel 'Squeeze & Excitation' Blocks"
(arXiv:1808.08127).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from senetzoo._utils.checks import PerStage
from senetzoo.gates.common import GateModule, Init, hidden
from senetzoo.nn.slots import Layout, Site
from senetzoo.policies.algebra import Gate


@dataclass(frozen=True)
class SCSE(Gate):
    """A factor for each channel (cSE) beside a factor for each pixel (sSE).

    cSE: ``x * sigmoid(W2 relu(W1 mean(x)))``. sSE: ``x * sigmoid(w x)``, one weight per channel.

    Args:
        reduction: Ratio of the channels to the hidden units of cSE, rounded down to at least 1:
            one number, or one per stage. Libraries that took the block over have 16.
        part: ``"both"``, ``"cse"`` or ``"sse"``.
        combine: How both are joined: ``"sum"`` (of the first paper, and of most libraries), or
            ``"max"``, value by value (of the second).
        bias: Bias in all layers (the authors' code has it, the papers' formulas do not).
        init: ``"paper"`` (He initialization), or ``"identity"``: the last layers are zero and the
            gates doubled, so that they are exactly 1 at the start and still learn; under ``"sum"``
            they are not doubled, since 1/2 + 1/2 is 1.
    """

    name: ClassVar[str] = "scse"
    number: ClassVar[str] = "reduction"

    reduction: PerStage = 2
    part: Literal["both", "cse", "sse"] = "both"
    combine: Literal["sum", "max"] = "sum"
    bias: bool = True
    init: Init = "paper"

    def build(self, site: Site) -> ConcurrentSE:
        return ConcurrentSE(self, site.channels, hidden(self, site), site.layout)


class ConcurrentSE(GateModule):
    """The module of `SCSE`."""

    spec: SCSE

    def __init__(self, spec: SCSE, channels: int, hidden: int, layout: Layout) -> None:
        super().__init__(spec, layout)
        if spec.part != "sse":
            self.fc1 = nn.Linear(channels, hidden, bias=spec.bias)
            self.fc2 = nn.Linear(hidden, channels, bias=spec.bias)
            self.draw(self.fc1, last=[self.fc2])
        if spec.part != "cse":
            self.conv = nn.Conv2d(channels, 1, 1, bias=spec.bias)
            self.draw(last=[self.conv])

    def channels(self, x: Tensor) -> Tensor:
        """The values of cSE's gate before the sigmoid, (N, C)."""
        z: Tensor = self.fc2(torch.relu(self.fc1(x.mean(self.space))))
        return z

    def pixels(self, x: Tensor) -> Tensor:
        """The values of sSE's gate before the sigmoid, (N, 1, H, W) or (N, H, W, 1)."""
        return self.back(self.conv(self.turned(x)))

    def forward(self, x: Tensor) -> Tensor:
        if self.spec.part == "cse":
            return x * self.spread(self.sigmoid(self.channels(x)))
        if self.spec.part == "sse":
            return x * self.sigmoid(self.pixels(x))
        c, s = self.spread(self.channels(x)), self.pixels(x)
        if self.spec.combine == "sum":
            # Of the gates, not of two maps: less memory, and for the identity exact.
            return x * (torch.sigmoid(c) + torch.sigmoid(s))
        return torch.maximum(x * self.sigmoid(c), x * self.sigmoid(s))
