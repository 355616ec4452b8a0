"""The pages that are made of runs: noise and fluctuation by seed, depth, model cards."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ttest_rel
from support.runs import epoch, write_run
from tables import ablation, cards, cifar10, common, depth, noise

from senetzoo import create
from senetzoo.report.run import read
from senetzoo.train.recipes import RECIPES
from senetzoo.weights.manifest import history, manifest

ROOT = Path(__file__).resolve().parent.parent
EMBEDDED = {tag: e for tag, e in manifest().items() if e.source.kind == "embedded"}


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records in an empty folder."""
    monkeypatch.setattr(common, "RECORDS", tmp_path)
    monkeypatch.setattr(ablation, "RECORDS", tmp_path)


def record(
    root: Path, experiment: str, variant: str, seed: int = 0, wrong: int = 0, **more: Any
) -> None:
    """A run of an experiment that gets so many of 1,000 images wrong."""
    where = {
        "gpu": None,
        "cpu": "m",
        "cpu_flags": ["avx2"],
        "threads": 1,
        "torch": "2",
        "commit": "c" * 40,
    }
    used = {"name": experiment, "model": "resnet20", "phases": [[16, 8]], "lr": 0.1}
    write_run(
        root / "runs" / experiment / f"{variant}-{seed}",
        variant=variant,
        seed=seed,
        recipe=used | more.pop("recipe", {}),
        environment={**where, "commit": "c" * 40} | more.pop("environment", {}),
        command=f"senetzoo train {experiment}",
        **{
            "labels": torch.zeros(1000, dtype=torch.long),
            "guesses": (torch.arange(1000) < wrong).long(),
            **more,
        },
    )


def cells(text: str) -> list[list[str]]:
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if "---" not in row[0]]


def test_without_records_pages_say_so(empty: None) -> None:
    for made in (noise.seeds, noise.fluctuation):
        assert made() == "Not recorded yet for 3 seeds.\n"
    for made in (noise.weights, depth.results, depth.degradation, depth.gradients, depth.classes):
        assert made() == "None is recorded yet.\n"
    assert depth.plot() is None


def test_the_swing_is_of_test_minus_training_accuracy_at_high_rates(
    tmp_path: Path,
) -> None:
    figures = [(0.1, 0.3, 0.35), (0.09, 0.5, 0.4), (0.08, 0.6, 0.62), (0.06, 0.7, 0.67)]
    figures.append((0.04, 0.7, 0.1))
    lines = [
        epoch(n, lr=lr, train_accuracy=train, test_accuracy=test)
        for n, (lr, train, test) in enumerate(figures, 1)
    ]
    run = read(write_run(tmp_path / "run", lines=lines), "run")
    # Gaps of +5, -10, +2 and -3 points, without the first epoch: changes of 12 and 5. The last
    # epoch's rate is low.
    assert noise.swings(run) == pytest.approx([12, 5])


NOISE = {"noise_seed": 0, "machine": "m", "engine": "e", "commit": "c" * 40}


def test_noise_of_pairs_is_compared_image_by_image(empty: None, tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    records, expected = [], dict[str, list[str]]()
    for network, effect in {"resnet20": 0.2, "preresnet20": -0.2, "resnet56": 0.2}.items():
        for kind, gain in {"none": 0.0, "gaussian_blur": effect, "jpeg": -0.2}.items():
            # An image that is hard at one severity is hard at the others, too.
            easy = np.stack([chance := draws.uniform(0.2, 0.8, 400), chance + gain])[:, None]
            right = draws.random((2, 1 if kind == "none" else 5, 400)) < easy
            first, second = right.astype(int)
            records.append(
                {
                    "networks": [network, f"se_{network}"],
                    "corruption": kind,
                    "test_correct": right.sum(2).tolist(),
                    "test_images": 400,
                    "squares": int(np.square(second.sum(0) - first.sum(0)).sum()),
                    **NOISE,
                }
            )
            if kind == "none":
                for n, row in enumerate(("plain, no corruption, %", "SE, no corruption, %")):
                    expected.setdefault(row, []).append(f"{100 * right[n].mean():.2f}")
            by_image = 100 * (second - first).mean(0)
            half = 1.96 * by_image.std() / 20
            limits = f"[{by_image.mean() - half:+.2f}, {by_image.mean() + half:+.2f}]"
            row = {"none": "no corruption", "gaussian_blur": "gaussian blur"}.get(kind, kind)
            expected.setdefault(row, []).append(f"{by_image.mean():+.2f} {limits}")
    text = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "noise.jsonl").write_text(text, encoding="utf-8")
    text = noise.weights()
    assert {row: values for row, *values in cells(text)[1:]} == expected
    assert (
        "\nThe sign agrees in 3 of 3 pairs under jpeg (SE worse); in 2 of 3 pairs under gaussian "
        "blur (SE better). If SE made no difference, all 3 would still agree by chance under one "
        "corruption in 4.\n" in text
    )


def test_noise_by_seed_is_compared_as_scipy_does(empty: None, tmp_path: Path) -> None:
    # Of 1,000 images, at two severities, by seed.
    blur = {"plain": [(500, 300), (520, 290), (510, 310)]}
    blur["se"] = [(400, 200), (410, 200), (405, 207)]
    jpeg = {"plain": [(500, 500), (510, 500), (505, 505)]}
    jpeg["se"] = [(512, 500), (500, 490), (515, 505)]
    # Its own interval leaves 0 out, that of three comparisons does not.
    contrast = {"plain": [(500, 500)] * 3, "se": [(507, 507), (510, 510), (513, 513)]}
    right = {"blur": blur, "jpeg": jpeg, "contrast": contrast}
    records: list[dict[str, Any]] = [
        {
            "networks": list(variants),
            "seed": seed,
            "corruption": kind,
            "test_correct": counts,
            "test_images": 1000,
            **NOISE,
        }
        for kind, variants in right.items()
        for seed, counts in enumerate(zip(*variants.values(), strict=True))
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "noise-seeds.jsonl").write_text(lines, encoding="utf-8")
    text = noise.seeds()
    for row, (kind, variants) in zip(cells(text)[1:], right.items(), strict=True):
        means = {
            variant: [sum(counts) / 20 for counts in seeds] for variant, seeds in variants.items()
        }
        test = ttest_rel(means["se"], means["plain"])
        low, high = test.confidence_interval(0.95)
        gain = (sum(means["se"]) - sum(means["plain"])) / 3
        assert row[0] == kind
        assert row[4] == f"{gain:+.2f} [{low:+.2f}, {high:+.2f}]"
        assert (row[5] == "no difference shown") == (test.pvalue > 0.05)
    assert cells(text)[3][5] == "not shown by Holm's correction for 3"
    assert (
        "\nSe is worse under blur, by Holm's correction for 3 comparisons. No difference is shown "
        "under jpeg, contrast.\n" in text
    )
    # Two seeds of each are not enough to say anything.
    kept = "".join(json.dumps(record) + "\n" for record in records if record["seed"] < 2)
    (tmp_path / "noise-seeds.jsonl").write_text(kept, encoding="utf-8")
    assert noise.seeds() == "Not recorded yet for 3 seeds.\n"


def test_fluctuation_is_compared_seed_by_seed(empty: None, tmp_path: Path) -> None:
    swings = {"plain": (4.0, 5.0, 6.0), "pre": (2.0, 2.5, 4.5), "post": (1.0, 1.0)}
    for variant, values in swings.items():
        for seed, value in enumerate(values):
            lines = [
                epoch(n, lr=0.1, train_accuracy=0.5, test_accuracy=0.5 + (n % 2) * value / 100)
                for n in range(1, 6)
            ]
            record(tmp_path, "ablation_positions", variant, seed, lines=lines)
    text = noise.fluctuation()
    assert text.endswith("\nEach run has 3 such changes.\n")
    (row,) = cells(text)[1:]
    assert row[:4] == ["pre", "5.00", "3.00", "-2.00, -2.50, -1.50"]
    # In the recipe's order; 5 epochs of 3,000 images in 20 seconds each, and 2 for each test.
    listed = cells(ablation.each())[1:]
    runs = [(v, str(n)) for v, values in swings.items() for n in range(len(values))]
    assert [tuple(row[:2]) for row in listed] == runs
    assert all(row[4:] == ["0.03", "150", "0"] for row in listed)


def test_positions_against_the_first_arm(empty: None, tmp_path: Path) -> None:
    # Wrong of 1,000 images, by seed.
    wrong: dict[str, tuple[int, ...]]
    wrong = {"plain": (100, 90, 110), "pre": (101, 89, 111), "identity": (130, 121, 141)}
    wrong |= {"standard": (95, 84, 104), "post": (97,)}
    for variant, counts in wrong.items():
        for seed, count in enumerate(counts):
            record(tmp_path, "ablation_positions", variant, seed, count)
    text = ablation.positions()
    rows = {row[0]: row[1:] for row in cells(text)[1:]}
    assert list(rows) == ["plain", "standard", "pre", "identity", "post"]
    assert rows["plain"] == ["3", "90.00 (90.00, 91.00, 89.00)", "", "", ""]
    assert rows["post"] == ["1", "90.30 (90.30)", "", "", ""]
    right = np.array([wrong[v] for v in ("plain", "standard", "pre", "identity")]) / -10
    rest = right - right.mean(0) - right.mean(1, keepdims=True) + right.mean()
    # 3.10: Dunnett's 5 % point for three variants and 6 degrees of freedom.
    half = 3.10 * math.sqrt(np.square(rest).sum() / 6 * 2 / 3)
    for variant, gain in zip(list(rows)[1:4], right[1:].mean(1) - right[0].mean(), strict=True):
        assert rows[variant][2].startswith(f"{gain:+.2f} (sd ")
        limits = [float(limit) for limit in rows[variant][3].split(" to ")]
        assert limits == pytest.approx([gain - half, gain + half], abs=0.01)
    assert (
        "\nBetter than plain: standard. Worse than plain: identity. That holds for all 3 "
        "comparisons together, by Dunnett's test. No difference from plain is shown for: pre.\n"
        in text
    )


def test_variants_with_few_seeds_are_named() -> None:
    made = Counter(
        path.parent.name.rpartition("-")[0]
        for path in ROOT.glob("benchmarks/records/runs/cifar100_attention/*/log.jsonl")
    )
    few = [name for name in RECIPES["cifar100_attention"].variants if made[name] < 3]
    said = f"Not finished, with fewer than 3 seeds: {', '.join(few)}."
    assert (said in ablation.attention()) == bool(few)


def test_costs_name_every_variant(empty: None, tmp_path: Path) -> None:
    assert ablation.costs() == "None is recorded yet.\n"
    variants = RECIPES["cifar100_attention"].variants
    results = [
        {
            "model": changes["model"],
            "engine": "eager",
            "params": 1000 + number,
            "images_per_second": 2000.0,
            "throughput_ratio": {"median": 0.9, "p10": 0.8, "p90": 1.0, "interval95": [0.85, 0.95]}
            if number
            else None,
        }
        for number, changes in enumerate(variants.values())
    ]
    where: dict[str, Any] = {"gpu": None, "cpu": "m", "cpu_flags": [], "threads": 2}
    where |= {"torch": "2", "packages": {}}
    line = {
        "environment": {**where, "commit": "c" * 40},
        "options": {"rounds": 20},
        "speed": [{"batch": 64, "results": results}],
    }
    path = tmp_path / "speed" / "attention" / "cpu.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(line) + "\n", encoding="utf-8")
    head, plain, *others = cells(ablation.costs())
    assert head == ["variant", "parameters", "eager, batch 64"]
    assert plain == ["plain", "1,000", "2,000 /s"]
    assert [row[0] for row in others] == list(variants)[1:]
    assert [row[1] for row in others] == [f"+{n}" for n in range(1, len(variants))]
    assert {row[2] for row in others} == {"0.90 [0.85, 0.95]"}


def test_gates_are_beside_the_positions_plain_and_se(empty: None, tmp_path: Path) -> None:
    for variant, gate in ablation.SHARED.items():
        place = RECIPES["ablation_positions"].variants[variant]
        other = RECIPES["ablation_gates"].variants[gate]
        assert repr(create(place["model"])) == repr(create(other["model"]))

    for seed in (0, 1):
        for variant, policy, wrong in (
            ("plain", "", 100 + seed), ("standard", "+se4@standard", 90), ("pre", "+se4@pre", 80),
        ):  # fmt: skip
            changes = {"model": f"resnet20{policy}"}
            record(tmp_path, "ablation_positions", variant, seed, wrong, recipe=changes)
    # Without a run of another gate there is nothing to compare.
    few = "Runs recorded so far: {}, too few for a table of pairs.\n"
    assert ablation.gates() == few.format(0)
    cbam = {"model": "resnet20+cbam(reduction=4)"}
    new = {"cpu": "new"}
    record(tmp_path, "ablation_gates", "cbam", 0, 85, recipe=cbam, environment=new)
    text = ablation.gates()
    assert [row[:3] for row in cells(text)[1:]] == [
        ["plain", "2", "89.95 (90.00, 89.90)"],
        ["se", "2", "91.00 (91.00, 91.00)"],
        ["cbam", "1", "91.50 (91.50)"],
    ]
    assert "; new (avx2), 1 thread, torch 2, commit `cccccccccccc`; m (avx2), 1 thread," in text
    # Runs with another learning rate are no pairs.
    shutil.rmtree(tmp_path / "runs" / "ablation_gates")
    record(tmp_path, "ablation_gates", "cbam", 0, 85, recipe={**cbam, "lr": 0.2})
    assert ablation.gates() == few.format(1)


def test_depth_by_hand(empty: None, tmp_path: Path) -> None:
    """Training accuracy falls with depth without shortcuts, and rises with them."""
    labels = torch.arange(3).repeat_interleave(10)
    for variant, train, wrong in (
        ("plain20", 0.80, 3), ("plain56", 0.65, 9), ("resnet20", 0.82, 3), ("resnet56", 0.9, 0),
    ):  # fmt: skip
        guesses = labels.clone()
        guesses[:wrong] = 2
        lines = [epoch(n, train_accuracy=train - (8 - n) * 0.01) for n in range(1, 9)]
        macs = 31_000 if variant.endswith("56") else 10_000
        size = {"name": variant, "params": 270_000, "macs": macs}
        record(
            tmp_path, "cifar10_depth", variant,
            labels=labels, guesses=guesses, lines=lines, model=size,
        )  # fmt: skip
    assert depth.degradation() == (
        "- `plain20` to `plain56`: -15.0 points on the training images, -20.0 on the test images. "
        "The deeper one is behind already on the images it learns from.\n"
        "- `resnet20` to `resnet56`: +8.0 points on the training images, +10.0 on the test "
        "images.\n"
    )
    text = depth.results()
    assert [row[0] for row in cells(text)[1:]] == [
        "`plain20`", "`plain56`", "`resnet20`", "`resnet56`",
    ]  # fmt: skip
    assert "Not run yet: `se_resnet20`, `se_resnet56`, `densenet40_12`." in text
    assert cells(depth.classes())[1] == ["cat", "70.0", "10.0", "70.0", "100.0"]
    assert cells(depth.gradients())[1][:2] == ["`plain20`", "3.00, 0.38"]
    assert "in the first epoch: 15.0 in `plain20`, " in depth.gradients()
    assert "Classes without an image right" not in depth.classes()
    assert depth._gain("plain20", "plain56") == (
        "`plain56` minus `plain20`: -20.0 points on the test images, with 3.1 times the "
        "multiply-accumulates; their intervals overlap.\n\n"
    )
    picture = depth.plot()
    assert picture is not None
    assert all(variant in picture for variant in ("plain20", "plain56", "resnet20", "resnet56"))


@pytest.mark.parametrize("tag", EMBEDDED)
def test_each_embedded_weight_has_its_card_and_its_log(tag: str) -> None:
    entry = EMBEDDED[tag]
    text = cards.every()
    (card,) = [part for part in text.split("## ") if part.startswith(f"`{tag}`\n")]
    assert f"{entry.metrics[0].value:.2f} %" in card
    assert entry.sha256 is not None
    assert entry.sha256 in card
    training = entry.training[-1]
    (typed,) = re.findall(r"```sh\n(.*?)```", card, re.DOTALL)
    assert shlex.split(typed.replace("\\\n", "")) == shlex.split(training.command)
    assert (f"continued from `{training.start}`" in card) == (training.start is not None)
    epochs = cards.log(tag)
    for rate in re.findall(r"hours at ([\d,]+) images a second", card):
        speeds = [line["images_per_second"] for line in epochs]
        # The last images of an epoch, too few for a batch, are counted in the one.
        assert 0.99 * min(speeds) <= float(rate.replace(",", "")) <= 1.01 * max(speeds)
    assert [line["epoch"] for line in epochs] == list(range(1, training.epochs + 1))
    # The embedded file, in fp16, is as good as what the run ended with, perhaps in bf16.
    assert abs(100 * epochs[-1]["test_accuracy"] - entry.metrics[0].value) < 0.15


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_our_weights_are_listed_beside_published_ones(data: str) -> None:
    """A row's recipe is that of the command; the others' accuracies are those of the manifest."""
    table = cells(getattr(cifar10, data)())[1:]
    own_rows = [row for row in table if "**`" in row[1]]
    assert own_rows
    for own in own_rows:
        tag = own[1].strip("*`")
        run = history(tag)[tag]
        assert own[2] == f"{manifest()[tag].metrics[0].value:.2f}"
        assert own[4].split(" + ") == [str(each.epochs) for each in history(tag).values()]
        for field, words in (("cutout", "cutout"), ("label_smoothing", "label smoothing")):
            typed = re.search(rf"--set {field}=(\S+)", run.command)
            said = re.search(rf"{words} ([\d.]+)", own[6])
            assert (typed and typed[1]) == (said and said[1])
    for network, who, accuracy, *_ in table:
        publisher = re.match(r"\[(chenyaofo|pytorchcv)\]", who)
        entry = publisher and manifest().get(f"{network.strip('`')}.{publisher[1]}_{data}")
        if entry:
            assert float(accuracy.split()[0]) == pytest.approx(entry.metrics[0].value, abs=0.005)
