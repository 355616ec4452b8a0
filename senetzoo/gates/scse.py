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
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate


@dataclass(frozen=True)
class SCSE(Gate):
    """A factor for each channel (cSE) combined with a factor for each pixel (sSE).

    cSE: ``x * sigmoid(W2 relu(W1 mean(x)))``. sSE: ``x * sigmoid(w x)``, one weight per channel.

    Args:
        reduction: Divides the channels to get the hidden units of cSE, rounded down to at least 1:
            one number, or one per stage. Other libraries use 16.
        part: ``"both"``, ``"cse"`` or ``"sse"``.
        combine: Combination of both: ``"sum"`` (first paper, most libraries), or ``"max"``, the
            elementwise maximum (second paper).
        bias: Bias in all layers (the authors' code has it, the papers' formulas don't).
        init: ``"paper"`` (He initialization), or ``"identity"``: the last layers are zero and the
            gates doubled, so they start at exactly 1 and still learn; with ``"sum"`` they aren't
            doubled, since 1/2 + 1/2 is 1.
    """

    name: ClassVar[str] = "scse"
    number: ClassVar[str] = "reduction"

    reduction: PerStage = 2
    part: Literal["both", "cse", "sse"] = "both"
    combine: Literal["sum", "max"] = "sum"
    bias: bool = True
    init: Init = "paper"

    def build(self, site: Site) -> ConcurrentSE:
        return ConcurrentSE(self, site)


class ConcurrentSE(GateModule):
    """The module of `SCSE`."""

    spec: SCSE

    def __init__(self, spec: SCSE, site: Site) -> None:
        super().__init__(spec, site)
        channels, width = site.channels, hidden(spec, site)
        if spec.part != "sse":
            self.fc1 = nn.Linear(channels, width, bias=spec.bias)
            self.fc2 = nn.Linear(width, channels, bias=spec.bias)
            self.draw(self.fc1, last=[self.fc2])
        if spec.part != "cse":
            self.conv = nn.Conv2d(channels, 1, 1, bias=spec.bias)
            self.draw(last=[self.conv])

    @property
    def top(self) -> float:
        added = self.spec.part == "both" and self.spec.combine == "sum"
        return 2.0 if added else super().top

    def channels(self, x: Tensor) -> Tensor:
        """Logits of cSE's gate, (N, C)."""
        z: Tensor = self.fc2(torch.relu(self.fc1(x.mean(self.space))))
        return z

    def pixels(self, x: Tensor) -> Tensor:
        """Logits of sSE's gate, (N, 1, H, W) or (N, H, W, 1)."""
        return self.back(self.conv(self.turned(x)))

    def forward(self, x: Tensor) -> Tensor:
        if self.spec.part == "cse":
            return x * self.spread(self.sigmoid(self.channels(x)))
        if self.spec.part == "sse":
            return x * self.sigmoid(self.pixels(x))
        c, s = self.spread(self.channels(x)), self.pixels(x)
        if self.spec.combine == "sum":
            # Adding the gates instead of two maps takes less memory and keeps the identity exact.
            return x * (torch.sigmoid(c) + torch.sigmoid(s))
        return torch.maximum(x * self.sigmoid(c), x * self.sigmoid(s))
