"""The plots of a report, as SVG."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from senetzoo.errors import MissingExtraError
from senetzoo.report.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colors, which people with any color vision tell apart, without black and yellow.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Stands for the color of the page's text until the plot is put on a page.
INK = "#010203"
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


@dataclass(frozen=True)
class Plot:
    """A plot.

    Args:
        name: For its file.
        title: What it shows.
        svg: It.
    """

    name: str
    title: str
    svg: str

    def inked(self, color: str) -> str:
        """The SVG with lines and letters in a color, such as ``currentColor``."""
        return self.svg.replace(INK, color)


def colors(runs: Sequence[Run]) -> list[str]:
    """A color for each run."""
    if len(runs) <= len(COLORS):
        return list(COLORS[: len(runs)])
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["turbo"](0.05 + 0.9 * n / (len(runs) - 1))) for n in range(len(runs))]


def curves(runs: Sequence[Run]) -> list[Plot]:
    """Loss, accuracy and learning rate of the runs, epoch by epoch."""

    def draw(styles: Mapping[str, str], factor: int, axes: Any) -> None:
        for run, color in zip(runs, colors(runs), strict=True):
            for key, style in styles.items():
                points = [(epoch, factor * value) for epoch, value in run.series(key)]
                marker = "." if len(points) < 8 else ""
                axes.plot(*_split(points), style, color=color, marker=marker, lw=1.4)
        axes.set_xlabel("epoch")

    both = "(dashed: training images)"
    # An epoch has figures of the validation images where there are some, else of the test images.
    loss = {"train_loss": "--", "test_loss": "-", "val_loss": "-"}
    accuracy = {"train_accuracy": "--", "test_accuracy": "-", "val_accuracy": "-"}
    return [
        plot("loss", f"Loss {both}", functools.partial(draw, loss, 1)),
        plot("accuracy", f"Accuracy in % {both}", functools.partial(draw, accuracy, 100)),
        plot("lr", "Learning rate", functools.partial(draw, {"lr": "-"}, 1)),
    ]


def depth(runs: Sequence[Run]) -> list[Plot]:
    """The norm of the gradient by depth over time, one plot for each run that logged it."""
    logged = {
        number: [(e["epoch"], e["gradient_norm"]) for e in run.epochs if e.get("gradient_norm")]
        for number, run in enumerate(runs, 1)
    }
    return [
        plot(f"gradient-{number}", runs[number - 1].name, functools.partial(_norms, norms))
        for number, norms in logged.items()
        if norms
    ]


def _norms(logged: list[tuple[int, dict[str, float]]], axes: Any) -> None:
    from matplotlib import colormaps
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    parts = list(logged[0][1])
    for index, part in enumerate(parts):
        # Its ends are lost on a black or a white page.
        color = colormaps["viridis"](0.3 + 0.5 * index / max(len(parts) - 1, 1))
        points = [(epoch, norms[part]) for epoch, norms in logged if norms.get(part)]
        axes.plot(*_split(points), color=color, lw=1.4, marker=".", label=part)
    axes.set_yscale("log")
    # Plain numbers: the powers that are usual are written in mathtext.
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("epoch")
    axes.legend(frameon=False, fontsize=9)


def _split(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def plot(name: str, title: str, draw: Any, *, whole: bool = True) -> Plot:
    """A plot."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise MissingExtraError("A report", "matplotlib", "train") from None
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    # The same figure gives the same text: element names are hashed, with a salt.
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes: Axes = figure.add_subplot()
        draw(axes)
        if whole:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    # The page sets the width; names are made unique, for all plots share one page.
    svg = re.sub(r'^<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg, count=1)
    svg = re.sub(r'^<svg ([^>]*?)height="[^"]*"', r'<svg role="img" \1', svg, count=1)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'((?:xlink:)?href)="#([^"]+)"', rf'\1="#{name}-\2"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    return Plot(name, title, re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL))
