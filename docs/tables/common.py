"""What the generators of the documents share: where things are, tables, records, plots."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senetzoo._utils.documents import parse_json, reading
from senetzoo._utils.terminal import counted
from senetzoo.errors import BrokenError
from senetzoo.eval.predictions import wilson
from senetzoo.weights.manifest import Metric, history

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "benchmarks" / "records"
# The same figure gives the same text: names of elements are hashed, with a salt.
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "senetzoo",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 8,
    "text.parse_math": False,
}

# Letters of the longest cell of a column of a few words.
_SHORT = 18


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; columns of numbers are set to the right, but never the first.

    In columns with a side, docs/site.css breaks no lines: in those of numbers or a few words.
    """
    columns = [[cell for cell in column if cell] for column in zip(*rows, strict=True)][1:]
    rule = ["---"] + [
        "---:"
        if all(cell.lstrip("-+")[:1].isdigit() for cell in column)
        else ":---"
        if all(len(cell) <= _SHORT for cell in column)
        else "---"
        for column in columns
    ]
    # A browser would break the line after the hyphen.
    head = [cell.replace("top-", "top\N{NON-BREAKING HYPHEN}") for cell in head]
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, rule, *rows])


def lines(name: str) -> list[dict[str, Any]]:
    """The records of a file; none where there is no such file yet.

    Raises:
        ConfigError: A line is no JSON object.
    """
    path = RECORDS / name
    found = list[dict[str, Any]]()
    with reading(path, "Correct that line, or take it out and measure again"):
        for number, line in enumerate(path.read_bytes().splitlines() if path.is_file() else (), 1):
            try:
                raw = parse_json(line.decode("utf-8"))
            except (BrokenError, UnicodeDecodeError):
                raw = None
            if not isinstance(raw, dict):
                raise BrokenError(f"line {number}", "it is no JSON object")
            found.append(raw)
    return found


def every(records: Iterable[dict[str, Any]], *keys: str) -> str:
    """Where records were made: each combination of their machine or the like, and its commits."""
    return "; ".join(
        by_place((", ".join(one_thread(r[key]) for key in keys), r["commit"]) for r in records)
    )


def environments(found: Iterable[dict[str, Any]]) -> str:
    """Where runs were made: each combination of processor, threads and torch, and its commits."""
    places = (
        (f"{processor(w)}, {counted(w['threads'], 'thread')}, torch {w['torch']}", w["commit"])
        for w in found
    )
    return "; ".join(by_place(places))


def by_place(found: Iterable[tuple[str, str | None]]) -> Iterator[str]:
    """Each place once, with all the commits that ran there."""
    commits: dict[str, dict[str | None, None]] = {}
    for place, revision in found:
        commits.setdefault(place, {})[revision] = None
    for place, revisions in commits.items():
        yield f"{place}, {commit(*revisions)}"


def one_thread(machine: str) -> str:
    """A machine as records of before have it, in good English."""
    return machine.replace(" 1 threads", " 1 thread")


def processor(where: dict[str, Any]) -> str:
    """The GPU, or the CPU with those of its instructions that matter."""
    if where["gpu"]:
        return str(where["gpu"])
    flags = f" ({', '.join(where['cpu_flags'])})" if where["cpu_flags"] else ""
    return f"{where['cpu']}{flags}"


def commit(*revisions: str | None) -> str:
    """The commit of a record, or those of several; one that was made with changes says so."""
    texts = [
        f"`{revision[:12]}`" + " with changes" * revision.endswith("-dirty")
        if revision is not None
        else "not recorded"
        for revision in revisions
    ]
    return f"commit{'s' * (len(texts) > 1)} {', '.join(texts)}"


def interval(metric: Metric) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy of the manifest, in per cent."""
    low, high = wilson(round(metric.value * metric.images / 100), metric.images)
    return 100 * low, 100 * high


def made(tag: str) -> str:
    """How long embedded weights were trained, after those that they began with."""
    runs = history(tag).values()
    epochs = " + ".join(str(run.epochs) for run in runs)
    return f"{epochs} epochs, {' + '.join(f'{run.hours:.2g}' for run in runs)} h"


def svg(figure: Figure, title: str | None = None) -> str:
    """A figure as SVG without a date, on white: the page's own color is not known.

    Args:
        figure: The figure, drawn under `STYLE`.
        title: What it shows, for those who hear it.
    """
    text = io.StringIO()
    metadata = {"Date": None, "Creator": None, **({"Title": title} if title else {})}
    figure.savefig(text, format="svg", metadata=metadata)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"
