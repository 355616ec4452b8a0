"""Paths as users give them, files that are either whole or not there, and folders of one writer."""

from __future__ import annotations

import contextlib
import csv
import errno
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from senetzoo.errors import ConfigError


def user_path(
    path: str | Path, remedy: str = "Set HOME to a folder, or give a path without ~"
) -> Path:
    """A path that a user gave, in an argument, an option or a variable: with ``~`` for the home.

    As in a shell, ``~name`` stays as it is where there is no user of that name.

    Args:
        path: The path.
        remedy: What to type where nobody knows where the home is.

    Raises:
        ConfigError: HOME is not set, and the system does not know the user either.
    """
    path = Path(path)
    try:
        return path.expanduser()
    except (RuntimeError, KeyError):
        if path.parts[0] != "~":
            return path
        raise ConfigError(
            f"{path} is in a home folder that is not known.",
            "HOME is not set, and the system does not know the user.",
            remedy,
        ) from None


# Another process that saves a network is done within that time.
_PATIENCE = 20.0


@contextmanager
def locked(file: Path, seconds: float | None = None) -> Iterator[None]:
    """While it is held, no other process and no other thread has the lock `file`.

    The system holds it: a process that was killed leaves a file, but no lock.

    Args:
        file: The file of the lock; its folder exists.
        seconds: How long to wait; None for as long as it takes.

    Raises:
        TimeoutError: Another one holds it for longer.
    """
    from huggingface_hub.utils import WeakFileLock

    with WeakFileLock(file, timeout=seconds):
        yield


@contextmanager
def only_writer(
    folder: Path, asked: str, remedy: str, seconds: float = _PATIENCE
) -> Iterator[None]:
    """While it is held, no other process and no other thread is the only writer of `folder`.

    Args:
        folder: The folder; made where it does not exist.
        asked: What can't be done where there is another one.
        remedy: What to type then.
        seconds: How long to wait for another one.

    Raises:
        ConfigError: There is another one, for longer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ".lock"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(file, seconds))
        except TimeoutError:
            raise ConfigError(asked, f"Another process is writing to {folder}.", remedy) from None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows removes no open file
                file.unlink()


@contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """A path to write to, in the same folder, whose file takes the place of `path` at the end.

    At every moment, a crash or a kill included, `path` is the old file, or none, or the whole new
    one. After an error in the ``with`` block `path` is as it was and the new file is gone; what a
    kill leaves is named ``.NAME.PROCESS-THREAD.partial``, where nobody looks for weights.

    A link stays one: what it points to is replaced. A device or a pipe is written to as it is.

    Args:
        path: The file to be; its folder exists.

    Yields:
        Where to write it.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path = path.resolve() if path.is_symlink() else path
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        yield partial
        flush(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _flush_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file `atomically`; its folder is created if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomically(path) as partial:
        partial.write_text(text, encoding="utf-8")


def is_text(name: str) -> bool:
    """Whether a file name can be encoded as UTF-8; on Linux it may be any bytes."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write a CSV file, a value of each row by column; whole or not at all.

    UTF-8; a name of a file that is none keeps its bytes. A folder that is missing is made: the
    rows took work.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomically(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_regular(path: Path) -> bytes:
    """The content of a file; an `OSError` for a pipe or a device, which may never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "It is no regular file")
    return path.read_bytes()


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
