"""A file that is looked at: which hash it must have, and what if it has another."""

from __future__ import annotations

import re
import warnings
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from senetzoo.errors import WeightsError
from senetzoo.weights import places
from senetzoo.weights.download import locked, sha256
from senetzoo.weights.manifest import Entry

Origin = Literal["embedded", "cache", "folder", "mirror", "hub", "url"]
_REMEDY = {
    "embedded": "Install senetzoo again",
    "cache": "Type: senetzoo weights get {tag}",
    "folder": "Replace the file, or take its folder out of SENETZOO_WEIGHTS",
    "mirror": "Replace the file there, or unset SENETZOO_MIRROR",
    "hub": "Try again; or choose others: senetzoo weights list '{model}.*'",
    "url": "Try again; or choose others: senetzoo weights list '{model}.*'",
}


@dataclass(frozen=True)
class Located:
    """A file that has the hash its manifest entry states.

    Args:
        path: The file.
        origin: ``"embedded"``, ``"cache"``, ``"folder"`` (of SENETZOO_WEIGHTS), ``"mirror"``,
            ``"hub"`` or ``"url"``.
        sha256: Its hash.
        pinned: What the manifest has to check it by: ``"sha256"``, the ``"prefix"`` of it that
            the publisher states, or nothing.
    """

    path: Path
    origin: Origin
    sha256: str
    pinned: Literal["sha256", "prefix", ""]


@dataclass(frozen=True)
class Place:
    """A file that may be the one that is looked for.

    Args:
        tag: Manifest entry.
        entry: Its content.
        path: The file.
        origin: As `Located.origin`.
        stated: The sha256 that the Hub states for it; empty where it was not asked.
    """

    tag: str
    entry: Entry
    path: Path
    origin: Origin
    stated: str = ""

    @property
    def expected(self) -> str:
        """The hash that the file must have, or the start of it; empty where nobody states one.

        Where the manifest does not, the Hub may have: its cache names large files by their sha256.
        """
        known = self.entry.sha256 or self.entry.sha256_prefix or self.stated
        if known or self.origin not in ("cache", "hub"):
            return known
        name = self.path.resolve().name
        return name if re.fullmatch("[0-9a-f]{64}", name) else ""

    def hash(self, thread: Future[str] | None = None) -> str | None:
        """Hash of the file, from the thread where one reads it.

        None for a file that is not there, or no longer: another process may have set it aside.
        """
        try:
            return sha256(self.path) if thread is None else thread.result()
        except OSError as error:
            if isinstance(error, FileNotFoundError) and self.origin != "embedded":
                return None
            raise WeightsError(
                f"The weights {self.tag} can't be read.",
                f"{self.path}: {error.strerror}.",
                "Let yourself read the file, or remove it",
            ) from error

    def right(self, found: str) -> bool:
        """Whether the hash `found` is that of the file that is looked for."""
        return found.startswith(self.expected)

    def located(self, found: str) -> Located:
        """The file, which has the right hash."""
        return Located(self.path, self.origin, found, self.entry.pinned)

    def _differs(self, found: str) -> str:
        whose = "the manifest has" if self.entry.pinned else "the Hub states"
        more = "..." if len(self.expected) < 64 else ""
        return f"sha256 {found}, {whose} {self.expected}{more}"

    def refusal(self, found: str, where: str = "") -> WeightsError:
        """The error of a file with another hash, at the address `where` if it came from one."""
        remedy = _REMEDY[self.origin].format(tag=self.tag, model=self.entry.model)
        return WeightsError(
            f"The weights {self.tag} are not the published ones.",
            f"{where or self.path} has the {self._differs(found)}.",
            remedy,
        )

    def set_aside(self, found: str) -> Path | None:
        """Rename the file, whose hash `found` is a wrong one, so that nobody reads it.

        The Hub's cache has a link in the folder of a commit to a blob. A blob that is named by its
        own hash is whole: it belongs to another commit, and stays.

        Returns:
            The new name; None where there was nothing to rename.

        Raises:
            WeightsError: It can't be renamed.
        """
        path = self.path.resolve()
        if path.name == found:
            return None
        differs = self._differs(found)
        bad = path.with_name(f"{path.name}.bad")
        try:
            with locked(places.cache() / self.tag):
                # Another process may have done this, and fetched the right file since.
                if not path.is_file() or sha256(path) != found:
                    return None
                path.replace(bad)
                if self.path.is_symlink():
                    self.path.unlink()
        except OSError as error:
            raise WeightsError(
                f"The weights {self.tag} are not the published ones, and can't be set aside.",
                f"{self.path} has the {differs}; {error.strerror}.",
                f"Delete {path} and try again",
            ) from error
        return bad

    def mend(self, found: str) -> None:
        """Set the file aside and say so: it is fetched again."""
        differs = self._differs(found)
        bad = self.set_aside(found)
        if bad is not None:
            warnings.warn(
                f"The weights {self.tag} in {self.path} were damaged: {differs}. The file was set "
                f"aside as {bad} and is fetched again.",
                stacklevel=2,
            )
