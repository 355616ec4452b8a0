"""Variants of an experiment against its first one, seed by seed.

Runs of one seed start from the same trunk and get the same batches, so what they differ in is the
variant and the noise that it sets off. The difference of a pair varies less than either accuracy
does, or no more; its mean with Student's interval is what a table of variants should be read by.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    """

    name: str
    first: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean difference."""
        return statistics.mean(self.differences)

    @property
    def std(self) -> float:
        """Standard deviation of the differences."""
        return statistics.stdev(self.differences)

    @property
    def interval(self) -> tuple[float, float]:
        """Student's 95 % interval of the mean difference."""
        half = float(self._t.ppf(0.5 + _CONFIDENCE / 2)) * self._error
        return self.mean - half, self.mean + half

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out 0."""
        low, high = self.interval
        return low > 0.0 or high < 0.0

    @property
    def p(self) -> float:
        """Two-sided p of Student's paired test."""
        if self.std == 0.0:
            return float(self.mean == 0.0)
        return 2.0 * float(self._t.sf(abs(self.mean) / self._error))

    @property
    def detectable(self) -> float:
        """Smallest true difference that as many seeds of this spread would show in 4 cases of 5.

        Two-sided, at 5 %: (t of 0.975 + t of 0.8) standard errors.
        """
        return float(self._t.ppf([0.5 + _CONFIDENCE / 2, _POWER]).sum()) * self._error

    @property
    def _error(self) -> float:
        return self.std / math.sqrt(len(self.differences))

    @property
    def _t(self) -> Any:
        """Student's distribution of the mean."""
        try:
            from scipy.stats import t
        except ImportError as error:
            raise MissingExtraError("A report of paired runs", "scipy", "train") from error
        return t(len(self.differences) - 1)


def paired(runs: Sequence[Run], variants: Sequence[str] = ()) -> list[Paired]:
    """The variants of one experiment against its first; empty where no two share two seeds."""
    found: dict[str, dict[int, float]] = {}
    for run in runs:
        if run.end is not None and run.header["variant"]:
            by_seed = found.setdefault(str(run.header["variant"]), {})
            by_seed[int(run.header["seed"])] = 100 * run.end["test_accuracy"]
    if not found:
        return []
    first, *others = sorted(found, key=in_order(variants))
    pairs = (pair_of(name, found[name], first, found[first]) for name in others)
    return [pair for pair in pairs if pair is not None]


def in_order(variants: Sequence[str]) -> Callable[[str], int]:
    """The key by which labels are sorted: the variants as they come, and all others after them."""
    order = {name: place for place, name in enumerate(dict.fromkeys(variants))}
    return lambda label: order.get(label, len(order))


def pair_of(
    name: str, values: Mapping[int, float], first: str, base: Mapping[int, float]
) -> Paired | None:
    """One variant's values against another's, by seed; None where they do not share two seeds."""
    seeds = tuple(sorted(values.keys() & base.keys()))
    if len(seeds) < 2:
        return None
    return Paired(name, first, seeds, tuple(values[seed] - base[seed] for seed in seeds))


def verdicts(pairs: Sequence[Paired]) -> list[str]:
    """What to say of each pair, in a word: nothing where a difference is shown.

    Of twenty variants without an effect one differs by its own interval. Holm's correction (1979,
    Scandinavian Journal of Statistics 6) leaves those that do so among all that were compared.
    """
    texts = ["no difference shown"] * len(pairs)
    still = True
    for place, number in enumerate(sorted(range(len(pairs)), key=lambda n: pairs[n].p)):
        still = still and pairs[number].p <= (1.0 - _CONFIDENCE) / (len(pairs) - place)
        if still:
            texts[number] = ""
        elif pairs[number].differs:
            texts[number] = f"not shown by Holm's correction for {len(pairs)}"
    return texts
