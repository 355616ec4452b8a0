"""The log of a run, one JSON object a line, and its progress."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from senetzoo._utils import environment
from senetzoo._utils.terminal import clock, printable
from senetzoo.errors import MissingExtraError
from senetzoo.runs import LOG, SCHEMA, is_run, read_log
from senetzoo.train.checkpoint import StepCount, write, writing
from senetzoo.train.pace import PAYS, WARM_STEPS
from senetzoo.train.recipe import Recipe

# Where there is no terminal, a line is written at most so often within an epoch.
_QUIET_SECONDS = 60.0
_GLANCE_SECONDS = 1.0


def begin(folder: Path, header: dict[str, Any], after: StepCount | None = None) -> None:
    """Start ``log.jsonl``: a line "run", to be followed by "epoch" for each epoch, and "end".

    After a checkpoint it goes on with a line "resume": what was logged after it is about to be
    done again.
    """
    lines = [{"kind": "run", "schema": SCHEMA, **header}]
    if after is not None:
        old = read_log(folder / LOG) if is_run(folder) else []
        lines = old[:1] or lines
        lines += [
            line
            for line in old
            if line["kind"] == "resume"
            or (line["kind"] == "epoch" and line["epoch"] <= after.epoch)
        ]
        lines += [{"kind": "resume", "epoch": after.epoch + 1, "step": after.step}]
    write(folder / LOG, "".join(map(_line, lines)).encode())


def header(
    recipe: Recipe, variant: str, seed: int, command: str, accelerator: Any
) -> dict[str, Any]:
    """What the line "run" says of how it was started, and on what."""
    return {
        "recipe": dataclasses.asdict(recipe),
        "variant": variant,
        "seed": seed,
        "command": command,
        "environment": {
            **environment.environment(accelerator.device, torch.get_num_threads()),
            "machine": environment.machine(),
            "processes": accelerator.num_processes,
        },
    }


def add(folder: Path, kind: str, record: dict[str, Any]) -> None:
    """Append a line to the log; a `TrainingError` where that can't be."""
    path = folder / LOG
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(_line({"kind": kind, **record}))


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"


def tensorboard(folder: Path) -> Any:
    """A writer of TensorBoard's log of a run, to be closed as a context."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtraError("--tensorboard", "tensorboard", "train") from None
    return SummaryWriter(str(folder / "tensorboard"))


def track(board: Any, record: dict[str, Any]) -> None:
    """Write the figures of an epoch to it."""
    norms = {f"gradient_norm/{name}": norm for name, norm in record["gradient_norm"].items()}
    for name, value in {**record, **norms}.items():
        if isinstance(value, float):
            board.add_scalar(name, value, record["epoch"])


class Progress:
    """How far a run is: a bar on a terminal, a line a minute elsewhere.

    What is left is said once it is measured: after a minute, or a number of steps, of those that
    come after the compilation. A step costs as its images have pixels.

    Args:
        name: Of the run.
        epochs: Image side and images of each epoch.
        done: Images that an earlier process trained on.
        say: Where lines go.
        bar: Whether there may be a bar.
    """

    def __init__(
        self,
        name: str,
        epochs: Sequence[tuple[int, int]],
        done: int,
        say: Callable[[str], None],
        *,
        bar: bool,
    ) -> None:
        from tqdm import tqdm

        self._say, self._epochs, self._done = say, epochs, done
        self._begun = self._glanced = self._reported = time.perf_counter()
        # From when on is measured, with how much then done; what was measured is said once.
        self._start, self._from, self._steps, self._said = self._begun, 0.0, 0, False
        self._bar: Any = tqdm(
            total=sum(images for _, images in epochs),
            initial=done,
            desc=printable(name),
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not bar or not sys.stderr.isatty(),
            # Its own estimate would be of the compilation too.
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
        )
        self.close = self._bar.close

    def advance(self, images: int) -> bool:
        """Count `images`; whether it is time to look at the loss, which waits for the device."""
        self._done += images
        self._bar.update(images)
        self._steps += 1
        now = time.perf_counter()
        if self._steps == WARM_STEPS:
            self._start, self._from = now, self._work(self._done)
        if now - self._glanced < _GLANCE_SECONDS:
            return False
        self._glanced = now
        return True

    def show(self, epoch: int, loss: float, accuracy: float) -> None:
        """Show loss and accuracy so far in `epoch`, counted from 1."""
        figures, left = f"loss {loss:.4f}, accuracy {accuracy:.2%}", self._left()
        measured = self._steps - WARM_STEPS
        since = time.perf_counter() - self._start
        if left is not None and not self._said and (measured >= PAYS or since >= 60):
            self._said = True
            self.say(f"measured for {clock(since)}: about {clock(left)} to go on this machine")
        ahead = "" if left is None else f", {clock(left)} left"
        if not self._bar.disable:
            self._bar.set_postfix_str(f"epoch {epoch}, {figures}{ahead}")
        elif self._glanced - self._reported >= _QUIET_SECONDS:
            self._reported = self._glanced
            self._say(f"epoch {epoch}: {figures}{ahead}")

    def epoch(self, record: dict[str, Any], epochs: int) -> None:
        """Say what an epoch gave."""
        parts = [
            f"epoch {record['epoch']}/{epochs}",
            f"{record['size']} px",
            f"lr {record['lr']:.3g}",
            f"loss {record['train_loss']:.4f}",
            f"accuracy {record['train_accuracy']:.2%}",
        ]
        if record["test_accuracy"] is not None:
            parts += [f"test loss {record['test_loss']:.4f}"]
            parts += [f"test accuracy {record['test_accuracy']:.2%}"]
        if record.get("ema_test_accuracy") is not None:
            parts += [f"of the average {record['ema_test_accuracy']:.2%}"]
        if record.get("val_accuracy") is not None:
            parts += [f"validation loss {record['val_loss']:.4f}"]
            parts += [f"validation accuracy {record['val_accuracy']:.2%}"]
        if record.get("ema_val_accuracy") is not None:
            parts += [f"of the average {record['ema_val_accuracy']:.2%}"]
        parts += [f"{record['images_per_second']:,.0f} images/s"]
        if (left := self._left()) is not None:
            parts += [f"{clock(left)} left"]
        self._reported = time.perf_counter()
        self.say(", ".join(parts))

    def say(self, line: str) -> None:
        """Say a line, above the bar where there is one."""
        with self._bar.external_write_mode():
            self._say(line)

    def _left(self) -> float | None:
        """Seconds that are left at the measured pace; None before there is one."""
        work = self._work(self._done) - self._from
        if self._steps <= WARM_STEPS or work <= 0:
            return None
        rate = work / max(time.perf_counter() - self._start, 1e-9)
        return (
            self._work(sum(images for _, images in self._epochs)) - self._work(self._done)
        ) / rate

    def _work(self, images: int) -> float:
        """What so many images from the start cost, in pixels."""
        work = 0.0
        for size, own in self._epochs:
            work += min(images, own) * size**2
            images = max(images - own, 0)
        return work
