"""What a run left behind, read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from senetzoo.errors import ConfigError
from senetzoo.eval.predictions import Predictions
from senetzoo.runs import LOG, TEST, read_log

_TRAIN = "Type for example: senetzoo train digits"


@dataclass(frozen=True)
class Run:
    """A training run.

    Args:
        name: What it is called in the report.
        folder: Where it is.
        header: The first line of its log: recipe, variant, seed, command, data, environment, model.
        epochs: The lines of its epochs.
        resumed: How often it was interrupted and went on.
        end: The last line; None for a run that is not finished.
        predictions: Of the test images; None for a run that is not finished.
        mistakes: Numbers of wrongly classified images and these (H, W, C), uint8, the most
            confident first.
    """

    name: str
    folder: Path
    header: dict[str, Any]
    epochs: tuple[dict[str, Any], ...]
    resumed: int
    end: dict[str, Any] | None
    predictions: Predictions | None = None
    mistakes: tuple[tuple[int, Tensor], ...] = ()

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return list(self.header["data"]["classes"])

    def series(self, key: str) -> list[tuple[int, float]]:
        """Pairs of epoch and value, of the epochs that have one."""
        return [(e["epoch"], e[key]) for e in self.epochs if e.get(key) is not None]


def find(paths: Sequence[Path]) -> list[Run]:
    """The runs in `paths`: folders of runs, or folders of those.

    Raises:
        ConfigError: There is none, one is broken, or they are of different data.
    """
    folders: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise ConfigError(
                f"There is no run in {path}.", "A run is a folder that senetzoo train made.", _TRAIN
            )
        inside = [path] if (path / LOG).is_file() else sorted(p.parent for p in path.rglob(LOG))
        if not inside:
            raise ConfigError(
                f"There is no run in {path}.", f"Neither it nor a folder in it has {LOG}.", _TRAIN
            )
        folders += [folder for folder in inside if folder not in folders]
    runs = [read(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]
    data = {run.header["data"]["name"]: run.classes for run in runs}
    if len({tuple(classes) for classes in data.values()}) > 1:
        raise ConfigError(
            "The runs can't share a report.",
            f"Their classes differ: they are of {', '.join(sorted(data))}.",
            "Give the runs of one data set",
        )
    return runs


def _names(folders: Sequence[Path]) -> list[str]:
    """A short name for each folder: the last parts of its path that tell it from all others."""
    paths = [folder.resolve().parts for folder in folders]
    depth = 1
    while len({path[-depth:] for path in paths}) < len({*paths}) and depth < 20:
        depth += 1
    return ["/".join(path[-depth:]) for path in paths]


def read(folder: Path, name: str) -> Run:
    """The run in `folder`.

    Raises:
        ConfigError: It is none, or is broken.
    """
    lines = read_log(folder / LOG)
    if not lines or lines[0]["kind"] != "run":
        raise _broken(folder, "Its first line does not describe a run.")
    kinds = {
        kind: [line for line in lines if line["kind"] == kind]
        for kind in ("epoch", "resume", "end")
    }
    if not kinds["epoch"]:
        raise ConfigError(
            f"The run in {folder} has nothing to report yet.",
            "Its first epoch is not finished.",
            "Wait for it, or type the command that started it again",
        )
    end = kinds["end"][-1] if kinds["end"] else None
    return Run(
        name,
        folder,
        lines[0],
        tuple(kinds["epoch"]),
        len(kinds["resume"]),
        end,
        *((None, ()) if end is None else _predictions(folder)),
    )


def _predictions(
    folder: Path,
) -> tuple[Predictions | None, tuple[tuple[int, Tensor], ...]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / TEST
    if not path.is_file():
        return None, ()
    try:
        tensors = load_file(str(path))
        predictions = Predictions(tensors["logits"], tensors["labels"])
        mistakes = tuple(zip(tensors["mistakes"].tolist(), tensors["images"], strict=True))
    except (SafetensorError, KeyError, ValueError) as error:
        raise _broken(folder, f"{TEST} can't be read ({error}).") from None
    if not bool(torch.isfinite(predictions.logits).all()):
        raise _broken(folder, f"{TEST} holds logits that are not finite.")
    return predictions, mistakes


def _broken(folder: Path, what: str) -> ConfigError:
    return ConfigError(f"The run in {folder} can't be read.", what, "Train it again")
