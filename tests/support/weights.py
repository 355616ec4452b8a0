"""A manifest, weights and their files that a test makes itself, in place of the package's."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import huggingface_hub.constants
import huggingface_hub.file_download
import huggingface_hub.utils._http
import pytest
from pin_weights import half
from safetensors.torch import save_file

from senetzoo import config
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.counting import count
from senetzoo.nn.report import LoadReport
from senetzoo.weights import cache, http, manifest
from senetzoo.weights.manifest import Entry, Source
from support.hub import HubServer, running

REVISION = "0123456789abcdef0123456789abcdef01234567"

RAW: dict[str, Any] = {
    "model": "resnet20", "policy": "", "stem": None, "config": {},
    "num_classes": 3, "classes": ["cat", "dog", "bird"], "default": True,
    "source": {
        "kind": "embedded", "file": "resnet20.pets_v1.safetensors", "repo": None,
        "revision": None, "url": None,
    },
    "sha256": "ab" * 32, "sha256_prefix": None, "sha1": None, "bytes": 1000,
    "params": 272_019, "macs": 41_000_000,
    "preprocessing": {
        "size": 32, "mean": [0.5, 0.25, 0.125], "std": [0.5, 0.25, 1.0],
        "interpolation": "bilinear", "crop": 0.875,
    },
    "dialect": "senetzoo", "data": "pets train",
    "metrics": [
        {"name": "accuracy", "data": "pets test", "images": 300, "value": 91.5, "std": None,
         "runs": 1, "checkpoint": "last", "source": None}
    ],
    "training": [
        {"recipe": "pets", "command": "senetzoo train pets", "epochs": 3, "seed": 0,
         "revision": REVISION, "hours": 0.5, "machine": "one core", "start": None}
    ],
    "license": {"code": "Apache-2.0", "weights": "Apache-2.0", "data": "CC BY 4.0"},
    "provenance": "trained by a test",
}  # fmt: skip
"""An entry that is right in every field, as the JSON has it."""


def text_of(entries: dict[str, Any]) -> str:
    return json.dumps({"schema": manifest.SCHEMA, "entries": entries})


def changed(path: str, value: object) -> dict[str, Any]:
    """`RAW` with one field changed: ``"source.file"``, ``"training.0.start"``."""
    raw = copy.deepcopy(RAW)
    *parents, last = path.split(".")
    place: Any = raw
    for parent in parents:
        place = place[int(parent) if parent.isdigit() else parent]
    place[last] = value
    return raw


class Shelf:
    """Weights in a folder of the test's own; `senetzoo` sees no others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = folder / manifest.FILE
        self.embedded = folder / "embedded"
        self.entries: dict[str, Any] = {}
        self.embedded.mkdir()
        self.write()

    def write(self) -> None:
        self.manifest.write_text(text_of(self.entries), encoding="utf-8")
        manifest.manifest.cache_clear()

    def put(
        self,
        tag: str,
        *,
        policy: str = "",
        kind: Literal["embedded", "hub"] = "embedded",
        seed: int = 7,
        **changes: Any,
    ) -> Classifier:
        """Make weights as `scripts/pin_weights.py` does, and return the network they are of."""
        base = tag.split(".")[0]
        fields = {**copy.deepcopy(RAW), "model": base, "policy": policy, **changes}
        spec = config(f"{base}+{policy}" if policy else base).replace(
            num_classes=fields["num_classes"], in_chans=len(fields["preprocessing"]["mean"])
        )
        if fields["stem"] is not None:
            spec = spec.replace(stem=fields["stem"])
        spec = spec.replace(**fields["config"])
        model = spec.build(seed=seed).eval()
        file = self.embedded / f"{tag}.safetensors"
        stored = half(model.state_dict())
        save_file(stored, str(file))
        model.load_state_dict({k: v.to(model.state_dict()[k].dtype) for k, v in stored.items()})
        counts = count(model)
        fields["source"]["file"] = file.name
        if kind == "hub":
            fields["source"] |= {"kind": "hub", "repo": "someone/pets", "revision": REVISION}
        fields |= {
            "sha256": cache.sha256(file),
            "bytes": file.stat().st_size,
            "params": counts.params,
            "macs": counts.macs,
        }
        self.entries[tag] = fields
        self.write()
        return model


def open_shelf(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    """The shelf in `folder`, in use until the generator goes on."""
    monkeypatch.setattr(manifest, "path", lambda: folder / manifest.FILE)
    monkeypatch.setattr(cache, "EMBEDDED", folder / "embedded")
    monkeypatch.setenv("SENETZOO_CACHE", str(folder / "cache"))
    yield Shelf(folder)
    monkeypatch.undo()
    manifest.manifest.cache_clear()


def report_of(model: Classifier) -> LoadReport:
    """The report of a network that has weights."""
    assert model.load_report is not None
    return model.load_report


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
        for module in (http, huggingface_hub.file_download, huggingface_hub.utils._http):
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
