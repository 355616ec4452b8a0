"""The network that a run left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from senetzoo.errors import ConfigError
from senetzoo.nn.classifier import Classifier
from senetzoo.train.log import read_summary
from senetzoo.train.recipe import Recipe
from senetzoo.train.run import SUMMARY, WEIGHTS
from senetzoo.weights.load import load_file_into


def summary_of(run: Path) -> dict[str, Any]:
    """What a finished run says of itself.

    Raises:
        ConfigError: It is not finished, or broken.
    """
    path = run / SUMMARY
    if not path.is_file():
        raise ConfigError(
            f"{run} holds no finished run.", f"There is no {path}.", "Train to the end first"
        )
    return read_summary(path)


def network_of(run: Path, classes: int, channels: int) -> tuple[Classifier, Classifier]:
    """The network at the end of a run, and the same as it was before.

    Args:
        run: Its folder.
        classes: Classes of its data.
        channels: Channels of its images.

    Returns:
        The trained network in eval mode, and the one that the run began with.

    Raises:
        ConfigError: The run is not finished.
        WeightsError: Its weights are damaged, or those that it began with can't be had.
    """
    summary = summary_of(run)
    recipe = Recipe.from_json(summary["recipe"])
    initial = recipe.build(classes, channels, summary["seed"])
    model = recipe.network(classes, channels).build(seed=0)
    load_file_into(model, run / WEIGHTS)
    return model.eval(), initial
