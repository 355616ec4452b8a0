from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import pytest
from support.commands import COMMANDS
from support.networks import message

from senetzoo import create, load, save
from senetzoo._utils import files as _files
from senetzoo._utils.files import (
    atomically,
    locked,
    only_writer,
    read_regular,
    user_path,
    write_csv,
)
from senetzoo.cli.options import UserPath
from senetzoo.errors import ConfigError

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


# Without site-packages, and so without torch.
WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1]).parents[2]))
from senetzoo._utils.files import atomically
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


# --- Home ----------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without HOME, unknown to the system, as in containers."""

    def unknown(_: object) -> None:
        raise KeyError("uid not found")

    for name in ("HOME", "USERPROFILE", "HOMEPATH", "HOMEDRIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)


def test_the_home_in_a_path(home: Path) -> None:
    assert user_path("~/a/b") == home / "a" / "b"
    assert user_path(Path("~")) == home
    assert user_path("a/~/b") == Path("a/~/b")
    # As in a shell: a file may have this name.
    assert user_path("~no-such-user.png") == Path("~no-such-user.png")


def test_a_home_that_nobody_knows(homeless: None) -> None:
    for call in (lambda: user_path("~/a"), lambda: load("~/a"), lambda: create("~/a+se")):
        assert message(call, ConfigError).splitlines()[1:] == [
            "HOME is not set, and the system does not know the user.",
            "Set HOME to a folder, or give a path without ~",
        ]
    assert user_path("~a/b") == Path("~a/b")


def test_networks_in_the_home(home: Path) -> None:
    model = create("lenet5", seed=0)
    save(model, "~/net")
    assert (home / "net" / "config.json").is_file()
    for again in (
        load("~/net"),
        load(Path("~/net")),
        create("lenet5", weights="~/net/model.safetensors"),
    ):
        assert again.conv1.weight.equal(model.conv1.weight)  # type: ignore[union-attr,operator,arg-type]


def test_every_path_of_the_command_line(home: Path) -> None:
    """Shells don't expand the ~ in --out=~/runs."""
    kinds = [
        (words, param.name, param.type)
        for words, command in COMMANDS.items()
        for param in command.params
        if isinstance(param.type, click.Path)
    ]
    assert len(kinds) >= 15
    for words, name, kind in kinds:
        assert isinstance(kind, UserPath), (words, name)
    (home / "a").write_text("")
    kind = UserPath(exists=True)
    assert kind.convert("~/a", None, None) == home / "a"


# --- Locks ---------------------------------------------------------------------------------------


def alone(folder: Path, seconds: float = 0.1) -> None:
    with only_writer(folder, "Can't.", "Wait", seconds):
        pass


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    found = list[str]()
    with only_writer(folder, "Can't.", "Wait"):
        other = threading.Thread(
            target=lambda: found.append(message(lambda: alone(folder), ConfigError))
        )
        other.start()
        other.join()
    assert found == [f"Can't.\nAnother process is writing to {folder}.\nWait"]
    alone(folder)
    assert not list(folder.iterdir())


HOLDER = """
import sys, time
from pathlib import Path
from senetzoo._utils.files import only_writer
with only_writer(Path(sys.argv[1]), "", ""):
    print("ready", flush=True)
    time.sleep(600)
"""


def test_a_killed_writer_leaves_no_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert message(lambda: alone(tmp_path), ConfigError).startswith("Can't.")
        holder.kill()
    assert (tmp_path / ".lock").exists()
    alone(tmp_path)


def test_a_lock_that_is_waited_for(tmp_path: Path) -> None:
    order = list[str]()

    def second() -> None:
        with locked(tmp_path / "lock"):
            order.append("second")

    with locked(tmp_path / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_networks_saved_to_one_folder_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save that starts between the two files of another one waits for it."""
    second = threading.Thread(target=lambda: save(create("lenet5", num_classes=3), tmp_path))
    plain = Path.replace

    def replace(self: Path, target: Path) -> Path:
        moved = plain(self, target)
        if target.name == "model.safetensors" and second.ident is None:
            second.start()
            second.join(0.3)
        return moved

    monkeypatch.setattr(Path, "replace", replace)
    save(create("lenet5", num_classes=2), tmp_path)
    second.join()
    assert load(tmp_path).num_classes == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_links_and_devices_stay_what_they_are(tmp_path: Path) -> None:
    target, link = tmp_path / "target.csv", tmp_path / "link.csv"
    target.write_text("old")
    link.symlink_to(target)
    write_csv(link, ["a"], [{"a": 1}])
    assert link.is_symlink()
    assert target.read_text() == "a\n1\n"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_csv(pipe, ["a"], [{"a": 1}])
        assert os.read(reader, 100) == b"a\n1\n"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    with pytest.raises(OSError, match="isn't a regular file"):
        read_regular(pipe)
