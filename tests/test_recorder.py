"""Runs recorded from a custom training loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support import commands
from support.runs import log_of
from torch import nn
from torch.nn import functional as F

import senetzoo
from senetzoo import Recorder
from senetzoo.data import digits
from senetzoo.errors import ConfigError
from senetzoo.report.run import read
from senetzoo.runs import read_summary

CLASSES = ("cat", "dog", "ship")
EPOCH: dict[str, Any] = {"train_loss": 1.0, "train_accuracy": 0.5}


def test_a_loop_of_one_s_own_leaves_a_run(tmp_path: Path) -> None:
    test = digits.load("test").first(5)
    model = senetzoo.create("lenet5+se4", seed=0)
    preprocessing = senetzoo.transforms(senetzoo.load("lenet5"))
    images = torch.stack([preprocessing(image) for image in test.images.permute(0, 3, 1, 2)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    folder = tmp_path / "mine"
    with Recorder(
        folder,
        model,
        classes=test.classes,
        data="digits",
        train_images=50,
        seed=7,
        variant="se",
        preprocessing=preprocessing,
        settings={"optimizer": "sgd"},
    ) as run:
        for _ in range(2):
            logits = model(images)
            loss = F.cross_entropy(logits, test.labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            right = (logits.argmax(1) == test.labels).float().mean()
            run.epoch(train_loss=loss, train_accuracy=right, test_accuracy=right, lr=0.01)
        logits = model.eval()(images)
        end = run.end(logits, test.labels)

    found = read(folder, "mine")
    assert found.header["recipe"] == {
        "name": "own loop",
        "model": "lenet5+se4",
        "optimizer": "sgd",
    }
    assert (found.header["seed"], found.header["variant"]) == (7, "se")
    assert [line["epoch"] for line in found.epochs] == [1, 2]
    assert found.predictions is not None
    assert torch.allclose(found.predictions.logits.float(), logits, atol=2e-2)
    right = int((logits.argmax(1) == test.labels).sum())
    assert found.tally is not None
    assert (found.tally.right, found.tally.total) == (right, 50)
    assert end["test_correct"] == read_summary(folder)["test_correct"] == right

    assert torch.equal(senetzoo.load(folder)(images), logits)
    told = commands.run("eval", folder, "digits", "--json")
    assert told.exit_code == 0
    page = commands.run("report", folder, "--out", tmp_path / "report.html", "--json")
    assert page.exit_code == 0
    (line,) = json.loads(page.stdout)["runs"]
    assert line["accuracy"] == right / 50
    assert "lenet5+se4" in (tmp_path / "report.md").read_text("utf-8")


def test_a_loop_that_breaks_leaves_an_unfinished_run(tmp_path: Path) -> None:
    net = nn.Linear(4, 3)
    run = Recorder(tmp_path, net, classes=CLASSES)

    def loop() -> None:
        with run:
            run.epoch(**EPOCH)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop()
    found = read(tmp_path, "broken")
    assert found.end is None
    assert len(found.epochs) == 1
    assert commands.run("report", tmp_path, "--out", tmp_path / "page.html").exit_code == 0
    with pytest.raises(ConfigError, match="has ended"):
        run.epoch(**EPOCH)


def test_of_another_library_s_network_the_figures_are_kept(tmp_path: Path) -> None:
    with Recorder(tmp_path, nn.Linear(4, 3), classes=CLASSES) as run:
        run.epoch(**EPOCH)
        run.end(torch.eye(3), torch.tensor([0, 1, 1]))
    found = read(tmp_path, "linear")
    assert found.header["model"] == {"name": "Linear", "params": 15}
    assert found.by_class[1].right == 1
    assert not (tmp_path / "config.json").exists()


def test_variants_of_own_loops_are_paired(tmp_path: Path) -> None:
    for variant, rights in (("plain", (1, 2)), ("gate", (2, 3))):
        for seed, right in enumerate(rights):
            folder = tmp_path / f"{variant}-{seed}"
            net = nn.Linear(4, 3)
            with Recorder(folder, net, classes=CLASSES, variant=variant, seed=seed) as run:
                run.epoch(**EPOCH)
                run.end(torch.eye(3), torch.tensor([0, 1, 2][:right] + [0] * (3 - right)))
    assert commands.run("report", tmp_path, "--out", tmp_path / "page.html").exit_code == 0
    assert "gate - plain" in (tmp_path / "page.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"train_loss": float("nan")}, "train_loss"),
        ({"train_accuracy": 93.0}, "fraction from 0 to 1"),
    ],
)
def test_wrong_figures_are_not_noted(tmp_path: Path, figures: dict[str, float], said: str) -> None:
    with Recorder(tmp_path, nn.Linear(4, 3), classes=CLASSES) as run:
        with pytest.raises(ConfigError, match=said):
            run.epoch(**{**EPOCH, **figures})
        assert not log_of(tmp_path, "epoch")


def test_what_does_not_fit(tmp_path: Path) -> None:
    net = nn.Linear(4, 3)
    for options, said in (
        ({"classes": "abc"}, "names"),
        ({"classes": ()}, "names"),
        ({"classes": CLASSES, "settings": {"loss": object()}}, "JSON"),
    ):
        with pytest.raises(ConfigError, match=said):
            Recorder(tmp_path, net, **options)
    with pytest.raises(ConfigError, match="10 classes"):
        Recorder(tmp_path, senetzoo.create("lenet5", seed=0), classes=CLASSES)
    assert not list(tmp_path.iterdir())
    run = Recorder(tmp_path, net, classes=CLASSES)
    with pytest.raises(ConfigError, match="There is a run"):
        Recorder(tmp_path, net, classes=CLASSES)
    with pytest.raises(ConfigError, match="no epoch"):
        run.end(torch.eye(3), torch.arange(3))
    run.epoch(**EPOCH)
    for logits, labels in (
        (torch.eye(4), torch.arange(4)),
        (torch.eye(3), torch.tensor([0, 1, 3])),
        (torch.eye(3) / 0, torch.arange(3)),
        (torch.eye(3), torch.zeros(3)),
    ):
        with pytest.raises(ConfigError, match="logits"):
            run.end(logits, labels)
    assert not (tmp_path / "summary.json").exists()
