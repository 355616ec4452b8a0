"""Train several runs at once, each in its own process with a share of the cores."""

from __future__ import annotations

import _thread
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, TypeAlias

import torch

from senetzoo import own
from senetzoo._utils.terminal import echo
from senetzoo.errors import SenetzooError, TrainingError, sentences
from senetzoo.gates import GATES
from senetzoo.registry import ENTRIES
from senetzoo.runs import SUMMARY, tested
from senetzoo.train.checkpoint import NEWEST, require_same_code
from senetzoo.train.engine import train
from senetzoo.train.recipe import Recipe
from senetzoo.train.stop import STOPPING, Interrupted, held, signals

OUTPUT = "output.txt"
"""File in the folder of a run with its output."""
Asked: TypeAlias = tuple[Recipe, Path, Mapping[str, Any]]
"""Recipe and folder of a run, and the other arguments of `train`."""

_POSIX = os.name == "posix"


def train_at_once(
    runs: Sequence[Asked],
    parallel: int,
    ended: Callable[[Path, dict[str, Any]], None],
    say: Callable[[str], None],
) -> None:
    """Train several runs at a time, each with this process's number of torch threads.

    If a run fails, the others continue. The output of each goes to `OUTPUT` in its folder.

    Args:
        runs: The runs.
        parallel: How many to train at a time.
        ended: Called with the folder and the results of each run when it ends.
        say: Called with a line for each run.

    Raises:
        TrainingError: Some runs failed; raised at the end.
        Interrupted: Ctrl-C, after the current runs have saved their state.
    """
    context = multiprocessing.get_context("spawn")
    if _POSIX:
        # Otherwise the first process would start it, and unblock the signals held at that time.
        resource_tracker.ensure_running()
    names = [*GATES, *ENTRIES]
    registered = [*own.paths(names).values()], own.versions(names)
    waiting = list(enumerate(runs, 1))
    running: dict[Connection, tuple[int, Path, SpawnProcess]] = {}
    stopped, failed = False, 0

    def interrupt() -> None:
        for *_, process in running.values():
            if _POSIX and process.pid and process.is_alive():  # on Windows the terminal does it
                os.kill(process.pid, signal.SIGINT)

    def stop() -> None:
        nonlocal stopped
        stopped = True
        interrupt()

    say(f"{len(runs)} runs, {parallel} at a time; the output of each is in {OUTPUT} in its folder")
    with signals(stop):
        try:
            while running or (waiting and not stopped):
                while waiting and not stopped and len(running) < parallel:
                    number, asked = waiting.pop(0)
                    ours, theirs = context.Pipe(duplex=False)
                    arguments = (theirs, asked, torch.get_num_threads(), registered)
                    process = context.Process(target=_train, args=arguments)
                    with held():
                        process.start()
                        running[ours] = number, asked[1], process
                    theirs.close()
                ready = wait(running)
                for ours in [each for each in running if each in ready]:
                    found = _received(ours)
                    number, folder, process = running.pop(ours)
                    name = f"run {number} of {len(runs)}: {folder}"
                    process.join()
                    if isinstance(found, dict):
                        accuracy = f"{tested(found)} accuracy {found['test_accuracy']:.2%}"
                        say(f"{name}: finished, {accuracy}")
                        ended(folder, found)
                    elif stopped:
                        say(f"{name}: {found or f'its process ended with {process.exitcode}'}")
                    else:
                        failed += 1
                        why = found or f"Its process ended with {process.exitcode}."
                        say(f"{name}: failed. {why} See {folder / OUTPUT}")
        finally:  # also after a second Ctrl-C or an error in `ended`
            interrupt()
            for *_, process in running.values():
                process.join()
    if stopped:
        folders = [folder for _, folder, _ in runs]
        done = [folder for folder in folders if (folder / SUMMARY).is_file()]
        saved = [folder for folder in folders if (folder / NEWEST).is_file() and folder not in done]
        raise Interrupted(
            "The runs were interrupted.\n"
            f"Of {len(runs)}, {len(done)} are finished and {len(saved)} are saved"
            f"{f'; {failed} failed' if failed else ''}.\n"
            "Type the same command again to resume"
        )
    if failed:
        raise TrainingError(
            f"{failed} of {len(runs)} runs failed.",
            f"The others are finished. The errors are above, and in {OUTPUT} in each folder.",
            "Fix the errors, then type the same command again: it runs those that failed",
        )


def _received(connection: Connection) -> dict[str, Any] | str:
    """The results that a run sent, or its error; empty if its process died."""
    try:
        found: dict[str, Any] | str = connection.recv()
    except EOFError:
        return ""
    finally:
        connection.close()
    return found


def _train(
    to: Connection,
    asked: Asked,
    threads: int,
    registered: tuple[Sequence[str], Mapping[str, str]],
) -> None:
    """Train one run in this process, and send its results or its error."""
    recipe, folder, how = asked
    found: dict[str, Any] | str = ""
    if _POSIX:
        # Receive Ctrl-C only from the parent process, and once: a second one would end the run
        # before it has saved its state.
        os.setsid()
    # Start the thread while signals are held, so that only the main thread receives them.
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / OUTPUT).open("a", encoding="utf-8") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
        if _POSIX:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        torch.set_num_threads(threads)
        paths, versions = registered
        for path in paths:
            own.register_path(path)
        require_same_code(folder, versions)
        found = train(recipe, folder, **how)
    except KeyboardInterrupt as stop:
        echo(str(stop))
        found = " ".join(str(stop).splitlines()[:2]) or f"The run in {folder} was interrupted."
    except Exception as error:  # the other runs continue
        found = sentences(error)
        if isinstance(error, SenetzooError):
            echo(f"error: {error}")
        else:
            traceback.print_exc()
            found = f"{type(error).__name__}: {found}"
    to.send(found)


def _stop_with_parent() -> None:
    """Save and stop if the parent process was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        _thread.interrupt_main()
