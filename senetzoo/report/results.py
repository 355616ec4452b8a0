"""The numbers of a report as JSON values."""

from __future__ import annotations

import statistics
from typing import Any

from senetzoo.report.page import RunReport, confusions, flat, fluctuation
from senetzoo.report.run import Run, by_label, finished

_SERIES = (
    *("train_loss", "test_loss", "val_loss", "train_accuracy", "test_accuracy", "val_accuracy"),
    *("lr", "gradient_norm"),
)


def results(report: RunReport) -> dict[str, Any]:
    """The content of a report's page."""
    comparison = report.comparison
    return {
        "title": report.title,
        "recipes": report.recipes,
        "runs": [_run(run) for run in report.runs],
        "variants": [
            {
                "variant": name,
                "seeds": [run.header["seed"] for run in own],
                "accuracies": (values := [run.end["test_accuracy"] for run in own if run.end]),
                "mean": statistics.mean(values),
                "standard_deviation": statistics.stdev(values) if len(values) > 1 else None,
            }
            for name, own in by_label(finished(report.runs)).items()
        ],
        "paired": [
            {
                "variant": pair.name,
                "baseline": pair.first,
                "seeds": pair.seeds,
                "points": pair.differences,
                "mean": pair.mean,
                "standard_deviation": pair.std,
                "interval": None if pair.alike else pair.interval,
                "p": pair.p,
                "verdict": pair.verdict,
                "could_have_shown": None if pair.alike else pair.detectable,
            }
            for pair in comparison.paired
        ],
        "by_image": [
            {
                "run": pair.name,
                "baseline": pair.first,
                "points": pair.points,
                "interval": pair.interval,
                "only_right": pair.only,
                "only_baseline_right": pair.only_first,
                "images": pair.images,
            }
            for pair in comparison.by_image
        ],
        "no_difference": comparison.no_difference,
        "excitations": [
            {
                "run": section.name,
                "images": section.images,
                "gates": [dict(zip(section.gates.head, row, strict=True)) for row in rows],
                "classes": {
                    gate: [dict(zip(table.head, row, strict=True)) for row in table.rows]
                    for gate, table in section.classes
                },
            }
            for section in report.excitations
            if (rows := section.gates.rows)
        ],
    }


def _run(run: Run) -> dict[str, Any]:
    tally, predictions, changes = run.tally, run.predictions, fluctuation(run)
    return {
        "run": str(run.folder),
        "network": run.header["model"]["name"],
        "parameters": run.header["model"]["params"],
        "variant": run.header["variant"],
        "seed": run.header["seed"],
        "epochs": run.last_epoch,
        "finished": run.end is not None,
        "accuracy": tally.accuracy if tally else None,
        "interval": tally.interval if tally else None,
        "series": {key: points for key in _SERIES if (points := run.series(key))},
        "fluctuation": None
        if changes is None
        else dict(zip(("from_epoch", "changes", "mean", "largest_fall"), changes, strict=True)),
        "classes": [{"class": each.name, **each.as_dict()} for each in run.by_class],
        "confusion": None if predictions is None else predictions.confusion().tolist(),
        "confusions": [
            dict(zip(("class", "called", "images", "of"), row, strict=True))
            for row in confusions(run)
        ],
        "mistakes": [
            {
                "image": index,
                "file": mistake.path,
                "class": mistake.label,
                "called": mistake.predicted,
                "confidence": mistake.probability,
            }
            for mistake, (index, _) in zip(run.mistakes, run.pictures, strict=True)
        ],
        "seconds": run.seconds,
        "images_per_second": run.images_per_second,
        "resumed": run.resumed,
        "settings": flat(run),
        "command": run.header["command"],
    }
