"""How far measurements scatter, and what their median is known to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import torch

# Fewer values have no 95 % interval: the lowest and the highest of 5 miss the median, both on one
# side of it, in 2 * 0.5**5 = 6.25 % of cases.
LEAST_ROUNDS = 6


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Distribution-free 95 % confidence interval of the median.

    Between the k-th lowest and the k-th highest value, with the highest k that still covers: as
    many values lie below the median as a fair coin shows heads, so both limits miss it in
    ``2 P(Bin(n, 1/2) < k)`` of cases (W. R. Thompson, Ann. Math. Stat. 7, 1936, 122-128). It
    supposes values that are drawn independently from one distribution, of whatever shape; where
    that is not continuous, coverage is higher still.

    Args:
        values: Measurements.

    Returns:
        Lower and upper limit; None for fewer than 6 values, which have no such interval.
    """
    count = len(values)
    if count < LEAST_ROUNDS:
        return None
    # All in whole numbers: 2 * below / 2**count <= 0.05.
    rank, below = 0, 1
    while 40 * below <= 2**count:
        rank += 1
        below += comb(count, rank)
    ordered = sorted(values)
    return ordered[rank - 1], ordered[count - rank]


@dataclass(frozen=True)
class Spread:
    """The median of measurements, or of the ratios of each round, and how far they scatter.

    Args:
        median: The median.
        p10: The tenth percentile.
        p90: The ninetieth.
        interval: 95 % confidence interval of the median (`median_interval`); None where there are
            too few rounds.
    """

    median: float
    p10: float
    p90: float
    interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of `values` (at least one); percentiles are linear between neighbors."""
        data = torch.tensor(values, dtype=torch.float64)
        p10, median, p90 = data.quantile(data.new_tensor([0.1, 0.5, 0.9])).tolist()
        return cls(median, p10, p90, median_interval(values))

    @property
    def relative(self) -> float:
        """``(p90 - p10) / median``: the width of the middle 80 %."""
        return (self.p90 - self.p10) / self.median

    @property
    def differs(self) -> bool | None:
        """Of a ratio, whether its interval leaves out 1; None without an interval."""
        if self.interval is None:
            return None
        low, high = self.interval
        return not low <= 1 <= high

    def __str__(self) -> str:
        """A ratio: ``0.93 [0.90, 0.96]``; ``no difference`` follows where that covers 1."""
        if self.interval is None:
            return f"{self.median:.2f} [-, -]"
        low, high = self.interval
        # A narrow interval beside 1 must not be printed as if it covered it.
        digits = 2 if high - low >= 0.02 else 4
        text = f"{self.median:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
        return text if self.differs else f"{text} no difference"
