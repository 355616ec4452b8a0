"""Networks in timm's format: timm and Transformers read ours, and we read timm's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import ModelCard
from PIL import Image
from support.hub import HubServer, running
from support.networks import message, randomize, relative_error, same_tensors, tiny
from support.weights import report_of
from torch import Tensor

from senetzoo import attach, config, create, load, save, transforms
from senetzoo._utils import terminal
from senetzoo.cli import main
from senetzoo.errors import ConfigError, WeightsError
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.preprocessing import Preprocessing

FILES = ("README.md", "config.json", "model.safetensors")
NAMES = [f"class {number}" for number in range(7)]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    yield from running(tmp_path / "home", monkeypatch)


def timm() -> Any:
    import timm as library

    return library


def network(reference: str, channels: int = 3) -> Classifier:
    model = config(reference).replace(num_classes=7, in_chans=channels).build(seed=0).eval()
    randomize(model)
    return model


def images_for(size: int, channels: int = 3) -> Preprocessing:
    return Preprocessing(
        size, (0.3, 0.4, 0.5)[:channels], (0.2, 0.3, 0.4)[:channels], "bicubic", 0.9
    )


def logits(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval().double()(x.double())
    return found


# --- Writing -------------------------------------------------------------------------------------

SLOW = [pytest.mark.slow]


@pytest.mark.parametrize(
    ("reference", "theirs", "size", "channels"),
    [
        ("resnet18", "resnet18", 72, 3),
        ("se_resnet18+se16(width=round8)", "seresnet18", 64, 1),
        ("preresnet18", "resnetv2_18", 64, 3),
        ("mobilenet_v3_small", "mobilenetv3_small_100", 96, 3),  # with another epsilon than timm's
        ("regnet_y_400mf", "regnety_004", 64, 3),
        ("efficientnet_b0", "efficientnet_b0", 65, 3),
        pytest.param("se_resnet50", "seresnet50", 64, 3, marks=SLOW),
        pytest.param("densenet121", "densenet121", 64, 3, marks=SLOW),
        pytest.param("convnext_tiny", "convnext_tiny", 64, 3, marks=SLOW),
        pytest.param("swin_t", "swin_tiny_patch4_window7_224", 224, 3, marks=SLOW),
        pytest.param("swin_t", "swin_tiny_patch4_window7_224", 448, 3, marks=SLOW),
        pytest.param("vgg11_bn", "vgg11_bn", 64, 3, marks=SLOW),
        pytest.param("inception_v3", "inception_v3", 96, 3, marks=SLOW),
        pytest.param("ghostnet_100", "ghostnet_100", 64, 3, marks=SLOW),
        pytest.param("repvgg_a0", "repvgg_a0", 64, 3, marks=SLOW),
    ],
)
def test_timm_reads_what_is_written(
    reference: str, theirs: str, size: int, channels: int, tmp_path: Path
) -> None:
    model, images = network(reference, channels), images_for(size, channels)
    save(model, tmp_path, classes=NAMES, preprocessing=images, format="timm")
    read = timm().create_model(f"local-dir:{tmp_path}", pretrained=True)
    known, again = read.pretrained_cfg, load(tmp_path)
    assert (known["architecture"], list(known["label_names"])) == (theirs, NAMES)
    assert read.num_features == model.num_features
    assert known["num_classes"] == read.num_classes == 7
    found = timm().data.resolve_model_data_config(read)
    assert tuple(found["input_size"]) == (channels, size, size)
    assert (tuple(found["mean"]), tuple(found["std"])) == (images.mean, images.std)
    assert (found["interpolation"], found["crop_pct"]) == ("bicubic", 0.9)
    # And we.
    assert same_tensors(again, model)
    assert again.spec == model.spec
    assert (again.classes, transforms(again)) == (tuple(NAMES), images)
    x = torch.randn(2, channels, size, size)
    expected = logits(model, x)
    assert expected.std() > 1e-3
    assert relative_error(logits(read, x), expected) < 1e-10
    # Another number of classes, as for fine-tuning.
    if theirs == "resnet18":
        other = timm().create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=3)
        assert torch.equal(other.conv1.weight, again.get_parameter("conv1.weight"))


def test_transformers_reads_what_is_written(tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    model, images = network("mobilenet_v3_small"), images_for(64)
    save(model, tmp_path, classes=NAMES, preprocessing=images, format="timm")
    photograph = Image.radial_gradient("L").convert("RGB").resize((90, 120))
    pipe = transformers.pipeline("image-classification", model=str(tmp_path), device="cpu")
    guesses = pipe(photograph, top_k=7)
    assert {guess["label"] for guess in guesses} == set(NAMES)
    shares = model.eval()(images(photograph)[None]).softmax(1)[0]
    for guess in guesses:
        # timm resizes with Pillow, which rounds to whole gray values in between.
        own = shares[NAMES.index(guess["label"])].item()
        assert guess["score"] == pytest.approx(own, abs=0.02)
    x = torch.randn(2, 3, 64, 64)
    read = transformers.AutoModelForImageClassification.from_pretrained(str(tmp_path))
    assert (
        relative_error(
            logits(read, x) if False else read.double()(x.double()).logits, logits(model, x)
        )
        < 1e-10
    )
    # timm's own files have the same format.
    read.float().save_pretrained(str(tmp_path / "theirs"))
    again = load(tmp_path / "theirs")
    assert same_tensors(again, model.float())
    assert (again.classes, transforms(again)) == (tuple(NAMES), images)


def test_a_network_is_written_twice(tmp_path: Path) -> None:
    first, second = network("mobilenet_v3_small"), network("mobilenet_v3_small+none")
    save(first, tmp_path, format="timm", preprocessing=images_for(64))
    content = [(tmp_path / name).read_bytes() for name in FILES[1:]]
    save(first, tmp_path, format="timm", preprocessing=images_for(64))
    assert [(tmp_path / name).read_bytes() for name in FILES[1:]] == content
    save(second, tmp_path)
    assert same_tensors(load(tmp_path), second)
    save(first, tmp_path, format="timm")
    assert same_tensors(load(tmp_path), first)


def test_what_timm_has_no_word_for_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = network("resnet18")
    model.temperature = 1.5
    terminal.say_once.cache_clear()
    save(model, tmp_path, format="timm")
    said = capsys.readouterr().err
    assert "The preprocessing is not known: timm's config gets Preprocessing" in said
    assert "timm's config can't store the calibration: it is left out." in said
    assert load(tmp_path).temperature == 1.0


GATES = "Its resnet18 has the gates none, its seresnet18 has the gates se(width=round8)."
REMEDY = "Leave out the format: senetzoo's own supports every network"


@pytest.mark.parametrize(
    ("build", "size", "text"),
    [
        (lambda: create("lenet5", seed=0), 32,
         "timm has no network that equals this lenet5.\n"
         f"None of the networks that senetzoo and timm share is such a LeNet.\n{REMEDY}"),
        (lambda: create("resnet18+eca@pre", seed=0), 64,
         "timm has no network that equals this resnet18+eca@pre.\n"
         f"{GATES}\n{REMEDY}"),
        (lambda: create("se_resnet18", seed=0), 64,
         "timm has no network that equals this se_resnet18.\n"
         f"{GATES}\n{REMEDY}"),
        (lambda: create("resnet18", stem="cifar", seed=0), 32,
         "timm has no network that equals this resnet18.\n"
         f"Its resnet18 has a different stem.\n{REMEDY}"),
        (lambda: attach(tiny(), "se4", seed=0).model, 32,
         "timm has no network that equals this ResNet+se4.\n"
         f"None of the networks that senetzoo and timm share is such a ResNet.\n{REMEDY}"),
        (lambda: config("swin_t").replace(num_classes=3).build(seed=0), 256,
         "timm's swin_tiny_patch4_window7_224 differs from this network on images of 256x256.\n"
         "If the side isn't a multiple of 224 pixels, timm pads after shifting the windows, "
         "senetzoo before.\n"
         "Give another size with preprocessing=, or leave out the format"),
    ],
)  # fmt: skip
def test_what_timm_has_not(build: Callable[[], Any], size: int, text: str, tmp_path: Path) -> None:
    model = build()
    images = images_for(size, model.in_chans)
    kwargs: Any = {"preprocessing": images, "format": "timm"}
    assert message(lambda: save(model, tmp_path / "it", **kwargs), ConfigError) == text
    assert not (tmp_path / "it").exists() or not list((tmp_path / "it").iterdir())


def test_names_of_formats(tmp_path: Path) -> None:
    wrong: Any = "tim"
    assert message(lambda: save(tiny(), tmp_path, format=wrong), ConfigError) == (
        "save got format='tim'.\nThe formats are 'senetzoo' and 'timm'.\nDid you mean 'timm'?"
    )


# --- Reading -------------------------------------------------------------------------------------


def written_by_timm(name: str, folder: Path, **options: Any) -> Any:
    """A timm network with random weights, saved by timm."""
    theirs = timm().create_model(name, **options).eval()
    randomize(theirs)
    timm().models.save_for_hf(theirs, folder, safe_serialization=True)
    return theirs


@pytest.mark.parametrize(
    ("name", "ours", "options"),
    [
        ("resnet18", "resnet18", {"num_classes": 7}),
        ("seresnet18", "resnet18", {"num_classes": 3, "in_chans": 1}),
        ("mobilenetv3_small_100", "mobilenet_v3_small", {"bn_eps": 1e-3, "drop_rate": 0.3}),
        ("regnety_004", "regnet_y_400mf", {}),
        ("seresnet18", "resnet18", {"num_classes": 0}),
        pytest.param("legacy_seresnet50", "ResNet", {"num_classes": 7}, marks=SLOW),
        pytest.param("swin_tiny_patch4_window7_224", "swin_t", {}, marks=SLOW),
        pytest.param("densenet121", "densenet121", {}, marks=SLOW),
    ],
)
def test_a_folder_of_timm(name: str, ours: str, options: dict[str, Any], tmp_path: Path) -> None:
    theirs = written_by_timm(name, tmp_path, **options)
    model = create(tmp_path)
    assert model.spec.name == ours
    assert model.num_classes == theirs.num_classes
    found = timm().data.resolve_model_data_config(theirs)
    images = transforms(model)
    channels, size = options.get("in_chans", 3), found["input_size"][1]
    assert (model.in_chans, images.channels, images.size) == (channels, channels, size)
    assert images.interpolation == found["interpolation"]
    assert images.crop == found["crop_pct"]
    if channels == 3:
        assert (images.mean, images.std) == (tuple(found["mean"]), tuple(found["std"]))
    report = report_of(model)
    assert (report.origin, report.pinned, report.replaced) == ("folder", "", ())
    x = torch.randn(2, channels, 224 if "swin" in name else 64, 224 if "swin" in name else 64)
    assert relative_error(logits(model, x), logits(theirs, x)) < 1e-10


def test_features_are_written_and_converted(tmp_path: Path) -> None:
    model = config("mobilenet_v3_small").replace(num_classes=0).build(seed=0).eval()
    randomize(model)
    x = torch.randn(2, 3, 64, 64)
    save(model, tmp_path / "ours", format="timm", preprocessing=images_for(64))
    theirs = timm().create_model(f"local-dir:{tmp_path / 'ours'}", pretrained=True)
    assert relative_error(logits(theirs, x), logits(model, x)) < 1e-10
    torch.save(timm().create_model("resnet18", num_classes=0).state_dict(), tmp_path / "r.pth")
    to = tmp_path / "r.safetensors"
    words = ["weights", "convert", str(tmp_path / "r.pth"), "--to", "resnet18", "--out", str(to)]
    run = CliRunner().invoke(main, words)
    assert run.exit_code == 0, run.output
    assert create("resnet18", weights=to).num_classes == 0


def test_a_repository_of_timm(hub: HubServer, tmp_path: Path) -> None:
    theirs = written_by_timm("resnet18", tmp_path, num_classes=7)
    raw = json.loads((tmp_path / "config.json").read_text())
    raw["label_names"] = NAMES
    files = {
        "config.json": json.dumps(raw).encode(),
        "model.safetensors": (tmp_path / "model.safetensors").read_bytes(),
    }
    commit = hub.put("timm/resnet18.a1_in1k", files)
    model = create("hf-hub:timm/resnet18.a1_in1k")
    report = report_of(model)
    assert report.tag == f"hf-hub:timm/resnet18.a1_in1k@{commit}"
    assert (report.origin, model.classes) == ("hub", tuple(NAMES))
    x = torch.randn(2, 3, 64, 64)
    expected = logits(theirs, x)
    assert relative_error(logits(model, x), expected) < 1e-10
    # With options and a policy, as for any other reference.
    other = load("hf-hub:timm/resnet18.a1_in1k+se16", num_classes=3, seed=0)
    assert report_of(other).origin == "cache"
    assert (other.num_classes, other.spec.name) == (3, "se_resnet18")


def _plain(raw: dict[str, Any]) -> None:
    """As before 2023, with all fields at the top level."""
    raw |= raw.pop("pretrained_cfg")
    del raw["model_args"]
    raw["labels"] = list("abc")


def _numbered(raw: dict[str, Any]) -> None:
    raw["label_names"] = {"1": "b", "0": "a", "2": "c"}


@pytest.mark.parametrize("change", [_plain, _numbered])
def test_older_forms_of_the_config(
    change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    written_by_timm("resnet18", tmp_path, num_classes=3)
    raw = json.loads((tmp_path / "config.json").read_text())
    expected = transforms(load(tmp_path))
    change(raw)
    (tmp_path / "config.json").write_text(json.dumps(raw))
    model = load(tmp_path)
    assert (model.classes, transforms(model)) == (("a", "b", "c"), expected)


CONVERT = (
    "Load it with timm; to convert only its tensors: senetzoo weights convert FILE --to resnet18"
)


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        ("architecture", "vit_base_patch16_224",
         "No network of senetzoo is timm's 'vit_base_patch16_224'.\nThere are counterparts of "),
        ("model_args.output_stride", 16, "Its resnet18 has the argument output_stride=16."),
        ("model_args.bn_eps", 1e-3, "Its resnet18 has the argument bn_eps=0.001."),
        ("model_args.global_pool", "max",
         'Its resnet18 has global_pool="max"; senetzoo only has average pooling.'),
        ("global_pool", "catavgmax",
         'Its resnet18 has global_pool="catavgmax"; senetzoo only has average pooling.'),
        ("pretrained_cfg.crop_mode", "squash",
         'Its resnet18 has crop_mode="squash"; senetzoo only crops at the center.'),
        ("pretrained_cfg.interpolation", "lanczos", 'Its resnet18 has interpolation="lanczos".'),
        ("pretrained_cfg.input_size", [3, 224, 256],
         "Its resnet18 has input_size=[3, 224, 256]; senetzoo only takes square images."),
        ("pretrained_cfg.label_offset", 1,
         "Its resnet18 has label_offset=1, which leaves out classes."),
        ("pretrained_cfg.mean", "0.5",
         'config.json is broken at pretrained_cfg.mean.\nIt is "0.5", not a list of numbers.'),
        ("model_args", [1], "config.json is broken at model_args.\nIt is [1], not an object."),
        ("num_classes", -1, "config.json is broken at num_classes.\n"
         "It is -1, not a whole number of at least 0."),
        ("label_names", ["a", "b"],
         "config.json is broken at label_names.\nThere are 2 names for 3 classes."),
        ("label_names", [1, 2, 3],
         "config.json is broken at label_names.\nIt is [1, 2, 3], not a name for each class."),
    ],
)  # fmt: skip
def test_what_senetzoo_has_not(place: str, value: object, text: str, tmp_path: Path) -> None:
    # Before any tensor is read.
    raw: dict[str, Any] = {
        "architecture": "resnet18",
        "num_classes": 3,
        "model_args": {"in_chans": 3},
        "pretrained_cfg": {"input_size": [3, 224, 224]},
    }
    *path, last = place.split(".")
    inner = raw
    for part in path:
        inner = inner[part]
    inner[last] = value
    (tmp_path / "config.json").write_text(json.dumps(raw))
    said = message(lambda: load(tmp_path), WeightsError)
    assert text in said
    assert len(said.splitlines()) == 3
    if "Its resnet18" in text:
        assert said.endswith(CONVERT)


def test_images_for_which_they_differ(tmp_path: Path) -> None:
    raw = {"architecture": "vgg11", "pretrained_cfg": {"input_size": [3, 256, 256]}}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert message(lambda: load(tmp_path), WeightsError).splitlines()[:2] == [
        "senetzoo's vgg11 differs from timm's vgg11 on images of 256x256.",
        "timm's VGG applies its head to 7x7 windows of the 8x8 map, ours to its mean.",
    ]


def test_weights_that_are_a_pickle(tmp_path: Path) -> None:
    theirs = timm().create_model("seresnet18", num_classes=3)
    timm().models.save_for_hf(theirs, tmp_path, safe_serialization=False)
    file = tmp_path / "pytorch_model.bin"
    assert message(lambda: load(tmp_path), WeightsError) == (
        f"The only weights in {tmp_path} are pytorch_model.bin.\n"
        "That is a pickle; networks are read from model.safetensors.\n"
        f"Type: senetzoo weights convert {file} --to se_resnet18"
    )


def test_tensors_of_another_network(tmp_path: Path) -> None:
    written_by_timm("resnet18", tmp_path, num_classes=3)
    raw = json.loads((tmp_path / "config.json").read_text())
    raw["architecture"] = "resnet34"
    (tmp_path / "config.json").write_text(json.dumps(raw))
    first, second, _ = message(lambda: load(tmp_path), WeightsError).splitlines()
    assert first == "The tensors are not those of the network by the names of timm."
    assert second.startswith("layer1.2.conv1.weight is missing")


# --- Pushing -------------------------------------------------------------------------------------


def test_push_in_the_form_of_timm(hub: HubServer, tmp_path: Path) -> None:
    model, images = network("mobilenet_v3_small"), images_for(64)
    save(model, tmp_path / "mine", classes=NAMES, preprocessing=images)
    arguments = ["push", str(tmp_path / "mine"), "--repo", "someone/pets", "--format", "timm"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.stderr
    commit, files = hub.repos["someone/pets"].commits[-1]
    assert result.stdout.endswith(
        f'Type: timm.create_model("hf-hub:someone/pets@{commit}", pretrained=True)\n'
    )
    card = ModelCard(files["README.md"].decode())
    data: Any = card.data
    assert data.library_name == "timm"
    assert {"timm", "senetzoo"} <= set(data.tags)
    names: dict[str, Any] = {}
    timm()
    exec(str(card).split("```python\n")[1].split("```")[0], names)
    x = torch.randn(2, 3, 64, 64)
    expected = logits(model, x)
    assert relative_error(logits(names["model"], x), expected) < 1e-10
    assert list(names["transform"].transforms[1].size) == [64, 64]
    again = load("hf-hub:someone/pets")
    assert relative_error(logits(again, x), expected) < 1e-10
    assert (again.classes, transforms(again)) == (tuple(NAMES), images)
    # In Python.
    other = again.float().push_to_hub("someone/others", format="timm")
    assert hub.repos["someone/others"].commits[-1][0] == other
    assert hub.repos["someone/others"].commits[-1][1]["config.json"] == files["config.json"]


def test_what_timm_has_not_is_not_pushed(hub: HubServer) -> None:
    arguments = ["push", "se_resnet20.cifar10_v1", "--repo", "a/b", "--format", "timm"]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "error: timm has no network that equals this se_resnet20.\n"
        f"None of the networks that senetzoo and timm share is such a ResNet.\n{REMEDY}\n"
    )
    assert not hub.asked()
