"""The folder of a training run: its files, and how they are read back.

``log.jsonl`` has a line for the run, for each epoch, for each time it was resumed, and for the end;
``summary.json`` is there when the run is finished, with ``config.json`` and ``model.safetensors``,
which are the network as `senetzoo.save` writes one, and ``test.safetensors``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from senetzoo.data import cifar10, cifar100, digits
from senetzoo.data.preprocessing import IMAGENET, Preprocessing
from senetzoo.errors import ConfigError, SenetzooError, WeightsError
from senetzoo.nn.stem import parse_stem
from senetzoo.spec import ModelSpec
from senetzoo.weights.load import spec_of

LOG, SUMMARY, TEST = "log.jsonl", "summary.json", "test.safetensors"


def is_run(folder: Path) -> bool:
    """Whether a training run was begun in `folder`."""
    return (folder / LOG).is_file()


def read_log(file: Path) -> list[dict[str, Any]]:
    """The lines of a log; those that a killed run left unfinished are left out.

    Raises:
        ConfigError: The file is no text.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(
            f"{file} can't be read.", "It is no text in UTF-8.", "Train again, in another folder"
        ) from None
    lines = []
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and "kind" in found:
            lines.append(found)
    return lines


def read_summary(folder: Path) -> dict[str, Any]:
    """What a finished run says of itself.

    Raises:
        ConfigError: It is not finished, or its summary can't be read.
    """
    path = folder / SUMMARY
    if not path.is_file():
        raise ConfigError(
            f"{folder} holds no finished run.",
            f"There is no {path}.",
            "Type the command that began it again: it goes on to the end",
        )
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(summary["recipe"], dict) or type(summary["seed"]) is not int:
            raise TypeError
    except (ValueError, TypeError, KeyError):
        raise ConfigError(
            f"{path} can't be read.",
            "It is not what a training run writes.",
            "Delete it and type the command of the run again: it writes the end anew",
        ) from None
    found: dict[str, Any] = summary
    return found


_STATISTICS = {
    "cifar10": (cifar10.MEAN, cifar10.STD),
    "cifar100": (cifar100.MEAN, cifar100.STD),
    "digits": (digits.MEAN, digits.STD),
}
"""Mean and std by the data of a recipe; of all others they are ImageNet's."""


def network_of_0_1(folder: Path) -> tuple[ModelSpec, Preprocessing, tuple[str, ...]]:
    """What a finished run of version 0.1.0, which wrote no ``config.json``, trained.

    Returns:
        Its spec, its preprocessing as tested, and the names of its classes.

    Raises:
        WeightsError: The run is not finished, or what it says can't be read.
    """
    try:
        recipe = read_summary(folder)["recipe"]
        header = next(line for line in read_log(folder / LOG) if line["kind"] == "run")
        classes = tuple(map(str, header["data"]["classes"]))
        small = recipe["data"] in _STATISTICS
        mean, std = _STATISTICS.get(recipe["data"], (IMAGENET.mean, IMAGENET.std))
        size = recipe["test_size"] or recipe["phases"][-1][0]
        crop = 1.0 if small else recipe["test_crop"]
        preprocessing = Preprocessing(size, mean, std, crop=crop)
        options = {
            "num_classes": len(classes),
            "in_chans": preprocessing.channels,
            "stem": parse_stem(recipe["stem"]) if recipe["stem"] else None,
            "dropout": recipe["dropout"],
            "drop_path": recipe["drop_path"],
            "key_drop": recipe["key_drop"] or None,
        }
        given = {name: value for name, value in options.items() if value is not None}
        spec = spec_of(recipe["model"]).replace(**given)
    except SenetzooError as error:
        raise WeightsError(*str(error).splitlines()[:3]) from None
    except (KeyError, TypeError, IndexError, StopIteration):
        raise WeightsError(
            f"There is no network in {folder}.",
            f"Its {LOG} and {SUMMARY} are not what a training run writes.",
            "Train again, in another folder",
        ) from None
    return spec, preprocessing, classes
