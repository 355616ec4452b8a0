"""Where weights are searched for, in which order, and what can go wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import logging
import os
import pwd
import random
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import huggingface_hub
import pytest
from safetensors.torch import save
from support.hub import TOKEN, Fault
from support.networks import message
from support.weights import (
    KINDS,
    REPO,
    Pantry,
    Shelf,
    blocked,
    content_of,
    hash_of,
    report_of,
)
from torch import zeros

from senetzoo import ECA, create, stage
from senetzoo._utils.environment import offline
from senetzoo.errors import ConfigError, WeightsError
from senetzoo.spec import ModelSpec
from senetzoo.weights import cache, download, http, lock, manifest
from senetzoo.weights.manifest import Source

TAG = "resnet20.pets_v1"
Kind = Literal["url", "hub"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


def refusal(tag: str, entry: manifest.Entry) -> str:
    with pytest.raises(WeightsError) as caught:
        download.locate(tag, entry)
    return str(caught.value)


# --- The order -----------------------------------------------------------------------------------


def test_the_first_place_that_has_it(
    pantry: Pantry, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    tag, entry = pantry.add(kind)
    content, name = pantry.contents[tag], f"{tag}.pth"
    folder, other = pantry.folder_of("folder"), pantry.folder_of("other")
    # Folders are always tried before addresses, which need a network.
    parts = [f"{pantry.hub.url}/mirror", str(folder), str(other)]
    monkeypatch.setenv("SENETZOO_WEIGHTS", os.pathsep.join(parts))
    files = {
        "cache": cache.cache_folder() / name,
        "folder": folder / name,
        "other": other / name,
    }
    cache.cache_folder().mkdir()
    for *there, mirrored in itertools.product([True, False], repeat=len(files) + 1):
        shutil.rmtree(pantry.folder / "hub", ignore_errors=True)
        pantry.hub.files.pop(f"/mirror/{name}", None)
        if mirrored:
            pantry.hub.serve(f"mirror/{name}", content)
        pantry.hub.requests.clear()
        for path, present in zip(files.values(), there, strict=True):
            path.unlink(missing_ok=True)
            if present:
                path.write_bytes(content)
        elsewhere = "mirror" if mirrored else kind
        first = next((n for n, present in zip(files, there, strict=True) if present), elsewhere)
        located = download.locate(tag, entry)
        assert located.origin == {"other": "folder"}.get(first, first)
        if first in files:
            assert located.path == files[first]
            assert not pantry.hub.requests
        assert located.path.read_bytes() == content
        assert (located.sha256, located.pinned) == (hash_of(content), "sha256")
        again = download.locate(tag, entry)
        assert again.origin == ("cache" if first == elsewhere else located.origin)


@pytest.mark.parametrize("kind", ["embedded", "hub", "folder"])
def test_create_opens_no_socket(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, kind: str, tmp_path: Path
) -> None:
    shelf.put(TAG, kind="embedded" if kind == "embedded" else "hub")
    file = shelf.embedded / f"{TAG}.safetensors"
    if kind == "folder":
        monkeypatch.setenv("SENETZOO_WEIGHTS", str(shelf.embedded))
    elif kind == "hub":
        cache = tmp_path / "hub"
        commit = cache / "models--someone--pets" / "snapshots"
        commit = commit / (manifest.manifest()[TAG].source.revision or "")
        commit.mkdir(parents=True)
        file.rename(commit / file.name)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    blocked(monkeypatch)
    report = report_of(create("resnet20", pretrained=True))
    assert report.origin == {"hub": "cache"}.get(kind, kind)


def test_names_of_files(pantry: Pantry, monkeypatch: pytest.MonkeyPatch) -> None:
    tag, entry = pantry.add("url")
    folder = pantry.folder_of("folder")
    monkeypatch.setenv("SENETZOO_WEIGHTS", str(folder))
    theirs = folder / "pets-0123.pth"
    theirs.write_bytes(pantry.contents[tag])
    assert download.locate(tag, entry).path == theirs
    ours = folder / f"{tag}.pth"
    ours.write_bytes(pantry.contents[tag])
    assert download.locate(tag, entry).path == ours
    # A file name that several entries share is ambiguous.
    ours.unlink()
    pantry.add("url", "resnet32.pets_v1")
    assert cache.check(tag, entry) is None


def test_variables(pantry: Pantry, monkeypatch: pytest.MonkeyPatch) -> None:
    tag, entry = pantry.add("url")
    home = Path.home()
    monkeypatch.delenv("HF_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.cache_folder() == home / ".cache" / "huggingface" / "senetzoo"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache.cache_folder() == Path("/xdg/huggingface/senetzoo")
    monkeypatch.setenv("HF_HOME", "/hf")
    assert cache.cache_folder() == Path("/hf/senetzoo")
    monkeypatch.setenv("SENETZOO_CACHE", "~/zoo")
    assert cache.cache_folder() == home / "zoo"
    for value in ("1", "true", "YES", "on"):
        monkeypatch.setenv("HF_HUB_OFFLINE", value)
        assert offline()
    for value in ("0", "", "no"):
        monkeypatch.setenv("HF_HUB_OFFLINE", value)
        assert not offline()
    for part in (str(pantry.folder / "missing"), "ftp://mirror"):
        monkeypatch.setenv("SENETZOO_WEIGHTS", part)
        assert refusal(tag, entry) == (
            f"SENETZOO_WEIGHTS contains {part}.\n"
            "It is neither an existing folder nor an address with https:// or http://.\n"
            "Create the folder, or change or unset the variable"
        )


@pytest.mark.parametrize(
    ("variable", "new"),
    [
        ("SENETZOO_OFFLINE", "HF_HUB_OFFLINE=1, which stops every download"),
        ("SENETZOO_MIRROR", "SENETZOO_WEIGHTS, which takes folders and addresses"),
    ],
)
def test_variables_of_older_versions(
    pantry: Pantry, monkeypatch: pytest.MonkeyPatch, kind: Kind, variable: str, new: str
) -> None:
    """They aren't supported any more, but downloads stop instead of ignoring them."""
    tag, entry = pantry.add(kind)
    monkeypatch.setenv(variable, "1")
    blocked(monkeypatch)
    assert message(lambda: download.locate(tag, entry), ConfigError) == (
        f"{variable} is set.\nsenetzoo no longer reads it.\nUnset it, and set {new}"
    )
    pantry.cached(tag)
    assert download.locate(tag, entry).origin == "cache"


def test_parts_of_senetzoo_weights(pantry: Pantry, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [pantry.folder_of("a"), pantry.folder_of("b")]
    # With the separator in them.
    addresses = [
        "https://mirror.example",
        "http://localhost:8080",
        "http://localhost:8080/weights",
        "https://mirror.example/zoo/v1",
        "http://[::1]:8080/weights",
        "http://[fe80::1]",
        "http://10.0.0.1:80",
    ]
    text = os.pathsep.join(map(str, [folders[0], *addresses[:4], folders[1], *addresses[4:]]))
    for around in ("", os.pathsep):
        monkeypatch.setenv("SENETZOO_WEIGHTS", f"{around}{text}{around}")
        assert cache.search_path() == (folders, addresses)
    monkeypatch.setenv("SENETZOO_WEIGHTS", "http://mirror/")
    assert cache.search_path() == ([], ["http://mirror"])
    monkeypatch.delenv("SENETZOO_WEIGHTS")
    assert cache.search_path() == ([], [])


def test_a_mirror(pantry: Pantry, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    tag, entry = pantry.add(kind)
    monkeypatch.setenv("SENETZOO_WEIGHTS", f"{pantry.hub.url}/mirror/")
    # The mirror doesn't have the file, so the source is used.
    assert download.locate(tag, entry).origin == kind
    shutil.rmtree(cache.cache_folder(), ignore_errors=True)
    shutil.rmtree(pantry.folder / "hub", ignore_errors=True)
    for name in (f"{tag}.pth", "pets-0123.pth"):
        pantry.hub.files.pop(f"/mirror/{tag}.pth", None)
        pantry.hub.serve(f"mirror/{name}", pantry.contents[tag])
        pantry.hub.requests.clear()
        assert download.locate(tag, entry).origin == "mirror"
        assert not pantry.hub.asked("", "HEAD")
        # Only the Hub gets the token.
        assert not any("authorization" in request.headers for request in pantry.hub.requests)
        assert download.locate(tag, entry).origin == "cache"
        (cache.cache_folder() / f"{tag}.pth").unlink()
    # The mirror fails, so there is a warning and the source is used.
    pantry.hub.fail(f"/mirror/{tag}.pth", Fault("gated"))
    with pytest.warns(UserWarning, match="could not be used") as said:
        assert download.locate(tag, entry).origin == kind
    assert str(said[0].message) == (
        f"{pantry.hub.url}/mirror could not be used: access is denied (403)."
    )


def test_the_hub_gets_the_token_and_the_content_network_does_not(pantry: Pantry) -> None:
    tag, entry = pantry.add("hub")
    pantry.hub.repos[REPO].private = True
    download.locate(tag, entry)
    (head,) = pantry.hub.asked(entry.source.file, "HEAD")
    assert head.headers["authorization"] == f"Bearer {TOKEN}"
    download.copy_to(pantry.folder / "to", *pantry.add("hub", "resnet32.pets_v1"))
    # The content server rejects requests with a token.
    assert (pantry.folder / "to" / "resnet32.pets_v1.pth").is_file()


# --- Not pinned ----------------------------------------------------------------------------------

UNPUBLISHED = "The publisher of the weights .* states no hash"


def unpinned(pantry: Pantry, kind: Kind) -> tuple[str, manifest.Entry]:
    """An entry of the main branch, or of an address, without a published hash."""
    tag, entry = pantry.add(kind)
    main = dataclasses.replace(entry.source, revision=None)
    return pantry.change(tag, sha256=None, bytes=None, source=main)


def test_the_first_file_is_recorded(pantry: Pantry, kind: Kind) -> None:
    tag, entry = unpinned(pantry, kind)
    with pytest.warns(UserWarning, match=UNPUBLISHED) as said:
        located = download.locate(tag, entry)
    kept = cache.cache_folder() / lock.FILE
    assert [str(warning.message) for warning in said] == [
        f"The publisher of the weights {tag} states no hash. That of {located.path} is recorded "
        f"in {kept}, and later files have to match it."
    ]
    digest = hash_of(pantry.contents[tag])
    assert (located.pinned, located.origin, located.sha256) == ("", kind, digest)
    commit = located.path.parent.name if kind == "hub" else None
    known = {"sha256": digest, "revision": commit}
    assert json.loads(kept.read_text("utf-8")) == {"schema": 1, "weights": {tag: known}}
    again = download.locate(tag, entry)  # without a warning
    assert (again.pinned, again.origin, again.sha256) == ("sha256", "cache", digest)


def test_a_lock_file_beside_the_project(
    pantry: Pantry, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest one is used, also for a file that is already in the cache."""
    tag, entry = unpinned(pantry, kind)
    project = pantry.folder_of("project")
    (project / "deeper").mkdir()
    monkeypatch.chdir(project / "deeper")
    with pytest.warns(UserWarning, match=UNPUBLISHED):
        download.locate(tag, entry)
    lock.write(project / lock.FILE, {})
    with pytest.warns(UserWarning, match=re.escape(str(project / lock.FILE))):
        download.locate(tag, entry)
    known = lock.read(project / lock.FILE)
    assert known == lock.read(cache.cache_folder() / lock.FILE)
    lock.write(project / lock.FILE, {tag: {"sha256": "ab" * 32, "revision": None}})
    with pytest.raises(WeightsError, match=f"are not those of {lock.FILE}"):
        cache.check(tag, entry)
    monkeypatch.chdir(pantry.folder)
    assert cache.check(tag, entry) is not None


def test_another_machine_with_the_lock_file_gets_the_same_commit(
    pantry: Pantry, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag, entry = unpinned(pantry, "hub")
    project = pantry.folder_of("project")
    monkeypatch.chdir(project)
    lock.write(project / lock.FILE, {})
    with pytest.warns(UserWarning, match=UNPUBLISHED):
        first = download.locate(tag, entry)
    commit = pantry.hub.put(REPO, {entry.source.file: content_of(5)})
    shutil.rmtree(pantry.folder / "hub")  # another machine's cache
    second = download.locate(tag, entry)
    assert (second.sha256, second.revision) == (first.sha256, first.revision)
    assert download.copy_to(project / "to", tag, entry).sha256 == first.sha256
    newest = download.update(tag, entry)
    assert (newest.sha256, newest.revision) == (hash_of(content_of(5)), commit)
    assert lock.read(project / lock.FILE)[tag] == {"sha256": newest.sha256, "revision": commit}
    assert download.locate(tag, entry).sha256 == newest.sha256


def test_another_file_than_the_locked_one(pantry: Pantry) -> None:
    tag, entry = unpinned(pantry, "url")
    with pytest.warns(UserWarning, match=UNPUBLISHED):
        path = download.locate(tag, entry).path
    old, new = hash_of(pantry.contents[tag]), hash_of(content_of(5))
    pantry.hub.serve(f"models/{entry.source.file}", content_of(5))
    assert download.locate(tag, entry).sha256 == old  # the cache has it
    path.unlink()
    kept = cache.cache_folder() / lock.FILE
    for _ in range(2):
        assert refusal(tag, entry) == (
            f"The weights {tag} are not those of senetzoo.lock.\n"
            f"{download.address(entry)} has the sha256 {new}, {kept} has {old}.\n"
            "Try again; or choose others: senetzoo weights list 'resnet20.*'; or accept the "
            f"publisher's current file: senetzoo weights get {tag} --update"
        )
        assert not path.exists()
    pantry.cached(tag, b"of a mirror, and of no use any more")
    assert download.update(tag, entry).sha256 == new
    located = download.locate(tag, entry)
    assert (located.sha256, located.pinned, located.origin) == (new, "sha256", "cache")


def test_an_update_that_fails_leaves_all_as_it_was(pantry: Pantry) -> None:
    tag, entry = unpinned(pantry, "url")
    with pytest.warns(UserWarning, match=UNPUBLISHED):
        download.locate(tag, entry)
    before = lock.read(cache.cache_folder() / lock.FILE)
    pantry.hub.files.clear()
    with pytest.raises(WeightsError, match="could not be fetched"):
        download.update(tag, entry)
    assert lock.read(cache.cache_folder() / lock.FILE) == before
    assert download.locate(tag, entry).origin == "cache"


def test_a_copy_is_recorded_too(pantry: Pantry, kind: Kind) -> None:
    tag, entry = unpinned(pantry, kind)
    copy = download.copy_to(pantry.folder_of("to"), tag, entry)
    (known,) = lock.read(cache.cache_folder() / lock.FILE).values()
    assert known["sha256"] == copy.sha256 == hash_of(pantry.contents[tag])
    assert (known["revision"] is None) == (kind == "url")


def test_two_processes_with_two_first_files(pantry: Pantry) -> None:
    """The second one gets an error, and the record of the first stays."""
    tag, entry = unpinned(pantry, "url")
    first = pantry.cached(tag)
    one, other = (cache.verify(tag, entry, first, "url") for _ in "12")
    assert one is not None
    assert other is not None
    cache.record(tag, one)
    cache.record(tag, other)
    with pytest.raises(WeightsError, match=f"are not those of {lock.FILE}"):
        cache.record(tag, dataclasses.replace(other, sha256="ab" * 32))
    assert lock.read(cache.cache_folder() / lock.FILE)[tag]["sha256"] == one.sha256


def test_many_at_once_are_all_recorded(pantry: Pantry) -> None:
    tags = [pantry.add("url", f"resnet20.v{number}", sha256=None)[0] for number in range(8)]
    files = [pantry.cached(tag) for tag in tags]

    def one(tag: str, path: Path) -> None:
        file = cache.verify(tag, pantry.entries[tag], path, "url")
        assert file is not None
        cache.record(tag, file)

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(one, tags, files))
    known = lock.read(cache.cache_folder() / lock.FILE)
    assert {tag: one["sha256"] for tag, one in known.items()} == {
        tag: hash_of(pantry.contents[tag]) for tag in tags
    }


@pytest.mark.parametrize("why", ["Not a directory", "no home folder is known"])
def test_a_lock_file_that_cant_be_written(
    pantry: Pantry, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    tag, entry = unpinned(pantry, "url")
    folder = pantry.folder_of("folder")
    (folder / f"{tag}.pth").write_bytes(pantry.contents[tag])
    monkeypatch.setenv("SENETZOO_WEIGHTS", str(folder))

    def homeless() -> Path:
        raise ConfigError("no home", "none", "none")

    if "home" in why:
        monkeypatch.setattr(cache, "cache_folder", homeless)
    else:
        monkeypatch.setenv("SENETZOO_CACHE", str(folder / f"{tag}.pth" / "cache"))
    with pytest.warns(UserWarning, match=rf"can't be recorded \({why}\)"):
        assert download.locate(tag, entry).origin == "folder"


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", "its start", "It isn't valid JSON (Expecting value: line 1 column 1 (char 0))."),
        ("[]", "its start", "Expected an object with schema and weights."),
        ('{"weights": {}}', "schema", "It is null, and this version of senetzoo reads 1."),
        ('{"schema": 1, "weights": {"a.b": {"sha256": "ab", "revision": null}}}', "a.b.sha256",
         'It is "ab", not a hash of 64 lower-case hexadecimal digits.'),
        ('{"schema": 1, "weights": {"a.b": {"revision": null}}}', "a.b",
         "The field 'sha256' is missing."),
    ],
)  # fmt: skip
def test_a_broken_lock_file(pantry: Pantry, text: str, where: str, what: str) -> None:
    tag, entry = unpinned(pantry, "url")
    kept = cache.cache_folder() / lock.FILE
    kept.parent.mkdir()
    kept.write_text(text, "utf-8")
    assert refusal(tag, entry) == (
        f"{kept} is broken at {where}.\n{what}\nRestore it, or delete it to accept the next files"
    )
    assert not pantry.hub.requests


def test_the_hub_states_a_hash_where_the_manifest_does_not(pantry: Pantry) -> None:
    tag, entry = pantry.add("hub", sha256=None)
    right = hash_of(pantry.contents[tag])
    pantry.hub.fail(entry.source.file, Fault("wrong"))
    with pytest.raises(WeightsError, match="are not the published ones") as caught:
        download.locate(tag, entry)
    assert f", the Hub states {right}.\n" in str(caught.value)
    with pytest.raises(WeightsError, match=f"the Hub states {right}"):
        download.copy_to(pantry.folder_of("to"), tag, entry)
    pantry.hub.faults.clear()
    with pytest.warns(UserWarning, match=UNPUBLISHED):
        path = download.locate(tag, entry).path
    (cache.cache_folder() / lock.FILE).unlink()
    path.resolve().write_bytes(b"x")
    with (
        pytest.warns(UserWarning, match=f"damaged: sha256 .*, the Hub states {right}"),
        pytest.warns(UserWarning, match=UNPUBLISHED),
    ):
        assert download.locate(tag, entry).path.read_bytes() == pantry.contents[tag]


def zipped(content: bytes, *names: str) -> bytes:
    """A zip archive with a single file, as published by pytorchcv."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or ("net-0597-9b0024ac.pth",):
            archive.writestr(name, content)
    return target.getvalue()


def in_a_zip(
    pantry: Pantry, archive: bytes | None = None, sha1: str = ""
) -> tuple[str, manifest.Entry]:
    """An entry whose file is in a zip archive and has a known SHA-1."""
    tag, entry = pantry.add("url", file="net-0597-9b0024ac.pth")
    content = pantry.contents[tag]
    url = pantry.hub.serve(f"models/{entry.source.file}.zip", archive or zipped(content))
    return pantry.change(
        tag,
        sha256=None,
        bytes=None,
        sha1=sha1 or hashlib.sha1(content).hexdigest(),
        source=dataclasses.replace(entry.source, url=url),
    )


def test_a_zip(pantry: Pantry, monkeypatch: pytest.MonkeyPatch) -> None:
    tag, entry = in_a_zip(pantry)
    content = pantry.contents[tag]
    located = download.locate(tag, entry)
    assert located.path.read_bytes() == content
    assert (located.origin, located.pinned) == ("url", "sha1")
    assert located.sha256 == hash_of(content)
    files = {path.name for path in cache.cache_folder().rglob("*") if path.is_file()}
    assert {name for name in files if not name.endswith(".lock")} == {f"{tag}.pth"}
    # The file itself is cached, copied and mirrored, not the archive.
    copy = download.copy_to(pantry.folder_of("to"), tag, entry)
    assert copy.path.read_bytes() == content
    located.path.write_bytes(b"x")
    with pytest.warns(UserWarning, match=f"damaged: sha1 .*, the manifest has {entry.sha1}"):
        assert download.locate(tag, entry).path.read_bytes() == content
    again = download.locate(tag, entry)
    assert (again.origin, again.pinned, again.sha256) == ("cache", "sha1", hash_of(content))
    again.path.unlink()
    pantry.hub.serve(f"mirror/{tag}.pth", content)
    monkeypatch.setenv("SENETZOO_WEIGHTS", f"{pantry.hub.url}/mirror")
    assert download.locate(tag, entry).origin == "mirror"


@pytest.mark.parametrize(
    ("archive", "found"),
    [
        (zipped(b"x"), "11f6ad8ec52a2984abaafd7c3b516503785c2072"),
        (zipped(b"x", "a.pth", "b.pth"), "unknown (there are 2 files in the zip archive, not one)"),
        *(
            (
                zipped(b"x", name),
                f"unknown (the file in the zip archive is called {name!r}, which is a path)",
            )
            for name in ("../a.pth", "/a.pth", "a/b.pth", "c:a.pth", "..\\a.pth")
        ),
        (b"no zip archive", "unknown (File is not a zip file)"),
    ],
)
def test_a_zip_of_something_else(pantry: Pantry, archive: bytes, found: str) -> None:
    tag, entry = in_a_zip(pantry, archive)
    assert refusal(tag, entry) == (
        f"The weights {tag} are not the published ones.\n"
        f"{entry.source.url} has the sha1 {found}, the manifest has {entry.sha1}.\n"
        "Try again; or choose others: senetzoo weights list 'resnet20.*'"
    )
    files = {path.name for path in pantry.folder.rglob("*") if path.is_file()}
    assert not [name for name in files if name.endswith((".pth", ".zip", ".partial"))]


@pytest.mark.parametrize("size", [10, 10_000, None])
def test_a_zip_that_broke_off_goes_on(pantry: Pantry, size: int | None) -> None:
    tag, entry = in_a_zip(pantry)
    begun = zipped(pantry.contents[tag])[:size]
    cache.cache_folder().mkdir()
    (cache.cache_folder() / f".{tag}.pth.zip.partial").write_bytes(begun)
    assert download.locate(tag, entry).path.read_bytes() == pantry.contents[tag]
    ranges = [request.headers["range"] for request in pantry.hub.asked(".zip")]
    assert ranges == ([] if size is None else [f"bytes={size}-"])


def test_a_prefix(pantry: Pantry, kind: Kind) -> None:
    tag, entry = pantry.add(kind)
    full = entry.sha256 or ""
    right = pantry.change(tag, sha256=None, sha256_prefix=full[:8])
    assert download.locate(*right).pinned == "prefix"
    wrong = pantry.change(tag, sha256=None, sha256_prefix="0123456789")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        message = refusal(*wrong)
    assert message == (
        f"The weights {tag} are not the published ones.\n"
        f"{download.address(entry)} has the sha256 {full}, the manifest has 0123456789....\n"
        "Try again; or choose others: senetzoo weights list 'resnet20.*'"
    )


def test_the_report_says_how_it_was_checked(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.put(TAG, kind="hub")
    shelf.put("resnet20.pets_v2", kind="hub", default=False)
    monkeypatch.setenv("SENETZOO_WEIGHTS", str(shelf.embedded))
    # senetzoo's own files are always pinned; other files may not be.
    entries = dict(manifest.manifest())
    full = entries[TAG].sha256 or ""
    changes = {TAG: full[:10], "resnet20.pets_v2": None}
    for tag, prefix in changes.items():
        entries[tag] = dataclasses.replace(entries[tag], sha256=None, sha256_prefix=prefix)
    monkeypatch.setattr(manifest, "manifest", lambda: entries)
    report = report_of(create(TAG))
    assert (report.pinned, report.sha256) == ("prefix", full)
    assert str(report) == f"weights {TAG} (folder, sha256 {full[:12]}, checked by its start)"
    with pytest.warns(UserWarning, match=UNPUBLISHED):
        report = report_of(create("resnet20.pets_v2"))
    assert report.pinned == ""
    assert str(report).endswith(f"(folder, sha256 {report.sha256[:12]}, not pinned)")


# --- Faults of the server ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault("truncated", times=1),
        Fault("truncated", times=3),
        Fault("dropped", times=1),
        Fault("dropped", times=2, after=0),
        Fault("error", times=1, method="GET"),
        Fault("error", times=2),
        Fault("busy", times=2, retry_after=7),
        Fault("slow", rate=300_000),
    ],
    ids=lambda fault: f"{fault.kind}{fault.times or ''}{fault.method or ''}",
)
def test_faults_that_pass(pantry: Pantry, kind: Kind, fault: Fault) -> None:
    tag, entry = pantry.add(kind)
    pantry.hub.fail(entry.source.file, dataclasses.replace(fault))
    located = download.locate(tag, entry)
    assert located.path.read_bytes() == pantry.contents[tag]
    assert located.origin == kind
    if fault.kind == "busy":
        # The Hub's client retries once immediately, then after the requested time.
        assert [seconds for seconds in pantry.clock.slept if seconds >= 7]
    assert sum(pantry.clock.slept) < 60


def test_a_server_that_knows_no_ranges(pantry: Pantry) -> None:
    tag, entry = pantry.add("url")
    pantry.hub.fail(entry.source.file, Fault("truncated", times=1))
    pantry.hub.fail(entry.source.file, Fault("whole"))
    assert download.locate(tag, entry).path.read_bytes() == pantry.contents[tag]
    assert "range" in pantry.hub.asked(entry.source.file)[1].headers


CHOOSE = "Choose others: senetzoo weights list 'resnet20.*'"
OTHER_MACHINE = (
    f"Check the network; or on another machine type senetzoo weights get {TAG} --to FOLDER, copy "
    "the folder here and set SENETZOO_WEIGHTS=FOLDER"
)
HUB = {
    "unauthorised": (
        "there is no such repository, or it is private and this token, or no token, has no access "
        "(401)",
        "Check the name at {url}/someone/pets; for a private repository type: hf auth login",
    ),
    "gated": (
        "access to the repository is restricted, and this token, or no token, has none (403)",
        "Request access at {url}/someone/pets, and type: hf auth login",
    ),
}
"""Errors that the Hub's client distinguishes."""


@pytest.mark.parametrize(
    ("fault", "reason", "remedy"),
    [
        ("missing", "there is no such file (404)", CHOOSE),
        ("unauthorised", "access is denied (401)", CHOOSE),
        ("gated", "access is denied (403)", CHOOSE),
        ("busy", "the server is busy (429)", "Try again later"),
        ("error", "the server answered with 500", "Try again later"),
        ("dropped", None, OTHER_MACHINE),
        ("truncated", None, OTHER_MACHINE),
    ],
)
def test_faults_that_stay(
    pantry: Pantry,
    kind: Kind,
    fault: Any,
    reason: str | None,
    remedy: str,
) -> None:
    tag, entry = pantry.add(kind)
    if kind == "hub":
        reason, remedy = HUB.get(fault, (reason, remedy))
    pantry.hub.fail(entry.source.file, Fault(fault, after=0))
    first, second, third = refusal(tag, entry).splitlines()
    assert first == f"The weights {tag} could not be fetched."
    where = download.address(entry)
    assert second == f"{where}: {reason}." if reason else second.startswith(f"{where}: ")
    assert third == remedy.format(url=pantry.hub.url)
    assert len(pantry.hub.requests) < 30
    pantry.hub.faults.clear()
    assert download.locate(tag, entry).path.read_bytes() == pantry.contents[tag]


def test_nobody_answers(
    pantry: Pantry, kind: Kind, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    tag, entry = pantry.add(kind)
    pantry.hub.close()
    first, second, third = refusal(tag, entry).splitlines()
    assert first == f"The weights {tag} could not be fetched."
    assert second.startswith(f"{download.address(entry)}: ConnectError: ")
    assert third == OTHER_MACHINE
    # huggingface_hub retries a file five times, and logs each of them.
    assert len(caplog.records) <= 1


@pytest.mark.parametrize("fault", ["wrong", "swapped"])
def test_wrong_bytes_never_arrive(pantry: Pantry, kind: Kind, fault: Any) -> None:
    tag, entry = pantry.add(kind)
    pantry.hub.fail(entry.source.file, Fault(fault))
    message = refusal(tag, entry)
    content = pantry.contents[tag]
    if fault == "wrong":
        middle = len(content) // 2
        content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        assert message == (
            f"The weights {tag} are not the published ones.\n{download.address(entry)} has the "
            f"sha256 {hash_of(content)}, the manifest has {entry.sha256}.\n"
            "Try again; or choose others: senetzoo weights list 'resnet20.*'"
        )
    assert cache.check(tag, entry) is None
    pantry.hub.faults.clear()
    assert download.locate(tag, entry).path.read_bytes() == pantry.contents[tag]


def test_a_folder_that_cant_be_written(
    pantry: Pantry, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    tag, entry = pantry.add(kind)
    file = pantry.folder / "file"
    file.write_bytes(b"")
    monkeypatch.setenv("SENETZOO_CACHE", str(file))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(file / "hub"))
    first, _, third = refusal(tag, entry).splitlines()
    assert first == f"The weights {tag} could not be fetched."
    variable = "SENETZOO_CACHE" if kind == "url" else "HF_HOME"
    assert third == f"Free some space, or set {variable} to a writable folder"


def test_a_load_needs_no_cache(pantry: Pantry, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    """The file is then kept until the process ends, and fetched once."""
    tag, entry = pantry.add(kind)
    file = pantry.folder / "file"
    file.write_bytes(b"")
    monkeypatch.setenv("SENETZOO_CACHE", str(file / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(file / "hub"))
    cache.spare.cache_clear()
    variable = "SENETZOO_CACHE" if kind == "url" else "HF_HOME"
    with pytest.warns(UserWarning, match=rf"\(Not a directory\).* Set {variable} to a"):
        found = download.search(tag, entry)()
    assert found.path.read_bytes() == pantry.contents[tag]
    assert found.path.parent == cache.spare()
    requests = len(pantry.hub.requests)
    with pytest.warns(UserWarning, match="can't be stored"):
        assert download.search(tag, entry)() == found
    assert not [r for r in pantry.hub.requests[requests:] if r.method == "GET"]


def test_a_user_without_a_home(pantry: Pantry, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    tag, entry = pantry.add(kind)

    def unknown(_: object) -> None:
        raise KeyError("uid not found")

    for name in ("HOME", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    # The value that huggingface_hub would have.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", "~/.cache/huggingface/hub")
    monkeypatch.chdir(pantry.folder)
    assert cache.check(tag, entry) is None
    names = "HOME, HF_HOME or SENETZOO_CACHE" if kind == "url" else "HOME or HF_HOME"
    assert message(lambda: download.locate(tag, entry), ConfigError).splitlines()[1:] == [
        "HOME is not set, and the system does not know the user.",
        f"Set {names} to a writable folder",
    ]
    with pytest.warns(UserWarning, match=r"can't be stored \(no home folder is known\)"):
        found = download.search(tag, entry)()
    assert found.path.read_bytes() == pantry.contents[tag]
    assert not (pantry.folder / "~").exists()


@pytest.mark.parametrize("content", [None, b"no certificate"])
@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_that_cant_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None
) -> None:
    path = tmp_path / "certificates.pem"
    if content is not None:
        path.write_bytes(content)
    for other in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(other, raising=False)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        ssl.create_default_context(cafile=str(path))  # as httpx does
    # As requests does.
    theirs = OSError(f"Could not find a suitable TLS CA certificate bundle, invalid path: {path}")
    for error in (caught.value, theirs):
        assert "certificates" not in http.explain(error)[1]
        monkeypatch.setenv(name, str(path))
        meaning, remedy = http.explain(error)
        assert meaning.startswith(f"{name} names certificates that can't be read (")
        assert remedy == f"Set {name} to the file of your certificates, or unset it"
        # A folder that can't be written has another remedy.
        full = PermissionError(13, "Permission denied", "/root/cache")
        assert http.explain(full)[1].startswith("Free some space")
        monkeypatch.delenv(name)


# --- Resumed downloads ---------------------------------------------------------------------------


def _partial(pantry: Pantry, tag: str, content: bytes) -> Path:
    path = pantry.cached(tag, b"")
    path.unlink()
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    return partial


@pytest.mark.parametrize(
    ("other", "size", "requests"),
    [
        *((False, size, 1) for size in (1, 20_000, 59_999)),
        (False, 60_000, 0),
        *((True, size, 2) for size in (10, 59_999, 60_000, 70_000)),
    ],
)
def test_what_is_there_is_used(pantry: Pantry, other: bool, size: int, requests: int) -> None:
    """The start of the file is not fetched again; that of another file is."""
    tag, entry = pantry.add("url")
    right = pantry.contents[tag]
    assert len(right) == 60_000
    _partial(pantry, tag, content_of(99, size) if other else right[:size])
    assert download.locate(tag, entry).path.read_bytes() == right
    asked = pantry.hub.asked(entry.source.file)
    assert len(asked) == requests
    if requests == 1:
        assert asked[0].headers["range"] == f"bytes={size}-"
    assert [p.name for p in cache.cache_folder().iterdir() if p.is_file()] == [f"{tag}.pth"]


def test_without_a_hash_nothing_is_resumed(pantry: Pantry) -> None:
    tag, entry = pantry.change(pantry.add("url")[0], sha256=None)
    _partial(pantry, tag, content_of(99, 10))
    with pytest.warns(UserWarning, match=UNPUBLISHED):
        assert download.locate(tag, entry).path.read_bytes() == pantry.contents[tag]
    (request,) = pantry.hub.asked(entry.source.file)
    assert "range" not in request.headers


# --- Damaged files -------------------------------------------------------------------------------


def test_a_damaged_cached_file_is_set_aside(pantry: Pantry, kind: Kind) -> None:
    tag, entry = pantry.add(kind)
    path = download.locate(tag, entry).path
    real = path.resolve()
    damaged = bytearray(pantry.contents[tag])
    damaged[3] ^= 8
    real.write_bytes(damaged)
    with pytest.warns(UserWarning, match="damaged") as said:
        located = download.locate(tag, entry)
    bad = real.with_name(f"{real.name}.bad")
    assert [str(warning.message) for warning in said] == [
        f"The weights {tag} in {path} were damaged: sha256 {hash_of(bytes(damaged))}, the "
        f"manifest has {entry.sha256}. The file was moved to {bad} and is replaced."
    ]
    assert bad.read_bytes() == damaged
    assert located.origin == kind
    assert located.path.read_bytes() == pantry.contents[tag]
    assert download.locate(tag, entry).origin == "cache"


def test_a_damaged_cached_file_and_a_folder(
    pantry: Pantry, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag, entry = pantry.add("url")
    pantry.cached(tag, b"x")
    folder = pantry.folder_of("folder")
    (folder / f"{tag}.pth").write_bytes(pantry.contents[tag])
    monkeypatch.setenv("SENETZOO_WEIGHTS", str(folder))
    with pytest.warns(UserWarning, match="was moved to"):
        assert download.locate(tag, entry).origin == "folder"
    assert not pantry.hub.requests


def test_another_version_in_the_hubs_cache_stays(pantry: Pantry) -> None:
    tag, entry = pantry.add("hub")
    entry = dataclasses.replace(entry, source=dataclasses.replace(entry.source, revision=None))
    old = huggingface_hub.hf_hub_download(REPO, entry.source.file)
    tag, new = pantry.add("hub", content=content_of(5))
    new = dataclasses.replace(new, source=dataclasses.replace(new.source, revision=None))
    located = download.locate(tag, new)
    assert located.path.read_bytes() == pantry.contents[tag]
    assert Path(old).read_bytes() != pantry.contents[tag]
    # A hash that no version has: the file of the repository doesn't match.
    gone = dataclasses.replace(new, sha256="0" * 64)
    assert refusal(tag, gone).splitlines()[1] == (
        f"{download.address(new)} has the sha256 {new.sha256}, the manifest has {'0' * 64}."
    )
    assert located.path.is_file()


def test_a_damaged_file_that_cant_be_moved(pantry: Pantry, monkeypatch: pytest.MonkeyPatch) -> None:
    tag, entry = pantry.add("url")
    path = pantry.cached(tag, b"x")

    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    assert refusal(tag, entry) == (
        f"The weights {tag} are not the published ones, and their file can't be renamed.\n"
        f"{path} has the sha256 {hash_of(b'x')}, the manifest has {entry.sha256}; "
        f"Permission denied.\nDelete {path} and try again"
    )
    assert path.read_bytes() == b"x"


def _embedded(pantry: Pantry, content: bytes) -> tuple[str, manifest.Entry, Path]:
    tag, entry = pantry.add("url", content=content, file="tiny.safetensors")
    entry = dataclasses.replace(entry, source=Source("embedded", "tiny.safetensors"))
    return tag, entry, cache.EMBEDDED / "tiny.safetensors"


def test_a_missing_embedded_file(pantry: Pantry) -> None:
    tag, entry, path = _embedded(pantry, b"abc")
    assert refusal(tag, entry) == (
        f"The weights {tag} are missing from this installation.\n"
        f"Looked for {path}.\nInstall senetzoo again"
    )
    path.write_bytes(b"abc")
    assert download.locate(tag, entry) == cache.VerifiedFile(
        path, "embedded", hash_of(b"abc"), "sha256"
    )


def _tampered(rng: random.Random, content: bytes, other: bytes) -> bytes:
    """`content` with one bit flipped, or cut, or with bytes of another file."""
    place = rng.randrange(len(content))
    flipped = bytes([content[place] ^ 1 << rng.randrange(8)])
    return rng.choice(
        [
            content[:place] + flipped + content[place + 1 :],
            content[:place],
            content[:place] + other[place : place + 8] + content[place + 8 :],
        ]
    )


@pytest.mark.parametrize("where", ["embedded", "cache", "folder"])
def test_tampered_files_are_refused(
    pantry: Pantry, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """1,050 tampered files are all rejected, with both hashes in the message."""
    content = save({"a": zeros(20) + 1, "b": zeros(3, 2) + 2})
    other = save({"a": zeros(20) + 2, "b": zeros(3, 2) + 1})
    assert len(content) == len(other)
    if where == "embedded":
        tag, entry, path = _embedded(pantry, content)
    else:
        tag, entry = pantry.add("url", content=content, file="tiny.safetensors")
        folder = cache.cache_folder() if where == "cache" else pantry.folder_of("folder")
        folder.mkdir(exist_ok=True)
        path = folder / f"{tag}.safetensors"
        if where == "folder":
            monkeypatch.setenv("SENETZOO_WEIGHTS", str(folder))
    remedy = {
        "embedded": "Install senetzoo again",
        "cache": f"Type: senetzoo weights get {tag}",
        "folder": "Replace the file, or remove its folder from SENETZOO_WEIGHTS",
    }[where]
    # `locate` would repair the cache; `check` only reports.
    look = cache.check if where == "cache" else download.locate
    path.write_bytes(content)
    assert look(tag, entry) is not None
    rng, refused = random.Random(where), 0
    while refused < 350:
        tampered = _tampered(rng, content, other)
        if tampered == content:
            continue
        path.write_bytes(tampered)
        assert message(lambda: look(tag, entry), WeightsError) == (
            f"The weights {tag} are not the published ones.\n"
            f"{path} has the sha256 {hash_of(tampered)}, the manifest has {hash_of(content)}.\n"
            f"{remedy}"
        )
        refused += 1


# --- Offline -------------------------------------------------------------------------------------


def test_offline(pantry: Pantry, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    tag, entry = pantry.add(kind)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("SENETZOO_WEIGHTS", f"{pantry.hub.url}/mirror")
    blocked(monkeypatch)
    last = (
        f"Put the file into {cache.cache_folder()}, or into a folder in SENETZOO_WEIGHTS; "
        f"with a network, get it by: senetzoo weights get {tag} --to FOLDER"
    )
    address = {
        "url": f"{pantry.hub.url}/models/pets-0123.pth",
        "hub": f"{pantry.hub.url}/someone/pets/resolve/{entry.source.revision}/pets-0123.pth",
    }[kind]
    assert refusal(tag, entry) == (
        f"The weights {tag} are not on this machine, and HF_HUB_OFFLINE forbids downloads.\n"
        f"They are {tag}.pth (60000 bytes, sha256 {entry.sha256}) from {address}\n{last}"
    )
    part = dataclasses.replace(entry, sha256=None, sha256_prefix="0123abcd")
    assert f"(60000 bytes, sha256 0123abcd...) from {address}" in refusal(tag, part)
    none = dataclasses.replace(entry, sha256=None, bytes=None)
    assert f"{tag}.pth (no hash is known) from {address}" in refusal(tag, none)
    # Both suggested remedies work.
    pantry.cached(tag).rename(pantry.folder_of("brought") / f"{tag}.pth")
    assert cache.check(tag, entry) is None
    monkeypatch.setenv("SENETZOO_WEIGHTS", str(pantry.folder / "brought"))
    assert download.locate(tag, entry).origin == "folder"
    monkeypatch.delenv("SENETZOO_WEIGHTS")
    pantry.cached(tag)
    assert download.locate(tag, entry).origin == "cache"
    assert not pantry.hub.requests


def test_offline_no_data_set_is_downloaded(pantry: Pantry, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    code = """
import os
from senetzoo.data import hub
for old in ("", "1"):
    os.environ["SENETZOO_OFFLINE"] = old
    try:
        hub.load("someone/photos", "train")
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""
    pantry.hub.put("someone/photos", {"train.parquet": b""})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, _, second = done.stdout.partition("ConfigError: ")
    assert first.startswith("DataError: The data set someone")
    assert second.startswith("SENETZOO_OFFLINE is set.")
    assert not pantry.hub.requests


# --- The thread, and create ----------------------------------------------------------------------


def test_the_hash_is_taken_in_a_thread_while_the_network_is_built(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.put(TAG)
    real, seen, built = cache.sha256, list[str](), threading.Event()

    def watched(path: Path) -> str:
        seen.append(threading.current_thread().name)
        # Hashing ends only after the network was built, so both must run in parallel.
        assert built.wait(20)
        return real(path)

    build = ModelSpec.build

    def building(self: ModelSpec, seed: int | None = None) -> Any:
        while not seen:
            time.sleep(0.001)
        model = build(self, seed=seed)
        built.set()
        return model

    monkeypatch.setattr(cache, "sha256", watched)
    monkeypatch.setattr(ModelSpec, "build", building)
    assert create(TAG).load_report is not None
    assert seen == ["senetzoo-hash_0"]


def test_errors_of_the_thread_are_raised(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.put(TAG)
    file = shelf.embedded / f"{TAG}.safetensors"

    def unreadable(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(cache, "sha256", unreadable)
    assert message(lambda: create(TAG), WeightsError) == (
        f"The weights {TAG} can't be read.\n{file}: Permission denied.\n"
        "Make the file readable, or delete it"
    )
    monkeypatch.undo()


def test_a_network_that_cant_be_built_fetches_nothing(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shelf.put(TAG, kind="hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "none"))
    blocked(monkeypatch)
    with pytest.raises(ConfigError):
        create(TAG, num_classes=-1)
    with pytest.raises(Exception, match="stage"):
        create(TAG, policy=ECA().on(stage(9)))


def test_the_default_is_named_once(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    from senetzoo._utils import terminal

    terminal.say_once.cache_clear()
    shelf.put(TAG)
    for _ in range(2):
        create("resnet20", pretrained=True)
    create(TAG)
    create("resnet20", pretrained="pets_v1")
    captured = capsys.readouterr()
    assert captured.err == f"The default weights of resnet20 are {TAG}.\n"
    assert captured.out == ""
