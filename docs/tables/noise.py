"""The tables of docs/ablation.md on noise: bad test images, and the fluctuation of training."""

from __future__ import annotations

import itertools
import statistics
from typing import Any

from senetzoo.report.paired import Paired, against
from senetzoo.report.run import Run
from senetzoo.train.recipes import RECIPES
from tables.ablation import finished
from tables.common import every, lines, table

# Two may agree by chance, and Student's interval is then nothing wide.
SEEDS = 3
_FEW = f"Not recorded yet for {SEEDS} seeds.\n"


def weights() -> str:
    """Plain and SE twins on corrupted test images: the same images, so the difference is paired."""
    found = lines("noise.jsonl")
    if not found:
        return "None is recorded yet.\n"
    pairs: dict[str, dict[str, dict[str, Any]]] = {}
    for record in found:
        pairs.setdefault(record["networks"][0], {})[record["corruption"]] = record
    clean = [records["none"] for records in pairs.values()]
    rows = [
        [f"{kind}, %", *(f"{100 * r['test_correct'][n][0] / r['test_images']:.2f}" for r in clean)]
        for n, kind in enumerate(("plain, no corruption", "SE, no corruption"))
    ]
    agree: dict[int, list[str]] = {}
    for corruption in next(iter(pairs.values())):
        found_out = [difference(records[corruption]) for records in pairs.values()]
        name = _name(corruption)
        rows.append(
            [name, *(f"{gain:+.2f} [{low:+.2f}, {high:+.2f}]" for gain, low, high in found_out)]
        )
        up, down = sum(g > 0 for g, *_ in found_out), sum(g < 0 for g, *_ in found_out)
        sign = "" if up == down else f" ({'SE better' if up > down else 'SE worse'})"
        if corruption != "none":
            agree.setdefault(max(up, down), []).append(name + sign)
    signs = "; ".join(
        f"in {count} of {len(pairs)} pairs under {', '.join(names)}"
        for count, names in sorted(agree.items(), reverse=True)
    )
    text = table(["SE minus plain, points", *(f"`{network}`" for network in pairs)], rows)
    return (
        f"{text}\nThe sign agrees {signs}. If SE made no difference, all {len(pairs)} would still "
        f"agree by chance under one corruption in {2 ** (len(pairs) - 1)}.\n\n"
        f"Mean over five severities, with its 95 % interval. {_made(found)}"
    )


def difference(record: dict[str, Any]) -> tuple[float, float, float]:
    """How much better the second network is in the mean over severities, in points.

    Returns:
        The difference, and its 95 % interval over images. An image's severities are summed first,
        because they are not independent.
    """
    first, second = map(sum, record["test_correct"])
    images, severities = record["test_images"], len(record["test_correct"][0])
    half = 1.96 * (record["squares"] - (second - first) ** 2 / images) ** 0.5
    gain, low, high = (
        100 * (second - first + sign * half) / (images * severities) for sign in (0, -1, 1)
    )
    return gain, low, high


def seeds() -> str:
    """Plain and SE twins of several seeds: mean over severities, and its difference by seed."""
    found = lines("noise-seeds.jsonl")
    values: dict[str, dict[str, dict[int, float]]] = {}
    for record in found:
        for variant, right in zip(record["networks"], record["test_correct"], strict=True):
            by_seed = values.setdefault(record["corruption"], {}).setdefault(variant, {})
            by_seed[record["seed"]] = 100 * statistics.mean(right) / record["test_images"]
    pairs: list[tuple[Paired, list[str]]] = []
    for corruption, variants in values.items():
        for pair in _enough(variants):
            means = (statistics.mean(v[seed] for seed in pair.seeds) for v in variants.values())
            pairs.append((pair, [_name(corruption), *(f"{mean:.2f}" for mean in means)]))
    if not pairs:
        return _FEW
    rows = []
    sentences: dict[str, list[str]] = {"better": [], "worse": [], "": []}
    found_out = _holm([pair for pair, _ in pairs])
    for (pair, cells), verdict in zip(pairs, found_out, strict=True):
        rows.append([*cells, *_difference(pair, verdict)])
        sentences["" if verdict else "better" if pair.mean > 0 else "worse"].append(cells[0])
    first, other = variants
    head = ["corruption", f"{first}, %", f"{other}, %", "difference by seed"]
    text = table([*head, "mean [95 %]", "verdict", "could have shown"], rows)
    said = " ".join(
        f"{other.capitalize()} is {how} under {', '.join(names)}, by Holm's correction for "
        f"{len(pairs)} comparisons."
        if how
        else f"No difference is shown under {', '.join(names)}."
        for how, names in sentences.items()
        if names
    )
    alone = (
        "Intervals, and what could have been shown, are of each corruption alone (Student's paired "
        "test); after Holm's correction it takes a larger difference."
    )
    return f"{text}\n{said}\n\n{alone} Mean over five severities. {_made(found)}"


def _name(corruption: str) -> str:
    return "no corruption" if corruption == "none" else corruption.replace("_", " ")


def fluctuation(recipe: str = "ablation_positions") -> str:
    """How much the test accuracy goes up and down while the learning rate is high."""
    found: dict[str, dict[int, float]] = {}
    counts = set()
    for run in finished(recipe):
        changes = swings(run)
        if changes:
            counts.add(len(changes))
            by_seed = found.setdefault(run.header["variant"], {})
            by_seed[run.header["seed"]] = statistics.mean(changes)
    first = next(iter(RECIPES[recipe].variants))
    pairs = _enough({name: found[name] for name in RECIPES[recipe].variants if name in found})
    if not pairs or pairs[0].first != first:
        return _FEW
    rows = []
    for pair in pairs:
        means = (
            statistics.mean(each[seed] for seed in pair.seeds)
            for each in (found[first], found[pair.name])
        )
        rows.append(
            [pair.name, *(f"{mean:.2f}" for mean in means), *_difference(pair, pair.verdict)]
        )
    head = ["variant", f"{first}, points", "variant, points", "difference by seed", "mean [95 %]"]
    text = table([*head, "verdict", "could have shown"], rows)
    many = " or ".join(map(str, sorted(counts)))
    return f"{text}\nEach run has {many} such changes.\n"


def swings(run: Run) -> list[float]:
    """Sizes of the changes from epoch to epoch, in points, at more than half the learning rate.

    Of test minus training accuracy, which takes most of the trend out; not in the first epoch, over
    which the mean training accuracy is far behind.
    """
    high = run.header["recipe"]["lr"] / 2
    gaps = [
        100 * (line["test_accuracy"] - line["train_accuracy"])
        for line in run.epochs[1:]
        if line["lr"] > high and line.get("test_accuracy") is not None
    ]
    return [abs(after - before) for before, after in itertools.pairwise(gaps)]


def _enough(values: dict[str, dict[int, float]]) -> list[Paired]:
    """`against` of those that share enough seeds with the first."""
    first, *_ = values or [""]
    base = values.get(first, {})
    return against({k: v for k, v in values.items() if len(v.keys() & base.keys()) >= SEEDS})


def _holm(pairs: list[Paired]) -> list[str]:
    """The verdict of each of several comparisons that have no variant in common.

    Holm's correction (1979, Scandinavian Journal of Statistics 6).
    """
    texts, still = ["no difference shown"] * len(pairs), True
    for place, number in enumerate(sorted(range(len(pairs)), key=lambda n: pairs[n].p)):
        still = still and pairs[number].p <= 0.05 / (len(pairs) - place)
        if still:
            texts[number] = ""
        elif pairs[number].differs:
            texts[number] = f"not shown by Holm's correction for {len(pairs)}"
    return texts


def _difference(pair: Paired, verdict: str) -> list[str]:
    low, high = pair.interval
    return [
        ", ".join(f"{value:+.2f}" for value in pair.differences),
        f"{pair.mean:+.2f} [{low:+.2f}, {high:+.2f}]",
        verdict,
        f"{pair.detectable:.2f}",
    ]


def _made(found: list[dict[str, Any]]) -> str:
    # The same images for all, or nothing here is paired.
    ((images, seed),) = {(record["test_images"], record["noise_seed"]) for record in found}
    where = every(found, "machine", "engine")
    return f"{images:,} test images, noise of seed {seed}; {where}.\n"
