"""Every command that the documents show runs, in its short form, in the order of its page.

The recipes of `senetzoo train` run in tests/test_train_recipes.py, networks that are fetched in
those of the downloads, the app and the benchmarks in their own tests.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from test_docs import fences

import senetzoo
from senetzoo.cli import main
from senetzoo.data.cifar import CIFAR10

WALKS = {
    "student": ("docs/student.md", "docs/inspect.md"),
    "researcher": ("docs/researcher.md", "docs/own_gates.md"),
    "engineer": (
        "docs/engineer.md",
        "README.md",
        "docs/training.md",
        "docs/evaluate.md",
        "docs/deploy.md",
    ),
}
# Other words for what is large, is fetched, or has no end in a test.
INSTEAD = {
    "resnet50": "lenet",
    "resnet50+se16": "lenet+se16",
    "cifar10": "CIFAR10",
    "new_photos/": "photos/",
    "auto": "0.5",  # no answer of a quick run is sure
}
LEFT_OUT = ("app", "bench")
# Words that --quick does not go with, and how many others follow them.
LONG = {"--time": 1, "--epochs": 1, "--seeds": 1}
RECIPES = ("digits", "ablation_positions")
OTHER_EXPORT = re.compile(r"^senetzoo export (?!.* --output photos\.onnx$)")


def pictures(root: Path, names: tuple[str, ...], count: int, side: int) -> None:
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            draw = np.random.default_rng((label, number, count))
            pixels = draw.integers(0, 120, (side, side, 3), dtype=np.uint8)
            pixels[..., label % 3] += 120
            Image.fromarray(pixels).save(root / name / f"{number}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that has what the pages speak of."""
    root, before = tmp_path_factory.mktemp("walks"), Path.cwd()
    pictures(root / "photos", ("daisy", "rose", "tulip"), 12, 40)
    for name in ("holiday", "folder"):
        pictures(root, (name,), 2, 64)
    Image.new("RGB", (80, 60), "red").save(root / "photo.jpg")
    pictures(root / "CIFAR10" / "train", CIFAR10.classes, 8, 32)
    for test in ("CIFAR10/test", "validation"):
        pictures(root / test, CIFAR10.classes, 1, 32)
    module = next(body for body in fences("docs/own_gates.md", "python") if "ChannelScale" in body)
    (root / "my_module.py").write_text(module, encoding="utf-8")
    torch.save(senetzoo.create("lenet", seed=0).state_dict(), root / "mine.pth")
    os.chdir(root)
    # What one page does and another goes on with.
    run("senetzoo finetune photos/")
    run("senetzoo train ablation_positions --data CIFAR10 --only plain --only pre --seed 0")
    yield root
    os.chdir(before)


def short(line: str) -> list[str]:
    """A command as a test runs it; nothing for one that it does not."""
    program, *words = [INSTEAD.get(w, w) for w in shlex.split(line, comments=True)] or [""]
    if (
        program != "senetzoo"
        or words[0] in LEFT_OUT
        or (words[0] == "train" and words[1] not in RECIPES)
        or (words[0] == "report" and words[1].startswith("runs/cifar10_four_nets"))
    ):
        return []
    for word, more in LONG.items():
        if word in words:
            del words[words.index(word) : words.index(word) + 1 + more]
    if words[0] in ("train", "finetune", "compare"):
        words += ["--quick", "--threads", "1", "--workers", "0"]
    if words[0] == "compare":
        words += ["--seeds", "2"]
        words += ["--data", "CIFAR10"] * ("--data" not in words)
    return words


def run(line: str) -> None:
    words = short(line)
    if words:
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, (line, words, done.output)


@pytest.mark.parametrize("walk", WALKS)
def test_every_command_of_a_walk_runs(
    walk: str, place: Path, request: pytest.FixtureRequest
) -> None:
    for library in ("onnxruntime", "openvino", "nncf", "matplotlib", "scipy", "sklearn"):
        pytest.importorskip(library)
    for page in WALKS[walk]:
        for body in fences(page, "sh"):
            for line in body.splitlines():
                # Tests of the formats write these files too.
                if request.config.getoption("--slow") or not OTHER_EXPORT.search(line):
                    run(line)
