"""Stopping between two steps at Ctrl-C, or at another signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# What asks a run to stop: Ctrl-C, a scheduler, a terminal that goes away.
STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after the state was saved; the message says how to go on."""


@contextmanager
def held(*numbers: signal.Signals) -> Iterator[None]:
    """Keep signals, those of `STOPPING` by default, until the end.

    Processes that are started meanwhile never get them: one that was just forked would answer
    them as this one does.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers or STOPPING)
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
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
