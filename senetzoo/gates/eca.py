"""Efficient Channel Attention.

Wang, Wu, Zhu, Li, Zuo, Hu 2020, "ECA-Net" (arXiv:1910.03151), Eq. 9 and 12.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from senetzoo.errors import PolicyError
from senetzoo.nn.slots import Layout, Site
from senetzoo.policies.algebra import Gate, is_number


@dataclass(frozen=True)
class ECA(Gate):
    """Efficient channel attention: a 1-D convolution over the pooled channels, then a sigmoid.

    Args:
        kernel: Kernel size (odd); 0 adapts it to the channels: the odd number nearest above
            |(log2(C) + beta) / gamma| (Eq. 12), at least 3.
        gamma: Slope of the adaptive kernel.
        beta: Offset of the adaptive kernel (the paper's b).
    """

    name: ClassVar[str] = "eca"
    number: ClassVar[str] = "kernel"

    kernel: int = 0
    gamma: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        if (
            type(self.kernel) is not int
            or (self.kernel and self.kernel % 2 == 0)
            or self.kernel < 0
        ):
            raise PolicyError(
                f"ECA got kernel={self.kernel!r}.",
                "The kernel is an odd whole number, or 0 to adapt it to the channels.",
                "Type for example: ECA(kernel=3)",
            )
        if not is_number(self.gamma) or self.gamma <= 0:
            raise PolicyError(f"ECA got gamma={self.gamma!r}.", "gamma is a number above 0.")
        if not is_number(self.beta):
            raise PolicyError(f"ECA got beta={self.beta!r}.", "beta is a number.")

    def size(self, channels: int) -> int:
        """Kernel size for `channels`."""
        if self.kernel:
            return self.kernel
        number = int(abs((math.log2(channels) + self.beta) / self.gamma))
        return max(number + 1 - number % 2, 3)

    def build(self, site: Site) -> EfficientChannelAttention:
        return EfficientChannelAttention(self, site.channels, site.layout)


class EfficientChannelAttention(nn.Module):
    """The module of `ECA`."""

    def __init__(self, spec: ECA, channels: int, layout: Layout) -> None:
        super().__init__()
        self.spec = spec
        self.layout = layout
        kernel = spec.size(channels)
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def excitation(self, x: Tensor) -> Tensor:
        """The gate's values, (N, C)."""
        z = x.mean((2, 3) if self.layout == "nchw" else (1, 2))
        return torch.sigmoid(self.conv(z[:, None])[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        s = self.excitation(x)
        return x * (s[:, :, None, None] if self.layout == "nchw" else s[:, None, None, :])

    def extra_repr(self) -> str:
        return self.spec.text()
