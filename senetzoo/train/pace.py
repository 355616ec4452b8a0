"""How long training takes here: measured, never guessed."""

from __future__ import annotations

from dataclasses import dataclass

from senetzoo.train.recipe import Recipe

WARM_STEPS = 3
"""Steps that say nothing of those after them: in the first ones kernels are chosen and compiled."""
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
