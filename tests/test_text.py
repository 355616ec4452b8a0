"""Text that a terminal can't show, and output that can't be written."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from PIL import Image
from support.commands import COMMANDS
from support.runs import write_run
from test_command_line import BEGIN, few_commands

import senetzoo
from senetzoo._utils import terminal
from senetzoo._utils.documents import json_text
from senetzoo.cli import main
from senetzoo.cli.options import say

# An escape sequence, a newline and a tab, right to left, a byte that is not UTF-8, and a name that
# is only not Latin.
NASTY = ("red\x1b[31m", "two\nlines\tand", "right\u202eto left", "caf\udce9", "狗", "plain")
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", r"é狗 caf\xe9 \x1b[31m \u202e \ud800"),
        ("latin-1", r"é\u72d7 caf\xe9 \x1b[31m \u202e \ud800"),
        ("ascii", r"\xe9\u72d7 caf\xe9 \x1b[31m \u202e \ud800"),
    ],
)
def test_what_a_stream_can_show(
    encoding: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stdout", "stderr"):
        content = io.BytesIO()
        monkeypatch.setattr(sys, name, io.TextIOWrapper(content, encoding, newline="\n"))
        terminal.echo("é狗 caf\udce9 \x1b[31m \u202e \ud800\n\tx", err=name == "stderr")
        assert content.getvalue().decode(encoding) == f"{expected}\n\tx\n"


def test_letters_stay_letters() -> None:
    # A joiner is part of Indic scripts and of emoji.
    for name in ("naïve", "क\u200dष", "👩\u200d🔬", "a\u00a0b", "e\u0301"):
        assert terminal.printable(name) == name
    assert terminal.printable("a\tb\nc\rd") == r"a\tb\nc\rd"


def test_columns_stay_in_line() -> None:
    lines = terminal.columns([["a", "1"], ["狗\n", "10"], ["e\u0301", "100"]])
    assert lines == ["a       1", r"狗\n   10", "e\u0301     100"]


def test_json_keeps_every_name() -> None:
    text = json_text(list(NASTY))
    assert json.loads(text.encode("utf-8")) == list(NASTY)
    assert "狗" in text


# --- Output that can't be written ----------------------------------------------------------------


@pytest.fixture(params=["full", "closed"])
def lost(request: pytest.FixtureRequest) -> Iterator[tuple[TextIO, str]]:
    """Run with a stdout that can't be written; return stderr."""
    if request.param == "full":
        if not Path("/dev/full").exists():
            pytest.skip("needs /dev/full")
        stream: TextIO = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115  # closed below
        said = "error: Can't write the output: No space left on device.\n"
    else:
        reading, writing = os.pipe()
        os.close(reading)
        stream, said = os.fdopen(writing, "w", encoding="utf-8"), ""
    yield stream, said
    with contextlib.suppress(OSError):
        stream.close()


def ended(stdout: TextIO, *args: str) -> tuple[object, str]:
    """Exit code, and what stderr got."""
    stderr = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        # Not in a fixture: pytest sets them anew before a test.
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        with pytest.raises(SystemExit) as end:
            main(list(args), prog_name="senetzoo")
    return end.value.code, stderr.getvalue()


@few_commands
def test_help_that_nobody_takes_is_1(names: tuple[str, ...], lost: tuple[TextIO, str]) -> None:
    assert ended(lost[0], *names, "--help") == (1, lost[1])


@pytest.mark.parametrize("args", [("--help",), ("--version",), ("weights", "-h")])
def test_nor_that_of_groups(args: tuple[str, ...], lost: tuple[TextIO, str]) -> None:
    assert ended(lost[0], *args) == (1, lost[1])


@few_commands
@pytest.mark.parametrize("as_json", [False, True])
def test_a_result_that_nobody_takes_is_1(
    names: tuple[str, ...], as_json: bool, lost: tuple[TextIO, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = functools.partial(say, as_json, {}, "text")
    monkeypatch.setattr(COMMANDS[names], "callback", lambda **_: result())
    assert ended(lost[0], *names, *BEGIN[names]) == (1, lost[1])


def test_an_error_that_nobody_takes_keeps_its_code(
    lost: tuple[TextIO, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", lost[0])
    with pytest.raises(SystemExit) as end:
        main(["explain", "resnt20"], prog_name="senetzoo")
    assert end.value.code == 2


# --- Names of classes ----------------------------------------------------------------------------


def photos(root: Path) -> None:
    """Two images of each class, of one color, for training and for the test."""
    for split in ("train", "test"):
        for number, name in enumerate(NASTY):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(2):
                color = 40 * number, 20 * index, 99
                Image.new("RGB", (24, 24), color).save(folder / f"{index}.png")


@pytest.mark.parametrize("charset", ["utf-8", "latin-1"])
def test_classes_of_any_name(tmp_path: Path, charset: str) -> None:
    """Training, evaluation, prediction and report work, and keep the names."""
    photos(tmp_path / "photos")
    folder, out = tmp_path / "r\udcfcn", tmp_path / "report.html"
    runner = CliRunner(charset=charset)

    def run(*args: object) -> str:
        result = runner.invoke(
            main, [*map(str, args)], prog_name="senetzoo", catch_exceptions=False
        )
        assert result.exit_code == 0, result.stderr
        assert not UNSAFE.search(result.stdout.replace("\r", "") + result.stderr)
        return result.stdout

    small = ("data=folder", "model=lenet5", "phases=((32,1),)", "batch=4", "restart_epochs=0")
    settings = [word for setting in small for word in ("--set", setting)]
    run(
        "train", "cifar_small", "--data", tmp_path / "photos", "--out", folder, *settings,
        "--no-compile", "--workers", 0, "--threads", 1,
    )  # fmt: skip
    model = senetzoo.load(str(folder))
    assert model.load_report is not None
    assert model.load_report.classes == tuple(sorted(NASTY))
    data = tmp_path / "photos" / "test"
    table = run("eval", folder, data)
    assert r"red\x1b[31m" in table
    assert ("狗" if charset == "utf-8" else r"\u72d7") in table
    found = json.loads(run("eval", folder, data, "--json"))
    assert [row["name"] for row in found["classes"]] == sorted(NASTY)
    image = data / NASTY[3] / "0.png"
    run("predict", image, "--model", folder, "--top", 6, "--explain", tmp_path / "why")
    (line,) = run("predict", image, "--model", folder, "--top", 6, "--json").splitlines()
    assert json.loads(line)["image"] == str(image)
    assert {guess["class"] for guess in json.loads(line)["guesses"]} == set(NASTY)
    run("report", folder, "--out", out)
    written = [out, out.with_suffix(".md"), tmp_path / "why" / "explain.html"]
    written += (figures := sorted((tmp_path / "report-figures").glob("*.svg")))
    for file in written:
        assert not UNSAFE.search(file.read_text(encoding="utf-8")), file
    for figure in figures:
        ElementTree.parse(figure)


def test_runs_of_any_name_in_a_report(tmp_path: Path) -> None:
    for name in NASTY[:4]:
        write_run(tmp_path / "runs" / name, classes=NASTY[:3], data="a\x1b[1mb")
    out = tmp_path / "report.html"
    result = CliRunner().invoke(main, ["report", str(tmp_path / "runs"), "--out", str(out)])
    assert result.exit_code == 0
    for file in (out, out.with_suffix(".md"), *(tmp_path / "report-figures").glob("*.svg")):
        assert not UNSAFE.search(file.read_text(encoding="utf-8")), file
    assert r"two\nlines\tand" in out.read_text(encoding="utf-8")
