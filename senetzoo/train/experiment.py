"""An experiment: one recipe, or several runs of it that differ in what the experiment asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from senetzoo.errors import ConfigError, nearest
from senetzoo.train.recipe import Recipe


@dataclass(frozen=True)
class Experiment:
    """Runs that are compared.

    Args:
        recipe: What all runs have in common.
        variants: For each variant its name and the fields that it changes; empty for an experiment
            of one run.
        seeds: Each variant is run with each of them.
        quick: Fields that ``--quick`` changes, beyond the single epoch without compiling.
    """

    recipe: Recipe
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    quick: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.recipe.name

    def recipes(
        self,
        *,
        only: Iterable[str] = (),
        quick: bool = False,
        changes: Mapping[str, Any] = MappingProxyType({}),
    ) -> dict[str, Recipe]:
        """The recipe of each variant by its name; of an experiment of one run, under no name.

        Args:
            only: Names of variants; none for all.
            quick: Shrink each to seconds: one epoch at the last size, without compiling, few
                images.
            changes: Fields to change in all.

        Raises:
            ConfigError: No variant of that name, or a change of what the variants differ in.
        """
        chosen = list(only) or list(self.variants)
        for name in chosen:
            if name not in self.variants:
                raise ConfigError(
                    f"The recipe {self.name} has no variant {name!r}.",
                    f"Its variants are {', '.join(self.variants)}."
                    if self.variants
                    else "It is a single run, without variants.",
                    nearest(name, self.variants),
                )
        found = {name: self.recipe.replace(**self.variants[name]) for name in chosen}
        found = found or {"": self.recipe}
        for key in changes:
            if len({getattr(recipe, key) for recipe in found.values()}) > 1:
                raise ConfigError(
                    f"--set {key}=... does not fit {self.name}.",
                    f"Its variants differ in {key}.",
                    f"Name one: --only {chosen[0]}",
                )
        if quick:
            short = {"restart_epochs": 0, "compile": False, "images_per_class": 64}
            for name, recipe in found.items():
                last = ((recipe.phases[-1][0], 1),)
                found[name] = recipe.replace(**{"phases": last, **short, **self.quick})
        return {name: recipe.replace(**changes) for name, recipe in found.items()}
