"""The documents as a site: it builds without a warning, and needs nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import click

import senetzoo
from senetzoo.cli import main

ROOT = Path(__file__).resolve().parent.parent


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its ids."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.ids = {attributes.get("id") or attributes.get("name") for _, attributes in self.found}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))


def test_site(tmp_path: Path) -> None:
    """One build for all questions, since it takes seconds."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = {path: Tags(path) for path in tmp_path.rglob("*.html") if path.name != "404.html"}
    written = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    built = {path.relative_to(tmp_path).with_suffix(".md").as_posix() for path in pages}
    assert built == written
    for path, page in pages.items():
        for tag, attributes in page.found:
            if (
                tag in ("script", "img", "iframe", "source")
                or attributes.get("rel") == "stylesheet"
            ):
                source = attributes.get("src") or attributes.get("href") or ""
                assert "//" not in source, (path.name, source)
                assert not source or (path.parent / source).exists(), (path.name, source)
            if tag == "img":
                assert len(attributes["alt"]) > 20, path.name
            if tag == "a" and not re.match(r"\w+:", attributes.get("href", "")):
                target, _, anchor = attributes.get("href", "").partition("#")
                goal = (path.parent / target).resolve() if target else path
                assert goal.exists(), (path.name, target)
                if anchor and goal in pages and anchor != "__skip":
                    assert anchor in pages[goal].ids, (path.name, attributes["href"])
    # The search that a page needs when it is read from a file.
    index = (tmp_path / "search" / "search_index.js").read_text(encoding="utf-8")
    assert "SqueezeExcitation" in index or "Squeeze-and-Excitation" in index
    assert not list(tmp_path.rglob("*.py"))


def test_bars_in_tables_are_read_alike_everywhere() -> None:
    """In code Markdown shows the slash of an escaped bar, and GitHub does not."""
    for path in (ROOT / "docs").rglob("*.md"):
        rows = re.findall(r"^\|.*$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert not [row for row in rows if re.search(r"`[^`]*\\\|", row)], path


def test_api_pages_have_all_that_the_package_exports() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("docs/api/*.md"))
    shown = set(re.findall(r"^::: (\S+)", text, re.MULTILINE))
    exported = set(vars(senetzoo)["__all__"])
    assert len(exported) > 25
    assert all(hasattr(senetzoo, name) for name in exported)
    # Errors are shown as a module.
    assert {f"senetzoo.{name}" for name in exported - {"SenetzooError"}} <= shown


def test_the_page_of_the_command_line_has_every_option() -> None:
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    parts = dict(re.findall(r"^#{2,4} (senetzoo.*)\n\n((?:.|\n)*?)(?=\n#{2,4} |\Z)", text, re.M))

    def check(command: click.Command, path: str) -> int:
        part = parts[path]
        if "The same as" in part:
            return 0
        options = [option for p in command.params for option in p.opts if option.startswith("--")]
        assert all(option in part for option in options), path
        number = len(options)
        if isinstance(command, click.Group):
            context = click.Context(command, **command.context_settings)
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                number += check(inner, f"{path} {name}")
        return number

    assert check(main, "senetzoo") > 50
