"""Fine-tuning on photographs: what is chosen and kept, and that all runs are networks."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from support import commands
from support.networks import message
from support.runs import (
    TINY,
    after_step,
    log_of,
    press_ctrl_c,
    silent,
    train,
    weights_of,
    write_run,
)
from torch.nn import functional as F

import senetzoo
from senetzoo import data
from senetzoo._utils.torchvision import import_torchvision
from senetzoo.cli.finetune import command
from senetzoo.cli.report import _excitations
from senetzoo.errors import ConfigError, DataError, WeightsError
from senetzoo.report.run import read
from senetzoo.train import engine, start
from senetzoo.train import finetune as finetuning
from senetzoo.train.batches import Batches
from senetzoo.train.best import Best
from senetzoo.train.data import load_data
from senetzoo.train.finetune import Finetuned, finetune
from senetzoo.train.log import Progress
from senetzoo.train.optim import freeze, make_optimizer
from senetzoo.train.pace import WARM_STEPS, Pace, measure_step
from senetzoo.train.recipe import Recipe
from senetzoo.train.run import Trainer
from senetzoo.train.step import depths, loss_of
from senetzoo.train.stop import Interrupted

COLORS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def photos(root: Path, counts: dict[str, int], side: int = 32, seed: int = 0) -> Path:
    """Class folders of noisy images, one color per class."""
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            noise = np.random.default_rng((seed, label, number)).normal(0, 40, (side, side, 3))
            pixels = np.clip(np.array(COLORS[name]) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def tuned(root: str | Path, out: Path, **options: Any) -> Finetuned:
    epochs = None if options.get("quick") else 1
    return finetune(root, **{"out": out, "epochs": epochs, "say": silent, **options})


MEASURE = engine.measure


@pytest.fixture(autouse=True)
def paced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the measurement before a run."""
    monkeypatch.setattr(engine, "measure", lambda *args: Pace(1.0, 4, 0.5))


def invoke(*words: object) -> Any:
    return CliRunner().invoke(command, list(map(str, words)))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = photos(
        tmp_path_factory.mktemp("data") / "things", {"red": 15, "green": 15, "blue": 15}
    )
    (folder / "red" / "broken.png").write_bytes(b"no image")
    return folder


# What is chosen


def test_gates_on_a_trained_trunk_begin_as_the_identity(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32)
    plain = start.choose("resnet20.cifar10_v2", None, 32, None, tmp_path)
    assert plain.model == "resnet20.cifar10_v2"
    outputs = []
    for policy in ("", "+se4@standard+eca@pre", "+cbam(reduction=4)/s3"):
        chosen = start.choose(plain.model + policy, None, 32, None, tmp_path)
        assert chosen.model.count("init=identity") == policy.count("@") or "cbam" in policy
        recipe = Recipe(name="x", model=chosen.model, data="folder", phases=((32, 1),))
        model = recipe.build(3, 3, 0).eval()
        assert ("slots" in " ".join(dict(model.named_parameters()))) == bool(policy)
        with torch.no_grad():
            outputs.append(model(x))
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0], rtol=0, atol=0)
    # Trained gates are kept, even if the policy names them again.
    for same in ("se_resnet20.cifar10_v2", "se_resnet20.cifar10_v2+se16"):
        chosen = start.choose(same, None, 32, None, tmp_path)
        assert chosen.model == "se_resnet20.cifar10_v2"


def test_a_network_without_a_classifier_gets_one(tmp_path: Path) -> None:
    senetzoo.save(senetzoo.create("resnet20", pretrained=True, num_classes=0), tmp_path / "trunk")
    chosen = start.choose(str(tmp_path / "trunk"), None, 32, None, tmp_path / "run")
    recipe = Recipe(name="x", model=chosen.model, data="folder", phases=((32, 1),))
    assert (chosen.features, recipe.build(3, 3, 0).num_classes) == (64, 3)


def test_the_start_suits_the_images(tmp_path: Path) -> None:
    small, large = (start.choose(None, None, side, None, tmp_path) for side in (32, 300))
    assert small.preprocessing.size == 32
    assert (large.preprocessing.size, large.preprocessing.crop) == (128, 0.875)
    # The stem for photographs has the tensors of the trained one.
    recipe = Recipe(name="x", model=large.model, stem=large.stem, data="folder", phases=((128, 1),))
    own = senetzoo.load(small.model).state_dict()
    state = recipe.build(3, 3, 0).state_dict()
    assert all(torch.equal(state[key], own[key]) for key in own if not key.startswith("fc."))
    assert start.choose("resnet20", None, 32, 64, tmp_path).preprocessing.size == 64


def test_weights_of_another_library_get_gates_are_trained_and_loaded(
    root: Path, tmp_path: Path
) -> None:
    import_torchvision()
    from torchvision.models import resnet18

    torch.manual_seed(0)
    theirs = resnet18(num_classes=7).eval()
    torch.save(theirs.state_dict(), tmp_path / "mine.pth")
    done = tuned(
        root,
        tmp_path / "run",
        model="resnet18+se16",
        weights=tmp_path / "mine.pth",
        quick=True,
        size=32,
        # Little to save: the network is large.
        settings={"optimizer": "sgd", "momentum": 0.0, "keep": "last", "patience": 0},
    )
    x = torch.randn(1, 3, 64, 64)
    ours = senetzoo.load(tmp_path / "run" / "start")
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
    model = senetzoo.load(done.folder)
    assert (model.num_classes, str(model.spec.policy)) == (3, "se(init=identity)")
    assert model.load_report is not None
    assert model.load_report.classes == ("blue", "green", "red")
    # The report's excitations are those of the run's own split.
    pages = []
    for out, where in (("page", ()), ("same", ("--data", done.folder / "split.csv"))):
        seen = commands.run(
            "report",
            done.folder,
            "--excitations",
            "--json",
            *where,
            "--out",
            tmp_path / f"{out}.html",
        )
        assert seen.exit_code == 0, seen.output
        pages.append(json.loads(seen.stdout)["excitations"])
    assert pages[0] == pages[1]
    assert done.folder.name in str(pages[0])
    # Beside another run, each has the images of its own.
    other = Path(shutil.copytree(done.folder, tmp_path / "other"))
    listed = (other / "split.csv").read_text("utf-8")
    swapped = {"train": "val", "val": "train"}
    (other / "split.csv").write_text(
        re.sub(r"(?<=,)(train|val)(?=,)", lambda found: swapped[found[1]], listed), "utf-8"
    )
    both = _excitations([read(done.folder, "run"), read(other, "other")], None)
    images = [len(data.open(run / "split.csv", "val")) for run in (done.folder, other)]
    assert [each.images for each in both] == images
    assert len(set(images)) == 2
    nowhere = tmp_path / "nowhere.pth"
    assert (
        message(
            lambda: tuned(root, tmp_path / "other", model="resnet18", weights=nowhere), WeightsError
        )
        == f"Can't read the weights {nowhere}.\nThere is no such file."
    )
    assert (
        message(
            lambda: tuned(root, tmp_path / "other", weights=tmp_path / "mine.pth"), ConfigError
        ).splitlines()[0]
        == f"{tmp_path / 'mine.pth'} doesn't say which network it is for."
    )


# Whole runs


def test_photographs_become_a_network(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "measure", MEASURE)
    out = tmp_path / "run"
    result = invoke(root, "--out", out, "--epochs", 3, "--set", "batch=8", "--threads", 1)
    assert result.exit_code == 0, result.output
    # The output names bad files, the initial network, the time, the results, and next commands.
    for text in (
        "red/broken.png",
        "resnet20.cifar10_v2",
        "3 epochs take about",
        "without compiling",
        "On the validation images",
        f"senetzoo export {out} --to onnx",
        f"senetzoo eval {out} {out / 'split.csv'}",
    ):
        assert text in result.stdout, text
    assert (out / "report.html").is_file()
    model = senetzoo.load(out)
    assert model.load_report is not None
    assert model.load_report.classes == ("blue", "green", "red")
    first, *epochs, end = log_of(out)
    assert first["command"] == (
        "senetzoo finetune things --epochs 3 --seed 0 --threads 1 --set batch=8 --out run"
    )
    assert all(e["test_accuracy"] is None for e in epochs)
    assert (
        end["best_epoch"] == max(epochs, key=lambda e: (e["val_accuracy"], -e["val_loss"]))["epoch"]
    )
    # Another reader, with the preprocessing stated by the folder.
    found = senetzoo.evaluate(model, out / "split.csv")
    assert (found.top(1).right, found.top(1).total) == (end["test_correct"], end["test_images"])
    assert end["test_accuracy"] == epochs[end["best_epoch"] - 1]["val_accuracy"]
    again = invoke(root, "--out", out, "--epochs", 3, "--set", "batch=8", "--threads", 1, "--json")
    record = json.loads(again.stdout)
    # Small images are held in memory, and keep the names of their files.
    missed = found.worst(len(found.labels))
    listed = data.open(out / "split.csv", "val")
    assert [mistake["path"] for mistake in record["mistakes"]] == [
        str(Path(listed.source_name(index)).resolve()) for index in missed
    ]
    assert (record["run"], record["part"]) == (str(out), "validation")
    assert record["accuracy"] == pytest.approx(end["test_accuracy"], abs=1e-5)
    recipe = Recipe.from_json(first["recipe"])
    read = load_data(recipe, out / "split.csv")
    summary = json.loads((out / "summary.json").read_text())
    for keep, chose in (("last", False), ("best", True)):
        summary["recipe"]["keep"] = keep
        (out / "summary.json").write_text(json.dumps(summary))
        shown = str(finetuning.finished(out, recipe, read))
        assert shown.startswith("On the validation images")
        assert ("which also selected the epoch" in shown) == chose
    # What is said of the accuracy is what the run recorded.
    assert "finished, validation accuracy" in again.stderr
    assert "warning: the run doesn't have" not in again.stderr
    added = root / "blue" / "new.png"
    try:
        shutil.copy(next((root / "blue").glob("*.png")), added)
        again = invoke(root, "--out", out, "--epochs", 3, "--set", "batch=8", "--threads", 1)
    finally:
        added.unlink()
    assert f"warning: the run doesn't have 1 image in {root}, such as new.png," in again.stdout
    page = " ".join((out / "report.html").read_text("utf-8").split())
    assert "those of the epoch that did best on the validation images, with" in page
    assert "The validation images also chose the epoch" in page
    assert "test accuracy" not in page.lower()
    # Images that were trained on, or chose the epoch, are known by their paths.
    listed_parts = data.open_splits(out / "split.csv")
    trained, held = (len(listed_parts[split]) for split in ("train", "val"))
    whole = commands.run("eval", out, root, "--json")
    assert whole.exit_code == 0
    counts = json.loads(whole.stdout)
    assert (counts["trained_on"], counts["chose_epoch"]) == (trained, held)
    assert f"warning: {trained} of these {trained + held} images are training" in whole.stderr
    assert f"Type: senetzoo eval {out} {out / 'split.csv'}" in whole.stderr
    held_out = commands.run("eval", out, out / "split.csv")
    assert f"{held} of these images also chose the epoch" in held_out.stdout
    assert "warning" not in held_out.stderr
    # The card and the export say it, too.
    pushed = commands.run("push", out, "--repo", "me/things", "--dry-run")
    assert pushed.exit_code == 0, pushed.output
    assert f"| top-1 | things, validation images | {held} |" in pushed.stdout
    assert "These images also chose the epoch" in pushed.stdout
    assert "from the weights `resnet20.cifar10_v2`" in pushed.stdout
    file = tmp_path / "new" / "net.pt2"
    made = commands.run(
        "export", out, "--to", "pt2", "--data", out / "split.csv", "--output", file, "--json"
    )
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["metadata"]["network_accuracy"] == {
        "correct": end["test_correct"],
        "images": held,
        "data": f"{out / 'split.csv'} val",
    }
    # int8 is calibrated with half of them, which aren't evaluated.
    int8 = ("--to", "onnx", "--dtype", "int8", "--output", file.with_suffix(".onnx"))
    made = commands.run("export", out, *int8, "--data", out / "split.csv")
    assert f" of {held - held // 2} images are right" in made.stdout, made.output
    assert f"  {held - held // 2} of these images also chose the epoch" in made.stdout
    missing = commands.run("eval", out, root, "--split", "val", "--calibrate")
    assert missing.exit_code == 2
    assert "It has no splits." in missing.stderr
    assert "split.csv" in missing.stderr


def test_linked_folders_of_images_are_those_of_the_split(tmp_path: Path) -> None:
    root = photos(tmp_path / "data", {"red": 5, "blue": 5})
    (root / "blue").rename(tmp_path / "elsewhere")
    (root / "blue").symlink_to(tmp_path / "elsewhere")
    (root / "red" / "broken.png").write_bytes(b"no image")
    out, said = tmp_path / "run", list[str]()
    finetuning._open(root, out, 0, 0.2, False, said.append)
    finetuning._open(root, out, 0, 0.2, True, said.append)
    assert said[-1] == f"{out / 'split.csv'}: using the split of the run"
    shutil.copy(root / "red" / "0.png", tmp_path / "elsewhere" / "new.png")
    finetuning._open(root, out, 0, 0.2, True, said.append)
    assert f"the run doesn't have 1 image in {root}, such as new.png, and" in said[-2]


def test_another_part_is_held_out(tmp_path: Path) -> None:
    root = photos(tmp_path / "data", {"red": 10, "green": 10})
    tuned(root, tmp_path / "run", settings={"held_out": 0.4}, quick=True)
    parts = data.open_splits(tmp_path / "run" / "split.csv")
    assert {split: len(part) for split, part in parts.items()} == {"train": 12, "val": 8}


def test_test_images_are_looked_at_once_and_choose_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(tmp_path / "data" / "train", {"red": 8, "green": 8})
    for seed, part in enumerate(("val", "test"), 1):
        photos(tmp_path / "data" / part, {"red": 2, "green": 3}, seed=seed)
    looked: list[str] = []
    real = Trainer.test

    def spy(self: Any, network: Any, size: int, images: Any) -> Any:
        looked.append("test" if images is self.data.test else "val")
        return real(self, network, size, images)

    monkeypatch.setattr(Trainer, "test", spy)
    done = tuned(tmp_path / "data", tmp_path / "run", epochs=2, settings={"compile": False})
    assert done.part == "test"
    assert looked[-3:] == ["val", "val", "test"]
    assert done.evaluation.predictions.top(1).total == 5


def test_an_interrupted_run_goes_on_as_it_began(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options = {"epochs": None, "minutes": 1.0, "settings": {"batch": 8}}
    # The length is measured once and the same for both.
    paces = iter([Pace(1.0, 4, 0.5), Pace(1.0, 4, 0.5)])
    monkeypatch.setattr(engine, "measure", lambda *args: next(paces))
    monkeypatch.setattr(finetuning, "_BUDGET", 0.2)
    tuned(root, whole, **options)
    after_step(monkeypatch, 6, press_ctrl_c)
    assert "Type the same command again" in message(
        lambda: tuned(root, cut, **options), Interrupted
    )
    tuned(root, cut, **options)  # measures nothing: there is no third pace
    a, b = weights_of(whole), weights_of(cut)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert log_of(whole, "end")[0]["best_epoch"] == log_of(cut, "end")[0]["best_epoch"]
    # Other settings mean another run.
    assert message(lambda: tuned(root, cut, settings={"batch": 4}), ConfigError).startswith(
        f"{cut} has a run with another recipe or seed."
    )


def test_a_file_that_breaks_in_an_epoch_is_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = photos(tmp_path / "data", {"red": 20, "green": 20}, side=64)
    said: list[str] = []

    def spoil() -> None:
        for line in (tmp_path / "run" / "split.csv").read_text().splitlines()[1:]:
            name, label, part, _ = line.split(",")
            if (label, part) in (("red", "train"), ("green", "val")):
                (tmp_path / "run" / name).resolve().write_bytes(b"")

    after_step(monkeypatch, 1, spoil)
    done = tuned(
        root,
        tmp_path / "run",
        model="lenet",
        say=said.append,
        settings={"batch": 8},
    )
    (line,) = log_of(tmp_path / "run", "epoch")
    red = [text for text in said if text.startswith("left out: Can't read ")]
    assert red
    assert line["left_out"] == len(red)
    assert len([text for text in said if "counts as wrong" in text]) == 4
    right, total = done.evaluation.predictions.by_class()[0]
    assert (right, total) == (0, 4)


def test_a_full_disk_leaves_no_half_file(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = invoke(root, "--out", tmp_path / "run", "--quick")
    assert result.exit_code == 2
    assert "No space left on device" in result.stderr
    assert [p.name for p in (tmp_path / "run").iterdir()] == []


# Once more, into the same folder

LENET = {"model": "lenet", "size": 32}


def test_a_folder_keeps_its_photographs(tmp_path: Path) -> None:
    one = photos(tmp_path / "a" / "photos", {"red": 10, "green": 10})
    other = photos(tmp_path / "b" / "photos", {"red": 10, "blue": 10})
    out = tmp_path / "run"
    # A failed start leaves a split, which the next start must ignore.
    bad = {**LENET, "settings": {"batch": 64}}
    text = message(lambda: tuned(one, out, **bad), ConfigError)
    # The suggested remedy works.
    assert text.splitlines()[0].startswith("batch=64 doesn't fit 16 training images")
    assert text.splitlines()[-1] == "Type for example: --set batch=16"
    assert (out / "split.csv").is_file()
    tuned(other, out, **LENET)
    assert log_of(out, "run")[0]["data"]["classes"] == ["blue", "red"]
    before = (out / "split.csv").read_bytes()
    assert message(lambda: tuned(one, out, **LENET), ConfigError).splitlines() == [
        f"{out} has a run with other photographs.",
        "It has ../b/photos, and ../a/photos was requested.",
        "Give another folder with --out",
    ]
    assert message(lambda: tuned(other, out, seed=1, **LENET), ConfigError).startswith(
        f"{out} has a run with another seed."
    )
    assert (out / "split.csv").read_bytes() == before
    tuned(other, out, **LENET)
    # Photographs that were moved are missing, not others.
    other.rename(tmp_path / "moved")
    assert message(lambda: tuned(other, out, **LENET), DataError).startswith(
        f"There is no data at {other}.\n"
    )
    assert message(lambda: data.open(out / "split.csv"), DataError).splitlines() == [
        f"None of the 20 images of {out / 'split.csv'} exists.",
        f"Looked for them in {other.resolve()}: paths are relative to the folder of the CSV.",
        "Move the images there, or change the paths in the CSV",
    ]


def test_a_folder_with_a_run_of_another_kind(root: Path, tmp_path: Path) -> None:
    for name in ("own loop", "finetune"):
        run = write_run(tmp_path / name, recipe={"name": name, "model": "lenet5"})
        with pytest.raises(ConfigError, match=f"{run} has a run that isn't a fine-tuning"):
            tuned(root, run, **LENET)
    origin = start.origin(root, "lenet", None, run, 0)
    start.write_origin(run, origin)
    text = message(lambda: tuned(root, run, **LENET), ConfigError)
    assert text.startswith(f"{run / 'log.jsonl'} is broken at recipe")


@pytest.mark.parametrize(
    ("options", "epochs", "patience"),
    [
        ({"quick": True}, 1, 8),
        ({"settings": {"epochs": 15}, "epochs": None}, 15, 10),
        ({"settings": {"phases": ((32, 2),)}, "epochs": None}, 2, 8),
        ({"settings": {"keep": "last"}}, 1, 0),
        ({"settings": {"precision": "fp64"}, "quick": True}, 1, 8),
    ],
)
def test_the_same_call_goes_on(
    root: Path, tmp_path: Path, options: dict[str, Any], epochs: int, patience: int
) -> None:
    first = tuned(root, tmp_path, **LENET, **options)
    recipe = Recipe.from_json(log_of(tmp_path, "run")[0]["recipe"])
    assert (recipe.epochs, recipe.patience) == (epochs, patience)
    again = tuned(root, tmp_path, **LENET, **options)
    assert again.as_dict() == first.as_dict()
    assert again.evaluation.dtype == recipe.precision
    assert again.photos == tmp_path / "split.csv"
    # Another length is another run.
    other = {"epochs": 7, "minutes": None}
    assert message(lambda: tuned(root, tmp_path, **LENET, **other), ConfigError).startswith(
        f"{tmp_path} has a run with another recipe"
    )


def test_few_images_of_a_class_are_enough_for_a_quick_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, (part, few) in enumerate({"train": 5, "val": 2, "test": 3}.items()):
        photos(tmp_path / "data" / part, {"red": few, "green": few}, seed=seed)
    result = invoke(tmp_path / "data", "--out", tmp_path / "run", "--quick", "--model", "lenet")
    assert result.exit_code == 0, result.output
    # The commands can be typed as they are, and use the test images.
    monkeypatch.chdir(tmp_path)
    lines = result.stdout.partition("\nNext:\n")[2].splitlines()
    words = [shlex.split(line)[1:] for line in lines]
    assert [command for command, *_ in words] == ["eval", "predict", "export"]
    for line in words:
        done = commands.run(*line)
        assert done.exit_code == 0, done.output
        assert line[0] == "predict" or f"{tmp_path / 'run' / 'split.csv'} test" in done.stdout


def test_a_folder_keeps_its_weights(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(2):
        state = senetzoo.create("lenet", seed=seed).state_dict()
        torch.save(state, tmp_path / f"{seed}.pth")
    options = {**LENET, "quick": True}
    tuned(root, tmp_path / "run", weights=tmp_path / "0.pth", **options)
    before = (tmp_path / "run" / "start" / "model.safetensors").read_bytes()
    # For any spelling of the folder.
    monkeypatch.chdir(tmp_path)
    tuned(root, Path("run"), weights=Path("0.pth"), **options)
    for other, what in (
        ({"weights": tmp_path / "1.pth"}, "other weights"),
        ({"weights": tmp_path / "0.pth", "model": "lenet5"}, "the weights of another network"),
        ({}, "the weights of another network"),
    ):
        changed = {**options, **other}
        assert message(
            functools.partial(tuned, root, tmp_path / "run", **changed), ConfigError
        ).startswith(f"{tmp_path / 'run'} has a run with {what}.")
    assert (tmp_path / "run" / "start" / "model.safetensors").read_bytes() == before


def test_weights_that_can_not_be_fetched_leave_no_folder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("SENETZOO_CACHE", str(tmp_path / "cache"))
    result = invoke(root, "--model", "resnet50", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "HF_HUB_OFFLINE forbids downloads" in result.stderr
    assert "leave out --model: fine-tuning then starts from resnet20.cifar10_v2" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [("WORLD_SIZE", "x", "WORLD_SIZE is set to 'x'."), ("WORLD_SIZE", "2", "in several processes")],
)
def test_one_process_tunes(
    root: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, text: str
) -> None:
    monkeypatch.setenv(variable, value)
    result = invoke(root, "--quick")
    assert result.exit_code == 2
    assert text in result.stderr


def test_the_words_of_cifar_are_known(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetuning, "local", {"cifar10": root}.get)
    assert tuned("cifar10", tmp_path / "run", quick=True, **LENET).part == "validation"


def test_a_measured_start_that_fails_leaves_no_workers(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Batches] = []
    monkeypatch.setattr(engine, "measure", MEASURE)
    monkeypatch.setattr(engine, "measure_step", lambda *_: press_ctrl_c())
    monkeypatch.setattr(Batches, "close", lambda self: closed.append(self))
    with pytest.raises(KeyboardInterrupt):
        tuned(root, tmp_path / "run", **LENET)
    assert len(closed) == 1


# The parts


def test_epochs_keep_the_proportions_of_phases() -> None:
    recipe = Recipe(
        name="x",
        model="lenet",
        data="cifar10",
        phases=((16, 6), (24, 12), (32, 10)),
        restart_epochs=3,
        schedule="step",
        step_epochs=(10, 20),
    )
    assert recipe.epochs == 31
    twice = recipe.replace(epochs=62)
    assert (twice.phases, twice.restart_epochs) == (((16, 12), (24, 24), (32, 20)), 6)
    assert twice.step_epochs == (20, 40)
    for epochs in range(1, 40):
        other = recipe.replace(epochs=epochs)
        sizes = [size for size, _ in other.phases]
        assert sum(many for _, many in other.phases) + other.restart_epochs == epochs
        assert sizes == sorted(sizes)
        assert sizes[-1] == 32
    assert recipe.replace(epochs=20, step_epochs=(7,)).step_epochs == (7,)
    assert recipe.replace(phases=((32, 5),)).epochs == 8
    # Older versions don't have the field.
    old = {"name": "x", "model": "lenet", "data": "cifar10", "phases": [[32, 5]], "lr": 0.1}
    assert Recipe.from_json(old).epochs == 5
    for epochs in (-1, 0):
        assert message(functools.partial(recipe.replace, epochs=epochs), ConfigError) == (
            f"The recipe got epochs={epochs}.\nepochs is a whole number of at least 1.\n"
            "Type for example: epochs=20"
        )


def test_a_schedule_is_fitted_to_a_budget() -> None:
    pace = Pace(step=0.5, steps=10, test=2.0)
    assert pace.epochs(100.0) == 14  # 7 s each, and a last test
    assert pace.epochs(1.0) == 1
    recipe = Recipe(name="x", model="lenet", data="folder", phases=((32, 14),))
    assert pace.seconds(recipe) == 14 * 7 + 2
    # An epoch at twice the size takes four times as long; tests are measured at the last size.
    grown = recipe.replace(phases=((16, 2), (32, 3)), test_every=5)
    assert pace.seconds(grown) == (2 + 3 * 4) * 5 + 2 * 2
    assert not pace.compiling_pays(recipe)
    assert pace.compiling_pays(recipe.replace(epochs=400))


def test_what_is_left_is_in_the_lines_once_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = 0.0, list[str]()
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    # An epoch at half the size costs a quarter.
    progress = Progress("run", [(16, 400), (32, 400)], 0, said.append, bar=False)
    for step in range(1, 41):
        now += 100.0 if step <= WARM_STEPS else 2.0  # the first ones compile
        if progress.advance(10):
            progress.show(1, 1.0, 0.5)
        # A line comes once a minute; what is left is in it after the compilation.
        assert len(said) == min(step, WARM_STEPS) + (step >= WARM_STEPS + 30), step
        assert ("left" in said[-1]) == (step >= WARM_STEPS + 30)
    # 37 steps in 74 s at 16 pixels: 40 steps at 32 pixels take four times as long each.
    progress.epoch(
        {
            "epoch": 1, "size": 16, "lr": 0.1, "train_loss": 1.0, "train_accuracy": 0.5,
            "test_accuracy": None, "val_accuracy": 0.25, "val_loss": 2.0, "images_per_second": 5.0,
        },
        2,
    )  # fmt: skip
    assert said[-1].endswith("validation accuracy 25.00%, 5 images/s, 5 min 20 s left")


def test_one_slow_epoch_does_not_change_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = 0.0, list[str]()
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    progress = Progress("run", [(32, 100)] * 10, 0, said.append, bar=False)
    line = {"size": 32, "lr": 0.1, "train_loss": 1.0, "train_accuracy": 0.5, "test_accuracy": None}
    for epoch in range(1, 6):
        for _ in range(10):
            now += 60.0 if epoch == 3 else 1.0
            progress.advance(10)
        progress.epoch({**line, "epoch": epoch, "images_per_second": 5.0}, 10)
    assert [text.rpartition(", ")[2] for text in said[2:]] == [
        "1 min 10 s left",
        "1 min 0 s left",
        "50.0 s left",
    ]


def test_one_slow_step_does_not_change_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    now, steps = 0.0, iter([50.0] * WARM_STEPS + [1.0, 1.0, 90.0, 1.0, 1.0, 1.0, 1.0, 1.0])

    def step(batch: int) -> None:
        nonlocal now
        now += next(steps)

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert measure_step(step, lambda number: range(100)) == 1.0
    # Four workers are done at once: every fourth step waits for all of them.
    steps = iter([50.0] * WARM_STEPS + [4.0, 0.0, 0.0, 0.0] * 2)
    assert measure_step(step, lambda number: range(100), together=4) == 1.0


def test_learning_rates_by_depth_and_frozen_parts() -> None:
    recipe = Recipe(
        name="x",
        model="resnet20.cifar10_v2+se4(init=identity)",
        data="folder",
        phases=((32, 1),),
        lr=1.0,
        layer_decay=0.5,
    )
    model = recipe.build(3, 3, 0)
    assert model.load_report is not None
    fresh = [name for name, _ in model.load_report.replaced]
    peaks = {
        id(parameter): group["peak"]
        for group in make_optimizer(model, recipe, fresh).param_groups
        for parameter in group["params"]
    }
    parameters = list(model.named_parameters())
    assert len(peaks) == len(parameters)
    wanted = {"stem": 1 / 16, "stage 1": 1 / 8, "stage 2": 1 / 4, "stage 3": 1 / 2, "head": 1.0}
    for part, indices in depths(model).items():
        for name, parameter in (parameters[index] for index in indices):
            gate = ".slots" in name
            assert peaks[id(parameter)] == (1.0 if gate else wanted[part]), name
    for asked, still in ((2, ("conv1.weight", "layer2.0.conv1.weight")), ("trunk", ("layer3",))):
        model = recipe.build(3, 3, 0)
        norms = freeze(model, recipe.replace(freeze=asked), fresh)
        learns = {name for name, p in model.named_parameters() if p.requires_grad}
        assert {"fc.weight"} | {n for n in fresh if ".slots" in n} <= learns
        assert ("layer3.0.conv1.weight" in learns) == (asked == 2)
        assert not [name for name in learns if name.startswith(still) and ".slots" not in name]
        assert len(norms) == (14 if asked == 2 else 21)
    assert message(lambda: freeze(model, recipe.replace(freeze=9)), ConfigError) == (
        "The recipe got freeze=9.\n"
        "resnet20.cifar10_v2+se4(init=identity) has 3 stages.\n"
        "Type for example: --set freeze=trunk"
    )


def test_a_frozen_trunk_stays_bit_for_bit(root: Path, tmp_path: Path) -> None:
    tuned(root, tmp_path, freeze="trunk", quick=True)
    own, now = senetzoo.load("resnet20.cifar10_v2").state_dict(), weights_of(tmp_path)
    different = [name for name in own if not torch.equal(own[name].float(), now[name].float())]
    assert different == ["fc.weight", "fc.bias"] or own["fc.weight"].shape != now["fc.weight"].shape


def test_classes_of_any_size_count_alike(tmp_path: Path) -> None:
    said: list[str] = []
    root = photos(tmp_path / "data", {"red": 30, "green": 4})
    tuned(root, tmp_path / "run", quick=False, settings={"batch": 8}, say=said.append)
    assert any("classes are weighted equally in the loss" in line for line in said)
    (header,) = log_of(tmp_path / "run", "run")
    recipe = Recipe.from_json(header["recipe"])
    assert recipe.class_weights
    data = load_data(recipe, tmp_path / "run" / "split.csv")
    weights = data.class_weights()
    counts = torch.tensor(data.train.labels).bincount()  # type: ignore[union-attr]
    torch.testing.assert_close(weights * counts, torch.full((2,), data.count / 2))
    logits, target = torch.randn(8, 2), torch.tensor([0, 1] * 4)
    expected = (weights[target] * F.cross_entropy(logits, target, reduction="none")).sum()
    expected /= weights[target].sum()
    plain = recipe.replace(label_smoothing=0.0)
    torch.testing.assert_close(loss_of(logits, target, plain, weights), expected)


def test_the_best_epoch_is_kept_and_waiting_ends(tmp_path: Path) -> None:
    recipe = TINY.replace(
        images_per_class=20, phases=((32, 6),), batch=32, lr=0.0, keep="best", patience=2
    )
    said: list[str] = []
    train(recipe, tmp_path, say=said.append)
    # Nothing improves with a learning rate of 0, because running statistics aren't enough.
    (end,) = log_of(tmp_path, "end")
    assert end["epochs"] - end["best_epoch"] == 2
    assert any("no improvement for 2 epochs" in line for line in said)
    assert json.loads((tmp_path / "summary.json").read_text())["epochs"] == end["epochs"]
    assert "patience is only for keep=best." in message(
        lambda: recipe.replace(keep="last"), ConfigError
    )


def test_equal_scores_keep_the_lower_loss_and_weights_count_classes() -> None:
    from senetzoo.eval.predictions import Predictions

    best, network = Best(), torch.nn.Linear(1, 1)
    recipe = Recipe(name="x", model="lenet", data="folder", phases=((32, 9),), keep="best")
    labels = torch.tensor([0, 0, 0, 1])
    sure = Predictions(torch.tensor([[3.0, 0.0]] * 4), labels)
    unsure = Predictions(torch.tensor([[1.0, 0.0]] * 4), labels)
    best.offer(1, sure, network, recipe)
    best.offer(2, unsure, network, recipe)
    assert best.epoch == (2 if unsure.loss < sure.loss else 1)
    even = Predictions(torch.tensor([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 2), labels)
    weighed = Best()
    for epoch, found in enumerate((sure, even), 1):
        weighed.offer(epoch, found, network, recipe.replace(class_weights=True))
    assert weighed.epoch == 2  # 1/2 of the classes, then 5/6


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--time", "soon"), "--time got 'soon'."),
        (("--freeze", "most"), "--freeze got freeze=most."),
        (("--time", "1m", "--epochs", "3"), "finetune got 3 epochs and 1 minutes."),
        (("--quick", "--epochs", "3"), "finetune got 3 epochs and one short epoch (quick)."),
        (("--set", "epochs=x"), "--set got epochs=x."),
        (("--model", "resnet21"), "'resnet21'"),
    ],
)
def test_what_can_not_be_asked_for(
    root: Path, tmp_path: Path, words: tuple[str, ...], text: str
) -> None:
    result = invoke(root, "--out", tmp_path / "run", *words)
    assert result.exit_code == 2
    assert text in result.stderr
    assert not (tmp_path / "run" / "log.jsonl").exists()


@pytest.mark.parametrize(
    "options", [{"epochs": 0}, {"minutes": -1.0}, {"minutes": float("nan")}, {"out": "in it"}]
)
def test_a_run_has_a_length_and_a_place_of_its_own(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    given: dict[str, Any] = dict(options)
    if "out" in given:
        given["out"] = tmp_path / "photos" / "run"
    with pytest.raises(ConfigError, match=r"must be positive|inside the photographs"):
        senetzoo.finetune(tmp_path / "photos", **given)
    assert not list((tmp_path / "photos").iterdir())
