"""Printing: text that is safe for terminals, tables and progress."""

from __future__ import annotations

import contextlib
import functools
import re
import sys
import unicodedata
from collections.abc import Callable, Container, Iterator, Sequence

# Characters that could move the cursor, change colors or text direction, or can't be encoded:
# control characters except tab and newline, line separators, direction marks, surrogates.
_UNSAFE = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_IN_TEXT, _IN_NAME = re.compile(f"[{_UNSAFE}]"), re.compile(f"[{_UNSAFE}\t\n]")


class OutputError(OSError):
    """Standard output can't be written: the disk is full, or its reader stopped reading."""


def printable(name: str) -> str:
    """Untrusted text in one line, with escapes such as ``\\x1b`` for unsafe characters."""
    return _IN_NAME.sub(_escape, name)


def clean(text: str) -> str:
    """As `printable`, but for text with several lines."""
    return _IN_TEXT.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that isn't UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return found[0].encode("unicode_escape").decode("ascii")


def echo(text: str, *, err: bool = False) -> None:
    """Print to stdout or stderr, with escapes for characters that they can't encode.

    Raises:
        OutputError: stdout can't be written. Errors of stderr are ignored.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is None:  # the process was started without it
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    shown = clean(f"{text}\n").encode(encoding, "backslashreplace").decode(encoding)
    try:
        stream.write(shown)
        stream.flush()
    except OSError as error:
        if not err:
            raise OutputError(error.errno, error.strerror) from None


def cells(text: str) -> int:
    """Width of `text` in terminal cells."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def cut(text: str, width: int, *, keep_end: bool = False) -> str:
    """Make `text` printable and truncate it to `width` cells, at its end or its start."""
    text = short = printable(text)
    while cells(short) > width:
        text = text[1:] if keep_end else text[:-1]
        short = f"...{text}" if keep_end else f"{text}..."
    return short


def columns(rows: Sequence[Sequence[str]], *, left: int | Container[int] = 1) -> list[str]:
    """Align columns: the first `left` columns, or those in it, to the left, the others right."""
    lefts = range(left) if isinstance(left, int) else left
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cells, column)) for column in zip(*shown, strict=True)]

    def padded(index: int, cell: str) -> str:
        space = " " * (widths[index] - cells(cell))
        return cell + space if index in lefts else space + cell

    return ["  ".join(padded(*pair) for pair in enumerate(row)).rstrip() for row in shown]


@functools.cache
def say_once(line: str) -> None:
    """Print a line to stderr, once per process."""
    echo(line, err=True)


@contextlib.contextmanager
def progress(total: int, title: str, unit: str) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr if it is a terminal and tqdm is installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda steps: None
        return
    with tqdm(
        total=total, desc=title, unit=unit, leave=False, disable=not sys.stderr.isatty()
    ) as bar:
        yield lambda steps: bar.update(steps) and None


def counted(number: int, noun: str) -> str:
    """A number of things: ``"1 image"``, ``"2,000 images"``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def clock(seconds: float) -> str:
    """Format seconds as ``3.5 s``, ``1 min 54 s`` or ``2 h 5 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{round(seconds / 60) // 60} h {round(seconds / 60) % 60} min"
