"""The log of a run, one JSON object a line, and its progress."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from senetzoo._utils.terminal import clock, printable
from senetzoo.errors import MissingExtraError
from senetzoo.runs import LOG, SCHEMA, is_run, read_log
from senetzoo.train.checkpoint import StepCount, write, writing

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
    """How far a run is: a bar on a terminal, a line a minute elsewhere."""

    def __init__(
        self, name: str, images: int, done: int, say: Callable[[str], None], *, bar: bool
    ) -> None:
        from tqdm import tqdm

        self._say, self._images, self._first, self._done = say, images, done, done
        self._start = self._glanced = self._reported = time.perf_counter()
        self._bar: Any = tqdm(
            total=images,
            initial=done,
            desc=printable(name),
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not bar or not sys.stderr.isatty(),
        )
        self.close = self._bar.close

    def advance(self, images: int) -> bool:
        """Count `images`; whether it is time to look at the loss, which waits for the device."""
        self._done += images
        self._bar.update(images)
        now = time.perf_counter()
        if now - self._glanced < _GLANCE_SECONDS:
            return False
        self._glanced = now
        return True

    def show(self, epoch: int, loss: float, accuracy: float) -> None:
        """Show loss and accuracy so far in `epoch`, counted from 1."""
        figures = f"loss {loss:.4f}, accuracy {accuracy:.2%}"
        if not self._bar.disable:
            self._bar.set_postfix_str(f"epoch {epoch}, {figures}")
        elif self._glanced - self._reported >= _QUIET_SECONDS:
            self._reported = self._glanced
            rate, left = self._rate()
            self._say(f"epoch {epoch}: {figures}, {rate:,.0f} images/s, {clock(left)} left")

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
        parts += [
            f"{record['images_per_second']:,.0f} images/s",
            f"{clock(self._rate()[1])} left",
        ]
        self._reported = time.perf_counter()
        self.say(", ".join(parts))

    def say(self, line: str) -> None:
        """Say a line, above the bar where there is one."""
        with self._bar.external_write_mode():
            self._say(line)

    def _rate(self) -> tuple[float, float]:
        """Images a second, and the seconds that are left at that rate."""
        rate = (self._done - self._first) / max(time.perf_counter() - self._start, 1e-9)
        return rate, (self._images - self._done) / max(rate, 1e-9)
