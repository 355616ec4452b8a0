"""Where the file of a manifest entry may be on this machine, and the check of its hash."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from senetzoo.errors import WeightsError
from senetzoo.weights import manifest
from senetzoo.weights.manifest import Entry

EMBEDDED = Path(__file__).parent / "embedded"
Origin = Literal["embedded", "cache", "folder", "mirror", "hub", "url"]
_REMEDIES = {
    "embedded": "Install senetzoo again",
    "cache": "Type: senetzoo weights get {tag}",
    "folder": "Replace the file, or take its folder out of SENETZOO_WEIGHTS",
    "mirror": "Replace the file there, or take its address out of SENETZOO_WEIGHTS",
    "hub": "Try again; or choose others: senetzoo weights list '{model}.*'",
    "url": "Try again; or choose others: senetzoo weights list '{model}.*'",
}
# An address holds colons, which separate the parts of SENETZOO_WEIGHTS on POSIX: one after the
# scheme, perhaps those of an IPv6 host, and perhaps one before the port.
_END = re.escape(os.pathsep)
_PART = re.compile(rf"\w+://(?:\[[^]]*\]|[^/{_END}]*)(?::\d+(?=[/{_END}]|$))?[^{_END}]*|[^{_END}]+")


@dataclass(frozen=True)
class VerifiedFile:
    """A file that has the hash its manifest entry states, which may be a part of it, or none.

    The origins ``"folder"`` and ``"mirror"`` are folders and addresses of SENETZOO_WEIGHTS.
    """

    path: Path
    origin: Origin
    sha256: str
    pinned: Literal["sha256", "prefix", ""]


class WrongHashError(WeightsError):
    """A file that is not the published one: its `path`, the hash `found`, and how it `differs`."""

    def __init__(
        self,
        tag: str,
        entry: Entry,
        path: Path,
        origin: Origin,
        found: str,
        expected: str,
        url: str = "",
    ) -> None:
        whose = "the manifest has" if entry.pinned else "the Hub states"
        self.path, self.found = path, found
        self.differs = f"sha256 {found}, {whose} {expected}{'...' * (len(expected) < 64)}"
        super().__init__(
            f"The weights {tag} are not the published ones.",
            f"{url or path} has the {self.differs}.",
            _REMEDIES[origin].format(tag=tag, model=entry.model),
        )


def cache_folder() -> Path:
    """Folder of downloaded files that huggingface_hub does not keep: SENETZOO_CACHE.

    By default ``senetzoo`` in huggingface_hub's home: HF_HOME, else ``~/.cache/huggingface``.
    """
    shared = f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    usual = f"{os.environ.get('HF_HOME') or shared}/senetzoo"
    return Path(os.environ.get("SENETZOO_CACHE") or usual).expanduser()


def search_path() -> tuple[list[Path], list[str]]:
    """The folders and the http(s) addresses of SENETZOO_WEIGHTS, each in order."""
    folders, addresses = list[Path](), list[str]()
    for part in _PART.findall(os.environ.get("SENETZOO_WEIGHTS", "")):
        if part.startswith(("https://", "http://")):
            addresses.append(part.rstrip("/"))
            continue
        folders.append(Path(part).expanduser())
        if not folders[-1].is_dir():
            raise WeightsError(
                f"SENETZOO_WEIGHTS names {part}.",
                "It is no existing folder, and no address that begins with https:// or http://.",
                "Make the folder, change the variable, or unset it",
            )
    return folders, addresses


def file_names(tag: str, entry: Entry) -> list[str]:
    """What the file of an entry is called outside its source: by its tag, or as its publisher does.

    The publisher's name counts only where no other entry has it (``model.safetensors``).
    """
    own, theirs = f"{tag}{Path(entry.source.file).suffix}", entry.source.file
    same = [other for other in manifest.manifest().values() if other.source.file == theirs]
    return [own, theirs] if len(same) < 2 and own != theirs else [own]


def candidates(tag: str, entry: Entry) -> Iterator[tuple[Path, Origin]]:
    """The files of this machine that may be the one of `entry`, in the order of look-up.

    Embedded; the caches, senetzoo's own and the Hub's; the folders of SENETZOO_WEIGHTS.
    """
    source, names = entry.source, file_names(tag, entry)
    if source.kind == "embedded":
        path = EMBEDDED / source.file
        if not path.is_file():
            raise WeightsError(
                f"The weights {tag} are missing from this installation.",
                f"Looked for {path}.",
                "Install senetzoo again",
            )
        yield path, "embedded"
        return
    if (own := cache_folder() / names[0]).is_file():
        yield own, "cache"
    if source.kind == "hub":
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(source.repo or "", source.file, revision=source.revision)
        if isinstance(cached, str):
            yield Path(cached), "cache"
    for folder in search_path()[0]:
        for name in names:
            if (folder / name).is_file():
                yield folder / name, "folder"


def sha256(path: Path) -> str:
    """Hash of a file, in lower-case hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def verify(
    tag: str, entry: Entry, path: Path, origin: Origin, url: str = ""
) -> VerifiedFile | None:
    """The file `path`, which came from `url` if it was not there, as that of `entry`: its hash.

    None for a file that is not there, or no longer: another process may have set it aside.
    """
    try:
        found = sha256(path)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and origin != "embedded":
            return None
        raise WeightsError(
            f"The weights {tag} can't be read.",
            f"{path}: {error.strerror}.",
            "Let yourself read the file, or remove it",
        ) from error
    expected = entry.sha256 or entry.sha256_prefix or ""
    if not expected and origin in ("cache", "hub"):
        # The Hub's cache names large files by the sha256 that the Hub states.
        name = path.resolve().name
        expected = name if re.fullmatch("[0-9a-f]{64}", name) else ""
    if not found.startswith(expected):
        raise WrongHashError(tag, entry, path, origin, found, expected, url)
    return VerifiedFile(path, origin, found, entry.pinned)


def look(tag: str, entry: Entry) -> tuple[VerifiedFile | None, list[WrongHashError]]:
    """The file of `entry` on this machine, its hash checked. Nothing is fetched or moved.

    With the errors of damaged files of the caches that were found before it.
    """
    damaged = []
    for path, origin in candidates(tag, entry):
        file = None
        try:
            file = verify(tag, entry, path, origin)
        except WrongHashError as error:
            if origin != "cache":
                raise
            damaged.append(error)
        if file is not None:
            return file, damaged
    return None, damaged


def check(tag: str, entry: Entry) -> VerifiedFile | None:
    """As `look`, but a damaged file of a cache is an error too."""
    file, damaged = look(tag, entry)
    if damaged:
        raise damaged[0]
    return file


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """While it is held, no other process has the lock of the file `path`."""
    from huggingface_hub.utils import WeakFileLock

    folder = path.parent / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(folder / f"{path.name}.lock"):
        yield


def set_aside(tag: str, error: WrongHashError) -> Path | None:
    """Rename the damaged file of `error`, so that nobody reads it; the new name, if there is one.

    The Hub's cache has a link in the folder of a commit to a blob. A blob that is named by its
    own hash is whole: it belongs to another commit, and stays.
    """
    path = error.path.resolve()
    if path.name == error.found:
        return None
    bad = path.with_name(f"{path.name}.bad")
    try:
        with locked(cache_folder() / tag):
            # Another process may have done this, and fetched the right file since.
            if not path.is_file() or sha256(path) != error.found:
                return None
            path.replace(bad)
            if error.path.is_symlink():
                error.path.unlink()
    except OSError as problem:
        raise WeightsError(
            f"The weights {tag} are not the published ones, and can't be set aside.",
            f"{error.path} has the {error.differs}; {problem.strerror}.",
            f"Delete {path} and try again",
        ) from problem
    return bad
