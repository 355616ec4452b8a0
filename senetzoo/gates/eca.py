"""Efficient Channel Attention.

Wang, Wu, Zhu, Li, Zuo, Hu 2020, "ECA-Net" (arXiv:1910.03151), Eq. 9 and 12.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Tensor, nn

from senetzoo._utils.checks import Ge, Odd, PositiveFloat
from senetzoo.gates.common import GateModule, Init, zero
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate


@dataclass(frozen=True)
class ECA(Gate):
    """Efficient channel attention: ``y = x * sigmoid(conv1d(mean(x)))``, along the channels.

    Args:
        kernel: Kernel size (odd); 0 adapts it to the channels: ``abs((log2(C) + beta) / gamma)``
            (Eq. 12), rounded down, then up to an odd number, at least 3.
        gamma: Slope of the adaptive kernel.
        beta: Offset of the adaptive kernel (the paper's b).
        init: ``"paper"`` (PyTorch's default), or ``"identity"``: the kernel is zero and the gate
            doubled, so it starts at exactly 1 and still learns.
    """

    name: ClassVar[str] = "eca"
    number: ClassVar[str] = "kernel"

    kernel: Literal[0] | Annotated[int, Ge(1), Odd()] = 0
    gamma: PositiveFloat = 2.0
    beta: float = 1.0
    init: Init = "paper"

    def size(self, channels: int) -> int:
        """Kernel size for this number of channels."""
        if self.kernel:
            return self.kernel
        number = int(abs((math.log2(channels) + self.beta) / self.gamma))
        return max(number + 1 - number % 2, 3)

    def build(self, site: Site) -> EfficientChannelAttention:
        return EfficientChannelAttention(self, site)


class EfficientChannelAttention(GateModule):
    """The module of `ECA`."""

    def __init__(self, spec: ECA, site: Site) -> None:
        super().__init__(spec, site)
        kernel = spec.size(site.channels)
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        if self.identity:
            zero(self.conv)

    def excitation(self, x: Tensor) -> Tensor:
        return self.sigmoid(self.conv(x.mean(self.space)[:, None])[:, 0])
