"""The tables and the plot of docs/benchmarks.md, from benchmarks/records."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from senetzoo._utils.terminal import counted
from senetzoo.deploy.engines import Layout, engine
from senetzoo.eval.spread import Spread
from tables.common import RECORDS, STYLE, by_place, commit, every, lines, processor, svg, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOT = "docs/benchmarks.svg"
_DIFFERENT, _SAME = "#0072B2", "#767676"


@dataclass(frozen=True)
class Row:
    """A network in one backend, as it was measured.

    Args:
        where: Machine, versions, commit and rounds, in a sentence.
        model: Its name.
        backend: Engine, dtype, layout, and whether the network was rewritten.
        pixels: Of a side.
        batch: Images.
        speed: Images a second.
        ratio: To the first row of its table; None for that row itself.
        first: Name of that row's network.
        first_backend: And what ran it.
    """

    where: str
    model: str
    backend: str
    pixels: int
    batch: int
    speed: float
    ratio: Spread | None
    first: str
    first_backend: str


def machine(*records: dict[str, Any], packages: bool = True) -> str:
    """Where and how records were measured, a sentence each; with what took part."""
    places = []
    for record in records:
        where, rounds = record["environment"], record["options"]["rounds"]
        versions = {"torch": where["torch"], **(where["packages"] if packages else {})}
        named = ", ".join(f"{name} {version}" for name, version in versions.items())
        place = f"{processor(where)}, {counted(where['threads'], 'thread')}, {named}"
        places.append((f"{place}, {rounds} rounds", where["commit"]))
    return " ".join(f"{place}." for place in by_place(places))


def _backend(result: dict[str, Any], layout: Layout) -> str:
    rewritten = ["optimized"] * result["optimized"]
    used = engine(result["engine"]).layout(layout)
    return ", ".join([result["engine"], result["dtype"], used, *_streams(result), *rewritten])


def _streams(result: dict[str, Any]) -> list[str]:
    """In words, where there are several; older records say nothing of them."""
    number = result.get("streams", 1)
    return [f"{number} streams"] * (number > 1)


def speed_rows() -> list[Row]:
    """Every row of every record of `senetzoo bench --record`."""
    return [row for path in sorted(RECORDS.glob("speed/*.jsonl")) for row in _rows(path.name)]


def _rows(name: str) -> Iterator[Row]:
    for record in lines(f"speed/{name}"):
        for setting in record["speed"]:
            first = setting["results"][0]
            for result in setting["results"]:
                yield Row(
                    machine(record),
                    result["model"],
                    _backend(result, setting["layout"]),
                    result["image"][1],
                    setting["batch"],
                    result["images_per_second"],
                    spread(result["throughput_ratio"]),
                    first["model"],
                    _backend(first, setting["layout"]),
                )


def spread(found: dict[str, Any] | None) -> Spread | None:
    """The ratio of a record, where it has one."""
    if found is None:
        return None
    interval = found["interval95"]
    limits = None if interval is None else (interval[0], interval[1])
    return Spread(found["median"], found["p10"], found["p90"], limits)


def speed() -> str:
    """A table for each machine, commit, and set of versions and rounds."""
    parts = []
    rows = speed_rows()
    for where in dict.fromkeys(row.where for row in rows):
        cells = [
            [
                f"`{row.model}`",
                row.backend,
                str(row.pixels),
                str(row.batch),
                _speed(row.speed),
                str(row.ratio) if row.ratio else "1",
                _against(row) if row.ratio else "",
            ]
            for row in rows
            if row.where == where
        ]
        head = ["network", "backend", "pixels", "batch", "images a second", "ratio [95 %]", "to"]
        parts.append(f"{table(head, cells)}\n{where}\n")
    return "\n".join(parts) or "Nothing is recorded yet.\n"


def _against(row: Row) -> str:
    return (
        f"`{row.first}`"
        if row.backend == row.first_backend
        else f"`{row.first}`, {row.first_backend}"
    )


def summary() -> str:
    """SE networks beside their plain twins, and beside timm's: of each setting one line."""
    rows, records = [], []
    for path in sorted(RECORDS.glob("speed/*.jsonl")):
        for record in lines(f"speed/{path.name}"):
            made = [
                row for setting in record["speed"] for row in _beside(setting, setting["results"])
            ]
            records += [record] * bool(made)
            rows += made
    head = ["network", "engine", "batch", "plain, optimized if measured, images a second"]
    head += ["SE / plain, as built", "SE / plain, optimized", "SE, optimized / timm's SE"]
    if not rows:
        return "Nothing is recorded yet.\n"
    return f"{table(head, rows)}\n{machine(*records, packages=False)}\n"


def ratios() -> str:
    """The rows of `benchmarks/se_ratio.py` by processor: what was compared, how, and the ratio."""
    on: dict[str, list[dict[str, Any]]] = {}
    for record in lines("speed/ratios/se.jsonl"):
        on.setdefault(processor(record["environment"]), []).append(record)
    return "\n".join(map(_ratios, on.values())) or "Nothing is recorded yet.\n"


def _measured(record: dict[str, Any]) -> list[str]:
    """What is compared, the ratio, and that to the fastest plain network."""
    what = " / ".join(record.get("chosen", [record["row"]])[:2])
    if "text" not in record:
        return [what, f"not measured: {record['why']}", ""]
    ratio, _, fastest = record["text"].partition("; ")
    if found := re.fullmatch(r"(\S+) in (\w+), (.+)", ratio):
        # Of training: the plain loop of benchmarks/training_speed.py is that of tutorials.
        ratio = f"{found[1]} ({found[3]})"
        what = what.replace(" / ", f", {found[2]} and compiled / ") + ", fp32 and eager"
    return [what, ratio, fastest]


def _rounds(record: dict[str, Any]) -> int:
    """How many were taken: benchmarks/se_ratio.py takes at most 7 of training."""
    return min(record["rounds"], 7) if record["group"] == "training" else int(record["rounds"])


def _ratios(records: list[dict[str, Any]]) -> str:
    rows = [
        [what, record["group"], str(record["batch"]), *ratios, f"{record['aim']:.2f}"]
        for record in records
        for what, *ratios in [_measured(record)]
    ]
    head = ["ratio", "of", "batch", "measured [95 %]", "to the fastest plain one", "aim"]
    rounds = ({**record, "options": {"rounds": _rounds(record)}} for record in records)
    return f"{table(head, rows)}\n{machine(*rounds, packages=False)}\n"


def _beside(setting: dict[str, Any], results: list[dict[str, Any]]) -> Iterator[list[str]]:
    """Of one measurement, by engine and dtype, each SE network that has its twin in it."""
    for found in results:
        name = found["model"]
        if found["optimized"] or not name.startswith("se_"):
            continue

        def one(model: str, optimized: bool, like: dict[str, Any] = found) -> dict[str, Any] | None:
            wanted = {**like, "model": model, "optimized": optimized}
            keys = ("model", "engine", "dtype", "streams", "optimized")
            return next(
                (r for r in results if all(r.get(key) == wanted.get(key) for key in keys)), None
            )

        plain, twin = one(name[3:], False), one(name[3:], True)
        if plain is None:
            continue
        best, theirs = one(name, True), one(f"timm:{name.replace('_', '', 1)}", False)
        shown = twin or plain
        yield [
            f"`{name}`, {found['image'][1]} px",
            ", ".join([found["engine"], found["dtype"], *_streams(found)]),
            str(setting["batch"]),
            _speed(shown["images_per_second"]),
            _paired(found, plain),
            _paired(best, twin),
            _paired(best, theirs),
        ]


def _speed(images: float) -> str:
    return f"{images:#,.4g}" if images < 999.5 else f"{images:,.0f}"


def _paired(one: dict[str, Any] | None, other: dict[str, Any] | None) -> str:
    """Speed of one as a multiple of another's, round by round."""
    if one is None or other is None:
        return ""
    pairs = zip(one["round_ms"], other["round_ms"], strict=True)
    # In two lines: there are three such columns.
    return str(Spread.of([theirs / ours for ours, theirs in pairs])).replace("] ", "]<br>")


def picture() -> str:
    """The picture's place in the page; none where there is nothing to show."""
    if not any(row.ratio for row in speed_rows()):
        return "Nothing is recorded yet.\n"
    return (
        "![Speed ratio of each network to the one it was measured beside, with its 95 % interval]"
        f"({PLOT.rpartition('/')[2]})\n"
    )


def plot() -> str | None:
    """The ratios with their intervals as SVG, the same text for the same records."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = [row for row in speed_rows() if row.ratio is not None]
    if not rows:
        return None
    # By what they are compared with, a heading each.
    groups = [(name, list(found)) for name, found in groupby(rows, _heading)]
    with mpl.rc_context(STYLE):
        height = 0.85 + 0.2 * (len(rows) + 1.6 * len(groups))
        figure = Figure(figsize=(5.2, height))
        # By hand: a layout that measures letters would depend on the fonts of the machine.
        left, width = 0.37, 0.61
        axes = figure.add_axes((left, 0.45 / height, width, 1 - 0.75 / height))
        axes.axvline(1, color="#000000", lw=0.8)
        y, places, labels = 0.0, [], []
        for name, found in groups:
            y += 0.6
            axes.text(-left / width + 0.01, y, name, transform=axes.get_yaxis_transform())
            for row in found:
                y += 1
                places.append(y)
                labels.append(_label(row))
                _draw(axes, row, y)
            y += 1
        axes.set_yticks(places, labels)
        axes.set_ylim(y - 0.4, -0.2)
        axes.set_xlabel("images a second, as a multiple")
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labeltop=True)  # as tall as several screens
        return svg(figure, "Speed ratios with their 95 % intervals")


def _heading(row: Row) -> str:
    return f"{row.pixels} px, batch {row.batch}, to {row.first}, {row.first_backend}"


def _label(row: Row) -> str:
    """The network, and what its backend has other than the backend it is compared with."""
    common = row.first_backend.split(", ")
    return ", ".join([row.model, *(word for word in row.backend.split(", ") if word not in common)])


def _draw(axes: Axes, row: Row, y: float) -> None:
    """The interval and the median of a row; hollow and gray where it covers 1."""
    if row.ratio is None:
        return
    differs = row.ratio.differs is not False
    color = _DIFFERENT if differs else _SAME
    median = row.ratio.median
    axes.plot(
        row.ratio.interval or (median,) * 2, [y, y], color=color, lw=1.6, solid_capstyle="butt"
    )
    face = color if differs else "#ffffff"
    axes.plot([median], [y], "o", color=color, markerfacecolor=face, markersize=4)


def startup() -> str:
    """Seconds to import and to build, in fresh interpreters."""
    parts = []
    for record in lines("startup.jsonl"):
        rows = [
            [
                f"`{result['statement']}`",
                f"{result['seconds']['median']:.3f}",
                f"{result['seconds']['p10']:.3f} to {result['seconds']['p90']:.3f}",
                str(spread(result["ratio"]) or "1") if "ratio" in result else "",
            ]
            for result in record["results"]
        ]
        where, versions = record["environment"], record["environment"]["packages"]
        note = (
            f"{where['cpu']}, torch {where['torch']}, "
            f"{', '.join(f'{name} {version}' for name, version in versions.items())}, "
            f"{commit(where['commit'])}; {record['rounds']} rounds, each in new processes in "
            "random order."
        )
        head = ["statement", "seconds", "10 % to 90 %", "ratio to senetzoo [95 %]"]
        parts.append(f"{table(head, rows)}\n{note}\n")
    return "\n".join(parts) or "Nothing is recorded yet.\n"


def _points(more: int, images: int) -> str:
    return f"{100 * more / images:+.2f}"


def precision() -> str:
    """What the dtypes of the engines cost in accuracy, with the embedded weights."""
    found = lines("deploy/precision.jsonl")
    exact = {
        record["network"]: record["test_correct"]
        for record in found
        if (record["engine"], record["dtype"]) == ("eager", "fp32")
    }
    rows = [
        [
            f"`{record['network']}`",
            f"{record['engine']} {record['version']}",
            record["dtype"],
            f"{100 * record['test_correct'] / record['test_images']:.2f} %",
            _points(record["test_correct"] - exact[record["network"]], record["test_images"]),
            f"{record['differs_from_fp32']:,}",
        ]
        for record in found
    ]
    if not rows:
        return "Nothing is recorded yet.\n"
    head = ["weights", "engine", "dtype", "accuracy", "points", "changed classes"]
    (images,) = {record["test_images"] for record in found}
    (drawn,) = {record["calibration_images"] for record in found if record["dtype"] == "int8"}
    return (
        f"{table(head, rows)}\n{images:,} test images of CIFAR-10; int8 with {drawn} training "
        f"images for its ranges; {every(found, 'machine')}.\n"
    )


def profile() -> str:
    """Where the time goes, kind by kind, of what was profiled."""
    parts = []
    for path in sorted(RECORDS.glob("profile/*.jsonl")):
        for record in lines(f"profile/{path.name}"):
            found = record["profile"]
            kinds = dict.fromkeys(kind["kind"] for one in found for kind in one["kinds"])
            rows = []
            for kind in kinds:
                cells = [
                    next((k for k in one["kinds"] if k["kind"] == kind), None) for one in found
                ]
                rows.append(
                    [
                        kind,
                        *(f"{c['ms']:.1f} ({c['calls']})" if c is not None else "" for c in cells),
                    ]
                )
            rows.append(["all", *(f"{one['operations_ms']:.1f}" for one in found)])
            names = [
                f"`{one['model']}`{', optimized' * one['optimized']}, {one['engine']}, "
                f"{one['dtype']}, ms (calls)"
                for one in found
            ]
            head = f"batch {found[0]['batch']}"
            parts.append(f"{table([head, *names], rows)}\n{machine(record)}\n")
    return "\n".join(parts) or "Nothing is recorded yet.\n"
