"""Exported files of every dtype, and those that take photographs and give probabilities."""

from __future__ import annotations

import functools
import http.client
import importlib
import json
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from PIL import Image
from support import commands
from support.networks import message
from torch import Tensor, nn

import senetzoo
from senetzoo import zoo
from senetzoo.data import digits
from senetzoo.data.files import read_parquet
from senetzoo.deploy import export as room
from senetzoo.deploy.beside import Beside, divided
from senetzoo.deploy.export import Export, export
from senetzoo.deploy.readers import read_file
from senetzoo.deploy.writers import FORMATS, SUFFIXES, WRITERS, Draft, FileDtype, Format
from senetzoo.errors import ConfigError, DataError, WeightsError
from senetzoo.eval.data import LabeledImages, images_for
from senetzoo.eval.predict import predict
from senetzoo.eval.predictions import Predictions
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.preprocessing import Preprocessing

REJECT_BELOW = 0.6
PAGE = Path(__file__).resolve().parent.parent / "docs" / "deploy.md"
run = partial(commands.run, "export")
Exported: TypeAlias = Callable[[Format, Path], tuple[Path, ...]]


@pytest.fixture(scope="module")
def lenet() -> Classifier:
    return senetzoo.load("lenet5.digits_v1")


@pytest.fixture(scope="module")
def exported(lenet: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Copies of an export of the network to a folder, as net.onnx and the like; exported once."""

    @functools.cache
    def original(form: Format) -> tuple[Path, ...]:
        return export(lenet, tmp_path_factory.mktemp(form) / f"net{SUFFIXES[form]}").files

    def copied(form: Format, folder: Path) -> tuple[Path, ...]:
        return tuple(Path(shutil.copy(file, folder)) for file in original(form))

    return copied


# --- Photographs in, probabilities out -----------------------------------------------------------


def photograph(height: int, width: int, channels: int = 3) -> Image.Image:
    """Grains of all sizes, so that every filter shows."""
    rng = np.random.default_rng(height * width)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(coarse).resize((width, height))).astype(int)
    noisy = np.clip(large + rng.integers(-30, 30, large.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(noisy).convert("RGB" if channels == 3 else "L")


def the_file_gives(path: Path, image: Image.Image) -> np.ndarray[Any, Any]:
    """What a file with everything inside says of a photograph, opened by its own runtime."""
    pixels = np.asarray(image).reshape(1, image.height, image.width, -1)
    if path.suffix == ".pt2":
        return np.asarray(torch.export.load(path).module()(torch.from_numpy(pixels.copy()))[0])
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(["probabilities"], {"images": pixels})[0][0])
    import openvino

    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.asarray(model({"images": pixels})["probabilities"][0])


class Shrunk(nn.Module):
    """A network that gives away what it got: its outputs are pixels."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, ::5, ::5].flatten(1)


@pytest.mark.parametrize(
    ("form", "interpolation", "crop"),
    [
        pytest.param(form, interpolation, crop, marks=[pytest.mark.slow] * (not quick))
        for form in FORMATS
        for interpolation, crop, quick in (
            ("bicubic", 0.875, form == "openvino"),
            ("bilinear", 1.0, False),
            ("nearest", 0.9, False),
        )
    ],
)
def test_pixels_are_those_of_pillow(
    form: Format, interpolation: Any, crop: float, tmp_path: Path
) -> None:
    """Any height and width, within a level in a few places."""
    path = tmp_path / f"net{SUFFIXES[form]}"
    like = Preprocessing(28, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), interpolation, crop=crop)
    draft = Draft(Shrunk(), torch.zeros(2, 3, 28, 28), "fp32", {}, None, like, 1.0)
    with WRITERS[form](path, draft):
        pass
    for height, width in ((28, 28), (61, 47), (47, 61), (10, 23), (33, 32), (3, 60), (60, 3)):
        image = photograph(height, width)
        found = the_file_gives(path, image)
        expected = Shrunk()(like(image)[None]).softmax(1)[0].numpy()
        std = np.repeat(like.std, len(found) // 3)
        levels = 255 * std * (np.log(found) - np.log(expected))
        levels -= np.median(levels)
        assert np.abs(levels).max() < 2.5, (height, width)
        assert (np.abs(levels) > 0.5).mean() < 0.1, (height, width)


# --- Dtypes --------------------------------------------------------------------------------------


KINDS: list[tuple[Format, FileDtype, bool]] = [
    ("onnx", "fp16", False),
    ("onnx", "int8", False),
    ("openvino", "int8", True),
    ("pt2", "fp16", False),
    ("openvino", "fp16", False),
    ("onnx", "int8", True),
    ("onnx", "fp16", True),
    ("openvino", "fp16", True),
    ("pt2", "fp16", True),
]


@pytest.mark.parametrize(
    ("form", "dtype", "inside"),
    [pytest.param(*kind, marks=[pytest.mark.slow] * (n >= 4)) for n, kind in enumerate(KINDS)],
)
def test_dtypes(
    lenet: Classifier, form: Format, dtype: FileDtype, inside: bool, tmp_path: Path
) -> None:
    """The file is smaller, and on the images that it was not calibrated with nearly as good."""
    path = tmp_path / f"net{SUFFIXES[form]}"
    done = export(lenet, path, dtype=dtype, with_preprocessing=inside, data="digits")
    weights = sum(p.numel() for p in lenet.parameters())
    size = sum(file.stat().st_size for file in done.files)
    around = 120_000 if inside else 60_000
    assert size < {"fp16": 2, "int8": 1}[dtype] * weights + around
    assert done.metadata["dtype"] == dtype
    found = done.beside
    assert found is not None
    images = 298 if dtype == "int8" else 596
    assert len(found.file.labels) == len(found.network.labels) == images
    assert found.same >= 0.99 * images
    assert abs(found.points) <= 1.0
    assert found.largest < {"fp16": 0.02, "int8": 0.3}[dtype]
    if dtype == "int8":
        assert found.largest > 1e-4  # it is not fp32
        assert done.metadata["calibration"] == "298 images of scikit-learn digits test"
    # The file's own runtime says the same as the one that was measured.
    if inside:
        image = Image.fromarray(digits.load("test").images[0].squeeze(2).numpy())
        probabilities = the_file_gives(path, image)
        assert probabilities.sum() == pytest.approx(1, abs=1e-5)
        (expected,) = predict(lenet, [image], top=1)
        assert probabilities.argmax() == expected.guesses[0].label


def test_ranges_come_from_images_that_are_not_measured_on(lenet: Classifier) -> None:
    data = images_for(lenet, "digits")
    calibration, rest = divided(data)
    assert (len(calibration.images), len(rest.images)) == (298, 298)
    parts = [part.images.images for part in (calibration, rest)]  # type: ignore[union-attr]
    together = torch.cat(parts).flatten(1)
    whole = data.images.images.flatten(1)  # type: ignore[union-attr]
    order = [sorted(map(tuple, tensor.tolist())) for tensor in (together, whole)]
    assert order[0] == order[1]
    one = LabeledImages(data.images.keep([0], "one"), data.outputs)
    assert message(lambda: divided(one), DataError) == (
        "one has 1 image.\nint8 is calibrated with some images and evaluated on others.\n"
        "Give a few hundred images"
    )


def predictions(right: int, images: int) -> Predictions:
    labels = torch.zeros(images, dtype=torch.int64)
    guesses = (torch.arange(images) >= right).long()
    return Predictions(nn.functional.one_hot(guesses, 2).float(), labels)


@pytest.mark.parametrize(
    ("dtype", "right", "text"),
    [
        ("fp16", 999, ""),
        ("fp16", 998, "The fp16 file loses 0.20 points of accuracy on things, more than 0.1."),
        ("int8", 990, ""),
        ("int8", 989, "The int8 file loses 1.10 points of accuracy on things, more than 1."),
    ],
)
def test_a_loss_is_warned_of(dtype: str, right: int, text: str) -> None:
    beside = Beside("things", predictions(1000, 1000), predictions(right, 1000))
    done = Export((), {"dtype": dtype}, {}, False, "", beside)
    assert done.warning == text
    assert beside.same == right
    assert str(beside).startswith(f"things: {right / 10:.2f}% [")


def test_a_loss_is_said(lenet: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "evaluate", lambda *args, **kwargs: predictions(10, 10))
    monkeypatch.setattr(room, "predictions_of", lambda *args, **kwargs: predictions(9, 10))
    path = tmp_path / "net.pt2"
    text = "The fp32 file loses 10.00 points of accuracy on scikit-learn digits test, more than 0."
    with pytest.warns(UserWarning, match=text):
        export(lenet, path, data="digits")
    done = run("lenet5.digits_v1", "--to", "pt2", "--output", path, "--data", "digits")
    assert done.exit_code == 0
    assert done.stderr == f"warning: {text}\n"
    assert (
        "digits test: 90.00% [59.58%, 98.21%] of 10 images are right (95 %, Wilson), -10.00 points "
        in done.stdout
    )


def test_how_little_few_images_show(tmp_path: Path) -> None:
    test = digits.load("test")
    for number in range(10):
        file = tmp_path / "photos" / str(int(test.labels[number])) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(test.images[number].squeeze(2).numpy()).save(file)
    options = ("--to", "onnx", "--dtype", "int8", "--output", tmp_path / "net.onnx")
    done = run("lenet5.digits_v1", *options, "--data", tmp_path / "photos")
    assert done.exit_code == 0, done.output
    # All are right in both: the limit of Wilson's interval for 5 of 5, and the root of its square.
    (line,) = (line for line in done.stdout.splitlines() if "calibrated on" in line)
    assert line == (
        f"  calibrated on 5 images of {tmp_path / 'photos'}, and evaluated on the 5 others; as far "
        "as these show, the file may be up to 43.4 points worse (95 %)"
    )
    # Without images, the list of a fine-tuned run is named.
    saved = tmp_path / "runs" / "my photos"
    senetzoo.save(senetzoo.load("lenet5.digits_v1"), saved)
    (saved / "split.csv").write_text("path,label,split\n")
    refused = run(saved, *options)
    assert refused.exit_code == 2
    assert f"Give a few hundred: --data '{saved / 'split.csv'}', in Python" in refused.stderr


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("net.pt2", {"dtype": "int8", "data": "digits"}, "int8 can't be written as a pt2 file.\n"
     "It is supported for ONNX and OpenVINO's IR.\n"
     "Give --to onnx or --to openvino, in Python a file name that ends in .onnx or .xml"),
    ("net.onnx", {"dtype": "int8"}, "int8 needs images.\n"
     "It is calibrated with and evaluated on real images.\n"
     "Give a few hundred: --data FOLDER, in Python data="),
    ("net.onnx", {"dtype": "int"}, "export got dtype='int'.\n"
     "dtype is one of fp32, fp16, int8.\nDid you mean 'int8'?"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "text"), BAD)
def test_bad_input(
    lenet: Classifier, name: str, options: dict[str, Any], text: str, tmp_path: Path
) -> None:
    assert message(lambda: export(lenet, tmp_path / name, **options), ConfigError) == text
    assert list(tmp_path.iterdir()) == []


# --- Files instead of networks -------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_is_evaluated_like_its_network(
    form: Format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = senetzoo.load("lenet5.digits_v1")
    model.temperature = 1.7
    name = f"digits{SUFFIXES[form]}"
    export(model, name, name="runs/digits")
    done = commands.run("eval", name, "digits", "--json", "--csv", "rows.csv")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    wanted = senetzoo.evaluate(model, "digits")
    assert (found["model"], found["weights"]) == (name, "lenet5.digits_v1")
    assert (found["right"], found["images"]) == (wanted.top(1).right, wanted.top(1).total)
    assert found["wilson95"] == list(wanted.top(1).interval)
    assert found["confusion"]["matrix"] == wanted.confusion().tolist()
    assert found["temperature"] == 1.7
    assert found["calibration_error"] == pytest.approx(wanted.scores().calibration_error, abs=1e-4)
    assert len(Path("rows.csv").read_text().splitlines()) == 1 + found["images"]
    for options in (["--tta"], ["--calibrate"], ["--mean", "0.5"], ["--dtype", "bf16"]):
        refused = commands.run("eval", name, "digits", *options)
        assert refused.exit_code == 2
        assert "Give the network that it was exported from: runs/digits" in refused.stderr


def test_a_file_of_photographs_is_evaluated_like_its_network(
    deployed: tuple[Path, Classifier, list[Path]], tmp_path: Path
) -> None:
    folder, model, paths = deployed
    file = folder / "photos.onnx"
    for number, path in enumerate(paths):
        place = tmp_path / "data" / model.classes[number % 2] / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    wanted = senetzoo.evaluate(model, tmp_path / "data")
    done = commands.run("eval", file, tmp_path / "data", "--json")
    found = json.loads(done.stdout)
    assert found["right"] == wanted.top(1).right
    assert found["loss"] == pytest.approx(wanted.loss, abs=0.02)
    assert found["temperature"] == model.temperature
    for arguments in ((file, *paths), ("--model", file, *paths)):
        done = commands.run("predict", *arguments, "--json", "--reject", "auto")
        assert done.exit_code == 0, done.output
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        for line, one in zip(lines, predict(model, paths, reject="auto"), strict=True):
            guesses = {guess["class"]: guess["probability"] for guess in line["guesses"]}
            assert guesses == pytest.approx({g.name: g.probability for g in one.guesses}, abs=0.01)
            assert line["rejected"] == one.rejected
    explained = commands.run("predict", file, paths[0], "--explain", tmp_path / "why")
    assert explained.exit_code == 2
    assert "can't be used with --explain" in explained.stderr


def test_other_commands_name_the_network_of_a_file(tmp_path: Path) -> None:
    assert {*zoo.EXPORTED} == {*SUFFIXES.values()}
    (tmp_path / "photos.onnx").write_bytes(b"no model")
    for words in (
        ("bench", "--model"),
        ("export", "--to", "pt2"),
        ("finetune", tmp_path, "--model"),
    ):
        done = commands.run(*words, tmp_path / "photos.onnx")
        assert done.exit_code == 2
        assert "photos.onnx is an exported file" in done.stderr, words
        assert "folder of its run" in done.stderr
        assert ("--engine onnxruntime" in done.stderr) is (words[0] == "bench")
    damaged = commands.run("eval", tmp_path / "photos.onnx", "digits")
    assert "It is damaged, or isn't ONNX" in damaged.stderr
    missing = commands.run("predict", "--model", tmp_path / "none.xml", "a.png")
    assert f"There is no {tmp_path / 'none.xml'}." in missing.stderr
    assert (damaged.exit_code, missing.exit_code) == (2, 2)


def test_a_truncated_file_of_weights_is_named(exported: Exported, tmp_path: Path) -> None:
    file, weights = exported("openvino", tmp_path)
    weights.write_bytes(weights.read_bytes()[:1000])
    assert message(lambda: read_file(file), WeightsError).splitlines() == [
        f"Can't read {file} with {weights}.",
        "It is damaged, or isn't OpenVINO's IR: Incorrect weights in bin file!",
        "Export it again",
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_a_wrong_suffix_is_named(
    form: Format, lenet: Classifier, exported: Exported, tmp_path: Path
) -> None:
    suffix = SUFFIXES[form]
    file, *_ = exported(form, tmp_path)
    other = ".pt2" if form == "onnx" else ".onnx"
    torch.save(lenet.state_dict(), weights := tmp_path / f"weights{suffix}")
    wrong = (file.rename(file.with_suffix(other)), weights)
    for path, right in zip(wrong, (suffix, ".pth"), strict=True):
        said = message(partial(read_file, path), WeightsError)
        assert f": it begins like a {right} file.\nRename it to {path.stem}{right}" in said


@pytest.mark.parametrize("form", FORMATS)
def test_images_that_a_file_cannot_run(form: Format, exported: Exported, tmp_path: Path) -> None:
    path, *_ = exported(form, tmp_path)
    file = read_file(path)
    for images in (torch.zeros(2, 3, 28, 28), torch.zeros(2, 1, 20, 36)):
        said = message(partial(file.run, images), ConfigError).splitlines()
        assert said[0] == f"{path} fails on a batch of shape {tuple(images.shape)}."
        assert said[1].startswith("It says: ")
        assert said[2:] == ["Prepare each image with the file's transform"]
    side = file.preprocessing.size
    assert file.run(torch.zeros(2, 1, side, side)).shape == (2, 10)


@pytest.mark.parametrize("form", FORMATS)
def test_a_changed_file_is_noticed(form: Format, exported: Exported, tmp_path: Path) -> None:
    """A byte in the middle is one of the weights: every runtime reads the file as before."""
    path, *_ = (*_, weights) = exported(form, tmp_path)
    content = weights.read_bytes()
    middle = len(content) // 2
    weights.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    done = commands.run("eval", path, "digits")
    if form == "pt2":
        assert done.exit_code == 2
        assert "It is damaged, or isn't a pt2 file: the checksum of " in done.stderr
        return
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith(f"warning: {path} was changed after senetzoo export wrote it. ")
    weights.write_bytes(content)
    assert commands.run("eval", path, "digits").stderr == ""


def test_of_a_damaged_file_only_the_error_is_said(tmp_path: Path) -> None:
    """Not what torch and OpenVINO log."""
    files = [tmp_path / "net.pt2", tmp_path / "net.xml", tmp_path / "other.xml"]
    for file in files:
        file.write_bytes(b"<other/>" if file.stem == "other" else b"no model")
        file.with_suffix(".bin").write_bytes(b"")
    code = "import sys; from senetzoo.cli import main; [main(['eval', f, 'digits'], "
    code += "standalone_mode=False) for f in sys.argv[1:]]"
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True)
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == [
        line
        for kind in ("a pt2 file", "OpenVINO's IR", "OpenVINO's IR")
        for line in ("error", f"It is damaged, or isn't {kind}", "Export it again")
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("std", None),
        ("size", '"big"'),
        ("size", "64"),
        ("mean", "[0.5"),
        ("temperature", "0"),
        ("classes", '["a", "b"]'),
    ],
)
def test_a_file_that_says_nothing_usable(
    key: str, value: str | None, exported: Exported, tmp_path: Path
) -> None:
    import onnx

    (file,) = exported("onnx", tmp_path)
    model = onnx.load(file)
    found = {entry.key: entry.value for entry in model.metadata_props}
    found.pop(f"senetzoo.{key}", None)
    del model.metadata_props[:]
    onnx.helper.set_model_props(
        model, found | ({} if value is None else {f"senetzoo.{key}": value})
    )
    onnx.save(model, file)
    said = message(partial(read_file, file), ConfigError)
    assert said.startswith(f"{file} doesn't say how to prepare images for it")


def test_openvino_needs_both_files(exported: Exported, tmp_path: Path) -> None:
    file, weights = exported("openvino", tmp_path)
    weights.unlink()
    done = commands.run("eval", file, "digits")
    assert done.exit_code == 2
    assert f"There is no {weights}." in done.stderr


# --- The programs of the page --------------------------------------------------------------------


@pytest.fixture(scope="module")
def deployed(
    sample: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Classifier, list[Path]]:
    """A folder with a network of flowers as the page exports it, its programs, and photographs."""
    folder = tmp_path_factory.mktemp("deployed")
    model = senetzoo.load("resnet20.flowers5_v2")
    model.temperature = 1.5
    model.reject_below = REJECT_BELOW
    done = export(model, folder / "photos.onnx", with_preprocessing=True)
    assert done.metadata["temperature"] == 1.5
    assert done.metadata["reject_below"] == REJECT_BELOW
    for title, text in programs().items():
        (folder / title).write_text(text, encoding="utf-8")
    flowers = read_parquet(sample("flowers5-sample.parquet"))
    paths = []
    for number in range(0, 200, 25):
        content = flowers.sources[number]
        assert isinstance(content, bytes)
        paths.append(folder / f"{number}.jpg")
        paths[-1].write_bytes(content)
    turned = Image.open(paths[0])
    exif = turned.getexif()
    exif[0x112] = 6
    turned.save(folder / "turned.jpg", exif=exif, quality=95)
    turned.putalpha(Image.linear_gradient("L").resize(turned.size))
    turned.save(folder / "alpha.png")
    gray = Image.open(paths[1]).convert("L")
    gray.resize((40, 333)).save(folder / "gray.png")
    deep = np.asarray(gray).astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "16.png")
    Image.fromarray(deep.astype(np.int32)).save(folder / "32.tif")
    Image.fromarray(deep.astype(np.float32) / 65535).save(folder / "float.tif")
    turned.resize((20, 2001)).save(folder / "long.png")
    Image.new("1", (13_000, 12_000)).save(folder / "large.png")
    more = ("turned.jpg", "alpha.png", "gray.png", "16.png", "32.tif", "float.tif", "long.png")
    return folder, model, [*paths, *(folder / name for name in more)]


def programs() -> dict[str, str]:
    """The programs of the page by the names that it gives them."""
    parts = PAGE.read_text(encoding="utf-8").split('```python title="')[1:]
    return {part.partition('"')[0]: part.partition("\n")[2].partition("```")[0] for part in parts}


def expected(model: Classifier, paths: list[Path]) -> list[dict[str, float]]:
    """What `senetzoo predict` says."""
    given = predict(model, paths, top=5)
    return [{guess.name: guess.probability for guess in one.guesses} for one in given]


def test_the_program_gives_the_answers_of_predict(
    deployed: tuple[Path, Classifier, list[Path]],
) -> None:
    """With onnxruntime, numpy and pillow alone."""
    folder, model, paths = deployed
    block = "import runpy, sys; sys.modules.update(dict.fromkeys(('torch', 'senetzoo'))); "
    block += "runpy.run_path('classify.py', run_name='__main__')"
    names = [path.name for path in paths]
    (folder / "broken.jpg").write_bytes(paths[0].read_bytes()[:900])
    (folder / "empty.jpg").write_bytes(b"")
    bad = ["broken.jpg", "empty.jpg", "missing.jpg", "large.png"]
    done = subprocess.run(
        [sys.executable, "-c", block, *bad, *names],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 1
    assert [line.split(": ")[:2] for line in done.stderr.splitlines()] == [
        ["error", name] for name in bad
    ]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in lines] == names
    assert_same_answers(lines, expected(model, paths))
    assert {line["class"] for line in lines} >= {None, "sunflowers"}


def assert_same_answers(answers: list[dict[str, Any]], wanted: list[dict[str, float]]) -> None:
    for answer, one in zip(answers, wanted, strict=True):
        assert answer["probabilities"] == pytest.approx(one, abs=0.01)
        best = max(one, key=one.__getitem__)
        assert answer["class"] == (best if one[best] >= REJECT_BELOW else None)


def test_the_server_gives_the_same_answers(
    deployed: tuple[Path, Classifier, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, model, paths = deployed
    large = (folder / "large.png").read_bytes()
    unread = "These {} bytes are no whole image, or too large"
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for name in ("serve", "classify"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), importlib.import_module("serve").Handler) as server:
        monkeypatch.setattr(server.RequestHandlerClass, "log_message", lambda *args: None)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        for path, one in zip(paths[:3], expected(model, paths[:3]), strict=True):
            with urllib.request.urlopen(address, path.read_bytes(), timeout=60) as answer:
                assert_same_answers([json.load(answer)], [one])
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert json.load(answer)["classes"] == list(model.classes)
        head = urllib.request.Request(address, method="HEAD")
        with urllib.request.urlopen(head, timeout=60) as nothing:
            assert nothing.headers["Content-Length"] == answer.headers["Content-Length"]
            assert nothing.read() == b""
        form = {"Content-Type": "multipart/form-data; boundary=x"}
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(urllib.request.Request(address, b"--x", form), timeout=60)
        assert error.value.code == 415
        for content, text in (
            (b"no image", unread.format(8)),
            (large, unread.format(len(large))),
            (b"", usage := "POST the bytes of one image, with Content-Length"),
        ):
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(address, content, timeout=60)
            assert error.value.code == 400
            assert json.load(error.value) == {"error": text}
        for length, status, text in (
            (None, 400, usage),
            ("ten", 400, usage),
            ("-5", 400, usage),
            ("9" * 5000, 400, usage),
            (f"{2**25 + 1}", 413, "33554433 bytes are more than 33554432"),
        ):
            client = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
            client.putrequest("POST", "/")
            if length is not None:
                client.putheader("Content-Length", length)
            client.endheaders()
            response = client.getresponse()
            assert (response.status, json.load(response)) == (status, {"error": text}), length
            client.close()
        server.shutdown()
    for name in ("serve", "classify"):
        sys.modules.pop(name, None)


def test_the_programs_are_short() -> None:
    lines = {name: sum(map(bool, text.splitlines())) for name, text in programs().items()}
    assert lines["classify.py"] <= 40
    assert lines["serve.py"] <= 32
