"""The training loop, on Hugging Face Accelerate."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo import environment
from senetzoo.data import cifar10, digits
from senetzoo.data.sets import ImageSet
from senetzoo.errors import ConfigError, DataError, MissingExtraError, TrainingError
from senetzoo.train.augment import crop_and_flip, normalise, pad, rotate_and_zoom
from senetzoo.train.optim import Muon, parameter_groups
from senetzoo.train.recipe import Recipe
from senetzoo.zoo import create

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"


@dataclass(frozen=True)
class Data:
    """A data set with the statistics that its recipe normalises by."""

    train: ImageSet
    test: ImageSet
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_data(recipe: Recipe, path: Path | None) -> Data:
    """The data of `recipe`: from the package for the digits, from `path` else."""
    if recipe.data == "digits":
        return Data(digits.load("train"), digits.load("test"), digits.MEAN, digits.STD)
    if path is None:
        raise DataError(
            f"The recipe {recipe.name} trains on CIFAR-10.",
            "No folder with CIFAR-10 was given.",
            f"Type: senetzoo train {recipe.name} --data FOLDER",
        )
    return Data(cifar10.load(path, "train"), cifar10.load(path, "test"), cifar10.MEAN, cifar10.STD)


def train(
    recipe: Recipe,
    out: Path,
    *,
    data: Path | None = None,
    seed: int = 0,
    limit: int | None = None,
    command: str = "",
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train a network, resuming where an earlier run of the same recipe in `out` stopped.

    After every epoch the state is saved. Batches and augmentation depend on (seed, epoch) alone,
    so a resumed run sees what the uninterrupted one would have, and runs with different policies
    and the same seed see the same batches.

    Args:
        recipe: What to do.
        out: Folder of the run: log (one JSON object per epoch), checkpoint, final weights.
        data: Local copy of the data set, for recipes that need one.
        seed: Seed of initialisation, order and augmentation.
        limit: Use only so many images of each class.
        command: What was typed, for the record.
        say: Where progress lines go.

    Returns:
        The record of the last epoch.
    """
    try:
        from accelerate import Accelerator
    except ImportError:
        raise MissingExtraError("Training", "accelerate", "train") from None

    accelerator = Accelerator()
    sets = load_data(recipe, data)
    if limit is not None:
        sets = dataclasses.replace(sets, train=sets.train.first(limit), test=sets.test.first(limit))
    images, labels = pad(sets.train.images, recipe.margin), sets.train.labels
    side = sets.train.images.shape[1]
    per_step = recipe.batch // accelerator.num_processes
    steps = len(labels) // recipe.batch
    if not steps or per_step * accelerator.num_processes != recipe.batch:
        raise ConfigError(
            f"batch={recipe.batch} does not fit {len(labels)} training images on "
            f"{accelerator.num_processes} processes.",
            "Each process takes an equal part of a batch, and an epoch is at least one batch.",
            "Type for example: --set batch=32",
        )
    if accelerator.is_main_process:
        out.mkdir(parents=True, exist_ok=True)

    model: nn.Module = create(
        recipe.model,
        seed=seed,
        num_classes=len(sets.train.classes),
        in_chans=sets.train.images.shape[3],
    )
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(model, recipe)
    first = _restore(out / CHECKPOINT, model, optimizer, recipe, seed)
    model, optimizer = accelerator.prepare(model, optimizer)
    compiled = recipe.compile and _can_compile(accelerator.device)
    if compiled != recipe.compile:
        say("no C++ compiler is installed: training without torch.compile, slower")
    network = torch.compile(model, dynamic=False) if compiled else model
    peaks = [group["peak"] for group in optimizer.param_groups]

    record: dict[str, Any] = {}
    for epoch in range(first, recipe.epochs):
        start = time.perf_counter()
        generator = torch.Generator().manual_seed((seed << 20) + epoch)
        order = torch.randperm(len(labels), generator=generator)
        size, loss_sum, right = recipe.size(epoch), torch.zeros(()), torch.zeros(())
        model.train()
        for step in range(steps):
            factor = recipe.factor(epoch * steps + step, steps)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            index = order[step * recipe.batch : (step + 1) * recipe.batch]
            batch = crop_and_flip(images, index, side, recipe.flip, generator)
            mine = slice(
                accelerator.process_index * per_step, (accelerator.process_index + 1) * per_step
            )
            x = normalise(batch, sets.mean, sets.std, size)
            if recipe.rotation or recipe.zoom:
                x = rotate_and_zoom(x, recipe.rotation, recipe.zoom, generator)
            x = x[mine].to(accelerator.device)
            y = labels[index[mine]].to(accelerator.device)
            logits = network(x)
            loss = F.cross_entropy(logits, y, label_smoothing=recipe.label_smoothing)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            loss_sum += loss.detach().cpu()
            right += (logits.detach().argmax(1) == y).sum().cpu()
        if not torch.isfinite(loss_sum):
            raise TrainingError(
                f"The loss of {recipe.name} is {float(loss_sum)} in epoch {epoch + 1}.",
                f"The run diverged; {out / CHECKPOINT} has the state of epoch {epoch}."
                if epoch
                else "The run diverged in its first epoch.",
                f"Type for example: --set lr={recipe.lr / 2:g}, with another --out",
            )
        record = {
            "epoch": epoch + 1,
            "size": size,
            "train_loss": round(float(loss_sum) / steps, 5),
            "train_accuracy": round(float(right) / (steps * per_step), 5),
            "train_seconds": round(time.perf_counter() - start, 2),
        }
        if (epoch + 1) % recipe.test_every == 0 or epoch + 1 == recipe.epochs:
            record.update(evaluate(model, sets, size, accelerator.device))
        if accelerator.is_main_process:
            say(json.dumps(record))
            with (out / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps(record) + "\n")
            plain = accelerator.unwrap_model(model)
            _save(out / CHECKPOINT, plain, optimizer, recipe, seed, epoch + 1)
    if accelerator.is_main_process:
        from safetensors.torch import save_file

        plain = accelerator.unwrap_model(model)
        state = {k: v.contiguous().cpu() for k, v in plain.state_dict().items()}
        save_file(state, str(out / "model.safetensors"))
        summary = {
            "recipe": dataclasses.asdict(recipe),
            "seed": seed,
            "command": command,
            "revision": environment.revision(),
            "machine": environment.machine(),
            **record,
        }
        (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return record


def _can_compile(device: torch.device) -> bool:
    """Whether inductor has what it needs: on the CPU, a C++ compiler."""
    compilers = (os.environ.get("CXX"), "c++", "g++", "clang++", "cl")
    return device.type != "cpu" or any(shutil.which(name) for name in compilers if name)


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer of `recipe`; each group has its peak learning rate as ``peak``."""
    groups = parameter_groups(model, recipe.optimizer == "muon")
    sgd = {"lr": recipe.lr, "peak": recipe.lr, "momentum": recipe.momentum}
    return Muon(
        [
            {"params": groups["decay"], "weight_decay": recipe.weight_decay, **sgd},
            {"params": groups["plain"], "weight_decay": 0.0, **sgd},
            {
                "params": groups["conv"],
                "muon": True,
                "lr": recipe.muon_lr,
                "peak": recipe.muon_lr,
                "momentum": recipe.muon_momentum,
            },
        ],
        lr=recipe.lr,
    )


@torch.inference_mode()
def evaluate(model: nn.Module, sets: Data, size: int, device: torch.device) -> dict[str, float]:
    """Loss and accuracy on the test images at `size`."""
    model.eval()
    right, loss = 0, 0.0
    images, labels = sets.test.images, sets.test.labels
    for start in range(0, len(labels), 500):
        x = normalise(images[start : start + 500], sets.mean, sets.std, size).to(device)
        y = labels[start : start + 500].to(device)
        logits: Tensor = model(x)
        right += int((logits.argmax(1) == y).sum())
        loss += float(F.cross_entropy(logits, y, reduction="sum"))
    return {
        "test_loss": round(loss / len(labels), 5),
        "test_accuracy": round(right / len(labels), 5),
    }


def _save(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    seed: int,
    epochs: int,
) -> None:
    """Write the checkpoint whole or not at all."""
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "recipe": dataclasses.asdict(recipe),
        "seed": seed,
        "epochs": epochs,
    }
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _restore(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe, seed: int
) -> int:
    """Load the checkpoint, if there is one; returns the number of epochs behind it."""
    if not path.exists():
        return 0
    try:
        state = torch.load(path, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ConfigError(
            f"{path} can't be read.",
            f"It is no checkpoint of a run ({type(error).__name__}).",
            "Give another folder with --out, or delete this one",
        ) from None
    if state["recipe"] != dataclasses.asdict(recipe) or state["seed"] != seed:
        raise ConfigError(
            f"{path.parent} holds a run of another recipe or seed.",
            "A run is resumed only with the recipe and the seed it was started with.",
            "Give another folder with --out, or delete this one",
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epochs"])
