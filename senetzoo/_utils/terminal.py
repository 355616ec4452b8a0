"""What commands print on a terminal: tables and progress."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Container, Iterator, Sequence


def columns(rows: Sequence[Sequence[str]], *, left: int | Container[int] = 1) -> list[str]:
    """Aligned lines: the first `left` columns, or those, to the left, the others to the right."""
    lefts = range(left) if isinstance(left, int) else left
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index in lefts else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


@functools.cache
def say_once(line: str) -> None:
    """Print on stderr what was chosen for the user, once a process."""
    print(line, file=sys.stderr)


@contextlib.contextmanager
def progress(total: int, title: str, unit: str) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr where that is a terminal and tqdm is installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda steps: None
        return
    with tqdm(
        total=total, desc=title, unit=unit, leave=False, disable=not sys.stderr.isatty()
    ) as bar:
        yield lambda steps: bar.update(steps) and None


def clock(seconds: float) -> str:
    """``1:02:03`` of a number of seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
