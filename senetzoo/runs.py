"""The folder of a training run: its files, and how they are read back.

``log.jsonl`` has a line for the run, for each epoch, for each time it was resumed, and for the end;
``summary.json`` is there when the run is finished, with ``config.json`` and ``model.safetensors``,
which are the network as `senetzoo.save` writes one, and ``test.safetensors``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from senetzoo._utils.checks import NonEmpty, NonNegativeInt, PositiveInt
from senetzoo._utils.documents import read_json, read_jsonl, reading
from senetzoo.data import digits
from senetzoo.data.cifar import CIFAR10, CIFAR100
from senetzoo.errors import BrokenError, ConfigError
from senetzoo.nn.preprocessing import IMAGENET

LOG, SUMMARY, TEST = "log.jsonl", "summary.json", "test.safetensors"
FILES = "files"
"""In the metadata of ``test.safetensors``: a JSON list of the mistakes' files."""

SCHEMA = 2
"""Of the log's line of the run and of the summary, which version 0.1.0 wrote without one."""
REMEDY = "Give another folder, or delete this one and train again"

# What the readers of a run need of its files; there may be more.


class _Sometimes(TypedDict, total=False):
    """What not every version wrote; ``arm`` is what 0.1.0 called a variant.

    ``part`` says that the figures are of the validation images, where there are no test images.
    """

    variant: str
    arm: str
    by_class: list[tuple[NonNegativeInt, NonNegativeInt]]
    best_epoch: PositiveInt
    part: Literal["val"]


class _Tests(TypedDict, total=False):
    """Of an epoch after which the network was tested."""

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
    """Whether a training run was begun in `folder`."""
    return (folder / LOG).is_file()


def read_log(file: Path, remedy: str = REMEDY) -> list[dict[str, Any]]:
    """The lines of a log; one that a killed run left unfinished is left out.

    The first one is the line of the run, the header.
    """
    lines = [
        {"variant": "", **renamed(line)} if line["kind"] == "run" else line
        for line in read_jsonl(_LINES, file, remedy, newest=SCHEMA)
    ]
    with reading(file, remedy):
        if not lines or lines[0]["kind"] != "run":
            raise BrokenError("line 1", "it does not describe a run")
    return lines


def renamed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with ``variant``, which version 0.1.0 called ``arm``."""
    return {"variant" if key == "arm" else key: value for key, value in record.items()}


def read_summary(folder: Path) -> dict[str, Any]:
    """What a finished run says of itself."""
    path = folder / SUMMARY
    if not path.is_file():
        raise ConfigError(
            f"{folder} holds no finished run.",
            f"There is no {path}.",
            "Type the command that began it again: it goes on to the end",
        )
    return {**read_json(_Summary, path, REMEDY, newest=SCHEMA)}


@contextmanager
def reading_recipe(folder: Path) -> Iterator[None]:
    """What is wrong with the recipe that is made inside names the run that it is of."""
    try:
        with reading(folder / SUMMARY, REMEDY):
            yield
    except (KeyError, TypeError, IndexError):
        raise ConfigError(
            f"{folder / SUMMARY} is broken at recipe.", "It is no recipe.", REMEDY
        ) from None


STATISTICS = {
    "cifar10": (CIFAR10.mean, CIFAR10.std),
    "cifar100": (CIFAR100.mean, CIFAR100.std),
    "digits": (digits.MEAN, digits.STD),
}


def statistics(data: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std by the data of a recipe; of those without their own they are ImageNet's."""
    return STATISTICS.get(data, (IMAGENET.mean, IMAGENET.std))
