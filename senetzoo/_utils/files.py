"""Files that are either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """A path to write to, in the same folder, whose file takes the place of `path` at the end.

    At every moment, a crash or a kill included, `path` is the old file, or none, or the whole new
    one. After an error in the ``with`` block `path` is as it was and the new file is gone; what a
    kill leaves is named ``.NAME.PROCESS.partial``, where nobody looks for weights.

    Args:
        path: The file to be; its folder exists.

    Yields:
        Where to write it.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        flush(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _flush_folder(path.parent)


def flush(path: Path) -> None:
    """Wait until the content of a file is on the disk, not only in the system's cache."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
