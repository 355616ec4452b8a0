"""From a manifest entry to a file with the hash that it states.

The order of look-up: embedded; the caches, senetzoo's own and the Hub's; the folders of
SENETZOO_WEIGHTS; the mirror of SENETZOO_MIRROR; the Hub (HF_ENDPOINT) or the publisher's address.
Up to the folders nothing touches the network.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from senetzoo.errors import WeightsError
from senetzoo.weights import places
from senetzoo.weights.download import sha256 as sha256
from senetzoo.weights.located import Located as Located
from senetzoo.weights.located import Place
from senetzoo.weights.manifest import Entry
from senetzoo.weights.remote import copied, fetched

EMBEDDED = Path(__file__).parent / "embedded"


class Search:
    """The look-up of one file: what is on this machine is found at once, and hashed in a thread.

    The thread reads one file and does nothing else; all that asks the network or moves files
    happens in `result`.

    Args:
        tag: Manifest entry.
        entry: Its content.

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
        located = self._here() or fetched(self._tag, self._entry)
        if not located.pinned:
            warnings.warn(
                f"The weights {self._tag} are not pinned: no hash of "
                f"{places.address(self._entry)} is known to check them by.",
                stacklevel=3,
            )
        return located

    def _here(self) -> Located | None:
        place, thread = self._first, self._hash
        while place is not None:
            found = place.hash(thread)
            if found is not None:
                if place.right(found):
                    return place.located(found)
                if place.origin != "cache":
                    raise place.refusal(found)
                place.mend(found)
            place, thread = next(self._places, None), None
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
    found = None if place is None else place.hash()
    if place is None or found is None:
        return None
    if not place.right(found):
        raise place.refusal(found)
    return place.located(found)


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
    target = Place(tag, entry, folder / places.file_names(tag, entry)[0], "folder")
    found = target.hash()
    if found is not None:
        if target.right(found):
            return target.located(found)
        target.mend(found)
    for place in _on_this_machine(tag, entry):
        found = place.hash()
        if found is not None and place.right(found):
            return copied(place, found, folder)
    return fetched(tag, entry, folder)


def _on_this_machine(tag: str, entry: Entry) -> Iterator[Place]:
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
        yield Place(tag, entry, path, "embedded")
        return
    names = places.file_names(tag, entry)
    own = places.cache() / names[0]
    if own.is_file():
        yield Place(tag, entry, own, "cache")
    if source.kind == "hub":
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(source.repo or "", source.file, revision=source.revision)
        if isinstance(cached, str):
            yield Place(tag, entry, Path(cached), "cache")
    for folder in places.folders():
        for name in names:
            if (folder / name).is_file():
                yield Place(tag, entry, folder / name, "folder")
