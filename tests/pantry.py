"""Manifest entries of small files that lie wherever a test puts them."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import huggingface_hub.constants
import huggingface_hub.file_download
import huggingface_hub.utils._http
import pytest
from hubserver import HubServer, running
from shelf import RAW, text_of

from senetzoo.weights import cache, download, manifest
from senetzoo.weights.manifest import Entry, Source

KINDS: tuple[Literal["url", "hub"], ...] = ("url", "hub")
REPO = "someone/pets"


def content_of(seed: int, size: int = 60_000) -> bytes:
    return random.Random(seed).randbytes(size)


def hash_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Clock:
    """Time for the clients, in which waiting takes none; the server's own time goes on."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class Pantry:
    """Entries of the manifest, the server that has their files, and the folders for them."""

    def __init__(self, hub: HubServer, folder: Path) -> None:
        self.hub, self.folder = hub, folder
        self.entries: dict[str, Entry] = {}
        self.contents: dict[str, bytes] = {}
        self.clock = Clock()

    def add(
        self,
        kind: Literal["url", "hub"],
        tag: str = "resnet20.pets_v1",
        content: bytes | None = None,
        file: str = "pets-0123.pth",
        **changes: Any,
    ) -> tuple[str, Entry]:
        """An entry whose file the server has, and its tag."""
        content = content_of(len(self.entries)) if content is None else content
        if kind == "hub":
            revision = self.hub.put(REPO, {file: content})
            source = Source("hub", file, REPO, revision)
        else:
            source = Source("url", file, url=self.hub.serve(f"models/{file}", content))
        entry = manifest.parse(text_of({"resnet20.pets_v1": RAW}))["resnet20.pets_v1"]
        entry = dataclasses.replace(
            entry, source=source, sha256=hash_of(content), bytes=len(content), training=()
        )
        entry = dataclasses.replace(entry, model=tag.split(".")[0], **changes)
        self.entries[tag], self.contents[tag] = entry, content
        return tag, entry

    def manifest(self) -> dict[str, Entry]:
        return self.entries

    def folder_of(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder

    def cached(self, tag: str, content: bytes | None = None) -> Path:
        """The file of an entry in senetzoo's own cache, with its content or another."""
        path = cache.cache_folder() / cache.file_names(tag, self.entries[tag])[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.contents[tag] if content is None else content)
        return path

    def change(self, tag: str, **changes: Any) -> tuple[str, Entry]:
        self.entries[tag] = dataclasses.replace(self.entries[tag], **changes)
        return tag, self.entries[tag]


def open_pantry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pantry]:
    for hub in running(folder, monkeypatch):
        pantry = Pantry(hub, folder)
        (folder / "embedded").mkdir()
        monkeypatch.setattr(cache, "EMBEDDED", folder / "embedded")
        monkeypatch.setattr(manifest, "manifest", pantry.manifest)
        # Small pieces, so that a body that breaks off leaves something to go on with.
        monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 5_000)
        for module in (download, huggingface_hub.file_download, huggingface_hub.utils._http):
            monkeypatch.setattr(module, "time", pantry.clock)
        yield pantry
        huggingface_hub.utils.close_session()


def blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No socket can be opened and no name looked up."""
    import socket

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a socket was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
