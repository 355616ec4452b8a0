"""The log of a run, with one JSON object per line, and its progress bar."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from senetzoo._utils import environment
from senetzoo._utils.terminal import clock, printable
from senetzoo.errors import MissingExtraError
from senetzoo.runs import LOG, SCHEMA, SUMMARY, TEST, is_run, read_log
from senetzoo.train.checkpoint import StepCount, write, writing
from senetzoo.train.pace import WARM_STEPS

# Without a terminal, seconds between progress lines within an epoch.
_QUIET_SECONDS = 60.0
_GLANCE_SECONDS = 1.0


def begin(folder: Path, header: dict[str, Any], after: StepCount | None = None) -> None:
    """Start ``log.jsonl`` with a line "run", followed by lines "epoch" and a line "end".

    With a checkpoint `after`, keep the log up to it and add a line "resume": later epochs will be
    trained again.
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
    said: Mapping[str, Any], variant: str, device: torch.device, **more: object
) -> dict[str, Any]:
    """Settings and environment for the line "run"; `said` as in `finish`."""
    settings = environment.environment(device, torch.get_num_threads())
    settings |= {"machine": environment.machine(), **more}
    return {**said, "variant": variant, "environment": settings}


def add(folder: Path, kind: str, record: dict[str, Any]) -> None:
    """Append a line to the log; raises `TrainingError` if that fails."""
    path = folder / LOG
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(_line({"kind": kind, **record}))


def finish(
    folder: Path,
    shown: dict[str, Tensor],
    files: dict[str, str],
    end: dict[str, Any],
    said: Mapping[str, Any],
) -> None:
    """Write the test predictions, the line "end" and the summary of a run.

    Args:
        folder: Folder of the run.
        shown: The predictions, as of `evaluate.record`.
        files: Their metadata, as of `evaluate.names`.
        end: The results.
        said: Recipe, seed and command of the run.
    """
    from safetensors.torch import save

    write(folder / TEST, save(shown, files))
    add(folder, "end", end)
    machine = {"revision": environment.revision(), "machine": environment.machine()}
    summary = {"schema": SCHEMA, **said, **machine, **end}
    write(folder / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode())


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"


def tensorboard(folder: Path) -> Any:
    """A TensorBoard writer for a run, as a context manager."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtraError("--tensorboard", "tensorboard", "train") from None
    return SummaryWriter(str(folder / "tensorboard"))


def track(board: Any, record: dict[str, Any]) -> None:
    """Write the numbers of an epoch to TensorBoard."""
    norms = {f"gradient_norm/{name}": norm for name, norm in record["gradient_norm"].items()}
    for name, value in {**record, **norms}.items():
        if isinstance(value, float):
            board.add_scalar(name, value, record["epoch"])


class Progress:
    """Progress of a run: a bar on a terminal, otherwise a line per minute.

    The remaining time is that of the median epoch, without the first steps, which compile. The cost
    of a step is assumed to be proportional to its pixels.

    Args:
        name: Name of the run.
        epochs: Image size and number of images of each epoch.
        done: Images that an earlier process trained on.
        say: Called with each line.
        bar: Whether to show a bar.
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
        # Start of the epoch's measurement, the work done before it, the steps, and the seconds per
        # work of the epochs so far.
        self._start, self._from, self._steps = self._begun, 0.0, 0
        self._paces: list[float] = []
        self._bar: Any = tqdm(
            total=sum(images for _, images in epochs),
            initial=done,
            desc=printable(name),
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not bar or not sys.stderr.isatty(),
            # tqdm's own estimate would include the compilation.
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
        )
        self.close = self._bar.close

    def advance(self, images: int) -> bool:
        """Count `images`; return whether to show the loss, which synchronizes with the device."""
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
        """Show loss and accuracy so far in `epoch`, which counts from 1."""
        figures, left = f"loss {loss:.4f}, accuracy {accuracy:.2%}", self._left()
        ahead = "" if left is None else f", {clock(left)} left"
        if not self._bar.disable:
            self._bar.set_postfix_str(f"epoch {epoch}, {figures}{ahead}")
        elif self._glanced - self._reported >= _QUIET_SECONDS:
            self._reported = self._glanced
            self._say(f"epoch {epoch}: {figures}{ahead}")

    def epoch(self, record: dict[str, Any], epochs: int) -> None:
        """Report an epoch."""
        parts = [
            f"epoch {record['epoch']}/{epochs}",
            f"{record['size']} px",
            f"lr {record['lr']:.3g}",
            f"loss {record['train_loss']:.4f}",
            f"accuracy {record['train_accuracy']:.2%}",
        ]
        for part, images in (("test", "test"), ("val", "validation")):
            if record.get(f"{part}_accuracy") is not None:
                parts += [f"{images} loss {record[f'{part}_loss']:.4f}"]
                parts += [f"{images} accuracy {record[f'{part}_accuracy']:.2%}"]
            if record.get(f"ema_{part}_accuracy") is not None:
                parts += [f"moving average {record[f'ema_{part}_accuracy']:.2%}"]
        parts += [f"{record['images_per_second']:,.0f} images/s"]
        if (pace := self._pace()) is not None:
            self._paces.append(pace)
            self._start, self._from = time.perf_counter(), self._work(self._done)
        if (left := self._left()) is not None:
            parts += [f"{clock(left)} left"]
        self._reported = time.perf_counter()
        self.say(", ".join(parts))

    def say(self, line: str) -> None:
        """Print a line, above the bar if there is one."""
        with self._bar.external_write_mode():
            self._say(line)

    def _left(self) -> float | None:
        """Remaining seconds at the pace of the median epoch; None before one is measured."""
        pace = statistics.median(self._paces) if self._paces else self._pace()
        if pace is None:
            return None
        total = sum(images for _, images in self._epochs)
        return (self._work(total) - self._work(self._done)) * pace

    def _pace(self) -> float | None:
        """Seconds per work in this epoch; None before it is measured."""
        work = self._work(self._done) - self._from
        if self._steps <= WARM_STEPS or work <= 0:
            return None
        return (time.perf_counter() - self._start) / work

    def _work(self, images: int) -> float:
        """Pixels in the first `images` images of the run."""
        work = 0.0
        for size, own in self._epochs:
            work += min(images, own) * size**2
            images = max(images - own, 0)
        return work
