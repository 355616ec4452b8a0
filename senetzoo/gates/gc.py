"""Global context.

Cao, Xu, Lin, Wei, Hu 2019, "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond"
(arXiv:1904.11492), Fig. 4d and Eq. 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from senetzoo._utils.checks import PerStage
from senetzoo.gates.common import FEWEST, GateModule, Init, hidden
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate


@dataclass(frozen=True)
class GC(Gate):
    """``y = x + W2 relu(norm(W1 c))`` with the context ``c``, a mean weighted by ``softmax(V x)``.

    The softmax is over the pixels, the layer norm over the hidden units.

    Args:
        reduction: Divides the channels to get the hidden units, rounded down to at least 8 (a norm
            over one unit is constant, and over two keeps only which is larger): one number, or one
            per stage.
        fusion: ``"add"`` (paper), or ``"scale"``: ``x * sigmoid(W2 ...)`` (timm's default).
        init: ``"paper"`` (He initialization), or ``"identity"``: the last layer is zero, and the
            gate of ``"scale"`` doubled, so it starts as the identity and still learns.
    """

    name: ClassVar[str] = "gc"
    number: ClassVar[str] = "reduction"

    reduction: PerStage = 16
    fusion: Literal["add", "scale"] = "add"
    init: Init = "paper"

    def build(self, site: Site) -> GlobalContext:
        return GlobalContext(self, site)


class GlobalContext(GateModule):
    """The module of `GC`."""

    spec: GC

    def __init__(self, spec: GC, site: Site) -> None:
        super().__init__(spec, site)
        channels, width = site.channels, hidden(spec, site, FEWEST)
        # A bias would be the same at all pixels and cancel in the softmax.
        self.mask = nn.Linear(channels, 1, bias=False)
        self.fc1 = nn.Linear(channels, width)
        self.norm = nn.LayerNorm(width)
        self.fc2 = nn.Linear(width, channels)
        self.draw(self.mask, self.fc1, last=[self.fc2])

    @property
    def top(self) -> float:
        return super().top if self.spec.fusion == "scale" else 1.0

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.turned(x).flatten(2).transpose(1, 2)
        context = (self.mask(pixels).softmax(1).transpose(1, 2) @ pixels).flatten(1)
        z = self.spread(self.fc2(torch.relu(self.norm(self.fc1(context)))))
        return x + z if self.spec.fusion == "add" else x * self.sigmoid(z)
