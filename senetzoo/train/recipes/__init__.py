"""The recipes, one file each. `RECIPES` has them by name."""

from senetzoo.train.recipe import Recipe
from senetzoo.train.recipes.cifar10_small import CIFAR10_SMALL
from senetzoo.train.recipes.digits import DIGITS

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (CIFAR10_SMALL, DIGITS)}
