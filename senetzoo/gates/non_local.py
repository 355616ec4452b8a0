"""Non-local block.

Wang, Girshick, Gupta, He 2018, "Non-local Neural Networks" (arXiv:1711.07971), Eq. 3 and 6 and
Section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo._utils.checks import PerStage
from senetzoo.gates.common import GateModule, hidden, zero
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate


@dataclass(frozen=True)
class NonLocal(Gate):
    """``y = x + norm(W softmax(q k) v)``: adds a weighted mean of all pixels to every pixel.

    The cost is quadratic in the number of pixels; the paper uses it on the smaller maps of the
    second and third stages (res3 and res4). The norm starts at zero, as in the paper, so the gate
    starts as the exact identity.

    Args:
        reduction: Divides the channels to get those of ``q``, ``k`` and ``v``, rounded down to at
            least 1: one number, or one per stage.
        scale: ``"none"`` (the paper's embedded Gaussian), or ``"sqrt"``: divides ``q k`` by the
            square root of the channels of ``x`` (timm).
    """

    name: ClassVar[str] = "nonlocal"
    number: ClassVar[str] = "reduction"

    reduction: PerStage = 2
    scale: Literal["none", "sqrt"] = "none"

    def build(self, site: Site) -> NonLocalAttention:
        return NonLocalAttention(self, site)


class NonLocalAttention(GateModule):
    """The module of `NonLocal`."""

    spec: NonLocal

    def __init__(self, spec: NonLocal, site: Site) -> None:
        super().__init__(spec, site)
        channels, width = site.channels, hidden(spec, site)
        self.factor = 1.0 if spec.scale == "none" else channels**-0.5
        self.q = nn.Linear(channels, width)
        # A bias of k would cancel in the softmax, and one of the last layer in the norm.
        self.k = nn.Linear(channels, width, bias=False)
        self.v = nn.Linear(channels, width)
        self.out = nn.Conv1d(width, channels, 1, bias=False)
        self.bn = nn.BatchNorm1d(channels)
        self.draw(self.q, self.k, self.v, self.out)
        zero(self.bn)

    def forward(self, x: Tensor) -> Tensor:
        image = self.turned(x)
        pixels = image.flatten(2).transpose(1, 2)
        z = F.scaled_dot_product_attention(
            self.q(pixels), self.k(pixels), self.v(pixels), scale=self.factor
        )
        z = self.normalized(self.bn, self.out(z.transpose(1, 2)))
        return x + self.back(z.reshape(image.shape))
