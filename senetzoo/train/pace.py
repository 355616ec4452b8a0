"""Measure how long training takes on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, count
from typing import TypeVar

from senetzoo._utils.terminal import clock, counted
from senetzoo.train.recipe import Recipe

_T = TypeVar("_T")
WARM_STEPS = 3
"""First steps, which are slower because kernels are selected and compiled; not measured."""
PAYS = 100
"""Minimum number of steps of a run that makes measuring worthwhile."""
# Steps to measure, or seconds.
_STEPS, _SECONDS = 8, 6.0
# Minimum duration of a run in seconds, uncompiled, that makes compiling worthwhile: compiling takes
# up to a minute.
_COMPILING_PAYS = 1200.0


@dataclass(frozen=True)
class Pace:
    """Seconds that training takes on this machine, without compiling.

    Args:
        step: Seconds of an optimizer step in the first epoch, including the wait for its images.
        steps: Steps in an epoch.
        test: Seconds of the last test.
    """

    step: float
    steps: int
    test: float

    def seconds(self, recipe: Recipe) -> float:
        """Seconds of a run of `recipe`, assuming that the cost is proportional to the pixels."""
        sides = [recipe.size(epoch) for epoch in range(recipe.epochs)]
        trained = sum((side / sides[0]) ** 2 for side in sides) * self.steps * self.step
        tests = [
            ((recipe.test_size or side) / recipe.final_size) ** 2
            for number, side in enumerate(sides, 1)
            if number % recipe.test_every == 0 or number == recipe.epochs
        ]
        return trained + (sum(tests) * (1 + bool(recipe.ema)) + 1) * self.test

    def epochs(self, seconds: float) -> int:
        """How many epochs, each with a test, fit into `seconds`; at least 1."""
        epoch = self.steps * self.step + self.test
        return max(1, int((seconds - self.test) / epoch))

    def said(self, recipe: Recipe) -> str:
        """A line that says how long a run of `recipe` takes."""
        less = "; this run compiles, and should take less" * recipe.compile
        return (
            f"measured: {counted(recipe.epochs, 'epoch')} take"
            f"{'s' * (recipe.epochs == 1)} about {clock(self.seconds(recipe))} on this machine, "
            f"without compiling{less}"
        )

    def compiling_pays(self, recipe: Recipe) -> bool:
        """Whether a run is long enough for compiling to pay off."""
        return self.seconds(recipe) > _COMPILING_PAYS


def measure_step(
    step: Callable[[_T], object], epoch: Callable[[int], Iterable[_T]], together: int = 1
) -> float:
    """Seconds of the median step, including the wait for its batch.

    Args:
        step: Runs a step on a batch and synchronizes with the device.
        epoch: Returns the batches of an epoch by its number.
        together: How many batches can arrive at once; only so many steps together have a duration.
    """
    times = [time.perf_counter()]
    for batch in chain.from_iterable(map(epoch, count())):
        step(batch)
        times.append(time.perf_counter())
        steps = len(times) - 1 - WARM_STEPS
        if steps >= _STEPS or (steps > 0 and times[-1] - times[WARM_STEPS] > _SECONDS):
            break
    measured = times[WARM_STEPS:]
    together = min(together, len(measured) - 1)
    spans = zip(measured, measured[together:], strict=False)
    return statistics.median(after - before for before, after in spans) / together
