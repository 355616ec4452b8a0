"""From a manifest entry to a file with the hash that it states.

The order of look-up: embedded; the caches, senetzoo's own and the Hub's; the folders of
SENETZOO_WEIGHTS; the mirror of SENETZOO_MIRROR; the Hub (HF_ENDPOINT) or the publisher's address.
Up to the folders nothing touches the network.
"""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from senetzoo._files import atomically
from senetzoo.errors import WeightsError
from senetzoo.weights import places
from senetzoo.weights.download import WrongHashError, download, locked, persistently, status
from senetzoo.weights.download import sha256 as sha256
from senetzoo.weights.manifest import Entry

EMBEDDED = Path(__file__).parent / "embedded"
Origin = Literal["embedded", "cache", "folder", "mirror", "hub", "url"]
Pinned = Literal["sha256", "prefix", ""]


@dataclass(frozen=True)
class Located:
    """A file that has the hash its manifest entry states.

    Args:
        path: The file.
        origin: ``"embedded"``, ``"cache"``, ``"folder"`` (of SENETZOO_WEIGHTS), ``"mirror"``,
            ``"hub"`` or ``"url"``.
        sha256: Its hash.
        pinned: What it was checked by: ``"sha256"``, ``"prefix"`` of it, or nothing.
    """

    path: Path
    origin: Origin
    sha256: str
    pinned: Pinned


@dataclass(frozen=True)
class _Place:
    """A file that may be the one that is looked for."""

    path: Path
    origin: Origin


class Search:
    """The look-up of one file: what is on this machine is found at once, and hashed in a thread.

    The thread reads one file and does nothing else; all that asks the network or moves files
    happens in `result`.

    Raises:
        WeightsError: An embedded file is missing, or a variable names no folder.
    """

    def __init__(self, tag: str, entry: Entry) -> None:
        self._tag, self._entry = tag, entry
        self._places = _on_this_machine(tag, entry)
        self._first = next(self._places, None)
        self._hash: Future[str] | None = None
        if self._first is not None:
            executor = ThreadPoolExecutor(1, "senetzoo-hash")
            self._hash = executor.submit(sha256, self._first.path)
            executor.shutdown(wait=False)

    def result(self) -> Located:
        """The file, its hash checked, fetched where it has to be.

        Raises:
            WeightsError: It can't be had, or its hash differs.
        """
        located = self._here() or _fetched(self._tag, self._entry, None)
        if not located.pinned:
            warnings.warn(
                f"The weights {self._tag} are not pinned: no hash of "
                f"{places.address(self._entry)} is known to check them by.",
                stacklevel=3,
            )
        return located

    def _here(self) -> Located | None:
        tag, entry = self._tag, self._entry
        place, hashed = self._first, self._hash
        while place is not None:
            found = _hash(tag, place, hashed)
            if found is not None:
                if found.startswith(_expected(entry)):
                    return _located(entry, place, found)
                if place.origin != "cache":
                    raise _other(tag, entry, place, found)
                _set_aside(tag, entry, place, found)
            place, hashed = next(self._places, None), None
        return None


def locate(tag: str, entry: Entry) -> Located:
    """The file of `entry`, its hash checked, fetched where it is not on this machine.

    A file of a cache with another hash is set aside, with a warning, and fetched again.

    Raises:
        WeightsError: It can't be had, or its hash differs.
    """
    return Search(tag, entry).result()


def here(tag: str, entry: Entry) -> Path | None:
    """Where the file of `entry` is on this machine, unchecked; None where it is not there."""
    place = next(_on_this_machine(tag, entry), None)
    return None if place is None else place.path


def check(tag: str, entry: Entry) -> Located | None:
    """The file of `entry` as it is on this machine, its hash checked; None where it is not there.

    Nothing is fetched and nothing is moved.

    Raises:
        WeightsError: Its hash differs, or an embedded file is missing.
    """
    place = next(_on_this_machine(tag, entry), None)
    if place is None:
        return None
    found = _hash(tag, place)
    if found is None:
        return None
    if not found.startswith(_expected(entry)):
        raise _other(tag, entry, place, found)
    return _located(entry, place, found)


def bring(tag: str, entry: Entry, folder: Path) -> Located:
    """A copy of the file of `entry` in `folder`, for SENETZOO_WEIGHTS of another machine.

    Args:
        tag: Manifest entry.
        entry: Its content.
        folder: Where the copy goes; it is made.

    Raises:
        WeightsError: It can't be had, or its hash differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / places.file_names(tag, entry)[0]
    if target.is_file():
        found = sha256(target)
        if found.startswith(_expected(entry)):
            return _located(entry, _Place(target, "folder"), found)
        _set_aside(tag, entry, _Place(target, "folder"), found)
    here = check(tag, entry)
    if here is None:
        return _fetched(tag, entry, folder)
    with atomically(target) as partial:
        shutil.copyfile(here.path, partial)
    return _located(entry, _Place(target, here.origin), here.sha256)


def _hash(tag: str, place: _Place, hashed: Future[str] | None = None) -> str | None:
    """Hash of a file, from the thread where one reads it.

    None for a file that is not there, or no longer: another process may have set it aside.
    """
    try:
        return sha256(place.path) if hashed is None else hashed.result()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and place.origin != "embedded":
            return None
        raise WeightsError(
            f"The weights {tag} can't be read.",
            f"{place.path}: {error.strerror}.",
            "Let yourself read the file, or remove it",
        ) from error


def _expected(entry: Entry) -> str:
    return entry.sha256 or entry.sha256_prefix or ""


def _located(entry: Entry, place: _Place, found: str) -> Located:
    return Located(place.path, place.origin, found, entry.pinned)


def _on_this_machine(tag: str, entry: Entry) -> Iterator[_Place]:
    """Where the file may be without a network, in the order of look-up."""
    source = entry.source
    if source.kind == "embedded":
        path = EMBEDDED / source.file
        if not path.is_file():
            raise WeightsError(
                f"The weights {tag} are missing from this installation.",
                f"Looked for {path}.",
                "Install senetzoo again",
            )
        yield _Place(path, "embedded")
        return
    names = places.file_names(tag, entry)
    own = places.cache() / names[0]
    if own.is_file():
        yield _Place(own, "cache")
    if source.kind == "hub":
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(source.repo or "", source.file, revision=source.revision)
        if isinstance(cached, str):
            yield _Place(Path(cached), "cache")
    for folder in places.folders():
        for name in names:
            if (folder / name).is_file():
                yield _Place(folder / name, "folder")


def _set_aside(tag: str, entry: Entry, place: _Place, found: str) -> None:
    """Rename a file with the hash `found`, which is not that of `entry`, so that nobody reads it.

    The Hub's cache has a link in the folder of a commit to a blob. A blob that is named by its
    own hash is whole: it belongs to another commit, and stays.
    """
    path = place.path.resolve()
    if path.name == found:
        return
    bad = path.with_name(f"{path.name}.bad")
    try:
        with locked(places.cache() / tag):
            # Another process may have done this, and fetched the right file since.
            if not path.is_file() or sha256(path) != found:
                return
            path.replace(bad)
            if place.path.is_symlink():
                place.path.unlink()
    except OSError as error:
        raise WeightsError(
            f"The weights {tag} are not the published ones, and can't be set aside.",
            f"{place.path} has the sha256 {found}, the manifest has {_hash_of(entry)}; "
            f"{error.strerror}.",
            f"Delete {path} and try again",
        ) from error
    warnings.warn(
        f"The weights {tag} in {place.path} were damaged: sha256 {found}, the manifest has "
        f"{_hash_of(entry)}. The file was set aside as {bad} and is fetched again.",
        stacklevel=2,
    )


def _hash_of(entry: Entry) -> str:
    return entry.sha256 or f"{entry.sha256_prefix}..."


def _other(tag: str, entry: Entry, place: _Place, found: str, where: str = "") -> WeightsError:
    """The error of a file with another hash."""
    remedies = {
        "embedded": "Install senetzoo again",
        "cache": f"Type: senetzoo weights get {tag}",
        "folder": "Replace the file, or take its folder out of SENETZOO_WEIGHTS",
        "mirror": "Replace the file there, or unset SENETZOO_MIRROR",
    }
    model = tag.partition(".")[0]
    return WeightsError(
        f"The weights {tag} are not the published ones.",
        f"{where or place.path} has the sha256 {found}, the manifest has {_hash_of(entry)}.",
        remedies.get(
            place.origin, f"Try again; or choose others: senetzoo weights list '{model}.*'"
        ),
    )


# --- The network ---------------------------------------------------------------------------------


def _fetched(tag: str, entry: Entry, folder: Path | None) -> Located:
    """The file from a mirror or its source, into `folder` or, with None, into a cache."""
    located = _from_mirror(tag, entry, folder)
    if located is not None:
        return located
    variable = places.offline()
    if variable:
        raise WeightsError(
            f"The weights {tag} are not on this machine, and {variable} forbids to fetch them.",
            f"Bring {places.description(tag, entry)} from {places.address(entry)}",
            f"Put it into {places.cache()}, or into a folder that SENETZOO_WEIGHTS names; with a "
            f"network, this fetches it: senetzoo weights get {tag} --to FOLDER",
        )
    try:
        if entry.source.kind == "hub":
            return _from_hub(tag, entry, folder)
        return _from_url(tag, entry, places.address(entry), "url", folder)
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(
            f"The weights {tag} could not be fetched.",
            f"{places.address(entry)}: {_reason(error)}.",
            _remedy(tag, entry, error),
        ) from error


def _from_mirror(tag: str, entry: Entry, folder: Path | None) -> Located | None:
    """The file from SENETZOO_MIRROR; None where there is none, or it has it not."""
    mirror = places.mirror()
    if mirror is None or (isinstance(mirror, str) and places.offline()):
        return None
    for name in places.file_names(tag, entry):
        if isinstance(mirror, Path):
            place = _Place(mirror / name, "mirror")
            found = _hash(tag, place)
            if found is None:
                continue
            if not found.startswith(_expected(entry)):
                raise _other(tag, entry, place, found)
            if folder is None:
                return _located(entry, place, found)
            target = folder / places.file_names(tag, entry)[0]
            with atomically(target) as partial:
                shutil.copyfile(place.path, partial)
            return _located(entry, _Place(target, "mirror"), found)
        try:
            return _from_url(tag, entry, f"{mirror}/{name}", "mirror", folder)
        except WeightsError:
            raise
        except Exception as error:
            if status(error) != 404:
                warnings.warn(
                    f"The mirror {mirror} could not be used: {_reason(error)}.", stacklevel=2
                )
                return None
    return None


def _from_url(
    tag: str,
    entry: Entry,
    url: str,
    origin: Origin,
    folder: Path | None,
    headers: dict[str, str] | None = None,
) -> Located:
    path = (folder or places.cache()) / places.file_names(tag, entry)[0]
    try:
        found = download(url, path, expected=_expected(entry) or None, headers=headers)
    except WrongHashError as error:
        raise _other(tag, entry, _Place(path, origin), error.found, url) from None
    return _located(entry, _Place(path, origin), found)


def _from_hub(tag: str, entry: Entry, folder: Path | None) -> Located:
    from huggingface_hub import hf_hub_download, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    repo, file, revision = entry.source.repo or "", entry.source.file, entry.source.revision
    endpoint = places.endpoint()
    if folder is not None:
        # huggingface_hub begins anew what was broken off; large files for a slow line must not.
        url = hf_hub_url(repo, file, revision=revision, endpoint=endpoint)
        return _from_url(tag, entry, url, "hub", folder, build_hf_headers())
    path = persistently(lambda: hf_hub_download(repo, file, revision=revision, endpoint=endpoint))
    place = _Place(Path(path), "hub")
    found = sha256(place.path)
    if found.startswith(_expected(entry)):
        return _located(entry, place, found)
    with contextlib.suppress(WeightsError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the error says it
        _set_aside(tag, entry, place, found)
    raise _other(tag, entry, place, found, places.address(entry))


def _cause(error: BaseException) -> BaseException:
    """The error that huggingface_hub wrapped in its own 'not on this machine either'."""
    while isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _reason(error: BaseException) -> str:
    """What went wrong, in a few words."""
    error = _cause(error)
    code = status(error)
    if code == 404:
        return "there is no such file (404)"
    if code in (401, 403):
        return f"access is refused, or there is no such repository ({code})"
    if code == 429:
        return "the server is busy (429)"
    if code is not None:
        return f"the server answered with {code}"
    first = str(error).strip().splitlines()[:1]
    return " ".join([f"{type(error).__name__}:", *first]).rstrip(".:")


def _remedy(tag: str, entry: Entry, error: BaseException) -> str:
    error = _cause(error)
    code = status(error)
    if code in (401, 403) and entry.source.kind == "hub":
        page = f"{places.endpoint() or places.HUB}/{entry.source.repo}"
        return f"Accept the terms at {page} where it asks for that, and type: hf auth login"
    if code in (401, 403, 404):
        return f"Choose others: senetzoo weights list '{tag.partition('.')[0]}.*'"
    if code is not None:
        return "Try again later"
    if isinstance(error, OSError) and error.errno is not None:
        variable = "HF_HOME" if entry.source.kind == "hub" else "SENETZOO_CACHE"
        return f"Make room, or set {variable} to a folder that can be written to"
    return (
        f"Check the network; or on another machine type senetzoo weights get {tag} --to FOLDER, "
        "bring the folder and set SENETZOO_WEIGHTS=FOLDER"
    )
