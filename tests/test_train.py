"""Training: its parts against independent formulations, runs that resume, pinned weights."""

from __future__ import annotations

import functools
import gc
import json
import math
import re
import shutil
import signal
import sys
import warnings
import weakref
from pathlib import Path
from typing import Any

import pin_weights
import pytest
import torch
from click.exceptions import Exit
from click.testing import CliRunner
from safetensors.torch import load_file
from support import commands
from support.images import class_folders, picture
from support.networks import message
from support.runs import (
    TINY,
    after_step,
    apply_setting,
    log_of,
    own_gate,
    press_ctrl_c,
    train,
    weights_of,
)
from torch import nn
from torch.nn import functional as F

import senetzoo
from senetzoo._utils import environment
from senetzoo.cli import inspect as inspect_command
from senetzoo.cli.train import command as train_command
from senetzoo.cli.train import find
from senetzoo.data import digits
from senetzoo.errors import ConfigError, TrainingError
from senetzoo.eval.predictions import wilson
from senetzoo.inspect import drift
from senetzoo.train import augment, checkpoint, engine
from senetzoo.train.augment import Draws
from senetzoo.train.data import Data, load_data
from senetzoo.train.experiment import Experiment
from senetzoo.train.optim import Muon, orthogonalize
from senetzoo.train.parallel import Asked
from senetzoo.train.recipe import Recipe, read_run
from senetzoo.train.recipes import RECIPES
from senetzoo.weights import cache, manifest

ONE = TINY.replace(phases=((32, 1),))


def draws(count: int, seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), count)


def command(*words: object) -> Any:
    return CliRunner().invoke(train_command, list(map(str, words)))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch, for comparison."""
    out = tmp_path_factory.mktemp("plain")
    train(ONE.replace(warmup=0.0), out)
    return out


# The parts


def test_crops_and_flips_are_windows_of_the_padded_images() -> None:
    images = torch.randint(0, 256, (5, 6, 6, 3), dtype=torch.uint8)
    padded = augment.pad(images, 2)
    reference = F.pad(images.permute(0, 3, 1, 2).float(), (2,) * 4, mode="reflect")
    assert torch.equal(padded, reference.permute(0, 2, 3, 1).to(torch.uint8))
    index = torch.tensor([0, 3, 3, 4])
    crops = augment.crop_and_flip(padded, index, 6, True, draws(4, 1))
    seen = set()
    for crop, number in zip(crops, index.tolist(), strict=True):
        windows = {
            (dy, dx, flip): (w.flip(1) if flip else w)
            for dy in range(5)
            for dx in range(5)
            for flip in (False, True)
            for w in [padded[number, dy : dy + 6, dx : dx + 6]]
        }
        found = [key for key, window in windows.items() if torch.equal(crop, window)]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) > 1
    same = augment.crop_and_flip(augment.pad(images, 0), index, 6, False, draws(4))
    assert torch.equal(same, images[index])


def test_normalize_is_mean_and_deviation_per_channel() -> None:
    images = torch.randint(0, 256, (3, 4, 4, 3), dtype=torch.uint8)
    x = augment.normalize(images, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), 4)
    for channel, (mean, std) in enumerate(((0.1, 0.5), (0.2, 0.6), (0.3, 0.7))):
        expected = (images[..., channel].double() / 255 - mean) / std
        torch.testing.assert_close(x[:, channel].double(), expected, atol=1e-6, rtol=1e-6)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert augment.normalize(images, (0.0,) * 3, (1.0,) * 3, 2).shape == (3, 3, 2, 2)


def test_rotation_by_nothing_is_identity_and_by_a_right_angle_is_rot90() -> None:
    x = torch.randn(2, 1, 9, 9)
    same = augment.rotate_and_zoom(x, 0.0, 0.0, draws(2))
    torch.testing.assert_close(same, x, atol=1e-5, rtol=1e-5)

    # Choose the maximum angle such that the known first draw gives a right angle.
    turned = torch.rot90(x, 1, (2, 3))
    draw = float(torch.rand(2, generator=torch.Generator().manual_seed(0))[0]) * 2 - 1
    rotated = augment.rotate_and_zoom(x[:1], 90.0 / abs(draw), 0.0, draws(1))
    direction = turned if torch.allclose(rotated, turned[:1], atol=1e-4) else turned.flip(2, 3)
    torch.testing.assert_close(rotated, direction[:1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(16, 144), (64, 32), (8, 8)])
def test_orthogonalize_keeps_singular_vectors_and_levels_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    result = orthogonalize(matrix, steps=8)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ result @ vh.T
    assert torch.allclose(inner, torch.diag(inner.diagonal()), atol=1e-8)
    # Values far below the largest need more steps; the others must be within the bounds.
    large = inner.diagonal()[s > 0.05 * s[0]]
    assert float(large.min()) > 0.6
    assert float(large.max()) < 1.3


def test_groups_of_muon_without_convolutions_step_like_torch_sgd() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    a = Muon([{"params": list(ours.parameters())}], lr=0.1, momentum=0.9, weight_decay=1e-2)
    b = torch.optim.SGD(theirs.parameters(), 0.1, 0.9, weight_decay=1e-2, nesterov=True)
    for _ in range(5):
        x = torch.randn(4, 5)
        for net, optimizer in ((ours, a), (theirs, b)):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


def test_muon_step_has_the_relative_size_of_its_learning_rate() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 16, 3)
    optimizer = Muon([{"params": [conv.weight], "muon": True}], lr=0.1, momentum=0.0)
    conv(torch.randn(4, 8, 6, 6)).square().sum().backward()
    scaled = conv.weight.detach() * 16**0.5 / conv.weight.detach().norm()
    optimizer.step()
    moved = (conv.weight.detach() - scaled).norm() / scaled.norm()
    assert 0.06 < float(moved) < 0.13


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_learning_rate_rises_then_falls_to_nothing(schedule: str) -> None:
    recipe = TINY.replace(schedule=schedule, warmup=0.2, phases=((32, 3),))
    values = [recipe.factor(step, 100) for step in range(300)]
    assert values[0] == 0.0
    assert math.isclose(max(values), 1.0)
    assert values.index(max(values)) == 60
    assert values[:61] == sorted(values[:61])
    assert values[60:] == sorted(values[60:], reverse=True)
    assert values[-1] < 0.005
    # A restart doesn't change the epochs before it.
    again = recipe.replace(restart_epochs=2, restart_lr=0.1)
    assert again.epochs == 5
    assert [again.factor(step, 100) for step in range(300)] == values
    tail = [again.factor(step, 100) for step in range(300, 500)]
    assert tail[0] == 0.1
    assert tail[100] == pytest.approx(0.05)
    assert tail == sorted(tail, reverse=True)


def test_phases_give_the_size_of_each_epoch() -> None:
    recipe = TINY.replace(phases=((16, 2), (24, 1), (32, 1)), restart_epochs=2)
    assert [recipe.size(epoch) for epoch in range(recipe.epochs)] == [16, 16, 24, 32, 32, 32]


# Whole runs


def test_a_run_learns_and_leaves_log_weights_and_summary(tmp_path: Path) -> None:
    recipe = TINY.replace(
        model="lenet",
        phases=((32, 8),),
        margin=0,
        flip=False,
        lr=0.05,
        batch=32,
        images_per_class=60,
        ema=0.5,
    )
    record = train(recipe, tmp_path, variant="one", command="senetzoo train tiny")
    log = log_of(tmp_path)
    assert [line["kind"] for line in log] == ["run", *["epoch"] * 8, "end"]
    first, *lines, last = log
    assert (first["variant"], first["seed"], first["command"]) == ("one", 0, "senetzoo train tiny")
    assert Recipe.from_json(first["recipe"]) == recipe
    assert len(first["data"].pop("sha256")) == 64
    assert first["data"] == {
        "name": "scikit-learn digits",
        "train_images": 600,
        "test_images": 595,
        "classes": list("0123456789"),
        "bytes": 0,
    }
    assert first["model"] == {"name": "lenet", "params": 61706, "macs": 416520}
    assert first["environment"]["processes"] == 1
    assert [line["epoch"] for line in lines] == list(range(1, 9))
    assert set(lines[0]["gradient_norm"]) == {"stage 1", "stage 2", "head"}
    assert last == {"kind": "end", **record}
    # 600 training images in 8 epochs; guessing gives 0.1.
    assert record["test_accuracy"] > 0.5
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]
    # The average is saved.
    assert record["test_accuracy"] == lines[-1]["ema_test_accuracy"]
    assert lines[-1]["ema_test_loss"] != lines[-1]["test_loss"]
    model = senetzoo.create("lenet", in_chans=1, seed=0).eval()
    model.load_state_dict(weights_of(tmp_path))
    tested = load_file(str(tmp_path / "test.safetensors"))
    test = digits.load("test").first(60)
    with torch.no_grad():
        logits = model(augment.normalize(test.images, digits.MEAN, digits.STD, 32))
    torch.testing.assert_close(tested["logits"].float(), logits, atol=5e-3, rtol=1e-3)
    assert torch.equal(tested["labels"], test.labels)
    hits = logits.argmax(1) == test.labels
    right = int(hits.sum())
    assert (record["test_correct"], record["test_images"]) == (right, len(test))
    assert record["test_accuracy"] == round(right / len(test), 7)
    low, high = record["wilson"]
    assert low < record["test_accuracy"] < high
    of_class = [hits[test.labels == k] for k in range(10)]
    assert record["by_class"] == [[int(each.sum()), len(each)] for each in of_class]
    wrong = (~hits).nonzero()[:, 0]
    sure = logits.softmax(1).max(1).values
    expected = sorted(wrong.tolist(), key=lambda index: -float(sure[index]))[:32]
    assert tested["mistakes"].tolist() == expected
    assert torch.equal(tested["images"], test.images[expected])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["seed"], summary["recipe"]["model"]) == (0, "lenet")


def test_an_interrupted_run_ends_like_the_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = TINY.replace(model="se_lenet+se2@pre/s2", optimizer="muon")
    train(recipe, tmp_path / "whole", seed=3)
    save = checkpoint.save

    def die_after_two(folder: Path, state: dict[str, Any]) -> None:
        save(folder, state)
        if state["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", die_after_two)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut", seed=3)
    monkeypatch.undo()
    assert not (tmp_path / "cut" / "summary.json").exists()
    train(recipe, tmp_path / "cut", seed=3)
    whole, cut = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_a_batch_in_parts_is_the_batch(tmp_path: Path) -> None:
    recipe = TINY.replace(precision="fp64", mixup=0.2, label_smoothing=0.1)
    train(recipe, tmp_path / "one")
    train(recipe.replace(accumulate=4), tmp_path / "four")
    a, b = weights_of(tmp_path / "one"), weights_of(tmp_path / "four")
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, atol=1e-10, rtol=0)
    epochs = (log_of(tmp_path / name, "epoch") for name in ("one", "four"))
    for one, four in zip(*epochs, strict=True):
        for key in ("train_accuracy", "gradient_norm", "test_accuracy"):
            assert one[key] == four[key]
        assert one["train_loss"] == pytest.approx(four["train_loss"], abs=2e-5)


@pytest.mark.parametrize(
    "changes",
    [{"precision": "bf16"}, {"channels_last": False}, {"deterministic": True}, {"compile": True}],
    ids=["bf16", "channels_first", "deterministic", "compiled"],
)
def test_other_ways_to_compute_come_to_the_same(
    tmp_path: Path, plain: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    # Any compiler would do; "eager" keeps the C++ toolchain out of this test.
    real = torch.compile
    monkeypatch.setattr(environment, "compiler_missing", lambda device: ("", ""))
    monkeypatch.setattr(torch, "compile", lambda m, **_: real(m, backend="eager", dynamic=False))
    train(ONE.replace(warmup=0.0, **changes), tmp_path)
    assert not torch.are_deterministic_algorithms_enabled()
    (one,), (other,) = log_of(plain, "epoch"), log_of(tmp_path, "epoch")
    close = 0.02 if "precision" in changes else 1e-4
    assert other["train_loss"] == pytest.approx(one["train_loss"], abs=close)
    # Another precision really computes something else.
    assert (other["gradient_norm"] == one["gradient_norm"]) == ("precision" not in changes)
    if "compile" in changes:
        a, b = weights_of(plain), weights_of(tmp_path)
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_runs_with_other_policies_start_from_the_same_trunk_and_see_the_same_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[torch.Tensor] = []
    real = augment.normalize

    def spy(*args: Any) -> torch.Tensor:
        batches.append(args[0].clone())
        return real(*args)

    monkeypatch.setattr("senetzoo.train.augment.normalize", spy)
    for model in ("lenet5", "se_lenet5"):
        train(ONE.replace(model=model), tmp_path / model)
    half = len(batches) // 2
    assert half == 5
    for a, b in zip(batches[:half], batches[half:], strict=True):
        assert torch.equal(a, b)


def test_resuming_with_another_recipe_is_refused(plain: Path) -> None:
    assert message(lambda: train(TINY, plain), ConfigError) == (
        f"{plain} has a run with another recipe or seed.\n"
        "It has epochs=1, warmup=0.0; epochs=2, warmup=0.1 was requested.\n"
        "To resume it, add --set epochs=1 --set warmup=0.0 and leave out any other "
        "--epochs or --set epochs; or give another "
        "folder with --out; or delete this one, which loses its run"
    )
    said = message(lambda: train(ONE.replace(phases=((16, 1),)), plain), ConfigError).splitlines()
    assert said[1].startswith("It has phases=((32, 1),)")
    assert "add --set 'phases=((32, 1),)'" in said[2]
    assert "leave out any other --epochs or --set epochs" in said[2]
    stored = ONE.replace(compile=True)
    for asked, seed, remedy in (
        (ONE, 0, "leave out --no-compile; or give another folder"),
        (stored.replace(dropout=0.5), 0, "add --set dropout=none; or give another folder"),
        (ONE, 1, "add --seed 0 and leave out --no-compile; or give another folder"),
        (stored.replace(images_per_class=3), 0, "leave out --quick; or give another folder"),
    ):
        whole = stored.replace(images_per_class=0) if "--quick" in remedy else stored
        require = functools.partial(checkpoint.require_same, plain, (whole, 0), (asked, seed))
        found = message(require, ConfigError).splitlines()[2].removeprefix("To resume it, ")
        assert found.startswith(remedy)
    assert apply_setting(ONE.replace(dropout=0.5), "dropout=none") == ONE
    other = TINY.replace(model="se_lenet5", lr=0.5, batch=8, momentum=0.1)
    said = message(lambda: train(other, plain), ConfigError).splitlines()
    assert said[1].endswith("3 more fields differ.")
    assert said[2] == "Give another folder with --out; or delete this one, which loses its run"


def test_a_checkpoint_that_unpickles_code_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    torch.save({"recipe": Evil(), "seed": 0}, tmp_path / "checkpoint.pt")
    text = message(lambda: train(TINY, tmp_path), ConfigError)
    assert text.splitlines()[0] == f"{tmp_path / 'checkpoint.pt'} can't be read."
    assert not marker.exists()


def test_a_run_that_diverges_stops_and_keeps_the_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = augment.normalize
    count = 0

    def spoil(*args: Any) -> torch.Tensor:
        nonlocal count
        count += 1
        # 80 images make five batches: the second epoch's first one is spoilt.
        return real(*args) * (float("nan") if count > 5 and len(args[0]) == 16 else 1.0)

    monkeypatch.setattr("senetzoo.train.augment.normalize", spoil)
    recipe = TINY.replace(test_every=9, phases=((32, 3),))
    assert message(lambda: train(recipe, tmp_path), TrainingError) == (
        "The loss of tiny is nan in epoch 2.\n"
        f"The run diverged; {tmp_path / 'checkpoint.pt'} has the state of epoch 1.\n"
        "Type for example: --set lr=0.01, with another --out"
    )
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert (state["epoch"], state["step"]) == (1, 0)
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_without_a_compiler_training_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cause = "The C++ compiler g++ fails here: it exits with 1."
    monkeypatch.setattr(environment, "compiler_missing", lambda device: (cause, "Repair it"))
    said: list[str] = []
    train(ONE.replace(compile=True), tmp_path, say=said.append)
    assert said[0] == f"training without torch.compile, slower: {cause} Repair it"


def test_a_compiler_that_fails_later_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler can pass its check and still fail on the network."""

    def failing(*_: object) -> None:
        raise ValueError("no room for an object file")

    real = torch.compile
    monkeypatch.setattr(environment, "compiler_missing", lambda device: ("", ""))
    monkeypatch.setattr(torch, "compile", lambda m, **_: real(m, backend=failing, dynamic=False))
    said = message(lambda: train(ONE.replace(compile=True), tmp_path), TrainingError).splitlines()
    assert said[0] == "torch.compile fails on the network of tiny."
    assert "no room for an object file" in said[1]
    assert said[2] == "Type the same command with --no-compile"


# One value of each channel


@pytest.mark.parametrize(
    ("model", "size", "changes", "said"),
    [
        ("preresnet20", 4, {"batch": 1}, "batch=1: preresnet20|batch norm layer3.0.norm2|batch=2"),
        (
            "preresnet20",
            4,
            {"batch": 4, "accumulate": 4},
            "batch=4, accumulate=4: preresnet20|At 4 px, its batch norm|batch=8",
        ),
        # The norm of a gate, whose maps are 1x1 for any image.
        ("resnet20+srm@standard", 8, {"batch": 1}, "resnet20+srm|srm got one value|batch=2"),
        ("resnet20", 8, {"batch": 1}, ""),
        ("lenet5", 32, {"batch": 4, "accumulate": 4}, ""),
    ],
)
def test_one_image_at_a_time(
    tmp_path: Path, model: str, size: int, changes: dict[str, int], said: str
) -> None:
    """It is rejected before training if and only if torch would reject it in training."""
    recipe = ONE.replace(model=model, phases=((size, 1),), images_per_class=1, **changes)
    network = recipe.network(10, 1).build(seed=0).train()
    try:
        network(torch.randn(1, 1, size, size))
        works = True
    except ValueError:
        works = False
    assert works == (not said)
    if works:
        assert train(recipe, tmp_path / "run")["epochs"] == 1
        return
    lines = message(lambda: train(recipe, tmp_path / "run"), ConfigError).splitlines()
    for line, part in zip(lines, said.split("|"), strict=True):
        assert part in line
    assert not (tmp_path / "run").exists()
    changes["batch"] *= 2
    assert train(recipe.replace(**changes), tmp_path / "run")["epochs"] == 1


def test_a_last_image_alone_is_left_out(tmp_path: Path) -> None:
    """With ten images in batches of three, a batch norm would get the last one alone."""
    recipe = ONE.replace(
        model="preresnet20", phases=((4, 1),), images_per_class=1, batch=3, warmup=0.0
    )
    train(recipe, tmp_path)
    (header,) = log_of(tmp_path, "run")
    assert header["data"]["train_images"] == 10


# Settings and the command


def test_settings_are_read_by_kind() -> None:
    recipe = TINY
    for setting in (
        "batch=64",
        "lr=1",
        "model=se_lenet5+se4@pre",
        "flip=false",
        "phases=((16, 1), (32, 2))",
        "dropout=0.2",
        "drop_path=none",
        "crop_scale=(0.5, 1)",
    ):
        recipe = apply_setting(recipe, setting)
    assert (recipe.batch, recipe.lr, recipe.flip) == (64, 1.0, False)
    assert recipe.model == "se_lenet5+se4@pre"
    assert recipe.phases == ((16, 1), (32, 2))
    assert (recipe.dropout, recipe.drop_path) == (0.2, None)
    assert recipe.crop_scale == (0.5, 1.0)


WHOLE = "batch is a whole number of at least 1.\nType for example: batch=128"


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        *((f"batch={value}", f"--set got batch={value}.\n{WHOLE}") for value in ("many", 1.5, 0)),
        ("phases=(3,)", "--set got phases=(3,).\n"
         "phases is a tuple of one or more tuples of 2 whole numbers of at least 1.\n"
         "Type for example: phases=((32, 10),)"),
        ("schedule=foo", "--set got schedule=foo.\n"
         "schedule is one of 'linear', 'cosine', 'one-cycle', 'step', 'constant'.\n"
         "Type for example: schedule='linear'"),
        ("lr=-1", "--set got lr=-1.\nlr is a number of at least 0.\nType for example: lr=0.1"),
        ("warmup=1", "--set got warmup=1.\nwarmup is a number from 0 up to, not including, 1.\n"
         "Type for example: warmup=0.1"),
        ("schedule=step", "The recipe got step_epochs=().\n"
         "step_epochs is needed with schedule=step, and only then."),
    ],
)  # fmt: skip
def test_bad_settings_are_refused(setting: str, text: str) -> None:
    assert message(lambda: apply_setting(TINY, setting), ConfigError) == text


def test_a_folder_that_can_not_be_written_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = command("digits", "--quick", "--out", tmp_path / "file" / "run")
    assert result.exit_code == 2
    assert result.stderr == f"error: Can't use {tmp_path / 'file' / 'run'}.\nNot a directory.\n"


def test_recipes_are_found_by_name_and_describe_themselves() -> None:
    for name, experiment in RECIPES.items():
        assert find(name) is experiment
        for quick in (False, True):
            for recipe in experiment.recipes(quick=quick).values():
                recipe.network(10, 3)


def test_ctrl_c_ends_the_command_with_130_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_step(monkeypatch, 3, press_ctrl_c)
    out = tmp_path / "run"
    result = command("digits", "--quick", "--threads", 1, "--out", out)
    assert result.exit_code == 130
    assert result.stderr == (
        f"The run in {out} was interrupted.\n"
        "Everything up to epoch 1, step 3 is saved.\n"
        "Type the same command again to resume\n"
    )
    again = command("digits", "--quick", "--threads", 1, "--out", out)
    assert again.exit_code == 0
    assert again.stdout.startswith(f"{out}: resuming after epoch 1, step 3\n")
    log, result, following = again.stdout.splitlines()[-3:]
    assert log == f"weights and log: {out}"
    (end,) = log_of(out, "end")
    low, high = (f"{100 * limit:.1f}" for limit in wilson(end["test_correct"], 596))
    accuracy = f"{100 * end['test_correct'] / 596:.2f} %"
    assert result.startswith(f"test accuracy {accuracy} [{low}, {high}] of 596 images, 1 epoch, ")
    assert following == f"next: senetzoo report {out}"
    summary = json.loads((out / "summary.json").read_text())
    assert (
        summary["command"] == f"senetzoo train digits --seed 0 --quick --threads 1 --out {out.name}"
    )


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_run_starts_says_how_to_go_on(
    sent: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("senetzoo.train.data.load_data", lambda *_: signal.raise_signal(sent))
    before = signal.getsignal(sent)
    result = command("digits", "--quick", "--out", tmp_path / "run")
    assert result.exit_code == 130
    assert result.stderr == (
        "Interrupted.\n"
        "Finished runs and saved states are kept.\n"
        "Type the same command again to continue\n"
    )
    assert signal.getsignal(sent) is before


def test_the_next_command_compares_runs_that_differ_only_in_their_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "tiny", Experiment(ONE))
    monkeypatch.chdir(tmp_path)
    plain, gated, other, flat = (
        str(Path("runs", name))
        for name in ("tiny-lenet5-0", "tiny-se_lenet5-0", "tiny-lenet5-1", "tiny-lenet5+eca-0")
    )
    (tmp_path / "runs" / "tiny-broken-0").mkdir(parents=True)
    for options, compared in (
        ([], [plain]),
        (["--set", "model=se_lenet5"], [plain, gated]),
        (["--seed", 1], [other]),
        (["--set", "model=lenet5+eca", "--set", "momentum=0.5"], [flat]),
        ([], [plain, gated]),
    ):
        result = command("tiny", *options)
        assert result.exit_code == 0, result.output
        assert result.stdout.endswith(f"\nnext: senetzoo report {' '.join(compared)}\n")


def test_an_experiment_runs_its_variants_and_leaves_out_finished_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = {"plain": {"model": "lenet5"}, "se": {"model": "se_lenet5"}}
    monkeypatch.setitem(RECIPES, "tiny", Experiment(ONE, variants=variants, seeds=(1, 2)))
    monkeypatch.chdir(tmp_path)
    one = command("tiny", "--only", "se", "--seed", 2)
    assert one.exit_code == 0, one.output
    assert [path.name for path in (tmp_path / "runs" / "tiny").iterdir()] == ["se-2"]
    every = command("tiny", "--set", "momentum=0.9")
    assert every.exit_code == 0, every.output
    folders = sorted((tmp_path / "runs" / "tiny").iterdir())
    assert [path.name for path in folders] == ["plain-1", "plain-2", "se-1", "se-2"]
    assert every.stdout.count("finished, test accuracy") == 1
    assert every.stdout.count("next: ") == 1
    assert every.stdout.endswith(f"\nnext: senetzoo report {Path('runs', 'tiny')}\n")
    (first,) = log_of(folders[2], "run")
    assert (first["variant"], first["seed"]) == ("se", 1)
    assert first["command"] == "senetzoo train tiny --only se --set momentum=0.9 --seed 1"


def test_runs_that_differ_in_their_network_share_images_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = list[weakref.ref[Data]]()

    def load(recipe: Recipe, path: Path | None) -> Data:
        gc.collect()
        assert not [data for data in loaded if data() is not None]
        if path is not None:
            (path / f"train/a/{len(loaded)}.png").write_bytes(picture(len(loaded)))
        loaded.append(weakref.ref(data := load_data(recipe, path)))
        return data

    monkeypatch.setattr("senetzoo.train.data.load_data", load)
    variants = {"plain": {"model": "lenet5"}, "se": {"model": "se_lenet5"}}
    every: dict[str, dict[str, Any]] = {**variants, "few": {"images_per_class": 7}}
    monkeypatch.setitem(RECIPES, "tiny", Experiment(ONE, variants=every, seeds=(1, 2)))
    result = command("tiny", "--out", tmp_path / "digits")
    assert (result.exit_code, len(loaded)) == (0, 4), result.output
    # Files are listed for each run, which reads those that are there.
    class_folders(tmp_path / "photos/train", dict.fromkeys("ab", 4))
    shutil.copytree(tmp_path / "photos/train", tmp_path / "photos/val")
    recipe = ONE.replace(data="folder", batch=4, images_per_class=0)
    monkeypatch.setitem(RECIPES, "tiny", Experiment(recipe, variants=variants))
    result = command("tiny", "--data", tmp_path / "photos", "--out", tmp_path / "files")
    assert (result.exit_code, len(loaded)) == (0, 6), result.output
    logs = [log_of(tmp_path / "files" / f"{name}-0", "run") for name in variants]
    assert [log["data"]["train_images"] for (log,) in logs] == [9, 10]


def test_a_run_says_how_long_it_takes_before_it_begins_and_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = list[str](), list[str]()
    train(TINY, tmp_path / "short", say=first.append)
    monkeypatch.setattr(engine, "PAYS", 5)
    train(TINY, tmp_path / "long", say=second.append)
    assert re.match(r"measured: 2 epochs take about \d+\.\d s on this machine", second[0])
    assert not [line for line in first if "measured" in line]
    a, b = weights_of(tmp_path / "short"), weights_of(tmp_path / "long")
    assert all(torch.equal(a[name], b[name]) for name in a)
    # Resumed runs and runs on several processes aren't measured.
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not engine._unmeasured(TINY, tmp_path / "new", load_data(TINY, None))
    monkeypatch.delenv("WORLD_SIZE")
    assert not engine._unmeasured(TINY, tmp_path / "long", load_data(TINY, None))


def test_a_stem_that_the_recipe_chose_is_not_warned_of(tmp_path: Path) -> None:
    recipe = ONE.replace(model="resnet20", stem="imagenet", phases=((32, 1),))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(recipe, tmp_path)
        model = senetzoo.load(tmp_path)
        model(torch.zeros(1, 1, 32, 32))
    with pytest.warns(UserWarning, match="built for"):
        model(torch.zeros(1, 1, 31, 31))


def test_what_takes_a_while_is_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    monkeypatch.setattr(environment, "compiler_missing", lambda _: ("", ""))
    data = class_folders(tmp_path / "photos" / "train", dict.fromkeys("ab", 4)).parent
    shutil.copytree(data / "train", data / "val")
    recipe = ONE.replace(data="folder", batch=4, compile=True)
    train(recipe, tmp_path / "run", data=data)
    assert capsys.readouterr().err.splitlines() == [
        f"reading the images in {data}",
        "compiling lenet5: the first steps take longer",
    ]


def test_a_run_is_not_inside_another(plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, tmp_path / "runs" / "a")
    for out in ("runs", "runs/a/b"):
        result = command("digits", "--quick", "--out", tmp_path / out)
        assert result.exit_code == 2
        assert (
            f"{tmp_path / 'runs' / 'a'} is one, and a run can't be inside another." in result.stderr
        )
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("asked", "recorded"),
    [
        ("train digits --data DIGITS", "train digits --data DIGITS --seed 0"),
        ("train cifar_small", "train cifar_small --seed 0"),
        ("train cifar_small --data {away}/cifar", "train cifar_small --data cifar10 --seed 0"),
        (
            "train flowers_small --data {away}/flowers --out {here}/runs/a",
            "train flowers_small --data flowers --seed 0 --out runs/a",
        ),
        (
            "train digits --register mine:Half --set model=lenet5+half --out {away}/a",
            "train digits --set model=lenet5+half --seed 0 --out a --register mine:Half",
        ),
        (
            "compare --model resnet20 --policy se4 --data hf-hub:owner/name --out ../a",
            "compare --model resnet20 --policy se4 --data hf-hub:owner/name --seeds 3 --out ../a",
        ),
    ],
)
def test_a_recorded_command_can_be_typed_and_names_no_user(
    asked: str, recorded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, away = tmp_path / "here", tmp_path / "away"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (here / "mine.py").write_text(own_gate("Half"), encoding="utf-8")
    found: set[str] = set()

    def look(runs: list[Asked], *_: Any, **__: Any) -> None:
        found.update(how["command"] for _, _, how in runs)
        raise Exit

    monkeypatch.setattr("senetzoo.cli.train.train_all", look)
    monkeypatch.setattr("senetzoo.cli.compare.train_all", look)
    result = commands.run(*asked.format(here=here, away=away).split())
    assert found == {f"senetzoo {recorded}"}, result.output


@pytest.mark.parametrize(
    ("recipe", "data", "remedy"),
    [
        ("digits", "{}", "Leave out --data. For your own images, type: senetzoo finetune {}"),
        ("cifar_small", "CIFAR100", "Add --set data=cifar100"),
        ("flowers_small", "cifar10", "Give the path of its data"),
    ],
)
def test_a_recipe_is_for_no_other_data(recipe: str, data: str, remedy: str, tmp_path: Path) -> None:
    data = data.format(tmp_path)
    result = command(recipe, "--data", data, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert f"not on {data}." in result.stderr
    assert result.stderr.endswith(f"\n{remedy.format(tmp_path)}\n")
    assert not (tmp_path / "run").exists()


# From a run to weights


def test_half_keeps_statistics_in_fp32() -> None:
    state = pin_weights.half(senetzoo.create("se_resnet20", seed=0).state_dict())
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            assert value.dtype == torch.int64
        else:
            statistic = "running" in name
            assert value.dtype == (torch.float32 if statistic else torch.float16), name


def test_pinned_weights_come_back_through_create(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "weights_manifest.json"
    target.write_text(f'{{"schema": {manifest.SCHEMA}, "entries": {{}}}}')
    monkeypatch.setattr(manifest, "path", lambda: target)
    monkeypatch.setattr(cache, "EMBEDDED", tmp_path / "embedded")
    manifest.manifest.cache_clear()
    try:
        pinned(tmp_path, target)
    finally:
        manifest.manifest.cache_clear()


def committed(recipe: Recipe, out: Path, **options: Any) -> dict[str, Any]:
    """Train, and return the summary as if it were run from a commit."""
    train(recipe, out, command="senetzoo train tiny", **options)
    path = out / "summary.json"
    summary: dict[str, Any] = {**json.loads(path.read_text()), "revision": "a" * 40}
    path.write_text(json.dumps(summary))
    return summary


def pinned(tmp_path: Path, target: Path) -> None:
    recipe = TINY.replace(model="lenet5+se2")
    summary = committed(recipe, tmp_path / "run")
    entry = pin_weights.pin(tmp_path / "run", "digits_test", data=None)
    assert entry.policy == "se2"
    assert entry.metrics[0].images == len(digits.load("test"))

    model = senetzoo.create("lenet5", pretrained=True)
    trained = weights_of(tmp_path / "run")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, trained[name], atol=1e-3, rtol=1e-3)
    assert model.load_report is not None
    assert model.load_report.classes == tuple("0123456789")

    # A run that starts from these weights, with a policy over theirs.
    said: list[str] = []
    further = recipe.replace(model="lenet5.digits_test+eca@pre", phases=((32, 1),))
    again = tmp_path / "again"
    committed(further, again, say=said.append)
    assert "lenet5.digits_test" in said[0]
    (header,) = log_of(again, "run")
    assert header["model"]["start"] == "lenet5.digits_test"
    assert header["model"]["start_sha256"] == entry.sha256
    begun = read_run(again)[0].build(10, 1, seed=0)
    fresh = further.network(10, 1).build(seed=0).state_dict()
    for name, value in begun.state_dict().items():
        assert torch.equal(value, model.state_dict().get(name, fresh[name])), name
    entry = pin_weights.pin(again, "digits_further", data=None, default=False)
    assert (entry.model, entry.policy) == ("lenet5", "se2|eca@pre")
    assert senetzoo.create("lenet5.digits_further").spec.config == begun.spec.config
    assert inspect_command._drift(senetzoo.create("lenet5.digits_further")) is None

    # With the same gates and another seed, drift is measured from the first seed.
    same = recipe.replace(model="lenet5.digits_test", phases=((32, 1),))
    committed(same, tmp_path / "same", seed=5)
    pin_weights.pin(tmp_path / "same", "digits_same", data=None)
    last = senetzoo.create("lenet5", pretrained=True)
    assert last.load_report is not None
    assert last.load_report.tag == "lenet5.digits_same"
    assert inspect_command._drift(last) == drift(last, recipe.network(10, 1).build(seed=0))

    def after(*args: str) -> tuple[str, list[str]]:
        """The new default, and the output after the accuracy."""
        done = CliRunner().invoke(pin_weights.main, [str(again), *args])
        assert done.exit_code == 0
        return manifest.tags("lenet5")[0], done.stdout.splitlines()[1:]

    # A default with a higher figure on the same images stays, until told otherwise; one that takes
    # its own place is not compared with what it was.
    same_images = entry.metrics[0].data
    stays = "The default stays lenet5.digits_same (99.99 %). Type --default to make these "
    for value, images, args, default, note in (
        (99.99, same_images, ("digits_new",), "digits_same", [f"{stays}the default."]),
        (99.99, same_images, ("digits_new", "--no-default"), "digits_same", []),
        (99.99, same_images, ("digits_new", "--default"), "digits_new", []),
        (99.99, "other images", ("digits_new",), "digits_new", []),
        (0.01, same_images, ("digits_new",), "digits_new", []),
        (99.99, same_images, ("digits_same",), "digits_same", []),
    ):
        whole = json.loads(target.read_text())
        for tag, found in whole["entries"].items():
            found["default"] = tag == "lenet5.digits_same"
        metric = whole["entries"]["lenet5.digits_same"]["metrics"][0]
        metric |= {"value": value, "data": images}
        target.write_text(json.dumps(whole))
        manifest.manifest.cache_clear()
        assert after(*args) == (default, note)

    # The initial weights are dropped, but their record stays.
    files = set(cache.EMBEDDED.iterdir())
    began = manifest.manifest()["lenet5.digits_test"].training
    assert after("digits_only", "--drop-start")[1] == []
    gone = files - set(cache.EMBEDDED.iterdir())
    assert {file.name for file in gone} == {"lenet5.digits_test.safetensors"}
    assert "digits_test" not in manifest.tags("lenet5")
    for tag in ("lenet5.digits_only", "lenet5.digits_further", "lenet5.digits_same"):
        assert (manifest.history(tag)["lenet5.digits_test"],) == began
        assert inspect_command._drift(senetzoo.create(tag)) is None

    # What can't be pinned.
    def refused(run: Path, *args: str) -> str:
        done = CliRunner().invoke(pin_weights.main, [str(run), "x", *args])
        assert (done.exit_code, done.stdout) == (2, "")
        return done.stderr

    path, nowhere = tmp_path / "run" / "summary.json", tmp_path / "nowhere"
    assert refused(path.parent, "--drop-start") == (
        "error: The run began with random weights.\n"
        "Only other weights of the package can be dropped.\n"
        "Leave --drop-start out\n"
    )
    assert refused(nowhere) == (
        f"error: {nowhere} has no finished run.\nThere is no {nowhere / 'summary.json'}.\n"
        "Type the command that started it again: it will continue to the end\n"
    )
    path.write_text(json.dumps({**summary, "revision": "a" * 40 + "-dirty"}))
    assert "without a commit" in refused(path.parent)
    for broken in ("", "{", "[]", "null", "{}", '{"recipe": {"lr": []}}', '{"seed": 0}'):
        path.write_text(broken)
        assert refused(path.parent).startswith("error: "), broken
    for key in ("recipe", "command", "seed", "revision", "train_seconds", "machine"):
        path.write_text(json.dumps({**summary, key: [summary[key]]}))
        assert refused(path.parent).startswith(f"error: {path} is broken at {key}."), key
