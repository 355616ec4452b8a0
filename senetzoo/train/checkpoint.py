"""Checkpoints of a run: written whole or not at all, the last two kept."""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from senetzoo._utils.documents import check_schema, reading
from senetzoo._utils.files import atomically
from senetzoo.errors import ConfigError, SenetzooError, TrainingError
from senetzoo.runs import LOG, read_log
from senetzoo.train.recipe import Recipe

NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
DAMAGED = "checkpoint.damaged.pt"
_VERSION = 2
_STATE = {"model", "optimizer", "ema", "scaler", "rng", "sampler", "epoch", "step", "sums"}
# What torch.load, or we, raise where a file is no checkpoint.
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError)
_REMEDY = "Give another folder with --out, or delete this one"


class StepCount(NamedTuple):
    """How much of a run is done: whole epochs, and steps of the next one."""

    epoch: int = 0
    step: int = 0

    def __str__(self) -> str:
        return f"epoch {self.epoch + 1}, step {self.step}" if self.step else f"epoch {self.epoch}"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a full disk and its like raise into a `TrainingError` that names the file."""
    try:
        yield
    except OSError as error:
        whole = any((path.parent / name).exists() for name in (NEWEST, PREVIOUS))
        raise TrainingError(
            f"{path} can't be written.",
            f"{error.strerror or error}.",
            "Repair that, then type the same command again"
            + f": {NEWEST} beside it is whole" * whole,
        ) from None


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; a `TrainingError` leaves what was there before."""
    with writing(path), atomically(path) as partial:
        partial.write_bytes(content)


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint of tensors, numbers and text; the one before is kept beside it."""
    content = io.BytesIO()
    torch.save({**state, "version": _VERSION}, content)
    fresh, newest = folder / "checkpoint.new.pt", folder / NEWEST
    write(fresh, content.getvalue())
    with writing(newest):
        # A run that is killed between the two has the previous one still.
        if newest.exists():
            newest.replace(folder / PREVIOUS)
        fresh.replace(newest)


def require_same(folder: Path, found: tuple[Recipe, int], asked: tuple[Recipe, int]) -> None:
    """Refuse to resume a run of another recipe or seed than was asked for."""
    if found != asked:
        stored, wanted = ({**dataclasses.asdict(recipe), "seed": n} for recipe, n in (found, asked))
        differ = ", ".join(name for name in wanted if stored[name] != wanted[name])
        raise ConfigError(
            f"{folder} holds a run of another recipe or seed.",
            f"It differs in {differ}. A run is resumed only as it was started.",
            _REMEDY,
        )


def require_same_data(
    folder: Path, asked: Mapping[str, Any], finished: bool, say: Callable[[str], None]
) -> None:
    """Refuse to resume a run of other data; older versions did not write all that tells.

    A run that is not finished may go on with other contents of the same files, which is said: who
    repairs an image that stopped it goes on.
    """
    file = folder / LOG
    if not file.is_file():
        return
    remedy = f"Give another folder with --out, or delete {file} and go on without its history"
    found = read_log(file, remedy)[0]["data"]
    differ = [name for name, value in asked.items() if found.get(name, value) != value]
    if differ == ["bytes"] and not finished:
        say(f"{folder}: images have changed since the run began")
    elif differ:
        raise ConfigError(
            f"{folder} holds a run on other data: {', '.join(differ)} differ.",
            "A run is resumed only with the images and classes it was started with.",
            _REMEDY,
        )


def load(
    folder: Path, recipe: Recipe, seed: int, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """The newest checkpoint of a run that can be read; None where there is none."""
    causes = {}
    for path in (folder / NEWEST, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
            version = state.get("version") if isinstance(state, dict) else None
            if type(version) is int and version > _VERSION:
                with reading(path, _REMEDY):
                    check_schema(version, _VERSION)
            if not isinstance(state, dict) or version != _VERSION or not state.keys() >= _STATE:
                raise ValueError
            raw, number = state["recipe"], state["seed"]
        except SenetzooError:
            raise
        except _UNREADABLE as error:
            causes[path] = type(error).__name__
            continue
        with reading(path, _REMEDY):
            stored = Recipe.from_json(raw)
        require_same(folder, (stored, number), (recipe, seed))
        for bad, cause in causes.items():
            say(f"{bad} can't be read ({cause}): resuming from {path.name}")
            # Out of the way: the next save would put it in the place of the good one.
            with suppress(FileNotFoundError):
                bad.replace(folder / DAMAGED)
        return state
    for bad, cause in causes.items():
        raise ConfigError(
            f"{bad} can't be read.", f"It is no checkpoint of a run ({cause}).", _REMEDY
        )
    return None
