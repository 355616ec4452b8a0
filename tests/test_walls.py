"""The walls between the rooms, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import senetzoo

PACKAGE = Path(senetzoo.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# The rooms above zoo.py. Nobody else may know them.
UPSTAIRS = {"train", "bench", "deploy", "inspect", "predict", "report", "demo", "cli"}
DOORS = {"cli.py", "__main__.py"}


def room(path: Path) -> str:
    """``senetzoo/nn/stem.py`` is in ``nn``; ``senetzoo/zoo.py`` is ``zoo``."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, text: str | None = None) -> set[str]:
    """Every module that a file imports, inside functions too, by full name."""
    inside = path.relative_to(PACKAGE.parent).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8") if text is None else text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*inside[: len(inside) - node.level], *filter(None, [base])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def rooms(path: Path, text: str | None = None) -> set[str]:
    """The rooms and files of the package that a file imports from."""
    names = (name.split(".") for name in imports(path, text))
    return {parts[1] for parts in names if parts[0] == "senetzoo" and len(parts) > 1}


def files_of(name: str) -> list[Path]:
    found = [path for path in FILES if room(path) == name]
    assert found
    return found


def test_the_reader_sees_every_form_of_import() -> None:
    text = """
import senetzoo.gates.se
from senetzoo import policies
from senetzoo.weights.load import load_entry
from ..data import sets
from .. import bench
def f():
    from . import stem
"""
    assert rooms(PACKAGE / "nn" / "x.py", text) == {
        "gates", "policies", "weights", "data", "bench", "nn",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "strangers"),
    [
        ("models", {"gates", "policies", "weights"}),
        ("policies", {"gates", "weights", "models"}),
        ("gates", {"models", "weights"}),
    ],
)
def test_rooms_that_do_not_know_each_other(name: str, strangers: set[str]) -> None:
    for path in files_of(name):
        assert not rooms(path) & (strangers | {"zoo", "registry"}), path


def test_nn_knows_nothing_above_it() -> None:
    for path in files_of("nn"):
        # Of data it knows the type of a network's preprocessing.
        assert rooms(path) <= {"nn", "errors", "data"}, path


def test_nothing_below_knows_the_rooms_upstairs() -> None:
    # The package itself is a door too: it offers `optimize`.
    doors = {PACKAGE / "__init__.py"}
    below = [p for p in FILES if room(p) not in UPSTAIRS and p.name not in DOORS and p not in doors]
    assert PACKAGE / "zoo.py" in below
    for path in below:
        assert not rooms(path) & UPSTAIRS, path


def test_the_rooms_upstairs_make_no_circle() -> None:
    known = {name: set().union(*map(rooms, files_of(name))) & UPSTAIRS for name in UPSTAIRS}
    while free := {name for name, others in known.items() if not others - {name} & known.keys()}:
        for name in free:
            del known[name]
    assert not known


def test_torchvision_is_imported_through_its_door_only() -> None:
    for path in FILES:
        if any(name.split(".")[0] == "torchvision" for name in imports(path)):
            assert "senetzoo._torchvision" in imports(path), path


def test_no_assert_guards_anything() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            assert not isinstance(node, ast.Assert), f"{path}:{node.lineno}"


def test_import_is_light() -> None:
    program = (
        "import sys, senetzoo; senetzoo.create('se_resnet20', seed=0); "
        "print(sorted({'torchvision', 'PIL', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
