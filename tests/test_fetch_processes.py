"""Processes that are killed while downloading, and several that download the same file."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from support.hub import CONSTANTS, Fault
from support.weights import KINDS, Pantry, hash_of

import senetzoo
from senetzoo.weights import cache, download

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks and kills")

# Forks processes that download, so that they don't import anything.
NURSERY = """
import os, pickle, sys, types
package = types.ModuleType("senetzoo")
package.__path__ = [sys.argv[1]]
sys.modules["senetzoo"] = package
import huggingface_hub, huggingface_hub.file_download
huggingface_hub.utils.disable_progress_bars()
from senetzoo.weights import cache, download, manifest
for line in sys.stdin:
    count, file = line.split(maxsplit=1)
    with open(file.strip(), "rb") as opened:
        tag, entry, variables, constants = pickle.load(opened)
    manifest.manifest = lambda: {tag: entry}
    os.environ.clear()
    os.environ.update(variables)
    for name, value in constants.items():
        setattr(huggingface_hub.constants, name, value)
    children = []
    for _ in range(int(count)):
        child = os.fork()
        if child == 0:
            os.dup2(os.open(file.strip() + ".said", os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
            try:
                located = download.locate(tag, entry)
                os._exit(0 if cache.sha256(located.path) == entry.sha256 else 2)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
        children.append(child)
    print(*children, flush=True)
    print(*[os.waitpid(child, 0)[1] for child in children], flush=True)
"""


class Nursery:
    """One process for all tests, whose children see the variables of each."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "entry.pickle"
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY, str(Path(senetzoo.__file__).parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, pantry: Pantry, tag: str, count: int = 1) -> list[int]:
        """Processes that fetch the file of an entry: their numbers."""
        known = {name: getattr(constants, name) for name in CONSTANTS}
        content = (tag, pantry.entries[tag], dict(os.environ), known)
        self.file.write_bytes(pickle.dumps(content))
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count} {self.file}\n")
        self.process.stdin.flush()
        return self.numbers()

    def numbers(self) -> list[int]:
        """Numbers of processes; then how they ended: 0, the signal, or an exit code times 256."""
        assert self.process.stdout is not None
        return [int(word) for word in self.process.stdout.readline().split()]

    def said(self) -> str:
        """What they said, in all, since this was asked."""
        file = self.file.with_name(f"{self.file.name}.said")
        text = file.read_text()
        file.unlink()
        return text


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    yield nursery
    nursery.process.communicate(timeout=60)


def _whole(pantry: Pantry, tag: str) -> bool:
    """Whether the file exists; if so, it must be the right one."""
    located = cache.check(tag, pantry.entries[tag])
    assert located is None or located.path.read_bytes() == pantry.contents[tag]
    return located is not None


def _kills(pantry: Pantry, nursery: Nursery, count: int) -> None:
    rng = random.Random(count)
    pantry.add("url", file="a.pth")
    pantry.add("hub", "resnet32.pets_v1", file="b.pth")
    # Half a second each.
    for entry in pantry.entries.values():
        pantry.hub.fail(entry.source.file, Fault("slow", rate=120_000))
    in_the_middle = 0
    for turn in range(10 * count):
        if in_the_middle == count:
            break
        tag = rng.choice(list(pantry.entries))
        before = len(pantry.hub.requests)
        (process,) = nursery.start(pantry, tag)
        # Every other kill waits for a request: on a slow machine no fixed time hits a download.
        until = time.monotonic() + 30
        while turn % 2 and len(pantry.hub.requests) == before and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.4))
        with contextlib.suppress(ProcessLookupError):  # it may have ended by then
            os.kill(process, signal.SIGKILL)
        (end,) = nursery.numbers()
        assert end in (0, signal.SIGKILL)
        there = _whole(pantry, tag)
        assert there or end != 0
        asked = len(pantry.hub.requests) > before
        in_the_middle += end == signal.SIGKILL and asked and not there
        if rng.random() < 0.5:  # else the next process goes on with what this one left
            located = download.locate(tag, pantry.entries[tag])
            assert located.path.read_bytes() == pantry.contents[tag]
        if _whole(pantry, tag):
            path = download.locate(tag, pantry.entries[tag]).path
            path.resolve().unlink()
            path.unlink(missing_ok=True)
    faults, pantry.hub.faults = pantry.hub.faults, []
    assert faults
    for tag, entry in pantry.entries.items():
        assert download.locate(tag, entry).path.read_bytes() == pantry.contents[tag]
    assert nursery.said() == ""
    assert in_the_middle == count


def test_kills(pantry: Pantry, nursery: Nursery) -> None:
    _kills(pantry, nursery, 5)


@pytest.mark.slow
def test_many_kills(pantry: Pantry, nursery: Nursery) -> None:
    _kills(pantry, nursery, 50)


def test_a_kill_leaves_something_to_go_on_with(pantry: Pantry, nursery: Nursery) -> None:
    tag, entry = pantry.add("url")
    slow = Fault("slow", rate=40_000)
    pantry.hub.fail(entry.source.file, slow)
    (process,) = nursery.start(pantry, tag)
    partial = cache.cache_folder() / f".{tag}.pth.partial"
    until = time.monotonic() + 30
    while not (partial.is_file() and partial.stat().st_size > 20_000) and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    assert nursery.numbers() == [signal.SIGKILL]
    have = partial.stat().st_size
    assert 20_000 < have < 60_000
    slow.times = 0
    assert download.locate(tag, entry).path.read_bytes() == pantry.contents[tag]
    assert pantry.hub.asked(entry.source.file)[-1].headers["range"] == f"bytes={have}-"
    assert nursery.said() == ""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damaged", [False, True])
def test_eight_at_once(pantry: Pantry, nursery: Nursery, kind: str, damaged: bool) -> None:
    tag, entry = pantry.add("url" if kind == "url" else "hub")
    if damaged:
        path = download.locate(tag, entry).path.resolve()
        path.write_bytes(b"x" * 60_000)
        pantry.hub.requests.clear()
    pantry.hub.fail(entry.source.file, Fault("slow", rate=300_000))
    processes = nursery.start(pantry, tag, 8)
    assert len(set(processes)) == 8
    assert nursery.numbers() == [0] * 8
    said = nursery.said()
    # Exactly one of those that saw the damaged file renames it.
    assert said.count("UserWarning") == damaged
    assert len(pantry.hub.asked(entry.source.file, "GET")) == 1
    located = download.locate(tag, entry)
    assert located.origin == "cache"
    files = [p for p in located.path.resolve().parent.iterdir() if p.is_file()]
    whole = [p for p in files if p.suffix != ".bad"]
    assert [hash_of(p.read_bytes()) for p in whole] == [entry.sha256]
    assert len(files) == 1 + damaged
