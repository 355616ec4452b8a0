"""Variants of an experiment against its first one, seed by seed.

Runs of one seed start from the same trunk and get the same batches, so what they differ in is the
variant and the noise that it sets off. The difference of a pair varies less than either accuracy
does, or no more. A table of variants should be read by the mean of these differences, with an
interval that holds for all of them at once: Dunnett's (1955, Journal of the American Statistical
Association 50).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from senetzoo.errors import MissingExtraError
from senetzoo.report.run import Run

_CONFIDENCE, _POWER = 0.95, 0.8


@dataclass(frozen=True)
class Paired:
    """One variant against the first, in points of test accuracy.

    Args:
        name: The variant.
        first: The variant it is compared with.
        seeds: Seeds that both have.
        differences: Its accuracy in per cent minus the first variant's, by seed; at least two.
        interval: Of the mean difference. With a probability of 95 % every variant's interval, of
            those that were compared, has its true difference.
        p: Two-sided, adjusted in the same way.
        detectable: Smallest true difference that this comparison would show in four cases of five.
    """

    name: str
    first: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    interval: tuple[float, float]
    p: float
    detectable: float

    @property
    def mean(self) -> float:
        """Mean difference."""
        return statistics.mean(self.differences)

    @property
    def std(self) -> float:
        """Standard deviation of the differences."""
        return statistics.stdev(self.differences)

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out 0."""
        low, high = self.interval
        return low > 0.0 or high < 0.0

    @property
    def verdict(self) -> str:
        """What to say of it, in words: nothing where a difference is shown."""
        return "" if self.differs else "no difference shown"


def paired(runs: Sequence[Run], variants: Sequence[str] = ()) -> list[Paired]:
    """The variants of one experiment against its first; empty where no two share two seeds."""
    found: dict[str, dict[int, float]] = {}
    for run in runs:
        if run.end is not None and run.header["variant"]:
            by_seed = found.setdefault(str(run.header["variant"]), {})
            by_seed[int(run.header["seed"])] = 100 * run.end["test_accuracy"]
    return against({name: found[name] for name in sorted(found, key=in_order(variants))})


def in_order(variants: Sequence[str]) -> Callable[[str], int]:
    """The key by which labels are sorted: the variants as they come, and all others after them."""
    order = {name: place for place, name in enumerate(dict.fromkeys(variants))}
    return lambda label: order.get(label, len(order))


def against(values: Mapping[str, Mapping[int, float]]) -> list[Paired]:
    """The values of each variant, by seed, against those of the first.

    Variants that share no two seeds with the first are left out.

    A value is taken as the sum of what its variant gives, what its seed gives, and noise of the
    same spread everywhere. The spread is estimated from all runs together, so few seeds of many
    variants show more than few seeds of one. Of one variant alone this is Student's paired test.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    first, *others = values or [""]
    base = values.get(first, {})
    shared = {name: tuple(sorted(values[name].keys() & base.keys())) for name in others}
    shared = {name: seeds for name, seeds in shared.items() if len(seeds) > 1}
    if not shared:
        return []
    try:
        from scipy.optimize import brentq
        from scipy.stats import multivariate_t, t
    except ImportError as error:
        raise MissingExtraError("A report of paired runs", "scipy", "train") from error

    used = {first: tuple(sorted(set().union(*shared.values()))), **shared}
    spread, freedom = _spread({name: {s: values[name][s] for s in used[name]} for name in used})
    # Of the mean differences, in units of the variance of the noise.
    covariance = np.array(
        [
            [(1 + (one == other)) * len({*mine} & {*theirs}) / len(mine) / len(theirs)
             for other, theirs in shared.items()]
            for one, mine in shared.items()
        ]
    )  # fmt: skip
    scale = np.sqrt(np.diag(covariance))
    joint: Any = multivariate_t(shape=covariance / np.outer(scale, scale), df=freedom)

    def inside(limit: float) -> float:
        """Probability that no variant without an effect is further from 0 than `limit`."""
        if len(shared) == 1:
            return 1.0 - 2.0 * float(t.sf(limit, freedom))
        ends = np.full(len(shared), limit)
        return float(joint.cdf(ends, lower_limit=-ends, random_state=0))

    ceiling = float(t.ppf(1 - (1 - _CONFIDENCE) / 2 / len(shared), freedom))  # Bonferroni's
    limit = brentq(lambda x: inside(x) - _CONFIDENCE, ceiling / 4, 1.01 * ceiling)
    found = []
    for (name, seeds), size in zip(shared.items(), scale, strict=True):
        differences = tuple(values[name][seed] - base[seed] for seed in seeds)
        mean, scaled = statistics.mean(differences), spread * float(size)
        p = max(0.0, 1.0 - inside(abs(mean) / scaled)) if scaled else float(mean == 0.0)
        low, high = mean - limit * scaled, mean + limit * scaled
        detectable = (limit + float(t.ppf(_POWER, freedom))) * scaled
        found.append(Paired(name, first, seeds, differences, (low, high), p, detectable))
    return found


def _spread(values: Mapping[str, Mapping[int, float]]) -> tuple[float, int]:
    """Standard deviation of what variant and seed leave over, and its degrees of freedom."""
    runs = [(name, seed, value) for name, own in values.items() for seed, value in own.items()]
    seeds = sorted({seed for _, seed, _ in runs})
    rows = [[*(name == n for n in values), *(seed == s for s in seeds)] for name, seed, _ in runs]
    design, seen = np.array(rows, float), np.array([value for *_, value in runs])
    # Without what all have in common, so that equal differences leave exactly nothing.
    seen -= seen.mean()
    solution, _, rank, _ = np.linalg.lstsq(design, seen, rcond=None)
    freedom = len(runs) - int(rank)
    rest = float(np.square(seen - design @ solution).sum())
    # Rounding leaves something of values that fit exactly.
    if rest <= 1e-20 * max(float(np.square(seen).sum()), 1.0):
        rest = 0.0
    return math.sqrt(rest / freedom), freedom
