"""Files that were cut short, or are of another version, through every reader of them.

Each reader gives a result, or an error that names the file and says what to do.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from typing import Any

import pytest
import torch
from support.networks import keep_record
from support.runs import TINY, silent, train
from support.weights import RAW, text_of
from tables import common

from senetzoo import config, create, load, save
from senetzoo.errors import SenetzooError
from senetzoo.report.run import find
from senetzoo.runs import LOG, read_log
from senetzoo.train import checkpoint, engine
from senetzoo.train.data import load_data
from senetzoo.train.recipe import Recipe, read_run
from senetzoo.weights import manifest

SMALL = TINY.replace(images_per_class=4, phases=((32, 1),), batch=8)
# Of files that are no text, so many cuts.
CUTS = 20


def keep(file: str, reader: str, tried: Sized) -> None:
    line = {"of": "cut files", "file": file, "reader": reader, "cases": len(tried)}
    keep_record("reliability", line)


class Resumed:
    """What a trainer reads before it goes on."""

    def __init__(self, recipe: Recipe, out: Path, *args: Any) -> None:
        self.recipe, self.out = recipe, out

    def all(self, variant: str, command: str) -> dict[str, Any]:
        checkpoint.load(self.out, self.recipe, 0, silent)
        if (self.out / LOG).is_file():
            read_log(self.out / LOG)
        return {}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    out = tmp_path_factory.mktemp("whole")
    train(SMALL, out)
    return out


@pytest.fixture
def folder(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, and a trainer that only reads."""
    data = load_data(SMALL, None)
    monkeypatch.setattr(engine, "load_data", lambda *_: data)
    monkeypatch.setattr(engine, "Trainer", Resumed)
    return shutil.copytree(whole, tmp_path / "run")


Reader = Callable[[Path], object]
# Each with the files that are not there: a run that is not finished, a run of version 0.1.0.
READERS: dict[str, tuple[tuple[str, ...], Reader]] = {
    "load": ((), load),
    "config": ((), config),
    "load 0.1.0": (("config.json",), load),
    "weights": ((), lambda run: load("lenet5", weights=run / "model.safetensors")),
    "save": ((), lambda run: save(create("lenet5", seed=0), run)),
    "train": ((), lambda run: train(SMALL, run)),
    "resume": (("summary.json",), lambda run: train(SMALL, run)),
    "report": ((), lambda run: find([run])),
    "recipe": ((), read_run),
}
CASES = [
    (file, reader)
    for file, readers in {
        "config.json": ("load", "config", "save"),
        "summary.json": ("train", "load 0.1.0", "recipe"),
        "log.jsonl": ("train", "resume", "load 0.1.0", "report"),
        "test.safetensors": ("report",),
        "model.safetensors": ("load", "load 0.1.0", "weights"),
        "checkpoint.pt": ("resume",),
    }.items()
    for reader in readers
]


def cuts(content: bytes, text: bool) -> Iterator[bytes]:
    for end in range(0, len(content), 10 if text else math.ceil(len(content) / CUTS)):
        yield content[:end]


def others(content: bytes) -> Iterator[bytes]:
    """Other content for a text file."""
    text = content.decode("utf-8")
    yield text.encode("utf-16")
    yield b"\xff" + content
    yield from (b"[]", b"[{}]\n", b"null", b"1e999", b"{}", b"\x00" * 100)
    yield re.sub(r'": -?[0-9.]+', '": NaN', text, count=1).encode()
    yield re.sub(r'": "\w*', '": "\\\\ud800', text, count=1).encode()


# What else may be wrong with a whole file, by how the message begins.
WHOLE = ("The run in {run} has nothing to report yet.", "{run} has a run with another recipe")


def outcome(reader: Reader, run: Path, file: Path) -> str:
    """The result: no error, or a message with three lines that names the file."""
    try:
        reader(run)
    except SenetzooError as error:
        message = str(error)
        named = str(file) in message or (file.name in message and str(file.parent) in message)
        assert named or message.startswith(tuple(text.format(run=run) for text in WHOLE)), message
        assert len(message.splitlines()) == 3, message
        return message
    return ""


@pytest.mark.parametrize(("name", "reader"), CASES)
def test_cut_files(folder: Path, name: str, reader: str) -> None:
    missing, read = READERS[reader]
    for other in missing:
        (folder / other).unlink()
    file = folder / name
    content = file.read_bytes()
    text = file.suffix in (".json", ".jsonl")
    broken, tried = 0, [*cuts(content, text), *(others(content) if text else ())]
    for new in tried:
        file.write_bytes(new)
        broken += bool(outcome(read, folder, file))
    # All but the cuts of a log, whose last line may be unfinished.
    assert broken >= (100 if name == LOG else 20)
    keep(name, reader, tried)


UPGRADE = "A newer senetzoo wrote it: pip install --upgrade senetzoo"


@pytest.mark.parametrize(
    ("name", "reader"), [case for case in CASES if "json" in case[0] and case[1] != "save"]
)
def test_files_of_another_version(folder: Path, name: str, reader: str) -> None:
    missing, read = READERS[reader]
    for other in missing:
        (folder / other).unlink()
    file = folder / name
    content = file.read_text(encoding="utf-8")
    assert content.count('"schema": 2') == 1
    # Of a later version anything may differ beside.
    for text in (content, content.replace('"recipe"', '"plan"').replace('"network"', '"net"')):
        file.write_text(text.replace('"schema": 2', '"schema": 3'), encoding="utf-8")
        lines = outcome(read, folder, file).splitlines()
        assert lines == [
            f"{file} is broken at schema.",
            "It is 3, and this version of senetzoo reads 1 to 2.",
            UPGRADE,
        ]
    for odd in ('"2"', "true", "0", "null", "1e9"):
        file.write_text(content.replace('"schema": 2', f'"schema": {odd}'), encoding="utf-8")
        assert outcome(read, folder, file).startswith(f"{file} is broken at schema.")
    # A field more is of no harm, or named.
    file.write_text(content.replace("{", '{"more": 1, ', 1), encoding="utf-8")
    message = outcome(read, folder, file)
    assert (message != "") == (name == "config.json")
    assert message == "" or "The field 'more' is unknown." in message
    if name != "config.json":  # as version 0.1.0 wrote it
        file.write_text(content.replace('"schema": 2, ', "").replace('"schema": 2,\n', ""))
        assert outcome(read, folder, file) == ""


def test_a_checkpoint_of_another_version(folder: Path) -> None:
    (folder / "summary.json").unlink()
    file = folder / "checkpoint.pt"
    state = torch.load(file, weights_only=True)
    resume = READERS["resume"][1]
    torch.save({**state, "version": state["version"] + 1, "recipe": None}, file)
    assert outcome(resume, folder, file).splitlines()[::2] == [
        f"{file} is broken at schema.",
        UPGRADE,
    ]
    for changes in ({"version": 1}, {"version": "2"}, {"version": None}):
        torch.save({**state, **changes}, file)
        assert "It isn't a checkpoint of a run" in outcome(resume, folder, file)
    # What older versions did not write, since they had no fine-tuning.
    for field in state.keys() - {"best", "fresh"}:
        torch.save({name: value for name, value in state.items() if name != field}, file)
        assert "It isn't a checkpoint of a run" in outcome(resume, folder, file)
    torch.save({**state, "more": 1}, file)
    assert outcome(resume, folder, file) == ""


def test_a_cut_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / manifest.FILE
    monkeypatch.setattr(manifest, "path", lambda: file)
    content = text_of({"resnet20.pets_v1": RAW}).encode()

    def read(_: Path) -> object:
        manifest.manifest.cache_clear()
        return manifest.manifest()

    own, later = (f'"schema": {number}'.encode() for number in (manifest.SCHEMA, 99))
    assert content.count(own) == 1
    tried = [*cuts(content, text=True), *others(content)]
    try:
        for new in tried:
            file.write_bytes(new)
            assert outcome(read, tmp_path, file)
        keep(file.name, "manifest", tried)
        file.write_bytes(content.replace(own, later))
        assert outcome(read, tmp_path, file).endswith(UPGRADE)
        file.write_bytes(content)
        assert outcome(read, tmp_path, file) == ""
    finally:
        monkeypatch.undo()
        manifest.manifest.cache_clear()


def test_cut_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of benchmarks, as the generators of the documents read them."""
    monkeypatch.setattr(common, "RECORDS", tmp_path)
    file = tmp_path / "speed.jsonl"
    records = [{"environment": {"cpu": "a"}, "speed": [0.5, 1]}, {"environment": None}]
    content = "".join(json.dumps(record) + "\n" for record in records).encode()

    def read(_: Path) -> object:
        return common.lines(file.name)

    whole = {0, *(at + 1 for at in range(len(content)) if content[at : at + 1] == b"\n")}
    for end in range(len(content)):
        file.write_bytes(content[:end])
        assert (outcome(read, tmp_path, file) == "") == (end in whole or end + 1 in whole)
    for new in (b"\xff" + content, b"[]\n", b'{"a": NaN}\n'):
        file.write_bytes(new)
        assert outcome(read, tmp_path, file).startswith(f"{file} is broken at line 1.")
    file.write_bytes(content)
    assert common.lines(file.name) == records
    keep("a record", "the documents' generators", content)
