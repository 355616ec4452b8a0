"""What the gates of finished runs do with their test images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from senetzoo._utils.documents import reading
from senetzoo.errors import ConfigError
from senetzoo.gates.common import GateModule
from senetzoo.inspect.excitations import drift, excitations
from senetzoo.report.gates import Gates, gates
from senetzoo.report.run import Run
from senetzoo.train.data import Data, load_data
from senetzoo.train.evaluate import inputs
from senetzoo.train.log import LOG
from senetzoo.train.recipe import Recipe
from senetzoo.train.trained import network_of


def gates_of(runs: Sequence[Run], path: Path | None) -> list[Gates]:
    """The gates of those runs that are finished and have any, on their test images.

    Args:
        runs: Of one data set.
        path: A local copy of it; None for what needs none.

    Raises:
        ConfigError: No run is finished and has gates; or its weights are of another network.
        DataError: The data is not there.
    """
    done: list[Gates] = []
    data: Data | None = None
    for run in runs:
        if run.end is None:
            continue
        with reading(run.folder / LOG, "Train it again"):
            recipe = Recipe.from_json(run.header["recipe"])
        if data is None:
            data = load_data(recipe.replace(images_per_class=0, stream=False), path)
        model, initial = network_of(run.folder, len(data.classes), data.channels)
        if not any(isinstance(module, GateModule) for module in model.modules()):
            continue
        found = excitations(model, _batches(data, recipe), classes=len(data.classes))
        moved = drift(model, initial)
        done.append(gates(run.name, found, data.classes, drift=moved, number=len(done) + 1))
    if not done:
        raise ConfigError(
            "The runs have no excitations to show.",
            "None is finished and of a network with gates.",
            "Leave --excitations out",
        )
    return done


def _batches(data: Data, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    labels, first = torch.as_tensor(data.test.labels), 0
    everything = torch.arange(len(labels))
    side = recipe.test_size or recipe.final_size
    for images in inputs(data, recipe, side, everything, torch.device("cpu")):
        yield images, labels[first : first + len(images)]
        first += len(images)
