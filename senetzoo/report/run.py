"""Reading training runs for a report."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from senetzoo._utils.terminal import printable
from senetzoo.data.labels import same
from senetzoo.errors import ConfigError
from senetzoo.eval.accuracy import Mistake
from senetzoo.eval.predictions import Predictions, Tally
from senetzoo.runs import FILES, LOG, OWN_LOOP, TEST, is_quick, is_run, read_log


@dataclass(frozen=True)
class Run:
    """A training run.

    Args:
        name: Name in the report.
        folder: Its folder.
        header: First line of the log: recipe, variant, seed, command, data, environment, model.
        epochs: Lines of the epochs; empty in the first one.
        resumed: How often the run was resumed.
        end: Last line; None if the run isn't finished.
        predictions: Predictions for the test images; None if the run isn't finished, or only its
            log is there.
        mistakes: The most confident mistakes, first the most confident one; their path is empty if
            it isn't known.
        pictures: Index of each of these images, and the image (H, W, C), uint8.
        recipe: Number of its recipe, if the runs of a report have several.
        code: Start of the versions of its own classes, if its variant has several in a report.
    """

    name: str
    folder: Path
    header: dict[str, Any]
    epochs: tuple[dict[str, Any], ...]
    resumed: int
    end: dict[str, Any] | None
    predictions: Predictions | None = None
    mistakes: tuple[Mistake, ...] = ()
    pictures: tuple[tuple[int, Tensor], ...] = ()
    recipe: int = 0
    code: str = ""

    @property
    def label(self) -> str:
        """The name that it shares with runs of other seeds: its variant, or else its network."""
        name = str(self.header["variant"] or self.header["model"]["name"])
        name += f" (code {self.code})" * bool(self.code)
        return f"{name} (recipe {self.recipe})" if self.recipe else name

    @property
    def classes(self) -> list[str]:
        """Class names."""
        return [printable(name) for name in self.header["data"]["classes"]]

    @property
    def own_loop(self) -> bool:
        """Whether a `senetzoo.Recorder` wrote it, not a recipe's training."""
        return self.header["recipe"].get("name") == OWN_LOOP  # type: ignore[no-any-return]

    @property
    def limited(self) -> str:
        """Which part of the data was used, as a sentence; empty for all of it."""
        limit = self.header["recipe"].get("images_per_class", 0)
        if is_quick(self.header):
            count = self.header["data"].get("test_images", "few")
            return f"Quick check: one epoch, tested on {count} images. It is not a result."
        each = f"at most {limit} images of each class to train on, and {limit} to test on"
        if self.header["recipe"].get("stream"):
            each = (
                f"{limit} images times the number of classes to train on, {limit} of each to test"
            )
        return f"Part of the data: {each}." if limit else ""

    @property
    def last_epoch(self) -> int:
        """Number of its last epoch so far; 0 in the first one."""
        return int(self.epochs[-1]["epoch"]) if self.epochs else 0

    def series(self, key: str) -> list[tuple[int, float]]:
        """Pairs of epoch and value, for the epochs that have a value."""
        return [(e["epoch"], e[key]) for e in self.epochs if e.get(key) is not None]

    @property
    def tally(self) -> Tally | None:
        """Test accuracy at the end; None if the run isn't finished."""
        end = self.end
        return None if end is None else Tally(self.name, end["test_correct"], end["test_images"])

    @property
    def by_class(self) -> list[Tally]:
        """Test accuracy of each class, from the predictions or else the log; empty if unknown."""
        pairs = (self.end or {}).get("by_class", [])
        if self.predictions is not None:
            pairs = self.predictions.by_class()
        return [Tally(name, *pair) for name, pair in zip(self.classes, pairs, strict=False)]

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent on training (including waiting for data), on waiting, and on tests."""
        parts = ("train", "data", "test")
        return {p: sum(e["seconds"].get(p, 0.0) for e in self.epochs) for p in parts}

    @property
    def images_per_second(self) -> float:
        """Training images per second, over the whole run."""
        # A `Recorder` doesn't know the speed.
        usual = self.header["data"]["train_images"]
        images = sum(
            e["images_per_second"] * e["seconds"]["train"] if "images_per_second" in e else usual
            for e in self.epochs
        )
        return float(images / max(self.seconds["train"], 1e-9))


def by_label(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs of each variant or network, by its label."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.label, []).append(run)
    return found


def finished(runs: Iterable[Run]) -> list[Run]:
    """The finished runs; of several with one label and one seed, the first.

    Two of them would not be two draws of the noise that seeds make.
    """
    ended = (run for run in runs if run.end is not None)
    found: dict[tuple[str, int], Run] = {}
    for run in ended:
        found.setdefault((run.label, run.header["seed"]), run)
    return list(found.values())


def find(paths: Sequence[Path]) -> list[Run]:
    """The runs in `paths`, which are folders of runs or folders that contain them.

    Raises:
        ConfigError: There is no run, none has finished an epoch, their classes differ, or a file is
            broken.
    """
    folders: dict[Path, None] = {}
    for path in paths:
        inside = [path] if is_run(path) else sorted(log.parent for log in path.rglob(LOG))
        if not inside:
            true = f"Neither it nor a folder in it has {LOG}."
            if not path.is_dir():
                true = (
                    "A run is a folder that senetzoo train, finetune, compare or a Recorder wrote."
                )
            near = {log.parent for at in (path.parent, Path("runs")) for log in at.glob(f"*/{LOG}")}
            such = ", ".join(map(str, sorted(near)[:3]))
            such = such or "runs/digits-lenet5-0, which senetzoo train digits writes"
            raise ConfigError(
                f"There is no run in {path}.", true, f"Give the folder of a run, such as {such}"
            )
        folders |= dict.fromkeys(inside)
    runs = [read(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]
    if not any(run.epochs for run in runs):
        one = len(runs) == 1
        which = f"run in {runs[0].folder} has" if one else f"{len(runs)} runs have"
        raise ConfigError(
            f"The {which} nothing to report yet.",
            f"{'Its' if one else 'Their'} first epoch is not finished.",
            "Wait for it, or run the command that started it again",
        )
    data: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        data.setdefault(tuple(map(same, run.classes)), []).append(run)
    if len(data) > 1:
        listed = (
            f"{some[0].header['data']['name']} ({', '.join(str(run.folder) for run in some[:3])}"
            f"{', ...' * (len(some) > 3)})"
            for some in data.values()
        )
        raise ConfigError(
            "The runs can't share a report.",
            f"Their classes differ: their data sets are {', '.join(sorted(listed))}.",
            "Give the folders of runs on one data set",
        )
    return runs


def _names(folders: Iterable[Path]) -> list[str]:
    """A short name for each folder: enough of its last path components to be unique.

    If the folders aren't in one, the names say in which they are.
    """
    paths = [folder.resolve().parts for folder in folders]
    depth = 1 + (len({path[:-1] for path in paths}) > 1)
    while len({path[-depth:] for path in paths}) < len({*paths}) and depth < 20:
        depth += 1
    return [printable("/".join(path[-depth:])) for path in paths]


def read(folder: Path, name: str) -> Run:
    """The run in `folder`."""
    header, *lines = read_log(folder / LOG)
    epochs = tuple(line for line in lines if line["kind"] == "epoch")
    resumed = sum(line["kind"] == "resume" for line in lines)
    end = next((line for line in reversed(lines) if line["kind"] == "end"), None)
    run = Run(name, folder, header, epochs, resumed, end)
    return _with_predictions(run) if end is not None and (folder / TEST).is_file() else run


def _with_predictions(run: Run) -> Run:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = (run.folder / TEST).read_bytes()
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        named = json.loads(header.get("__metadata__", {}).get(FILES, "[]"))
        predictions = Predictions(tensors["logits"], tensors["labels"])
        pictures = tuple(zip(tensors["mistakes"].tolist(), tensors["images"], strict=True))
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise _broken(run.folder, f"It isn't a complete file of predictions ({error}).") from None
    if not bool(torch.isfinite(predictions.logits).all()):
        raise _broken(run.folder, "It has logits that aren't finite.")
    files = map(str, named) if len(named) == len(pictures) else [""] * len(pictures)
    mistakes = tuple(
        Mistake(
            file,
            run.classes[int(predictions.labels[index])],
            run.classes[int(predictions.guesses[index])],
            float(predictions.confidence[index]),
        )
        for (index, _), file in zip(pictures, files, strict=True)
    )
    return dataclasses.replace(run, predictions=predictions, mistakes=mistakes, pictures=pictures)


def _broken(folder: Path, what: str) -> ConfigError:
    remedy = "Delete it for a report on the log alone, or train again in another folder"
    return ConfigError(f"{folder / TEST} can't be read.", what, remedy)
