"""Type checkers on a package that uses senetzoo: what they find, reveal and refuse."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import senetzoo

ROOT = Path(__file__).resolve().parent.parent
CONSUMER = ROOT / "tests" / "consumer"
SOURCE = CONSUMER / "src" / "consumer"


@dataclass(frozen=True)
class Said:
    """What a checker said of a line."""

    file: str
    line: int
    kind: str  # error or note
    text: str


def by_mypy() -> Iterator[Said]:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--no-color-output",
         "--cache-dir", str(ROOT / ".mypy_cache" / "consumer"), "src/consumer"],
        cwd=CONSUMER,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.stderr == ""
    for line in done.stdout.splitlines():
        match = re.match(r"(.+?):(\d+): (error|note): (.*)", line)
        if match is not None:
            revealed = re.sub(r"\b(?:\w+\.)+(?=\w)", "", match[4])
            yield Said(Path(match[1]).name, int(match[2]), match[3], revealed)


def by_pyright() -> Iterator[Said]:
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--project", str(CONSUMER), "--outputjson",
         "--pythonpath", sys.executable],
        cwd=CONSUMER,
        capture_output=True,
        text=True,
    )  # fmt: skip
    for item in json.loads(done.stdout)["generalDiagnostics"]:
        kind = {"error": "error", "warning": "error", "information": "note"}[item["severity"]]
        line = item["range"]["start"]["line"] + 1
        yield Said(Path(item["file"]).name, line, kind, item["message"])


# mypy reads all of torch anew for another version of Python than that of `make test`: slow.
@pytest.fixture(
    scope="module",
    params=[pytest.param(by_mypy, id="mypy", marks=pytest.mark.slow), by_pyright],
    ids=lambda by: by.__name__.removeprefix("by_"),
)
def said(request: pytest.FixtureRequest) -> list[Said]:
    return list(request.param())


def test_what_is_right_is_right(said: list[Said]) -> None:
    assert [s for s in said if s.kind == "error" and s.file != "wrong.py"] == []


def test_each_wrong_line_is_an_error(said: list[Said]) -> None:
    tree = ast.parse((SOURCE / "wrong.py").read_text(encoding="utf-8"))
    wrong = {node.lineno for node in tree.body[3:]}
    assert len(wrong) > 15
    assert {s.line for s in said if s.file == "wrong.py" and s.kind == "error"} == wrong


def test_a_misspelled_option_is_told_by_its_name(said: list[Said]) -> None:
    assert any(
        re.search(r"(Unexpected keyword argument|No parameter named) \"polcy\"", s.text)
        for s in said
    )


def test_what_is_revealed(said: list[Said]) -> None:
    revealed = {s.line: s.text for s in said if s.file == "reveals.py" and s.kind == "note"}
    lines = (SOURCE / "reveals.py").read_text(encoding="utf-8").splitlines()
    expected = {n: line.split("  # ")[1] for n, line in enumerate(lines, 1) if "  # " in line}
    assert len(expected) > 15
    assert set(revealed) == set(expected)
    for line, what in expected.items():
        text = revealed[line].replace("def (", "(")
        assert text.endswith(f'is "{what}"'), (line, text)


def test_nothing_is_ignored_and_all_of_the_surface_is_used() -> None:
    texts = {p.name: p.read_text(encoding="utf-8") for p in SOURCE.glob("*.py")}
    for text in texts.values():
        assert "ignore" not in text
        assert "Any" not in text
        assert "cast(" not in text
    used = set(re.findall(r"\w+", texts["uses.py"]))
    assert set(vars(senetzoo)["__all__"]) <= used
