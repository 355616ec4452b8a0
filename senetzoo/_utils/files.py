"""Files that are either whole or not there."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
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


def write_csv(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows to a CSV file, whose columns are the first one's keys; whole or not at all.

    UTF-8; a name of a file that is none keeps its bytes.
    """
    with (
        atomically(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer: csv.DictWriter[str] | None = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
            writer.writerow(row)


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
