"""One network, one reference: names, folders, runs and files give the same network everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file
from support.networks import message
from support.weights import report_of
from torch import Tensor

import senetzoo
from senetzoo import ECA, SE, attach, config, create, load, save, transforms
from senetzoo.cli import main
from senetzoo.errors import ConfigError, WeightsError
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.preprocessing import CIFAR10, Preprocessing

ODD = Preprocessing(40, (0.1, 0.2, 0.3), (0.5, 0.4, 0.3), "bicubic", 0.8)


def logits(model: Classifier, channels: int = 3) -> Tensor:
    images = torch.randn(2, channels, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        out: Tensor = model.eval()(images)
    return out


def run(*args: object) -> str:
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of images in three colors, whose names sort otherwise than the classes' meaning."""
    root = tmp_path_factory.mktemp("photos")
    draw = torch.Generator().manual_seed(0)
    for split, count in (("train", 6), ("val", 3)):
        for name, color in (("zinnia", 0), ("ash tree", 1), ("Moss", 2)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = torch.randint(0, 80, (48, 56, 3), generator=draw, dtype=torch.uint8)
                pixels[..., color] += 150
                Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a folder, tested at another size and crop than it was trained at."""
    out = tmp_path_factory.mktemp("runs") / "photos"
    settings = ["data=folder", "model=resnet20+se4", "phases=((24,1),)", "restart_epochs=0"]
    settings += ["batch=6", "test_size=36", "test_crop=0.75", "compile=false", "precision=fp32"]
    run("train", "cifar_small", "--data", photos, "--out", out, "--workers", 0,
        *(word for setting in settings for word in ("--set", setting)))  # fmt: skip
    return out


def test_every_command_takes_a_run(trained: Path, photos: Path, tmp_path: Path) -> None:
    image = photos / "val" / "Moss" / "0.png"
    guesses = json.loads(run("predict", image, "--model", trained, "--json"))["guesses"]
    assert {guess["class"] for guess in guesses} == {"Moss", "ash tree", "zinnia"}
    file = tmp_path / "net.pt2"
    about = json.loads(run("export", trained, "--to", "pt2", "--output", file, "--json"))
    assert about["metadata"]["classes"] == ["Moss", "ash tree", "zinnia"]
    assert (about["metadata"]["size"], about["metadata"]["crop"]) == (36, 0.75)
    text = run("push", trained, "--repo", "owner/name", "--dry-run")
    assert "Moss, ash tree, zinnia" in text
    assert "\n9 of 45 sites have a gate" in run("explain", trained)
    found = json.loads(run("inspect", trained, "--data", photos / "val", "--out",
                           tmp_path / "page.html", "--json"))  # fmt: skip
    assert len(found["gates"]) == 9


def test_what_is_made_of_a_run(trained: Path) -> None:
    own, other = load(trained), create(trained, num_classes=5, seed=3)
    assert report_of(other).classes == ()
    assert [name for name, _ in report_of(other).replaced] == ["fc.weight", "fc.bias"]
    assert torch.equal(own.conv1.weight, other.conv1.weight)  # type: ignore[union-attr,arg-type]
    assert transforms(other) == transforms(own)
    plain = load(str(trained), policy=senetzoo.NONE)
    assert not [name for name in plain.state_dict() if "slots" in name]


def test_a_run_is_continued_from_a_run(trained: Path, photos: Path, tmp_path: Path) -> None:
    settings = ["data=folder", f"model={trained}", "phases=((24,1),)", "restart_epochs=0"]
    settings += ["batch=6", "compile=false", "precision=fp32", "optimizer=sgd", "lr=0"]
    run("train", "cifar_small", "--data", photos, "--out", tmp_path / "on", "--workers", 0,
        *(word for setting in settings for word in ("--set", setting)))  # fmt: skip
    before, after = load(trained).state_dict(), load(tmp_path / "on").state_dict()
    assert before.keys() == after.keys()
    # With a learning rate of 0 only the batch norms' statistics move.
    assert all(torch.equal(before[k], after[k]) for k in before if not k.endswith(NORMS))


NORMS = ("running_mean", "running_var", "num_batches_tracked")


def test_a_run_that_is_not_finished(tmp_path: Path, trained: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes((trained / "log.jsonl").read_bytes())
    assert message(lambda: load(tmp_path), ConfigError) == (
        f"{tmp_path} has no finished run.\nThere is no {tmp_path / 'summary.json'}.\n"
        "Type the command that started it again: it will continue to the end"
    )


def test_weights_of_a_file(tmp_path: Path) -> None:
    model = attach(create("resnet20", num_classes=3, seed=1), SE(4)).model
    assert isinstance(model, Classifier)
    file = tmp_path / "mine.safetensors"
    save_file(model.state_dict(), str(file))
    again = load("resnet20+se4", weights=file)
    assert again.spec.config.num_classes == 3
    assert torch.equal(logits(again), logits(model))
    assert (report_of(again).tag, report_of(again).origin) == ("mine.safetensors", "file")
    # The gates that are asked for in another place are new, and the report says so.
    other = create("resnet20+se4", policy=ECA().at("pre"), weights=file, seed=2)
    assert {name.rpartition(".slots.")[2] for name, _ in report_of(other).replaced} == {
        "pre.conv.weight"
    }
    with pytest.raises(WeightsError, match="do not fit"):
        load("resnet32+se4", weights=file)


def test_a_default_is_said_and_a_statement_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "unstated.safetensors"
    save_file(create("resnet20", seed=1).state_dict(), str(file))
    model = load("resnet20", weights=file)
    assert transforms(model) == CIFAR10
    said = capsys.readouterr().err
    assert said == (
        f"The weights unstated.safetensors don't state their preprocessing: assuming "
        f"{CIFAR10}. State it with preprocessing=, or --mean, --std, --size and --crop.\n"
    )
    stated = load("resnet20", weights=file, preprocessing={"mean": (0.5,) * 3, "std": (0.25,) * 3})
    assert transforms(stated) == CIFAR10.replace(mean=(0.5,) * 3, std=(0.25,) * 3)
    assert capsys.readouterr().err == ""
    one = load("resnet20", weights=file, preprocessing={"mean": (0.5,), "std": [0.25]})
    assert transforms(one) == transforms(stated)
    save(stated, tmp_path / "kept")
    assert transforms(load(tmp_path / "kept")) == transforms(stated)
    assert transforms(load(tmp_path / "kept", preprocessing=ODD)) == ODD
    converted = tmp_path / "converted.safetensors"
    run("weights", "convert", file, "--to", "resnet20", "--out", converted,
        "--mean", "0.1,0.2,0.3", "--size", 40)  # fmt: skip
    read = transforms(load("resnet20", weights=converted))
    assert (read.mean, read.std, read.size) == ((0.1, 0.2, 0.3), CIFAR10.std, 40)


def test_only_preprocessing_of_weights_can_be_stated() -> None:
    assert message(lambda: create("resnet20", preprocessing=ODD), ConfigError).startswith(
        "A preprocessing was given without weights."
    )
    with pytest.raises(ConfigError, match="has no option 'maen'"):
        load("se_resnet20", preprocessing={"maen": (0.5,) * 3})
    with pytest.raises(ConfigError, match="is for 1 channels"):
        load("se_resnet20", preprocessing=Preprocessing(32, (0.5,), (0.5,)))


def test_two_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(create("resnet20", seed=0), tmp_path / "net")
    file = tmp_path / "net" / "model.safetensors"
    for reference in (tmp_path / "net", "resnet20.cifar10_v2"):
        with pytest.raises(ConfigError, match="name different weights"):
            load(reference, weights=file)
    assert message(lambda: load(file), ConfigError) == (
        f"{file} is a weights file.\nIt doesn't say which network the weights are for.\n"
        f'Name the network, too: load("resnet50", weights={str(file)!r}), or in a command: '
        f"resnet50 --weights {file}"
    )
    # Nobody is asked for a repository of that name.
    monkeypatch.setattr("senetzoo.io.hub.read", None)
    for name in ("net.bin", "net", "net.onnx+se4"):
        (tmp_path / f"file-{name.partition('+')[0]}").touch()
        with pytest.raises(ConfigError, match="not one that a network is read from"):
            load(f"{tmp_path}/file-{name}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="not one that a network is read from"):
        load("file-net.bin")
    with pytest.raises(ConfigError, match="that does not exist"):
        load("mine/model.safetensors")
    for read in (load, config, create):
        near = r"folder or file 'resnet5O.pth0'\.\nThe nearest names are resnet50,"
        with pytest.raises(ConfigError, match=f"^There is no network, {near}"):
            read("resnet5O.pth0+se4")
        with pytest.raises(ConfigError, match=r"^There is no network, folder or file 'a{300}\.b'"):
            read("a" * 300 + ".b")


def test_names_come_before_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(create("lenet5", seed=0), "resnet20")
    assert type(create("resnet20", seed=0)).__name__ == "ResNet"
    assert type(load("./resnet20")).__name__ == "LeNet"
    save(create("lenet5", seed=0), "mine")
    assert type(create("mine")).__name__ == "LeNet"


@pytest.mark.parametrize("options", [{}, {"policy": "simam"}, {"stem": "deep"}])
def test_other_libraries_refuse_our_folders(options: dict[str, Any], tmp_path: Path) -> None:
    """Their words in a ``config.json`` would make them build the network without its gates."""
    import timm

    save(create("resnet18", seed=0, num_classes=3, **options), tmp_path)
    with pytest.raises((KeyError, RuntimeError, ValueError)):
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    raw = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    # By these Transformers knows a file of timm's, or one of its own.
    assert not {"architecture", "architectures", "pretrained_cfg", "model_type"} & raw.keys()


def test_a_policy_may_follow_a_folder(tmp_path: Path) -> None:
    for name in ("mine", "resnet20+se4-0"):  # a folder's own name may have the sign
        folder = tmp_path / name
        save(create("resnet20", num_classes=3, seed=0), folder)
        found = load(f"{folder}+eca@pre/s1+se4/s2")
        assert found.spec == load(folder, policy="eca@pre/s1+se4/s2").spec
        assert load(str(folder)).spec == load(folder).spec


def test_a_path_that_is_not_there_is_no_repository() -> None:
    for text in ("./nowhere", "/nowhere/at/all", "~/nowhere/at/all"):
        with pytest.raises(WeightsError, match="The folder doesn't exist"):
            create(text)
