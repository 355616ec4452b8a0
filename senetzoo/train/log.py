"""The log of a run, one JSON object a line, and its progress."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from senetzoo.runs import LOG, is_run, read_log
from senetzoo.train.checkpoint import StepCount, write, writing

# Where there is no terminal, a line is written at most so often within an epoch.
_QUIET_SECONDS = 60.0
_GLANCE_SECONDS = 1.0


def begin(folder: Path, header: dict[str, Any], after: StepCount | None = None) -> None:
    """Start ``log.jsonl``: a line "run", to be followed by "epoch" for each epoch, and "end".

    Args:
        folder: Of the run.
        header: What describes the run.
        after: Go on after this checkpoint, with a line "resume": what was logged after it is about
            to be done again.

    Raises:
        TrainingError: The file can't be written.
    """
    lines = [{"kind": "run", **header}]
    if after is not None:
        old = read_log(folder / LOG) if is_run(folder) else []
        lines = [line for line in old if line["kind"] == "run"][:1] or lines
        lines += [
            line
            for line in old
            if line["kind"] == "resume"
            or (line["kind"] == "epoch" and line["epoch"] <= after.epoch)
        ]
        lines += [{"kind": "resume", "epoch": after.epoch + 1, "step": after.step}]
    write(folder / LOG, "".join(map(_line, lines)).encode())


def add(folder: Path, kind: str, record: dict[str, Any]) -> None:
    """Append a line to the log.

    Raises:
        TrainingError: The file can't be written.
    """
    path = folder / LOG
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(_line({"kind": kind, **record}))


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"


class Progress:
    """How far a run is: a bar on a terminal, a line a minute elsewhere.

    Args:
        name: Of the run.
        images: Images of the whole run.
        done: Those of them that an earlier start of the run is done with.
        say: Where lines go.
        quiet: Show nothing; in the processes beside the first.
    """

    def __init__(
        self, name: str, images: int, done: int, say: Callable[[str], None], *, quiet: bool = False
    ) -> None:
        self._say, self._quiet = say, quiet
        self._images, self._done, self._start = images, done, time.perf_counter()
        self._first = done
        self._glanced = self._reported = self._start
        self._bar: Any = None
        if not quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=images,
                initial=done,
                desc=name,
                unit="img",
                unit_scale=True,
                dynamic_ncols=True,
            )

    def advance(self, images: int) -> bool:
        """Count `images`; whether it is time to look at the loss, which waits for the device."""
        self._done += images
        if self._bar is not None:
            self._bar.update(images)
        now = time.perf_counter()
        if now - self._glanced < _GLANCE_SECONDS:
            return False
        self._glanced = now
        return True

    def show(self, epoch: int, loss: float, accuracy: float) -> None:
        """Show loss and accuracy so far in `epoch`, counted from 1."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.set_postfix_str(f"epoch {epoch}, loss {loss:.4f}, accuracy {accuracy:.2%}")
        elif self._glanced - self._reported >= _QUIET_SECONDS:
            self._reported = self._glanced
            self._say(
                f"epoch {epoch}: loss {loss:.4f}, accuracy {accuracy:.2%}, {self._rate():,.0f} "
                f"images/s, {clock(self._left())} left"
            )

    def epoch(self, record: dict[str, Any], epochs: int) -> None:
        """Say what an epoch gave."""
        if self._quiet:
            return
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
        parts += [f"{record['images_per_second']:,.0f} images/s", f"{clock(self._left())} left"]
        self._reported = time.perf_counter()
        self.say(", ".join(parts))

    def say(self, line: str) -> None:
        """Say a line, above the bar where there is one."""
        if self._quiet:
            return
        if self._bar is not None:
            with self._bar.external_write_mode():
                self._say(line)
        else:
            self._say(line)

    def close(self) -> None:
        """Leave the bar as it is and go to the next line."""
        if self._bar is not None:
            self._bar.close()

    def _rate(self) -> float:
        return (self._done - self._first) / max(time.perf_counter() - self._start, 1e-9)

    def _left(self) -> float:
        return (self._images - self._done) / max(self._rate(), 1e-9)


def clock(seconds: float) -> str:
    """``1:02:03`` of a number of seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
