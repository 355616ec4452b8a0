"""Finding the files of manifest entries on this machine, and checking their hashes."""

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
from senetzoo.nn.report import Pinned
from senetzoo.weights import lock, manifest
from senetzoo.weights.manifest import Entry

T = TypeVar("T")
EMBEDDED = Path(__file__).parent / "embedded"
Origin = Literal["embedded", "cache", "folder", "mirror", "hub", "url"]
HashKind = Literal["sha256", "sha1", "md5"]
_REMEDIES = {
    "embedded": "Install senetzoo again",
    "cache": "Type: senetzoo weights get {tag}",
    "folder": "Replace the file, or remove its folder from SENETZOO_WEIGHTS",
    "mirror": "Replace the file there, or remove its address from SENETZOO_WEIGHTS",
    "hub": "Try again; or choose others: senetzoo weights list '{model}.*'",
    "url": "Try again; or choose others: senetzoo weights list '{model}.*'",
}
# Addresses contain colons, which separate the parts of SENETZOO_WEIGHTS on POSIX: one after the
# scheme, perhaps those of an IPv6 host, and perhaps one before the port.
_END = re.escape(os.pathsep)
_PART = re.compile(rf"\w+://(?:\[[^]]*\]|[^/{_END}]*)(?::\d+(?=[/{_END}]|$))?[^{_END}]*|[^{_END}]+")


@dataclass(frozen=True)
class VerifiedFile:
    """A file with the hash, or the start of one, that its manifest entry states, if it states one.

    The origins ``"folder"`` and ``"mirror"`` are folders and addresses in SENETZOO_WEIGHTS;
    `revision` is the file's commit on the Hub, if known.
    """

    path: Path
    origin: Origin
    sha256: str
    pinned: Pinned
    revision: str | None = None


class WrongHashError(WeightsError):
    """A file with a wrong hash: its `path`, its `sha256`, and how it `differs`.

    `found` is the hash that was compared with `expected`, perhaps a SHA-1.
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
            remedy += (
                f"; or accept the publisher's current file: senetzoo weights get {tag} --update"
            )
        self.path, self.sha256 = path, sha256
        more = "..." * (entry.pinned == "prefix")
        self.differs = f"{kind_of(entry)} {found}, {whose} {expected}{more}"
        first = f"The weights {tag} are not {what}."
        super().__init__(first, f"{url or path} has the {self.differs}.", remedy)


def cache_folder() -> Path:
    """The folder for compiled kernels and downloads outside of the Hub's cache: SENETZOO_CACHE.

    The default is ``senetzoo`` in HF_HOME, or else in ``~/.cache/huggingface``. Raises
    `ConfigError` if the home folder isn't known.
    """
    shared = f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    usual = f"{os.environ.get('HF_HOME') or shared}/senetzoo"
    return user_path(
        os.environ.get("SENETZOO_CACHE") or usual,
        "Set HOME, HF_HOME or SENETZOO_CACHE to a writable folder",
    )


def hub_cache() -> Path:
    """The Hub's cache folder; `ConfigError` if the home folder isn't known.

    huggingface_hub itself would create a folder named ``~``.
    """
    from huggingface_hub import constants

    remedy = "Set HOME or HF_HOME to a writable folder"
    return user_path(constants.HF_HUB_CACHE, remedy)


_UNWRITABLE = ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "ENOENT", "ENOTDIR", "EEXIST")


def unwritable(error: BaseException) -> bool:
    """Whether an error is about a folder that isn't writable or is full."""
    if not isinstance(error, OSError) or error.errno is None or bad_certificates(error):
        return False
    return errno.errorcode.get(error.errno) in _UNWRITABLE


@functools.cache
def spare() -> Path:
    """A temporary folder that is deleted when the process ends."""
    folder = tempfile.mkdtemp(prefix="senetzoo-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def or_spare(fetch: Callable[[Path | None], T], variable: str) -> T:
    """Call `fetch` for the cache, which None stands for, or for `spare` if that isn't writable.

    The cache's environment variable is `variable`.
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
        f"Downloads can't be stored ({why}) and are deleted when this process ends. Set {variable} "
        "to a writable folder.",
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
                f"SENETZOO_WEIGHTS contains {part}.",
                "It is neither an existing folder nor an address with https:// or http://.",
                "Create the folder, or change or unset the variable",
            )
    return folders, addresses


def file_names(tag: str, entry: Entry) -> list[str]:
    """The names that the file of an entry may have on this machine or a mirror.

    One has its tag; the publisher's name is accepted only if no other entry has it, unlike
    ``model.safetensors``.
    """
    own, theirs = f"{tag}{Path(entry.source.file).suffix}", entry.source.file
    same = [other for other in manifest.manifest().values() if other.source.file == theirs]
    return [own, theirs] if len(same) < 2 and own != theirs else [own]


def candidates(tag: str, entry: Entry) -> Iterator[tuple[Path, Origin]]:
    """The files on this machine that may be the one of `entry`, in the order of lookup.

    The package, senetzoo's cache and the Hub's, and the folders in SENETZOO_WEIGHTS.
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
    """A file in senetzoo's cache; None if the file or the cache doesn't exist."""
    try:
        path = cache_folder() / name
    except ConfigError:
        return None
    return path if _is(Path.is_file, path) else None


def _is(kind: Callable[[Path], bool], path: Path) -> bool:
    """Whether `path` is of a kind; False without permission to look."""
    try:
        return kind(path)
    except PermissionError:
        return False


def sha256(path: Path) -> str:
    """SHA-256 of a file, in lower-case hexadecimal."""
    return hash_of(path)


def hash_of(file: Path | IO[bytes], kind: HashKind = "sha256") -> str:
    """Hash of a file, or of the rest of an open one, in lower-case hexadecimal."""
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return hash_of(opened, kind)
    digest = hashlib.new(kind, usedforsecurity=False)
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def verify(
    tag: str, entry: Entry, path: Path, origin: Origin, url: str = ""
) -> VerifiedFile | None:
    """Check the hash of the file `path` of `entry`, which may have been downloaded from `url`.

    None if the file doesn't exist, for example because another process has set it aside.
    """
    try:
        found = sha256(path)
        compared = hash_of(path, "sha1") if kind_of(entry) == "sha1" else found
    except OSError as error:
        if isinstance(error, FileNotFoundError) and origin != "embedded":
            return None
        raise WeightsError(
            f"The weights {tag} can't be read.",
            f"{path}: {error.strerror}.",
            "Make the file readable, or delete it",
        ) from error
    expected = entry.digest
    if not expected and origin in ("cache", "hub"):
        # In the Hub's cache, large files are named after their sha256.
        name = path.resolve().name
        expected = name if re.fullmatch("[0-9a-f]{64}", name) else ""
    if not compared.startswith(expected):
        raise WrongHashError(tag, entry, path, origin, compared, expected, sha256=found, url=url)
    # In the Hub's cache, a file is in the folder of its commit.
    commit = path.parent.name if path.parent.parent.name == "snapshots" else None
    return VerifiedFile(path, origin, found, entry.pinned, commit)


def kind_of(entry: Entry) -> HashKind:
    """The kind of hash that the file of `entry` is checked by."""
    return "sha1" if entry.pinned == "sha1" else "sha256"


def look(tag: str, entry: Entry) -> tuple[VerifiedFile | None, list[WrongHashError]]:
    """The checked file of `entry` on this machine; nothing is downloaded or moved.

    Also returns the errors of damaged files that were found in the caches before it.
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
    """As `look`, but raise the error of a damaged file in a cache."""
    file, damaged = look(tag, completed(tag, entry))
    if damaged:
        raise damaged[0]
    return file


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of the file `path`, which only one process can hold at a time."""
    folder = path.parent / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder / f"{path.name}.lock"):
        yield


def set_aside(tag: str, error: WrongHashError) -> Path | None:
    """Rename the damaged file of `error`, so that it isn't read again; its new name, if any.

    In the Hub's cache, the folder of a commit has links to blobs. A blob that is named after its
    own hash is intact: it belongs to another commit, and is kept.
    """
    path = error.path.resolve()
    if path.name == error.sha256:
        return None
    bad = path.with_name(f"{path.name}.bad")
    try:
        with locked(cache_folder() / tag):
            # Another process may have done this, and downloaded the right file since.
            if not path.is_file() or sha256(path) != error.sha256:
                return None
            path.replace(bad)
            if error.path.is_symlink():
                error.path.unlink()
    except OSError as problem:
        raise WeightsError(
            f"The weights {tag} are not the published ones, and their file can't be renamed.",
            f"{error.path} has the {error.differs}; {problem.strerror}.",
            f"Delete {path} and try again",
        ) from problem
    return bad


# --- senetzoo.lock -------------------------------------------------------------------------------


def lock_path() -> Path:
    """The lock file in use: in the current folder or its nearest parent, else in the cache."""
    with contextlib.suppress(OSError):  # the current folder may have been deleted
        here = Path.cwd()
        for folder in (here, *here.parents):
            if _is(Path.is_file, folder / lock.FILE):
                return folder / lock.FILE
    return cache_folder() / lock.FILE


def locks() -> dict[str, lock.Locked]:
    """The entries of the lock file, by tag; none if the home folder isn't known."""
    try:
        return lock.read(lock_path())
    except ConfigError:
        return {}


def completed(tag: str, entry: Entry) -> Entry:
    """`entry` with the lock file's hash and commit, if the publisher states no hash."""
    known = None if entry.pinned else locks().get(tag)
    if known is None:
        return entry
    source = entry.source
    if source.kind == "hub":
        source = dataclasses.replace(source, revision=known["revision"])
    return dataclasses.replace(entry, source=source, sha256=known["sha256"])


def is_locked(tag: str, entry: Entry) -> bool:
    """Whether the hash of a `completed` entry is from the lock file."""
    stated = manifest.manifest().get(tag)
    return bool(entry.pinned) and stated is not None and not stated.pinned


def record(tag: str, file: VerifiedFile, *, accept: bool = False) -> Path:
    """Record the hash of a file whose publisher states none in the lock file; returns its path.

    An existing record is only replaced if `accept` is set.

    Raises:
        OSError: The lock file can't be written.
        ConfigError: The home folder isn't known.
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
