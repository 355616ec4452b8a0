"""Folders as `senetzoo train` leaves them, with figures of our own."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from senetzoo.train import engine
from senetzoo.train.recipe import Recipe, read_setting
from senetzoo.train.step import Step

CLASSES = ("cat", "dog", "ship")
TINY = Recipe(
    name="tiny",
    model="lenet5",
    data="digits",
    images_per_class=8,
    phases=((32, 2),),
    batch=16,
    compile=False,
    lr=0.02,
)
"""80 images of the digits in batches of 16: five steps in an epoch."""


def own_gate(name: str) -> str:
    """The source of a module with a gate of one's own, a class of this name."""
    return f"""
import torch
from torch import nn

class {name}(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.factor = nn.Parameter(torch.full((channels, 1, 1), 0.5))

    def forward(self, x):
        return x * self.factor
"""


def epoch(number: int, **fields: Any) -> dict[str, Any]:
    """A line of an epoch."""
    return {
        "kind": "epoch",
        "epoch": number,
        "size": 32,
        "lr": 0.1 / number,
        "train_loss": 1.5 / number,
        "train_accuracy": 0.5 + 0.04 * number,
        "test_loss": 1.7 / number,
        "test_accuracy": 0.45 + 0.04 * number,
        "gradient_norm": {"stem": 3.0 / number, "stage 1": 1.0, "head": 0.2},
        "seconds": {"train": 20.0, "data": 1.0, "test": 2.0},
        "images_per_second": 150.0,
        **fields,
    }


def write_run(
    folder: Path,
    *,
    classes: tuple[str, ...] = CLASSES,
    labels: Tensor | None = None,
    guesses: Tensor | None = None,
    epochs: int = 8,
    lines: list[dict[str, Any]] | None = None,
    finished: bool = True,
    data: str = "three things",
    **header: Any,
) -> Path:
    """Write a run; its logits are 3 for the class of `guesses` and 0 for the others."""
    folder.mkdir(parents=True)
    if labels is None or guesses is None:
        labels = torch.arange(30) % len(classes)
        guesses = labels.clone()
        guesses[::10] = (guesses[::10] + 1) % len(classes)
    first: Mapping[str, Any] = {
        "kind": "run",
        "recipe": {"name": "made_up", "model": "lenet5", "phases": [[32, epochs]], "lr": 0.1},
        "variant": "",
        "seed": 0,
        "command": "senetzoo train made_up --seed 0",
        "data": {
            "name": data,
            "train_images": 3000,
            "test_images": len(labels),
            "classes": list(classes),
        },
        "environment": {"cpu": "a processor", "torch": "2.13.0", "senetzoo": "0.1.0"},
        "model": {"name": "lenet5", "params": 61706, "macs": 416520},
        **header,
    }
    right = int((labels == guesses).sum())
    end = {
        "kind": "end",
        "epochs": epochs,
        "train_seconds": 20.0 * epochs,
        "test_accuracy": right / len(labels),
        "test_images": len(labels),
        "test_correct": right,
        "wilson": [0.0, 1.0],
    }
    body = [epoch(n) for n in range(1, epochs + 1)] if lines is None else lines
    log = [first, *body, *([end] if finished else [])]
    text = "".join(json.dumps(line) + "\n" for line in log)
    (folder / "log.jsonl").write_text(text, encoding="utf-8")
    if finished:
        logits = 3.0 * torch.nn.functional.one_hot(guesses, len(classes)).half()
        wrong = (labels != guesses).nonzero()[:, 0][:32]
        images = torch.randint(0, 256, (len(wrong), 32, 32, 3), dtype=torch.uint8)
        tensors = {"logits": logits, "labels": labels, "mistakes": wrong, "images": images}
        save_file(tensors, str(folder / "test.safetensors"))
    return folder


def train(recipe: Recipe, out: Path, **options: Any) -> dict[str, Any]:
    """`engine.train` in silence."""
    return engine.train(recipe, out, **{"say": silent, **options})


def log_of(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    """The lines of a run's log, of some kinds or of all."""
    lines = map(json.loads, (folder / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if not kinds or line["kind"] in kinds]


def weights_of(folder: Path) -> dict[str, Tensor]:
    """What a run saved."""
    return load_file(str(folder / "model.safetensors"))


def after_step(patch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Do something after so many steps of training."""
    counted, plain = itertools.count(1), Step.__call__

    def step(self: Step, *args: Any) -> None:
        plain(self, *args)
        if next(counted) == number:
            act()

    patch.setattr(Step, "__call__", step)


def press_ctrl_c() -> None:
    """What a keyboard sends."""
    signal.raise_signal(signal.SIGINT)


def apply_setting(recipe: Recipe, setting: str) -> Recipe:
    """`recipe` with one field changed as ``--set`` does it."""
    return recipe.replace(**dict([read_setting(setting)]))


def silent(_: str) -> None:
    """What a run says, kept to itself."""
