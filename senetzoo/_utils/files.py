"""Users' paths, files that are written atomically, and folders with a single writer."""

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
    """A path from an argument, an option or a variable, with ``~`` expanded.

    As in a shell, ``~name`` is unchanged if there is no such user.

    Raises:
        ConfigError: It isn't a path; or HOME is not set, and the system doesn't know the user.
    """
    try:
        path = Path(path)
    except TypeError:
        raise ConfigError(
            f"A path can't be {path!r}.",
            "It is text or a pathlib.Path.",
            'Type for example: "runs"',
        ) from None
    try:
        return path.expanduser()
    except (RuntimeError, KeyError):
        if path.parts[0] != "~":
            return path
        raise ConfigError(
            f"{path} is in an unknown home folder.",
            "HOME is not set, and the system does not know the user.",
            remedy,
        ) from None


# Seconds; another process that saves a network is done by then.
_PATIENCE = 20.0


@contextmanager
def locked(file: Path, seconds: float | None = None) -> Iterator[None]:
    """Hold the lock `file`, exclusively among processes and threads.

    The system releases it when a process is killed, though the file remains.

    Args:
        file: The lock file; its folder exists.
        seconds: How long to wait; None to wait forever.

    Raises:
        TimeoutError: The lock wasn't released in time.
    """
    from huggingface_hub.utils import WeakFileLock

    with WeakFileLock(file, timeout=seconds):
        yield


@contextmanager
def only_writer(
    folder: Path, asked: str, remedy: str, seconds: float = _PATIENCE
) -> Iterator[None]:
    """Be the only process and thread that writes to `folder`.

    Args:
        folder: The folder; created if needed.
        asked: First line of the error message.
        remedy: Last line of the error message.
        seconds: How long to wait for another writer.

    Raises:
        ConfigError: Another process is writing to the folder.
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
            with contextlib.suppress(OSError):  # Windows doesn't delete open files
                file.unlink()


@contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """Write a temporary file in the same folder, which replaces `path` at the end.

    At any time, even after a crash, `path` is the old file, or missing, or the complete new file.
    After an error in the ``with`` block, `path` is unchanged and the temporary file is deleted. A
    killed process leaves ``.NAME.PROCESS-THREAD.partial``.

    The target of a link is replaced, not the link. A device or a pipe is written to directly.

    Args:
        path: The file; its folder exists.

    Yields:
        The path to write to.
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
    """Write a CSV file `atomically`, in UTF-8; its folder is created if needed.

    File names that aren't UTF-8 keep their bytes.
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
    """The content of a file; `OSError` for a pipe or a device, which may never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "It isn't a regular file")
    return path.read_bytes()


def flush(path: Path) -> None:
    """Wait until the content of a file is on disk, not only in the system's cache."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows can't open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
