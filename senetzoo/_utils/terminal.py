"""What commands print: text that any terminal can show, tables and progress."""

from __future__ import annotations

import contextlib
import functools
import re
import sys
import unicodedata
from collections.abc import Callable, Container, Iterator, Sequence

# What moves the cursor, colors, turns the direction of writing or can't be encoded: control
# characters but tabs and ends of lines, separators of lines, marks of direction, surrogates.
_UNSAFE = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_IN_TEXT, _IN_NAME = re.compile(f"[{_UNSAFE}]"), re.compile(f"[{_UNSAFE}\t\n]")


class OutputError(OSError):
    """The standard output takes no more: a full disk, a reader that stopped reading."""


def printable(name: str) -> str:
    """A name, anybody's text, in one line: ``\\x1b`` and the like for what can't be shown."""
    return _IN_NAME.sub(_escape, name)


def clean(text: str) -> str:
    """Text of several lines as `printable` makes a name."""
    return _IN_TEXT.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python has a byte of a file's name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return found[0].encode("unicode_escape").decode("ascii")


def echo(text: str, *, err: bool = False) -> None:
    """Print on stdout or stderr what these can show; escapes stand for the rest.

    Raises:
        OutputError: stdout can't be written. What stderr does not take is lost.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is None:  # started without
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
    """How many cells of a terminal `text` fills."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def cut(text: str, width: int, *, keep_end: bool = False) -> str:
    """A name in at most `width` cells, as `printable` shows it, without its end or its start."""
    text = short = printable(text)
    while cells(short) > width:
        text = text[1:] if keep_end else text[:-1]
        short = f"...{text}" if keep_end else f"{text}..."
    return short


def columns(rows: Sequence[Sequence[str]], *, left: int | Container[int] = 1) -> list[str]:
    """Aligned lines: the first `left` columns, or those, to the left, the others to the right."""
    lefts = range(left) if isinstance(left, int) else left
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cells, column)) for column in zip(*shown, strict=True)]

    def padded(index: int, cell: str) -> str:
        space = " " * (widths[index] - cells(cell))
        return cell + space if index in lefts else space + cell

    return ["  ".join(padded(*pair) for pair in enumerate(row)).rstrip() for row in shown]


@functools.cache
def say_once(line: str) -> None:
    """Print on stderr what was chosen for the user, once a process."""
    echo(line, err=True)


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
