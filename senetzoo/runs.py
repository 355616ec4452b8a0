"""The folder of a training run: its files, and how to read them.

``log.jsonl`` has a line for the run, for each epoch, each time it was resumed, and the end. A
finished run also has ``summary.json``, ``test.safetensors``, and the network as written by
`senetzoo.save`: ``config.json`` and ``model.safetensors``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from senetzoo._utils.checks import NonEmpty, NonNegativeInt, PositiveInt
from senetzoo._utils.documents import read_json, read_jsonl, reading
from senetzoo.data import digits
from senetzoo.data.cifar import CIFAR10, CIFAR100
from senetzoo.errors import BrokenError, ConfigError
from senetzoo.nn.preprocessing import IMAGENET

LOG, SUMMARY, TEST = "log.jsonl", "summary.json", "test.safetensors"
SPLIT, LEFT_OUT = "split.csv", "left_out.csv"
"""Files of a fine-tuned run that list the images of each split, and the files left out."""
FILES = "files"
"""Key in the metadata of ``test.safetensors``: a JSON list of the files of the mistakes."""

OWN_LOOP = "own loop"
"""The recipe's name in a run of another training loop."""

QUICK_IMAGES = 64
"""The most images of each class that a run with ``--quick`` uses."""


def is_quick(header: Mapping[str, Any]) -> bool:
    """Whether a run, by the first line of its log, is a quick check and not a result."""
    recipe = header["recipe"]
    few = 0 < recipe.get("images_per_class", 0) <= QUICK_IMAGES
    return few and bool(recipe.get("epochs") == 1)


SCHEMA = 2
"""Version of the log's first line and of the summary; version 0.1.0 wrote none."""
REMEDY = "Give another folder, or delete this one and train again"

# The fields that readers of a run need; there may be more.


class _Sometimes(TypedDict, total=False):
    """Fields that not all versions wrote. Version 0.1.0 called a variant ``arm``.

    ``part`` says that the results are for the validation images: there are no test images, or the
    run left them to ``senetzoo eval``.
    ``own`` has the versions of a network's own classes by name (`senetzoo.own.versions`).
    """

    variant: str
    arm: str
    by_class: list[tuple[NonNegativeInt, NonNegativeInt]]
    best_epoch: PositiveInt
    part: Literal["val"]
    own: Mapping[str, str]


class _Tests(TypedDict, total=False):
    """Results after an epoch, if the network was tested."""

    test_loss: float | None
    test_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    ema_test_loss: float | None
    ema_test_accuracy: float | None
    ema_val_loss: float | None
    ema_val_accuracy: float | None
    left_out: NonNegativeInt
    gradient_norm: Mapping[str, float | None]


class _Named(TypedDict):
    name: str


class _Data(_Named):
    train_images: int
    classes: Annotated[list[str], NonEmpty()]


class _Model(_Named):
    params: int


class _RunLine(_Sometimes):
    recipe: _Named
    seed: int
    command: str
    data: _Data
    environment: Mapping[str, object]
    model: _Model


class _EpochLine(_Tests):
    epoch: PositiveInt
    lr: float
    train_loss: float
    train_accuracy: float
    seconds: Mapping[str, float]


class _EndLine(_Sometimes):
    train_seconds: float
    test_accuracy: float
    test_images: PositiveInt
    test_correct: NonNegativeInt


class _Summary(_EndLine):
    recipe: Mapping[str, object]
    seed: int
    command: str
    revision: str | None
    machine: str
    epochs: int
    wilson: tuple[float, float]


_LINES = {"run": _RunLine, "epoch": _EpochLine, "resume": _Sometimes, "end": _EndLine}


def is_run(folder: Path) -> bool:
    """Whether a training run was started in `folder`."""
    return (folder / LOG).is_file()


def read_log(file: Path, remedy: str = REMEDY) -> list[dict[str, Any]]:
    """Read the lines of a log, without a line that a killed run left incomplete.

    The first line is the header, the line of the run.
    """
    lines = [
        {"variant": "", **renamed(line)} if line["kind"] == "run" else line
        for line in read_jsonl(_LINES, file, remedy, newest=SCHEMA)
    ]
    with reading(file, remedy):
        if not lines or lines[0]["kind"] != "run":
            raise BrokenError("line 1", "it doesn't describe a run")
    return lines


def renamed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Rename ``arm``, as version 0.1.0 called it, to ``variant``."""
    return {"variant" if key == "arm" else key: value for key, value in record.items()}


def tested(record: Mapping[str, Any]) -> Literal["test", "validation"]:
    """Which images the accuracy in the last line of a log or in a summary is of."""
    return "validation" if record.get("part") == "val" else "test"


def selected(record: Mapping[str, Any], recipe: Mapping[str, Any]) -> bool:
    """Whether these images chose the epoch, too."""
    return tested(record) == "validation" and recipe.get("keep") == "best"


def chose_epoch(images: str) -> str:
    """What to say of an accuracy on images that chose the epoch, for example "these images"."""
    return (
        f"{images} also chose the epoch, so the accuracy on new images is likely to be a little "
        "lower."
    )


def read_summary(folder: Path) -> dict[str, Any]:
    """Read the summary of a finished run."""
    path = folder / SUMMARY
    if not path.is_file():
        raise ConfigError(
            f"{folder} has no finished run.",
            f"There is no {path}.",
            "Type the command that started it again: it will continue to the end",
        )
    return {**read_json(_Summary, path, REMEDY, newest=SCHEMA)}


@dataclass(frozen=True)
class Result:
    """What a finished run recorded, for readers of its network.

    Args:
        data: Name of its data.
        part: The images that it was tested on.
        right: Number of correctly classified images.
        images: Number of images.
        interval: Wilson's 95 % interval of the accuracy.
        chose_epoch: Whether these images chose the epoch, too.
        start: Tag of the weights that it started from; empty if they were random.
        command: The command line.
    """

    data: str
    part: Literal["test", "validation"]
    right: int
    images: int
    interval: tuple[float, float]
    chose_epoch: bool
    start: str
    command: str


def read_result(folder: Path) -> Result:
    """Read the result of a finished run."""
    done, first = read_summary(folder), read_log(folder / LOG)[0]
    return Result(
        data=first["data"]["name"],
        part=tested(done),
        right=done["test_correct"],
        images=done["test_images"],
        interval=tuple(done["wilson"]),
        chose_epoch=selected(done, done["recipe"]),
        start=first["model"].get("start") or "",
        command=done["command"],
    )


@contextmanager
def reading_recipe(folder: Path) -> Iterator[None]:
    """Turn errors of a recipe that is read inside into errors that name its run."""
    try:
        with reading(folder / SUMMARY, REMEDY):
            yield
    except (KeyError, TypeError, IndexError):
        raise ConfigError(
            f"{folder / SUMMARY} is broken at recipe.", "It isn't a recipe.", REMEDY
        ) from None


STATISTICS = {
    "cifar10": (CIFAR10.mean, CIFAR10.std),
    "cifar100": (CIFAR100.mean, CIFAR100.std),
    "digits": (digits.MEAN, digits.STD),
}


def statistics(data: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std for the data of a recipe; ImageNet's if it has none of its own."""
    return STATISTICS.get(data, (IMAGENET.mean, IMAGENET.std))
