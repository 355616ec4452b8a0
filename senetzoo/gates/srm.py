"""Style-based Recalibration Module.

Lee, Kim, Nam 2019, "SRM: A Style-based Recalibration Module for Convolutional Neural Networks"
(arXiv:1903.10829), Eq. 1 to 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from senetzoo.gates.common import GateModule, Init, zero
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate


@dataclass(frozen=True)
class SRM(Gate):
    """``y = x * sigmoid(norm(w1 mean(x) + w2 std(x)))``, for each channel separately.

    The batch norm gets one value per image and channel, so training needs batches of at least two.

    Args:
        unbiased: Whether the standard deviation is unbiased, as in the authors' code, or not, as
            in the paper. That of a single pixel is 0 in both.
        init: ``"paper"``: w is zero, as in the authors' code; or ``"identity"``: the norm's scale
            and shift are zero and the gate doubled, so it starts at exactly 1 and still learns.
    """

    name: ClassVar[str] = "srm"

    unbiased: bool = False
    init: Init = "paper"

    def build(self, site: Site) -> StyleRecalibration:
        return StyleRecalibration(self, site)


class StyleRecalibration(GateModule):
    """The module of `SRM`."""

    spec: SRM

    def __init__(self, spec: SRM, site: Site) -> None:
        super().__init__(spec, site)
        self.cfc = nn.Parameter(torch.zeros(site.channels, 2))
        self.bn = nn.BatchNorm1d(site.channels)
        if self.identity:
            # If both were zero, neither would learn.
            nn.init.normal_(self.cfc, std=0.5**0.5)
            zero(self.bn)

    def excitation(self, x: Tensor) -> Tensor:
        pixels = x.shape[self.space[0]] * x.shape[self.space[1]]
        mean = x.mean(self.space)
        std = x.std(self.space, correction=int(self.spec.unbiased and pixels > 1))
        z = self.cfc[:, 0] * mean + self.cfc[:, 1] * std
        return self.sigmoid(self.normalized(self.bn, z))
