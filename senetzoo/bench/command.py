"""The command ``senetzoo bench``, also ``python -m senetzoo.bench``."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import click
import torch

from senetzoo._command import SenetzooCommand
from senetzoo.bench import records
from senetzoo.bench.accuracy import Accuracy, LabelledImages, Tally, accuracy, read_images
from senetzoo.bench.timing import (
    Dtype,
    Layout,
    Settings,
    Spread,
    Subject,
    Timing,
    check_device,
    explained,
    measure,
    prepare,
    threads_set,
)
from senetzoo.counting import Counts, count
from senetzoo.errors import ConfigError, WeightsError, nearest
from senetzoo.nn.classifier import Classifier
from senetzoo.weights.load import load_file_into
from senetzoo.zoo import create, list_models, transforms

_MEMORY = (
    "parameters, buffers and images, plus the most that torch's allocator held at once for one "
    "forward pass"
)


@dataclass(frozen=True)
class Speed:
    """The timings of one setting, with what counting says of each network."""

    settings: Settings
    timings: tuple[Timing, ...]
    counts: tuple[Counts, ...]


@dataclass(frozen=True)
class Evaluation:
    """The accuracy of one network.

    Args:
        model: Its name.
        weights: Tag of its weights, or their file.
        dtype: Type it computed in.
        result: The accuracy.
    """

    model: str
    weights: str
    dtype: Dtype
    result: Accuracy


@click.command(
    cls=SenetzooCommand,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.option(
    "--model",
    "patterns",
    multiple=True,
    required=True,
    metavar="NAME",
    help="Name, wildcard or policy: resnet18, 'se_resnet*', resnet50+se8@pre/s3-4. Repeatable; "
    "the first is what the others are compared with.",
)
@click.option("--batch", multiple=True, type=int, default=(32,), help="Images. Repeatable.")
@click.option(
    "--dtype",
    multiple=True,
    type=click.Choice(get_args(Dtype)),
    default=("fp32",),
    help="Of weights and images. Repeatable.",
)
@click.option(
    "--layout",
    multiple=True,
    type=click.Choice(get_args(Layout)),
    default=("nchw",),
    help="nhwc is torch's channels_last. Repeatable.",
)
@click.option("--compile", "compiled", is_flag=True, help="Time torch.compile's code.")
@click.option("--device", default="cpu", help="cpu, cuda, cuda:1 or mps.")
@click.option("--threads", type=int, help="Of torch on the CPU. Default: torch's choice.")
@click.option("--size", type=int, help="Pixels of a side. Default: the network's own.")
@click.option("--rounds", type=int, default=20, help="Timed batches of each; 0: no timing.")
@click.option("--warmup", type=int, default=3, help="Batches of each before them.")
@click.option(
    "--accuracy",
    "data",
    metavar="DATA",
    help="Evaluate on: a folder of class folders, a copy of CIFAR-10 (its test split), a parquet "
    "file, or the word digits.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Evaluate this safetensors file instead of the published weights.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout instead of the table.")
@click.option("--record", is_flag=True, help="Append the JSON as a line to the records.")
@click.option(
    "--records-dir",
    type=click.Path(path_type=Path),
    default=Path("benchmarks/records"),
    help="Where they are.",
)
def bench(
    patterns: tuple[str, ...],
    batch: tuple[int, ...],
    dtype: tuple[Dtype, ...],
    layout: tuple[Layout, ...],
    compiled: bool,
    device: str,
    threads: int | None,
    size: int | None,
    rounds: int,
    warmup: int,
    data: str | None,
    weights: Path | None,
    as_json: bool,
    record: bool,
    records_dir: Path,
) -> None:
    """Measure size, speed, memory and accuracy of networks.

    Networks are timed in one process, one batch of each in turn, so that other load meets all of
    them. Evaluation runs eagerly, on weights that are published or given.

    \b
    Examples:
      senetzoo bench --model resnet20 --model se_resnet20 --batch 1 --batch 64
      senetzoo bench --model 'se_resnet*' --layout nhwc --compile --json
      senetzoo bench --model se_resnet20 --accuracy cifar10/ --rounds 0
    """
    names = find_names(patterns)
    every = [
        Settings(
            batch=images,
            dtype=kind,
            layout=form,
            compile=compiled,
            device=device,
            threads=threads,
            # No timing has no rounds; what else the settings say must hold all the same.
            rounds=1 if rounds == 0 else rounds,
            warmup=warmup,
        )
        for images, kind, form in itertools.product(batch, dtype, layout)
    ]
    if size is not None and size < 1:
        raise ConfigError(f"size={size} can't be measured.", "size is a number of pixels, > 0.")
    if rounds == 0 and data is None:
        raise ConfigError(
            "rounds=0 without --accuracy leaves nothing to measure.",
            "0 rounds mean no timing.",
            "Type for example: --rounds 20",
        )
    if weights is not None and (data is None or len(names) > 1):
        raise ConfigError(
            f"--weights {weights} can't be used here.",
            "It is for the accuracy of one network; "
            + ("--accuracy is missing." if data is None else f"there are {len(names)}."),
            "Type for example: --model resnet20 --weights FILE --accuracy DATA",
        )
    place = check_device(every[0])
    for settings in every[1:]:
        check_device(settings)

    with threads_set(threads):
        where = records.environment(place, torch.get_num_threads())
        # Evaluation comes first: data or weights that are not there show before the long part.
        evaluations = _evaluate(names, every, data, weights) if data is not None else []
        speeds = _time(names, every, size) if rounds else []
    report = {
        "environment": dataclasses.asdict(where),
        "options": {
            "model": list(patterns),
            "batch": list(batch),
            "dtype": list(dtype),
            "layout": list(layout),
            "compile": compiled,
            "device": device,
            "threads": threads,
            "size": size,
            "rounds": rounds,
            "warmup": warmup,
            "accuracy": data,
            "weights": None if weights is None else str(weights),
        },
        "memory": _MEMORY,
        "speed": [_speed_json(speed) for speed in speeds],
        "accuracy": [_accuracy_json(evaluation) for evaluation in evaluations],
    }
    if as_json:
        click.echo(json.dumps(report))
    else:
        parts = [_speed_text(speed) for speed in speeds]
        parts += [_accuracy_text(evaluation) for evaluation in evaluations]
        click.echo("\n\n".join(parts))
    if record:
        path = records.append(report, where, records_dir)
        click.echo(f"recorded in {path}", err=True)


def find_names(patterns: Sequence[str]) -> list[str]:
    """List the networks that names and wildcards stand for, each once, in their order.

    Args:
        patterns: Names with or without weights' tag and policy; before the policy's ``+`` there
            may be wildcards.

    Raises:
        ConfigError: A wildcard that matches nothing. Names are left for `create` to check.
    """
    names: dict[str, None] = {}
    for pattern in patterns:
        base, plus, policy = pattern.partition("+")
        if not any(letter in base for letter in "*?["):
            names[pattern] = None
            continue
        found = list_models(base)
        if not found:
            stem = base.strip("*?[]")
            raise ConfigError(
                f"No network matches {pattern!r}.",
                "* stands for any letters, ? for one.",
                nearest(stem, list_models()) or "Type: senetzoo list",
            )
        names.update((f"{name}{plus}{policy}", None) for name in found)
    return list(names)


def _time(names: Sequence[str], every: Sequence[Settings], size: int | None) -> list[Speed]:
    subjects, counts = [], []
    for name in names:
        model = create(name, seed=0)
        side = model.config.input_size if size is None else size
        image = (model.config.in_chans, side, side)
        subjects.append(Subject(name, model, image))
        with explained(name, image, 1):
            counts.append(count(model, side))
    total = sum((settings.rounds + settings.warmup) * len(names) for settings in every)
    with _bar(total, "timing", "batch") as advance:
        return [
            Speed(
                settings,
                tuple(measure(subjects, settings, advance=lambda: advance(1))),
                tuple(counts),
            )
            for settings in every
        ]


def _evaluate(
    names: Sequence[str], every: Sequence[Settings], data: str, weights: Path | None
) -> list[Evaluation]:
    models: list[tuple[str, Classifier, str, LabelledImages]] = []
    for name in names:
        model, origin = _trained(name, weights)
        report = model.load_report
        classes = report.classes if report is not None else ()
        models.append((name, model, origin, read_images(data, classes, model.config.num_classes)))
    # Accuracy does not depend on batch and layout; the first of each will do.
    chosen = {settings.dtype: settings for settings in reversed(every)}
    done: list[Evaluation] = []
    total = len(chosen) * sum(len(images.images) for *_, images in models)
    with _bar(total, "accuracy", "image") as advance:
        for settings in reversed(chosen.values()):
            for name, model, origin, images in models:
                ready = prepare(model, settings)
                see = transforms(model)
                side = (model.config.in_chans, see.size, see.size)
                with explained(name, side, settings.batch):
                    result = accuracy(ready, images, see, batch=settings.batch, advance=advance)
                done.append(Evaluation(name, origin, settings.dtype, result))
    return done


def _trained(name: str, weights: Path | None) -> tuple[Classifier, str]:
    """Make a network with weights; also says where they are from."""
    if weights is not None:
        model = create(name)
        load_file_into(model, weights)
        return model, str(weights)
    model = create(name, pretrained=True)
    report = model.load_report
    if report is not None and report.replaced:
        parameter, why = report.replaced[0]
        raise WeightsError(
            f"{name} has no trained weights to evaluate.",
            f"{report.tag} lacks {parameter} ({why}).",
            "Give weights of this very network: --weights FILE",
        )
    return model, report.tag if report is not None else ""


@contextlib.contextmanager
def _bar(total: int, title: str, unit: str) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr where that is a terminal and tqdm is there."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda steps: None
        return
    with tqdm(
        total=total, desc=title, unit=unit, leave=False, disable=not sys.stderr.isatty()
    ) as bar:
        yield lambda steps: bar.update(steps) and None


def _spread_json(spread: Spread, scale: float = 1.0) -> dict[str, float]:
    return {
        "median": spread.median * scale,
        "p10": spread.p10 * scale,
        "p90": spread.p90 * scale,
        "spread": spread.relative,
    }


def _speed_json(speed: Speed) -> dict[str, object]:
    first = speed.timings[0]
    results = [
        {
            "model": timing.name,
            "image": list(timing.image),
            "params": counts.params,
            "macs": counts.macs,
            "images_per_second": timing.images_per_second,
            "latency_ms": _spread_json(timing.latency, 1e3),
            "peak_memory_bytes": timing.peak_bytes,
            "throughput_ratio": None
            if timing is first
            else {"to": first.name, **_spread_json(timing.ratio(first))},
            "round_ms": [round(seconds * 1e3, 4) for seconds in timing.seconds],
        }
        for timing, counts in zip(speed.timings, speed.counts, strict=True)
    ]
    return {**dataclasses.asdict(speed.settings), "results": results}


def _tally_json(tally: Tally) -> dict[str, object]:
    return {
        "right": tally.right,
        "images": tally.total,
        "accuracy": tally.accuracy if tally.total else None,
        "wilson95": list(tally.interval),
    }


def _accuracy_json(evaluation: Evaluation) -> dict[str, object]:
    result = evaluation.result
    return {
        "model": evaluation.model,
        "weights": evaluation.weights,
        "data": result.whole.name,
        "dtype": evaluation.dtype,
        **_tally_json(result.whole),
        "classes": [{"name": tally.name, **_tally_json(tally)} for tally in result.classes],
    }


def _speed_text(speed: Speed) -> str:
    settings, first = speed.settings, speed.timings[0]
    title = (
        f"batch {settings.batch}, {settings.dtype}, {settings.layout}, "
        f"{'compiled' if settings.compile else 'eager'}, {settings.device}, "
        f"threads {settings.threads or torch.get_num_threads()}, rounds {settings.rounds} after "
        f"{settings.warmup} of warm-up"
    )
    head = ["model", "size", "params", "GMACs", "images/s", "ms/batch", "p90", "spread", "peak MiB"]
    several = len(speed.timings) > 1
    if several:
        head += ["speed ratio", "p10-p90"]
    rows = [head]
    for timing, counts in zip(speed.timings, speed.counts, strict=True):
        latency, peak = timing.latency, timing.peak_bytes
        row = [
            timing.name,
            f"{timing.image[1]}",
            f"{counts.params:,}",
            f"{counts.macs / 1e9:.4g}",
            f"{timing.images_per_second:.1f}",
            f"{latency.median * 1e3:.2f}",
            f"{latency.p90 * 1e3:.2f}",
            f"{latency.relative:.0%}",
            "-" if peak is None else f"{peak / 2**20:.1f}",
        ]
        if several and timing is first:
            row += ["1", ""]
        elif several:
            ratio = timing.ratio(first)
            row += [f"{ratio.median:.3f}", f"{ratio.p10:.3f}-{ratio.p90:.3f}"]
        rows.append(row)
    notes = [
        "spread: (p90 - p10) / median of the batches.",
        f"peak: {_MEMORY}.",
    ]
    if several:
        notes.append(f"speed ratio: to {first.name}, median over the rounds.")
    return "\n".join([title, *_columns(rows), *notes])


def _percent(tally: Tally) -> str:
    if not tally.total:
        return "no images"
    low, high = tally.interval
    return f"{tally.accuracy:.2%} [{low:.2%}, {high:.2%}]"


def _accuracy_text(evaluation: Evaluation) -> str:
    result = evaluation.result
    rows = [["class", "images", "accuracy [95 % interval, Wilson]"]]
    rows += [
        [tally.name, str(tally.total), _percent(tally)]
        for tally in [dataclasses.replace(result.whole, name="all"), *result.classes]
    ]
    title = f"{evaluation.model} ({evaluation.weights}) on {result.whole.name}, {evaluation.dtype}"
    return "\n".join([title, *_columns(rows)])


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
