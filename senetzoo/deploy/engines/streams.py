"""Streams: parts of a batch run at the same time, each on its own threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import torch
from torch import Tensor

from senetzoo._utils.environment import PROCESS, threads_set


def in_streams(
    run: Callable[[Tensor], Tensor], streams: int, threads: int
) -> Callable[[Tensor], Tensor]:
    """Split batches into parts, which `run` computes at the same time.

    Several threads can call the result at once, and so can a forked process. The workers end when
    the result is deleted.

    Args:
        run: Runs a part; several threads call it at once, but only with batch sizes that it has
            already run.
        streams: Number of parts of a batch, whose sizes differ by at most one.
        threads: Number of torch's threads for each part.
    """
    # A forked process has none of its parent's threads.
    by_process: dict[int, ThreadPoolExecutor] = {}
    known: set[tuple[int, int]] = set()

    def split(images: Tensor) -> Tensor:
        process, parts = os.getpid(), images.tensor_split(min(streams, len(images)))
        for part in {len(part): part for part in parts}.values():
            if (process, len(part)) not in known:
                # Compilation for a batch size happens here, once for all workers, because they
                # must not wait for a lock that their caller may hold.
                with threads_set(threads):
                    run(part)
                known.add((process, len(part)))
        if process not in by_process:
            with PROCESS:
                if process not in by_process:
                    by_process[process] = _workers(streams, threads)
        running = [by_process[process].submit(run, part) for part in parts]
        try:
            wait(running)
        finally:
            for one in running:
                one.cancel()
        return torch.cat([one.result() for one in running])

    return split


def _workers(number: int, threads: int) -> ThreadPoolExecutor:
    """`number` Python threads, each with `threads` of torch's threads."""
    made = threading.Barrier(number + 1)

    def begin() -> None:
        torch.get_num_threads()  # its first use sets the thread's number to that of the process
        torch.set_num_threads(threads)
        made.wait()

    pool = ThreadPoolExecutor(number, "senetzoo")
    with PROCESS:
        before = torch.get_num_threads()
        try:
            for _ in range(number):
                pool.submit(begin)
            made.wait()
        except BaseException:
            made.abort()
            raise
        finally:
            # OpenMP has a number for each thread, but torch gives later threads the last one set.
            torch.set_num_threads(before)
    return pool
