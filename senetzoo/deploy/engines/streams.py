"""Cores as streams: parts of a batch run at the same time, each on threads of its own."""

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
    """`run` on as many parts of a batch at a time as there are streams.

    Several threads can call it at once, and so can a process that was forked. Its workers end when
    it is gone.

    Args:
        run: Takes a part; several threads call it at once, once it has run for their number of
            images.
        streams: Parts of a batch, of sizes that differ by one at most.
        threads: Threads of torch that each has.
    """
    # A fork has none of its parent's threads.
    by_process: dict[int, ThreadPoolExecutor] = {}
    known: set[tuple[int, int]] = set()

    def split(images: Tensor) -> Tensor:
        process, parts = os.getpid(), images.tensor_split(min(streams, len(images)))
        for part in {len(part): part for part in parts}.values():
            if (process, len(part)) not in known:
                # What is compiled for a number of images is compiled here, once for all workers,
                # which must not wait for a lock that their caller may hold.
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
    """So many Python threads with so many threads of torch each."""
    made = threading.Barrier(number + 1)

    def begin() -> None:
        torch.get_num_threads()  # or its first use gives the thread the number of the process
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
            # OpenMP has a number for each thread; but torch keeps the last for threads to come.
            torch.set_num_threads(before)
    return pool
