"""The tables and the plot of docs/depth.md: how plain, residual, dense and gated networks train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from senetzoo.report.figures import COLORS
from senetzoo.report.run import Run
from senetzoo.train.recipes import RECIPES
from tables.ablation import core_hours, finished
from tables.common import STYLE, environments, svg, table

PLOT = "docs/depth.svg"
RECIPE = "cifar10_depth"
_NONE = "None is recorded yet.\n"


def runs() -> dict[str, Run]:
    """The run of each variant with the lowest seed, in the recipe's order."""
    found: dict[str, Run] = {}
    for run in sorted(finished(RECIPE), key=lambda run: int(run.header["seed"])):
        found.setdefault(run.header["variant"], run)
    return {variant: found[variant] for variant in RECIPES[RECIPE].variants if variant in found}


def results() -> str:
    """A row for each network."""
    rows = []
    for variant, run in runs().items():
        tally, last = run.tally, run.epochs[-1]
        if tally is None:
            continue
        low, high = (100 * bound for bound in tally.interval)
        rows.append(
            [
                f"`{variant}`",
                f"{run.header['model']['params']:,}",
                f"{run.header['model']['macs'] / 1e6:.1f}",
                f"{last['train_loss']:.3f}",
                f"{100 * last['train_accuracy']:.2f} %",
                f"{100 * tally.accuracy:.2f} % [{low:.1f}, {high:.1f}]",
                f"{run.images_per_second:,.0f}",
            ]
        )
    if not rows:
        return _NONE
    head = ["network", "parameters", "million MACs", "training loss", "training accuracy"]
    head += ["test accuracy [95 %]", "images a second"]
    pairs = (
        ("resnet20", "se_resnet20"),
        ("resnet56", "se_resnet56"),
        ("resnet56", "densenet40_12"),
    )
    return f"{table(head, rows)}\n{''.join(_gain(*pair) for pair in pairs)}{_made()}"


def _gain(first: str, other: str) -> str:
    """What one variant has over another, and whether their intervals tell them apart."""
    found = runs()
    a, b = (found[variant].tally if variant in found else None for variant in (first, other))
    if a is None or b is None:
        return ""
    macs = [found[variant].header["model"]["macs"] for variant in (first, other)]
    apart = a.interval[1] < b.interval[0] or b.interval[1] < a.interval[0]
    return (
        f"`{other}` minus `{first}`: {100 * (b.accuracy - a.accuracy):+.1f} points on the test "
        f"images, with {macs[1] / macs[0]:.1f} times the multiply-accumulates; their intervals "
        f"{'do not overlap' if apart else 'overlap'}.\n\n"
    )


def _made() -> str:
    """What was run, and what was not."""
    found = runs()
    run = next(iter(found.values()))
    recipe, data = (run.header[key] for key in ("recipe", "data"))
    where = environments(r.header["environment"] for r in found.values())
    seeds = sorted({r.header["seed"] for r in found.values()})
    sides = ", ".join(f"{epochs} epochs at {side} px" for side, epochs in recipe["phases"])
    missing = [f"`{variant}`" for variant in RECIPES[RECIPE].variants if variant not in found]
    spent = sum(map(core_hours, found.values()))
    return (
        f"{sides}, {data['train_images']:,} training and {data['test_images']:,} test images, the "
        f"last epoch, one run each of seed {' or '.join(map(str, seeds))}; {spent:.1f} core-hours; "
        f"{where}." + f" Not run yet: {', '.join(missing)}." * bool(missing) + "\n"
    )


def degradation() -> str:
    """What 36 more layers do, with shortcuts and without."""
    found, parts = runs(), []
    for kind in ("plain", "resnet", "se_resnet"):
        shallow, deep = found.get(f"{kind}20"), found.get(f"{kind}56")
        if shallow is None or deep is None or shallow.end is None or deep.end is None:
            continue
        a, b = (100 * run.epochs[-1]["train_accuracy"] for run in (shallow, deep))
        c, d = (100 * run.end["test_accuracy"] for run in (shallow, deep) if run.end is not None)
        parts.append(
            f"- `{kind}20` to `{kind}56`: {b - a:+.1f} points on the training images, "
            f"{d - c:+.1f} on the test images."
            + " The deeper one is behind already on the images it learns from." * (b < a)
            + "\n"
        )
    return "".join(parts) or _NONE


def gradients() -> str:
    """The gradient's norm by depth in the first epoch and the last."""
    rows: list[list[str]] = []
    head: list[str] = []
    for variant, run in runs().items():
        first, last = run.epochs[0]["gradient_norm"], run.epochs[-1]["gradient_norm"]
        head = head or ["network", *first]
        rows.append([f"`{variant}`", *(f"{first[k]:.2f}, {last[k]:.2f}" for k in first)])
    return f"{table(head, rows)}\n{_growth()}" if rows else _NONE


def _growth() -> str:
    """How much larger the gradient is at the beginning of a network than at its end."""
    parts = []
    for variant, run in runs().items():
        norms = list(run.epochs[0]["gradient_norm"].values())
        parts.append(f"{norms[0] / norms[-1]:.1f} in `{variant}`")
    return f"Stem over head, in the first epoch: {', '.join(parts)}.\n"


def classes() -> str:
    """Test accuracy class by class."""
    found = {variant: tallies for variant, run in runs().items() if (tallies := run.by_class)}
    if not found:
        return _NONE
    rows = [
        [each[0].name, *(f"{100 * tally.accuracy:.1f}" for tally in each)]
        for each in zip(*found.values(), strict=True)
    ]
    text = table(["class", *(f"`{variant}`" for variant in found)], rows)
    never = [
        f"`{variant}` ({', '.join(names)})"
        for variant, tallies in found.items()
        if (names := [tally.name for tally in tallies if not tally.right])
    ]
    return text + f"\nClasses without an image right: {', '.join(never)}.\n" * bool(never)


def picture() -> str:
    """The plot's place in the page."""
    if not runs():
        return "Nothing is recorded yet.\n"
    return (
        "![Training loss, test accuracy and the gradient's norm of each network, epoch by epoch]"
        f"({PLOT.rpartition('/')[2]})\n"
    )


def plot() -> str | None:
    """Loss, accuracy and gradient norm of each network, epoch by epoch; None without runs."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    found = runs()
    if not found:
        return None
    panels: list[tuple[str, Callable[[dict[str, Any]], float]]] = [
        ("training loss", lambda line: float(line["train_loss"])),
        ("test accuracy, %", lambda line: 100 * float(line["test_accuracy"])),
        ("norm of the gradient in stage 1", lambda line: float(line["gradient_norm"]["stage 1"])),
    ]
    with mpl.rc_context({**STYLE, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(6.4, 5))
        for number, (title, value) in enumerate(panels):
            # By hand: a layout that measures letters would depend on the fonts of the machine.
            column, line = number % 2, number // 2
            axes = figure.add_axes((0.06 + 0.51 * column, 0.58 - 0.5 * line, 0.42, 0.37))
            for (variant, run), color in zip(found.items(), (*COLORS, "#767676"), strict=False):
                points = [(e["epoch"], value(e)) for e in run.epochs]
                style = "--" if variant.endswith("56") else "-"
                axes.plot(*zip(*points, strict=True), style, color=color, lw=1.3, label=variant)
            if title.startswith("norm"):  # of plain56 it is at first twenty times the others'
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter("{x:g}")
            axes.set_title(title, fontsize=8)
            axes.set_xlabel("epoch")
            axes.grid(alpha=0.25)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="center", bbox_to_anchor=(0.78, 0.27), frameon=False)
        return svg(figure, "How plain, residual, dense and gated networks train")
