"""What mkdocs does beyond its settings, so that one text is right on GitHub and on the site.

Files of the repository's root become pages. A link to a file of the repository that is no page
becomes its text, since the site has no such file.
"""

from __future__ import annotations

import html
import os.path
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
# From the root of the repository, where mkdocs does not look.
ROOT_PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
# Both are entrances: whoever follows a link to one is led to the other.
ENTRANCE = {"README.md": "index.md", "README.zh-CN.md": "index.md"}
# Whose tables need the room that the table of contents would take.
WIDE = ("choose.md", "networks.md", "published.md")
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s#:]+)(#[^()\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take the files of the root among the pages."""
    for name in ROOT_PAGES:
        files.append(File.generated(config, name, content=(ROOT / name).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page from the repository's paths into the site's."""
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["toc"]
    pages = frozenset(file.src_uri for file in files)
    return relinked(with_bars(markdown), page.file.src_uri, pages)


def with_bars(markdown: str) -> str:
    """The text with ``\\|`` in the code of tables as GitHub shows it: a bar, without the slash."""

    def code(match: re.Match[str]) -> str:
        return f"<code>{html.escape(match[1]).replace(chr(92) + '|', '&#124;')}</code>"

    def row(match: re.Match[str]) -> str:
        return re.sub(r"`([^`\n]*\\\|[^`\n]*)`", code, match[0])

    return re.sub(r"^\|.*$", row, markdown, flags=re.MULTILINE)


def relinked(markdown: str, name: str, pages: frozenset[str]) -> str:
    """The text of the page `name` with links for the site.

    Args:
        markdown: Its text, with links as GitHub follows them.
        name: Its path on the site, such as ``api/data.md``.
        pages: The paths of all files of the site.
    """
    folder = ROOT if name in ROOT_PAGES else (ROOT / "docs" / name).parent

    def link(match: re.Match[str]) -> str:
        bang, text, target, anchor = match.groups()
        path = Path(os.path.normpath(folder / target))
        if not path.is_relative_to(ROOT) or not path.exists():
            return match[0]  # for mkdocs to complain of
        goal = path.relative_to(ROOT).as_posix()
        inside = goal.removeprefix("docs/") if goal.startswith("docs/") else None
        there = inside or (goal if goal in ROOT_PAGES else ENTRANCE.get(goal))
        if there in pages:
            there = os.path.relpath(there, Path(name).parent).replace(os.sep, "/")
            return f"{bang}[{text}]({there}{anchor or ''})"
        return text if text.strip("`") == goal else f"{text} (`{goal}`)"

    return _LINK.sub(link, markdown)
