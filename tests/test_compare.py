"""``senetzoo compare``: paired runs of a network with and without gates."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support import commands
from support.runs import own_gate, weights_of

from senetzoo.cli.compare import compared
from senetzoo.errors import ConfigError, PolicyError

ASK = ("compare", "--model", "lenet5", "--data", "digits", "--quick", "--seeds", "2")


def test_a_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("gates_to_compare.py").write_text(own_gate("ChannelScale"), encoding="utf-8")
    ask = (
        *ASK,
        "--set",
        "images_per_class=8",
        "--policy",
        "gates_to_compare:ChannelScale@pre",
        "--policy",
        "eca/s1",
    )
    result = commands.run(*ask, "--json")
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert json.loads(Path("runs/compare-lenet5/compare.json").read_text("utf-8")) == made
    plain, own, eca = made["variants"]
    assert [v["model"] for v in made["variants"]] == [
        "lenet5",
        "lenet5+channel_scale@pre",
        "lenet5+eca/s1",
    ]
    assert "difference" not in plain
    accuracy: dict[str, list[float]] = {}
    for variant in ("plain", "channel_scale@pre", "eca_s1"):
        for seed in range(2):
            folder = Path(made["folder"], f"{variant}-{seed}")
            summary = json.loads((folder / "summary.json").read_text("utf-8"))
            assert summary["seed"] == seed
            accuracy.setdefault(variant, []).append(100 * summary["test_accuracy"])
    values = np.array([accuracy[v] for v in ("plain", "channel_scale@pre", "eca_s1")])
    rest = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    # 5.42: Dunnett's 5 % point for two variants and 2 degrees of freedom.
    half = 5.42 * math.sqrt(np.square(rest).sum() / 2 * 2 / 2)
    for gain, row in zip(values[1:].mean(1) - values[0].mean(), (own, eca), strict=True):
        assert row["difference"] == pytest.approx(gain, abs=1e-3)
        assert row["interval"] == pytest.approx([gain - half, gain + half], rel=0.01, abs=0.01)
        assert row["shown"] == (abs(gain) > half) == (row["p"] < 0.05)
    svg = Path("runs/compare-lenet5/compare.svg").read_text("utf-8")
    assert svg.startswith("<svg")
    assert "channel_scale@pre" in svg

    # Same trunk and same batches: paired runs differ only in the gate.
    first = Path("runs/compare-lenet5/eca_s1-0")
    before = weights_of(first)
    changed = (first / "summary.json").stat().st_mtime_ns
    again = commands.run(*ask)
    assert again.exit_code == 0
    assert (first / "summary.json").stat().st_mtime_ns == changed
    assert all(torch.equal(value, before[key]) for key, value in weights_of(first).items())
    assert max(map(len, again.stdout.splitlines()[-8:])) <= 80

    # More seeds of another recipe would spoil the folder, one after another or at once.
    for more in ((), ("--parallel", "2")):
        other = commands.run(*ask, "--seeds", "3", "--set", "lr=0.5", *more)
        assert other.exit_code == 2
        assert other.stderr.startswith("error: runs/compare-lenet5/")
        assert "It has lr=0.05, and lr=0.5 was requested.\nGive another" in other.stderr
        assert not Path("runs/compare-lenet5/plain-2").exists()

    report = commands.run("report", "runs/compare-lenet5")
    assert report.exit_code == 0
    text = Path("report.md").read_text("utf-8")
    assert "eca\\_s1 - plain" in text
    assert "plain - " not in text


def test_pairs_start_from_one_trunk() -> None:
    experiment = compared("lenet5", ["se4", "eca"], "digits", None, 3)
    models = [recipe.build(10, 1, 2) for recipe in experiment.recipes().values()]
    plain, *others = (model.state_dict() for model in models)
    for other in others:
        assert len(other) > len(plain)
        assert all(torch.equal(value, other[key]) for key, value in plain.items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--policy", "se4@inner"), "positions pre, standard"),
        (("--policy", "se4", "--policy", "se4"), "given twice"),
        (("--policy", "se4", "--set", "model=lenet5"), "--model with each --policy"),
        (("--policy", "se4", "--recipe", "ablation_gates"), "already an experiment"),
        (("--policy", "se4", "--recipe", "digit"), "digits"),
        (("--policy", "no_such_module:Gate"), "can't be imported"),
        (("--policy", "se4", "--seeds", "1"), "--seeds"),
        ((), "--policy"),
    ],
)
def test_what_can_t_be_compared(
    options: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = commands.run(*ASK, *options)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert not Path("runs").exists()


def test_the_recipe_suits_the_data(tmp_path: Path) -> None:
    photos, cifar = tmp_path / "photos", tmp_path / "cifar"
    for folder in (tmp_path / "flower_photos", photos / "cat", cifar / "cifar-10-batches-py"):
        folder.mkdir(parents=True)
    found = [
        compared("resnet20", ["se4"], where, None, 2).recipe.data
        for where in ("digits", None, str(tmp_path / "flower_photos"), str(photos))
    ]
    assert found == ["digits", "cifar10", "flowers5", "folder"]
    assert compared("resnet20", ["se4"], str(cifar), None, 2).recipe.data == "cifar10"
    with pytest.raises(PolicyError):
        compared("resnet20", ["nothing"], "digits", None, 2)
    with pytest.raises(ConfigError):
        compared("resnet2", ["se4"], "digits", None, 2)
