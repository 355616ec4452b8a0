"""Effective Squeeze-Excitation.

Lee, Park 2020, "CenterMask: Real-Time Anchor-Free Instance Segmentation" (arXiv:1911.06667),
Eq. 3 and 4, for VoVNetV2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo.gates.common import GateModule, Init
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate


@dataclass(frozen=True)
class ESE(Gate):
    """Effective SE: ``y = x * gate(W mean(x))``, a single C x C layer that keeps all channels.

    Args:
        gate: ``"hardsigmoid"`` (the released VoVNetV2, timm), or ``"sigmoid"`` (paper).
        init: ``"paper"`` (He initialization), or ``"identity"``: the layer is zero and the gate
            doubled, so it starts at exactly 1 and still learns.
    """

    name: ClassVar[str] = "ese"

    gate: Literal["hardsigmoid", "sigmoid"] = "hardsigmoid"
    init: Init = "paper"

    def build(self, site: Site) -> EffectiveSE:
        return EffectiveSE(self, site)


class EffectiveSE(GateModule):
    """The module of `ESE`."""

    spec: ESE

    def __init__(self, spec: ESE, site: Site) -> None:
        super().__init__(spec, site)
        self.fc = nn.Linear(site.channels, site.channels)
        self.draw(last=[self.fc])

    def excitation(self, x: Tensor) -> Tensor:
        z = self.fc(x.mean(self.space))
        if self.spec.gate == "sigmoid":
            return self.sigmoid(z)
        return F.hardsigmoid(z) * 2.0 if self.identity else F.hardsigmoid(z)
