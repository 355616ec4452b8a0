"""What was measured, as tables for a terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from senetzoo.bench.accuracy import Tally
from senetzoo.bench.memory import MEASURED
from senetzoo.bench.profile import Profile
from senetzoo.bench.report import Evaluation, Speed
from senetzoo.bench.spread import LEAST_ROUNDS
from senetzoo.bench.timing import Timing

# Kernels of a compiled network have no layers to be put together by; the longest are enough here.
_KERNELS = 15


def speed_text(speed: Speed) -> str:
    """A table with a row for each network in each of its forms, and what its columns mean."""
    settings, first = speed.settings, speed.timings[0]
    title = (
        f"batch {settings.batch}, {settings.layout}, {settings.device}, "
        f"threads {settings.threads or torch.get_num_threads()}, rounds {settings.rounds} after "
        f"{settings.warmup} of warm-up"
    )
    head = ["model", "engine", "dtype", "size", "params", "GMACs", "images/s", "ms/batch", "p90"]
    head += ["spread", "peak MiB"]
    several = len(speed.timings) > 1
    if several:
        head += ["speed ratio [95 %]"]
    rows = [head]
    for timing, counts in zip(speed.timings, speed.counts, strict=True):
        latency, peak = timing.latency, timing.peak_bytes
        row = [
            f"{timing.name} optimized" if timing.form.optimized else timing.name,
            timing.form.engine,
            timing.form.dtype,
            f"{timing.image[1]}",
            f"{counts.params:,}",
            f"{counts.macs / 1e9:.4g}",
            f"{timing.images_per_second:.1f}",
            f"{latency.median * 1e3:.2f}",
            f"{latency.p90 * 1e3:.2f}",
            f"{latency.relative:.0%}",
            "-" if peak is None else f"{peak / 2**20:.1f}",
        ]
        if several:
            row += ["1" if timing is first else str(timing.ratio(first))]
        rows.append(row)
    notes = ["spread: (p90 - p10) / median of the batches.", f"peak: {MEASURED}."]
    if several:
        notes.append(
            f"speed ratio: to {first.name} ({first.form}), median of the rounds' ratios with its "
            "95 % confidence interval; no difference where that covers 1."
        )
        if settings.rounds < LEAST_ROUNDS:
            notes.append(f"There is no such interval of fewer than {LEAST_ROUNDS} rounds.")
    return "\n".join([title, *columns(rows, left=3), *notes])


def scaling_text(speeds: Sequence[Speed]) -> str:
    """Images a second of each row by batch and size; empty where there is only one of both."""
    tables = []
    for layout in dict.fromkeys(speed.settings.layout for speed in speeds):
        here = [speed for speed in speeds if speed.settings.layout == layout]
        batches = list(dict.fromkeys(speed.settings.batch for speed in here))
        sides = list(dict.fromkeys(speed.timings[0].image[1] for speed in here))
        if len(here) == 1:
            continue
        rows = [["", *(f"batch {batch}" for batch in batches)]]
        for row in range(len(here[0].timings)):
            for side in sides:
                found = {
                    speed.settings.batch: speed.timings[row]
                    for speed in here
                    if speed.timings[0].image[1] == side
                }
                timings = [found[batch] for batch in batches]
                cells = [f"{timing.images_per_second:.1f}" for timing in timings]
                rows.append([f"{_title(timings[0])}, {timings[0].image[1]} px", *cells])
        tables.append("\n".join([f"images/s by batch and size, {layout}", *columns(rows)]))
    return "\n\n".join(tables)


def profile_text(profile: Profile) -> str:
    """Where the time goes: by kind, then layer by layer, or kernel by kernel."""
    kinds = profile.kinds()
    rows = [["kind", "ms", "share", "calls"]]
    rows += [
        [kind, f"{part.seconds * 1e3:.3f}", f"{profile.share(part):.1%}", str(part.calls)]
        for kind, part in kinds.items()
    ]
    title = (
        f"{profile.name} ({profile.form}), batch {profile.batch} of {profile.image[1]} px: "
        f"{profile.seconds * 1e3:.3f} ms in operations"
    )
    note = (
        f"{profile.outside * 1e3:.3f} ms of a pass under the profiler were outside of operations: "
        "Python, and the profiler itself."
    )
    if profile.form.engine == "eager":
        head = [["layer", *kinds, "share"]]
        layers: dict[str, dict[str, float]] = {}
        for part in profile.layers():
            layers.setdefault(part.path, {})[part.kind] = part.seconds
        for path, times in layers.items():
            cells = [f"{times[kind] * 1e3:.3f}" if kind in times else "" for kind in kinds]
            share = sum(times.values()) / profile.seconds
            head.append([path or "(the network itself)", *cells, f"{share:.1%}"])
        return "\n".join([title, *columns(rows), "", "ms by layer", *columns(head), note])
    longest = sorted(profile.parts, key=lambda part: -part.seconds)[:_KERNELS]
    head = [["kernel", "kind", "ms", "share", "calls"]]
    for part in longest:
        time = [f"{part.seconds * 1e3:.3f}", f"{profile.share(part):.1%}"]
        head.append([part.path, part.kind, *time, str(part.calls)])
    shown = f"the longest {len(longest)} of {len(profile.parts)} kernels"
    return "\n".join([title, *columns(rows), "", shown, *columns(head, left=2), note])


def accuracy_text(evaluation: Evaluation) -> str:
    """A table with a row for each class."""
    result = evaluation.result
    rows = [["class", "images", "accuracy [95 % interval, Wilson]"]]
    rows += [
        [tally.name, str(tally.total), _percent(tally)]
        for tally in [dataclasses.replace(result.whole, name="all"), *result.classes]
    ]
    title = f"{evaluation.model} ({evaluation.weights}) on {result.whole.name}, {evaluation.dtype}"
    return "\n".join([title, *columns(rows)])


def columns(rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Aligned lines: the first `left` columns to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _title(timing: Timing) -> str:
    return f"{timing.name}, {timing.form}"


def _percent(tally: Tally) -> str:
    if not tally.total:
        return "no images"
    low, high = tally.interval
    return f"{tally.accuracy:.2%} [{low:.2%}, {high:.2%}]"
