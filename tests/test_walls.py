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


# From the bottom to the top: a file imports from its own room and from those before it.
ORDER = (
    *("errors", "_utils", "nn", "data", "policies", "gates", "models", "registry", "spec"),
    *(
        "own",
        "weights",
        "runs",
        "io",
        "zoo",
        "surgery",
        "eval",
        "train",
        "deploy",
        "bench",
        "inspect",
    ),
    *("predict", "report", "app", "cli"),
)
# Rooms beside each other in that order that do not know each other.
STRANGERS = {
    "models": {"policies", "gates"},
    "bench": {"train"},
    "report": {"train"},
    "train": {"bench"},
}


def modules(path: Path) -> set[str]:
    """The modules of the package that a file imports, without ``senetzoo.``; not the package."""
    heads = (name.partition(".") for name in imports(path))
    return {rest for head, _, rest in heads if head == "senetzoo" and rest in GRAPH}


def named(path: Path) -> str:
    """``nn.stem`` for ``senetzoo/nn/stem.py``, ``gates`` for ``senetzoo/gates/__init__.py``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# Every module with those that it imports, also inside functions and for types. A package's own
# file, a door, imports nothing here.
GRAPH: dict[str, set[str]] = {named(path): set() for path in FILES if named(path)}
for _path in FILES:
    if _path.name not in ("__init__.py", "__main__.py"):
        GRAPH[named(_path)] = modules(_path)
EDGES = {(name, other) for name, others in GRAPH.items() for other in others}


def breaks_the_order(edge: tuple[str, str]) -> bool:
    low, high = (name.split(".")[0] for name in edge)
    return ORDER.index(high) > ORDER.index(low) or high in STRANGERS.get(low, ())


def test_arrows_point_down() -> None:
    assert {name.split(".")[0] for name in GRAPH} <= set(ORDER)
    wrong = {edge for edge in EDGES if breaks_the_order(edge)}
    assert not wrong


def test_no_circles() -> None:
    left = dict(GRAPH)
    while free := {name for name, others in left.items() if not others & left.keys()}:
        left = {name: others for name, others in left.items() if name not in free}
    assert not left


def test_nn_knows_nothing_above_it() -> None:
    for path in files_of("nn"):
        assert rooms(path) <= {"nn", "errors", "_utils"}, path


def test_torchvision_is_imported_through_its_door_only() -> None:
    for path in FILES:
        if any(name.split(".")[0] == "torchvision" for name in imports(path)):
            assert "senetzoo._utils.torchvision" in imports(path), path


def test_no_assert_guards_anything() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            assert not isinstance(node, ast.Assert), f"{path}:{node.lineno}"


@pytest.mark.parametrize(
    ("program", "without"),
    [
        ("import senetzoo; dir(senetzoo)", {"torch", "torchvision", "PIL", "huggingface_hub"}),
        (
            "import senetzoo; senetzoo.create('se_resnet20', seed=0)",
            {"torchvision", "PIL", "huggingface_hub"},
        ),
        # What a user waits for at the prompt.
        *(
            (f"from senetzoo.cli import main; main({words!r}, standalone_mode=False)", {"torch"})
            for words in ([], ["--help"], ["weights", "--help"], ["train", "--help"])
        ),
        *(
            (
                "from click.shell_completion import ShellComplete; from senetzoo.cli import main; "
                f"assert ShellComplete(main, {{}}, '', '').get_completions({words!r}, {start!r})",
                {"torch"},
            )
            for words, start in (([], ""), (["explain"], "se_resnet20.c"), (["list"], "--fam"))
        ),
    ],
)
def test_import_is_light(program: str, without: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {program}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not without & set(done.stdout.split())


def test_every_public_name_is_found_where_the_stub_says() -> None:
    names = vars(senetzoo)["__all__"]
    assert set(names) <= set(dir(senetzoo))
    for name in names:
        assert getattr(senetzoo, name).__module__.startswith("senetzoo.") or name == "NONE"
    with pytest.raises(AttributeError, match="no attribute 'squeeze'"):
        getattr(senetzoo, "squeeze")  # noqa: B009
