"""Downloads over HTTP: resumed, locked, retried, and with errors explained."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from senetzoo._utils.environment import bad_certificates
from senetzoo._utils.files import atomically, flush
from senetzoo.weights import cache

T = TypeVar("T")
# In addition to the retries of huggingface_hub, which cover busy servers and failed connections.
TRIES = 4
WAIT = 0.5


def endpoint() -> str:
    """Address of the Hub: HF_ENDPOINT, or the usual one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def download(
    url: str,
    path: Path,
    *,
    expected: str = "",
    headers: dict[str, str] | None = None,
    digest: Callable[[Path], str] = cache.sha256,
) -> str:
    """Download a file to `path`, or wait until another process has done so.

    Args:
        url: Address of the file.
        path: Where it goes, if its hash is right.
        expected: The hash or its start. A later call resumes an interrupted download only if this
            is given, because otherwise nothing shows whether both parts are from the same file.
        headers: Further HTTP headers.
        digest: Computes the hash.

    Returns:
        The hash of the file.
    """
    with cache.locked(path):
        if path.is_file():  # another process was faster
            return digest(path)
        if not expected:
            with atomically(path) as partial:
                _get(url, partial, path.name, headers)
                return digest(partial)
        partial = path.with_name(f".{path.name}.partial")
        resumed = partial.is_file()
        # The process may have been killed between the last byte and the renaming.
        found = digest(partial) if resumed else None
        for _ in range(2 if resumed else 1):  # the first part may be from another file
            if found is None or not found.startswith(expected):
                _get(url, partial, path.name, headers)
                found = digest(partial)
            if found.startswith(expected):
                flush(partial)
                partial.replace(path)
                break
            partial.unlink()
        return found or ""


def _get(url: str, partial: Path, name: str, headers: dict[str, str] | None) -> None:
    from huggingface_hub.file_download import http_get

    # Compressed responses have no length to check, and no ranges.
    sent = {**(headers or {}), "Accept-Encoding": "identity"}

    def once() -> None:
        with partial.open("ab") as file:
            try:
                http_get(url, file, resume_size=file.tell(), headers=sent, displayed_filename=name)
            except Exception as error:
                # The first part isn't the beginning of this file: wrong range or length.
                if status(error) == 416 or type(error) is OSError:
                    file.truncate(0)
                raise

    persistently(once)


def persistently(attempt: Callable[[], T]) -> T:
    """The result of `attempt`, which is retried after temporary errors.

    huggingface_hub itself retries busy and unreachable servers and early disconnects; this adds
    reset connections and server errors.
    """
    with _logged_once():
        for turn in range(1, TRIES):
            try:
                return attempt()
            except Exception as error:
                if not _passing(error):
                    raise
            time.sleep(WAIT * turn)
        return attempt()


@contextlib.contextmanager
def _logged_once() -> Iterator[None]:
    """Let huggingface_hub log each kind of warning once, since it logs each of its retries."""
    # It logs two lines for each: what happened, and when it tries again.
    seen = {"Retrying in "}

    def first(record: logging.LogRecord) -> bool:
        kind = record.getMessage()[:12]  # what follows differs: the seconds, the address
        if record.levelno == logging.WARNING and kind in seen:
            return False
        seen.add(kind)
        return True

    loggers = [logging.getLogger(f"huggingface_hub.{n}") for n in ("file_download", "utils._http")]
    for logger in loggers:
        logger.addFilter(first)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(first)


def _passing(error: Exception) -> bool:
    code = status(error)
    if code is not None:
        return code == 416 or code >= 500
    # From httpx, from requests, and from huggingface_hub for a wrong length.
    names = ("ReadError", "ChunkedEncodingError", "OSError")
    return type(error).__name__ in names and getattr(error, "errno", None) is None


def status(error: BaseException) -> int | None:
    """The HTTP status of an error of huggingface_hub; None for other errors."""
    code = getattr(getattr(error, "response", None), "status_code", None)
    return code if isinstance(code, int) else None


# Exceptions of huggingface_hub or HTTP statuses, what they mean, and what to type; the first match
# counts.
_ERRORS: tuple[tuple[str, str, str], ...] = (
    (
        "GatedRepoError",
        "access to the repository is restricted, and this token, or no token, has none ({code})",
        "Request access at {page}, and type: hf auth login",
    ),
    (
        "RepositoryNotFoundError",
        "there is no such repository, or it is private and this token, or no token, has no access "
        "({code})",
        "Check the name at {page}; for a private repository type: hf auth login",
    ),
    ("RevisionNotFoundError", "there is no such branch, tag or full commit ({code})", "{others}"),
    ("404", "there is no such file (404)", "{others}"),
    ("401 403", "access is denied ({code})", "{others}"),
    ("429", "the server is busy (429)", "Try again later"),
    ("status", "the server answered with {code}", "Try again later"),
    (
        "certificates",
        "{certificates} names certificates that can't be read ({error})",
        "Set {certificates} to the file of your certificates, or unset it",
    ),
    ("errno", "{error}", "Free some space, or set {variable} to a writable folder"),
    ("", "{error}", "Check the network; or {instead}"),
)


def explain(
    error: BaseException,
    *,
    page: str = "",
    others: str = "",
    instead: str = "",
    variable: str = "HF_HOME",
) -> tuple[str, str]:
    """What a download error means, in a few words, and what to type.

    Args:
        error: An error of huggingface_hub, or of a library that it uses.
        page: Address of the repository on the Hub; empty for files from elsewhere.
        others: What to type for another file: ``"Choose others: ..."``.
        instead: What to do without a network: ``"copy the files ..."``.
        variable: The environment variable for the folder of the file.
    """
    # huggingface_hub wraps errors in its own FileNotFoundError.
    while isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    code = status(error)
    has_errno = isinstance(error, OSError) and error.errno is not None
    kinds = {str(code), "status"} if code is not None else {"errno"} if has_errno else set()
    certificates = bad_certificates(error) if code is None else None
    if certificates:
        kinds.add("certificates")
    if page:
        kinds |= {kind.__name__ for kind in type(error).__mro__}
    meaning, remedy = next(
        (meaning, remedy)
        for known, meaning, remedy in _ERRORS
        if not known or kinds & set(known.split())
    )
    first = str(error).strip().splitlines()[:1]
    text = " ".join([f"{type(error).__name__}:", *first]).rstrip(".:")
    return meaning.format(code=code, error=text, certificates=certificates), remedy.format(
        page=page, others=others, instead=instead, variable=variable, certificates=certificates
    )
