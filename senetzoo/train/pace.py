"""How long training takes here: measured, never guessed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from senetzoo.train.recipe import Recipe

_T = TypeVar("_T")
WARM_STEPS = 3
"""Steps that say nothing of those after them: in the first ones kernels are chosen and compiled."""
# Measured steps, or seconds.
_STEPS, _SECONDS = 8, 6.0
# Eager seconds of a run from which on compiling pays: it takes up to a minute, and saves a part.
_COMPILING_PAYS = 1200.0


@dataclass(frozen=True)
class Pace:
    """Seconds that training takes on this machine, without compiling.

    Args:
        step: Of an optimizer step, with the wait for its images.
        steps: Steps in an epoch.
        test: Of a test after an epoch.
    """

    step: float
    steps: int
    test: float

    def seconds(self, recipe: Recipe) -> float:
        """Of a whole run of `recipe`, and its last test."""
        tests = -(-recipe.epochs // recipe.test_every) + 1
        return recipe.epochs * self.steps * self.step + tests * self.test

    def epochs(self, seconds: float) -> int:
        """How many fit into so many seconds, a tested one each; at least 1."""
        epoch = self.steps * self.step + self.test
        return max(1, int((seconds - self.test) / epoch))

    def compiling_pays(self, recipe: Recipe) -> bool:
        """Whether a run is long enough for it."""
        return self.seconds(recipe) > _COMPILING_PAYS


def measure_step(step: Callable[[_T], object], epoch: Callable[[int], Iterable[_T]]) -> float:
    """Seconds of a step, with the wait for its batch.

    Args:
        step: Takes one, and waits for the device.
        epoch: The batches of an epoch, by its number.
    """
    times = [time.perf_counter()]
    for batch in _endless(epoch):
        step(batch)
        times.append(time.perf_counter())
        steps = len(times) - 1 - WARM_STEPS
        if steps >= _STEPS or (steps > 0 and times[-1] - times[WARM_STEPS] > _SECONDS):
            break
    return (times[-1] - times[WARM_STEPS]) / (len(times) - 1 - WARM_STEPS)


def _endless(epoch: Callable[[int], Iterable[_T]]) -> Iterator[_T]:
    number = 0
    while True:
        yield from epoch(number)
        number += 1
