"""The tables of docs/ablation.md on noise: bad test images, and the fluctuation of training."""

from __future__ import annotations

import itertools
import statistics
from typing import Any

from senetzoo.report.paired import Paired, against
from senetzoo.report.run import Run
from senetzoo.runs import renamed
from senetzoo.train.recipes import RECIPES
from tables.ablation import finished
from tables.common import difference, every, lines, table

# Two may agree by chance, and Student's interval is then nothing wide.
SEEDS = 3
_FEW = f"Not recorded yet for {SEEDS} seeds.\n"


def weights() -> str:
    """Plain and SE twins on corrupted test images: the same images, so the difference is paired."""
    found = [renamed(record) for record in lines("noise.jsonl")]
    if not found:
        return "None is recorded yet.\n"
    first = found[0]["against"]
    rows = []
    for record in found:
        if record["variant"] == first:
            continue
        images = record["test_images"]
        gained, lost = record["only_this"], record["only_that"]
        gain, low, high = difference(gained, lost, images)
        right = record["test_correct"]
        rows.append(
            [
                record["corruption"].replace("_", " "),
                str(record["severity"] or ""),
                f"{100 * (right - gained + lost) / images:.2f}",
                f"{100 * right / images:.2f}",
                f"{gain:+.2f} [{low:+.2f}, {high:+.2f}]",
                "" if low > 0 or high < 0 else "no difference shown",
            ]
        )
    other = next(record["variant"] for record in found if record["variant"] != first)
    head = ["corruption", "severity", f"`{first}`, %", f"`{other}`, %", "difference [95 %]", ""]
    return f"{table(head, rows)}\n{_made(found)}"


def seeds() -> str:
    """Plain and SE twins of several seeds: mean over severities, and its difference by seed."""
    found = [renamed(record) for record in lines("noise-seeds.jsonl")]
    values: dict[tuple[str, str], dict[int, list[float]]] = {}
    for record in found:
        by_seed = values.setdefault((record["corruption"], record["variant"]), {})
        accuracy = 100 * record["test_correct"] / record["test_images"]
        by_seed.setdefault(record["seed"], []).append(accuracy)
    variants = list(dict.fromkeys(record["variant"] for record in found))
    pairs: list[tuple[Paired, list[str]]] = []
    for corruption in dict.fromkeys(record["corruption"] for record in found):
        first, other = (
            {seed: statistics.mean(each) for seed, each in values[corruption, variant].items()}
            for variant in variants
        )
        for pair in _enough({variants[0]: first, variants[1]: other}):
            means = (statistics.mean(each[seed] for seed in pair.seeds) for each in (first, other))
            name = corruption.replace("_", " ") if corruption != "none" else "no corruption"
            pairs.append((pair, [name, *(f"{mean:.2f}" for mean in means)]))
    if not pairs:
        return _FEW
    rows, same = [], "no different, as far as shown,"
    sentences: dict[str, list[str]] = {"better": [], "worse": [], same: []}
    found_out = _holm([pair for pair, _ in pairs])
    for (pair, cells), verdict in zip(pairs, found_out, strict=True):
        rows.append([*cells, *_difference(pair, verdict)])
        chosen = same if verdict else "better" if pair.mean > 0 else "worse"
        sentences[chosen].append(cells[0])
    head = ["corruption", *(f"{variant}, %" for variant in variants), "difference by seed"]
    text = table([*head, "mean [95 %]", "", "could have shown"], rows)
    said = " ".join(
        f"{variants[1].capitalize()} is {how} under {', '.join(names)}."
        for how, names in sentences.items()
        if names
    )
    if not all(found_out):
        said += f" That holds by Holm's correction for {len(pairs)} comparisons."
    return f"{text}\n{said}\n\nMean over five severities. {_made(found)}"


def fluctuation(recipe: str = "ablation_positions") -> str:
    """How much the test accuracy goes up and down while the learning rate is high."""
    found: dict[str, dict[int, float]] = {}
    for run in finished(recipe):
        value = swing(run)
        if value is not None:
            found.setdefault(run.header["variant"], {})[run.header["seed"]] = value
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
    return table([*head, "", "could have shown"], rows)


def swing(run: Run) -> float | None:
    """Mean size of the changes from epoch to epoch, in points, at more than half the learning rate.

    Of test minus training accuracy: training accuracy is a mean over an epoch and takes the trend
    out. None with fewer than two changes.
    """
    high = run.header["recipe"]["lr"] / 2
    gaps = [
        100 * (line["test_accuracy"] - line["train_accuracy"])
        for line in run.epochs
        if line["lr"] > high and line.get("test_accuracy") is not None
    ]
    changes = [abs(after - before) for before, after in itertools.pairwise(gaps)]
    return statistics.mean(changes) if len(changes) > 1 else None


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
    where = every(found, "machine", "engine", "commit")
    return f"{images:,} test images, noise of seed {seed}; {where}.\n"
