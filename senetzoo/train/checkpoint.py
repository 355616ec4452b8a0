"""The state of a run and its checkpoints: written whole or not at all, the last two kept."""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from senetzoo._utils.documents import reading
from senetzoo._utils.files import atomically
from senetzoo.errors import ConfigError, TrainingError
from senetzoo.train.batches import Batches
from senetzoo.train.recipe import Recipe
from senetzoo.train.step import Sums

NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
DAMAGED = "checkpoint.damaged.pt"
_VERSION = 2
_REMEDY = "Give another folder with --out, or delete this one"


@dataclass(frozen=True)
class StepCount:
    """How much of a run is done.

    Args:
        epoch: Whole epochs.
        step: Steps of the next one.
    """

    epoch: int = 0
    step: int = 0

    def __str__(self) -> str:
        return f"epoch {self.epoch + 1}, step {self.step}" if self.step else f"epoch {self.epoch}"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a full disk and its like raise into a message.

    Raises:
        TrainingError: `path` can't be written.
    """
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{path} can't be written.",
            f"{error.strerror or error}.",
            f"Mend that, then type the same command again: {NEWEST} beside it is whole"
            if (path.parent / NEWEST).exists() or (path.parent / PREVIOUS).exists()
            else "Mend that, then type the same command again",
        ) from None


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        TrainingError: It can't be written; what was there before is as it was.
    """
    with writing(path), atomically(path) as partial:
        partial.write_bytes(content)


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; the one before is kept beside it.

    Args:
        folder: Of the run.
        state: Tensors, numbers, text, and lists and dictionaries of them.

    Raises:
        TrainingError: It can't be written; those before are as they were.
    """
    content = io.BytesIO()
    torch.save({**state, "version": _VERSION}, content)
    fresh = folder / "checkpoint.new.pt"
    write(fresh, content.getvalue())
    newest = folder / NEWEST
    with writing(newest):
        # A run that is killed between the two has the previous one still.
        if newest.exists():
            newest.replace(folder / PREVIOUS)
        fresh.replace(newest)


def require_same(folder: Path, found: tuple[Recipe, int], asked: tuple[Recipe, int]) -> None:
    """Refuse to go on with a run of another recipe or seed.

    Args:
        folder: Of the run.
        found: Recipe and seed of the run.
        asked: Recipe and seed to go on with.

    Raises:
        ConfigError: They differ.
    """
    if found != asked:
        raise ConfigError(
            f"{folder} holds a run of another recipe or seed.",
            "A run is resumed only with the recipe and the seed it was started with.",
            _REMEDY,
        )


def load(
    folder: Path, recipe: Recipe, seed: int, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """The newest checkpoint that can be read; None where there is none.

    Args:
        folder: Of the run.
        recipe: The recipe.
        seed: The seed.
        say: Called when the newest can't be read and the previous one is taken.

    Raises:
        ConfigError: None of those there can be read, or they are of another recipe or seed.
    """
    causes = {}
    for name in (NEWEST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
            if not isinstance(state, dict) or not {"recipe", "seed"} <= state.keys():
                raise ValueError
            if state.get("version") != _VERSION:
                raise ValueError
        except (
            pickle.UnpicklingError,
            RuntimeError,
            EOFError,
            OSError,
            ValueError,
            KeyError,
        ) as error:
            causes[path] = type(error).__name__
            continue
        with reading(path, _REMEDY):
            stored = Recipe.from_json(state["recipe"])
        require_same(folder, (stored, state["seed"]), (recipe, seed))
        for bad, cause in causes.items():
            say(f"{bad} can't be read ({cause}): going on from {path.name}")
            # Out of the way: the next save would put it in the place of the good one.
            with suppress(FileNotFoundError):
                bad.replace(folder / DAMAGED)
        return state
    for bad, cause in causes.items():
        raise ConfigError(
            f"{bad} can't be read.",
            f"It is no checkpoint of a run ({cause}).",
            _REMEDY,
        )
    return None


@dataclass
class State:
    """The state of a run.

    Args:
        accelerator: An `accelerate.Accelerator`.
        model: The network.
        optimizer: As the accelerator prepared it.
        ema: The moving average, where there is one.
        batches: Whose generator is part of the state.
        sums: Of the epoch so far.
        position: What is done.
        sampler: State of the batches' generator at `position`; None at the start of an epoch.
        saved: The position of the newest checkpoint.
    """

    accelerator: Any
    model: nn.Module
    optimizer: Any
    ema: nn.Module | None
    batches: Batches
    sums: Sums
    position: StepCount = dataclasses.field(default_factory=StepCount)
    sampler: Tensor | None = None
    saved: StepCount | None = None

    def save(self, folder: Path, recipe: Recipe, seed: int) -> None:
        """Write a checkpoint; every process must call it.

        Raises:
            TrainingError: It can't be written; those before are as they were.
        """
        from accelerate.utils import gather_object

        mine: dict[str, Any] = {"torch": torch.get_rng_state()}
        if self.accelerator.device.type == "cuda":
            mine["cuda"] = torch.cuda.get_rng_state(self.accelerator.device)
        rng = gather_object([mine])
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            save(
                folder,
                {
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "ema": self.ema.state_dict() if self.ema is not None else None,
                    "scaler": scaler.state_dict() if scaler is not None else None,
                    "rng": rng,
                    "sampler": self.batches.generator.get_state(),
                    "epoch": self.position.epoch,
                    "step": self.position.step,
                    "sums": dataclasses.asdict(self.sums),
                    "recipe": dataclasses.asdict(recipe),
                    "seed": seed,
                },
            )
        self.saved = self.position

    def restore(self, stored: dict[str, Any]) -> None:
        """Take over a checkpoint, but for the network and the optimizer."""
        device = self.accelerator.device
        self.position = self.saved = StepCount(stored["epoch"], stored["step"])
        if self.ema is not None:
            self.ema.load_state_dict(stored["ema"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(stored["scaler"])
        rank = self.accelerator.process_index
        # A process more than before keeps the state that its number gave it.
        if rank < len(stored["rng"]):
            torch.set_rng_state(stored["rng"][rank]["torch"])
            if device.type == "cuda" and "cuda" in stored["rng"][rank]:
                torch.cuda.set_rng_state(stored["rng"][rank]["cuda"], device)
        if self.position.step:
            self.sampler = stored["sampler"]
            tensors = {k: v.to(device) for k, v in stored["sums"].items() if isinstance(v, Tensor)}
            self.sums = Sums(**{**stored["sums"], **tensors})
