"""What stops a run: Ctrl-C between two steps, a worker that dies, a loss that isn't finite."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from senetzoo.errors import TrainingError, first_line
from senetzoo.train.recipe import Recipe

# Signals that ask a run to stop: Ctrl-C, a scheduler, a closed terminal.
STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Interrupted(KeyboardInterrupt):
    """Raised on Ctrl-C, after the state was saved; the message says how to resume."""


def interrupted(out: Path, position: str) -> Interrupted:
    """The error after a signal, when everything up to `position` is saved."""
    return Interrupted(
        f"The run in {out} was interrupted.\n"
        f"Everything up to {position} is saved.\n"
        "Type the same command again to resume"
    )


def without_worker(out: Path, saved: str, error: Exception) -> TrainingError:
    """The error when a worker died or hangs.

    Args:
        out: Folder of the run.
        saved: The saved position; empty if nothing is saved.
        error: Its arguments are what is true and what to type.
    """
    whole = f"Everything up to {saved} is saved." if saved else ""
    true, remedy = error.args
    return TrainingError(
        f"A process that reads images for {out} has stopped.",
        f"{true} {whole}".rstrip(),
        f"Type the same command again to resume. {remedy}",
    )


def alone(accelerator: Any, epoch: int, error: RuntimeError, newest: str) -> TrainingError:
    """The error when other processes of the run are gone; `newest` as in `diverged`."""
    return TrainingError(
        f"Process {accelerator.process_index} of {accelerator.num_processes} can't continue in "
        f"epoch {epoch}; another one may have died.",
        first_line(error) + ".",
        "Type the same command again" + (f": {newest}" if newest else ""),
    )


def diverged(recipe: Recipe, loss: float, epoch: int, newest: str) -> TrainingError:
    """The error when loss or gradients aren't finite; `newest` says what was saved."""
    return TrainingError(
        (
            f"A gradient of {recipe.name} isn't finite"
            if math.isfinite(loss)
            else f"The loss of {recipe.name} is {loss}"
        )
        + f" in epoch {epoch}.",
        f"The run diverged; {newest}." if newest else "The run diverged in its first epoch.",
        f"Type for example: --set lr={recipe.lr / 2:g}, with another --out",
    )


@contextmanager
def held() -> Iterator[None]:
    """Block the signals of `STOPPING` inside the context.

    Processes that are started inside inherit that; otherwise one that was just forked would handle
    them like this process.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on the first signal of `STOPPING`; the second one has its usual effect."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: object) -> None:
        signal.signal(number, before[signal.Signals(number)])
        stop()

    before = {number: signal.getsignal(number) for number in STOPPING}
    # Ignored signals stay ignored (SIGHUP with nohup); handlers from C can't be restored.
    before = {n: handler for n, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
