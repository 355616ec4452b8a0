"""Files of manifest entries from mirrors, the Hub or addresses: locked, resumed, checked.

A file comes from this machine where it is (`cache.look`); else from the addresses of
SENETZOO_WEIGHTS; else from the Hub (HF_ENDPOINT) or its publisher's address.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

from senetzoo._utils.environment import bad_certificates, offline
from senetzoo._utils.files import atomically, flush
from senetzoo.errors import ConfigError, SenetzooError, WeightsError
from senetzoo.weights import cache
from senetzoo.weights.cache import Origin, VerifiedFile, WrongHashError
from senetzoo.weights.manifest import Entry

T = TypeVar("T")
HUB = "https://huggingface.co"
# Beyond those that huggingface_hub makes itself: for a busy server, and to connect.
TRIES = 4
WAIT = 0.5


def locate(tag: str, entry: Entry) -> VerifiedFile:
    """The file of `entry`, its hash checked, downloaded where it is not on this machine.

    A file of a cache with another hash is set aside, with a warning, and downloaded again.
    """
    entry = cache.completed(tag, entry)
    return _located(tag, entry, *cache.look(tag, entry), lasting=True)


def search(tag: str, entry: Entry) -> Callable[[], VerifiedFile]:
    """`locate`, begun in a thread: it looks on this machine, and does nothing else.

    What it gives then asks the network and moves files, and raises `WeightsError`. Where no cache
    can be written to, the file lasts as long as the process.
    """
    entry = cache.completed(tag, entry)
    executor = ThreadPoolExecutor(1, "senetzoo-hash")
    looking = executor.submit(cache.look, tag, entry)
    executor.shutdown(wait=False)
    return lambda: _located(tag, entry, *looking.result(), lasting=False)


def _located(
    tag: str,
    entry: Entry,
    file: VerifiedFile | None,
    damaged: list[WrongHashError],
    *,
    lasting: bool,
) -> VerifiedFile:
    for error in damaged:
        _set_aside(tag, error)
    file = file or _fetched(tag, entry, lasting=lasting)
    if not file.pinned:
        warnings.warn(
            f"No hash of the weights {tag} is published. {_recorded(tag, file)}", stacklevel=3
        )
    return file


def _recorded(tag: str, file: VerifiedFile) -> str:
    """Record the hash of a file that nobody states one of; a sentence that says so."""
    try:
        path = cache.record(tag, file)
    except (OSError, ConfigError) as error:
        if isinstance(error, OSError) and not cache.unwritable(error):
            raise
        why = getattr(error, "strerror", None) or "no home folder is known"
        return f"That of {file.path} can't be recorded ({why}), so nothing checks the next one."
    return f"That of {file.path} is recorded in {path}, and later files are held to it."


def update(tag: str, entry: Entry) -> VerifiedFile:
    """The file that the publisher has now, in place of the one of the lock file.

    The `entry` is one of whose file no publisher states a hash.
    """
    # The file that is there would be found.
    own = cache.cache_folder() / cache.file_names(tag, entry)[0]
    old = own.with_name(f"{own.name}.old")
    if own.is_file():
        own.replace(old)
    try:
        file = _fetched(tag, entry, mirrors=False)
        cache.record(tag, file, accept=True)
    except BaseException:  # Ctrl-C too
        if old.is_file():
            old.replace(own)
        raise
    old.unlink(missing_ok=True)
    return file


def _set_aside(tag: str, error: WrongHashError) -> None:
    bad = cache.set_aside(tag, error)
    if bad is not None:
        warnings.warn(
            f"The weights {tag} in {error.path} were damaged: {error.differs}. The file was set "
            f"aside as {bad} and is fetched again.",
            stacklevel=4,
        )


def copy_to(folder: Path, tag: str, entry: Entry) -> VerifiedFile:
    """A copy of the file of `entry` in `folder`, for SENETZOO_WEIGHTS of another machine."""
    folder.mkdir(parents=True, exist_ok=True)
    entry = cache.completed(tag, entry)
    target = folder / cache.file_names(tag, entry)[0]
    try:
        copy = cache.verify(tag, entry, target, "folder")
    except WrongHashError as error:
        _set_aside(tag, error)
        copy = None
    file = copy or cache.look(tag, entry)[0] or _fetched(tag, entry, folder)
    if file.path != target:
        with atomically(target) as partial:
            shutil.copyfile(file.path, partial)
    if not file.pinned:
        _recorded(tag, file)
    return dataclasses.replace(file, path=target)


def address(entry: Entry) -> str:
    """Where the publisher has the file of an entry that is not embedded."""
    source = entry.source
    if source.kind == "url":
        return source.url or ""
    return f"{endpoint() or HUB}/{source.repo}/resolve/{source.revision or 'main'}/{source.file}"


def endpoint() -> str | None:
    """Address of another Hub than the usual one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _fetched(
    tag: str,
    entry: Entry,
    folder: Path | None = None,
    *,
    lasting: bool = True,
    mirrors: bool = True,
) -> VerifiedFile:
    """The file of `entry`, which is not embedded, from a mirror or from its publisher.

    It goes to `folder`; without one, to the cache that its source has, or if it need not be
    `lasting`, to `spare`.
    """
    hub = entry.source.kind == "hub"
    variable = "HF_HOME" if hub else "SENETZOO_CACHE"
    if offline():
        size = f"{entry.bytes} bytes, " if entry.bytes is not None else ""
        known = f"{cache.kind_of(entry)} {entry.digest}{'...' * (entry.pinned == 'prefix')}"
        known = known if entry.pinned else "no hash is known"
        where = address(entry)
        where = f"in the archive {where}" if where.endswith(".zip") else f"from {where}"
        raise WeightsError(
            f"The weights {tag} are not on this machine, and HF_HUB_OFFLINE forbids to fetch them.",
            f"They are {cache.file_names(tag, entry)[0]} ({size}{known}) {where}",
            f"Put it into {cache.cache_folder()}, or into a folder that SENETZOO_WEIGHTS names; "
            f"with a network, this fetches it: senetzoo weights get {tag} --to FOLDER",
        )

    def fetch(folder: Path | None) -> VerifiedFile:
        return _from_anywhere(tag, entry, folder, mirrors)

    try:
        return fetch(folder) if folder or lasting else cache.or_spare(fetch, variable)
    except SenetzooError:
        raise
    except Exception as error:
        meaning, remedy = explain(
            error,
            page=f"{endpoint() or HUB}/{entry.source.repo}" if hub else "",
            others=f"Accept what the publisher has now: senetzoo weights get {tag} --update"
            if cache.is_locked(tag, entry)
            else f"Choose others: senetzoo weights list '{entry.model}.*'",
            instead=f"on another machine type senetzoo weights get {tag} --to FOLDER, copy the "
            "folder here and set SENETZOO_WEIGHTS=FOLDER",
            variable=variable,
        )
        raise WeightsError(
            f"The weights {tag} could not be fetched.", f"{address(entry)}: {meaning}.", remedy
        ) from error


def _from_anywhere(tag: str, entry: Entry, folder: Path | None, mirrors: bool) -> VerifiedFile:
    """The file from the first mirror that has it, else from its publisher."""
    for mirror in cache.search_path()[1] if mirrors else ():
        for name in cache.file_names(tag, entry):
            url = f"{mirror}/{name}"
            try:
                return _from_address(tag, entry, url, "mirror", folder)
            except SenetzooError:
                raise
            except Exception as error:
                if cache.unwritable(error):
                    raise
                if status(error) != 404:
                    meaning, _ = explain(error)
                    warnings.warn(f"{mirror} could not be used: {meaning}.", stacklevel=2)
                    break
    if entry.source.kind == "hub":
        return _from_the_hub(tag, entry, folder)
    return _from_address(tag, entry, address(entry), "url", folder)


def _from_address(
    tag: str,
    entry: Entry,
    url: str,
    origin: Origin,
    folder: Path | None,
    *,
    stated: str = "",
    revision: str | None = None,
    headers: dict[str, str] | None = None,
) -> VerifiedFile:
    path = (folder or cache.cache_folder()) / cache.file_names(tag, entry)[0]
    expected, kind = entry.digest or stated, cache.kind_of(entry)

    def digest(path: Path) -> str:
        with path.open("rb") as file:
            return cache.hash_of(file, kind)

    if url.endswith(".zip"):
        found = _unzipped(url, path, expected, digest, kind)
    else:
        found = download(url, path, expected=expected, headers=headers, digest=digest)
    if not found.startswith(expected):
        raise WrongHashError(tag, entry, path, origin, found, expected, url=url)
    sha256 = found if kind == "sha256" else cache.sha256(path)
    return VerifiedFile(path, origin, sha256, entry.pinned, revision)


def _from_the_hub(tag: str, entry: Entry, folder: Path | None) -> VerifiedFile:
    """The file in `folder`, or in the Hub's own cache, which other programs use too."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    repo, file, revision = entry.source.repo or "", entry.source.file, entry.source.revision
    if folder is not None:
        # huggingface_hub begins anew what was broken off; large files over a slow line must not.
        url = hf_hub_url(repo, file, revision=revision, endpoint=endpoint())
        known: dict[str, Any] = {"headers": build_hf_headers()}
        if not entry.pinned:
            about = persistently(lambda: get_hf_file_metadata(url))
            stated = about.etag if re.fullmatch("[0-9a-f]{64}", about.etag or "") else ""
            known |= {"stated": stated, "revision": about.commit_hash}
        return _from_address(tag, entry, url, "hub", folder, **known)
    there = cache.hub_cache()
    path = persistently(
        lambda: hf_hub_download(repo, file, revision=revision, endpoint=endpoint(), cache_dir=there)
    )
    try:
        verified = cache.verify(tag, entry, Path(path), "hub", address(entry))
    except WrongHashError as error:
        with contextlib.suppress(WeightsError):
            cache.set_aside(tag, error)
        raise
    if verified is None:
        raise FileNotFoundError(path)
    return verified


def _unzipped(
    url: str,
    path: Path,
    expected: str,
    digest: Callable[[Path], str],
    kind: Literal["sha256", "sha1"],
) -> str:
    """`download` of a zip archive of the file alone, which is what goes to `path`."""

    def inside(archive: Path) -> str:
        try:
            with _member(archive) as file:
                return cache.hash_of(file, kind)
        # zipfile raises anything for what is no whole archive.
        except Exception as error:
            return f"unknown ({error})"

    with cache.locked(path):
        if path.is_file():  # another process was faster
            return digest(path)
        archive = path.with_name(f"{path.name}.zip")
        try:
            found = download(url, archive, expected=expected, digest=inside)
            if found.startswith(expected):
                with (
                    _member(archive) as file,
                    atomically(path) as partial,
                    partial.open("wb") as target,
                ):
                    shutil.copyfileobj(file, target)
        finally:
            archive.unlink(missing_ok=True)
        return found


@contextlib.contextmanager
def _member(archive: Path) -> Iterator[IO[bytes]]:
    """The only file of a zip archive; `ValueError` for more, and for one with a path."""
    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist()
        if len(names) != 1:
            raise ValueError(f"there are {len(names)} files in the zip archive, not one")
        if Path(names[0]).name != names[0] or "\\" in names[0] or ":" in names[0]:
            raise ValueError(f"the file in the zip archive is called {names[0]!r}, which is a path")
        with opened.open(names[0]) as file:
            yield file


def download(
    url: str,
    path: Path,
    *,
    expected: str = "",
    headers: dict[str, str] | None = None,
    digest: Callable[[Path], str] = cache.sha256,
) -> str:
    """Download a file to `path`, or wait until another process has done so; its hash by `digest`.

    An interrupted download resumes where `expected`, the hash or the start of it, will tell whether
    both parts are of one file. If the hash is another one, nothing is put in the place of `path`.
    What huggingface_hub raises is explained by `explain`.
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
        # A kill can come between the last byte and the new name.
        found = digest(partial) if resumed else None
        for _ in range(2 if resumed else 1):  # what was there may be of another file
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


def _passing(error: Exception) -> bool:
    code = status(error)
    if code is not None:
        return code == 416 or code >= 500
    # Of httpx, of requests; and huggingface_hub's of a length that is not right.
    names = ("ReadError", "ChunkedEncodingError", "OSError")
    return type(error).__name__ in names and getattr(error, "errno", None) is None


def status(error: BaseException) -> int | None:
    """The HTTP status that an error of huggingface_hub is about; None for others."""
    code = getattr(getattr(error, "response", None), "status_code", None)
    return code if isinstance(code, int) else None


# Exceptions of huggingface_hub or HTTP statuses, what they mean, and what to type; the first row
# that fits is taken.
_ERRORS: tuple[tuple[str, str, str], ...] = (
    (
        "GatedRepoError",
        "its owner gives access to some only, and not to this token, or there is no token ({code})",
        "Ask for access at {page}, and type: hf auth login",
    ),
    (
        "RepositoryNotFoundError",
        "there is no such repository, or it is a private one that this token, or no token, does "
        "not open ({code})",
        "Check the name at {page}; for a private one type: hf auth login",
    ),
    ("RevisionNotFoundError", "there is no such branch, tag or full commit ({code})", "{others}"),
    ("404", "there is no such file (404)", "{others}"),
    ("401 403", "access is refused ({code})", "{others}"),
    ("429", "the server is busy (429)", "Try again later"),
    ("status", "the server answered with {code}", "Try again later"),
    (
        "certificates",
        "{certificates} names certificates that can't be read ({error})",
        "Set {certificates} to the file of your certificates, or unset it",
    ),
    ("errno", "{error}", "Make room, or set {variable} to a folder that can be written to"),
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
    """What an error of a download means, in a few words, and what to type.

    Args:
        error: Of huggingface_hub, or of what it calls.
        page: Address of the Hub's repository; empty for a file from elsewhere.
        others: What to type for another file: ``"Choose others: ..."``.
        instead: What to do without a network here: ``"copy the files ..."``.
        variable: The variable that names the folder of the file.
    """
    # huggingface_hub wraps errors in its own 'not on this machine either'.
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
