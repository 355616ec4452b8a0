"""The commands ``senetzoo weights``."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import run
from support.hub import Fault
from support.weights import (
    RAW,
    Pantry,
    Shelf,
    blocked,
    content_of,
    hash_of,
    open_pantry,
)

from senetzoo.cli import weights as weights_command
from senetzoo.weights import cache, download, http, lock, manifest

TAG = "resnet20.pets_v1"


@pytest.fixture
def pantry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pantry]:
    for pantry in open_pantry(tmp_path, monkeypatch):
        # Imported above: imported here, it would keep the pantry's for good.
        monkeypatch.setattr(weights_command, "manifest", pantry.manifest)
        yield pantry


def test_list(shelf: Shelf) -> None:
    shelf.put(TAG)
    shelf.put("se_resnet20.pets_v2", default=False, metrics=[])
    assert run("weights", "list").output == (
        "resnet20.pets_v1 (default)  embedded  sha256  91.50 % on pets test\n"
        "se_resnet20.pets_v2         embedded  sha256\n"
    )
    assert run("weights", "list", "se_*").output == "se_resnet20.pets_v2  embedded  sha256\n"
    listed = json.loads(run("weights", "list", "--json").output)
    assert listed == {tag: {**shelf.entries[tag], "locked": None} for tag in manifest.manifest()}
    result = run("weights", "list", "vgg*")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: No weights match 'vgg*'.\n* matches any characters; a tag is network.version.\n"
        "Type for example: senetzoo weights list 'se_resnet20.*'\n"
    )


def test_list_says_what_to_look_out_for(pantry: Pantry) -> None:
    pantry.add("url")
    pantry.add("hub", "resnet20.nc_v1", default=False, sha256=None, sha256_prefix="0123abcd")
    license = dataclasses.replace(pantry.entries[TAG].license, weights="CC-BY-NC-4.0")
    pantry.change("resnet20.nc_v1", license=license)
    pantry.add("url", "resnet20.old_v1", default=False, sha256=None)
    (figure,) = pantry.entries[TAG].metrics
    five = dataclasses.replace(figure, name="accuracy@5", value=99.0)
    pantry.change("resnet20.old_v1", metrics=(figure, five))
    assert run("weights", "list").output.splitlines() == [
        "resnet20.pets_v1 (default)  url  sha256                           91.50 % on pets test",
        "resnet20.nc_v1              hub  start of sha256  non-commercial  91.50 % on pets test",
        "resnet20.old_v1             url  not pinned                       91.50 % on pets test",
    ]


def test_show(pantry: Pantry) -> None:
    _, entry = pantry.add("url")
    lines = {
        "weights": f"{TAG} (the default)",
        "network": "resnet20",
        "accuracy": "91.50 % on pets test",
        "trained on": "pets train",
        "classes": "3",
        "input": "3 x 32 x 32, bilinear, crop 0.875, mean 0.5, 0.25, 0.125, std 0.5, 0.25, 1",
        "size": "272,019 parameters, 41,000,000 MACs, 60,000 bytes",
        "source": f"{pantry.hub.url}/models/pets-0123.pth",
        "sha256": str(entry.sha256),
        "license": "weights Apache-2.0, code Apache-2.0, data CC BY 4.0",
        "provenance": "trained by a test",
        "file": "not on this machine",
    }

    def shown() -> dict[str, str]:
        return {
            line[:16].rstrip(): line[16:]
            for line in run("weights", "show", TAG).output.splitlines()
        }

    assert shown() == lines
    path = pantry.cached(TAG)
    assert shown() == {**lines, "file": str(path)}
    found = json.loads(run("weights", "show", "resnet20", "--json").output)
    plain = json.loads(json.dumps(dataclasses.asdict(entry)))
    assert found == {"tag": TAG, **plain, "locked": None, "file": str(path)}
    pantry.change(TAG, sha256=None, policy="se8@pre", stem="imagenet", bytes=None)
    assert shown() | {"file": ""} == lines | {
        "network": "resnet20 +se8@pre imagenet",
        "size": "272,019 parameters, 41,000,000 MACs",
        "sha256": "unknown: not pinned",
        "file": "",
    }
    result = run("weights", "show", "resnet20.pets_v2")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: There are no weights 'pets_v2' of 'resnet20'.\nIts tags are pets_v1.\n"
        "Did you mean 'pets_v1'?\n"
    )


def test_show_of_our_own(shelf: Shelf) -> None:
    shelf.put(TAG)
    output = run("weights", "show", TAG).output
    assert "recipe          pets: senetzoo train pets\n" in output
    assert "source          embedded\n" in output


def test_get_into_the_cache(pantry: Pantry, monkeypatch: pytest.MonkeyPatch) -> None:
    tag, entry = pantry.add("url")
    line = f"sha256 {entry.sha256}\n"
    assert run("weights", "get", "resnet20").output == f"{tag}  ok  url  {line}"
    blocked(monkeypatch)
    assert run("weights", "get", tag).output == f"{tag}  ok  cache  {line}"
    (found,) = json.loads(run("weights", "get", tag, "--json").output)
    path = cache.cache_folder() / f"{tag}.pth"
    assert found == {
        "tag": tag,
        "ok": True,
        "path": str(path),
        "origin": "cache",
        "sha256": entry.sha256,
        "pinned": "sha256",
        "revision": None,
    }


def test_get_for_another_machine(pantry: Pantry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that `get` fills works as SENETZOO_WEIGHTS offline."""
    pantry.add("url", file="model.pth")
    pantry.add("hub", "resnet32.pets_v1", file="model.pth")
    pantry.add("hub", "resnet44.pets_v1", file="model.pth")
    download.locate("resnet32.pets_v1", pantry.entries["resnet32.pets_v1"])
    to = pantry.folder / "to"
    result = run("weights", "get", "*.pets_v1", "--to", str(to))
    assert [line.split("  ")[:3] for line in result.output.splitlines()] == [
        ["resnet20.pets_v1", "ok", "url"],
        ["resnet32.pets_v1", "ok", "cache"],
        ["resnet44.pets_v1", "ok", "hub"],
    ]
    assert {p.name: p.read_bytes() for p in to.iterdir() if p.is_file()} == {
        f"{tag}.pth": content for tag, content in pantry.contents.items()
    }
    asked = len(pantry.hub.requests)
    again = run("weights", "get", "*.pets_v1", "--to", str(to))
    assert [line.split("  ")[2] for line in again.output.splitlines()] == ["folder"] * 3
    assert len(pantry.hub.requests) == asked
    monkeypatch.setenv("SENETZOO_CACHE", str(pantry.folder / "elsewhere"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(pantry.folder / "none"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("SENETZOO_WEIGHTS", str(to))
    blocked(monkeypatch)
    for tag, entry in pantry.entries.items():
        assert download.locate(tag, entry).path == to / f"{tag}.pth"


@pytest.mark.parametrize(("kind", "pinned"), [("url", True), ("hub", True), ("hub", False)])
def test_get_goes_on(pantry: Pantry, kind: Any, pinned: bool) -> None:
    tag, entry = pantry.add(kind)
    if not pinned:  # the Hub's own word is enough to tell whether both parts are of one file
        pantry.change(tag, sha256=None)
    to = pantry.folder / "to"
    pantry.hub.fail(entry.source.file, Fault("dropped", times=4, after=5_000))
    result = run("weights", "get", tag, "--to", str(to))
    assert result.exit_code == 2
    assert result.stderr.splitlines()[0] == f"error: The weights {tag} could not be fetched."
    partial = to / f".{tag}.pth.partial"
    have = partial.stat().st_size
    assert 0 < have < 60_000
    pantry.hub.requests.clear()
    assert run("weights", "get", tag, "--to", str(to)).exit_code == 0
    assert (to / f"{tag}.pth").read_bytes() == pantry.contents[tag]
    assert pantry.hub.asked(entry.source.file)[-1].headers["range"] == f"bytes={have}-"
    assert not partial.exists()


def test_get_mends_a_folder(pantry: Pantry) -> None:
    tag, entry = pantry.add("url")
    to = pantry.folder_of("to")
    (to / f"{tag}.pth").write_bytes(b"x")
    result = run("weights", "get", tag, "--to", str(to))
    assert result.stdout == f"{tag}  ok  url  sha256 {entry.sha256}\n"
    assert result.stderr == (
        f"warning: The weights {tag} in {to / f'{tag}.pth'} were damaged: sha256 {hash_of(b'x')}, "
        f"the manifest has {entry.sha256}. The file was moved to {to / f'{tag}.pth.bad'} and "
        "is replaced.\n"
    )
    assert (to / f"{tag}.pth").read_bytes() == pantry.contents[tag]


def test_get_from_a_mirror(pantry: Pantry, monkeypatch: pytest.MonkeyPatch) -> None:
    tag, entry = pantry.add("url")
    pantry.hub.serve(f"mirror/{tag}.pth", pantry.contents[tag])
    monkeypatch.setenv("SENETZOO_WEIGHTS", f"{pantry.hub.url}/mirror")
    to = pantry.folder / "to"
    assert run("weights", "get", tag, "--to", str(to)).output.split("  ")[2] == "mirror"
    assert (to / f"{tag}.pth").read_bytes() == pantry.contents[tag]
    assert not pantry.hub.asked(entry.source.file)


def test_one_error_keeps_none_of_the_others(pantry: Pantry) -> None:
    for tag in (TAG, "resnet32.pets_v1", "resnet44.pets_v1"):
        pantry.add("url", tag, file=f"{tag}.pth")
    pantry.hub.files.pop("/models/resnet32.pets_v1.pth")
    result = run("weights", "get", "*", "--json")
    assert result.exit_code == 2
    found = json.loads(result.stdout)
    assert [(item["tag"], item["ok"]) for item in found] == [
        (TAG, True),
        ("resnet32.pets_v1", False),
        ("resnet44.pets_v1", True),
    ]
    assert f"error: {found[1]['error']}\n" == result.stderr


def test_what_is_embedded_is_there(shelf: Shelf) -> None:
    shelf.put(TAG)
    to = shelf.folder / "to"
    assert run("weights", "get", TAG, "--to", str(to)).output.split("  ")[2] == "embedded"
    assert [file.name for file in to.glob("*.safetensors")] == [f"{TAG}.safetensors"]


def test_the_lock_file_is_said(pantry: Pantry, monkeypatch: pytest.MonkeyPatch) -> None:
    tag, entry = pantry.add("url", sha256=None)
    monkeypatch.chdir(pantry.folder_of("project"))
    digest = hash_of(pantry.contents[tag])
    with monkeypatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        assert run("weights", "get", tag, "--lock").exit_code == 2
    assert not Path(lock.FILE).exists()
    result = run("weights", "get", tag, "--lock")
    assert result.stdout == f"{tag}  ok  url  sha256 {digest} (senetzoo.lock)\n"
    assert result.stderr.startswith(f"warning: The publisher of the weights {tag} states no hash. ")
    kept = Path.cwd() / lock.FILE
    assert lock.read(kept) == {tag: {"sha256": digest, "revision": None}}
    for command in ("verify", "get"):
        result = run("weights", command, tag)
        assert (result.stdout, result.stderr) == (
            f"{tag}  ok  cache  sha256 {digest} (senetzoo.lock)\n",
            "",
        )
    assert f"sha256          {digest} ({kept})\n" in run("weights", "show", tag).output
    assert "  senetzoo.lock  " in run("weights", "list").output
    # The publisher's new file is used only when asked for.
    content = b"another file"
    pantry.hub.serve(f"models/{entry.source.file}", content)
    assert run("weights", "get", tag, "--lock").stdout.split() == [
        *(tag, "ok", "cache", "sha256", digest, "(senetzoo.lock)")
    ]
    result = run("weights", "get", tag, "--update")
    assert (result.stdout, result.stderr) == (
        f"{tag}  ok  cache  sha256 {hash_of(content)} (senetzoo.lock)\n",
        "",
    )
    monkeypatch.chdir(pantry.folder)
    result = run("weights", "verify", tag)
    assert result.stdout == f"{tag}  ok  cache  sha256 {hash_of(content)} (not pinned)\n"


GRAY: dict[str, Any] = {**RAW["preprocessing"], "mean": [0.5], "std": [0.5]}


def test_verify(shelf: Shelf) -> None:
    command = ("weights", "verify")
    shelf.put("lenet5.a", preprocessing=copy.deepcopy(GRAY))
    shelf.put("resnet20.b")
    shelf.put("se_resnet20.c")
    hashes = {tag: entry["sha256"] for tag, entry in shelf.entries.items()}
    lines = {tag: f"{tag}  ok  embedded  sha256 {value}\n" for tag, value in hashes.items()}
    assert run(*command).output == "".join(lines.values())
    assert run(*command, "resnet20", "se_resnet20.c").stdout == (
        lines["resnet20.b"] + lines["se_resnet20.c"]
    )
    (shelf.embedded / "resnet20.b.safetensors").write_bytes(b"")
    result = run(*command)
    assert result.exit_code == 2
    assert result.stdout == lines["lenet5.a"] + lines["se_resnet20.c"]
    assert result.stderr.startswith("error: The weights resnet20.b are not the published ones.\n")
    (shelf.embedded / "resnet20.b.safetensors").unlink()
    result = run(*command)
    assert result.stderr.startswith("error: The weights resnet20.b are missing from this ")


def test_verify_looks_and_does_nothing(pantry: Pantry, monkeypatch: pytest.MonkeyPatch) -> None:
    tag, entry = pantry.add("url")
    pantry.add("hub", "resnet32.pets_v1", file="other.pth")
    blocked(monkeypatch)
    assert run("weights", "verify").output == ""
    result = run("weights", "verify", tag)
    assert (result.exit_code, result.stderr) == (
        2,
        f"error: The weights {tag} are not on this machine.\nThere is nothing to check.\n"
        f"Type: senetzoo weights get {tag}\n",
    )
    path = pantry.cached(tag, content_of(9))
    result = run("weights", "verify")
    assert (result.exit_code, result.stderr) == (
        2,
        f"error: The weights {tag} are not the published ones.\n"
        f"{path} has the sha256 {hash_of(content_of(9))}, the manifest has {entry.sha256}.\n"
        f"Type: senetzoo weights get {tag}\n",
    )
    assert path.read_bytes() == content_of(9)
    pantry.cached(tag)
    assert run("weights", "verify").output == f"{tag}  ok  cache  sha256 {entry.sha256}\n"


def test_the_shipped_weights_verify(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SENETZOO_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    result = run("weights", "verify")
    assert result.exit_code == 0
    embedded = [t for t, e in manifest.manifest().items() if e.source.kind == "embedded"]
    assert [line.split()[0] for line in result.output.splitlines()] == embedded


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")
def test_progress_on_a_terminal_only(
    pantry: Pantry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl
    import pty
    import termios

    _, entry = pantry.add("url")
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        http.download(str(entry.source.url), tmp_path / "file.pth")
    assert b"file.pth: 100%" in os.read(ours, 100_000)
    os.close(ours)
    with io.StringIO() as file:
        monkeypatch.setattr(sys, "stderr", file)
        http.download(str(entry.source.url), tmp_path / "other.pth")
        assert file.getvalue() == ""
