"""The tables and the plot of docs/training.md and docs/ablation.md, from benchmarks/records/runs.

Its folders are those that `senetzoo train` left, with the log alone: `senetzoo report` reads them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics

import numpy as np

from senetzoo.report.figures import draw_differences
from senetzoo.report.paired import Paired, against, paired
from senetzoo.report.run import Run, find
from senetzoo.train.recipes import RECIPES, variants_of
from tables import benchmarks
from tables.common import RECORDS, STYLE, environments, lines, svg, table

PLOTS = {"ablation_positions": "docs/ablation.svg", "cifar100_attention": "docs/attention.svg"}
# What the sources of the recipes report, in per cent.
SOURCES = {
    ("cifar10_four_nets", "lenet"): "61",
    ("cifar10_four_nets", "resnet18_imagenet"): "73",
    ("cifar10_four_nets", "densenet121_imagenet"): "76",
    ("cifar10_four_nets", "se_resnet18_cifar"): "81",
}
# Variants of ablation_positions that are variants of ablation_gates too, under these names.
SHARED = {"plain": "plain", "standard": "se"}


def finished(recipe: str = "") -> list[Run]:
    """The finished runs of a recipe, or of all."""
    folder = RECORDS / "runs"
    # One by one: runs of other data can't share a report.
    folders = [folder / recipe] if recipe else sorted(folder.glob("*"))
    found = (run for folder in folders if folder.is_dir() for run in find([folder]))
    return [run for run in found if run.end is not None]


def _changes(run: Run) -> str:
    """The settings that its command gave, for a table's cell."""
    words = run.header["command"].replace("'", "").split(" --set ")[1:]
    return ", ".join(f"`{word.split()[0]}`" for word in words)


def runs() -> str:
    """The experiments that were run, variant by variant, but for those that have a page."""
    rows = []
    for run in finished():
        recipe, variant = run.header["recipe"]["name"], run.header["variant"]
        tally = run.tally
        tuning = run.header["recipe"].get("held_out")
        if tuning or recipe.startswith(("ablation", "cifar10_depth", "cifar100")) or tally is None:
            continue
        low, high = (100 * bound for bound in tally.interval)
        where = run.header["environment"]
        rows.append(
            [
                f"`{recipe}`, {variant}",
                str(len(run.epochs)),
                str(run.header["seed"]),
                f"{100 * tally.accuracy:.2f} % [{low:.1f}, {high:.1f}]",
                SOURCES.get((recipe, variant), ""),
                f"{run.seconds['train'] / 3600:.2f}",
                environments([where]),
            ]
        )
    head = ["run", "epochs", "seed", "test accuracy [95 %]", "source", "hours of training", "on"]
    return table(head, rows) if rows else "None is recorded yet.\n"


def parts() -> str:
    """What each part of a short training brings, on images held out of the training images."""
    found = {run.header["environment"]["time"]: run for run in finished("recipe_parts")}
    if not found:
        return "None is recorded yet.\n"
    (_, base), *_ = sorted(found.items())
    fields = (
        "optimizer",
        "schedule",
        "lr",
        "muon_lr",
        "warmup",
        "phases",
        "flip",
        "label_smoothing",
    )
    rows = []
    for run in found.values():
        recipe, last = run.header["recipe"], run.epochs[-1]
        changed = [name for name in fields if recipe[name] != base.header["recipe"][name]]
        values = {**recipe, "phases": tuple(map(tuple, recipe["phases"]))}
        said = ", ".join(f"`{name}={values[name]}`" for name in changed)
        rows.append(
            [
                said or "as described",
                str(len(run.epochs)),
                f"{run.seconds['train'] / 60:.1f}",
                f"{100 * last['val_accuracy']:.2f} %",
                f"{100 * last['train_accuracy']:.2f} %",
            ]
        )
    rows.sort(key=lambda row: row[3], reverse=True)
    head = ["change", "epochs", "minutes", "held-out accuracy", "training accuracy"]
    where = environments(run.header["environment"] for run in found.values())
    accuracy, images = base.epochs[-1]["val_accuracy"], 5000
    error = 100 * math.sqrt(2 * accuracy * (1 - accuracy) / images)
    return (
        f"{table(head, rows)}\nOne seed each; {images:,} held-out images, so the choice of images "
        f"alone gives a difference a standard error of up to {error:.1f} points. "
        f"{where}.\n"
    )


def finetuned() -> str:
    """Fine-tuning beside a plain loop, by seed, and the mean of the differences."""
    rows, notes = [], []
    points: dict[str, dict[int, float]] = {"plain": {}, "finetune": {}}
    for record in lines("finetune.jsonl"):
        where, cells = record["environment"], []
        for name in points:
            of = record["test"][name]
            points[name][record["seed"]] = 100 * of["accuracy"]
            low, high = (100 * bound for bound in of["wilson95"])
            cells.append(f"{100 * of['accuracy']:.1f} % [{low:.1f}, {high:.1f}]")
        named = f"{record['named']} of {record['planted']}"
        plain, ours = (by_seed[record["seed"]] for by_seed in points.values())
        rows.append([str(record["seed"]), *cells, f"{ours - plain:+.1f}", named])
        note = (
            f"`{record['start']}` with the stem {record['stem']}, {record['size']} px, batch "
            f"{record['batch']}, {record['epochs']} epochs of {record['train_images']} images, "
            f"tested on {of['images']} others."
        )
        made = f"{environments([where])}."
        notes += [text for text in (note, made) if text not in notes]
    head = ["seed", "plain loop [95 %]", "`senetzoo finetune` [95 %]", "points", "bad files named"]
    (mean,) = against(points)
    low, high = mean.interval
    notes.append(
        f"Paired by seed, on the same test images: {mean.mean:+.1f} points, the mean of "
        f"{len(mean.seeds)} seeds, Student's 95 % interval {low:+.1f} to {high:+.1f}"
        f"{'' if mean.differs else ', which contains 0: these seeds show no difference'}."
    )
    return f"{table(head, rows)}\n{' '.join(notes)}\n"


def speed() -> str:
    """The training loop beside a plain one, step by step in turn."""
    rows, notes = [], []
    for record in lines("training-speed.jsonl"):
        where, ratio, rates = record["environment"], record["ratio"], record["images_per_second"]
        split = record["milliseconds_per_step"]
        rows.append(
            [
                f"`{record['model']}`",
                f"{rates['plain']:.0f}",
                f"{rates['ours']:.0f}",
                f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})",
                *(
                    " / ".join(f"{split[kind][part]:.0f}" for kind in ("plain", "ours"))
                    for part in ("data", "forward", "backward", "rest")
                ),
            ]
        )
        note = (
            f"Batch {record['batch']}, {record['size']} px, {record['precision']}; "
            f"{record['rounds']} rounds of {record['steps']} steps of each in turn; "
            f"{environments([where])}."
        )
        notes += [note] * (note not in notes)
    head = ["network", "plain, images a second", "ours", "ratio (least to most)"]
    head += [f"{part}, ms a step, plain / ours" for part in ("data", "forward", "backward", "rest")]
    return f"{table(head, rows)}\n{' '.join(notes)}\n" if rows else "None is recorded yet.\n"


def _accuracies(found: list[Run]) -> dict[str, list[float]]:
    variants: dict[str, list[float]] = {}
    for run in found:
        if run.end is not None:
            variants.setdefault(run.header["variant"], []).append(100 * run.end["test_accuracy"])
    return variants


def _alike(one: Run, other: Run) -> bool:
    """Whether two runs differ at most in their network and in what their experiment is called."""
    ours, theirs = one.header["recipe"], other.header["recipe"]
    same = (ours.keys() & theirs.keys()) - {"name", "model"}
    return all(ours[name] == theirs[name] for name in same)


def gate_runs() -> list[Run]:
    """The runs of the gates.

    Those of plain and of SE are the positions' own: the same networks in the same recipe.
    """
    found = finished("ablation_gates")
    shared = [
        dataclasses.replace(run, header={**run.header, "variant": SHARED[run.header["variant"]]})
        for run in finished("ablation_positions")
        if run.header["variant"] in SHARED and found and _alike(run, found[0])
    ]
    return found + shared


def _paired(found: list[Run]) -> list[Paired]:
    """The variants against the first of their recipe."""
    recipe = found[0].header["recipe"]["name"] if found else "ablation_positions"
    return paired(found, variants_of(recipe))


def attention() -> str:
    """Which attention, and where, on CIFAR-100: what was planned, and the runs."""
    recipe = RECIPES["cifar100_attention"]
    variants, seeds = len(recipe.variants), len(recipe.seeds)
    found = finished(recipe.name)
    alone = [run for run in found if run.header["variant"] in ("plain", "standard")]
    text = (
        f"With the noise that was planned for before the first run, a standard deviation of "
        f"{_PLANNED} points, four comparisons in five find a true difference of "
        f"{_detectable(variants, _LEAST):.2f} points with {_LEAST} seeds of each variant, of "
        f"{_detectable(variants, seeds):.2f} with {seeds}; the comparison fixed beforehand finds "
        f"{_detectable(2, seeds):.2f} with {seeds}.\n\n{ablation(found)}"
    )
    for pair in paired(alone, ["plain"]):
        low, high = pair.interval
        text += (
            f"\nThe comparison fixed beforehand, alone: {_signed(pair.mean)} points, "
            f"{low:+.2f} to {high:+.2f} by Student's paired test of {len(pair.seeds)} seeds"
            f"{'' if pair.differs else ', which shows no difference'}. pytorchcv's published pair, "
            f"one run each, differs by {_PUBLISHED:+.2f} points, "
            f"{'inside' if low <= _PUBLISHED <= high else 'outside'} this interval.\n"
        )
    made = _accuracies(found)
    if few := [name for name in recipe.variants if len(made.get(name, ())) < _LEAST]:
        text += (
            f"\nNot finished, with fewer than {_LEAST} seeds: {', '.join(few)}. What the table "
            "says of these can still change.\n"
        )
    return text


# Seeds that were planned for each variant.
_LEAST = 3
# Standard deviation of a run that was planned with, and the difference of pytorchcv's errors, 29.64
# and 28.54 %; both in points.
_PLANNED, _PUBLISHED = 0.4, 1.10


def _detectable(variants: int, seeds: int) -> float:
    """What `against` could show of runs with exactly the planned noise."""
    noise = np.random.default_rng(0).normal(size=(variants, seeds))
    noise -= noise.mean(0) + noise.mean(1, keepdims=True) - noise.mean()
    noise *= _PLANNED * math.sqrt((variants - 1) * (seeds - 1) / np.square(noise).sum())
    values = {str(name): dict(enumerate(own)) for name, own in enumerate(noise.tolist())}
    return against(values)[0].detectable


def ablation(found: list[Run]) -> str:
    """An ablation's variants against its first, paired by seed."""
    pairs = _paired(found)
    if not pairs:
        return f"Runs recorded so far: {len(found)}, too few for a table of pairs.\n"
    variants, first = _accuracies(found), pairs[0].first
    rows = [[first, str(len(variants[first])), _each(variants[first]), "", "", ""]]
    rows += [
        [
            pair.name,
            str(len(pair.seeds)),
            _each(variants[pair.name]),
            f"{_signed(pair.mean)} (sd {pair.std:.2f})",
            "{:+.2f} to {:+.2f}".format(*pair.interval),
            f"{pair.detectable:.2f}",
        ]
        for pair in pairs
    ]
    # Without two seeds in common with the first: values, and no interval.
    known = {first, *(pair.name for pair in pairs)}
    rows += [
        [variant, str(len(variants[variant])), _each(variants[variant]), "", "", ""]
        for variant in variants
        if variant not in known
    ]
    head = ["variant", "seeds", "test accuracy in %", f"minus {first}, points", "95 % interval"]
    spent = sum(map(core_hours, found))
    speeds = [run.images_per_second for run in found]
    ((settings, epochs, images),) = {
        (_changes(run), len(run.epochs), run.header["data"]["test_images"]) for run in found
    }
    where = environments(run.header["environment"] for run in found)
    return (
        f"{table([*head, 'could have shown'], rows)}\n{_sentences(pairs)}\n\n"
        f"{epochs} epochs each{f' ({settings})' if settings else ''}, the last checkpoint on "
        f"{images:,} test images; {len(found)} runs of {spent:.1f} core-hours in all, "
        f"{min(speeds):,.0f} to {max(speeds):,.0f} images a second; {where}.\n"
    )


def hours(run: Run) -> float:
    """Hours of training, which include the wait for data, and of testing."""
    return (run.seconds["train"] + run.seconds["test"]) / 3600


def core_hours(run: Run) -> float:
    """Its hours times its threads."""
    return hours(run) * int(run.header["environment"]["threads"])


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # no -0.00


def _each(values: list[float]) -> str:
    return f"{statistics.mean(values):.2f} ({', '.join(f'{value:.2f}' for value in values)})"


def _sentences(pairs: list[Paired]) -> str:
    """Which variants differ from the first one, and which were not shown to."""
    differ = [pair for pair in pairs if pair.differs]
    same = [pair.name for pair in pairs if not pair.differs]
    first, parts = pairs[0].first, []
    for kind, sign in (("Better", 1), ("Worse", -1)):
        if names := [pair.name for pair in differ if sign * pair.mean > 0]:
            parts.append(f"{kind} than {first}: {', '.join(names)}.")
    if differ and len(pairs) > 1:
        parts.append(f"That holds for all {len(pairs)} comparisons together, by Dunnett's test.")
    if same:
        parts.append(f"No difference from {first} is shown for: {', '.join(same)}.")
    return " ".join(parts)


def each() -> str:
    """Every run of the positions and the gates, with its time."""
    recipes = ("ablation_positions", "ablation_gates")
    order = [variant for recipe in recipes for variant in RECIPES[recipe].variants]
    found = sorted(
        (run for recipe in recipes for run in finished(recipe)),
        key=lambda run: (order.index(run.header["variant"]), run.header["seed"]),
    )
    rows = [
        [
            run.header["variant"],
            str(run.header["seed"]),
            f"{100 * run.epochs[-1]['train_accuracy']:.2f} %",
            f"{100 * run.end['test_accuracy']:.2f} %",
            f"{hours(run):.2f}",
            f"{run.images_per_second:,.0f}",
            str(run.resumed),
        ]
        for run in found
        if run.end is not None
    ]
    if not rows:
        return "None is recorded yet.\n"
    head = ["variant", "seed", "training accuracy", "test accuracy", "hours", "images a second"]
    return table([*head, "resumed"], rows)


def positions() -> str:
    """Where the gate goes."""
    return ablation(finished("ablation_positions"))


def gates() -> str:
    """Which gate, at the standard position."""
    return ablation(gate_runs())


def costs() -> str:
    """What each variant of the comparison on CIFAR-100 costs: parameters and images a second."""
    names = {
        changes["model"]: name for name, changes in RECIPES["cifar100_attention"].variants.items()
    }
    records = [
        record
        for path in sorted(RECORDS.glob("speed/attention/*.jsonl"))
        for record in lines(str(path.relative_to(RECORDS)))
    ]
    speeds, sizes = dict[str, dict[str, str]](), dict[str, int]()
    for record in records:
        for setting in record["speed"]:
            for result in setting["results"]:
                ratio = benchmarks.spread(result["throughput_ratio"])
                sizes[result["model"]] = result["params"]
                way = f"{result['engine']}, batch {setting['batch']}"
                said = f"{result['images_per_second']:,.0f} /s" if ratio is None else str(ratio)
                speeds.setdefault(way, {})[result["model"]] = said
    if not records:
        return "None is recorded yet.\n"
    first = next(iter(names))
    rows = [
        [name, f"{sizes[model] - sizes[first]:+,d}" if model != first else f"{sizes[first]:,}"]
        + [by_model[model] for by_model in speeds.values()]
        for model, name in names.items()
    ]
    return f"{table(['variant', 'parameters', *speeds], rows)}\n{benchmarks.machine(*records)}\n"


def picture(recipe: str) -> str:
    """The place of the plot in the page; a sentence where there is nothing to show."""
    if recipe not in plots():
        return "The plot needs two recorded seeds of the plain network and of a variant.\n"
    return (
        "![Difference of each variant with two seeds or more from the plain network, by seed, with "
        f"its mean and 95 % interval]({PLOTS[recipe].rpartition('/')[2]})\n\n"
        "Ticks are seeds, the dot is their mean, the line its 95 % interval: blue if it does not "
        "contain 0, otherwise gray.\n"
    )


@functools.cache
def plots() -> dict[str, str]:
    """The differences by seed, their mean and interval as SVG, of each recipe that has some."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    made = {}
    for recipe in PLOTS:
        pairs = _paired(finished(recipe))
        if not pairs:
            continue
        with mpl.rc_context({**STYLE, "font.size": 9}):
            height = 0.8 + 0.42 * len(pairs)
            figure = Figure(figsize=(7.0, height))
            # By hand: a layout that measures letters would depend on the fonts of the machine.
            axes = figure.add_axes((0.18, 0.5 / height, 0.8, 1 - 0.6 / height))
            draw_differences(pairs, axes, "#000000")
            made[recipe] = svg(figure)
    return made
