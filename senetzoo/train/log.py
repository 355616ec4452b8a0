"""What a run leaves and says: its record, one JSON object a line, its summary, its progress."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from senetzoo.runs import LOG, read_log
from senetzoo.train.checkpoint import Position, write, writing

# Where there is no terminal, a line is said at most so often within an epoch.
_QUIET_SECONDS = 60.0
_GLANCE_SECONDS = 1.0


class RunLog:
    """``log.jsonl``: the run, its epochs, resumptions, and the end, in this order.

    The first line has ``kind`` "run" and describes the run; a line "epoch" follows for each
    epoch, "resume" where an interrupted run went on, and "end".

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG

    def begin(self, header: dict[str, Any]) -> None:
        """Start anew.

        Raises:
            TrainingError: The file can't be written.
        """
        write(self.path, _line("run", header).encode())

    def resume(self, header: dict[str, Any], position: Position) -> None:
        """Go on after a checkpoint: what was logged after it is about to be done again.

        Raises:
            TrainingError: The file can't be written.
        """
        lines = self.read()
        kept = [
            line
            for line in lines
            if line["kind"] == "resume"
            or (line["kind"] == "epoch" and line["epoch"] <= position.epoch)
        ]
        first = next((line for line in lines if line["kind"] == "run"), {"kind": "run", **header})
        again = {"kind": "resume", "epoch": position.epoch + 1, "step": position.step}
        write(
            self.path, "".join(json.dumps(line) + "\n" for line in (first, *kept, again)).encode()
        )

    def add(self, kind: str, record: dict[str, Any]) -> None:
        """Append a line.

        Raises:
            TrainingError: The file can't be written.
        """
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(_line(kind, record))

    def read(self) -> list[dict[str, Any]]:
        """The lines; one that a killed run left unfinished is left out."""
        return read_log(self.path) if self.path.exists() else []


def _line(kind: str, record: dict[str, Any]) -> str:
    return json.dumps({"kind": kind, **record}) + "\n"


class Progress:
    """How far a run is: a bar on a terminal, a line a minute elsewhere.

    Args:
        name: Of the run.
        images: Images of the whole run.
        done: Those of them that an earlier start of the run has seen.
        say: Where lines go.
        quiet: Show nothing; in the processes beside the first.
    """

    def __init__(
        self, name: str, images: int, done: int, say: Callable[[str], None], *, quiet: bool = False
    ) -> None:
        self._say, self._quiet = say, quiet
        self._images, self._done, self._start = images, done, time.perf_counter()
        self._first = done
        self._glanced = self._told = self._start
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
        elif self._glanced - self._told >= _QUIET_SECONDS:
            self._told = self._glanced
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
        self._told = time.perf_counter()
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
