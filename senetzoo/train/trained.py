"""The network that a run left behind, and the one that it began with."""

from __future__ import annotations

from pathlib import Path

from senetzoo.nn.classifier import Classifier
from senetzoo.runs import read_summary, reading_recipe
from senetzoo.train.recipe import Recipe
from senetzoo.zoo import load


def networks_of(run: Path) -> tuple[Classifier, Classifier]:
    """The network at the end of a run, and the same as it was before.

    Args:
        run: Its folder.

    Returns:
        The trained network in eval mode, and the one that the run began with.

    Raises:
        ConfigError: The run is not finished.
        WeightsError: Its weights are damaged, or those that it began with can't be had.
    """
    summary = read_summary(run)
    model = load(run)
    with reading_recipe(run):
        recipe = Recipe.from_json(summary["recipe"])
    return model, recipe.build(model.num_classes, model.in_chans, summary["seed"])
