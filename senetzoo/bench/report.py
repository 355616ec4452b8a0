"""Results of measurements as JSON values, as tables for a terminal, and as lines of records."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from senetzoo._utils.terminal import columns
from senetzoo.bench.profile import Part, Profile
from senetzoo.bench.timing import MEMORY, BenchmarkCase, Timing
from senetzoo.deploy.engines import engine
from senetzoo.errors import ConfigError
from senetzoo.eval.accuracy import Evaluation
from senetzoo.eval.spread import LEAST_ROUNDS, Spread

# Kernels of a compiled network can't be grouped by layer, so only the longest are shown.
_KERNELS = 15


def speed_json(timings: Sequence[Timing]) -> dict[str, object]:
    """One object with the settings that all timings share, and the timings in ``results``."""
    first = timings[0]
    results = []
    for timing in timings:
        ratio, counts = timing.ratio(first), timing.case.counts
        results.append(
            {
                **_case(timing.case),
                "image": list(timing.case.image),
                "params": counts and counts.params,
                "macs": counts and counts.macs,
                "images_per_second": timing.images_per_second,
                "latency_ms": _spread(timing.latency, 1e3),
                "peak_memory_bytes": timing.peak_bytes,
                "throughput_ratio": None
                if timing is first
                else {
                    "to": _case(first.case),
                    **_spread(ratio),
                    "interval95": ratio.interval and list(ratio.interval),
                    "differs": ratio.differs,
                },
                "round_ms": [round(seconds * 1e3, 4) for seconds in timing.seconds],
            }
        )
    return {**dataclasses.asdict(first.settings), "results": results}


def profile_json(profile: Profile) -> dict[str, object]:
    """One object for the profile: by kind, and by layer and kind."""

    def part_json(part: Part) -> dict[str, object]:
        time = {"ms": part.seconds * 1e3, "share": profile.share(part)}
        return {"kind": part.kind, **time, "calls": part.calls}

    return {
        **_case(profile.case),
        "image": list(profile.case.image),
        "batch": profile.batch,
        "operations_ms": profile.seconds * 1e3,
        "outside_ms": profile.outside * 1e3,
        "kinds": [part_json(part) for part in profile.kinds().values()],
        "layers": [{"path": part.path, **part_json(part)} for part in profile.parts],
    }


def _case(case: BenchmarkCase) -> dict[str, object]:
    backend = dataclasses.asdict(case.backend)
    return {"model": case.name, **backend, "optimized": case.optimized}


def _spread(spread: Spread, scale: float = 1.0) -> dict[str, float]:
    return {
        "median": spread.median * scale,
        "p10": spread.p10 * scale,
        "p90": spread.p90 * scale,
        "spread": spread.relative,
    }


def speed_text(timings: Sequence[Timing], evaluations: Sequence[Evaluation] = ()) -> str:
    """A table with a row for each timing of one setting; others are compared with the first.

    Evaluations of the networks run eagerly, so their accuracy is in the rows of the engine eager.
    """
    first = timings[0]
    accuracy = {
        (found.model, "eager", found.dtype, False): str(found.predictions.top(1))
        for found in evaluations
    }
    settings, several = first.settings, len(timings) > 1
    title = (
        f"batch {settings.batch}, {settings.layout}, {settings.device}, "
        f"threads {settings.threads or torch.get_num_threads()}, rounds {settings.rounds} after "
        f"{settings.warmup} warm-up rounds"
    )
    head = ["model", "engine", "dtype", "size", "params", "GMACs", "images/s", "ms/batch", "p90"]
    head += ["spread", "peak MiB", *["speed ratio [95 %]"] * several]
    rows = [[*head, *["top-1 [95 %]"] * bool(accuracy)]]
    for timing in timings:
        case, latency, peak = timing.case, timing.latency, timing.peak_bytes
        key = (case.name, case.backend.engine, case.backend.dtype, case.optimized)
        rows.append(
            [
                f"{case.name} optimized" if case.optimized else case.name,
                case.backend.engine
                + (f", {case.backend.streams} streams" if case.backend.streams > 1 else ""),
                case.backend.dtype,
                f"{case.image[1]}",
                f"{case.counts.params:,}" if case.counts else "-",
                f"{case.counts.macs / 1e9:.4g}" if case.counts else "-",
                f"{timing.images_per_second:.1f}",
                f"{latency.median * 1e3:.2f}",
                f"{latency.p90 * 1e3:.2f}",
                f"{latency.relative:.0%}",
                "-" if peak is None else f"{peak / 2**20:.1f}",
                *["1" if timing is first else str(timing.ratio(first))] * several,
                *[accuracy.get(key, "-")] * bool(accuracy),
            ]
        )
    notes = ["spread: (p90 - p10) / median of the batches.", f"peak: {MEMORY}."]
    if several:
        notes.append(
            f"speed ratio: to {first.case.name} ({first.case.how}), median of the rounds' ratios "
            "with its 95 % confidence interval; no difference if that contains 1."
        )
        if settings.rounds < LEAST_ROUNDS:
            notes.append(f"The interval needs at least {LEAST_ROUNDS} rounds.")
    if accuracy:
        notes.append(
            "top-1: accuracy with its 95 % interval (Wilson), as in the tables below, at the size "
            "of the network's preprocessing."
        )
    notes += [
        f"{name} has only the layout {used}."
        for name in dict.fromkeys(timing.case.backend.engine for timing in timings)
        if (used := engine(name).layout(settings.layout)) != settings.layout
    ]
    return "\n".join([title, *columns(rows, left=3), *notes])


def scaling_text(speeds: Sequence[Sequence[Timing]]) -> str:
    """Images per second of each row by batch and size; empty if there is only one of both."""
    tables = []
    for layout in dict.fromkeys(timings[0].settings.layout for timings in speeds):
        here = [timings for timings in speeds if timings[0].settings.layout == layout]
        if len(here) == 1:
            continue
        batches = list(dict.fromkeys(timings[0].settings.batch for timings in here))
        sides = list(dict.fromkeys(timings[0].case.image[1] for timings in here))
        rows = [["", *(f"batch {batch}" for batch in batches)]]
        for row in range(len(here[0])):
            for side in sides:
                found = [timings[row] for timings in here if timings[0].case.image[1] == side]
                case = found[0].case
                cells = [f"{timing.images_per_second:.1f}" for timing in found]
                rows.append([f"{case.name}, {case.how}, {case.image[1]} px", *cells])
        tables.append("\n".join([f"images/s by batch and size, {layout}", *columns(rows)]))
    return "\n\n".join(tables)


def profile_text(profile: Profile) -> str:
    """Tables of a profile: by kind, then by layer or by kernel."""
    kinds = profile.kinds()
    rows = [["kind", "ms", "share", "calls"]]
    rows += [
        [kind, f"{part.seconds * 1e3:.3f}", f"{profile.share(part):.1%}", str(part.calls)]
        for kind, part in kinds.items()
    ]
    title = (
        f"{profile.case.name} ({profile.case.how}), batch {profile.batch} of "
        f"{profile.case.image[1]} px: "
        f"{profile.seconds * 1e3:.3f} ms in operations"
    )
    note = (
        f"{profile.outside * 1e3:.3f} ms of a pass under the profiler were outside of operations: "
        "in Python and the profiler itself."
    )
    if profile.case.backend.engine == "eager":
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


def append(report: Mapping[str, Any], folder: Path) -> Path:
    """Append JSON values to ``<gpu or cpu>-<cores>c-<UTC day>.jsonl`` of their ``environment``.

    Raises:
        ConfigError: The file can't be written.
    """
    where = report["environment"]
    machine = f"{where['gpu'] or where['cpu']}-{where['cores']}c".lower()
    path = folder / f"{re.sub('[^a-z0-9]+', '-', machine)}-{where['time'][:10]}.jsonl"
    line = json.dumps(report) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        raise ConfigError(
            f"The record {path} can't be written.",
            f"{error.strerror}.",
            "Give another folder: --records-dir FOLDER",
        ) from None
    return path
