"""How long training takes here: measured, never guessed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from senetzoo._utils.terminal import clock
from senetzoo.train.recipe import Recipe

_T = TypeVar("_T")
WARM_STEPS = 3
"""Steps that say nothing of those after them: in the first ones kernels are chosen and compiled."""
PAYS = 100
"""Steps of a run from which on measuring some of them is worth the wait."""
# Measured steps, or seconds.
_STEPS, _SECONDS = 8, 6.0
# Eager seconds of a run from which on compiling pays: it takes up to a minute, and saves a part.
_COMPILING_PAYS = 1200.0


@dataclass(frozen=True)
class Pace:
    """Seconds that training takes on this machine, without compiling.

    Args:
        step: Of an optimizer step, with the wait for its images, in the first epoch.
        steps: Steps in an epoch.
        test: Of the last test.
    """

    step: float
    steps: int
    test: float

    def seconds(self, recipe: Recipe) -> float:
        """Of a whole run of `recipe`, and its last test. Images cost as they have pixels."""
        sides = [recipe.size(epoch) for epoch in range(recipe.epochs)]
        trained = sum((side / sides[0]) ** 2 for side in sides) * self.steps * self.step
        tests = [
            ((recipe.test_size or side) / recipe.final_size) ** 2
            for number, side in enumerate(sides, 1)
            if number % recipe.test_every == 0 or number == recipe.epochs
        ]
        return trained + (sum(tests) * (1 + bool(recipe.ema)) + 1) * self.test

    def epochs(self, seconds: float) -> int:
        """How many fit into so many seconds, a tested one each; at least 1."""
        epoch = self.steps * self.step + self.test
        return max(1, int((seconds - self.test) / epoch))

    def said(self, recipe: Recipe) -> str:
        """How long a run of `recipe` takes, in words."""
        less = "; this run compiles, and should take less" * recipe.compile
        return (
            f"measured: {recipe.epochs} epoch{'s' * (recipe.epochs > 1)} take"
            f"{'s' * (recipe.epochs == 1)} about {clock(self.seconds(recipe))} on this machine, "
            f"without compiling{less}"
        )

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
