"""The report as one page of HTML that needs nothing else, and as Markdown with its pictures."""

from __future__ import annotations

import base64
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

import senetzoo
from senetzoo.eval.predictions import Tally
from senetzoo.inspect.pictures import png
from senetzoo.report import figures, tables
from senetzoo.report.excitations import ExcitationSection
from senetzoo.report.figures import Plot
from senetzoo.report.markup import Table, cell, rendered
from senetzoo.report.paired import paired, verdicts
from senetzoo.report.run import Run
from senetzoo.train.log import clock

# More classes than this make a table of all pairs too large to read.
_CLASSES = 30
# Pixels are shown as squares in images up to this side.
_SMALL = 64
# Readable on a white page and on a black one: the pictures of Markdown can't know which.
_GRAY = "#808080"


@dataclass(frozen=True)
class Mistake:
    """A wrongly classified test image.

    Args:
        index: Its number among the test images.
        png: It, as base64.
        small: Whether it is shown enlarged.
        truth: Its class.
        guess: What it was called.
        confidence: With which probability.
    """

    index: int
    png: str
    small: bool
    truth: str
    guess: str
    confidence: str


@dataclass(frozen=True)
class Report:
    """All that both forms show."""

    title: str
    runs: tuple[Run, ...]
    results: Table
    variants: Table | None
    paired: Table | None
    fluctuation: Table
    classes: Table | None
    time: Table
    curves: tuple[Plot, ...]
    gradients: tuple[Plot, ...]
    excitations: tuple[ExcitationSection, ...]


def make(
    runs: Sequence[Run], title: str, *, excitations: Sequence[ExcitationSection] = ()
) -> Report:
    """The report of `runs`, with the excitations of some of them.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    return Report(
        title,
        tuple(runs),
        _results(runs),
        _variants(runs),
        _paired(runs),
        _fluctuation(runs),
        _classes(runs),
        _time(runs),
        tuple(figures.curves(runs)),
        tuple(figures.depth(runs)),
        tuple(excitations),
    )


def _results(runs: Sequence[Run]) -> Table:
    head = ["run", "network", "parameters", "epochs", "test accuracy", "95 % interval", "training"]
    rows = []
    for run in runs:
        last, whole = run.epochs[-1], tables.whole(run)
        name, params = run.header["model"]["name"], f"{run.header['model']['params']:,}"
        accuracy = _percent(whole.accuracy) if whole else "not finished"
        interval = _interval(whole) if whole else ""
        train = _percent(last["train_accuracy"])
        rows.append([run.name, name, params, str(last["epoch"]), accuracy, interval, train])
    return Table(head, rows)


def _variants(runs: Sequence[Run]) -> Table | None:
    rows = [
        [
            name,
            str(len(values)),
            f"{statistics.mean(values):.2f} %",
            f"{statistics.stdev(values):.2f}" if len(values) > 1 else "",
            ", ".join(f"{value:.2f}" for value in values),
        ]
        for name, values in tables.variants(runs).items()
    ]
    head = ["variant", "seeds", "mean", "standard deviation", "each"]
    return Table(head, rows) if rows else None


def _paired(runs: Sequence[Run]) -> Table | None:
    found = paired(runs)
    rows = [
        [
            f"{pair.name} - {pair.first}",
            str(len(pair.seeds)),
            f"{pair.mean:+.2f}",
            f"{pair.std:.2f}",
            "{:+.2f} to {:+.2f}".format(*pair.interval),
            verdict,
            f"{pair.detectable:.2f}",
        ]
        for pair, verdict in zip(found, verdicts(found), strict=True)
    ]
    head = ["paired by seed, in points", "seeds", "mean", "standard deviation", "95 % interval"]
    return Table([*head, "", "could have shown"], rows) if rows else None


def _fluctuation(runs: Sequence[Run]) -> Table:
    rows = []
    for run in runs:
        found = tables.fluctuation(run)
        rows.append(
            [run.name, "too few tested epochs", "", ""]
            if found is None
            else [
                run.name,
                f"{found.changes}, from epoch {found.first}",
                f"{found.mean:.2f}",
                f"{found.drop:.2f}",
            ]
        )
    return Table(["run", "changes", "mean size", "largest fall"], rows)


def _classes(runs: Sequence[Run]) -> Table | None:
    known = {run.name: tallies for run in runs if (tallies := tables.by_class(run))}
    if not known:
        return None
    rows = [
        [tallies[0].name, f"{tallies[0].total:,}"]
        + [f"{100 * t.accuracy:.1f} ({_interval(t)})" for t in tallies]
        for tallies in zip(*known.values(), strict=True)
    ]
    return Table(["class", "images", *known], rows)


def _time(runs: Sequence[Run]) -> Table:
    head = ["run", "training", "of it waiting for data", "tests", "images a second", "resumed"]
    rows = []
    for run in runs:
        spent = tables.seconds(run)
        rows.append(
            [
                run.name,
                _clock(spent["train"]),
                _clock(spent["data"]),
                _clock(spent["test"]),
                f"{tables.images_per_second(run):,.0f}",
                str(run.resumed),
            ]
        )
    return Table(head, rows)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _interval(tally: Tally) -> str:
    low, high = tally.interval
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{clock(seconds)} h"


def html(report: Report) -> str:
    """The page."""
    runs, names = report.runs, report.runs[0].classes
    same, differ = tables.settings(runs)
    values = {
        **vars(report),
        "version": senetzoo.__version__,
        "data": ", ".join(dict.fromkeys(str(run.header["data"]["name"]) for run in runs)),
        "names": names,
        "same": same,
        "differ": differ,
        "runs": [
            {
                "name": run.name,
                "color": color,
                "confusion": _confusion(run) if len(names) <= _CLASSES else [],
                "confusions": tables.confusions(run),
                "mistakes": mistakes(run),
                "command": run.header["command"],
            }
            for run, color in zip(runs, figures.colors(runs), strict=True)
        ],
    }
    return rendered("page.html", **values)


def _confusion(run: Run) -> list[list[dict[str, Any]]]:
    if run.predictions is None:
        return []
    table = run.predictions.confusion()
    return [
        [
            {
                "count": int(count),
                "right": row == column,
                # A few per cent are to be seen, and the letters on the deepest shade to be read.
                "shade": f"{0.65 * (float(count) / max(int(counts.sum()), 1)) ** 0.5:.3f}",
            }
            for column, count in enumerate(counts)
        ]
        for row, counts in enumerate(table)
    ]


def mistakes(run: Run) -> list[Mistake]:
    """The most confident mistakes of a run."""
    predictions = run.predictions
    if predictions is None:
        return []
    return [
        Mistake(
            index,
            base64.b64encode(_png(image)).decode("ascii"),
            max(image.shape[:2]) <= _SMALL,
            run.classes[int(predictions.labels[index])],
            run.classes[int(predictions.guesses[index])],
            f"{100 * float(predictions.confidence[index]):.1f} %",
        )
        for index, image in run.mistakes
    ]


def _png(image: Tensor) -> bytes:
    from PIL import Image

    pixels = image.squeeze(2).numpy() if image.shape[2] == 1 else image.numpy()
    return png(Image.fromarray(pixels))


def markdown(report: Report, folder: str) -> tuple[str, dict[str, bytes]]:
    """The same as Markdown.

    Args:
        report: It.
        folder: Where its pictures will lie, seen from the text.

    Returns:
        The text, and the content of its pictures by file name.
    """
    files: dict[str, bytes] = {}
    parts = [f"# {cell(report.title)}\n"]

    def section(title: str, *texts: str) -> None:
        parts.append(f"## {title}\n")
        parts.extend(texts)

    def pictures(plots: Sequence[Plot]) -> str:
        for plot in plots:
            files[f"{plot.name}.svg"] = plot.inked(_GRAY).encode()
        return "".join(
            f"{cell(plot.title)}\n\n![{cell(plot.title)}]({folder}/{plot.name}.svg)\n\n"
            for plot in plots
        )

    section("Results", report.results.markdown())
    if report.variants is not None:
        parts.append(report.variants.markdown())
    if report.paired is not None:
        parts.append(report.paired.markdown())
    swatches = ", ".join(
        f"{cell(run.name)}: {color}"
        for run, color in zip(report.runs, figures.colors(report.runs), strict=True)
    )
    section("Curves", f"{swatches}\n", pictures(report.curves))
    section("Fluctuation", report.fluctuation.markdown())
    if report.classes is not None:
        section("Classes", report.classes.markdown())
        parts.append("## Confusions\n")
        for run in report.runs:
            rows = [[t, c, f"{n} of {total}"] for t, c, n, total in tables.confusions(run)]
            if rows:
                table = Table(["true class", "called", "images"], rows).markdown()
                parts.append(f"### {cell(run.name)}\n\n{table}")
        parts.append("## The most confident mistakes\n")
        for number, run in enumerate(report.runs, 1):
            found = mistakes(run)
            if found:
                name = f"mistakes-{number}.png"
                files[name] = _sheet([base64.b64decode(m.png) for m in found])
                said = "; ".join(f"{m.guess} {m.confidence} (is {m.truth})" for m in found)
                parts.append(
                    f"### {cell(run.name)}\n\n![row by row: see below]({folder}/{name})\n\n"
                    f"Row by row: {cell(said)}.\n"
                )
    if report.gradients:
        section("Gradient norm by depth", pictures(report.gradients))
    if report.excitations:
        parts.append("## Excitations\n")
        for part in report.excitations:
            parts.append(f"### {cell(part.name)}\n\n{part.gates.markdown()}")
            legend = ", ".join(f"{cell(name)}: {color}" for name, color in part.legend)
            parts.append(f"{legend}. {cell(part.note)}\n\n{pictures(part.plots)}")
    section("Time", report.time.markdown())
    same, differ = tables.settings(report.runs)
    head = ["", *(run.name for run in report.runs)]
    section(
        "Recipe and environment",
        Table(head, [[name, *values] for name, values in differ]).markdown() if differ else "",
        Table(["the same in all", ""], [[name, value] for name, value in same]).markdown(),
        *(f"```sh\n{run.header['command']}\n```\n" for run in report.runs),
    )
    return "\n".join(parts), files


def _sheet(pngs: Sequence[bytes], columns: int = 8) -> bytes:
    """Pictures of one size in rows, the small ones enlarged."""
    from PIL import Image

    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in pngs]
    side = max(images[0].size)
    factor = max(1, 96 // side)
    width, height = (factor * length for length in images[0].size)
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + 4), rows * (height + 4)), "#808080")
    for number, image in enumerate(images):
        place = (number % columns * (width + 4) + 2, number // columns * (height + 4) + 2)
        sheet.paste(image.resize((width, height), Image.Resampling.NEAREST), place)
    return png(sheet)
