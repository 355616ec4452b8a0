"""The spread of measurements, and the confidence interval of their median."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import torch

# Fewer values have no 95 % interval: 5 values are all on one side of the median in
# 2 * 0.5**5 = 6.25 % of cases.
LEAST_ROUNDS = 6


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Distribution-free 95 % confidence interval of the median.

    The interval from the k-th lowest to the k-th highest value, with the highest k that gives 95 %
    coverage: the number of values below the median is Bin(n, 1/2), so the interval misses it in
    ``2 P(Bin(n, 1/2) < k)`` of cases (W. R. Thompson, Ann. Math. Stat. 7, 1936, 122-128). It
    assumes values that are drawn independently from one distribution of any shape; if that is not
    continuous, the coverage is higher.

    Returns:
        Lower and upper limit; None for fewer than 6 values, which have no such interval.
    """
    count = len(values)
    if count < LEAST_ROUNDS:
        return None
    # With integers only: 2 * below / 2**count <= 0.05.
    rank, below = 0, 1
    while 40 * below <= 2**count:
        rank += 1
        below += comb(count, rank)
    ordered = sorted(values)
    return ordered[rank - 1], ordered[count - rank]


@dataclass(frozen=True)
class Spread:
    """The median and spread of measurements, or of the ratios of each round.

    Args:
        median: The median.
        p10: The tenth percentile.
        p90: The ninetieth.
        interval: 95 % confidence interval of the median (`median_interval`); None if there are too
            few rounds.
    """

    median: float
    p10: float
    p90: float
    interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of `values` (at least one); percentiles are interpolated linearly."""
        data = torch.tensor(values, dtype=torch.float64)
        p10, median, p90 = data.quantile(data.new_tensor([0.1, 0.5, 0.9])).tolist()
        return cls(median, p10, p90, median_interval(values))

    @property
    def relative(self) -> float:
        """``(p90 - p10) / median``: the width of the middle 80 %."""
        return (self.p90 - self.p10) / self.median

    @property
    def differs(self) -> bool | None:
        """For a ratio, whether its interval excludes 1; None without an interval."""
        if self.interval is None:
            return None
        low, high = self.interval
        return not low <= 1 <= high

    def __str__(self) -> str:
        """A ratio: ``0.93 [0.90, 0.96]``; ``no difference`` follows if that contains 1."""
        if self.interval is None:
            return f"{self.median:.2f} [-, -]"
        low, high = self.interval
        # A narrow interval next to 1 must not be printed as if it contained 1.
        digits = 2 if high - low >= 0.02 else 4
        text = f"{self.median:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
        return text if self.differs else f"{text} no difference"
