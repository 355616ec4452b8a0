"""What the gates of a network do, as tables and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from senetzoo.inspect.excitations import BINS, Excitation
from senetzoo.report.figures import COLOURS, INK, Plot, plot
from senetzoo.report.markup import Table

# More plots than this are not looked at: then the last block of each stage, and the last stage.
_PLOTS = 12
_CHOSEN = 4
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Gates:
    """The gates of one network.

    Args:
        name: The network, or the run.
        images: How many images they have seen.
        sites: A row for each gate.
        classes: For each gate its name and a row for each class.
        plots: The excitation by channel of each gate, or of some, and the distributions.
        chosen: The classes in the plots, each with its colour.
        note: What else is in them.
    """

    name: str
    images: int
    sites: Table
    classes: tuple[tuple[str, Table], ...]
    plots: tuple[Plot, ...]
    chosen: tuple[tuple[str, str], ...]
    note: str


def gates(
    name: str,
    found: Mapping[str, Excitation],
    classes: Sequence[str],
    *,
    chosen: Sequence[str] = (),
    drift: Mapping[str, float] | None = None,
    number: int = 1,
) -> Gates:
    """Tables and plots of what `excitations` found.

    Args:
        name: The network, or the run.
        found: It.
        classes: Names of the classes.
        chosen: Those that the plots show; none for four, evenly apart.
        drift: What `drift` says; None where the initial weights are not known.
        number: Which network of the page it is.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if not chosen:
        step = max(1, len(classes) // _CHOSEN)
        chosen = classes[::step][:_CHOSEN]
    colours = [(name, COLOURS[n % len(COLOURS)]) for n, name in enumerate(chosen)]
    shown = _shown(list(found))
    plots = [
        plot(f"excitation-{number}-{n}", _place(path), _by_channel(found[path], classes, colours))
        for n, path in enumerate(shown, 1)
    ]
    title = "Distribution of the values, from the first gate (dark) to the last"
    plots.append(
        plot(f"distribution-{number}", title, _distribution(list(found.values())), whole=False)
    )
    return Gates(
        name,
        int(next(iter(found.values())).counts.sum()),
        _sites(found, drift),
        tuple((_place(path), _by_class(excitation, classes)) for path, excitation in found.items()),
        tuple(plots),
        tuple(colours),
        "In the text's colour: all images; grey: from the lowest to the highest of any."
        + ("" if len(shown) == len(found) else f" {len(shown)} of {len(found)} gates have a plot."),
    )


def _place(path: str) -> str:
    """``"layer1.0.slots.standard"`` in fewer words."""
    return path.replace(".slots.", " ")


def _shown(paths: list[str]) -> list[str]:
    if len(paths) <= _PLOTS:
        return paths
    # "layer3.5.slots.standard": stage, then block, in every family whose stages have blocks.
    stages: dict[str, list[str]] = {}
    for path in paths:
        stages.setdefault(path.partition(".")[0], []).append(path)
    last = list(stages)[-1]
    picked = [
        path for stage, own in stages.items() for path in (own if stage == last else own[-1:])
    ]
    return picked[:_PLOTS] if len(picked) <= 2 * _PLOTS else picked[:: len(picked) // _PLOTS]


def _sites(found: Mapping[str, Excitation], drift: Mapping[str, float] | None) -> Table:
    head = ["gate", "channels", "mean", "between images", "between classes", "depends on image"]
    head += ["closed", "open", "constant", *([] if drift is None else ["drift"])]
    rows = []
    for path, e in found.items():
        count = len(e.mean)
        row = [
            _place(path),
            str(count),
            f"{float(e.mean.mean()):.3f}",
            f"{float(e.std.mean()):.3f}",
        ]
        row += [f"{e.spread:.3f}", f"{100 * e.variation:.1f} %"]
        row += [f"{int(part.sum())}" for part in (e.closed, e.open, e.constant)]
        if drift is not None:
            row.append(f"{100 * drift[path]:.0f} %" if path in drift else "")
        rows.append(row)
    return Table(head, rows)


def _by_class(excitation: Excitation, classes: Sequence[str]) -> Table:
    head = ["class", "images", "mean", *(f"{100 * part:g} %" for part in _QUANTILES)]
    rows = [["all", *_row(excitation, None)]]
    for label, name in enumerate(classes):
        if int(excitation.counts[label]):
            rows.append([name, *_row(excitation, label)])
    return Table(head, rows)


def _row(excitation: Excitation, label: int | None) -> list[str]:
    count = excitation.counts.sum() if label is None else excitation.counts[label]
    mean = excitation.mean if label is None else excitation.by_class[label]
    quantiles = excitation.quantiles(_QUANTILES, label)
    return [f"{int(count):,}", f"{float(mean.mean()):.3f}", *(f"{q:.2f}" for q in quantiles)]


def _by_channel(
    excitation: Excitation, classes: Sequence[str], colours: Sequence[tuple[str, str]]
) -> Any:
    def draw(axes: Any) -> None:
        channels = list(range(1, len(excitation.mean) + 1))
        low, high = excitation.low.tolist(), excitation.high.tolist()
        axes.fill_between(channels, low, high, color="#808080", alpha=0.2, lw=0)
        for name, colour in colours:
            means = excitation.by_class[list(classes).index(name)].tolist()
            axes.plot(channels, means, color=colour, lw=1.1)
        axes.plot(channels, excitation.mean.tolist(), color=INK, lw=1.1)
        axes.set_ylim(0, excitation.top)
        axes.set_xlabel("channel")

    return draw


def _distribution(found: Sequence[Excitation]) -> Any:
    def draw(axes: Any) -> None:
        from matplotlib import colormaps

        for index, excitation in enumerate(found):
            counts = excitation.histogram.sum(0)
            share = (100 * counts / counts.sum()).tolist()
            places = [(n + 0.5) / BINS * excitation.top for n in range(BINS)]
            colour = colormaps["viridis"](0.3 + 0.5 * index / max(len(found) - 1, 1))
            axes.plot(places, share, color=colour, lw=1.1)
        axes.set_xlabel("value of the gate")
        axes.set_ylabel("% of values")

    return draw
