"""Where weights may lie, as the environment and the manifest say: folders, a mirror, addresses."""

from __future__ import annotations

import os
import re
from pathlib import Path

from senetzoo.errors import WeightsError
from senetzoo.weights import manifest
from senetzoo.weights.manifest import Entry

HUB = "https://huggingface.co"
# As huggingface_hub reads its own variables.
_TRUE = ("1", "ON", "YES", "TRUE")


def offline() -> str:
    """Name of the variable that forbids the network; empty where none does."""
    names = ("SENETZOO_OFFLINE", "HF_HUB_OFFLINE")
    return next((name for name in names if os.environ.get(name, "").upper() in _TRUE), "")


def cache() -> Path:
    """Folder of fetched files that huggingface_hub does not keep: SENETZOO_CACHE.

    By default ``senetzoo`` in huggingface_hub's home: HF_HOME, else ``~/.cache/huggingface``.
    """
    own = os.environ.get("SENETZOO_CACHE")
    if own:
        return Path(own).expanduser()
    home = os.environ.get("HF_HOME")
    if not home:
        home = f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return Path(home).expanduser() / "senetzoo"


def folders() -> list[Path]:
    """The folders of SENETZOO_WEIGHTS, in order.

    Raises:
        WeightsError: One of them does not exist.
    """
    text = os.environ.get("SENETZOO_WEIGHTS", "")
    found = [Path(part).expanduser() for part in text.split(os.pathsep) if part]
    for folder in found:
        _check_folder("SENETZOO_WEIGHTS", folder)
    return found


def mirror() -> Path | str | None:
    """The folder or the address of SENETZOO_MIRROR; None where it is not set.

    Raises:
        WeightsError: It is neither, or the folder does not exist.
    """
    text = os.environ.get("SENETZOO_MIRROR", "")
    if not text:
        return None
    if re.match("https?://", text):
        return text.rstrip("/")
    if "://" in text:
        raise WeightsError(
            f"SENETZOO_MIRROR names {text}.",
            "A mirror is a folder, or an address that begins with https:// or http://.",
            "Change it, or unset it",
        )
    _check_folder("SENETZOO_MIRROR", Path(text).expanduser())
    return Path(text).expanduser()


def _check_folder(variable: str, folder: Path) -> None:
    if not folder.is_dir():
        raise WeightsError(
            f"{variable} names {folder}.",
            "There is no such folder.",
            "Make it, change the variable, or unset it",
        )


def file_names(tag: str, entry: Entry) -> list[str]:
    """What the file of an entry is called outside its source: by its tag, or as its publisher does.

    The publisher's name counts only where no other entry has it (``model.safetensors``).
    """
    own, theirs = f"{tag}{Path(entry.source.file).suffix}", entry.source.file
    same = [other for other in manifest.manifest().values() if other.source.file == theirs]
    return [own, theirs] if len(same) < 2 and own != theirs else [own]


def endpoint() -> str | None:
    """HF_ENDPOINT; None where it is not set."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def address(entry: Entry) -> str:
    """Where the publisher has the file of an entry that is not embedded."""
    source = entry.source
    if source.kind == "url":
        return source.url or ""
    revision = source.revision or "main"
    return f"{endpoint() or HUB}/{source.repo}/resolve/{revision}/{source.file}"


def description(tag: str, entry: Entry) -> str:
    """The file to bring: its name, size and hash."""
    if entry.sha256:
        known = f"sha256 {entry.sha256}"
    elif entry.sha256_prefix:
        known = f"sha256 {entry.sha256_prefix}..."
    else:
        known = "no hash is known"
    size = f"{entry.bytes} bytes, " if entry.bytes is not None else ""
    return f"{file_names(tag, entry)[0]} ({size}{known})"
