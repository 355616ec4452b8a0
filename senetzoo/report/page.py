"""The report as a self-contained HTML page, and as Markdown with its pictures."""

from __future__ import annotations

import base64
import io
import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from senetzoo._utils.terminal import clock, counted
from senetzoo.eval.predictions import Tally
from senetzoo.inspect.pictures import png
from senetzoo.report import figures
from senetzoo.report.excitations import ExcitationSection
from senetzoo.report.markup import MARK, Table, rendered
from senetzoo.report.paired import ALIKE, ByImage, Differences, Paired
from senetzoo.report.run import Run, by_label, finished
from senetzoo.runs import chose_epoch, selected, tested

# With more classes than this, a confusion matrix is too large to read.
_CLASSES = 30
# Images up to this side are enlarged without interpolation.
_SMALL = 64
# Readable on white and on black, since the background of the Markdown isn't known.
_GRAY = "#808080"


@dataclass(frozen=True)
class RunReport:
    """What is reported.

    Args:
        runs: The runs.
        title: The title.
        comparison: How the runs compare.
        excitations: Excitations of some of the runs.
        recipes: What is said of runs with different recipes.
    """

    runs: Sequence[Run]
    title: str
    comparison: Differences
    excitations: Sequence[ExcitationSection] = ()
    recipes: str = ""


def make(report: RunReport, defaults: Mapping[str, object]) -> dict[str, Any]:
    """The content of the pages; `defaults` are values of recipes that are shown apart."""
    runs, comparison = report.runs, report.comparison
    names = runs[0].classes
    begun = [run for run in runs if run.epochs]
    drawn = figures.lines(begun)
    matrices = figures.confusions(runs)
    legend = list(zip(drawn, figures.colors(len(drawn)), strict=True))
    same, usual, differ = settings(runs, defaults)
    return {
        "title": report.title,
        "names": names,
        "part": (part := _part(runs)),
        "notes": _notes(runs, part, comparison),
        "results": _results(runs, part),
        "recipes": report.recipes,
        "variants": _variants(runs),
        "used": used(runs),
        "paired": _paired(comparison.paired),
        "differences": figures.differences(comparison.paired),
        "by_image": _by_image(comparison.by_image),
        "why": comparison.no_difference,
        "fluctuation": _fluctuation(begun),
        "classes": _classes(runs),
        "matrices": list(matrices.values()),
        "time": _time(begun),
        "curves": figures.curves(begun),
        "legend": legend,
        "bands": len(drawn) < len(begun),
        "gradients": figures.depth(runs),
        "excitations": report.excitations,
        "same": Table(["same in all runs", ""], same),
        "usual": Table(["", ""], usual),
        "differ": Table(["", *(run.name for run in runs)], differ),
        "runs": [
            {
                "name": run.name,
                "confusion": _confusion(run) if len(names) <= _CLASSES else [],
                "matrix": matrices.get(run.name) if len(names) > _CLASSES else None,
                "confusions": confusions(run),
                "mistakes": mistakes(run),
            }
            for run in runs
        ],
        "commands": list(dict.fromkeys(filter(None, (run.header["command"] for run in runs)))),
    }


def _notes(runs: Sequence[Run], part: str, comparison: Differences) -> dict[str, str]:
    """What both pages say about the runs and above their tables."""
    final, best = "the final network of a run", "the epoch that did best on the validation images"
    keep = [run for run in runs if run.header["recipe"].get("keep") == "best"]
    kept = f"{final}, or of {best} if its recipe keeps that"
    if len(keep) in (0, len(runs)):
        kept = best if keep else f"{final}, not of its best epoch"
    pairs, left = comparison.paired, by_label(finished(runs))
    first = left[pairs[0].first][0] if pairs else runs[0]
    within: list[Run] = []
    for label in (label for pair in pairs for label in (pair.first, pair.name)):
        within += left.pop(label, [])
    after = f"after {counted(first.last_epoch, 'epoch')}"
    if first in keep:
        after = "with the epoch that each run kept"
    elif any(run.last_epoch != first.last_epoch for run in within):
        after = "at the end of each run"
    interval = "The intervals are those of Student's paired test."
    if any(pair.alike for pair in pairs):
        interval = ALIKE
    elif len(pairs) > 1:
        interval = (
            "The intervals are Dunnett's: joint for all variants, with one standard deviation of "
            "the noise, estimated from all paired runs, so they change with the variants."
        )
    chose = any(run.end and selected(run.end, run.header["recipe"]) for run in runs)
    data = ", ".join(dict.fromkeys(str(run.header["data"]["name"]) for run in runs))
    versions = dict.fromkeys(str(run.header["environment"]["senetzoo"]) for run in runs)
    known = sum(bool(run.by_class) for run in runs)
    between = figures.tested_on(runs, "accuracy")
    return {
        "runs": f"{counted(len(runs), 'run')} on {data}, made by senetzoo "
        f"{', '.join(versions)}. Accuracies are those of {kept}, with Wilson's 95 % interval. The "
        f"interval covers the choice of {part} images only, not the spread between seeds. senetzoo "
        "measures the training accuracy during the last epoch, on images as they are augmented, so "
        f"it can be below the {part} accuracy."
        + f" {chose_epoch('The validation images')}"
        * chose,
        "paired": f"The baseline is {pairs[0].first if pairs else ''}; senetzoo report --baseline "
        "chooses another. senetzoo trains runs with the same seed on the same images in the same "
        "order, and those that differ only in gates from the same trunk. Differences are those "
        f"{after}. {interval} Could have shown: the smallest true difference that these seeds show "
        "in four cases of five, with noise as in these runs."
        + f" Not paired with the baseline: {', '.join(left)}; that takes a variant with its recipe "
        "and two of its seeds." * bool(left),
        "by_image": "Each row is the first run's accuracy minus that of the second, the baseline, "
        "on the same images: only those that one of them gets right and the other "
        "wrong make a difference. The intervals cover the choice of images, not the spread between "
        "seeds, so they do not show which network is better: that takes several seeds of each.",
        "bands": "Lines: the mean over a variant's seeds; bands: their range.",
        "fluctuation": f"How much the {between or part} accuracy changes from one "
        "tested epoch to the next in the second half of a run, in points.",
        "classes": f"{part.capitalize()} accuracy in % by class."
        + f" {known} of {counted(len(runs), 'run')} recorded it." * (known < len(runs)),
        "usual": "Fields of the recipe with their default",
        "gradients": "The norm of the gradient of each part, averaged over the steps of an epoch"
        + ("; of several seeds, the first one." if len(figures.lines(runs)) < len(runs) else "."),
    }


def _part(runs: Sequence[Run]) -> str:
    """The images that the accuracies of finished runs are of."""
    ends = [run.end for run in runs if run.end is not None]
    parts = dict.fromkeys(tested(end) for end in ends)
    return " or ".join(parts) or "test"


def _results(runs: Sequence[Run], part: str) -> Table:
    accuracy = f"{part} accuracy"
    # The accuracy comes first, because a phone shows little more of a row than two cells.
    head = ["run", accuracy, "95 % interval", "network", "parameters", "epochs"]
    head.append("training accuracy")
    rows = []
    for run in runs:
        whole, model = run.tally, run.header["model"]
        figures = [_percent(whole.accuracy), _interval(whole)] if whole else ["not finished", ""]
        if run.end is not None and " or " in part:
            figures[0] += f" ({_part([run])})"
        cells = [model["name"], f"{model['params']:,}", str(run.last_epoch)]
        trained = _percent(run.epochs[-1]["train_accuracy"]) if run.epochs else ""
        rows.append([run.name, *figures, *cells, trained])
    return Table(head, rows)


def _variants(runs: Sequence[Run]) -> Table | None:
    """Accuracy of the finished runs by variant; None if no variant has two seeds."""
    ended = finished(runs)
    rows = []
    for name, own in by_label(ended).items():
        values = [100 * run.end["test_accuracy"] for run in own if run.end is not None]
        spread = f"{statistics.stdev(values):.2f}" if len(values) > 1 else ""
        each = ", ".join(f"{value:.2f}" for value in values)
        rows.append([name, str(len(values)), f"{statistics.mean(values):.2f} %", spread, each])
    head = ["variant", "seeds", "mean", "standard deviation", "each"]
    return Table(head, rows) if len(rows) < len(ended) else None


def _paired(found: Sequence[Paired]) -> Table | None:
    rows = [
        [
            f"{pair.name} - {pair.first}",
            str(len(pair.seeds)),
            f"{pair.mean:+.2f}",
            f"{pair.std:.2f}",
            "" if pair.alike else "{:+.2f} to {:+.2f}".format(*pair.interval),
            pair.verdict or "differs",
            "" if pair.alike else f"{pair.detectable:.2f}",
        ]
        for pair in found
    ]
    head = ["paired by seed, in points", "seeds", "mean", "standard deviation", "95 % interval"]
    return Table([*head, "verdict", "could have shown"], rows) if rows else None


def _by_image(found: Sequence[ByImage]) -> Table | None:
    rows = [
        [
            f"{pair.name} - {pair.first}",
            f"{pair.points:+.2f}",
            "{:+.2f} to {:+.2f}".format(*pair.interval),
            f"{pair.only:,}",
            f"{pair.only_first:,}",
            f"{pair.images:,}",
        ]
        for pair in found
    ]
    head = ["paired by image, in points", "difference", "95 % interval"]
    return (
        Table([*head, "only this right", "only baseline right", "images"], rows) if rows else None
    )


def used(runs: Sequence[Run]) -> list[str]:
    """Which parts of the data the runs used, with their names if they differ in it."""
    found: dict[str, list[str]] = {}
    for run in runs:
        found.setdefault(run.limited, []).append(run.name)
    return [
        f"{', '.join(names)}: {text}" if len(found) > 1 else text
        for text, names in found.items()
        if text
    ]


def _fluctuation(runs: Sequence[Run]) -> Table:
    found = [(run.name, fluctuation(run)) for run in runs]
    rows = [
        [name, f"{seen[1]}, from epoch {seen[0]}", f"{seen[2]:.2f}", f"{seen[3]:.2f}"]
        for name, seen in found
        if seen is not None
    ]
    if few := [name for name, seen in found if seen is None]:
        rows.append(
            [few[0] if len(few) == 1 else f"{len(few)} runs", "too few tested epochs", "", ""]
        )
    return Table(["run", "changes", "mean size", "largest fall"], rows)


def _classes(runs: Sequence[Run]) -> Table | None:
    known = {run.name: tallies for run in runs if (tallies := run.by_class)}
    alike = len({tuple(tally.total for tally in tallies) for tallies in known.values()}) == 1
    rows = [
        [tallies[0].name, *[f"{tallies[0].total:,}"] * alike]
        + [f"{100 * t.accuracy:.1f} ({_interval(t)})" for t in tallies]
        for tallies in zip(*known.values(), strict=True)
    ]
    return Table(["class", *["images"] * alike, *known], rows) if rows else None


def _time(runs: Sequence[Run]) -> Table:
    head = ["run", "training", "of it waiting for data", "tests", "images a second", "resumed"]
    rows = []
    for run in runs:
        spent = [*map(clock, run.seconds.values()), f"{run.images_per_second:,.0f}"]
        if run.own_loop:  # only the time of whole epochs is known
            spent[1:] = [""] * 3
        rows.append([run.name, *spent, str(run.resumed)])
    return Table(head, rows)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _interval(tally: Tally) -> str:
    low, high = tally.interval
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _confusion(run: Run) -> list[list[dict[str, Any]]]:
    if run.predictions is None:
        return []
    return [
        [
            {
                "count": int(count),
                "right": row == column,
                # A few percent should be visible, and text on the darkest shade legible.
                "shade": f"{0.65 * (float(count) / max(int(counts.sum()), 1)) ** 0.5:.3f}",
            }
            for column, count in enumerate(counts)
        ]
        for row, counts in enumerate(run.predictions.confusion())
    ]


def mistakes(run: Run) -> list[dict[str, Any]]:
    """The most confident mistakes of a run: picture, class, prediction and confidence."""
    from PIL import Image

    return [
        {
            "index": index,
            "file": mistake.path,
            "short": Path(mistake.path).name,
            "png": base64.b64encode(png(Image.fromarray(image.squeeze(2).numpy()))).decode(),
            "small": max(image.shape[:2]) <= _SMALL,
            "truth": mistake.label,
            "guess": mistake.predicted,
            "confidence": f"{100 * mistake.probability:.1f} %",
        }
        for mistake, (index, image) in zip(run.mistakes, run.pictures, strict=True)
    ]


def plots(made: Mapping[str, Any]) -> list[figures.Plot]:
    """All plots of the pages."""
    found = [
        plot for part in ("differences", "curves", "matrices", "gradients") for plot in made[part]
    ]
    return [*found, *(plot for section in made["excitations"] for plot in section.plots)]


def markdown(made: Mapping[str, Any], folder: str) -> tuple[str, dict[str, bytes]]:
    """The report as Markdown.

    Returns:
        The text, and the content of its pictures by file name.
    """
    files = {
        f"{plot.name}.svg": f"{plot.inked(_GRAY, alone=True)}{MARK}\n".encode()
        for plot in plots(made)
    }
    for number, run in enumerate(made["runs"], 1):
        if run["mistakes"]:
            pictures = [base64.b64decode(mistake["png"]) for mistake in run["mistakes"]]
            files[f"mistakes-{number}.png"] = _sheet(pictures)
    return rendered("page.md", folder=folder, **made), files


def _sheet(pngs: Sequence[bytes]) -> bytes:
    """Arrange pictures of the same size in rows of eight, enlarging small ones."""
    from PIL import Image

    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in pngs]
    factor = max(1, 96 // max(images[0].size))
    width, height = (factor * length for length in images[0].size)
    columns, rows = 8, -(-len(images) // 8)
    sheet = Image.new("RGB", (columns * (width + 4), rows * (height + 4)), _GRAY)
    for number, image in enumerate(images):
        place = (number % columns * (width + 4) + 2, number // columns * (height + 4) + 2)
        sheet.paste(image.resize((width, height), Image.Resampling.NEAREST), place)
    return png(sheet, MARK)


def fluctuation(run: Run) -> tuple[int, int, float, float] | None:
    """How much the accuracy fluctuates between epochs in the second half of a run.

    Returns:
        First epoch of that half, number of changes between tested epochs, their mean size, and the
        largest drop in points, 0 if there is none; None if fewer than three epochs were tested,
        since a single change may be a trend.
    """
    points = run.series("test_accuracy") or run.series("val_accuracy")
    half = [(epoch, 100 * value) for epoch, value in points if 2 * epoch > points[-1][0]]
    if len(half) < 3:
        return None
    changes = [after - before for (_, before), (_, after) in itertools.pairwise(half)]
    return half[0][0], len(changes), statistics.mean(map(abs, changes)), max(0.0, -min(changes))


def confusions(run: Run) -> list[tuple[str, str, int, int]]:
    """The ten most common: true class, predicted class, count, and images of the class."""
    if run.predictions is None:
        return []
    table, names = run.predictions.confusion(), run.classes
    pairs = [
        (names[row], names[column], int(table[row, column]), int(table[row].sum()))
        for row, column in table.nonzero().tolist()
        if row != column
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:10]


def settings(
    runs: Sequence[Run], defaults: Mapping[str, object]
) -> tuple[list[list[str]], list[list[str]], list[list[str]]]:
    """The settings that all runs share and those that differ: recipe, environment and model.

    Returns:
        Rows of a field and its value, the same for fields with their default, and rows of a field
        and its value in each run.
    """
    every = [flat(run) for run in runs]
    rows = [
        [name, *(fields.get(name, "") for fields in every)]
        for name in dict.fromkeys(name for fields in every for name in fields)
    ]
    same = [row[:2] for row in rows if row[1] and len(set(row[1:])) == 1]
    usual = [row for row in same if row[0] in defaults and row[1] == _text(defaults[row[0]])]
    differ = [row for row in rows if len(set(row[1:])) > 1]
    return [row for row in same if row not in usual], usual, differ


def flat(run: Run) -> dict[str, str]:
    """The fields of a run's recipe, environment and model, as text."""
    header = run.header
    fields = {"seed": str(header["seed"]), "variant": str(header["variant"] or "")}
    for part in ("model", "recipe", "environment"):
        for name, value in header[part].items():
            # The recipe has the name, too.
            if value not in (None, "", [], {}) and (part, name) != ("model", "name"):
                fields[name if part == "recipe" else f"{part}: {name}"] = _text(value)
    return fields


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(
            f"({_text(v)})" if isinstance(v, (list, tuple)) else _text(v) for v in value
        )
    return f"{value:,}" if type(value) is int else str(value)
