from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable

import pytest

from senetzoo.eval.spread import Spread, median_interval


@pytest.mark.parametrize(
    "values", [[3.0, 1.0], [5.0, 1.0, 4.0, 2.0, 2.5], [0.1 * k for k in range(23)]]
)
def test_spread_has_the_percentiles_of_the_standard_library(values: list[float]) -> None:
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    spread = Spread.of(values)
    assert spread.median == pytest.approx(statistics.median(values))
    assert (spread.p10, spread.p90) == pytest.approx((tenths[0], tenths[8]))
    assert spread.relative == pytest.approx((tenths[8] - tenths[0]) / statistics.median(values))


# The interval of the median


@pytest.mark.parametrize("count", range(6, 15))
def test_interval_covers_over_every_pattern_of_sides(count: int) -> None:
    """Whether values fall below or above the median is n tosses of a fair coin: all are tried.

    The interval must cover in 95 % of patterns, and the next narrower one must not.
    """
    values = list(range(count))
    interval = median_interval(values)
    assert interval is not None
    low, high = int(interval[0]), int(interval[1])

    def coverage(low: int, high: int) -> float:
        # With k values below it, the median lies between the k-th and the next in order.
        below = [sum(sides) for sides in itertools.product((0, 1), repeat=count)]
        return len([k for k in below if low < k <= high]) / len(below)

    assert low == count - 1 - high
    assert coverage(low, high) >= 0.95
    assert low + 1 > high - 1 or coverage(low + 1, high - 1) < 0.95


@pytest.mark.parametrize("count", range(1, 6))
def test_few_values_have_no_interval(count: int) -> None:
    assert median_interval([1.0] * count) is None
    # Not even from the lowest to the highest would do.
    assert 1 - 2 * 0.5**count < 0.95


@pytest.mark.parametrize(
    ("draw", "median"),
    [
        (lambda r: r.gauss(3.0, 1.0), 3.0),
        (lambda r: r.lognormvariate(0.0, 1.5), 1.0),
        (lambda r: math.tan(math.pi * (r.random() - 0.5)), 0.0),  # Cauchy: it has no mean
        (lambda r: 1.0 + (r.random() < 0.3) * r.expovariate(1.0), 1.0),  # most are tied
    ],
    ids=["normal", "lognormal", "cauchy", "ties"],
)
@pytest.mark.parametrize("count", [6, 20, 25])
def test_interval_covers_in_simulation(
    draw: Callable[[random.Random], float], median: float, count: int
) -> None:
    source, trials, covered = random.Random(count), 2000, 0
    for _ in range(trials):
        interval = median_interval([draw(source) for _ in range(count)])
        assert interval is not None
        covered += interval[0] <= median <= interval[1]
    # Three standard errors below 95 %; and not so wide that it says nothing.
    assert covered / trials >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / trials)
    if len({draw(source) for _ in range(100)}) == 100:  # without ties
        assert covered / trials <= 0.985


def test_order_of_the_values_does_not_matter() -> None:
    values = [float(k) for k in range(20)]
    shuffled = random.Random(1).sample(values, 20)
    # Published tables have the 6th and the 15th of 20 (97.5 % quantile of Bin(20, 1/2) is 14).
    assert median_interval(shuffled) == median_interval(values) == (5.0, 14.0)


# What is printed of it


@pytest.mark.parametrize(
    ("values", "text", "differs"),
    [
        ([0.90, 0.91, 0.93, 0.93, 0.95, 0.96], "0.93 [0.90, 0.96]", True),
        ([0.90, 0.91, 0.97, 0.99, 1.05, 1.06], "0.98 [0.90, 1.06] no difference", False),
        ([1.0] * 6, "1.0000 [1.0000, 1.0000] no difference", False),
        # Rounded to two digits this would seem to cover 1.
        ([0.995, 0.996, 0.997, 0.997, 0.998, 0.999], "0.9970 [0.9950, 0.9990]", True),
        ([1.5, 2.0, 2.5], "2.00 [-, -]", None),
    ],
)
def test_ratio_in_words(values: list[float], text: str, differs: bool | None) -> None:
    ratio = Spread.of(values)
    assert str(ratio) == text
    assert ratio.differs is differs
    assert ratio.interval == median_interval(values)
