"""What stops a run: Ctrl-C between two steps, a worker that dies, a loss that is no number."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from senetzoo.errors import TrainingError
from senetzoo.train.recipe import Recipe

# What asks a run to stop: Ctrl-C, a scheduler, a terminal that goes away.
STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after the state was saved; the message says how to resume."""


def interrupted(out: Path, position: str) -> Interrupted:
    """What is raised after a signal, when all up to `position` is saved."""
    return Interrupted(
        f"The run in {out} was interrupted.\n"
        f"All up to {position} is saved.\n"
        "Type the same command again to resume"
    )


def without_worker(out: Path, saved: str, error: Exception) -> TrainingError:
    """What is raised when a process that reads images died or hangs.

    Args:
        out: Folder of the run.
        saved: What is whole; empty for nothing.
        error: What is true and what to do, as its arguments.
    """
    whole = f"All up to {saved} is saved." if saved else ""
    true, remedy = error.args
    return TrainingError(
        f"A process that reads images for {out} does not go on.",
        f"{true} {whole}".rstrip(),
        f"Type the same command again to resume. {remedy}",
    )


def alone(accelerator: Any, epoch: int, error: RuntimeError, newest: str) -> TrainingError:
    """What is raised when other processes of the run are gone; `newest` as of `diverged`."""
    return TrainingError(
        f"Process {accelerator.process_index} of {accelerator.num_processes} can't go on in epoch "
        f"{epoch}; another one may have died.",
        (str(error).partition("\n")[0] or type(error).__name__) + ".",
        "Type the same command again" + (f": {newest}" if newest else ""),
    )


def diverged(recipe: Recipe, loss: float, epoch: int, newest: str) -> TrainingError:
    """What is raised when loss or gradients are no numbers; `newest` says what was saved."""
    return TrainingError(
        (
            f"A gradient of {recipe.name} is not finite"
            if math.isfinite(loss)
            else f"The loss of {recipe.name} is {loss}"
        )
        + f" in epoch {epoch}.",
        f"The run diverged; {newest}." if newest else "The run diverged in its first epoch.",
        f"Type for example: --set lr={recipe.lr / 2:g}, with another --out",
    )


@contextmanager
def held() -> Iterator[None]:
    """Keep the signals of `STOPPING` until the end.

    Processes that are started meanwhile never get them: one that was just forked would answer
    them as this one does.
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
    """Call `stop` at the first of `STOPPING`; the second one acts as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: object) -> None:
        signal.signal(number, before[signal.Signals(number)])
        stop()

    before = {number: signal.getsignal(number) for number in STOPPING}
    # What is ignored stays so, as SIGHUP under nohup; what is not Python's can't be put back.
    before = {n: handler for n, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
