"""All that changes while a run goes on, to and from its checkpoints."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from senetzoo.train import checkpoint
from senetzoo.train.batches import Batches
from senetzoo.train.checkpoint import Position
from senetzoo.train.recipe import Recipe
from senetzoo.train.step import Sums


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
    position: Position = dataclasses.field(default_factory=Position)
    sampler: Tensor | None = None
    saved: Position | None = None

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
            checkpoint.save(
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
        self.position = self.saved = Position(stored["epoch"], stored["step"])
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
