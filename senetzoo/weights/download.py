"""Getting the files of manifest entries, which are checked and, if needed, downloaded.

A file is taken from this machine if it is there (`cache.look`), else from the addresses in
SENETZOO_WEIGHTS, else from the Hub (HF_ENDPOINT) or its publisher's address.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any

from senetzoo._utils.environment import offline
from senetzoo._utils.files import atomically
from senetzoo.errors import ConfigError, SenetzooError, WeightsError
from senetzoo.weights import cache
from senetzoo.weights.cache import HashKind, Origin, VerifiedFile, WrongHashError
from senetzoo.weights.http import download, endpoint, explain, persistently, status
from senetzoo.weights.manifest import Entry


def locate(tag: str, entry: Entry) -> VerifiedFile:
    """The checked file of `entry`, downloaded if it isn't on this machine.

    A cached file with a wrong hash is set aside, with a warning, and replaced.
    """
    entry = cache.completed(tag, entry)
    return _located(tag, entry, *cache.look(tag, entry), lasting=True)


def search(tag: str, entry: Entry) -> Callable[[], VerifiedFile]:
    """Start `locate` in a thread, which only looks on this machine.

    The function that is returned finishes it: it downloads or moves files, and raises
    `WeightsError`. If no cache is writable, the file is kept until the process ends.
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
            f"The publisher of the weights {tag} states no hash. {_recorded(tag, file)}",
            stacklevel=3,
        )
    return file


def _recorded(tag: str, file: VerifiedFile) -> str:
    """Record the hash of a file whose publisher states none, and return a sentence about it."""
    try:
        path = cache.record(tag, file)
    except (OSError, ConfigError) as error:
        if isinstance(error, OSError) and not cache.unwritable(error):
            raise
        why = getattr(error, "strerror", None) or "no home folder is known"
        return f"That of {file.path} can't be recorded ({why}), so later files can't be checked."
    return f"That of {file.path} is recorded in {path}, and later files have to match it."


def update(tag: str, entry: Entry) -> VerifiedFile:
    """Replace the file in the lock file by the publisher's current one.

    The publisher of `entry` states no hash.
    """
    # Move the old file, which would be found otherwise.
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
            f"The weights {tag} in {error.path} were damaged: {error.differs}. The file was moved "
            f"to {bad} and is replaced.",
            stacklevel=4,
        )


def copy_to(folder: Path, tag: str, entry: Entry) -> VerifiedFile:
    """Copy the file of `entry` to `folder`, for SENETZOO_WEIGHTS on another machine."""
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
        with atomically(target) as copied:
            shutil.copyfile(file.path, copied)
    if not file.pinned:
        _recorded(tag, file)
    return dataclasses.replace(file, path=target)


def address(entry: Entry) -> str:
    """The publisher's address of the file of an entry that isn't embedded."""
    source = entry.source
    if source.kind == "url":
        return source.url or ""
    return f"{endpoint()}/{source.repo}/resolve/{source.revision or 'main'}/{source.file}"


def _fetched(
    tag: str,
    entry: Entry,
    folder: Path | None = None,
    *,
    lasting: bool = True,
    mirrors: bool = True,
) -> VerifiedFile:
    """Download the file of `entry`, which isn't embedded, from a mirror or its publisher.

    It goes to `folder`, or else to the cache. If the cache isn't writable and the file needn't be
    `lasting`, it goes to `cache.spare`.
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
            f"The weights {tag} are not on this machine, and HF_HUB_OFFLINE forbids downloads.",
            f"They are {cache.file_names(tag, entry)[0]} ({size}{known}) {where}",
            f"Put the file into {cache.cache_folder()}, or into a folder in SENETZOO_WEIGHTS; "
            f"with a network, get it by: senetzoo weights get {tag} --to FOLDER",
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
            page=f"{endpoint()}/{entry.source.repo}" if hub else "",
            others=f"Accept the publisher's current file: senetzoo weights get {tag} --update"
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
    if url.endswith(".zip"):
        found = _unzipped(url, path, expected, kind)
    else:
        digest = partial(cache.hash_of, kind=kind)
        found = download(url, path, expected=expected, headers=headers, digest=digest)
    if not found.startswith(expected):
        raise WrongHashError(tag, entry, path, origin, found, expected, url=url)
    sha256 = found if kind == "sha256" else cache.sha256(path)
    return VerifiedFile(path, origin, sha256, entry.pinned, revision)


def _from_the_hub(tag: str, entry: Entry, folder: Path | None) -> VerifiedFile:
    """Download to `folder`, or to the Hub's cache, which other programs share."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    repo, file, revision = entry.source.repo or "", entry.source.file, entry.source.revision
    if folder is not None:
        # huggingface_hub would restart an interrupted download, this resumes it.
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


def _unzipped(url: str, path: Path, expected: str, kind: HashKind) -> str:
    """Download a zip archive that has one file, and put that file at `path`; its hash."""

    def inside(archive: Path) -> str:
        try:
            with _member(archive) as file:
                return cache.hash_of(file, kind)
        # zipfile raises many kinds of errors for a damaged archive.
        except Exception as error:
            return f"unknown ({error})"

    with cache.locked(path):
        if path.is_file():  # another process was faster
            return cache.hash_of(path, kind)
        archive = path.with_name(f"{path.name}.zip")
        try:
            found = download(url, archive, expected=expected, digest=inside)
            if found.startswith(expected):
                with (
                    _member(archive) as file,
                    atomically(path) as unpacked,
                    unpacked.open("wb") as target,
                ):
                    shutil.copyfileobj(file, target)
        finally:
            archive.unlink(missing_ok=True)
        return found


@contextlib.contextmanager
def _member(archive: Path) -> Iterator[IO[bytes]]:
    """The only file in a zip archive; `ValueError` for several files, or for one with a path."""
    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist()
        if len(names) != 1:
            raise ValueError(f"there are {len(names)} files in the zip archive, not one")
        if Path(names[0]).name != names[0] or "\\" in names[0] or ":" in names[0]:
            raise ValueError(f"the file in the zip archive is called {names[0]!r}, which is a path")
        with opened.open(names[0]) as file:
            yield file
