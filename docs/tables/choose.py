"""The tables and plots of docs/choose.md, from the manifest and from benchmarks/records/speed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from senetzoo.registry import ENTRIES
from senetzoo.weights.manifest import Entry, manifest
from tables.benchmarks import machine
from tables.common import RECORDS, STYLE, lines, svg, table

PARAMETERS, MACS, SPEED = "docs/parameters.svg", "docs/macs.svg", "docs/speed.svg"
_IMAGENET = "ImageNet-1k val"
# Networks without gates: what they are called in the legend, color, marker; and the families.
_KINDS = {
    ("ResNet, ResNeXt", "#0072B2", "o"): ["ResNet"],
    ("PreResNet", "#1F8FCF", "s"): ["PreResNet"],
    ("DenseNet", "#009E73", "^"): ["DenseNet"],
    ("MobileNet, other small ones", "#B07D00", "X"): [
        *("MobileNet", "MobileNetV2", "MNASNet", "ShuffleNetV2", "SqueezeNet")
    ],
    ("RegNetX", "#7A5195", "p"): ["RegNet"],
    ("Swin, ConvNeXt", "#000000", "*"): ["Swin", "ConvNeXt"],
    ("AlexNet, VGG", "#767676", "v"): ["AlexNet", "VGG"],
    ("GoogLeNet, Inception, Xception", "#CC79A7", "P"): [
        *("GoogLeNet", "BN-Inception", "Inception v2", "Inception v3", "Inception v4"),
        *("Inception-ResNet", "Xception"),
    ],
}
_PLAIN = {family: kind for kind, families in _KINDS.items() for family in families}
_OTHERS = ("others", "#6B4423", "h")
_GATED = ("with gates", "#D55E00", "D")


@dataclass(frozen=True)
class Weight:
    """Published weights with their accuracy.

    Args:
        tag: Their tag.
        entry: What the manifest says of them.
        top1: Accuracy in per cent.
        data: On what.
    """

    tag: str
    entry: Entry
    top1: float
    data: str

    @property
    def more_data(self) -> bool:
        """Whether they were trained on more than ImageNet-1k's training images."""
        return self.data == _IMAGENET and self.entry.data != "ImageNet-1k train"

    @property
    def as_listed(self) -> bool:
        """Whether they are for the network that their name alone makes."""
        entry = self.entry
        return not (entry.config or entry.stem or entry.policy)


def weights() -> dict[str, list[Weight]]:
    """All weights that an accuracy is published of, by network."""
    found: dict[str, list[Weight]] = {}
    for tag, entry in manifest().items():
        for metric in entry.metrics:
            if metric.name == "accuracy":
                found.setdefault(entry.model, []).append(
                    Weight(tag, entry, metric.value, metric.data)
                )
    return found


def _default(several: list[Weight]) -> Weight | None:
    return next((one for one in several if one.entry.default), None)


def _short(tag: str) -> str:
    return f"`{tag.partition('.')[2]}`"


def _license(entry: Entry) -> str:
    limited = ", non-commercial" if entry.license.non_commercial else ""
    return entry.license.weights + limited


def imagenet() -> str:
    """A line for each network whose default weights have an accuracy on ImageNet, by cost."""
    rows = []
    for name, several in weights().items():
        default = _default(several)
        if default is None or default.data != _IMAGENET:
            continue
        same = [one for one in several if one.data == _IMAGENET]
        best = max(same, key=lambda one: one.top1)
        pixels = best.entry.preprocessing.size
        notes = [f"{pixels} px"] * (pixels != default.entry.preprocessing.size)
        notes += ["more data"] * best.more_data
        notes += ["non-commercial"] * best.entry.license.non_commercial
        entry = default.entry
        cells = [
            f"`{name}`",
            f"{entry.params / 1e6:,.1f}",
            f"{entry.macs / 1e9:.2f}",
            str(entry.preprocessing.size),
            f"{default.top1:.2f}",
            _short(default.tag),
            _license(entry),
            f"{best.top1:.2f}",
            ", ".join([_short(best.tag), *notes]) if best != default else "the same",
        ]
        rows.append((entry.macs, cells))
    head = ["network", "million parameters", "GMACs", "pixels", "top-1, %", "default weights"]
    head += ["their license", "highest top-1, %", "of the weights"]
    return table(head, [cells for _, cells in sorted(rows)])


def small() -> str:
    """A line for each of the weights of small images."""
    rows = [
        [
            f"`{one.tag}`{' (default)' * one.entry.default}",
            f"{one.entry.params:,}",
            f"{one.entry.macs / 1e6:.1f}",
            f"{one.entry.preprocessing.channels}x{one.entry.preprocessing.size}x{one.entry.preprocessing.size}",
            one.data,
            f"{one.top1:.2f}",
            _license(one.entry),
            "in the package" if one.entry.source.kind == "embedded" else "fetched",
        ]
        for several in weights().values()
        for one in several
        if one.data != _IMAGENET
    ]
    head = ["weights", "parameters", "million MACs", "input", "tested on", "top-1, %", "license"]
    return table([*head, "where"], rows)


def _kind(name: str, policy: str = "") -> tuple[str, str, str]:
    entry = ENTRIES[name]
    return _GATED if entry.policy or policy else _PLAIN.get(entry.family.title, _OTHERS)


def _imagenet_weights() -> Iterator[tuple[str, Weight]]:
    for name, several in weights().items():
        yield from ((name, one) for one in several if one.data == _IMAGENET)


def accuracy_plot(cost: str) -> str:
    """Top-1 against a cost: each weight with a published one a point, the default ones filled.

    Args:
        cost: ``"params"`` or ``"macs"``.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    unit, label = (1e6, "million parameters") if cost == "params" else (1e9, "GMACs for one image")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.8, 4.9))
        # By hand: a layout that measures letters would depend on the fonts of the machine.
        axes = figure.add_axes((0.1, 0.29, 0.88, 0.69))
        kinds: dict[str, tuple[str, str, str]] = {}
        for name, one in sorted(_imagenet_weights(), key=lambda pair: pair[1].entry.default):
            kind = _kind(name, one.entry.policy)
            kinds[kind[0]] = kind
            _, color, marker = kind
            filled = one.entry.default
            axes.plot(
                [getattr(one.entry, cost) / unit],
                [one.top1],
                "+" if one.more_data else marker,
                color=color,
                markerfacecolor=color if filled else "none",
                markersize=6.5 if filled else 4,
                markeredgewidth=0.7,
                alpha=1 if filled else 0.6,
            )
        axes.set_xscale("log")
        ticks = [0.5, 1, 2, 5, 10, 20, 50, 100] if cost == "params" else [0.1, 0.3, 1, 3, 10, 30]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel(label)
        axes.set_ylabel("top-1 accuracy, %")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        _legend(figure, [kinds[name] for name in sorted(kinds)])
        return svg(figure, f"Top-1 accuracy on ImageNet-1k against {label}")


def _legend(figure: Any, kinds: list[tuple[str, str, str]]) -> None:
    """Kinds in two columns under the plot, then what the marks mean."""
    area = figure.add_axes((0, 0, 1, 0.2))
    area.set_axis_off()
    area.set_xlim(0, 1)
    area.set_ylim(0, 1)
    for number, (label, color, marker) in enumerate(kinds):
        x, y = 0.08 + 0.48 * (number % 2), 0.94 - 0.17 * (number // 2)
        area.plot([x], [y], marker, color=color, markersize=5.5)
        area.text(x + 0.03, y, label, va="center_baseline")
    gray = "#4d5560"
    marks = ((0.08, "o", gray, "default"), (0.3, "o", "none", "other weights"))
    for x, marker, face, label in (*marks, (0.6, "+", gray, "more data")):
        area.plot([x], [0.1], marker, color=gray, markerfacecolor=face, markersize=5)
        area.text(x + 0.03, 0.1, label, va="center_baseline")


@dataclass(frozen=True)
class Measured:
    """Images a second of networks in one backend.

    Args:
        backend: Engine and dtype.
        speeds: By network and batch.
        where: Machines, threads, versions, commits and rounds.
    """

    backend: str
    speeds: dict[tuple[str, int], float]
    where: str


def measured() -> Measured | None:
    """The backend in which most of our networks were measured at 224 pixels, as they are built."""
    found: dict[str, dict[tuple[str, int], float]] = {}
    records: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(RECORDS.glob("speed/*.jsonl")):
        for record in lines(f"speed/{path.name}"):
            for setting in record["speed"]:
                for result in setting["results"]:
                    as_built = not result["optimized"] and result.get("streams", 1) == 1
                    if not as_built or result["image"] != [3, 224, 224]:
                        continue
                    if result["model"] in ENTRIES:
                        backend = f"{result['engine']}, {result['dtype']}"
                        key = result["model"], setting["batch"]
                        found.setdefault(backend, {})[key] = result["images_per_second"]
                        records.setdefault(backend, []).append(record)
    if not found:
        return None
    backend = max(found, key=lambda name: len(found[name]))
    return Measured(backend, found[backend], machine(*records[backend], packages=False))


def speed() -> str:
    """How fast the networks are that were measured, with what is published for them."""
    timed = measured()
    if timed is None:
        return "Nothing is recorded yet.\n"
    batches = sorted({batch for _, batch in timed.speeds})
    rows = []
    for name in dict.fromkeys(name for name, _ in timed.speeds):
        several = [one.top1 for one in _like_timed(name)]
        span = f"{min(several):.2f} to {max(several):.2f}" if several else ""
        speeds = [timed.speeds.get((name, batch)) for batch in batches]
        rows.append(
            [
                f"`{name}`",
                *(f"{value:.1f}" if value is not None else "" for value in speeds),
                str(len(several)),
                f"{several[0]:.2f}" if len(several) == 1 else span,
            ]
        )
    head = ["network", *(f"images a second, batch {batch}" for batch in batches)]
    head += ["published tags of this form at 224 px", "their top-1, %"]
    return f"{table(head, rows)}\n{timed.backend}, 224 px. {timed.where}\n"


def picture() -> str:
    """The place of the plot of speeds in the page; none where there is nothing to show."""
    if measured() is None:
        return "Nothing is recorded yet.\n"
    name = SPEED.rpartition("/")[2]
    return f"![Top-1 accuracy of published weights against measured speed]({name})\n"


def _like_timed(name: str) -> list[Weight]:
    """The weights of ImageNet for the network as its name alone makes it, at 224 pixels."""
    several = weights().get(name, [])
    return [
        one
        for one in several
        if one.as_listed and one.data == _IMAGENET and one.entry.preprocessing.size == 224
    ]


def speed_plot() -> str | None:
    """Published top-1 at 224 px against the measured speed of the network."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MultipleLocator

    timed = measured()
    if timed is None:
        return None
    batch = min(batch for _, batch in timed.speeds)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.8, 3.6))
        axes = figure.add_axes((0.1, 0.12, 0.88, 0.86))
        every: list[float] = []
        for (name, size), value in timed.speeds.items():
            scores = [one.top1 for one in _like_timed(name)]
            if size != batch or not scores:
                continue
            _, color, marker = _kind(name)
            axes.plot([value] * len(scores), scores, marker, color=color, mfc="none", ms=4)
            # Upwards, and a network with gates to the left of its twin, which is a little faster.
            side = "right" if ENTRIES[name].policy else "left"
            at = max(scores) + 0.4
            axes.text(value, at, name, rotation=90, ha=side, va="bottom", color=color)
            every += scores
        axes.set_xlim(0)
        axes.set_ylim(min(every) - 1, max(every) + 0.65 * (max(every) - min(every)))
        axes.yaxis.set_major_locator(MultipleLocator(5))
        axes.set_xlabel(f"images a second, batch {batch}, {timed.backend}")
        axes.set_ylabel("top-1 accuracy, %")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        return svg(figure, "Top-1 accuracy on ImageNet-1k against measured images a second")


def pictures() -> dict[str, str]:
    """The plots by file."""
    made = {
        PARAMETERS: accuracy_plot("params"),
        MACS: accuracy_plot("macs"),
    }
    fast = speed_plot()
    return made | ({SPEED: fast} if fast is not None else {})
