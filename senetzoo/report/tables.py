"""The figures of a report: accuracy with its interval, fluctuation, classes, time."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from senetzoo.eval.predictions import Tally
from senetzoo.report.run import Run


@dataclass(frozen=True)
class Fluctuation:
    """How much the test accuracy goes up and down in the second half of a run, in points.

    Args:
        first: First epoch of that half.
        changes: Number of changes from one tested epoch to the next.
        mean: Mean size of a change.
        drop: The largest fall; 0 if it never fell.
    """

    first: int
    changes: int
    mean: float
    drop: float


def fluctuation(run: Run) -> Fluctuation | None:
    """Its epoch-to-epoch fluctuation; None where fewer than three epochs of that half have a test.

    Two would show a trend as well as a fluctuation.
    """
    points = run.series("test_accuracy")
    half = [(epoch, 100 * value) for epoch, value in points if 2 * epoch > points[-1][0]]
    if len(half) < 3:
        return None
    changes = [after - before for (_, before), (_, after) in itertools.pairwise(half)]
    return Fluctuation(
        half[0][0],
        len(changes),
        statistics.mean(map(abs, changes)),
        max(0.0, -min(changes)),
    )


def whole(run: Run) -> Tally | None:
    """The test images that the run gets right in the end; None for an unfinished run."""
    end = run.end
    return None if end is None else Tally(run.name, end["test_correct"], end["test_images"])


def by_class(run: Run) -> list[Tally]:
    """The test images that it gets right in the end, class by class; empty where that is not known.

    Beside a log that was copied without the logits, what its end says.
    """
    if run.predictions is not None:
        table = run.predictions.confusion()
        pairs = [(int(table[n, n]), int(table[n].sum())) for n in range(len(run.classes))]
    else:
        pairs = (run.end or {}).get("by_class", [])
    return [Tally(name, *pair) for name, pair in zip(run.classes, pairs, strict=False)]


def variants(runs: Sequence[Run]) -> dict[str, list[float]]:
    """Accuracy in per cent of the finished runs by variant; empty where none has two seeds."""
    found: dict[str, list[float]] = {}
    for run in runs:
        if run.end is not None:
            key = str(run.header["variant"] or run.header["model"]["name"])
            found.setdefault(key, []).append(100 * run.end["test_accuracy"])
    return found if any(len(values) > 1 for values in found.values()) else {}


def confusions(run: Run, count: int = 10) -> list[tuple[str, str, int, int]]:
    """The commonest confusions: true class, what it was called, how often, of how many."""
    if run.predictions is None:
        return []
    table, names = run.predictions.confusion(), run.classes
    pairs = [
        (names[row], names[column], int(table[row, column]), int(table[row].sum()))
        for row in range(len(names))
        for column in range(len(names))
        if row != column and table[row, column]
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:count]


def seconds(run: Run) -> dict[str, float]:
    """Seconds spent on training steps, of which waiting for data, and on tests."""
    total = dict.fromkeys(("train", "data", "test"), 0.0)
    for epoch in run.epochs:
        for part in total:
            total[part] += epoch["seconds"].get(part, 0.0)
    return total


def images_per_second(run: Run) -> float:
    """Training images a second, over the whole run."""
    images = len(run.epochs) * run.header["data"]["train_images"]
    return float(images / max(seconds(run)["train"], 1e-9))


def settings(runs: Sequence[Run]) -> tuple[list[tuple[str, str]], list[tuple[str, list[str]]]]:
    """What all runs have in common, and what differs: recipe, environment and model.

    Returns:
        Pairs of field and value; pairs of field and the values run by run.
    """
    flat = [_flat(run) for run in runs]
    names = dict.fromkeys(name for fields in flat for name in fields)
    same, other = [], []
    for name in names:
        values = [fields.get(name, "") for fields in flat]
        if len(set(values)) == 1:
            same.append((name, values[0]))
        else:
            other.append((name, values))
    return same, other


def _flat(run: Run) -> dict[str, str]:
    header: dict[str, Any] = run.header
    fields = {"seed": str(header["seed"]), "variant": str(header["variant"] or "")}
    for part in ("model", "recipe", "environment"):
        for name, value in header[part].items():
            if value not in (None, "", [], {}):
                fields[name if part == "recipe" else f"{part}: {name}"] = _text(value)
    return fields


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return f"{value:,}" if type(value) is int else str(value)
