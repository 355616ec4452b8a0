"""SimAM, attention without parameters.

Yang, Zhang, Li, Xie 2021, "SimAM: A Simple, Parameter-Free Attention Module for Convolutional
Neural Networks" (ICML 2021), Eq. 5 and 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from senetzoo._utils.checks import PositiveFloat
from senetzoo.gates.common import GateModule
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate


@dataclass(frozen=True)
class SimAM(Gate):
    """``y = x * sigmoid((x - mean)^2 / (4 (variance + eps)) + 1/2)``, over a channel's pixels.

    The variance is unbiased; that of a single pixel is 0.

    Args:
        eps: Lambda in the paper.
    """

    name: ClassVar[str] = "simam"
    no_identity: ClassVar[str] = "SimAM has no parameters, so it has no identity."

    eps: PositiveFloat = 1e-4

    def build(self, site: Site) -> EnergyAttention:
        return EnergyAttention(self, site)


class EnergyAttention(GateModule):
    """The module of `SimAM`."""

    spec: SimAM

    def forward(self, x: Tensor) -> Tensor:
        space = self.space
        several = x.shape[space[0]] * x.shape[space[1]] > 1
        variance = x.var(space, correction=int(several), keepdim=True)
        # Scale before squaring: squares of the map's values would overflow fp16.
        scaled = (x - x.mean(space, keepdim=True)) / (2.0 * (variance + self.spec.eps).sqrt())
        return x * torch.sigmoid(scaled.square() + 0.5)
