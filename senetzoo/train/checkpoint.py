"""Checkpoints of a run, written atomically; the last two are kept."""

from __future__ import annotations

import dataclasses
import io
import pickle
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from senetzoo import own
from senetzoo._utils.documents import check_schema, reading
from senetzoo._utils.files import atomically
from senetzoo.errors import ConfigError, SenetzooError, TrainingError
from senetzoo.runs import LOG, SUMMARY, is_quick, read_log
from senetzoo.train.recipe import Recipe

NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
DAMAGED = "checkpoint.damaged.pt"
_VERSION = 2
_STATE = {"model", "optimizer", "ema", "scaler", "rng", "sampler", "epoch", "step", "sums"}
# Errors for a file that isn't a checkpoint.
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError)
_REMEDY = "Give another folder with --out; or delete this one, which loses its run"
# The most fields whose values are shown if another recipe was requested.
_FEW = 3
# Fields that make it another experiment.
_OTHER = {"name", "model", "data"}


class StepCount(NamedTuple):
    """The position in a run: completed epochs, and completed steps of the next epoch."""

    epoch: int = 0
    step: int = 0

    def __str__(self) -> str:
        return f"epoch {self.epoch + 1}, step {self.step}" if self.step else f"epoch {self.epoch}"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError`, such as of a full disk, into a `TrainingError` that names the file."""
    try:
        yield
    except OSError as error:
        whole = any((path.parent / name).exists() for name in (NEWEST, PREVIOUS))
        raise TrainingError(
            f"{path} can't be written.",
            f"{error.strerror or error}.",
            "Fix that, then type the same command again"
            + f": {NEWEST} next to it is intact" * whole,
        ) from None


def write(path: Path, content: bytes) -> None:
    """Write a file atomically; after a `TrainingError` the old file is still there."""
    with writing(path), atomically(path) as partial:
        partial.write_bytes(content)


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint of tensors, numbers and text, and keep the previous one."""
    content = io.BytesIO()
    torch.save({**state, "version": _VERSION}, content)
    fresh, newest = folder / "checkpoint.new.pt", folder / NEWEST
    write(fresh, content.getvalue())
    with writing(newest):
        # A run that is killed in between still has the previous checkpoint.
        if newest.exists():
            newest.replace(folder / PREVIOUS)
        fresh.replace(newest)


def require_same(folder: Path, found: tuple[Recipe, int], asked: tuple[Recipe, int]) -> None:
    """Raise if the run to resume has another recipe or seed than requested."""
    if found != asked:
        stored, wanted = ({**dataclasses.asdict(recipe), "seed": n} for recipe, n in (found, asked))
        differ = [name for name in wanted if stored[name] != wanted[name]]
        scaled = dataclasses.asdict(asked[0].replace(epochs=found[0].epochs))
        if scaled["phases"] == stored["phases"]:  # which follow from the number of epochs
            differ = [n for n in differ if n in ("epochs", "seed") or scaled[n] != stored[n]]
        else:  # from which that number follows
            differ = [name for name in differ if name != "epochs" or "phases" not in differ]
        few = differ[:_FEW]
        its, new = (", ".join(f"{name}={of[name]!r}" for name in few) for of in (stored, wanted))
        more = f" {len(differ) - _FEW} more fields differ." * (len(differ) > _FEW)
        quick = is_quick({"recipe": wanted})
        resume = "" if more or _OTHER & {*few} else f"{_as_options(stored, few)}; or "
        if "images_per_class" in differ and quick != is_quick({"recipe": stored}):
            resume = f"To resume it, {'leave out' if quick else 'add'} --quick; or "
        raise ConfigError(
            f"{folder} has a run with another recipe or seed.",
            f"It has {its}; {new} was requested.{more}",
            (resume + _REMEDY[0].lower() + _REMEDY[1:]) if resume else _REMEDY,
        )


def _as_options(stored: Mapping[str, Any], names: Sequence[str]) -> str:
    """What to type for the values that a run has."""
    added = []
    for name in names:
        value = stored[name]
        if name == "compile" and value:
            continue
        text = str(value).lower() if value is None or isinstance(value, bool) else str(value)
        if name == "seed":
            added.append(f"--seed {text}")
        else:
            added.append(f"--set {shlex.quote(f'{name}={text}')}")
    parts = [f"add {' '.join(added)}"] * bool(added)
    # They would change the phases again.
    parts += ["leave out any other --epochs or --set epochs"] * bool(
        {"phases", "epochs"} & set(names)
    )
    # Which overrides --set.
    parts += ["leave out --no-compile"] * ("compile" in names and stored["compile"])
    return f"To resume it, {' and '.join(parts)}"


def recorded(folder: Path) -> tuple[str, Recipe, int, Mapping[str, str]] | None:
    """Variant, recipe, seed and own classes of a run; None if there is none to resume or skip."""
    file = folder / LOG
    kept = any((folder / name).is_file() for name in (SUMMARY, NEWEST, PREVIOUS))
    if not kept or not file.is_file():
        return None
    header = read_log(file, _REMEDY)[0]
    with reading(file, _REMEDY):
        recipe = Recipe.from_json(header["recipe"])
    return header["variant"], recipe, header["seed"], header.get("own", {})


def require_same_code(folder: Path, versions: Mapping[str, str]) -> None:
    """Raise if own classes have changed since a run began; skips those without a known version.

    Args:
        folder: Folder of the run.
        versions: The versions of its own classes then, as in `own.versions`.
    """
    for path in own.changed(versions):
        raise ConfigError(
            f"The run in {folder} began with another version of {path}.",
            "The code of the class, or what it uses of its module, has changed since.",
            "Restore the code; or delete this run to train it again; or give another "
            "folder with --out, and both to senetzoo report",
        )


def require_same_data(
    folder: Path, asked: Mapping[str, Any], finished: bool, say: Callable[[str], None]
) -> None:
    """Raise if the run to resume has other data or code; skips what older versions didn't record.

    An unfinished run may resume after the contents of files have changed, for example after a
    broken image was repaired; `say` reports that.
    """
    file = folder / LOG
    if not file.is_file():
        return
    remedy = f"Give another folder with --out, or delete {file} to continue without its history"
    header = read_log(file, remedy)[0]
    require_same_code(folder, header.get("own", {}))
    found = header["data"]
    differ = [name for name, value in asked.items() if found.get(name, value) != value]
    if differ == ["bytes"] and not finished:
        say(f"{folder}: images have changed since the run began")
    elif differ:
        raise ConfigError(
            f"{folder} has a run on other data: {', '.join(differ)} differ.",
            "A run can only be resumed with the same images and classes.",
            _REMEDY,
        )


def load(
    folder: Path, recipe: Recipe, seed: int, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """Load the newest readable checkpoint of a run; None if there is none."""
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
            # Otherwise the next save would replace the good checkpoint with it.
            with suppress(FileNotFoundError):
                bad.replace(folder / DAMAGED)
        return state
    for bad, cause in causes.items():
        raise ConfigError(
            f"{bad} can't be read.", f"It isn't a checkpoint of a run ({cause}).", _REMEDY
        )
    return None
