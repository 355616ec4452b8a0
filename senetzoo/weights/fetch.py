"""From a manifest entry to a verified file: embedded, then the cache, then the Hub."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from senetzoo.errors import WeightsError
from senetzoo.weights.manifest import Entry

EMBEDDED = Path(__file__).parent / "embedded"
_REINSTALL = "Install senetzoo again"


@dataclass(frozen=True)
class Located:
    """A file that has the hash its manifest entry states.

    Args:
        path: The file.
        origin: ``"embedded"``, ``"cache"`` or ``"hub"``.
        sha256: Its hash.
    """

    path: Path
    origin: str
    sha256: str


def sha256(path: Path) -> str:
    """Hash of a file, in lower-case hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def locate(tag: str, entry: Entry) -> Located:
    """The file of `entry`, its hash checked.

    Raises:
        WeightsError: It can't be had, or its hash differs.
    """
    if entry.source.kind == "embedded":
        path = EMBEDDED / entry.source.file
        if not path.is_file():
            raise WeightsError(
                f"The weights {tag} are missing from this installation.",
                f"Looked for {path}.",
                _REINSTALL,
            )
        return _verified(tag, entry, path, "embedded")
    if entry.source.kind == "hub":
        path, origin = _from_hub(tag, entry)
        return _verified(tag, entry, path, origin)
    raise WeightsError(
        f"The weights {tag} are at {entry.source.url}.",
        "This version reads embedded weights and the Hugging Face Hub only.",
        "Choose others: senetzoo weights list",
    )


def _verified(tag: str, entry: Entry, path: Path, origin: str) -> Located:
    found = sha256(path)
    expected = entry.sha256 or entry.sha256_prefix or "no hash"
    if not found.startswith(expected):
        # The cache links to a blob; without the link alone the same blob would be linked again.
        remedy = _REINSTALL if origin == "embedded" else f"Delete {path.resolve()} and try again"
        raise WeightsError(
            f"The weights {tag} are not the published ones.",
            f"{path.name} has the sha256 {found}, the manifest has {expected}.",
            remedy,
        )
    return Located(path, origin, found)


def _from_hub(tag: str, entry: Entry) -> tuple[Path, str]:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    source = entry.source
    repo, revision = source.repo or "", source.revision or ""
    # A pinned revision never changes, so a cached file needs no request at all.
    cached = try_to_load_from_cache(repo, source.file, revision=revision)
    if isinstance(cached, str):
        return Path(cached), "cache"
    try:
        return Path(hf_hub_download(repo, source.file, revision=revision)), "hub"
    except Exception as error:
        raise WeightsError(
            f"The weights {tag} could not be fetched.",
            f"{repo} at {revision[:12]}, file {source.file}: "
            f"{' '.join([type(error).__name__ + ':', *str(error).splitlines()[:1]])}",
            "Check the network, or fetch the file on another machine into the Hugging Face cache",
        ) from error
