"""Triplet attention.

Misra, Nalamada, Arasanipalai, Hou 2020, "Rotate to Attend: Convolutional Triplet Attention Module"
(arXiv:2010.03045), Eq. 1 to 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from senetzoo._utils.checks import Ge, Odd
from senetzoo.gates.common import GateModule, Init, zero
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate


@dataclass(frozen=True)
class TripletAttention(Gate):
    """``y = x * (a + b + c) / 3``, with gates over (H, W), (C, W) and (H, C).

    Each gate is ``sigmoid(norm(conv([max(x), mean(x)])))``, pooled over the third dimension.

    Args:
        kernel: Kernel size of the three convolutions (odd).
        init: ``"paper"`` (He initialization), or ``"identity"``: the norms are zero and the gates
            doubled, so they start at exactly 1 and still learn.
    """

    name: ClassVar[str] = "triplet"
    number: ClassVar[str] = "kernel"

    kernel: Annotated[int, Ge(1), Odd()] = 7
    init: Init = "paper"

    def build(self, site: Site) -> ThreeGates:
        return ThreeGates(self, site)


class ThreeGates(GateModule):
    """The module of `TripletAttention`."""

    spec: TripletAttention

    def __init__(self, spec: TripletAttention, site: Site) -> None:
        super().__init__(spec, site)
        self.convs = nn.ModuleList(
            nn.Conv2d(2, 1, spec.kernel, padding=spec.kernel // 2, bias=False) for _ in range(3)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(1) for _ in range(3))
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # type: ignore[arg-type]
        if self.identity:
            zero(*self.norms)

    def forward(self, x: Tensor) -> Tensor:
        image, factor = self.turned(x), torch.zeros((), dtype=x.dtype, device=x.device)
        # Swap the pooled dimension with the channels, and swap it back afterwards.
        for pooled, conv, norm in zip((1, 2, 3), self.convs, self.norms, strict=True):
            view = image.transpose(1, pooled)
            pools = torch.cat([view.amax(1, keepdim=True), view.mean(1, keepdim=True)], 1)
            factor = factor + self.sigmoid(self.normalized(norm, conv(pools))).transpose(1, pooled)
        return x * self.back(factor / 3.0)
