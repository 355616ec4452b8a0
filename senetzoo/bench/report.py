"""What was measured, as JSON values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from senetzoo.bench.accuracy import Accuracy, Tally
from senetzoo.bench.profile import Part, Profile
from senetzoo.bench.spread import Ratio, Spread
from senetzoo.bench.timing import Form, Settings, Timing
from senetzoo.counting import Counts
from senetzoo.deploy.engines import Dtype


@dataclass(frozen=True)
class Speed:
    """The timings of one setting, with what counting says of each network.

    Args:
        settings: How it was measured.
        timings: One a row; the first is what the others are compared with.
        counts: Of the same rows.
    """

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


def speed_json(speed: Speed) -> dict[str, object]:
    """One object for the setting, with its rows in ``results``."""
    first = speed.timings[0]
    results = [
        {
            **_who(timing.name, timing.form),
            "image": list(timing.image),
            "params": counts.params,
            "macs": counts.macs,
            "images_per_second": timing.images_per_second,
            "latency_ms": _spread(timing.latency, 1e3),
            "peak_memory_bytes": timing.peak_bytes,
            "throughput_ratio": None if timing is first else _ratio(timing.ratio(first), first),
            "round_ms": [round(seconds * 1e3, 4) for seconds in timing.seconds],
        }
        for timing, counts in zip(speed.timings, speed.counts, strict=True)
    ]
    return {**dataclasses.asdict(speed.settings), "results": results}


def profile_json(profile: Profile) -> dict[str, object]:
    """One object for the profile: by kind, and by layer and kind."""
    return {
        **_who(profile.name, profile.form),
        "image": list(profile.image),
        "batch": profile.batch,
        "operations_ms": profile.seconds * 1e3,
        "outside_ms": profile.outside * 1e3,
        "kinds": [_part(part, profile) for part in profile.kinds().values()],
        "layers": [{"path": part.path, **_part(part, profile)} for part in profile.parts],
    }


def accuracy_json(evaluation: Evaluation) -> dict[str, object]:
    """One object for the network, with its classes."""
    result = evaluation.result
    return {
        "model": evaluation.model,
        "weights": evaluation.weights,
        "data": result.whole.name,
        "dtype": evaluation.dtype,
        **_tally(result.whole),
        "classes": [{"name": tally.name, **_tally(tally)} for tally in result.classes],
    }


def _who(name: str, form: Form) -> dict[str, object]:
    return {"model": name, **dataclasses.asdict(form)}


def _spread(spread: Spread, scale: float = 1.0) -> dict[str, float]:
    return {
        "median": spread.median * scale,
        "p10": spread.p10 * scale,
        "p90": spread.p90 * scale,
        "spread": spread.relative,
    }


def _ratio(ratio: Ratio, first: Timing) -> dict[str, object]:
    return {
        "to": _who(first.name, first.form),
        **_spread(ratio.spread),
        "interval95": None if ratio.interval is None else list(ratio.interval),
        "differs": ratio.differs,
    }


def _part(part: Part, profile: Profile) -> dict[str, object]:
    return {
        "kind": part.kind,
        "ms": part.seconds * 1e3,
        "share": profile.share(part),
        "calls": part.calls,
    }


def _tally(tally: Tally) -> dict[str, object]:
    return {
        "right": tally.right,
        "images": tally.total,
        "accuracy": tally.accuracy if tally.total else None,
        "wilson95": list(tally.interval),
    }
