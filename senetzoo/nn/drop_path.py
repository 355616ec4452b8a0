"""Stochastic depth."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def linear_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Rates of each stage's blocks, rising linearly from 0 to `rate` at the last block."""
    total, done = sum(depths), 0
    rates = []
    for depth in depths:
        rates.append([rate * (done + index) / max(total - 1, 1) for index in range(depth)])
        done += depth
    return rates


class DropPath(nn.Module):
    """Drop a residual branch for whole samples in training (stochastic depth, Huang et al. 2016).

    Args:
        rate: Probability of dropping the branch, in [0, 1). Kept samples are divided by
            ``1 - rate``, which keeps the expectation. The identity in eval mode.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """`x` of shape (N, ...), with whole samples zeroed in training."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
