"""The plots of a report, as SVG."""

from __future__ import annotations

import dataclasses
import functools
import io
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from senetzoo._utils.terminal import cut
from senetzoo.errors import MissingExtraError
from senetzoo.report.markup import MARK
from senetzoo.report.paired import Paired
from senetzoo.report.run import Run, by_label

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

# The colorblind-safe palette of Okabe and Ito, without black and yellow.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# A placeholder for the color of the page's text.
INK = "#010203"
# Luminances with a contrast of more than 3 to the page, be it white or dark (WCAG 2.2).
_DARKEST, _BRIGHTEST = 0.14, 0.285
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.color": INK,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    ),
}


# The most classes with numbers in the cells of a confusion matrix, and with names beside it.
_LETTERED, _NAMED = 30, 120


@dataclass(frozen=True)
class Plot:
    """A plot.

    Args:
        name: Name of its file.
        title: Its title.
        svg: The SVG, without the legend, which a page shows once for several plots.
        alone: The SVG with its legend.
        figure: The Matplotlib figure, with its legend.
    """

    name: str
    title: str
    svg: str
    alone: str
    figure: Any = dataclasses.field(repr=False, compare=False)

    def inked(self, color: str, *, alone: bool = False) -> str:
        """An SVG with lines and text in a color, such as ``currentColor``."""
        return (self.alone if alone else self.svg).replace(INK, color)

    def png(self) -> bytes:
        """The plot as a PNG on white, with title and legend."""
        title = self.figure.suptitle(self.title, fontsize=10, parse_math=False)
        _make_room(self.figure, title)
        content = io.BytesIO()
        self.figure.savefig(
            content, format="png", dpi=200, facecolor="white", metadata={"Comment": MARK}
        )
        return content.getvalue()


def colors(count: int) -> list[str]:
    """`count` distinct colors."""
    if count <= len(COLORS):
        return list(COLORS[:count])
    # Dark and bright in turn, because neighbors have similar hues.
    ends = ((_DARKEST, _DARKEST), (_BRIGHTEST, _BRIGHTEST))
    return [_legible("turbo", 0.08 + 0.84 * n / (count - 1), *ends[n % 2]) for n in range(count)]


def _legible(colormap: str, place: float, low: float = _DARKEST, high: float = _BRIGHTEST) -> str:
    """A color of a map, made darker or brighter until its luminance is between two limits."""
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    rgb = np.array(colormaps[colormap](place)[:3])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    if luminance > high:
        linear *= high / luminance
    elif luminance < low:
        linear += (1 - linear) * (low - luminance) / (1 - luminance)
    rgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return to_hex(rgb.clip(0, 1).tolist())


def lines(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each line in a plot: a variant's seeds, or a single run."""
    found = by_label(runs)
    repeated = any(len({run.header["seed"] for run in own}) < len(own) for own in found.values())
    if repeated or len(found) == len(runs):
        return {run.name: [run] for run in runs}
    return found


def tested_on(runs: Sequence[Run], what: str) -> str:
    """The images whose ``"loss"`` or ``"accuracy"`` is recorded for epochs; empty if none are."""
    parts = {"val": "validation", "test": "test"}
    return " or ".join(
        part for key, part in parts.items() if any(run.series(f"{key}_{what}") for run in runs)
    )


def curves(runs: Sequence[Run]) -> list[Plot]:
    """Loss, accuracy and learning rate by epoch: the mean over seeds, and the range."""
    found = lines(runs)

    def draw(styles: Mapping[str, str], factor: int, unit: str, axes: Any) -> None:
        for own, color in zip(found.values(), colors(len(found)), strict=True):
            for key, style in styles.items():
                values: dict[int, list[float]] = {}
                for epoch, value in (point for run in own for point in run.series(key)):
                    values.setdefault(epoch, []).append(factor * value)
                epochs = sorted(values)
                mean = [statistics.mean(values[epoch]) for epoch in epochs]
                # A single test has no line that would set it apart from the dashed one.
                marker = ("." if style == "--" else "o") * (len(epochs) < 8)
                axes.plot(epochs, mean, style, color=color, marker=marker, markersize=4, lw=1.4)
                if len(own) > 1:
                    low, high = ([end(values[epoch]) for epoch in epochs] for end in (min, max))
                    axes.fill_between(epochs, low, high, color=color, alpha=0.18, lw=0)
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit)

    def both(what: str) -> str:
        on = tested_on(runs, what)
        return f"({f'solid: {on} images; ' if on else ''}dashed: training images)"

    # Epochs have values for the validation images if there are any, else for the test images.
    loss = {"train_loss": "--", "test_loss": "-", "val_loss": "-"}
    accuracy = {"train_accuracy": "--", "test_accuracy": "-", "val_accuracy": "-"}
    legend = tuple(zip(found, colors(len(found)), strict=True))
    drawn = (
        ("loss", f"Loss {both('loss')}", loss, 1, "loss"),
        ("accuracy", f"Accuracy in % {both('accuracy')}", accuracy, 100, "accuracy in %"),
        ("lr", "Learning rate", {"lr": "-"}, 1, "learning rate"),
    )
    return [
        plot(name, title, functools.partial(draw, keys, factor, unit), legend=legend)
        for name, title, keys, factor, unit in drawn
    ]


def differences(pairs: Sequence[Paired]) -> list[Plot]:
    """Each variant's difference from the first, by seed, with mean and interval."""
    if not pairs:
        return []
    draw = functools.partial(draw_differences, pairs)
    size = (5.2, 0.9 + 0.42 * len(pairs))
    title = f"Difference from {pairs[0].first}, by seed, with the mean"
    title += " and its 95 % interval" * (not any(pair.alike for pair in pairs))
    return [plot("differences", title, draw, whole=False, size=size)]


def draw_differences(pairs: Sequence[Paired], axes: Any, ink: str = INK) -> None:
    """Draw `differences` on `axes`, a row for each pair."""
    axes.axvline(0, color=ink, lw=0.8)
    for number, pair in enumerate(pairs):
        color = "#0072B2" if pair.differs else "#767676"
        if not pair.alike:
            axes.plot(pair.interval, [number] * 2, color=color, lw=1.6, solid_capstyle="butt")
        axes.plot([pair.mean], [number], "o", color=color, markersize=6)
        count = len(pair.differences)
        axes.plot(pair.differences, [number + 0.22] * count, "|", color=color, markersize=7)
    axes.set_yticks(range(len(pairs)), [pair.name for pair in pairs])
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.set_xlabel(f"accuracy minus that of {pairs[0].first}, in points")
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def confusions(runs: Sequence[Run]) -> dict[str, Plot]:
    """The confusion matrix of each run whose predictions are there, as a heat map, by its name."""
    found = {}
    for number, run in enumerate(runs, 1):
        if run.predictions is not None:
            names, counts = run.classes, run.predictions.confusion().numpy()
            side = min(3.2 + 0.36 * len(names), 12.0)
            draw = functools.partial(_heat_map, names, counts)
            title, size = f"Confusion matrix of {run.name}", (side, 0.9 * side)
            name = f"confusion-{number}"
            found[run.name] = plot(name, title, draw, whole=False, size=size)
    return found


def _heat_map(names: Sequence[str], counts: NDArray[Any], axes: Any) -> None:
    from matplotlib.colors import PowerNorm

    count = len(names)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    lettered = count <= _LETTERED
    drawn = axes.pcolormesh(
        shares,
        cmap="Blues",
        # A few percent should be visible.
        norm=PowerNorm(0.5, 0, 1),
        edgecolors="white" if lettered else "none",
        rasterized=not lettered,
    )
    if lettered:
        for row, column in zip(*counts.nonzero(), strict=True):
            color = "white" if shares[row, column] > 0.4 else "black"
            place = {"ha": "center", "va": "center", "fontsize": 8, "color": color}
            axes.text(column + 0.5, row + 0.5, f"{counts[row, column]:,}", **place)
    if count <= _NAMED:
        middle, shown = [n + 0.5 for n in range(count)], [cut(name, 20) for name in names]
        size = min(9.0, 500 / count)
        axes.set_xticks(middle, shown, rotation=90, fontsize=size)
        axes.set_yticks(middle, shown, fontsize=size)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.figure.colorbar(drawn, ax=axes, label="share of the class's images")


def depth(runs: Sequence[Run]) -> list[Plot]:
    """The gradient norm by depth over time, of the first run of each line that logged it."""
    numbers = {run.folder: number for number, run in enumerate(runs, 1)}
    first = (next(filter(_logged, own), None) for own in lines(runs).values())
    return [
        plot(f"gradient-{numbers[run.folder]}", run.name, functools.partial(_norms, _logged(run)))
        for run in first
        if run is not None
    ]


def _logged(run: Run) -> list[tuple[int, dict[str, float]]]:
    return [(e["epoch"], e["gradient_norm"]) for e in run.epochs if e.get("gradient_norm")]


def _norms(logged: list[tuple[int, dict[str, float]]], axes: Any) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    parts = list(logged[0][1])
    colors = [_legible("plasma", n / max(len(parts) - 1, 1)) for n in range(len(parts))]
    for part, color in zip(parts, colors, strict=True):
        points = [(epoch, norms[part]) for epoch, norms in logged if norms.get(part)]
        axes.plot(*_split(points), color=color, lw=1.4, marker=".", label=part)
    axes.set_yscale("log")
    # Plain numbers, since the default powers of ten need mathtext.
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("epoch")
    axes.set_ylabel("gradient norm (logarithmic)")
    _add_legend(axes.figure, list(zip(parts, colors, strict=True)))


def _split(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def plot(
    name: str,
    title: str,
    draw: Any,
    *,
    whole: bool = True,
    size: tuple[float, float] = (5.2, 3.4),
    legend: Sequence[tuple[str, str]] = (),
) -> Plot:
    """Make a plot by calling ``draw(axes)``.

    `whole` restricts the x axis to whole numbers; `legend` has names and their colors.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise MissingExtraError("A report", "matplotlib", "train") from None
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    # A fixed salt makes the hashed element names, and so the SVG, reproducible.
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        axes: Axes = figure.add_subplot()
        draw(axes)
        if whole:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        svg = alone = _svg(figure, name)
        if legend:
            _add_legend(figure, legend)
            alone = _svg(figure, name)
    return Plot(name, title, svg, alone, figure)


def _add_legend(figure: Figure, legend: Sequence[tuple[str, str]]) -> None:
    """Add a legend below a figure, in as many columns as its width has room for."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=color, label=name) for name, color in legend]
    for columns in range(min(3, len(handles)), 0, -1):
        drawn = figure.legend(
            handles=handles, loc="outside lower center", ncols=columns, frameon=False
        )
        if columns == 1 or drawn.get_window_extent().width < figure.bbox.width:
            break
        drawn.remove()
    _make_room(figure, drawn)


def _make_room(figure: Figure, drawn: Artist) -> None:
    """Enlarge a figure by the height of a title or legend, and to its width."""
    needed = drawn.get_window_extent().padded(0.1 * figure.dpi)
    width, height = figure.get_size_inches()
    figure.set_size_inches(
        max(width, needed.width / figure.dpi), height + needed.height / figure.dpi
    )


def _svg(figure: Figure, name: str) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    # The page sets the size. Element names are made unique, because plots share one page.
    svg = re.sub(r'^<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg, count=1)
    svg = re.sub(r'^<svg ([^>]*?)height="[^"]*"', r'<svg role="img" \1', svg, count=1)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'((?:xlink:)?href)="#([^"]+)"', rf'\1="#{name}-\2"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    return re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
