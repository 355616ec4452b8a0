"""One file over HTTP: locked, resumed, checked, and only then in its place."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from senetzoo._files import atomically, flush

T = TypeVar("T")
# Beyond those that huggingface_hub makes itself: for a busy server, and to connect.
TRIES = 4
WAIT = 0.5


class WrongHashError(Exception):
    """The whole file arrived, and it is another one.

    Args:
        found: Its hash.
    """

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found


def sha256(path: Path) -> str:
    """Hash of a file, in lower-case hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """While it is held, no other process has the lock of the file `path`."""
    from huggingface_hub.utils import WeakFileLock

    folder = path.parent / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(folder / f"{path.name}.lock"):
        yield


def download(
    url: str, path: Path, *, expected: str | None, headers: dict[str, str] | None = None
) -> str:
    """Fetch a file, or wait until another process has done so.

    What was begun and broken off is gone on with, where the hash will tell whether both parts are
    of one file.

    Args:
        url: Its address.
        path: Where it goes; the folder is made.
        expected: Its sha256, or the start of it; None where it is not known.
        headers: Sent with each request, such as a token.

    Returns:
        Its sha256.

    Raises:
        WrongHashError: It has another hash; `path` is as it was.
        Exception: What huggingface_hub raises when the file can't be had.
    """
    with locked(path):
        if path.is_file():  # another process was faster
            return _checked(path, expected)
        if expected is None:
            with atomically(path) as partial:
                _fetch(url, partial, path.name, headers)
                return sha256(partial)
        partial = path.with_name(f".{path.name}.partial")
        resumed = partial.is_file()
        # A kill can come between the last byte and the new name.
        if not resumed or not sha256(partial).startswith(expected):
            _fetch(url, partial, path.name, headers)
        try:
            found = _checked(partial, expected)
        except WrongHashError:
            partial.unlink()
            if not resumed:
                raise
            _fetch(url, partial, path.name, headers)
            try:
                found = _checked(partial, expected)
            except WrongHashError:
                partial.unlink()
                raise
        flush(partial)
        partial.replace(path)
        return found


def _checked(path: Path, expected: str | None) -> str:
    found = sha256(path)
    if not found.startswith(expected or ""):
        raise WrongHashError(found)
    return found


def _fetch(url: str, partial: Path, name: str, headers: dict[str, str] | None) -> None:
    from huggingface_hub.file_download import http_get

    # A compressed body has no length to check, and no ranges.
    sent = {**(headers or {}), "Accept-Encoding": "identity"}

    def once() -> None:
        with partial.open("ab") as file:
            try:
                http_get(url, file, resume_size=file.tell(), headers=sent, displayed_filename=name)
            except Exception as error:
                # What is there is no beginning of the file: no such range, or another length.
                if status(error) == 416 or type(error) is OSError:
                    file.truncate(0)
                raise

    persistently(once)


def persistently(attempt: Callable[[], T]) -> T:
    """The result of `attempt`, tried again a few times where the next try may end otherwise.

    huggingface_hub has its own patience with servers that are busy, that can't be reached, or that
    say goodbye early; this adds to it connections that are reset and servers that fail.
    """
    for turn in range(1, TRIES):
        try:
            return attempt()
        except Exception as error:
            if not _passing(error):
                raise
        time.sleep(WAIT * turn)
    return attempt()


def status(error: BaseException) -> int | None:
    """The HTTP status that an error of huggingface_hub is about; None for others."""
    code = getattr(getattr(error, "response", None), "status_code", None)
    return code if isinstance(code, int) else None


def _passing(error: Exception) -> bool:
    code = status(error)
    if code is not None:
        return code == 416 or code >= 500
    # Of httpx, of requests; and huggingface_hub's of a length that is not right.
    names = ("ReadError", "ChunkedEncodingError", "OSError")
    return type(error).__name__ in names and getattr(error, "errno", None) is None
