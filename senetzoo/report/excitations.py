"""Tables and plots of the excitations of a network's gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from senetzoo._utils.terminal import printable
from senetzoo.inspect.excitations import BINS, Excitation, short_name
from senetzoo.report.figures import COLORS, INK, Plot, plot
from senetzoo.report.markup import Table

# With more gates than this, only the last block of each stage and the last stage are plotted.
_PLOTS = 12
_CHOSEN = 4
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class ExcitationSection:
    """The section of a report about the excitations of one network.

    Args:
        name: Name of the network or run.
        images: Number of images.
        gates: Table with a row for each gate.
        classes: Name of each gate, and a table with a row for each class.
        plots: Plots of the excitation by channel of some or all gates, and of the distributions.
        legend: The classes in the plots, and their colors.
        note: A note about the plots.
    """

    name: str
    images: int
    gates: Table
    classes: tuple[tuple[str, Table], ...]
    plots: tuple[Plot, ...]
    legend: tuple[tuple[str, str], ...]
    note: str


def excitation_section(
    name: str,
    found: Mapping[str, Excitation],
    classes: Sequence[str],
    *,
    chosen: Sequence[str] = (),
    drift: Mapping[str, float] | None = None,
    number: int = 1,
) -> ExcitationSection:
    """Tables and plots of excitations."""
    classes = [printable(name) for name in classes]
    chosen = chosen or classes[:: max(1, len(classes) // _CHOSEN)][:_CHOSEN]
    colors = [(name, COLORS[n % len(COLORS)]) for n, name in enumerate(chosen)]
    shown = _shown(list(found))
    plots = [
        plot(
            f"excitation-{number}-{n}",
            short_name(path),
            partial(_by_channel, found[path], classes, colors),
            legend=colors,
        )
        for n, path in enumerate(shown, 1)
    ]
    title = "Distribution of the values, from the first gate (dark) to the last"
    spread = partial(_distribution, list(found.values()))
    note = "In the color of the text: the mean of all images; gray: the range over all images."
    if len(shown) < len(found):
        note += f" {len(shown)} of {len(found)} gates are plotted."
    return ExcitationSection(
        name,
        int(next(iter(found.values())).counts.sum()),
        _gates(found, drift),
        tuple((short_name(path), _by_class(one, classes)) for path, one in found.items()),
        (*plots, plot(f"distribution-{number}", title, spread, whole=False)),
        tuple(colors),
        note,
    )


def _shown(paths: list[str]) -> list[str]:
    if len(paths) <= _PLOTS:
        return paths
    # "layer3.5.slots.standard": stage, then block, in every family whose stages have blocks.
    stages: dict[str, list[str]] = {}
    for path in paths:
        stages.setdefault(path.partition(".")[0], []).append(path)
    *others, last = stages.values()
    picked = [*(own[-1] for own in others), *last]
    return picked[:_PLOTS] if len(picked) <= 2 * _PLOTS else picked[:: len(picked) // _PLOTS]


def _gates(found: Mapping[str, Excitation], drift: Mapping[str, float] | None) -> Table:
    head = ["gate", "channels", "mean", "between images", "between classes", "depends on image"]
    head += ["closed", "open", "constant", *["drift"] * (drift is not None)]
    rows = []
    for path, e in found.items():
        row = [
            short_name(path),
            str(len(e.mean)),
            f"{float(e.mean.mean()):.3f}",
            f"{float(e.std.mean()):.3f}",
            f"{e.spread:.3f}",
            f"{100 * e.variation:.1f} %",
            *(f"{int(part.sum())}" for part in (e.closed, e.open, e.constant)),
        ]
        if drift is not None:
            row.append(f"{100 * drift[path]:.0f} %" if path in drift else "")
        rows.append(row)
    return Table(head, rows)


def _by_class(excitation: Excitation, classes: Sequence[str]) -> Table:
    head = ["class", "images", "mean", *(f"{100 * part:g} %" for part in _QUANTILES)]
    counts, rows = excitation.counts.tolist(), []
    for label, name in [(None, "all"), *enumerate(classes)]:
        count = sum(counts) if label is None else counts[label]
        if count:
            mean = excitation.mean if label is None else excitation.by_class[label]
            quantiles = excitation.quantiles(_QUANTILES, label)
            figures = [f"{float(mean.mean()):.3f}", *(f"{q:.2f}" for q in quantiles)]
            rows.append([name, f"{int(count):,}", *figures])
    return Table(head, rows)


def _by_channel(
    excitation: Excitation, classes: Sequence[str], colors: Sequence[tuple[str, str]], axes: Any
) -> None:
    channels = list(range(len(excitation.mean)))
    low, high = excitation.low.tolist(), excitation.high.tolist()
    axes.fill_between(channels, low, high, color="#808080", alpha=0.2, lw=0)
    means = [(excitation.by_class[classes.index(name)], color) for name, color in colors]
    for mean, color in [*means, (excitation.mean, INK)]:
        axes.plot(channels, mean.tolist(), color=color, lw=1.1)
    axes.set_ylim(0, excitation.top)
    axes.set_xlabel("channel")
    axes.set_ylabel("excitation")


def _distribution(found: Sequence[Excitation], axes: Any) -> None:
    from matplotlib import colormaps

    for index, excitation in enumerate(found):
        counts = excitation.histogram.sum(0)
        share = (100 * counts / counts.sum()).tolist()
        centers = [(n + 0.5) / BINS * excitation.top for n in range(BINS)]
        color = colormaps["viridis"](0.3 + 0.5 * index / max(len(found) - 1, 1))
        axes.plot(centers, share, color=color, lw=1.1)
    axes.set_xlabel("value of the gate")
    axes.set_ylabel("% of values")
