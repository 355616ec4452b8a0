"""Where the file of a manifest entry may be on this machine, and the check of its hash."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import errno
import functools
import hashlib
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, TypeVar

from senetzoo._utils import files
from senetzoo._utils.environment import bad_certificates
from senetzoo._utils.files import user_path
from senetzoo.errors import ConfigError, WeightsError
from senetzoo.weights import lock, manifest
from senetzoo.weights.manifest import Entry, Pinned

T = TypeVar("T")
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

    The origins ``"folder"`` and ``"mirror"`` are folders and addresses of SENETZOO_WEIGHTS;
    `revision` is the Hub's commit that the file is of, where that is known.
    """

    path: Path
    origin: Origin
    sha256: str
    pinned: Pinned
    revision: str | None = None


class WrongHashError(WeightsError):
    """A file that is not the one to be: its `path`, its `sha256`, and how it `differs`.

    `found` is the hash that was compared with the `expected` one, its SHA-1 if need be.
    """

    def __init__(
        self,
        tag: str,
        entry: Entry,
        path: Path,
        origin: Origin,
        found: str,
        expected: str,
        *,
        sha256: str = "",
        url: str = "",
    ) -> None:
        locked, remedy = is_locked(tag, entry), _REMEDIES[origin].format(tag=tag, model=entry.model)
        whose = "the manifest has" if entry.pinned else "the Hub states"
        what = "the published ones"
        if locked:
            whose, what = f"{lock_path()} has", f"those of {lock.FILE}"
            remedy += f"; or accept what the publisher has now: senetzoo weights get {tag} --update"
        self.path, self.sha256 = path, sha256
        more = "..." * (entry.pinned == "prefix")
        self.differs = f"{kind_of(entry)} {found}, {whose} {expected}{more}"
        first = f"The weights {tag} are not {what}."
        super().__init__(first, f"{url or path} has the {self.differs}.", remedy)


def cache_folder() -> Path:
    """Folder of downloaded files that huggingface_hub does not keep: SENETZOO_CACHE.

    By default ``senetzoo`` in huggingface_hub's home: HF_HOME, else ``~/.cache/huggingface``.
    `ConfigError` where nobody knows the home.
    """
    shared = f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    usual = f"{os.environ.get('HF_HOME') or shared}/senetzoo"
    return user_path(
        os.environ.get("SENETZOO_CACHE") or usual,
        "Set HOME, HF_HOME or SENETZOO_CACHE to a folder that can be written to",
    )


def hub_cache() -> Path:
    """The folder in which huggingface_hub keeps files; `ConfigError` where no home is known.

    huggingface_hub itself would make a folder that is called ``~``.
    """
    from huggingface_hub import constants

    remedy = "Set HOME or HF_HOME to a folder that can be written to"
    return user_path(constants.HF_HUB_CACHE, remedy)


_UNWRITABLE = ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "ENOENT", "ENOTDIR", "EEXIST")


def unwritable(error: BaseException) -> bool:
    """Whether an error is of a folder that can't be written to, or is full."""
    if not isinstance(error, OSError) or error.errno is None or bad_certificates(error):
        return False
    return errno.errorcode.get(error.errno) in _UNWRITABLE


@functools.cache
def spare() -> Path:
    """A folder that is there as long as the process."""
    folder = tempfile.mkdtemp(prefix="senetzoo-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def or_spare(fetch: Callable[[Path | None], T], variable: str) -> T:
    """What `fetch` puts into a cache, or into `spare` where there is none to write to.

    Args:
        fetch: Fetches into a folder; None is the cache.
        variable: The variable that names the cache.
    """
    try:
        return fetch(None)
    except (OSError, ConfigError) as error:
        homeless = isinstance(error, ConfigError)
        if not homeless and not unwritable(error):
            raise
        cause = error
    why = "no home folder is known" if homeless else f"{getattr(cause, 'strerror', '')}"
    warnings.warn(
        f"Downloads can't be kept ({why}): they last as long as this process. Set {variable} to "
        "a folder that can be written to.",
        stacklevel=2,
    )
    try:
        return fetch(spare())
    except OSError as error:
        raise cause if unwritable(error) else error from None


def search_path() -> tuple[list[Path], list[str]]:
    """The folders and the http(s) addresses of SENETZOO_WEIGHTS, each in order."""
    folders, addresses = list[Path](), list[str]()
    for part in _PART.findall(os.environ.get("SENETZOO_WEIGHTS", "")):
        if part.startswith(("https://", "http://")):
            addresses.append(part.rstrip("/"))
            continue
        folders.append(user_path(part))
        if not _is(Path.is_dir, folders[-1]):
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
    own = _cached(names[0])
    if own is not None:
        yield own, "cache"
    if source.kind == "hub":
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(source.repo or "", source.file, revision=source.revision)
        if isinstance(cached, str):
            yield Path(cached), "cache"
    for folder in search_path()[0]:
        for name in names:
            if _is(Path.is_file, folder / name):
                yield folder / name, "folder"


def _cached(name: str) -> Path | None:
    """A file of senetzoo's own cache; None where it is not there, or where there is no cache."""
    try:
        path = cache_folder() / name
    except ConfigError:
        return None
    return path if _is(Path.is_file, path) else None


def _is(kind: Callable[[Path], bool], path: Path) -> bool:
    """Whether `path` is of a kind, as far as one may look."""
    try:
        return kind(path)
    except PermissionError:
        return False


def sha256(path: Path) -> str:
    """Hash of a file, in lower-case hexadecimal."""
    with path.open("rb") as file:
        return hash_of(file)


def hash_of(file: IO[bytes], kind: Literal["sha256", "sha1"] = "sha256") -> str:
    """Hash of the rest of an open file, in lower-case hexadecimal."""
    digest = hashlib.new(kind, usedforsecurity=False)
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
        compared = found
        if kind_of(entry) == "sha1":
            with path.open("rb") as file:
                compared = hash_of(file, "sha1")
    except OSError as error:
        if isinstance(error, FileNotFoundError) and origin != "embedded":
            return None
        raise WeightsError(
            f"The weights {tag} can't be read.",
            f"{path}: {error.strerror}.",
            "Let yourself read the file, or remove it",
        ) from error
    expected = entry.digest
    if not expected and origin in ("cache", "hub"):
        # The Hub's cache names large files by the sha256 that the Hub states.
        name = path.resolve().name
        expected = name if re.fullmatch("[0-9a-f]{64}", name) else ""
    if not compared.startswith(expected):
        raise WrongHashError(tag, entry, path, origin, compared, expected, sha256=found, url=url)
    # A file of the Hub's cache is in the folder of its commit.
    commit = path.parent.name if path.parent.parent.name == "snapshots" else None
    return VerifiedFile(path, origin, found, entry.pinned, commit)


def kind_of(entry: Entry) -> Literal["sha256", "sha1"]:
    """Which hash the file of `entry` is checked by."""
    return "sha1" if entry.pinned == "sha1" else "sha256"


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
    file, damaged = look(tag, completed(tag, entry))
    if damaged:
        raise damaged[0]
    return file


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """While it is held, no other process has the lock of the file `path`."""
    folder = path.parent / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder / f"{path.name}.lock"):
        yield


def set_aside(tag: str, error: WrongHashError) -> Path | None:
    """Rename the damaged file of `error`, so that nobody reads it; the new name, if there is one.

    The Hub's cache has a link in the folder of a commit to a blob. A blob that is named by its
    own hash is whole: it belongs to another commit, and stays.
    """
    path = error.path.resolve()
    if path.name == error.sha256:
        return None
    bad = path.with_name(f"{path.name}.bad")
    try:
        with locked(cache_folder() / tag):
            # Another process may have done this, and fetched the right file since.
            if not path.is_file() or sha256(path) != error.sha256:
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


# --- senetzoo.lock -------------------------------------------------------------------------------


def lock_path() -> Path:
    """The lock file in force: of the current folder or the nearest above it, else of the cache."""
    with contextlib.suppress(OSError):  # the current folder may be gone
        here = Path.cwd()
        for folder in (here, *here.parents):
            if _is(Path.is_file, folder / lock.FILE):
                return folder / lock.FILE
    return cache_folder() / lock.FILE


def locks() -> dict[str, lock.Locked]:
    """What the lock file in force has, by tag; nothing where no home is known."""
    try:
        return lock.read(lock_path())
    except ConfigError:
        return {}


def completed(tag: str, entry: Entry) -> Entry:
    """`entry` with the hash and the commit of the lock file, where no publisher states a hash."""
    known = None if entry.pinned else locks().get(tag)
    if known is None:
        return entry
    source = entry.source
    if source.kind == "hub":
        source = dataclasses.replace(source, revision=known["revision"])
    return dataclasses.replace(entry, source=source, sha256=known["sha256"])


def is_locked(tag: str, entry: Entry) -> bool:
    """Whether the hash of a `completed` entry is the lock file's."""
    stated = manifest.manifest().get(tag)
    return bool(entry.pinned) and stated is not None and not stated.pinned


def record(tag: str, file: VerifiedFile, *, accept: bool = False) -> Path:
    """Write the hash of a file that nobody states one of into the lock file; its path.

    What another process recorded in the meantime stays, but to `accept` another file.

    Raises:
        OSError: It can't be written.
        ConfigError: No home is known.
        WrongHashError: Another process recorded another file.
    """
    path = lock_path()
    with locked(cache_folder() / lock.FILE):
        known = lock.read(path)
        if not accept and tag in known and known[tag]["sha256"] != file.sha256:
            entry = completed(tag, manifest.manifest()[tag])
            expected = known[tag]["sha256"]
            raise WrongHashError(tag, entry, file.path, file.origin, file.sha256, expected)
        lock.write(path, {**known, tag: {"sha256": file.sha256, "revision": file.revision}})
    return path
