"""``senetzoo.deploy.export``: what is written computes what the network does, or is not written."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from safetensors.torch import save_file
from support import commands
from support.networks import (
    SMALL,
    calibrate_on_next_batch,
    images_of,
    message,
    on_meta,
    relative_error,
    tiny,
)
from test_export import ready
from torch import Tensor, nn

import senetzoo
from senetzoo import SE, attach
from senetzoo._utils import terminal
from senetzoo.deploy import writers
from senetzoo.deploy.export import TOLERANCES, export
from senetzoo.deploy.program import exported
from senetzoo.deploy.writers import FORMATS, SUFFIXES, Format
from senetzoo.errors import ConfigError, MissingExtraError
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.preprocessing import Preprocessing
from senetzoo.nn.report import LoadReport
from senetzoo.spec import name_of

SEEN = Preprocessing(24, (0.5, 0.25, 0.125), (0.5, 1.0, 2.0), "bicubic", crop=0.75)
COLORS = ("red", "green", "blue", "näve", "black, or white")


def small() -> Classifier:
    """A ResNet of one block with a gate, in training mode, with a load report."""
    model = tiny(depths=(1,))
    senetzoo.attach(model, SE(4), seed=0)
    calibrate_on_next_batch(model)
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 24, 24))
    replaced = (("fc.weight", "another number of classes"),)
    model.load_report = LoadReport("net.v1", "folder", "ab" * 32, COLORS, replaced)
    return model


def open_onnx(path: Path) -> tuple[Callable[[Tensor], Tensor], Mapping[str, Any]]:
    import onnx
    import onnxruntime

    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    (given,), (taken,) = model.graph.input, model.graph.output
    assert (given.name, taken.name) == ("images", "logits")
    assert given.type.tensor_type.shape.dim[0].dim_param == "batch"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": x.numpy()})
        return torch.from_numpy(logits)

    return run, {p.key.removeprefix("senetzoo."): p.value for p in model.metadata_props}


def open_pt2(path: Path) -> tuple[Callable[[Tensor], Tensor], Mapping[str, Any]]:
    extra = {"senetzoo.json": ""}
    program = torch.export.load(path, extra_files=extra)
    return program.module(), json.loads(extra["senetzoo.json"])


def open_openvino(path: Path) -> tuple[Callable[[Tensor], Tensor], Mapping[str, Any]]:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(compiled({"images": x.numpy()})["logits"].copy())

    about = ElementTree.parse(path).findall("rt_info/senetzoo/*")
    return run, {entry.tag: entry.attrib["value"] for entry in about}


OPEN = {"onnx": open_onnx, "pt2": open_pt2, "openvino": open_openvino}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- What is written -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_the_file_is_the_network(form: Format, tmp_path: Path) -> None:
    """Opened without senetzoo: logits for any number of images, and what they mean."""
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    path = tmp_path / f"net{SUFFIXES[form]}"
    done = export(model, path, preprocessing=SEEN)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert list(done.files) == [tmp_path / name for name in names(tmp_path)][::-1]
    assert set(done.errors) == {1, 5}
    assert max(done.errors.values()) < 1e-5

    run, about = OPEN[form](path)
    model.eval()
    for count in (1, 2, 7):
        x = torch.randn(count, 3, 24, 24)
        with torch.no_grad():
            assert relative_error(run(x), model(x)) < 1e-5
    expected = {
        "version": senetzoo.__version__,
        "model": "ResNet+se4",
        "weights": "net.v1",
        "weights_sha256": "ab" * 32,
        "weights_not_loaded": ["fc.weight"],
        "size": 24,
        "mean": [0.5, 0.25, 0.125],
        "std": [0.5, 1.0, 2.0],
        "interpolation": "bicubic",
        "crop": 0.75,
        "classes": list(COLORS),
        "temperature": 1.0,
        "dtype": "fp32",
    }
    texts = {"version", "model", "weights", "weights_sha256", "interpolation", "dtype"}
    if form != "pt2":
        assert len(about["sha256"]) == 64
        about = {k: v for k, v in about.items() if k != "sha256"}
        about = {k: v if k in texts else json.loads(v) for k, v in about.items()}
    assert about == done.metadata == expected


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", SMALL.values())
def test_every_family(name: str, form: Format, tmp_path: Path) -> None:
    model = ready(name)
    path = tmp_path / f"net{SUFFIXES[form]}"
    done = export(model, path, size=images_of(model, 1).shape[-1])
    assert done.metadata["model"] == name_of(model)
    run, _ = OPEN[form](path)
    with torch.no_grad():
        for count in (1, 3):
            x = images_of(model, count)
            assert relative_error(run(x), model(x)) < TOLERANCES["fp32"]


@pytest.mark.parametrize("optimized", [False, True])
def test_optimized(optimized: bool, tmp_path: Path) -> None:
    """The average of a gate is taken of the convolution's input: 32 channels, not 128."""
    model = tiny("bottleneck", depths=(1,), width=32)
    attach(model, SE(4), seed=0)
    done = export(model.eval(), tmp_path / "new" / "net.pt2", optimized=optimized)
    assert max(done.errors.values()) < TOLERANCES["fp32"]
    graph = torch.export.load(done.files[0]).graph
    (mean,) = [node for node in graph.nodes if node.target is torch.ops.aten.mean.dim]
    assert mean.args[0].meta["val"].shape[1] == (32 if optimized else 128)
    norms = [node for node in graph.nodes if "batch_norm" in str(node.target)]
    assert bool(norms) == (not optimized)


def test_a_network_of_other_channels_has_no_transforms(tmp_path: Path) -> None:
    model = senetzoo.create("lenet5", in_chans=2, num_classes=3, seed=0)
    done = export(model, tmp_path / "net.pt2", name="two", classes=["a", "b", "c"])
    assert done.metadata == {
        "version": senetzoo.__version__,
        "model": "two",
        "size": model.input_size,
        "classes": ["a", "b", "c"],
        "temperature": 1.0,
        "dtype": "fp32",
    }


def test_half_precision_is_written_in_fp32(tmp_path: Path) -> None:
    model = senetzoo.create("lenet5", seed=0).to(torch.bfloat16)
    path = tmp_path / "net.pt2"
    export(model, path)
    x = torch.randn(2, model.in_chans, 32, 32)
    with torch.no_grad():
        assert relative_error(open_pt2(path)[0](x), model.eval().float()(x)) < 1e-6


@pytest.mark.parametrize(
    "name", ["lenet", "efficientnet_b0", "se_swin_t", "resnet50+se8@pre/s3-4+eca/s1-2"]
)
def test_a_name_builds_the_network_again(name: str) -> None:
    spec = senetzoo.config(name)
    model = on_meta(lambda: spec.build(seed=0))
    again = senetzoo.config(name_of(model))
    twin = on_meta(lambda: again.build(seed=0))
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert {key: value.shape for key, value in twin.state_dict().items()} == shapes


# --- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_that_computes_something_else_is_not_written(
    form: Format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old file under the name stays what it was."""
    for name in ("net.onnx", "net.pt2", "net.xml", "net.bin"):
        (tmp_path / name).write_text(f"old {name}")

    def wrong(model: nn.Module, sample: Tensor) -> Any:
        other = copy.deepcopy(model)
        next(other.parameters()).mul_(1.5)
        return exported(other, sample)

    monkeypatch.setattr(writers, "exported", wrong)
    title = {"onnx": "ONNX", "pt2": "a pt2 file", "openvino": "OpenVINO's IR"}[form]
    others = ", ".join(SUFFIXES[other] for other in FORMATS if other != form)
    with pytest.raises(ConfigError) as error:
        export(small(), tmp_path / f"net{SUFFIXES[form]}")
    asked, true, remedy = str(error.value).splitlines()
    assert asked == f"The network can't be written as {title}: the file computes something else."
    assert true.startswith("With 1 random images its logits differ by ")
    assert true.endswith(" of the largest; at most 1e-04 is allowed.")
    assert remedy == f"Write another format: {others}"
    assert names(tmp_path) == ["net.bin", "net.onnx", "net.pt2", "net.xml"]
    for name in names(tmp_path):
        assert (tmp_path / name).read_text() == f"old {name}"


LENET = senetzoo.create("lenet5", seed=0)
CLASSES = "The network has 10 classes.\nGive one name for each, in the order of the logits"
NAMES = (
    'classes is a sequence of names, one for each class.\nType for example: classes=("cat", "dog")'
)
BAD: list[tuple[Any, str, dict[str, Any], str]] = [
    (LENET, "net.onx", {}, "The file name 'net.onx' has no known suffix.\n"
     "Known suffixes are .onnx, .pt2, .xml.\nDid you mean '.onnx'?"),
    (LENET, "net", {}, "The file name 'net' has no known suffix.\n"
     "Known suffixes are .onnx, .pt2, .xml.\nType for example: net.onnx"),
    (nn.Linear(2, 2), "net.pt2", {}, "export got a Linear.\n"
     "It takes a network made by senetzoo.create.\n"
     "For other modules use torch.export or torch.onnx.export"),
    (LENET, "net.pt2", {"size": 1}, "export got size=1.\n"
     f"It is a whole number of pixels, for this network at least {LENET.min_size}."),
    (LENET, "net.pt2", {"classes": ["a"]}, f"export got 1 class names.\n{CLASSES}"),
    (LENET, "net.pt2", {"classes": "abcdefghij"}, f"export got classes='abcdefghij'.\n{NAMES}"),
    (LENET, "net.pt2", {"classes": [1] * 10}, f"export got classes={[1] * 10}.\n{NAMES}"),
    (LENET, "net.pt2", {"clases": ["a"]}, "export() has no option 'clases'.\n"
     "Did you mean 'classes'?"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "path", "options", "text"), BAD)
def test_bad_input(
    model: Any,
    path: str,
    options: dict[str, Any],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message(lambda: export(model, path, **options), ConfigError) == text
    assert names(tmp_path) == []


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    model = copy.deepcopy(LENET)
    nn.init.constant_(next(model.parameters()), torch.nan)
    assert message(lambda: export(model, tmp_path / "net.pt2"), ConfigError) == (
        "The network can't be exported.\n"
        "Its logits for random images are not finite.\n"
        "Check its weights"
    )
    assert names(tmp_path) == []


def test_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    away = {"onnxruntime", "openvino"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda wanted: None if wanted in away else real(wanted)
    )
    assert message(lambda: export(small(), tmp_path / "net.onnx"), MissingExtraError) == (
        "Writing ONNX needs the package 'onnxruntime'.\n"
        "It is not installed.\n"
        "Type: pip install 'senetzoo[onnx]'"
    )
    assert message(lambda: export(small(), tmp_path / "net.xml"), MissingExtraError) == (
        "Writing OpenVINO's IR needs the package 'openvino'.\n"
        "It is not installed.\n"
        "Type: pip install 'senetzoo[openvino]'"
    )
    assert names(tmp_path) == []


# --- The command ---------------------------------------------------------------------------------


run = partial(commands.run, "export")


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("lenet5.digits_v1", "--to", "pt2")
    assert done.exit_code == 0, done.output
    file = tmp_path / "lenet5.digits_v1.pt2"
    first, second, third, computes, fourth = done.stdout.splitlines()
    assert computes == "  fp32 weights, computes in fp32"
    assert first == f"Written to {file.name}, {file.stat().st_size:,} bytes."
    assert second == "  lenet5.digits_v1"
    assert third == "  images (batch, 1, 32, 32), float32 -> logits (batch, 10), float32"
    assert fourth.startswith("  largest error of the logits, relative to the largest: ")
    model = senetzoo.create("lenet5.digits_v1", pretrained=True)
    computed, about = open_pt2(file)
    x = torch.randn(3, 1, 32, 32)
    with torch.no_grad():
        assert relative_error(computed(x), model(x)) < 1e-6
    seen = senetzoo.transforms(model)
    assert about["mean"] == list(seen.mean)
    assert about["std"] == list(seen.std)
    assert model.load_report is not None
    assert about["weights_sha256"] == model.load_report.sha256
    assert about["classes"] == list(model.load_report.classes)


def test_command_with_a_file_of_weights(tmp_path: Path) -> None:
    model = senetzoo.create("lenet5", num_classes=3, seed=1)
    weights, target = tmp_path / "mine.safetensors", tmp_path / "net.pt2"
    save_file(model.state_dict(), weights)
    stated = ("--mean", "0.5", "--std", "0.25", "--crop", "0.8")
    done = run("lenet5", "--weights", weights, "--to", "pt2", "--output", target, *stated)
    assert done.exit_code == 0, done.output
    computed, about = open_pt2(target)
    x = torch.randn(3, model.in_chans, 32, 32)
    with torch.no_grad():
        assert relative_error(computed(x), model.eval()(x)) < 1e-6
    assert (about["mean"], about["std"], about["crop"]) == ([0.5], [0.25], 0.8)
    assert about["weights"] == "mine.safetensors"
    assert len(about["weights_sha256"]) == 64


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("lenet5", "--to", "onnx", "--output", "net.pt2"),
         "error: --to onnx can't write net.pt2.\nFiles of this format end in .onnx.\n"
         "Type: --output net.onnx\n"),
        (("lenet5", "--to", "pt2", "--random", "--weights", "w.safetensors"),
         "Usage: senetzoo export [OPTIONS] NETWORK\nTry 'senetzoo export --help' for help.\n\n"
         "Error: --random can't be combined with --weights, --mean, --std, --size or --crop.\n"),
        (("lenet5.digits_v1", "--to", "pt2", "--weights", "w.safetensors"),
         "error: 'lenet5.digits_v1' and weights='w.safetensors' name different weights.\n"
         "A network has one set of weights.\nLeave one of them out\n"),
        (("lenet5+se4", "--to", "pt2"), "The default weights of lenet5 are lenet5.digits_v1.\n"
         "error: lenet5+se4 has parameters without trained weights.\n"
         "lenet5.digits_v1 lacks slots1.standard.fc1.weight (a gate that the weights do "
         "not have).\nTrain it first, or give weights of exactly this network: --weights FILE\n"),
    ],
)  # fmt: skip
def test_command_bad_input(
    args: tuple[str, ...], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    terminal.say_once.cache_clear()  # which says a default once
    done = run(*args)
    assert done.exit_code == 2
    assert done.stderr == text
    assert names(tmp_path) == []
