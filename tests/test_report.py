"""`senetzoo report`: the page shows what the runs recorded."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support import commands
from support.runs import CLASSES, epoch, log_of, write_run

from senetzoo._utils.terminal import clock
from senetzoo.cli.compare import _text, table
from senetzoo.data import digits
from senetzoo.data.files import LabeledFiles
from senetzoo.errors import ConfigError
from senetzoo.eval.predictions import newcombe, wilson
from senetzoo.inspect import drift, excitations
from senetzoo.report import figures, page
from senetzoo.report.excitations import excitation_section
from senetzoo.report.paired import ALIKE, against, by_image, paired
from senetzoo.report.run import Run, find, read
from senetzoo.runs import chose_epoch
from senetzoo.train import evaluate
from senetzoo.train.augment import normalize
from senetzoo.train.experiment import Experiment
from senetzoo.train.recipe import default_fields, read_run
from senetzoo.train.recipes import RECIPES
from senetzoo.zoo import load

report = partial(commands.run, "report")


class Page(HTMLParser):
    """The text, tables and pictures of a page, and what it would download."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.images: list[str] = []
        self.fetched: list[str] = []
        self.open: Counter[str] = Counter()
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "wbr":
            return
        if tag == "tr":
            self.rows.append([])
        self._cell = tag in ("td", "th")
        if self._cell:
            self.rows[-1].append("")
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and value and not value.startswith("#"):
                (self.images if value.startswith("data:") else self.fetched).append(value)
        self.open[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._cell:
            self.rows[-1][-1] += data


def page_of(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_says_what_the_runs_did(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    counts = {}
    for name in ("plain", "se"):
        labels = torch.randint(0, 3, (200,), generator=generator)
        guesses = torch.where(
            torch.rand(200, generator=generator) < 0.2,
            torch.randint(0, 3, (200,), generator=generator),
            labels,
        )
        write_run(tmp_path / "runs" / name, labels=labels, guesses=guesses)
        counts[name] = Counter(zip(labels.tolist(), guesses.tolist(), strict=True))
    out = tmp_path / "page.html"
    result = report(tmp_path / "runs", "--out", out, "--title", "Two runs")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"report: {out} and {out.with_suffix('.md')}\n"
    seen = page_of(out)
    assert seen.fetched == []
    assert seen.words.count("Two runs") == 2  # the title and the heading
    for name, count in counts.items():
        right = sum(count[n, n] for n in range(3))
        low, high = wilson(right, 200)
        accuracy, interval = f"{right / 2:.2f} %", f"{100 * low:.1f} to {100 * high:.1f}"
        row = next(row for row in seen.rows if row[0] == name and "61,706" in row)
        assert row == [name, accuracy, interval, "lenet5", "61,706", "8", "82.00 %"]
    for n, of in enumerate(CLASSES):
        row = next(row for row in seen.rows if row[0] == of)
        matrix = [row for row in seen.rows if row[0].strip() == of and len(row) == 4]
        for column, (name, count) in enumerate(counts.items()):
            total = sum(count[n, m] for m in range(3))
            assert row[1 + column].startswith(f"{100 * count[n, n] / total:.1f} (")
            cells = [int(cell or 0) for cell in matrix[column][1:]]
            assert cells == [count[n, m] for m in range(3)], (of, name)


def test_one_run(tmp_path: Path) -> None:
    """The pictures are the mistakes, the JSON agrees, and the page is reproducible."""
    folder = write_run(tmp_path / "run", seed=7)
    pages = [tmp_path / name / "page.html" for name in ("one", "two")]
    results = [report(folder, "--out", out, "--json") for out in pages]
    assert [result.exit_code for result in results] == [0, 0]
    assert pages[0].read_bytes() == pages[1].read_bytes()
    tensors = load_file(str(folder / "test.safetensors"))
    images = page_of(pages[0]).images
    assert len(images) == len(tensors["mistakes"]) == 3
    for image, expected in zip(images, tensors["images"], strict=True):
        data = base64.b64decode(image.partition(",")[2])
        assert Image.open(io.BytesIO(data)).tobytes() == expected.numpy().tobytes()
    (found,) = json.loads(results[0].output)["runs"]
    expected = {
        "run": str(folder),
        "network": "lenet5",
        "seed": 7,
        "epochs": 8,
        "finished": True,
        "accuracy": 0.9,
        "interval": list(wilson(27, 30)),
        "images_per_second": 150.0,
        "confusion": [[9, 1, 0], [0, 9, 1], [1, 0, 9]],
    }
    assert {key: found[key] for key in expected} == expected
    assert found["series"]["lr"] == [[n, 0.1 / n] for n in range(1, 9)]
    assert [m["image"] for m in found["mistakes"]] == tensors["mistakes"].tolist()
    assert [m["file"] for m in found["mistakes"]] == [""] * 3


def test_markdown_has_its_pictures(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name)
    out = tmp_path / "new" / "page.html"
    out.parent.mkdir()
    assert report(tmp_path / "a", tmp_path / "b", "--out", out).exit_code == 0
    text = out.with_suffix(".md").read_text(encoding="utf-8")
    named = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    files = {str(path.relative_to(out.parent)) for path in out.parent.glob("page-figures/*")}
    assert len(named) == 9
    assert set(named) == files
    for name in files:
        content = (out.parent / name).read_bytes()
        assert content.startswith((b"<svg ", b"\x89PNG"))
    assert "| a | 90.00 % | 74.4 to 96.5 | lenet5 | 61,706 | 8 | 82.00 % |" in text
    assert "| training accuracy |\n" in text
    assert "Row by row: dog, 90.9 % (is cat); " in text
    # The page has one legend, and no other in its pictures.
    drawn = (out.parent / "page-figures/accuracy.svg").read_text(encoding="utf-8")
    assert [drawn.count(f">{name}</text>") for name in ("a", "b")] == [1, 1]
    assert "</text>" in (html := out.read_text(encoding="utf-8"))
    assert ">a</text>" not in html
    assert not re.search("#[0-9A-F]{6}", text)


def test_a_real_run(tmp_path: Path) -> None:
    """A report of a run that `senetzoo train` wrote."""
    run, out = tmp_path / "run", tmp_path / "page.html"
    train = ("train", "digits", "--quick", "--out", run, "--set", "model=lenet5+se16")
    result = commands.run(*train)
    assert result.exit_code == 0, result.output
    (end,) = log_of(run, "end")
    result = report(run, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    (said,) = json.loads(result.output)["runs"]
    assert said["accuracy"] == pytest.approx(end["test_accuracy"], abs=1e-5)
    seen = page_of(out)
    wrong = end["test_images"] - end["test_correct"]
    assert seen.open["img"] == min(wrong, 32)
    row = next(row for row in seen.rows if "se_lenet5" in row)
    assert (row[0], row[1].replace(" ", "")) == ("run", f"{end['test_accuracy']:.2%}")
    assert sum("Gradient norm by depth" in words for words in seen.words) == 1
    plots = seen.open["svg"]
    # A log alone has the accuracy of each class.
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "log.jsonl").write_bytes((run / "log.jsonl").read_bytes())
    assert read(copy, "run").by_class == read(run, "run").by_class != []
    result = report(run, "--out", out, "--excitations")
    assert result.exit_code == 0, result.output
    seen = page_of(out)
    assert seen.open["svg"] == plots + 3  # two gates, and the distribution
    rows = {row[0]: row for row in seen.rows if len(row) == 10}
    # Against the run's network on the held-out digits.
    model, (recipe, summary) = load(run), read_run(run)
    initial = recipe.build(10, 1, summary["seed"])
    test = digits.load("test")
    images = normalize(test.images, digits.MEAN, digits.STD, 32)
    found = excitations(model, [(images, test.labels)], classes=10)
    for path, moved in drift(model, initial).items():
        row = rows[path.replace(".slots.", " ")]
        assert row[2] == f"{float(found[path].mean.mean()):.3f}"
        assert row[-1] == f"{100 * moved:.0f} %"
        assert moved > 0
    assert "## Excitations" in out.with_suffix(".md").read_text(encoding="utf-8")
    # Channels count from 0, as in every other place that names one.
    (first, *_) = excitation_section("run", found, [f"{n}" for n in range(10)]).plots
    of_all = first.figure.axes[0].lines[-1]
    mean = next(iter(found.values())).mean
    assert of_all.get_xdata().tolist() == list(range(len(mean)))
    assert of_all.get_ydata().tolist() == mean.tolist()


def test_excitations_of_what_has_none(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", finished=False)
    result = report(folder, "--out", tmp_path / "page.html", "--excitations")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: The runs have no excitations to show.\n"
        "No run of a recipe is finished and has gates; the data of own loops isn't known.\n"
        "Leave out --excitations\n"
    )
    assert not (tmp_path / "page.html").exists()


def test_names_are_text_not_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>|*$x^$"
    write_run(tmp_path / "run", classes=(evil, "b", "c"), variant=evil, data=evil, command=evil)
    out = tmp_path / "page.html"
    assert report(tmp_path / "run", "--out", out, "--title", evil).exit_code == 0
    seen = page_of(out)
    assert seen.open["script"] == 0
    assert evil in seen.words
    text = out.with_suffix(".md").read_text(encoding="utf-8")
    assert "<script>" not in re.sub(r"```sh.*?```", "", text, flags=re.DOTALL).replace(r"\<", "")


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / part / "run-0") for part in ("a", "b")]
    assert [run.name for run in find(folders)] == ["a/run-0", "b/run-0"]
    assert [run.name for run in find(folders[:1])] == ["run-0"]
    assert [run.name for run in find([tmp_path, folders[0]])] == ["a/run-0", "b/run-0"]
    other = write_run(tmp_path / "b" / "run-1")
    assert [run.name for run in find([folders[0], other])] == ["a/run-0", "b/run-1"]


def test_a_run_under_way(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", finished=False, epochs=3)
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps({"kind": "resume", "epoch": 3, "step": 2}) + "\n")
        log.write('{"kind": "epo')
    out = tmp_path / "page.html"
    assert report(folder, "--out", out).exit_code == 0
    seen = page_of(out)
    assert ["run", "not finished", "", "lenet5", "61,706", "3", "62.00 %"] in seen.rows
    assert seen.images == []
    assert any(row[0] == "run" and row[-1] == "1" for row in seen.rows)


def test_runs_in_their_first_epoch(tmp_path: Path) -> None:
    """They are named; the others are reported."""
    write_run(tmp_path / "done")
    first = write_run(tmp_path / "first", lines=[], finished=False)
    out = tmp_path / "page.html"
    result = report(tmp_path, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    why = f"{first}: nothing to report yet, its first epoch is not finished"
    assert why in result.stderr.splitlines()
    assert ["first", "not finished", "", "lenet5", "61,706", "0", ""] in page_of(out).rows
    assert [run["epochs"] for run in json.loads(result.stdout)["runs"]] == [8, 0]
    write_run(tmp_path / "waiting" / "second", lines=[], finished=False)
    result = report(first, tmp_path / "waiting", "--out", tmp_path / "other.html")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[0] == "error: The 2 runs have nothing to report yet."


@pytest.mark.parametrize(("count", "lettered"), [(3, True), (40, False)])
def test_confusion_matrix_as_a_picture(tmp_path: Path, count: int, lettered: bool) -> None:
    names = tuple(f"class {n}" for n in range(count))
    write_run(tmp_path / "run", classes=names)
    out, pngs = tmp_path / "page.html", tmp_path / "pngs"
    result = report(tmp_path / "run", "--out", out, "--png", pngs)
    assert result.exit_code == 0, result.output
    assert min(Image.open(pngs / "confusion-1.png").size) >= 700
    assert "page-figures/confusion-1.svg)" in out.with_suffix(".md").read_text()
    (plot,) = figures.confusions(find([tmp_path / "run"])).values()
    words = [text.get_text() for axes in plot.figure.axes for text in axes.texts]
    # 30 images in turn, of which every tenth is taken for the next class.
    assert words == (["9", "1", "9", "1", "1", "9"] if lettered else [])
    axes = plot.figure.axes[0]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == list(names)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


def test_quick_runs_look_like_a_check(tmp_path: Path) -> None:
    for experiment in RECIPES.values():
        for quick in (True, False):
            for recipe in experiment.recipes(quick=quick).values():
                header = {"recipe": dataclasses.asdict(recipe), "data": {"test_images": 20}}
                run = Run("run", tmp_path, header, (), 0, None)
                assert (
                    run.limited.startswith("Quick check: one epoch, tested on 20 images.") == quick
                )
    said = {"name": "digits", "model": "lenet5", "images_per_class": 2, "epochs": 1}
    write_run(tmp_path / "quick", recipe=said)
    out = tmp_path / "page.html"
    assert report(tmp_path / "quick", "--out", out).exit_code == 0
    text = "Quick check: one epoch, tested on 30 images. It is not a result."
    assert page_of(out).words.count(text) == 1
    assert f"**{text}**" in out.with_suffix(".md").read_text()
    write_run(tmp_path / "part", recipe=said | {"images_per_class": 500})
    write_run(tmp_path / "whole", recipe=said | {"images_per_class": 0})
    assert page.used(find([tmp_path])) == [
        "part: Part of the data: at most 500 images of each class to train on, and 500 to test on.",
        f"quick: {text}",
    ]


def test_gray_images_and_many_classes(tmp_path: Path) -> None:
    classes = tuple(f"class {n}" for n in range(40))
    folder = write_run(tmp_path / "run", classes=classes)
    tensors = load_file(str(folder / "test.safetensors"))
    tensors["images"] = tensors["images"][..., :1].contiguous()
    save_file(tensors, str(folder / "test.safetensors"))
    out = tmp_path / "page.html"
    assert report(folder, "--out", out).exit_code == 0
    seen = page_of(out)
    assert seen.open["img"] == 3
    # With forty classes, only the most common confusions are listed.
    assert ["class 0", "class 1", "1 of 1"] in seen.rows


# Runs of several seeds


def seeds_of(tmp_path: Path, variant: str, wrong: tuple[int, ...], **header: Any) -> None:
    """Runs with the given mistakes in 1,000 images, without gradients, whose plots are slow."""
    labels = torch.zeros(1000, dtype=torch.long)
    lines = [{k: v for k, v in epoch(n).items() if k != "gradient_norm"} for n in (1, 2, 3)]
    for seed, count in enumerate(wrong):
        write_run(
            tmp_path / f"{variant}-{seed}",
            labels=labels,
            guesses=(torch.arange(1000) < count).long(),
            variant=variant,
            seed=seed,
            lines=lines,
            **header,
        )


def test_seeds_of_a_variant(tmp_path: Path) -> None:
    seeds_of(tmp_path, "se", (100, 140, 180))
    seeds_of(tmp_path, "plain", (100,))
    result = report(tmp_path, "--out", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "page.md").read_text()
    # The sample variance is (16 + 0 + 16) / 2.
    assert "| se | 3 | 86.00 % | 4.00 | 90.00, 86.00, 82.00 |\n" in text
    assert "| plain | 1 | 90.00 % |  | 90.00 |\n" in text
    assert "Gradient norm" not in text + (tmp_path / "page.html").read_text()
    assert page._variants(find([tmp_path / "plain-0", tmp_path / "se-0"])) is None


def test_one_variant_is_compared_as_scipy_does() -> None:
    from scipy.stats import nct, ttest_rel
    from scipy.stats import t as student

    plain = {0: 90.0, 1: 91.0, 2: 88.0, 3: 89.0}
    for right in ((92.0, 91.6, 90.1, 90.5), (89.6, 91.4, 87.5, 89.6)):
        (pair,) = against({"plain": plain, "se": {**dict(enumerate(right)), 4: 93.0}})
        test = ttest_rel(right, list(plain.values()))
        assert (pair.name, pair.first, pair.seeds) == ("se", "plain", (0, 1, 2, 3))
        assert pair.interval == pytest.approx(tuple(test.confidence_interval(0.95)))
        assert pair.differs == (test.pvalue < 0.05)
        assert pair.p == pytest.approx(test.pvalue)
        shift = pair.detectable / (pair.std / 2)
        assert nct.sf(student.ppf(0.975, 3), 3, shift) == pytest.approx(0.8)


@pytest.mark.parametrize(("variants", "seeds", "limit"), [(2, 6, 2.57), (5, 5, 2.73)])
def test_many_variants_are_compared_by_dunnetts_table(
    variants: int, seeds: int, limit: float
) -> None:
    """Two-sided 5 % points for 10 and 20 degrees of freedom: Dunnett 1964 (Biometrics 20)."""
    random = np.random.default_rng(variants * seeds)
    noise = random.normal(size=(variants + 1, seeds))
    values = {f"v{n}": dict(enumerate(own)) for n, own in enumerate(noise.tolist())}
    rest = noise - noise.mean(0) - noise.mean(1, keepdims=True) + noise.mean()
    error = math.sqrt(np.square(rest).sum() / variants / (seeds - 1) * 2 / seeds)
    found = against(values)
    assert [pair.name for pair in found] == [f"v{n + 1}" for n in range(variants)]
    for pair in found:
        low, high = pair.interval
        assert (high - low) / 2 / error == pytest.approx(limit, abs=0.006)
        assert pair.differs == (pair.p < 0.05)
    beyond = abs(found[0].mean) / error
    exact = 1 - _all_within(beyond, variants, variants * (seeds - 1))
    assert found[0].p == pytest.approx(exact, abs=5e-5)


def _all_within(limit: float, variants: int, freedom: int) -> float:
    """Dunnett's integral for equal numbers of seeds, over the baseline's noise and the scale."""
    from scipy.integrate import dblquad
    from scipy.stats import chi2, norm

    def density(z: float, s: float) -> float:
        low, high = (z + sign * limit * s * math.sqrt(2) for sign in (-1, 1))
        each = norm.cdf(high) - norm.cdf(low)
        return float(norm.pdf(z) * each**variants * chi2.pdf(freedom * s * s, freedom))

    whole, _ = dblquad(lambda z, s: density(z, s) * 2 * s * freedom, 1e-6, 5, -8, 8, epsabs=1e-6)
    return float(whole)


def test_intervals_of_unequal_seeds_hold_at_once() -> None:
    """By simulation: 5 seeds of two variants and 3 of three others, none of which differs."""
    random = np.random.default_rng(0)
    missed, rounds = 0, 100
    for _ in range(rounds):
        common = random.normal(size=5)
        values = {
            f"v{n}": {s: float(common[s] + 0.3 * random.normal()) for s in range(5 if n < 2 else 3)}
            for n in range(5)
        }
        missed += any(pair.differs for pair in against(values))
    assert missed / rounds == pytest.approx(0.05, abs=0.03)


def test_variants_are_compared_in_the_order_of_the_recipe(tmp_path: Path) -> None:
    recipe = {"name": "ablation_positions", "model": "resnet20", "phases": [[32, 8]], "lr": 0.1}
    seeds_of(tmp_path, "identity", (104, 86, 125, 104, 70), recipe=recipe)
    seeds_of(tmp_path, "plain", (100, 90, 120, 110), recipe=recipe)
    seeds_of(tmp_path, "standard", (70, 74, 89, 85), recipe=recipe)
    found = paired(find([tmp_path]), tuple(RECIPES["ablation_positions"].variants))
    assert [pair.name for pair in found] == ["standard", "identity"]
    assert [pair.seeds for pair in found] == [(0, 1, 2, 3)] * 2
    assert found[0].differences == pytest.approx([3.0, 1.6, 3.1, 2.5])
    assert found[0].differs
    assert not found[1].differs
    result = report(tmp_path, "--out", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "page.md").read_text()
    assert "standard - plain | 4 | +2.55 | 0.69 |" in text
    assert text.count("no difference shown") == 1


def test_other_variants_come_in_the_order_of_their_runs(tmp_path: Path) -> None:
    for minute, (variant, wrong) in enumerate(
        {"plain": (9, 9), "se4": (4, 5), "eca": (7, 8)}.items()
    ):
        where = {
            "cpu": "a processor",
            "torch": "2.13.0",
            "senetzoo": "0.2.0",
            "time": f"2026-01-01T00:0{minute}:00+00:00",
        }
        seeds_of(tmp_path, variant, wrong, environment=where)
    found = json.loads(report(tmp_path, "--out", tmp_path / "page.html", "--json").stdout)
    assert [each["variant"] for each in found["variants"]] == ["plain", "se4", "eca"]
    assert [each["variant"] for each in found["paired"]] == ["se4", "eca"]


def test_runs_of_other_recipes_are_neither_pooled_nor_paired(tmp_path: Path) -> None:
    recipe = {"name": "compare", "model": "lenet5", "phases": [[32, 8]]}
    gated = {**recipe, "model": "lenet5+se"}
    other = {"stem": "cifar", "compile": False}
    seeds_of(tmp_path / "old", "plain", (100, 120), recipe=recipe)
    seeds_of(tmp_path / "old", "se", (90, 95), recipe={**gated, "compile": True})
    seeds_of(tmp_path / "new", "plain", (10, 20), recipe={**recipe, **other})
    seeds_of(tmp_path / "new", "se", (30, 60), recipe={**gated, **other})
    out = tmp_path / "page.html"
    result = report(tmp_path / "old", "--out", out, "--json")
    assert "recipe" not in result.stderr
    whole = json.loads(result.stdout)["paired"]
    assert whole[0]["points"] == pytest.approx([1.0, 2.5])

    # Each version of one's own gate is a variant, paired with the same plain runs.
    for code, correct in (("abcdef12", (110, 125)), ("fedcba21", (90, 95))):
        own = {"own": code, "same": "0"}
        seeds_of(tmp_path / "code" / code, "own", correct, recipe=gated, own=own)
        seeds_of(tmp_path / "code" / code, "plain", (100, 120), recipe=recipe)
    found = json.loads(report(tmp_path / "code", "--out", tmp_path / "code.html", "--json").stdout)
    pairs = {(each["variant"], each["baseline"]): each["points"][0] for each in found["paired"]}
    assert pairs == {
        ("own (code abcdef)", "plain"): pytest.approx(-1.0),
        ("own (code fedcba)", "plain"): pytest.approx(1.0),
    }

    both = (tmp_path / "old", tmp_path / "new", "--out", out, "--json")
    result = report(*both)
    said = (
        "The runs have different recipes, which are not pooled or compared. "
        'recipe 1 (old/plain-0, old/plain-1, old/se-0, ...): stem=""; '
        'recipe 2 (new/plain-0, new/plain-1, new/se-0, ...): stem="cifar".'
    )
    assert result.stderr == f"{said}\n"
    assert said in page_of(out).words
    found = json.loads(result.stdout)
    names = [f"{name} (recipe {n})" for name in ("plain", "se") for n in (1, 2)]
    assert [each["variant"] for each in found["variants"]] == names
    assert [each["seeds"] for each in found["variants"]] == [[0, 1]] * 4
    note = next(text for text in page_of(out).words if "baseline" in text)
    assert note.startswith("The baseline is plain (recipe 1); senetzoo report --baseline chooses")
    assert "Differences are those after 3 epochs." in note
    assert "Not paired with the baseline: plain (recipe 2), se (recipe 2);" in note
    (pair,) = found["paired"]
    assert (pair["variant"], pair["baseline"]) == ("se (recipe 1)", "plain (recipe 1)")
    assert pair["interval"] == whole[0]["interval"]
    (pair,) = json.loads(report(*both, "--baseline", "plain (recipe 2)").stdout)["paired"]
    assert (pair["variant"], pair["points"]) == ("se (recipe 2)", pytest.approx([-2.0, -4.0]))

    # No variant has two recipes, but the one is not the other's.
    alone = [tmp_path / f"{part}-{n}" for part in ("old/plain", "new/se") for n in (0, 1)]
    found = json.loads(report(*alone, "--out", out, "--json").stdout)
    assert (found["paired"], found["by_image"]) == ([], [])
    assert "their recipes differ" in found["no_difference"]


def test_recipes_are_told_apart_by_what_most_do_not_share(tmp_path: Path) -> None:
    recipe = {"name": "r", "model": "lenet5", "lr": 0.1, "epochs": 12, "flip": True}
    write_run(tmp_path / "base", recipe=recipe)
    write_run(tmp_path / "fast", recipe={**recipe, "lr": 0.2, "epochs": 8})
    write_run(tmp_path / "plain", recipe={**recipe, "flip": False})
    said = report(tmp_path, "--out", tmp_path / "page.html").stderr.splitlines()[0]
    assert said.endswith(
        "compared. Most have epochs=12, lr=0.1, flip=true. recipe 1 (base): as most; "
        "recipe 2 (fast): epochs=8, lr=0.2; recipe 3 (plain): flip=false."
    )


def test_a_mixture_is_named(tmp_path: Path) -> None:
    recipe = {"name": "digits", "model": "lenet5", "epochs": 60}
    write_run(tmp_path / "one", recipe=recipe)
    model = {"name": "se_lenet5", "params": 61774}
    short = {**recipe, "model": "se_lenet5", "epochs": 3}
    write_run(tmp_path / "two", recipe=short, model=model)
    out = tmp_path / "page.html"
    said = "The runs differ in more than their networks: epochs."
    assert report(tmp_path, "--out", out).stderr == f"{said}\n"
    assert said in page_of(out).words
    write_run(tmp_path / "three", recipe={**short, "name": "other"}, model={**model, "name": "x"})
    said = f"The runs are of several experiments: digits (2 runs), other (1 run). {said}"
    assert report(tmp_path, "--out", out).stderr == f"{said}\n"


def test_copies_of_a_run_count_once(tmp_path: Path) -> None:
    """Experiments in several folders have the same plain runs."""
    for folder in ("one", "two"):
        seeds_of(tmp_path / folder, "plain", (80, 90))
    seeds_of(tmp_path / "one", "se", (70, 75))
    folders = (tmp_path / "one", tmp_path / "two")
    found = json.loads(report(*folders, "--out", tmp_path / "page.html", "--json").stdout)
    plain = next(each for each in found["variants"] if each["variant"] == "plain")
    assert (plain["seeds"], plain["accuracies"]) == ([0, 1], [0.92, 0.91])


def test_the_baseline_comes_first(tmp_path: Path) -> None:
    """In tables, legend and pairs; the seeds are one line with a band."""
    for variant, wrong in (("eca", (80, 90)), ("se", (90, 95)), ("plain", (100, 120))):
        seeds_of(tmp_path / "runs", variant, wrong)
    out, pngs = tmp_path / "page.html", tmp_path / "pngs"
    result = report(tmp_path / "runs", "--out", out, "--png", pngs, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.output)
    assert [run["variant"] for run in said["runs"]] == ["plain"] * 2 + ["eca"] * 2 + ["se"] * 2
    assert [each["variant"] for each in said["variants"]] == ["plain", "eca", "se"]
    assert said["variants"][0]["seeds"] == [0, 1]
    assert said["variants"][0]["mean"] == pytest.approx(0.89)
    assert [pair["baseline"] for pair in said["paired"]] == ["plain", "plain"]
    assert said["paired"][0]["points"] == pytest.approx([2.0, 3.0])
    seen = page_of(out)
    assert [row[0] for row in seen.rows if row[0].endswith(" - plain")] == [
        "eca - plain",
        "se - plain",
    ]
    assert seen.open["svg"] == 4  # the differences, and three curves
    legend = re.findall(r'<li><i style="background: (#\w+)"></i>(.*?)</li>', out.read_text())
    assert legend == list(zip(figures.COLORS, ("plain", "eca", "se"), strict=False))
    text = out.read_text()
    curve = text[text.index('id="accuracy-') :]
    assert curve.partition("</svg>")[0].count("fill-opacity: 0.18") == 6
    for name in ("differences", "loss", "accuracy", "lr"):
        picture = Image.open(pngs / f"{name}.png")
        assert min(picture.size) >= 300
        assert picture.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
    assert report(tmp_path / "runs", "--out", out, "--png", pngs).exit_code == 0
    own = pngs / "accuracy.png"
    picture.save(own)
    kept = own.read_bytes()
    result = report(tmp_path / "runs", "--out", out, "--png", pngs)
    assert (result.exit_code, own.read_bytes()) == (2, kept)
    assert f"The report can't replace {own}." in result.stderr

    result = report(tmp_path / "runs", "--out", out, "--baseline", "se", "--json")
    said = json.loads(result.output)
    assert [run["variant"] for run in said["runs"]][:2] == ["se", "se"]
    assert {pair["baseline"] for pair in said["paired"]} == {"se"}
    result = report(tmp_path / "runs", "--out", out, "--baseline", "plan")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: There is no variant 'plan' in these runs.\n"
        "The variants are eca, plain, se.\nDid you mean 'plain'?\n"
    )
    named = {"name": "ablation_gates", "model": "lenet5", "phases": [[32, 8]], "lr": 0.1}
    run = write_run(tmp_path / "one", variant="plain", recipe=named)
    result = report(run, "--out", tmp_path / "one.html", "--baseline", "cbam")
    assert result.exit_code == 2
    assert result.stderr.endswith("Type: senetzoo train ablation_gates --only cbam\n")


def test_training_notes_the_names_of_files() -> None:
    paths = tuple(Path(f"photos/cat/{n}.jpg") for n in range(3))
    wrong = {"mistakes": torch.tensor([2, 1])}
    files = LabeledFiles(paths, (0, 0, 1), ("cat", "dog"), "photos")
    named = {"files": json.dumps(["photos/cat/2.jpg", "photos/cat/1.jpg"])}
    assert evaluate.names(files, wrong) == named
    assert evaluate.names(dataclasses.replace(files, sources=(b"",) * 3), wrong) == {}
    assert evaluate.names(digits.load("test"), wrong) == {}


def test_mistakes_have_the_names_of_their_files(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    tensors = load_file(str(folder / "test.safetensors"))
    files = [f"/photos/test/cat/{n}.jpg" for n in range(3)]
    save_file(tensors, str(folder / "test.safetensors"), {"files": json.dumps(files)})
    out = tmp_path / "page.html"
    result = report(folder, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    (run,) = json.loads(result.output)["runs"]
    assert [mistake["file"] for mistake in run["mistakes"]] == files
    assert {"0.jpg", "1.jpg", "2.jpg"} <= set(page_of(out).words)
    assert 'title="/photos/test/cat/0.jpg"' in out.read_text()
    assert ", 2.jpg)" in out.with_suffix(".md").read_text()


def test_runs_of_one_seed_are_compared_by_image(tmp_path: Path) -> None:
    labels = torch.zeros(1000, dtype=torch.long)
    wrong = {"plain": range(300), "eca": range(350), "se": range(200, 420)}
    right = {}
    for name, those in wrong.items():
        guesses = labels.clone()
        guesses[list(those)] = 1
        right[name] = np.asarray(guesses == labels)
        write_run(tmp_path / name, labels=labels, guesses=guesses, variant=name)
    out = tmp_path / "page.html"
    result = report(tmp_path, "--out", out, "--baseline", "plain", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    eca, se = json.loads(result.stdout)["by_image"]
    assert (eca["run"], eca["baseline"], eca["points"]) == ("eca", "plain", -5.0)
    assert (se["only_right"], se["only_baseline_right"], se["images"]) == (200, 120, 1000)
    random = np.random.default_rng(0)
    drawn = random.integers(0, 1000, (4000, 1000))
    for name, row in (("eca", eca), ("se", se)):
        means = 100 * (right[name] * 1.0 - right["plain"])[drawn].mean(1)
        assert row["interval"] == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=0.2)
    seen = page_of(out)
    limits = "{:+.2f} to {:+.2f}".format(*se["interval"])
    assert ["se - plain", "+8.00", limits, "200", "120", "1,000"] in seen.rows
    assert any("the first run's accuracy minus that of the second" in text for text in seen.words)
    assert any("The intervals cover the choice" in words for words in seen.words)
    assert "| se - plain | +8.00 |" in out.with_suffix(".md").read_text()


def test_why_no_difference_is_shown(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path / name, variant=name) for name in "ab")
    lone = write_run(tmp_path / "lone", variant="b", seed=1)
    shuffled = write_run(tmp_path / "c", variant="c", labels=torch.ones(9).long(),
                         guesses=torch.ones(9).long())  # fmt: skip
    going = write_run(tmp_path / "d", variant="d", finished=False)
    ((pair,), why) = by_image(find([a, b]))
    assert (pair.name, pair.first, pair.only, pair.images, why) == ("b", "a", 0, 30, "")
    assert by_image(find([a])) == ([], "")
    for other, why in (
        (lone, "no other run has a seed of a"),
        (shuffled, "c and a are not of the same images"),
        (going, "d is not finished"),
    ):
        assert by_image(find([a, other])) == ([], why)
    (b / "test.safetensors").unlink()
    out = tmp_path / "page.html"
    result = report(a, b, "--out", out)
    text = (
        "No difference between the runs is shown: b has no test.safetensors. Several seeds "
        "of each network, trained on the same data, can show one."
    )
    assert (result.exit_code, result.stderr) == (0, f"{text}\n")
    assert text in page_of(out).words
    said = "Test accuracy in % by class. 1 of 2 runs recorded it."
    assert said in page_of(out).words
    assert said in out.with_suffix(".md").read_text()


@pytest.mark.parametrize("kind", ["known", "right", "unknown"])
def test_headings_have_something_below(tmp_path: Path, kind: str) -> None:
    labels = torch.arange(30) % 3
    guesses = None if kind == "known" else labels
    folder = write_run(tmp_path / "run", labels=labels, guesses=guesses)
    if kind == "unknown":  # by class, in the log alone
        edit(lambda lines: lines[-1].update(by_class=[[10, 10]] * 3))(folder)
        (folder / "test.safetensors").unlink()
    out = tmp_path / "page.html"
    assert report(folder, "--out", out).exit_code == 0
    for text in (out.read_text(), out.with_suffix(".md").read_text()):
        assert ("Classes" in text, "Confusions" in text, "mistakes" in text.lower()) == (
            True,
            kind != "unknown",
            kind == "known",
        )


def test_newcombe_as_published() -> None:
    """Fagerland, Lydersen and Laake 2014 (Statistics in Medicine 33), airway reactions."""
    assert newcombe(1, 1, 7, 12) == pytest.approx((-0.507, -0.026), abs=5e-4)
    assert newcombe(9, 0, 0, 0)[1] == pytest.approx(1 - wilson(9, 9)[0])
    assert newcombe(0, 0, 0, 0) == (-1, 1)


@pytest.mark.parametrize("wrong", [(90, 110), (100, 120), (97, 117)])
def test_equal_differences_show_nothing(tmp_path: Path, wrong: tuple[int, ...]) -> None:
    seeds_of(tmp_path, "plain", (100, 120))
    seeds_of(tmp_path, "se", wrong)
    out = tmp_path / "page.html"
    result = report(tmp_path, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    (pair,) = json.loads(result.stdout, parse_constant=pytest.fail)["paired"]
    expected = {
        "interval": None,
        "could_have_shown": None,
        "p": 1,
        "verdict": "no difference shown",
    }
    assert {key: pair[key] for key in expected} == expected
    text = out.with_suffix(".md").read_text(encoding="utf-8")
    mean = f"{(100 - wrong[0]) / 10:+.2f}"
    assert f"| se - plain | 2 | {mean} | 0.00 |  | no difference shown |  |" in text
    for said in (page_of(out).words, text.splitlines()):
        assert any(ALIKE in line for line in said)
    # As senetzoo compare has it.
    runs = find([tmp_path])
    variants = {"plain": {"model": "lenet5"}, "se": {"model": "lenet5+se4"}}
    recipe = RECIPES["ablation_positions"].recipe
    experiment = Experiment(recipe, variants=variants, seeds=(0, 1), quick={})
    made = table(runs, experiment, paired(runs, tuple(variants)))
    row = made["variants"][1]
    assert {key: row[key] for key in expected} == expected
    assert not row["shown"]
    (line,) = (
        line for line in _text(made, {8}, "", tmp_path).splitlines() if line.startswith("se ")
    )
    assert line.split()[-2:] == [mean, "no"]
    assert ALIKE in " ".join(_text(made, {8}, "", tmp_path).split())


def test_many_runs_have_few_gradient_plots_and_one_line_for_short_ones(tmp_path: Path) -> None:
    for variant in ("plain", "se"):
        for seed in range(3):
            lines = [epoch(n) for n in (1, 2)]
            folder = tmp_path / f"{variant}-{seed}"
            write_run(folder, variant=variant, seed=seed, lines=lines, epochs=2)
    write_run(tmp_path / "long", variant="long")
    runs = find([tmp_path])
    assert [each.title for each in figures.depth(runs)] == ["long", "plain-0", "se-0"]
    rows = page._fluctuation(runs).rows
    assert [row[:2] for row in rows] == [
        ["long", "3, from epoch 5"],
        ["6 runs", "too few tested epochs"],
    ]


def test_variants_without_common_seeds_are_not_compared(tmp_path: Path) -> None:
    write_run(tmp_path / "alone", variant="")
    assert paired(find([tmp_path])) == []
    for variant, seed in (("plain", 0), ("se", 0), ("se", 1)):
        write_run(tmp_path / f"{variant}-{seed}", variant=variant, seed=seed)
    assert paired(find([tmp_path])) == []


def test_fluctuation_by_hand(tmp_path: Path) -> None:
    accuracies = [0.1, 0.9, 0.1, 0.9, 0.5, 0.52, None, 0.49, 0.55, 0.56]
    lines = [epoch(n, test_accuracy=value) for n, value in enumerate(accuracies, 1)]
    (run,) = find([write_run(tmp_path / "run", lines=lines, finished=False)])
    # Epochs 6, 8, 9, 10: -3, +6 and +1 points.
    assert page.fluctuation(run) == pytest.approx((6, 3, 10 / 3, 3.0))
    rising = [epoch(n, test_accuracy=0.1 * n) for n in range(1, 9)]
    (run,) = find([write_run(tmp_path / "rising", lines=rising, finished=False)])
    assert page.fluctuation(run) == pytest.approx((5, 3, 10.0, 0.0))
    (run,) = find([write_run(tmp_path / "short", epochs=4, finished=False)])
    assert page.fluctuation(run) is None


def test_time(tmp_path: Path) -> None:
    (run,) = find([write_run(tmp_path / "run")])
    assert run.seconds == {"train": 160.0, "data": 8.0, "test": 16.0}
    assert run.images_per_second == pytest.approx(8 * 3000 / 160)
    assert page._time([run]).rows == [["run", "2 min 40 s", "8.0 s", "16.0 s", "150", "0"]]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (59.94, "59.9 s"),
        (59.97, "1 min 0 s"),
        (3599.4, "59 min 59 s"),
        (3599.7, "1 h 0 min"),
        (90000, "25 h 0 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_what_differs_between_runs(tmp_path: Path) -> None:
    shared = {"name": "r", "crop_scale": [0.08, 1.0], "flip": True}
    recipes = [{**shared, "lr": 0.1, "phases": [[32, 8]]}, {**shared, "lr": 0.2, "new": 1}]
    for seed, recipe in enumerate(recipes):
        write_run(tmp_path / f"run-{seed}", recipe=recipe, seed=seed)
    same, usual, differ = page.settings(find([tmp_path]), default_fields())
    assert ["name", "r"] in same
    assert usual == [["crop_scale", "0.08, 1.0"], ["flip", "True"]]
    assert ["environment: torch", "2.13.0"] in same
    assert ["model: params", "61,706"] in same
    assert not any("lenet5" in row for row in same)  # the name is in the table of results
    assert differ == [
        ["seed", "0", "1"],
        ["lr", "0.1", "0.2"],
        ["phases", "(32, 8)", ""],
        ["new", "", "1"],
    ]
    assert report(tmp_path, "--out", tmp_path / "page.html").exit_code == 0
    html, text = ((tmp_path / f"page.{end}").read_text() for end in ("html", "md"))
    folded = "<details><summary>Fields of the recipe with their default</summary>"
    for said in (html, text):
        before, rest = said.split(folded)
        assert ("flip" in before, "flip" in rest.partition("</details>")[0]) == (False, True)


def test_plots(tmp_path: Path) -> None:
    runs = find([write_run(tmp_path / "a"), write_run(tmp_path / "b")])
    plots = [*figures.curves(runs), *figures.depth(runs)]
    # Mathtext is not parsed, so that names are shown unchanged.
    assert not any("mathdefault" in plot.svg for plot in plots)
    assert [plot.name for plot in plots] == ["loss", "accuracy", "lr", "gradient-1", "gradient-2"]
    ids = [name for plot in plots for name in re.findall(r'\bid="([^"]+)"', plot.svg)]
    assert len(ids) == len(set(ids))  # they share one page
    for plot in plots:
        used = re.findall(r'(?:href="|url\()#([^")]+)', plot.svg)
        assert used
        assert set(used) <= set(ids)
        inked = plot.inked("currentColor")
        assert "currentColor" in inked
        assert "#010203" not in inked
    # Each panel of gradients has its legend, below the axes.
    for plot in plots[-2:]:
        (legend,), (axes,) = plot.figure.legends, plot.figure.axes
        assert [text.get_text() for text in legend.get_texts()] == ["stem", "stage 1", "head"]
        assert plot.svg.count(">stage 1</text>") == 1
        plot.figure.draw_without_rendering()
        assert legend.get_window_extent().y1 <= axes.get_tightbbox().y0
    # A single test is a larger dot than those of the training; an epoch is a whole number.
    (run,) = find([write_run(tmp_path / "short", epochs=1)])
    loss, *_, norms = *figures.curves([run]), *figures.depth([run])
    assert [line.get_marker() for line in loss.figure.axes[0].lines][:2] == [".", "o"]
    for plot in (loss, norms):
        axes = plot.figure.axes[0]
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low < tick < high] == [1]


@pytest.mark.parametrize("count", [7, 12, 20])
def test_many_colors_are_legible_on_both_pages(tmp_path: Path, count: int) -> None:
    """By WCAG's contrast, on the backgrounds of the page."""

    def luminance(color: str) -> float:
        parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    norms = {f"stage {n}": 1.0 for n in range(count)}
    lines = [epoch(n, gradient_norm=norms) for n in (1, 2)]
    (plot,) = figures.depth(find([write_run(tmp_path / "run", lines=lines, epochs=2)]))
    for colors in (
        figures.colors(count),
        [line.get_color() for line in plot.figure.axes[0].lines],
    ):
        assert len(set(colors)) == count
        for color in colors:
            for other in ("#ffffff", "#14181c"):
                dark, bright = sorted((luminance(color), luminance(other)))
                assert (bright + 0.05) / (dark + 0.05) >= 3, (color, other)


@pytest.mark.parametrize(
    "names", [[f"digits-se_resnet20_standard-{n}" for n in range(6)], [f"$x^${'x' * 80}"]]
)
def test_titles_and_legends_have_room(tmp_path: Path, names: list[str]) -> None:
    runs = find([write_run(tmp_path / name) for name in names])
    for plot in [*figures.curves(runs)[:1], *figures.depth(runs[:1])]:
        plot.png()
        plot.figure.draw_without_rendering()
        whole, legends = plot.figure.bbox, plot.figure.legends
        texts = [plot.figure._suptitle, *(t for each in legends for t in each.get_texts())]
        assert texts
        for text in texts:
            at = text.get_window_extent()
            assert whole.x0 <= at.x0 < at.x1 <= whole.x1, text
            assert whole.y0 <= at.y0 < at.y1 <= whole.y1, text


def edit(change: Callable[[list[Any]], Any]) -> Callable[[Path], Any]:
    """A change of the log's lines, each a JSON object."""

    def apply(folder: Path) -> None:
        path = folder / "log.jsonl"
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        change(lines)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    return apply


def garble(folder: Path) -> None:
    path = folder / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([lines[0], "{", *lines[2:]]), encoding="utf-8")


def cut(folder: Path) -> None:
    path = folder / "test.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


TRAINED = (
    "Give the folder of a run, such as runs/digits-lenet5-0, which senetzoo train digits writes"
)
AGAIN = "\nGive another folder, or delete this one and train again"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (garble, "{}/log.jsonl is broken at line 2.\nIt isn't valid JSON." + AGAIN),
        (edit(lambda lines: lines.insert(1, [1])), "{}/log.jsonl is broken at line 2.\n"
         "It is [1], not an object whose kind is run, epoch, resume, end." + AGAIN),
        (edit(lambda lines: lines.pop(0)),
         "{}/log.jsonl is broken at line 1.\nIt doesn't describe a run." + AGAIN),
        (edit(lambda lines: lines[2].update(kind="spam")), "{}/log.jsonl is broken at line 3.\n"
         'It is {{"kind": "spam", "epoch": 2, "size": 32, "lr": 0.05, "train_loss": 0.75, '
         '"tra..., not an object whose kind is run, epoch, resume, end.' + AGAIN),
        (edit(lambda lines: lines[0].pop("model")),
         "{}/log.jsonl is broken at line 1.\nThe field 'model' is missing." + AGAIN),
        (edit(lambda lines: lines[1].pop("lr")),
         "{}/log.jsonl is broken at line 2.\nThe field 'lr' is missing." + AGAIN),
        (edit(lambda lines: lines[-1].pop("test_correct")),
         "{}/log.jsonl is broken at line 10.\nThe field 'test_correct' is missing." + AGAIN),
        (edit(lambda lines: lines.__delitem__(slice(1, None))),
         "The run in {} has nothing to report yet.\nIts first epoch is not finished.\n"
         "Wait for it, or run the command that started it again"),
        (lambda folder: (folder / "log.jsonl").unlink(),
         "There is no run in {}.\nNeither it nor a folder in it has log.jsonl.\n" + TRAINED),
    ],
)  # fmt: skip
def test_broken_runs(tmp_path: Path, change: Callable[[Path], Any], message: str) -> None:
    folder = write_run(tmp_path / "run")
    change(folder)
    out = tmp_path / "page.html"
    result = report(folder, "--out", out)
    assert result.exit_code == 2
    assert result.stderr == f"error: {message.format(folder)}\n"
    assert not out.exists()


def test_broken_test_images(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    cut(folder)
    with pytest.raises(
        ConfigError, match=r"test\.safetensors can't be read\.\nIt isn't a complete file"
    ):
        find([folder])
    folder = write_run(tmp_path / "nan")
    tensors = load_file(str(folder / "test.safetensors"))
    tensors["logits"][3, 1] = torch.nan
    save_file(tensors, str(folder / "test.safetensors"))
    with pytest.raises(ConfigError, match="has logits that aren't finite"):
        find([folder])


def test_wrong_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    missing = (
        "error: There is no run in {}.\n"
        "A run is a folder that senetzoo train, finetune, compare or a Recorder wrote.\n"
    )
    assert report("none").stderr == f"{missing.format('none')}{TRAINED}\n"
    write_run(tmp_path / "runs" / "b")
    write_run(tmp_path / "runs" / "a")
    there = ", ".join(str(Path("runs", name)) for name in "ab")
    for folder in ("none", Path("runs", "none")):
        said = f"{missing.format(folder)}Give the folder of a run, such as {there}\n"
        assert report(folder).stderr == said
    a = write_run(tmp_path / "a", data="A")
    b = write_run(tmp_path / "b", classes=("x", "y", "z"), data="B")
    result = report(a, b, "--out", tmp_path / "page.html")
    assert result.stderr == (
        "error: The runs can't share a report.\n"
        f"Their classes differ: their data sets are A ({a}), B ({b}).\n"
        "Give the folders of runs on one data set\n"
    )
    result = report(a, "--out", tmp_path / "page.pdf")
    assert result.stderr == (
        f"error: A report can't be written to {tmp_path / 'page.pdf'}.\n"
        "It is an HTML page, with a Markdown file of the same name beside it.\n"
        f"Type for example: --out {tmp_path / 'page.html'}\n"
    )


def test_a_report_replaces_reports_and_no_other_file(tmp_path: Path) -> None:
    run, page = write_run(tmp_path / "run"), tmp_path / "page.html"
    assert not report(run, "--out", page).output.endswith("(replaced)\n")
    before = page.read_bytes()
    assert report(run, "--out", page).output.endswith("page.md (replaced)\n")
    assert page.read_bytes() == before
    assert report(write_run(tmp_path / "other"), "--out", page).exit_code == 0
    assert page.read_bytes() != before
    notes = page.with_suffix(".md")
    notes.write_text(edited := notes.read_text() + "We conclude ...\n")
    result = report(run, "--out", page)
    assert f"replace {notes}.\nIt is a report that was edited.\nGive other" in result.stderr
    assert notes.read_text() == edited
    assert report(run, "--out", tmp_path / "cut.html").exit_code == 0
    cut = tmp_path / "cut.html"
    cut.write_text(without := cut.read_text().rpartition("<!--")[0])
    assert "that was edited" in report(run, "--out", cut).stderr
    assert cut.read_text() == without
    for name in ("index.html", "README.md"):
        theirs = tmp_path / name
        theirs.write_text("Made by `senetzoo report`, says its author.\n")
        result = report(run, "--out", theirs.with_suffix(".html"))
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"The report can't replace {theirs}." in result.stderr
        assert theirs.read_text() == "Made by `senetzoo report`, says its author.\n"
        assert not (tmp_path / "README.html").exists()


@pytest.mark.parametrize("name", ["loss.svg", "mistakes-1.png"])
def test_pictures_replace_those_of_a_report_and_no_other_file(tmp_path: Path, name: str) -> None:
    run, out, folder = (
        write_run(tmp_path / "run"),
        tmp_path / "page.html",
        tmp_path / "page-figures",
    )
    folder.mkdir()
    theirs = folder / name
    theirs.write_text("made by hand")
    result = report(run, "--out", out)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"The report can't replace {theirs}." in result.stderr
    assert [*tmp_path.rglob("page*"), *folder.iterdir()] == [folder, theirs]
    assert theirs.read_text() == "made by hand"
    theirs.unlink()

    # A new report deletes pictures that only the old one shows, and no others.
    assert report(run, write_run(tmp_path / "other"), "--out", out).exit_code == 0
    (folder / "copy.svg").write_bytes((folder / "loss.svg").read_bytes())
    (folder / "mistakes-2.png").write_text("made by hand")
    assert report(run, "--out", out).exit_code == 0
    text = out.with_suffix(".md").read_text()
    shown = set(re.findall(r"page-figures/([^)]+)", text))
    assert {file.name for file in folder.iterdir()} == {*shown, "copy.svg", "mistakes-2.png"}


@pytest.mark.parametrize(
    ("keep", "part", "kept", "chose"),
    [
        (("last",), "test", "the final network of a run, not of its best epoch", False),
        (("best",), "test", "the epoch that did best on the validation images", False),
        (("best",), "val", "the epoch that did best on the validation images", True),
        (
            ("best", "last"),
            "val",
            "or of the epoch that did best on the validation images if",
            True,
        ),
    ],
)
def test_both_pages_say_what_the_accuracies_are(
    tmp_path: Path, keep: tuple[str, ...], part: str, kept: str, chose: bool
) -> None:
    tested = "test" if part == "test" else "val"
    lines = [
        {key.replace("test_", f"{tested}_"): value for key, value in epoch(n).items()}
        for n in range(1, 9)
    ]
    runs = [
        write_run(tmp_path / each, recipe={"name": "r", "keep": each}, variant=each, lines=lines)
        for each in keep
    ]
    if part == "val":
        for run in runs:
            edit(lambda lines: lines[-1].update(part="val"))(run)
    out = tmp_path / "page.html"
    assert report(*runs, "--out", out).exit_code == 0
    images = "validation" if part == "val" else "test"
    text = out.with_suffix(".md").read_text()
    for said in (page_of(out).words, text.splitlines()):
        (about,) = (line for line in said if "made by senetzoo" in line)
        assert kept in about
        assert f"The interval covers the choice of {images} images only" in about
        assert f"so it can be below the {images} accuracy." in about
        assert about.endswith(f" {chose_epoch('The validation images')}") == chose
        assert "made by senetzoo 0.1.0." in about
        notes = [
            f"How much the {images} accuracy",
            f"{images.capitalize()} accuracy in % by class.",
            "The norm of",
        ]
        notes += ["Each row is the first run"] * (len(runs) > 1)
        for note in notes:
            assert sum(line.startswith(note) for line in said) == 1, note
