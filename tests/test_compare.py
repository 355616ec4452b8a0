"""``senetzoo compare``: paired runs of a network with and without gates."""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from support import commands
from support.runs import log_of, own_gate, weights_of
from test_finetune import photos

import senetzoo
from senetzoo._utils.terminal import say_once
from senetzoo.cli.compare import compared
from senetzoo.errors import ConfigError, PolicyError
from senetzoo.spec import gates_of

ASK = ("compare", "--model", "lenet5", "--data", "digits", "--quick", "--seeds", "2")


def test_a_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("gates_to_compare.py").write_text(own_gate("ChannelScale"), encoding="utf-8")
    check = (
        *ASK,
        "--set",
        "images_per_class=8",
        "--policy",
        "gates_to_compare:ChannelScale@pre",
        "--policy",
        "eca/s1",
    )
    ask = [word for word in check if word != "--quick"]
    ask += ["--no-compile", "--set", "phases=((32, 2),)"]
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
    lines = again.stdout.splitlines()
    assert max(map(len, lines[-10:])) <= 80
    images = summary["test_images"]
    assert (made["test_images"], made["quick"]) == (images, False)
    assert f"lenet5 on {made['data']}, 2 seeds, 2 epochs, {images} test images" in lines
    assert f"could have shown: {own['could_have_shown']:.2f} points" in again.stdout
    # In another folder it is named, so that the command resumes there.
    assert "--out" not in made["command"]
    other = commands.run(*ask, "--out", "an other", "--json")
    command = json.loads(other.stdout)["command"]
    assert shlex.split(command)[-2:] == ["--out", "an other"]
    (begun,) = log_of(Path("an other/plain-0"), "run")
    assert begun["command"] == command

    # A check claims nothing. Without --quick, the same recipe is the same check.
    quick = commands.run(*check, "--out", "quick")
    assert f"Quick check: one epoch, tested on {images} images. It is not a result." in quick.stdout
    same = commands.run(*ask[:-1], "phases=((32, 1),)", "--out", "quick", "--json")
    assert (same.exit_code, json.loads(same.stdout)["quick"]) == (0, True), same.output
    said = json.loads(commands.run("report", "quick", "--json").stdout)
    assert (said["paired"], said["by_image"]) == ([], [])
    assert "a quick check is not a result" in said["no_difference"]
    assert not Path("quick/compare.svg").exists()
    for text in (quick.stdout, same.stdout):
        assert not re.search("shown|verdict|difference|interval|svg", text), text

    # More seeds of another recipe would spoil the folder, one after another or at once.
    for more in ((), ("--parallel", "2")):
        other = commands.run(*ask, "--seeds", "3", "--set", "lr=0.5", *more)
        assert other.exit_code == 2
        assert other.stderr.startswith("error: runs/compare-lenet5/")
        assert (
            "It has lr=0.05; lr=0.5 was requested.\nTo resume it, add --set lr=0.05; or "
            in other.stderr
        )
        assert not Path("runs/compare-lenet5/plain-2").exists()

    report = commands.run("report", "runs/compare-lenet5")
    assert report.exit_code == 0
    text = Path("report.md").read_text("utf-8")
    assert text.count(f"\n{made['command']}\n") == 1
    assert "eca\\_s1 - plain" in text
    assert "plain - " not in text


def test_small_photographs_are_told_of_once_and_with_what_to_type(tmp_path: Path) -> None:
    for part in ("train", "val"):
        photos(tmp_path / "data" / part, {"red": 8, "green": 8}, side=32)
    ask = ["compare", "--model", "resnet10", "--policy", "se4", "--data", str(tmp_path / "data")]
    ask += ["--seeds", "2", "--set", "phases=((32, 1),)", "--quick", "--set", "batch=8"]
    ask += ["--workers", "0", "--out", str(tmp_path / "out")]
    say_once.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        done = commands.run(*ask)
    assert done.exit_code == 0, done.output
    assert done.stderr.count("pixels, but the network is built for 224x224") == 1
    assert "--set stem=cifar" in done.stderr


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
        (("--policy", "se", "--policy", "se16@standard"), "se and se16@standard are the same"),
        (("--policy", "se4", "--policy", "none"), "plain and none are the same"),
        (
            ("--model", "se_lenet5+none", "--policy", "eca@pre"),
            "eca@pre can't be put on",
        ),
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


def test_runs_of_code_that_was_edited_since_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    file, run = Path("gates_to_edit.py"), Path("runs/compare-lenet5/half_scale@pre-0")
    file.write_text(own_gate("HalfScale"), encoding="utf-8")
    ask = (*ASK, "--set", "images_per_class=8", "--policy", "gates_to_edit:HalfScale@pre")
    assert commands.run(*ask).exit_code == 0
    file.write_text(own_gate("HalfScale").replace("0.5", "0.25"), encoding="utf-8")
    del sys.modules["gates_to_edit"]
    table = Path("runs/compare-lenet5/compare.json").stat().st_mtime_ns
    trained = ["train", "digits", "--quick", "--set", "images_per_class=8", "--out", str(run)]
    trained += ["--register", "gates_to_edit:HalfScale", "--set", "model=lenet5+half_scale@pre"]
    trained += ["--set", "name=compare"]
    for changed in (None, "summary.json"):  # also a run that isn't finished
        if changed is not None:
            (run / changed).unlink()
        for typed in ([*ask, "--seeds", "3"], [*ask, "--parallel", "2"], trained):
            result = commands.run(*typed)
            assert result.exit_code == 2
            assert result.stderr.startswith(
                f"error: The run in {run} began with another version of gates_to_edit:HalfScale.\n"
            )
    assert not Path("runs/compare-lenet5/plain-2").exists()
    assert Path("runs/compare-lenet5/compare.json").stat().st_mtime_ns == table
    # Older runs don't have the version.
    log = (run / "log.jsonl").read_text("utf-8").splitlines()
    header = json.loads(log[0])
    assert list(header.pop("own")) == ["half_scale"]
    (run / "log.jsonl").write_text("\n".join([json.dumps(header), *log[1:], ""]), "utf-8")
    assert commands.run(*trained).exit_code == 0


@pytest.mark.parametrize(
    ("model", "policy", "named"),
    [
        ("lenet5", "se4", "lenet5+se4"),
        ("lenet5+se4", "eca", "lenet5+se4|eca"),
        ("lenet5+se4@pre/s1+eca/s2", "eca@pre", "lenet5+se4@pre/s1+eca/s2|eca@pre"),
        ("lenet5+se4", "none", "lenet5+none"),
        ("se_lenet5+se4@pre", "none", "se_lenet5+none"),
    ],
)
def test_a_policy_is_put_on_the_network_as_it_is_named(
    model: str, policy: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    say_once.cache_clear()
    recipes = compared(model, [policy], "digits", None, 2).recipes()
    assert (f"plain is {model} with its own gates" in capsys.readouterr().err) == (
        model != "lenet5"
    )
    assert [recipe.model for recipe in recipes.values()] == [model, named]
    built = senetzoo.create(model, policy=policy, seed=0)
    assert gates_of(senetzoo.create(named, seed=0)) == gates_of(built)


@pytest.mark.parametrize("name", ["compare.json", "compare.svg"])
def test_files_of_something_else_are_not_replaced(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text('{"mine": true}', encoding="utf-8")
    result = commands.run(*ASK, "--policy", "se4", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert f"{file} exists, and isn't known to be one of a comparison." in result.stderr
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_text("utf-8") == '{"mine": true}'


def test_the_recipe_suits_the_data(tmp_path: Path) -> None:
    photos, cifar = tmp_path / "photos", tmp_path / "cifar"
    for folder in (tmp_path / "flower_photos", photos / "cat", cifar / "cifar-10-batches-py"):
        folder.mkdir(parents=True)
    found = [
        compared("resnet20", ["se4"], where, None, 2).recipe.data
        for where in ("digits", None, str(tmp_path / "flower_photos"), str(photos))
    ]
    assert found == ["digits", "cifar10", "flowers5", "folder"]
    assert compared("lenet5", ["se4"], None, None, 2).recipe.data == "digits"
    stems = [
        compared(name, ["se4"], str(photos), None, 2).recipe.stem for name in ("resnet20", "lenet")
    ]
    assert stems == ["3x3/2+pool", ""]
    for where in (str(cifar), "cifar10", "CIFAR10"):
        assert compared("resnet20", ["se4"], where, None, 2).recipe.data == "cifar10"
    with pytest.raises(PolicyError):
        compared("resnet20", ["nothing"], "digits", None, 2)
    with pytest.raises(ConfigError):
        compared("resnet2", ["se4"], "digits", None, 2)
