"""Tables, and their rendering as Markdown and HTML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from senetzoo._utils.terminal import clean, printable
from senetzoo.data.images import WRITTEN
from senetzoo.errors import MissingExtraError

MARK = f"<!-- {WRITTEN} report -->"
"""In every file of a report, by which a new one knows those that it may replace."""


@dataclass(frozen=True)
class Table:
    """A table of text: its header and its rows."""

    head: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """The table in Markdown, the first column left-aligned and the others right-aligned."""
        rule = ["---"] + ["---:"] * (len(self.head) - 1)
        head, *rows = ([cell(text) for text in row] for row in [self.head, *self.rows])
        return "".join(f"| {' | '.join(line)} |\n" for line in [head, rule, *rows])


def cell(text: str) -> str:
    """Escape text for Markdown."""
    text = printable(" ".join(text.split()))
    for special in "\\`*_[]<>|":
        text = text.replace(special, f"\\{special}")
    return text


def rendered(template: str, **values: Any) -> str:
    """Render a template from this folder."""
    try:
        from jinja2 import Environment, FileSystemLoader, select_autoescape
    except ImportError:
        raise MissingExtraError("A report", "jinja2", "train") from None

    # Names of runs and classes are untrusted text.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(("html",)),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = cell
    return clean(environment.get_template(template).render(mark=MARK, **values))
