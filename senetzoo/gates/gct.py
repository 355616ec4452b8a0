"""Gated Channel Transformation.

Yang, Zhu, Wu, Yang 2020, "Gated Channel Transformation for Visual Recognition" (arXiv:1909.11519),
Eq. 2 to 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from senetzoo._utils.checks import PositiveFloat
from senetzoo.gates.common import GateModule, Init
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate


@dataclass(frozen=True)
class GCT(Gate):
    """``y = x * (1 + tanh(gamma * s / rms(s) + beta))``, ``s = alpha * norm(x)`` of each channel.

    rms is the root mean square over the channels: ``sqrt(C) s / ||s||`` in the paper. As in the
    paper, eps is added to the sum of squares; the authors' code adds it to the mean.

    Args:
        norm: ``"l2"``, or ``"l1"``: sums of absolute values in both places.
        eps: Avoids square roots of zero and divisions by zero.
        init: ``"paper"``: alpha is 1, gamma and beta are 0. The gate is then exactly 1, so
            ``"identity"`` is the same.
    """

    name: ClassVar[str] = "gct"

    norm: Literal["l2", "l1"] = "l2"
    eps: PositiveFloat = 1e-5
    init: Init = "paper"

    def build(self, site: Site) -> GatedChannels:
        return GatedChannels(self, site)


class GatedChannels(GateModule):
    """The module of `GCT`."""

    spec: GCT

    def __init__(self, spec: GCT, site: Site) -> None:
        super().__init__(spec, site)
        self.alpha = nn.Parameter(torch.ones(site.channels))
        self.gamma = nn.Parameter(torch.zeros(site.channels))
        self.beta = nn.Parameter(torch.zeros(site.channels))

    @property
    def top(self) -> float:
        return 2.0  # 1 + tanh

    def excitation(self, x: Tensor) -> Tensor:
        eps, channels = self.spec.eps, self.alpha.shape[0]
        # Sums over a map overflow fp16, and bf16 is too imprecise for them.
        wide = torch.promote_types(x.dtype, torch.float32)
        alpha, gamma, beta = (p.to(wide) for p in (self.alpha, self.gamma, self.beta))
        if self.spec.norm == "l2":
            length = torch.linalg.vector_norm(x, dim=self.space, dtype=wide)
            s = alpha * (length.square() + eps).sqrt()
            s = s * (channels / (s.square().sum(1, keepdim=True) + eps)).sqrt()
        else:
            s = alpha * torch.linalg.vector_norm(x, 1, dim=self.space, dtype=wide)
            s = s * (channels / (s.abs().sum(1, keepdim=True) + eps))
        return (1.0 + torch.tanh(gamma * s + beta)).to(x.dtype)
