"""An experiment: one recipe, or several runs of it that differ in what the experiment asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from senetzoo.errors import ConfigError, nearest
from senetzoo.train.recipe import Recipe

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Experiment:
    """Runs that are compared.

    Args:
        recipe: What all runs have in common.
        arms: For each arm of the experiment its name and the fields that it changes; empty for an
            experiment of one run.
        seeds: Each arm is run with each of them.
        quick: Fields that ``--quick`` changes, beyond the single epoch without compiling; an
            arm's own changes come first.
        quick_arms: Fields that ``--quick`` changes in an arm, by the arm's name.
    """

    recipe: Recipe
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    quick: Mapping[str, Any] = field(default_factory=dict)
    quick_arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.recipe.name

    def recipes(
        self,
        *,
        only: Iterable[str] = (),
        quick: bool = False,
        changes: Mapping[str, Any] = _NOTHING,
    ) -> dict[str, Recipe]:
        """The recipe of each arm by its name; of an experiment of one run, under no name.

        Args:
            only: Names of arms; none for all.
            quick: Shrink each to seconds: one epoch at the last size, without compiling, few
                images.
            changes: Fields to change in all.

        Raises:
            ConfigError: No arm of that name, or a change of what the arms differ in.
        """
        chosen = list(only) or list(self.arms)
        for name in chosen:
            if name not in self.arms:
                raise ConfigError(
                    f"The recipe {self.name} has no arm {name!r}.",
                    f"Its arms are {', '.join(self.arms)}."
                    if self.arms
                    else "It is a single run, without arms.",
                    nearest(name, self.arms),
                )
        for key in changes:
            values = {getattr(self.recipe.replace(**self.arms[name]), key) for name in chosen}
            if len(values) > 1:
                raise ConfigError(
                    f"--set {key}=... does not fit {self.name}.",
                    f"Its arms differ in {key}.",
                    f"Name one: --only {chosen[0]}",
                )
        if not self.arms:
            return {"": self._of(_NOTHING, _NOTHING, quick, changes)}
        return {
            name: self._of(self.arms[name], self.quick_arms.get(name, _NOTHING), quick, changes)
            for name in chosen
        }

    def _of(
        self,
        arm: Mapping[str, Any],
        quick_arm: Mapping[str, Any],
        quick: bool,
        changes: Mapping[str, Any],
    ) -> Recipe:
        recipe = self.recipe.replace(**arm)
        if quick:
            short = {
                "phases": ((recipe.phases[-1][0], 1),),
                "restart_epochs": 0,
                "compile": False,
                "images_per_class": 64,
            }
            recipe = recipe.replace(**{**short, **self.quick, **quick_arm})
        return recipe.replace(**changes)
