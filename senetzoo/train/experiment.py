"""An experiment: one recipe, or several variants of it that are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from senetzoo.errors import ConfigError, nearest
from senetzoo.runs import QUICK_IMAGES
from senetzoo.train.recipe import Recipe


@dataclass(frozen=True)
class Experiment:
    """Runs to compare.

    Args:
        recipe: The common recipe.
        variants: Name of each variant and the fields that it changes; empty for a single run.
        seeds: Seeds that each variant is run with.
        quick: Fields that ``--quick`` changes, besides those that `recipes` shrinks for all.
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
        """The recipe of each variant by name; by an empty name for a single run.

        Args:
            only: Names of variants; empty for all.
            quick: Shrink each run to seconds: one epoch at the last size, without compiling, on
                few images.
            changes: Fields to change in all variants.

        Raises:
            ConfigError: Unknown variant, or a change of a field in which the variants differ.
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
                    f"--set {key}=... doesn't fit {self.name}.",
                    f"Its variants differ in {key}.",
                    f"Choose one: --only {chosen[0]}",
                )
        if quick:
            short = {"restart_epochs": 0, "compile": False, "images_per_class": QUICK_IMAGES}
            for name, recipe in found.items():
                last = ((recipe.phases[-1][0], 1),)
                found[name] = recipe.replace(**{"phases": last, **short, **self.quick})
        return {name: recipe.replace(**changes) for name, recipe in found.items()}
