"""The table and the plot of docs/inspect.md: what gates do."""

from __future__ import annotations

import json
from statistics import fmean
from typing import Any

from tables.common import RECORDS, STYLE, commit, svg, table

TAG = "se_resnet20.cifar10_v1"
PLOT = "docs/excitations.svg"
# Four classes as the paper's figure has: two that look alike, and two others.
_CLASSES = {"cat": "#0072B2", "dog": "#D55E00", "ship": "#009E73", "frog": "#CC79A7"}


def _gates() -> dict[str, Any]:
    path = RECORDS / "gates" / f"{TAG}.excitations.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _called(gate: str) -> str:
    return f"`{gate.replace('.slots.standard', '')}`"


def excitations() -> str:
    """A row for each gate."""
    found = _gates()
    rows = [
        [
            _called(gate["gate"]),
            str(len(gate["mean"])),
            f"{fmean(gate['mean']):.2f}",
            f"{fmean(gate['std']):.3f}",
            f"{gate['spread']:.3f}",
            f"{100 * gate['variation']:.1f} %",
            f"{gate['closed']}, {gate['open']}, {gate['constant']}",
            f"{100 * gate['drift']:.0f} %",
        ]
        for gate in found["gates"]
    ]
    head = ["gate of", "channels", "mean", "between images", "between classes"]
    head += ["depends on image", "closed, open, constant", "drift"]
    images = found["gates"][0]["images"]
    return (
        table(head, rows)
        + f"\n`{TAG}` on {found['data']}, {images:,} images; one run. {found['machine']}, "
        f"{commit(found['commit'])}.\n"
    )


def plot() -> str:
    """Mean excitation by channel for four classes, for every gate: the paper's figure."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    found = _gates()["gates"]
    with mpl.rc_context({**STYLE, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(6.2, 6.4), layout="constrained")
        grid = figure.subplots(3, 3, sharey=True)
        for axes, gate in zip(grid.flat, found, strict=True):
            channels = range(len(gate["mean"]))
            axes.fill_between(channels, gate["low"], gate["high"], color="#808080", alpha=0.2, lw=0)
            for name, color in _CLASSES.items():
                axes.plot(channels, gate["by_class"][name], color=color, lw=1, label=name)
            axes.plot(channels, gate["mean"], color="#000000", lw=1, label="all classes")
            axes.set_title(gate["gate"].replace(".slots.standard", ""), fontsize=8)
            axes.set_ylim(0, 1)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in grid[-1]:
            axes.set_xlabel("channel")
        for axes in grid[:, 0]:
            axes.set_ylabel("excitation")
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
        return svg(figure, f"Mean excitation by channel and class of {TAG}")
