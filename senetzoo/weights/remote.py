"""A file that is not on this machine: from a mirror, the Hub or its publisher's address."""

from __future__ import annotations

import contextlib
import re
import shutil
import warnings
from pathlib import Path

from senetzoo._files import atomically
from senetzoo.errors import WeightsError
from senetzoo.weights import places
from senetzoo.weights.download import WrongHashError, download, persistently, sha256, status
from senetzoo.weights.located import Located, Origin, Place
from senetzoo.weights.manifest import Entry


def fetched(tag: str, entry: Entry, folder: Path | None = None) -> Located:
    """The file of `entry`, its hash checked.

    Args:
        tag: Manifest entry.
        entry: Its content; not an embedded one.
        folder: Where the file goes; None for the cache that its source has.

    Raises:
        WeightsError: It can't be had, or must not be (SENETZOO_OFFLINE), or its hash differs.
    """
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
        if entry.source.kind == "url":
            return _from_url(tag, entry, places.address(entry), "url", folder)
        if folder is None:
            return _into_the_hubs_cache(tag, entry)
        return _from_the_hub(tag, entry, folder)
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
            place = Place(tag, entry, mirror / name, "mirror")
            found = place.hash()
            if found is None:
                continue
            if not place.right(found):
                raise place.refusal(found)
            return place.located(found) if folder is None else copied(place, found, folder)
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


def copied(place: Place, found: str, folder: Path) -> Located:
    """A copy in `folder` of a file with the right hash `found`."""
    target = folder / places.file_names(place.tag, place.entry)[0]
    with atomically(target) as partial:
        shutil.copyfile(place.path, partial)
    return Place(place.tag, place.entry, target, place.origin).located(found)


def _from_url(
    tag: str,
    entry: Entry,
    url: str,
    origin: Origin,
    folder: Path | None,
    *,
    stated: str = "",
    headers: dict[str, str] | None = None,
) -> Located:
    path = (folder or places.cache()) / places.file_names(tag, entry)[0]
    place = Place(tag, entry, path, origin, stated)
    try:
        found = download(url, path, expected=place.expected or None, headers=headers)
    except WrongHashError as error:
        raise place.refusal(error.found, url) from None
    return place.located(found)


def _into_the_hubs_cache(tag: str, entry: Entry) -> Located:
    """The file in the Hub's own cache, which other programs use too."""
    from huggingface_hub import hf_hub_download

    repo, file, revision = entry.source.repo or "", entry.source.file, entry.source.revision
    endpoint = places.endpoint()
    path = persistently(lambda: hf_hub_download(repo, file, revision=revision, endpoint=endpoint))
    place = Place(tag, entry, Path(path), "hub")
    found = sha256(place.path)
    if place.right(found):
        return place.located(found)
    refusal = place.refusal(found, places.address(entry))
    with contextlib.suppress(WeightsError):
        place.set_aside(found)
    raise refusal


def _from_the_hub(tag: str, entry: Entry, folder: Path) -> Located:
    """The file in a folder.

    huggingface_hub begins anew what was broken off; large files over a slow line must not.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    source = entry.source
    url = hf_hub_url(
        source.repo or "", source.file, revision=source.revision, endpoint=places.endpoint()
    )
    stated = ""
    if not entry.pinned:
        etag = persistently(lambda: get_hf_file_metadata(url)).etag or ""
        stated = etag if re.fullmatch("[0-9a-f]{64}", etag) else ""
    return _from_url(tag, entry, url, "hub", folder, stated=stated, headers=build_hf_headers())


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
        return f"Choose others: senetzoo weights list '{entry.model}.*'"
    if code is not None:
        return "Try again later"
    if isinstance(error, OSError) and error.errno is not None:
        variable = "HF_HOME" if entry.source.kind == "hub" else "SENETZOO_CACHE"
        return f"Make room, or set {variable} to a folder that can be written to"
    return (
        f"Check the network; or on another machine type senetzoo weights get {tag} --to FOLDER, "
        "bring the folder and set SENETZOO_WEIGHTS=FOLDER"
    )
