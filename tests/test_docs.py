"""Every example in the documents runs, and what is generated is fresh."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner
from support.networks import SMALL
from tables import networks

import senetzoo
from senetzoo import registry
from senetzoo.cli import main
from senetzoo.models.family import Family
from senetzoo.nn.slots import POSITIONS
from senetzoo.registry import ENTRIES

ROOT = Path(__file__).resolve().parent.parent
CHINESE = "README.zh-CN.md"
DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for path in sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))
    if path.name != CHINESE
]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def fences(document: str, language: str) -> list[str]:
    """Bodies of a document's blocks; a command of several lines as one."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = [body for kind, body in FENCE.findall(text) if kind == language]
    return [body.replace("\\\n", " ") for body in found] if language == "sh" else found


def test_the_tutorial_shows_what_eval_prints() -> None:
    """Up to the figures, whose last digits may depend on the processor."""
    pytest.importorskip("sklearn")
    (shown,) = (body for body in fences("docs/student.md", "text") if "senetzoo eval" in body)
    command, _, expected = shown.partition("\n")
    done = CliRunner().invoke(main, shlex.split(command)[2:])
    assert done.exit_code == 0, done.output
    words = [re.sub(r"[\d.]+", "0", text) for text in (expected, done.stdout)]
    assert words[1].startswith(words[0])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_examples_run_in_their_order(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    names: dict[str, object] = {}
    for body in fences(document, "python"):
        exec(
            compile(body.replace("path/to/clone", str(ROOT)), document, "exec", dont_inherit=True),
            names,
        )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_shell_examples_name_commands_and_options_that_exist(document: str) -> None:
    for body in fences(document, "sh"):
        for line in body.splitlines():
            words = shlex.split(line, comments=True)
            if words[:3] == ["python", "-m", "senetzoo.bench"]:
                words = ["senetzoo", "bench", *words[3:]]
            if words and words[0] == "make":
                assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
            elif words[:2] == ["pip", "install"]:
                named = re.findall(r"\.\[(\w+)\]", line)
                extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
                assert all(f"\n{extra} = [" in extras for extra in named), line
            elif words:
                assert words[0] == "senetzoo", line
                command: click.Command | None = main
                for word in words[1:]:
                    if not isinstance(command, click.Group):
                        break
                    command = command.get_command(click.Context(command), word)
                assert command is not None, line
                known = {option for p in command.params for option in p.opts}
                assert {w for w in words[2:] if w.startswith("--")} <= known, line


def test_the_chinese_readme_has_the_content_of_the_english_one() -> None:
    for language in ("python", "sh", "text"):
        assert fences(CHINESE, language) == fences("README.md", language)
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in (CHINESE, "README.md")]
    for pattern in (r"^#+ ", r"^<!-- .*", r"^\|.*", r"`[^`\n]+`", r"\]\(([^)#]+)\)"):
        chinese, english = (sorted(re.findall(pattern, text, re.MULTILINE)) for text in texts)
        # Each names the other.
        others = {CHINESE, "README.md"}
        assert [x for x in chinese if x not in others] == [x for x in english if x not in others]


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    text = re.sub(FENCE, "", document.read_text(encoding="utf-8"))
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        # A link's text, without its target; then letters, digits, hyphens and underscores.
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = found[anchor] = found.get(anchor, -1) + 1
        if number:
            found[f"{anchor}-{number}"] = 0
    return set(found)


@pytest.mark.parametrize("document", [*DOCUMENTS, CHINESE])
def test_links_lead_to_files_and_headings(document: str) -> None:
    here = ROOT / document
    text = re.sub(FENCE, "", here.read_text(encoding="utf-8"))
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)", text):
        goal = here.parent / target if target else here
        assert goal.exists(), target
        assert not anchor or anchor in anchors(goal), (target, anchor)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_sentence_goes_on_with_what_begins_a_list(document: str) -> None:
    """Python-Markdown would take a line that begins with `0.` for a list item."""
    text = FENCE.sub("", (ROOT / document).read_text(encoding="utf-8"))
    assert not re.findall(r"[a-z,]\n *\d+\. .*", text)


def test_the_example_of_a_family_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the registry it does what the page says that every family then does."""
    document = "docs/family.md"
    names: dict[str, Any] = {}
    for body in fences(document, "python"):
        exec(compile(body, document, "exec", dont_inherit=True), names)
    family: Family = names["FAMILY"]
    for name, config in family.networks.items():
        for full, policy in ((name, ""), (f"se_{name}", registry.SE_POLICY)):
            entry = registry.RegistryEntry(full, name, family, config, policy)
            monkeypatch.setitem(registry.ENTRIES, full, entry)
    assert family.paper("tiny").year == 2015
    images = torch.randn(2, 3, 32, 32)
    plain = senetzoo.create("tiny_deep", num_classes=3, stem="cifar", seed=0)
    for name in ("se_tiny_deep", *(f"tiny_deep+eca@{position}" for position in POSITIONS)):
        model = senetzoo.create(name, num_classes=3, stem="cifar", drop_path=0.2, seed=0)
        gated = model.state_dict()
        assert all(torch.equal(value, gated[key]) for key, value in plain.state_dict().items())
        assert len(gated) > len(plain.state_dict())
        assert model(images).shape == (2, 3)
    maps = plain.eval().feature_maps(images)
    expected = [(info.channels, 32 // info.stride) for info in plain.feature_info]
    assert [(found.shape[1], found.shape[2]) for found in maps] == expected
    plain.reset_classifier(7)
    assert senetzoo.create("tiny", seed=0)(torch.randn(2, 3, 64, 64)).shape == (2, 1000)
    assert plain(images).shape == (2, 7)


def test_the_example_of_a_benchmark_prints_what_the_page_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = "docs/measuring.md"
    example, _ = fences(document, "python")
    exec(compile(example, document, "exec"), {})
    assert capsys.readouterr().out == fences(document, "text")[1]


@pytest.mark.parametrize("fast", ["--fast", pytest.param("", marks=pytest.mark.slow)])
def test_what_is_generated_is_fresh(fast: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check", fast],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_table_of_networks_is_fresh() -> None:
    """All names, and the rows of one network of each family."""
    page = (ROOT / "docs/networks.md").read_text(encoding="utf-8")
    made = networks.every(SMALL.values()).splitlines()[2:]
    assert len(made) == len(SMALL)
    assert set(made) <= set(page.splitlines())
    assert networks.families(SMALL.values()) in page  # each of them has the sites of its family
    listed = re.findall(r"^\| `(\w+)` \| \[\d{4}\]", page, re.MULTILINE)
    assert listed == [name for name, entry in ENTRIES.items() if entry.trunk == name]


def test_every_promise_of_reliability_names_tests_that_exist() -> None:
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", text)
    assert len(named) > 20
    for file, name in named:
        assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{name}"
    # Each row of a table of promises has one.
    rows = [line for line in text.splitlines() if line.startswith("| ") and line[2].isupper()]
    assert all("`tests/" in row for row in rows if not row.startswith("| Promise"))
