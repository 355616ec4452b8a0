"""Paired comparison of an experiment's variants with its first one, seed by seed or by image.

Runs with the same seed see the same batches, and variants of one network start from the same trunk,
so they differ only in the variant and the noise that it causes. Differences within pairs vary at
most as much as the accuracies themselves. Variants are compared by the mean of these differences,
with simultaneous intervals by Dunnett (1955, Journal of the American Statistical Association 50).

Runs of one seed each have no spread between seeds. Their differences are paired by test image, with
intervals that cover the choice of these images only.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from senetzoo.errors import MissingExtraError
from senetzoo.eval.predictions import newcombe
from senetzoo.report.run import Run, by_label, finished
from senetzoo.runs import TEST, is_quick

_CONFIDENCE, _POWER = 0.95, 0.8

ALIKE = "The differences are the same for all seeds, so there are no intervals: add seeds."
"""Said where the differences of each variant are equal."""


@dataclass(frozen=True)
class Paired:
    """The difference of a variant from the first one, in points of accuracy.

    Args:
        name: The variant.
        first: The variant it is compared with.
        seeds: The seeds that both have.
        differences: Accuracy in percent minus that of the first variant, by seed; at least two.
        interval: Interval of the mean difference; with a probability of 95 %, all intervals of the
            comparison contain their true differences. Infinite if the differences of each variant
            are equal, which doesn't show that their noise is 0.
        p: Two-sided p-value, adjusted in the same way; then 1.
        detectable: Smallest true difference that the comparison shows with a power of 80 %, if the
            noise is as estimated; then infinite.
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
    def alike(self) -> bool:
        """Whether the differences don't vary, so that there is no interval."""
        return math.isinf(self.detectable)

    @property
    def differs(self) -> bool:
        """Whether the interval excludes 0."""
        low, high = self.interval
        return low > 0.0 or high < 0.0

    @property
    def verdict(self) -> str:
        """The verdict in words; empty if a difference is shown."""
        return "" if self.differs else "no difference shown"


def paired(runs: Sequence[Run], variants: Sequence[str] = ()) -> list[Paired]:
    """Compare the variants of an experiment with its first; empty if none share two seeds.

    Runs with another recipe than the first variant's and quick checks are left out.
    """
    order = in_order(variants)
    done = [r for r in finished(runs) if r.header["variant"] and not is_quick(r.header)]
    done.sort(key=lambda run: min(order(run.label), order(run.header["variant"])))
    found: dict[str, dict[int, float]] = {}
    for run in done:
        if run.end is not None and run.recipe == done[0].recipe:
            by_seed = found.setdefault(run.label, {})
            by_seed[int(run.header["seed"])] = 100 * run.end["test_accuracy"]
    return against(found)


@dataclass(frozen=True)
class ByImage:
    """The difference of a run from another one on the same test images.

    Args:
        name: The run.
        first: The run it is compared with.
        only: Number of images that only this run classifies correctly.
        only_first: Number of images that only the other one does.
        images: Number of images.
        interval: 95 % interval of the difference in points: of the choice of images, not of seeds.
    """

    name: str
    first: str
    only: int
    only_first: int
    images: int
    interval: tuple[float, float]

    @property
    def points(self) -> float:
        """Accuracy in percent minus that of the other run."""
        return 100 * (self.only - self.only_first) / self.images


def by_image(runs: Sequence[Run], variants: Sequence[str] = ()) -> tuple[list[ByImage], str]:
    """Compare runs, image by image, with those of the first variant that have their seed.

    Returns:
        The differences, and why there are none; the reason is empty if there is nothing to compare.
    """
    labels = by_label(runs)
    baseline, *others = sorted(labels, key=in_order(variants))
    firsts = {run.header["seed"]: run for run in reversed(labels[baseline])}
    found, why = [], f"no other run has a seed of {baseline}" if others else ""
    for run in (run for name in (baseline, *others) for run in labels[name]):
        first = firsts.get(run.header["seed"], run)
        if first is run:
            continue
        if first.end is None or run.end is None:
            why = f"{(run if first.end else first).name} is not finished"
            continue
        if run.recipe != first.recipe:
            why = "their recipes differ"
            continue
        if is_quick(run.header):
            why = "a quick check is not a result"
            continue
        one, other = run.predictions, first.predictions
        if one is None or other is None:
            why = f"{(run if other else first).name} has no {TEST}"
            continue
        hashes = {each.header["data"].get("sha256", "") for each in (run, first)} - {""}
        if len(hashes) > 1 or not torch.equal(one.labels, other.labels):
            why = f"{run.name} and {first.name} are not of the same images"
            continue
        both = int((one.right & other.right).sum())
        only, only_first = int(one.right.sum()) - both, int(other.right.sum()) - both
        total = len(one.labels)
        low, high = newcombe(both, only, only_first, total - both - only - only_first)
        limits = (100 * low, 100 * high)
        found.append(ByImage(run.name, first.name, only, only_first, total, limits))
    return found, "" if found else why


@dataclass(frozen=True)
class Differences:
    """How runs compare with those of the first variant.

    Args:
        paired: The differences of variants, by seed.
        by_image: The differences of runs, image by image, if there are none by seed.
        no_difference: A sentence that says why there are neither; empty if there are, or if there
            is nothing to compare.
    """

    paired: Sequence[Paired] = ()
    by_image: Sequence[ByImage] = ()
    no_difference: str = ""


def compared(runs: Sequence[Run], variants: Sequence[str] = ()) -> Differences:
    """Compare runs by seed, or else image by image.

    Args:
        runs: The runs.
        variants: Names of the variants, the first one first; others follow.
    """
    if pairs := paired(runs, variants):
        return Differences(pairs)
    images, why = by_image(runs, variants)
    return Differences(
        by_image=images,
        no_difference=why
        and f"No difference between the runs is shown: {why}. Several seeds of each network, "
        "trained on the same data, can show one.",
    )


def in_order(variants: Sequence[str]) -> Callable[[str], int]:
    """A sort key for labels: first the variants in their order, then all others."""
    order = {name: place for place, name in enumerate(dict.fromkeys(variants))}
    return lambda label: order.get(label, len(order))


def against(values: Mapping[str, Mapping[int, float]]) -> list[Paired]:
    """Compare the values of each variant, by seed, with those of the first.

    Variants that share fewer than two seeds with the first are left out.

    The model is a sum of an effect of the variant, an effect of the seed, and noise with the same
    variance everywhere. The variance is estimated from all runs together, so few seeds of many
    variants show more than few seeds of one. For a single variant this is the paired t-test.

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
        from scipy.stats import multivariate_t, nct, t
    except ImportError as error:
        raise MissingExtraError("A report of paired runs", "scipy", "train") from error

    used = {first: tuple(sorted(set().union(*shared.values()))), **shared}
    spread, freedom = _spread({name: {s: values[name][s] for s in used[name]} for name in used})
    # Covariance of the mean differences, in units of the noise variance.
    covariance = np.array(
        [
            [(1 + (one == other)) * len({*mine} & {*theirs}) / len(mine) / len(theirs)
             for other, theirs in shared.items()]
            for one, mine in shared.items()
        ]
    )  # fmt: skip
    scale = np.sqrt(np.diag(covariance))
    joint: Any = multivariate_t(shape=covariance / np.outer(scale, scale), df=freedom)

    def inside(limit: float, points: int = 1000 * len(shared)) -> float:
        """Probability that all variants without an effect are within `limit` of 0.

        With 20,000 points, its error is about 1e-5.
        """
        if len(shared) == 1:
            return 1.0 - 2.0 * float(t.sf(limit, freedom))
        ends = np.full(len(shared), limit)
        return float(joint.cdf(ends, lower_limit=-ends, maxpts=points, random_state=0))

    ceiling = float(t.ppf(1 - (1 - _CONFIDENCE) / 2 / len(shared), freedom))  # Bonferroni
    limit = brentq(lambda x: inside(x) - _CONFIDENCE, ceiling / 4, 1.01 * ceiling)
    # In units of a mean difference's standard error; the other sign is never shown with this power.
    power = brentq(lambda x: float(nct.sf(limit, freedom, x)) - _POWER, 0.0, 10 * limit)
    found = []
    for (name, seeds), size in zip(shared.items(), scale, strict=True):
        differences = tuple(values[name][seed] - base[seed] for seed in seeds)
        mean, scaled = statistics.mean(differences), (spread or math.inf) * float(size)
        p = max(0.0, 1.0 - inside(abs(mean) / scaled, 20_000))
        low, high = mean - limit * scaled, mean + limit * scaled
        found.append(Paired(name, first, seeds, differences, (low, high), p, power * scaled))
    return found


def _spread(values: Mapping[str, Mapping[int, float]]) -> tuple[float, int]:
    """Standard deviation of the residuals of variant and seed, and its degrees of freedom."""
    runs = [(name, seed, value) for name, own in values.items() for seed, value in own.items()]
    seeds = sorted({seed for _, seed, _ in runs})
    rows = [[*(name == n for n in values), *(seed == s for s in seeds)] for name, seed, _ in runs]
    design, seen = np.array(rows, float), np.array([value for *_, value in runs])
    # Centered, so that equal differences leave a residual of exactly 0.
    seen -= seen.mean()
    solution, _, rank, _ = np.linalg.lstsq(design, seen, rcond=None)
    freedom = len(runs) - int(rank)
    rest = float(np.square(seen - design @ solution).sum())
    # Rounding leaves a small residual of values that fit exactly.
    if rest <= 1e-20 * max(float(np.square(seen).sum()), 1.0):
        rest = 0.0
    return math.sqrt(rest / freedom), freedom
