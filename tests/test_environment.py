"""The environment in records."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._inductor import config

from senetzoo._utils import environment

ROOT = Path(__file__).resolve().parent.parent


def test_the_revision_is_the_checkouts() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout of git")
    done = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    revision = environment.revision()
    assert revision is not None
    assert revision.removesuffix("-dirty") == done.stdout.strip()


def test_without_a_checkout_there_is_no_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "senetzoo" / "_utils" / "environment.py"
    monkeypatch.setattr(environment, "__file__", str(inside))
    assert environment.revision() is None


# --- The C++ compiler ----------------------------------------------------------------------------

CPU = torch.device("cpu")
# Mock compilers that write a library: a copy of one of torch's.
WORKS = 'while [ "$1" != -o ]; do shift; done; cp "$LIBRARY" "$2"'
FAKES = {
    "works": (WORKS, "", ""),
    "broken": (
        "echo In file x: >&2; echo 'x.cpp:1:1: fatal error: no cc1plus' >&2; exit 1",
        "fails here: x.cpp:1:1: fatal error: no cc1plus.",
        "Repair it, or set the variable CXX to another compiler",
    ),
    "silent": ("exit 3", "fails here: it exits with 3.", "Repair it"),
    "nothing written": ("exit 0", "cannot open shared object file", "Repair it"),
    "no headers": (
        "echo 'x.cpp:1:10: fatal error: Python.h: No such file or directory' >&2; exit 1",
        "Python.h: No such file or directory.",
        "Install the package with Python.h: on Debian and Ubuntu python3-dev",
    ),
    "no program": (None, "fails here: Exec format error.", "Repair it"),
}


@pytest.fixture(autouse=True)
def _asked_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    library = next(Path(torch.__file__).with_name("lib").glob("libtorch_global_deps.*"))
    monkeypatch.setenv("LIBRARY", str(library))
    environment._compiler_missing.cache_clear()
    with config.patch({"cpp.cxx": (None, "g++")}):
        yield
    environment._compiler_missing.cache_clear()


def program(path: Path, script: str | None) -> Path:
    """A program that counts how often it is run."""
    count = f'echo x >> "{path}.runs"\n'
    path.write_bytes(b"\x7f\0" if script is None else f"#!/bin/sh\n{count}{script}\n".encode())
    path.chmod(0o755)
    return path


posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")


@posix
@pytest.mark.parametrize("fake", FAKES)
def test_a_compiler_is_tried(fake: str, tmp_path: Path) -> None:
    script, cause, remedy = FAKES[fake]
    path = program(tmp_path / "c++", script)
    config.cpp.cxx = (None, str(path))
    said = environment.compiler_missing(CPU)
    if not cause:
        assert said == ("", "")
    else:
        assert cause in said[0]
        assert said[1].startswith(remedy)
    assert environment.compiler_missing(CPU) == said
    if script is not None:
        assert Path(f"{path}.runs").read_text() == "x\n"  # once a process


def test_cxx_names_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = str(tmp_path / "c++")
    monkeypatch.setenv("CXX", name)
    config.cpp.cxx = (None, name)
    assert environment.compiler_missing(CPU) == (
        f"The variable CXX is {name!r}, and there is no such program.",
        "Unset it, or set it to a C++ compiler: CXX=g++",
    )


def test_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.compiler_missing(CPU) == (
        "It requires a C++ compiler, and there is none: torch looks for g++.",
        "Install g++ or clang++, or set the variable CXX to another compiler",
    )
    assert config.cpp.cxx == (None, "g++")


@posix
@pytest.mark.parametrize("there", [("clang++",), ("g++", "clang++")])
def test_only_clang_is_taken(
    there: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in ("cp", "sh"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    for name in there:
        program(tmp_path / name, WORKS)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.compiler_missing(CPU) == ("", "")
    assert config.cpp.cxx == (None, there[0])


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = environment.compiler_missing(torch.device("cuda"))
    assert said == ("It requires Triton, which is not installed.", "Type: pip install triton")
    assert environment.compiler_missing(torch.device("mps")) == ("", "")


@pytest.mark.slow
def test_the_real_one() -> None:
    """Agrees with torch's own search for a compiler."""
    said = environment.compiler_missing(CPU)
    if shutil.which("g++") is None:
        assert said[0]
        return
    assert said == ("", "")
    assert torch.compile(lambda x: x.sin() + 1)(torch.zeros(3)).tolist() == [1.0] * 3
