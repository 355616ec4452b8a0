"""The model cards of docs/cards.md: what each embedded weight is, how good, and how it was made."""

from __future__ import annotations

import textwrap
from typing import Any

from senetzoo.report.run import Run
from senetzoo.weights.manifest import Entry, manifest
from tables.common import RECORDS, interval, lines, one_thread, table

# What the data says of where a network can be used.
_LIMITS = {
    "CIFAR-10 train": "Photographs of 32x32 pixels of ten kinds of things, and nothing else: any "
    "other picture gets one of these ten names, often with confidence.",
    "CIFAR-100 train": "Photographs of 32x32 pixels of a hundred kinds of things; any other "
    "picture gets one of these names, often with confidence.",
    "flowers5 train": "Photographs of one kind of flower each, from the same collection as the "
    "test images, two of which have near copies among the training images. Any other picture "
    "gets one of these five names.",
    "scikit-learn digits train": "Gray digits, light on dark. The test images have the same "
    "writers as the training images: expect less accuracy on others.",
}


def log(tag: str) -> list[dict[str, Any]]:
    """The epochs of the run that made a weight."""
    return [line for line in _lines(tag) if line.get("kind", "epoch") == "epoch"]


def run(tag: str) -> Run | None:
    """The run that made a weight; None for the logs of before they had a header."""
    first = _lines(tag)[0]
    if first.get("kind") != "run":
        return None
    return Run(tag, RECORDS, first, tuple(log(tag)), 0, None, None)


def _lines(tag: str) -> list[dict[str, Any]]:
    return lines(f"training/{tag}.jsonl")


def every() -> str:
    """A card for each weight in the package."""
    return "\n".join(
        _card(tag, entry) for tag, entry in manifest().items() if entry.source.kind == "embedded"
    )


def _typed(command: str) -> str:
    """A command in lines that fit the page, broken before options: their values may have spaces."""
    text = " --".join(part.replace(" ", "\0") for part in command.split(" --"))
    found = textwrap.wrap(
        text, 92, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    return " \\\n".join(found).replace("\0", " ")


def _card(tag: str, entry: Entry) -> str:
    metric, training, seen = entry.metrics[0], entry.training[-1], entry.preprocessing
    low, high = interval(metric)
    last, known = log(tag)[-1], run(tag)
    rate = f" at {known.images_per_second:,.0f} images a second" if known else ""
    network = f"`{entry.model}`" + (f" with `{entry.policy}`" if entry.policy else "")
    network += f", stem `{entry.stem}`" if entry.stem else ""
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (seen.mean, seen.std))
    rows = [
        ["network", network],
        ["parameters", f"{entry.params:,}"],
        ["multiply-accumulates", f"{entry.macs:,}"],
        ["input", f"{seen.channels}x{seen.size}x{seen.size}, mean ({mean}), std ({std})"],
        ["classes", ", ".join(entry.classes or ())],
        [
            f"accuracy on {metric.data}, {metric.images:,} images",
            f"{metric.value:.2f} % [{low:.2f}, {high:.2f}]; {metric.runs} run, "
            f"{metric.checkpoint} checkpoint, the embedded file",
        ],
        [
            "training",
            f"{training.epochs} epochs on {entry.data}, seed {training.seed}, {training.hours:.2f} "
            f"hours{rate} on {one_thread(training.machine)}, commit `{training.revision[:12]}`; "
            f"training accuracy {100 * last['train_accuracy']:.2f} %"
            + (
                f"; training was continued from `{training.start}`, in the package at that commit"
                if training.start
                else ""
            ),
        ],
        ["log of the run", f"`benchmarks/records/training/{tag}.jsonl`"],
        ["file", f"{entry.bytes:,} bytes, sha256 `{entry.sha256}`"],
        [
            "license",
            f"weights {entry.license.weights}, code {entry.license.code}; data: "
            f"{entry.license.data}",
        ],
    ]
    typed = f"```sh\n{_typed(training.command)}\n```"
    return f"## `{tag}`\n\n{table(rows[0], rows[1:])}\n{typed}\n\n{_LIMITS.get(entry.data, '')}\n"
