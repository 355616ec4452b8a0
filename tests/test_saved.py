"""Saving networks to folders and loading them."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import importlib
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from support.networks import drawn_network, images_of, message, same_tensors, tiny
from support.weights import blocked, report_of
from torch import Tensor, nn

import senetzoo
from senetzoo import ECA, SE, attach, config, create, detach, load, policy, save, transforms
from senetzoo.errors import ConfigError, SenetzooError, WeightsError
from senetzoo.gates import GATES
from senetzoo.io.folder import described, parse
from senetzoo.io.save import describe
from senetzoo.models.swin import SwinConfig
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.preprocessing import Preprocessing
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate
from senetzoo.spec import gates_of

AGAIN = "Save the network again with senetzoo.save, or get its files again"
YOURSELF = "Save its state_dict() yourself, with safetensors"


def edited(folder: Path, **changes: Any) -> None:
    """Change fields of ``config.json``; ``a__b`` is b in a, and ``...`` removes a field."""
    file = folder / "config.json"
    raw = json.loads(file.read_text(encoding="utf-8"))
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = raw
        for parent in parents:
            place = place[parent]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    file.write_text(json.dumps(raw), encoding="utf-8")


# --- Saving and loading --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(24))
def test_any_network_comes_back(seed: int, tmp_path: Path) -> None:
    model = drawn_network(seed)
    save(model, tmp_path / "it")
    again = load(tmp_path / "it")
    assert type(again) is type(model)
    assert again.spec.config == model.spec.config
    assert again.sites() == model.sites()
    assert gates_of(again) == gates_of(model)
    assert same_tensors(again, model)
    with torch.inference_mode():
        assert torch.equal(again(images_of(model)), model(images_of(model)))
    assert not any(module.training for module in again.modules())
    report = report_of(again)
    content = (tmp_path / "it" / "model.safetensors").read_bytes()
    assert report.sha256 == hashlib.sha256(content).hexdigest()
    assert (report.tag, report.origin) == (str(tmp_path / "it"), "folder")
    assert (report.replaced, report.adapted, report.classes, report.preprocessing) == (
        (),
        (),
        (),
        None,
    )
    assert str(report) == f"weights {tmp_path / 'it'} (folder, sha256 {report.sha256[:12]})"


def _described_again(name: str) -> None:
    """The description of a network in the registry builds the same network."""
    with torch.device("meta"):
        model = config(name).build(seed=0)
    written = describe(model, b"")
    description = parse(json.dumps(dataclasses.asdict(written)))
    with torch.device("meta"):
        again = described(description).build(seed=0)
    assert description.network.name in (name, name.removeprefix("se_"))
    assert again.spec.config == model.spec.config
    assert gates_of(again) == gates_of(model)
    assert str(again) == str(model)


@pytest.mark.parametrize("name", ["alexnet", "densenet40_12", "efficientnet_b0", "se_vgg11"])
def test_networks_of_the_registry_are_described(name: str) -> None:
    _described_again(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", senetzoo.list_models())
def test_every_network_of_the_registry_is_described(name: str) -> None:
    _described_again(name)


def test_what_the_config_says(tmp_path: Path) -> None:
    model = create("se_resnet20", pretrained=True)
    save(model, tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert (raw["library_name"], raw["schema"]) == ("senetzoo", 2)
    assert raw["senetzoo"] == senetzoo.__version__
    network = raw["network"]
    assert (network["name"], network["family"]) == ("se_resnet20", "ResNet")
    assert (network["policy"], network["config"]["num_classes"]) == ("se", 10)
    assert raw["classes"][3] == "cat"
    assert network["config"]["stem"] == {
        "kernels": [3],
        "strides": [1],
        "widths": [1.0],
        "pool": False,
    }
    assert raw["preprocessing"] == {
        "size": 32,
        "mean": [0.4914, 0.4822, 0.4465],
        "std": [0.247, 0.2435, 0.2616],
        "interpolation": "bilinear",
        "crop": 1.0,
    }
    again = load(tmp_path)
    assert transforms(again) == transforms(model)
    assert report_of(again).classes == report_of(model).classes
    assert report_of(again).preprocessing == report_of(model).preprocessing


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        save(tiny(), tmp_path / name) if name == "a" else save(load(tmp_path / "a"), tmp_path / "b")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_classes_and_transforms_of_one_s_own(tmp_path: Path) -> None:
    model, see = tiny(), Preprocessing(40, (0.1, 0.2, 0.3), (1.0, 2.0, 0.5), "bicubic", 0.9)
    save(model, tmp_path, classes=["a", "b", "c", "猫", "e"], preprocessing=see)
    again = load(tmp_path)
    assert report_of(again).classes == ("a", "b", "c", "猫", "e")
    assert transforms(again) == see
    save(again, tmp_path)
    assert transforms(load(tmp_path)) == see
    # Another number of classes has no names, and gray images have one mean.
    other = load(tmp_path, num_classes=2, in_chans=1)
    save(other, tmp_path / "other")
    last = load(tmp_path / "other")
    assert report_of(last).classes == ()
    assert transforms(last) == transforms(other)
    assert transforms(last).mean == pytest.approx((0.2,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_types_of_less_are_kept_in_the_file(dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny().to(dtype)
    save(model, tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 2.3 * sum(
        value.numel() for value in model.state_dict().values()
    ) + 8000
    assert same_tensors(load(tmp_path), model.float())


def test_tensors_in_any_layout(tmp_path: Path) -> None:
    model = tiny().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save(model, tmp_path)
    assert same_tensors(load(tmp_path), model)


def test_synchronized_norms_are_norms(tmp_path: Path) -> None:
    model = tiny()
    save(nn.SyncBatchNorm.convert_sync_batchnorm(model), tmp_path)  # type: ignore[no-untyped-call]
    assert same_tensors(load(tmp_path), model)


def test_a_folder_opens_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tiny(), tmp_path)
    blocked(monkeypatch)
    load(str(tmp_path))


# --- What can't be saved -------------------------------------------------------------------------


class Mine(nn.Module):
    """A user's own gate."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def _with(path: str, module: nn.Module) -> Classifier:
    model = tiny()
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
    return model


def _filled(value: float) -> Classifier:
    model = tiny()
    with torch.no_grad():
        model.get_parameter("fc.bias")[0] = value
    return model


def _own_gate() -> Classifier:
    model = tiny()
    next(slots for _, slots in model.slots()).put("standard", Mine())
    return model


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (lambda: nn.Linear(2, 2), ConfigError, "save got a Linear.\n"
         "It isn't a network of this zoo, and couldn't be rebuilt from its folder.\n"
         "Save its state_dict() yourself, with safetensors.torch.save_file"),
        (lambda: nn.DataParallel(tiny()), ConfigError,
         "save got a DataParallel.\nIt wraps a ResNet of this zoo.\n"
         "Type save(model.module, folder)"),
        (lambda: torch.compile(tiny()), ConfigError,
         "save got a OptimizedModule.\nIt wraps a ResNet of this zoo.\n"
         "Type save(model._orig_mod, folder)"),
        (lambda: _with("fc", nn.ReLU()), ConfigError,
         "Can't save this ResNet: it was changed at fc.\n"
         "There is ReLU(), but its config and gates build "
         f"Linear(in_features=16, out_features=5, bias=True).\n{YOURSELF}"),
        (lambda: _with("layer2.0.relu", nn.SiLU(inplace=True)), ConfigError,
         "Can't save this ResNet: it was changed at layer2.0.relu.\n"
         f"There is SiLU(inplace=True), but its config and gates build ReLU(inplace=True).\n"
         f"{YOURSELF}"),
        (lambda: _with("extra", nn.Dropout(0.5)), ConfigError,
         "Can't save this ResNet: it was changed at extra.\n"
         f"There is Dropout(p=0.5, inplace=False), but its config and gates build nothing.\n"
         f"{YOURSELF}"),
        (_own_gate, ConfigError, "Can't save the network with a Mine at layer1.0.slots.standard.\n"
         f"Only these gates can be loaded again: {', '.join(GATES)}.\n"
         "Register your own gate with senetzoo.register, or save its state_dict() "
         "yourself"),
        (lambda: tiny().double(), WeightsError,
         "Can't save the ResNet.\nIts conv1.weight is float64.\n"
         "Convert the network to float32: model.float()"),
        (lambda: tiny().to("meta"), WeightsError,
         "Can't save the ResNet.\nIts conv1.weight is on the meta device, without values.\n"
         "Give it values first: load weights, or build it on the CPU"),
        (lambda: _filled(float("nan")), WeightsError,
         "The weights of the ResNet have values that aren't finite.\n"
         "There is NaN or infinity in fc.bias.\n"
         "The training diverged, or the file is damaged: use other weights"),
    ],
)  # fmt: skip
def test_what_can_not_be_saved(
    make: Callable[[], Any], kind: type[SenetzooError], text: str, tmp_path: Path
) -> None:
    assert message(lambda: save(make(), tmp_path / "it"), kind) == text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"classes": ["cat"]}, "save got 1 class names.\nThe network has 5 classes.\n"
         "Give one name for each, in the order of the logits"),
        ({"classes": "catty"},
         "save got classes='catty'.\nclasses is a sequence of names, one for each class.\n"
         'Type for example: classes=("cat", "dog")'),
        ({"classes": [0, 1, 2, 3, 4]},
         "save got classes=[0, 1, 2, 3, 4].\nclasses is a sequence of names, one for each class.\n"
         'Type for example: classes=("cat", "dog")'),
        ({"preprocessing": Preprocessing(32, (0.5,), (0.5,))},
         "save got a preprocessing for 1 channels.\nThe network takes 3.\n"
         "Give a mean and a std for each channel of the network"),
        ({"clases": ["cat"]}, "save() has no option 'clases'.\n"
         "Did you mean 'classes'?"),
    ],
)  # fmt: skip
def test_options_of_save(options: dict[str, Any], text: str, tmp_path: Path) -> None:
    assert message(lambda: save(tiny(), tmp_path / "it", **options), ConfigError) == text
    assert list(tmp_path.iterdir()) == []


# --- Folders that aren't empty -------------------------------------------------------------------


def test_other_files_stay_and_ours_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "sub").mkdir()
    save(tiny(), tmp_path)
    other = attach(tiny(), SE(2)).model
    assert isinstance(other, Classifier)
    save(other, tmp_path)
    assert same_tensors(load(tmp_path), other)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"README.md", "sub", "config.json", "model.safetensors"}
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b'{"architectures": ["BertModel"]}'),
        ("config.json", b'{"library_name": "timm"}'),
        ("config.json", b"[]"),
        ("config.json", b"not json"),
        ("model.safetensors", b"something"),
        ("model.safetensors", (2).to_bytes(8, "little") + b"{}"),
    ],
)
def test_files_of_another_library_are_not_replaced(
    file: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / file).write_bytes(content)
    assert message(lambda: save(tiny(), tmp_path), ConfigError) == (
        f"Can't save a network in {tmp_path}.\n"
        f"Its {file} isn't senetzoo's, and would be replaced.\n"
        "Give another folder, or move that file away"
    )
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(file, content)]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "it").write_text("mine")
    assert message(lambda: save(tiny(), tmp_path / "it"), ConfigError) == (
        f"Can't save a network in {tmp_path / 'it'}.\nIt is a file.\nGive the name of a folder"
    )
    assert message(lambda: load(tmp_path / "it"), ConfigError) == (
        f"{tmp_path / 'it'} is a file, but not one that a network is read from.\n"
        "Weights end in .safetensors, .pth, .pt; exported files in .onnx, .pt2, .xml.\n"
        "Give the folder that save or a run wrote, or a file with one of these endings"
    )


# --- Killed while saving -------------------------------------------------------------------------


@pytest.mark.parametrize("last", [1, 2])
def test_a_save_that_ends_between_its_files(
    last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tiny(), tiny()
    replace, done = Path.replace, 0

    def counted(self: Path, target: str | os.PathLike[str]) -> Path:
        nonlocal done
        done += 1
        if done == last:
            raise KeyboardInterrupt
        return replace(self, target)

    for folder, before in ((tmp_path / "fresh", None), (tmp_path / "used", old)):
        if before is not None:
            save(before, folder)
        done = 0
        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", counted)
            with pytest.raises(KeyboardInterrupt):
                save(new, folder)
        if last == 1 and before is not None:
            assert same_tensors(load(folder), before)
        else:
            with pytest.raises(WeightsError):
                load(folder)
        save(new, folder)
        assert same_tensors(load(folder), new)


def _save_for_ever(models: list[Classifier], folder: Path) -> None:
    while True:
        for model in models:
            save(model, folder)


def _kills(times: int, folder: Path) -> int:
    """Kill a process that saves two networks in turn; count how often a complete one was left."""
    models: list[Classifier] = [tiny(), attach(tiny(width=16), SE(4)).model]  # type: ignore[list-item]
    draw, whole = random.Random(0), 0
    fork = multiprocessing.get_context("fork")
    for kill in range(times):
        where = folder / str(kill % 4)
        process = fork.Process(target=_save_for_ever, args=(models, where))
        process.start()
        time.sleep(draw.uniform(0.0, 0.15))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        try:
            found = load(where)
        except WeightsError:
            pass
        else:
            assert any(same_tensors(found, model) for model in models)
            whole += 1
        save(models[0], where)
        assert same_tensors(load(where), models[0])
    return whole


def test_kills(tmp_path: Path) -> None:
    _kills(8, tmp_path)


@pytest.mark.slow
def test_many_kills(tmp_path: Path) -> None:
    assert _kills(50, tmp_path) > 25


# --- Tampering -----------------------------------------------------------------------------------


def test_other_tensors_are_refused(tmp_path: Path) -> None:
    save(tiny(), tmp_path)
    file = tmp_path / "model.safetensors"
    content = file.read_bytes()
    right = hashlib.sha256(content).hexdigest()
    draw = random.Random(0)
    flipped = bytearray(content)
    flipped[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    other = tmp_path / "other"
    save(tiny(), other)
    for wrong in (
        bytes(flipped),
        content[: draw.randrange(len(content))],
        content + b"\0",
        b"",
        (other / "model.safetensors").read_bytes(),
    ):
        file.write_bytes(wrong)
        assert message(lambda: load(tmp_path), WeightsError) == (
            f"The weights in {tmp_path} are not those of its config.json.\n"
            f"model.safetensors has the sha256 {hashlib.sha256(wrong).hexdigest()}, config.json "
            f"has {right}.\n{AGAIN}"
        )
    file.unlink()
    assert message(lambda: load(tmp_path), WeightsError) == (
        f"Can't read the weights {file}.\nThe file doesn't exist.\n{AGAIN}"
    )
    (tmp_path / "config.json").unlink()
    assert message(lambda: load(tmp_path), WeightsError) == (
        f"There is no network in {tmp_path}.\nIt has no config.json.\n"
        "Give a folder that senetzoo.save or a training run wrote, or hf-hub:OWNER/NAME for a "
        "repository"
    )


def test_a_right_hash_of_what_is_no_weights(tmp_path: Path) -> None:
    save(tiny(), tmp_path)
    content = b"cos\nsystem\n(S'touch pwned'\ntR."
    (tmp_path / "model.safetensors").write_bytes(content)
    edited(tmp_path, weights__sha256=hashlib.sha256(content).hexdigest())
    first, second, third = message(lambda: load(tmp_path), WeightsError).splitlines()
    assert first == f"Can't read the weights {tmp_path / 'model.safetensors'}."
    assert second.startswith("It isn't a complete safetensors file (")
    assert third == AGAIN


def test_a_config_of_another_network(tmp_path: Path) -> None:
    save(tiny(), tmp_path)
    edited(tmp_path, network__config__depths=[1, 1])
    assert message(lambda: load(tmp_path), WeightsError) == (
        f"The weights {tmp_path} do not fit the network.\n"
        "layer2.1.bn1.bias is not in the network; layer2.1.bn1.num_batches_tracked is not in the "
        "network; layer2.1.bn1.running_mean is not in the network (and 9 more).\n"
        "Build the network with the policy, stem and num_classes the weights were made with"
    )


FAMILIES = (
    "The families are LeNet, AlexNet, VGG, RepVGG, GoogLeNet, BNInception, InceptionV2, "
    "InceptionV3, InceptionV4, InceptionResNet, Xception, ResNet, Plain, PreResNet, SENet, SKNet, "
    "ResNeSt, DenseNet, SqueezeNet, MobileNet, MobileNetV2, ShuffleNetV2, MNASNet, MobileNetV3, "
    "GhostNet, EfficientNet, RegNet, Swin, ConvNeXt"
)
CODE = "__import__('os').system('touch pwned')"


@pytest.mark.parametrize(
    ("changes", "where", "what"),
    [
        ({"schema": ...}, "schema", "It is null, and this version of senetzoo reads 1 to 2."),
        ({"library_name": "timm"}, "library_name",
         "It isn't 'senetzoo'."),
        ({"network__family": ...}, "network", "The field 'family' is missing."),
        ({"network__familly": "ResNet"}, "network",
         "The field 'familly' is unknown.\nDid you mean 'family'?"),
        ({"network__family": CODE}, "network.family", f"There is no family {CODE!r}.\n{FAMILIES}"),
        ({"network__name": "resnt20"}, "network.name",
         "There is no network 'resnt20'.\nDid you mean 'resnet20'?"),
        ({"network__name": "resnet20"}, "network.name", "The config isn't that of resnet20."),
        ({"network__config": []}, "network.config", "It is [], not an object."),
        ({"network__config__depths": [1, "2"]}, "network.config.depths[1]",
         'It is "2", not a whole number of at least 1.'),
        ({"network__config__width": ...}, "network.config", "The field 'width' is missing."),
        ({"network__config__widht": 8}, "network.config",
         "The field 'widht' is unknown.\nDid you mean 'width'?"),
        ({"network__config__block": CODE}, "network.config.block",
         f'It is "{CODE}", not one of "basic", "bottleneck".'),
        ({"network__config__stem": "cifra"}, "network.config",
         "Stem='cifra' isn't a stem. Use 'imagenet', "
         "'cifar', 'deep', one like '3x3/2+pool', or a senetzoo.Stem."),
        ({"network__config__stem__kernels": [4]}, "network.config.stem.kernels[0]",
         "It is 4, not an odd whole number of at least 1."),
        ({"classes": ["a"]}, "classes", "There are 1 names for 5 classes."),
        ({"network__policy": CODE}, "network.policy",
         f"{CODE!r} isn't a policy. At {CODE!r}: expected the name of a gate."),
        ({"network__policy": "se/s9"}, "network.policy",
         "Se/s9 selects stage 9 of ResNet. ResNet has 2 stages of 1, 2 blocks."),
        ({"weights__sha256": "AB"}, "weights.sha256",
         'It is "AB", not a hash of 64 lower-case hexadecimal digits.'),
        ({"weights__file": "../x.safetensors"}, "weights.file",
         'It is "../x.safetensors", not "model.safetensors".'),
        ({"preprocessing": {}}, "preprocessing", "The field 'size' is missing."),
        (
            {
                "preprocessing": {
                    "size": 8,
                    "mean": [0],
                    "std": [1],
                    "interpolation": "bilinear",
                    "crop": 1,
                }
            },
            "preprocessing",
            "It is for 1 channels, but the network takes 3.",
        ),
    ],
)  # fmt: skip
def test_broken_configs(
    changes: dict[str, Any],
    where: str,
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "it"
    save(tiny(), folder)
    edited(folder, **changes)
    what = what if "\n" in what else f"{what}\n{AGAIN}"
    assert message(lambda: load(folder), WeightsError) == (
        f"{folder / 'config.json'} is broken at {where}.\n{what}"
    )
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("seen", "where", "what"),
    [
        ({"mean": [0.5]}, "",
         "Preprocessing got 1 means and 3 deviations. It takes one of each for gray images, three "
         "for RGB."),
        ({"std": [1, 1, 0]}, ".std[2]", "It is 0, not a number above 0."),
    ],
)  # fmt: skip
def test_broken_transforms(seen: dict[str, Any], where: str, what: str, tmp_path: Path) -> None:
    save(tiny(), tmp_path, preprocessing=Preprocessing(32, (0.5,) * 3, (0.5,) * 3))
    edited(tmp_path, **{f"preprocessing__{name}": value for name, value in seen.items()})
    assert message(lambda: load(tmp_path), WeightsError) == (
        f"{tmp_path / 'config.json'} is broken at preprocessing{where}.\n{what}\n{AGAIN}"
    )


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        (b"{", "its start", "It isn't valid JSON (Expecting property name enclosed in double "
         "quotes: "
         "line 1 column 2 (char 1))."),
        (b"\xff", "its start", "It isn't UTF-8 text."),
        (b"[]", "library_name", "It isn't 'senetzoo'."),
    ],
)  # fmt: skip
def test_files_that_are_no_configs(content: bytes, where: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    assert message(lambda: load(tmp_path), WeightsError) == (
        f"{tmp_path / 'config.json'} is broken at {where}.\n{what}\n{AGAIN}"
    )


# --- load ----------------------------------------------------------------------------------------


def test_what_load_takes(tmp_path: Path) -> None:
    assert message(lambda: load(3), ConfigError) == (  # type: ignore[arg-type]
        "A network can't be found by a int.\n"
        "It needs a name, which is text, or a folder.\n"
        'Type for example: "se_resnet50"'
    )
    for source in (tmp_path / "none", str(tmp_path / "none")):
        assert message(lambda: load(source), WeightsError) == (  # noqa: B023
            f"There is no network in {tmp_path / 'none'}.\nThe folder doesn't exist.\n"
            "Give a folder that senetzoo.save or a training run wrote, or hf-hub:OWNER/NAME for a "
            "repository"
        )
    assert message(lambda: load(tmp_path, clases=3), ConfigError) == (  # type: ignore[call-arg]
        "load() has no option 'clases'.\nDid you mean 'num_classes'?"
    )


# --- Folders of version 0.1.0 --------------------------------------------------------------------


def as_schema_1(folder: Path, **changes: Any) -> None:
    """Write the ``config.json`` of a folder as version 0.1.0 did, with changes."""
    file = folder / "config.json"
    raw = json.loads(file.read_text(encoding="utf-8"))
    network, seen = raw["network"], raw["preprocessing"]
    old = {
        "library_name": "senetzoo",
        "schema": 1,
        "senetzoo": "0.1.0",
        "architecture": network["name"],
        "family": network["family"],
        "config": network["config"],
        "policy": network["policy"],
        "gates": None,
        "num_classes": network["config"]["num_classes"],
        "label_names": raw["classes"],
        "pretrained_cfg": seen
        and {
            "input_size": [len(seen["mean"]), seen["size"], seen["size"]],
            "mean": seen["mean"],
            "std": seen["std"],
            "interpolation": seen["interpolation"],
            "crop_pct": seen["crop"],
        },
        "weights": raw["weights"],
    }
    file.write_text(json.dumps(old), encoding="utf-8")
    edited(folder, **changes)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (tiny, "se4@pre/s2+eca"),
        (
            SwinConfig(embed_dim=8, depths=(1, 2), heads=(1, 2), stem="cifar").build,
            "se4@pre/attn&s2+eca",
        ),
        (
            SwinConfig(embed_dim=8, depths=(1, 2), heads=(1, 2), stem="cifar").build,
            "se4@pre/mlp+eca/mlp&s2",
        ),
    ],
)
def test_gates_by_name_and_by_text_are_the_same(
    tmp_path: Path, build: Callable[[], Classifier], text: str
) -> None:
    """Version 0.1.0 wrote gates by the names of their sites if it had no text for them."""
    model = attach(build(), policy(text)).model
    assert isinstance(model, Classifier)
    save(model, tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert set(raw["network"]["policy"].split("+")) == set(text.split("+"))
    gates: dict[Site, Gate] = gates_of(model)
    named = {s.path: {"name": g.name, **dataclasses.asdict(g)} for s, g in gates.items()}  # type: ignore[call-overload]
    as_schema_1(tmp_path, policy=None, gates=named)
    assert gates_of(load(tmp_path)) == gates
    assert same_tensors(load(tmp_path), model)
    over = load(tmp_path, policy=ECA().at("pre"))
    assert {gate for site, gate in gates_of(over).items() if site.position == "pre"} == {ECA()}


@pytest.mark.parametrize(
    ("changes", "where", "what"),
    [
        ({"num_classes": 6}, "num_classes", "It is 6, but the config has 5."),
        ({"policy": None}, "policy",
         "Exactly one of policy and gates must be null."),
        ({"gates": {}}, "policy",
         "Exactly one of policy and gates must be null."),
        ({"policy": None, "gates": {"fc": {"name": "se"}}}, "gates",
         "The network has no site 'fc'."),
        ({"policy": None, "gates": {"layer1.0.slots.pre": {"name": CODE}}},
         "gates.layer1.0.slots.pre.name", f'It is "{CODE}", not one of "'
         + '", "'.join(GATES) + '".'),
        ({"policy": None, "gates": {"layer1.0.slots.pre": {"name": "simam"}}},
         "gates.layer1.0.slots.pre", "The field 'eps' is missing."),
        ({"pretrained_cfg__input_size": [3, 32, 40]}, "pretrained_cfg.input_size",
         "It is [3, 32, 40], not a number of channels and two equal sides."),
        ({"familly": "ResNet"}, "its start", "The field 'familly' is unknown.\n"
         "Did you mean 'family'?"),
    ],
)  # fmt: skip
def test_broken_configs_of_version_0_1_0(
    changes: dict[str, Any], where: str, what: str, tmp_path: Path
) -> None:
    save(tiny(), tmp_path, preprocessing=Preprocessing(32, (0.5,) * 3, (0.5,) * 3))
    as_schema_1(tmp_path, **changes)
    what = what if "\n" in what else f"{what}\n{AGAIN}"
    assert message(lambda: load(tmp_path), WeightsError) == (
        f"{tmp_path / 'config.json'} is broken at {where}.\n{what}"
    )


# --- Networks that torch has changed -------------------------------------------------------------


def _pruned(model: Classifier) -> None:
    prune: Any = importlib.import_module("torch.nn.utils.prune")
    prune.l1_unstructured(model.get_submodule("layer1.0.conv1"), "weight", amount=0.5)


def _normed(model: Classifier) -> None:
    nn.utils.weight_norm(model.get_submodule("layer1.0.conv1"))


def _spectral(model: Classifier) -> None:
    nn.utils.spectral_norm(model.get_submodule("layer1.0.conv1"))


def _parametrized(model: Classifier) -> None:
    nn.utils.parametrizations.weight_norm(model.get_submodule("layer1.0.conv1"))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("change", [_pruned, _normed, _spectral, _parametrized])
def test_what_is_typed_saves_a_changed_network(
    change: Callable[[Classifier], None], tmp_path: Path
) -> None:
    """After following the message, the folder has the changed network."""
    model = tiny()
    change(model)
    said = message(lambda: save(model, tmp_path / "it"), ConfigError).splitlines()
    assert said[0] == "Can't save the ResNet."
    assert said[1].startswith("Its layer1.0.conv1.weight is ")
    assert not (tmp_path / "it").exists()
    images = images_of(model)
    with torch.no_grad():
        expected = model.eval()(images)
    typed = said[2].removeprefix("Type: ")
    eval(typed, {"torch": torch, "model": model})
    save(model, tmp_path / "it")
    loaded = load(tmp_path / "it")
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), expected)
    weight = loaded.get_submodule("layer1.0.conv1").weight
    assert isinstance(weight, Tensor)
    assert (float((weight == 0).float().mean()) > 0.4) == (change is _pruned)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_quantized_network_is_refused(tmp_path: Path) -> None:
    quantization: Any = torch.ao.quantization
    if not set(torch.backends.quantized.supported_engines) - {"none"}:
        pytest.skip("this torch has no quantized kernels")
    model = tiny().eval()
    quantization.quantize_dynamic(model, {nn.Linear}, inplace=True)
    said = message(lambda: save(model, tmp_path / "it"), ConfigError).splitlines()
    assert "is quantized, or prepared for it" in said[1]
    assert "dtype='int8'" in said[2]
    model = tiny().train()
    model.qconfig = quantization.get_default_qat_qconfig()
    quantization.prepare_qat(model, inplace=True)
    assert "is quantized" in message(lambda: save(model, tmp_path / "it"), ConfigError)


def test_wrappers_in_wrappers_and_compiled_networks(tmp_path: Path) -> None:
    model = tiny().eval()
    wrapped = nn.DataParallel(torch.compile(model))  # type: ignore[type-var]
    said = message(lambda: save(wrapped, tmp_path / "it"), ConfigError)  # type: ignore[arg-type]
    assert said.endswith("Type save(model.module._orig_mod, folder)")
    model.compile()  # in its place; nothing is compiled before it is called
    save(model, tmp_path / "it")
    assert same_tensors(load(tmp_path / "it"), model)


def test_calibration_travels_with_the_tensors_and_goes_with_them(tmp_path: Path) -> None:
    model = create("resnet20", seed=0, num_classes=3)
    model.temperature, model.reject_below = 2.0, 0.7
    save(model, tmp_path / "net")
    found = load(tmp_path / "net")
    assert (found.temperature, found.reject_below) == (2.0, 0.7)
    copied = copy.deepcopy(found)
    assert (copied.temperature, copied.reject_below) == (2.0, 0.7)
    for changed in (
        load(tmp_path / "net", num_classes=4),
        load(tmp_path / "net", policy="se4"),
        load(tmp_path / "net", in_chans=1),
        create(tmp_path / "net", stem="imagenet"),
    ):
        assert (changed.temperature, changed.reject_below) == (1.0, None)
    for change in (
        lambda model: model.reset_classifier(3),
        lambda model: attach(model, "se4", seed=0),
        detach,
    ):
        model = load(tmp_path / "net")
        change(model)
        assert (model.temperature, model.reject_below) == (1.0, None)


@pytest.mark.parametrize(("field", "value"), [("temperature", 0.0), ("reject_below", 1.5)])
def test_a_calibration_that_is_none_is_not_saved(tmp_path: Path, field: str, value: float) -> None:
    model = create("resnet20", seed=0)
    setattr(model, field, value)
    with pytest.raises(ConfigError, match=f"{field}="):
        save(model, tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_what_was_written_without_a_calibration_has_none(tmp_path: Path) -> None:
    save(create("resnet20", seed=0), tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    assert (raw.pop("temperature"), raw.pop("reject_below")) == (1.0, None)
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert load(tmp_path).temperature == 1.0


def test_a_calibration_is_of_the_tensors_it_was_made_for(tmp_path: Path) -> None:
    """Further training drops a stored calibration; a later one counts."""
    model = create("resnet20", seed=0, num_classes=3)
    model.temperature, model.reject_below = 2.0, 0.7
    save(model, tmp_path / "net")
    found = load(tmp_path / "net")
    save(found.half(), tmp_path / "half")
    assert load(tmp_path / "half").temperature == 2.0
    found = load(tmp_path / "net")
    with torch.no_grad():
        next(found.parameters()).mul_(1.5)
    save(found, tmp_path / "trained")
    trained = load(tmp_path / "trained")
    assert (trained.temperature, trained.reject_below) == (1.0, None)
    found.uncalibrate()
    found.temperature = 3.0
    save(found, tmp_path / "again")
    assert load(tmp_path / "again").temperature == 3.0


def test_a_preprocessing_may_be_stated_in_part(tmp_path: Path) -> None:
    model, wrong = tiny(), cast(Any, "imagenet")
    save(model, tmp_path, preprocessing={"mean": (0.5,) * 3, "std": (0.25,) * 3})
    expected = dataclasses.replace(transforms(model), mean=(0.5,) * 3, std=(0.25,) * 3)
    assert transforms(load(tmp_path)) == expected
    calls: list[Callable[[], Any]] = [
        partial(save, model, tmp_path, preprocessing=wrong),
        partial(load, tmp_path, preprocessing=wrong),
    ]
    for call in calls:
        assert message(call, ConfigError).startswith("A preprocessing can't be 'imagenet'.\n")
