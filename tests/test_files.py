from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from senetzoo._utils import files as _files
from senetzoo._utils.files import atomically

OLD, NEW = b"old" * 1000, b"new" * 1_000_000


def test_the_new_file_takes_the_place(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    for content in (OLD, NEW):
        with atomically(file) as partial:
            partial.write_bytes(content)
            assert not file.is_file() or file.read_bytes() == OLD
        assert file.read_bytes() == content
        assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("old", [True, False])
def test_an_error_leaves_what_was_there(tmp_path: Path, old: bool) -> None:
    file = tmp_path / "a.bin"
    if old:
        file.write_bytes(OLD)

    def write() -> None:
        with atomically(file) as partial:
            partial.write_bytes(NEW)
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [OLD] * old


def test_what_was_written_is_on_the_disk_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, seen = tmp_path / "a.bin", list[bool]()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append(file.exists())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with atomically(file) as partial:
        partial.write_bytes(NEW)
    assert seen == [False, True]  # the content, then the folder that names it


# Without torch: the file is executed by itself.
WRITER = """
import runpy, sys
from pathlib import Path
atomically = runpy.run_path(sys.argv[1])["atomically"]
file = Path(sys.argv[2])
print("ready", flush=True)
for turn in range(10**9):
    with atomically(file) as partial:
        partial.write_bytes(bytes([turn % 256]) * 300_000)
"""


def _kills(folder: Path, count: int) -> None:
    file = folder / "a.bin"
    for turn in range(count):
        writer = subprocess.Popen(
            [sys.executable, "-S", "-c", WRITER, str(_files.__file__), str(file)],
            stdout=subprocess.PIPE,
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.002 * (turn * 7 % 23))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        if file.exists():
            content = file.read_bytes()
            assert len(content) == 300_000
            assert len(set(content)) == 1
        assert all(path.suffix == ".partial" for path in folder.iterdir() if path != file)
    assert file.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_killed_writers(tmp_path: Path) -> None:
    _kills(tmp_path, 8)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_many_killed_writers(tmp_path: Path) -> None:
    _kills(tmp_path, 50)
