"""The function `predict` and the command ``senetzoo predict``."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import commands
from support.networks import message
from torch import Tensor, nn

import senetzoo
from senetzoo import zoo
from senetzoo._utils.terminal import cells, say_once
from senetzoo.cli.predict import _Table
from senetzoo.data.images import WRITTEN
from senetzoo.errors import ConfigError, WeightsError
from senetzoo.eval.predict import Guess, Prediction, predict
from senetzoo.inspect.pictures import png
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.maps import FeatureInfo, FeatureInfos
from senetzoo.nn.preprocessing import CIFAR10, Preprocessing
from senetzoo.nn.report import LoadReport
from senetzoo.nn.slots import TensorMap
from senetzoo.report.markup import MARK

CLASSES = ("red", "green", "blue")
DEFAULT = "No network was given; se_resnet20 knows: red, green, blue.\n"
PLAIN = Preprocessing(4, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Colors(Classifier):
    """Says how much red, green and blue an image has: logits are 10 x the channels' means."""

    feature_info = FeatureInfos([FeatureInfo(1, 3)])

    def __init__(self, classes: tuple[str, ...] = CLASSES) -> None:
        super().__init__(zoo.config("resnet20").replace(num_classes=3).config)
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.drop = nn.Dropout(0.9)
        self.load_report = LoadReport("colors", "embedded", "0" * 64, classes)
        self.batches: list[int] = []

    def levels(self) -> tuple[TensorMap, ...]:
        return (self._level,)

    def _level(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        return self.drop(x)  # type: ignore[no-any-return]

    @property
    def cam_layer(self) -> nn.Module:
        return self.drop

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        return self.scale * features.mean((2, 3))

    def stages(self) -> tuple[tuple[nn.Module, ...], ...]:
        return ()

    def classifiers(self) -> tuple[str, ...]:
        return ()

    def input_parameter(self) -> str:
        return "scale"


@pytest.fixture
def colors(monkeypatch: pytest.MonkeyPatch) -> Colors:
    """The network that the command loads for any name."""
    model = Colors()

    def load(name: str, **stated: Any) -> Colors:
        assert set(stated.values()) == {None}
        if name != "se_resnet20":
            raise WeightsError(f"{name} has no weights.", "", "Type: senetzoo list --pretrained")
        return model

    def transforms(model: Classifier) -> Preprocessing:
        return PLAIN

    monkeypatch.setattr("senetzoo.zoo.load", load)
    for user in ("senetzoo.eval.predict", "senetzoo.cli.predict"):
        monkeypatch.setattr(f"{user}.transforms", transforms)
    return model


def picture(path: Path, *rgb: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 7), rgb).save(path)
    return path


run = partial(commands.run, "predict")


# exp(10) : exp(0) : exp(0), and the softmax of 10 * 128/255 and so on
SURE = float(np.exp(10) / (np.exp(10) + 2))


# The function


def test_guesses_are_the_softmax_of_the_transformed_image() -> None:
    model, random = Colors(), np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 256, (9, 8, 3), dtype=np.uint8)) for _ in range(7)]
    predictions = predict(model, images, top=3, batch=3, preprocessing=PLAIN)
    assert model.batches == [3, 3, 1]
    assert [p.image for p in predictions] == [f"image {k}" for k in range(7)]
    for image, prediction in zip(images, predictions, strict=True):
        logits = 10 * PLAIN(image).double().mean((1, 2)).numpy()
        expected = np.exp(logits) / np.exp(logits).sum()
        order = np.argsort(-expected)
        assert [g.label for g in prediction.guesses] == order.tolist()
        assert [g.name for g in prediction.guesses] == [CLASSES[k] for k in order]
        np.testing.assert_allclose(
            [g.probability for g in prediction.guesses], expected[order], rtol=1e-5
        )


def test_one_image_or_many_in_every_form(tmp_path: Path) -> None:
    model = Colors()
    path = picture(tmp_path / "a.png", 0, 255, 0)
    tensor = torch.zeros(3, 6, 6, dtype=torch.uint8)
    tensor[1] = 255
    with Image.open(path) as image:
        image.load()
    for form, count in [
        (path, 1),
        (str(path), 1),
        (image, 1),
        (tensor, 1),
        (tmp_path, 1),
        (tensor.expand(4, -1, -1, -1), 4),
        ([path, image, tensor], 3),
        (iter([str(path), tensor]), 2),
    ]:
        predictions = predict(model, form, top=1, preprocessing=PLAIN)  # type: ignore[arg-type]
        assert len(predictions) == count
        for prediction in predictions:
            assert prediction.error is None
            assert prediction.guesses[0].label == 1
            assert prediction.guesses[0].probability == pytest.approx(SURE, rel=1e-5)
    assert predict(model, path, top=1, preprocessing=PLAIN) == [
        Prediction(str(path), (Guess("green", 1, predictions[0].guesses[0].probability),))
    ]
    assert predict(model, [], preprocessing=PLAIN) == []


def test_the_model_gets_its_modes_back() -> None:
    model = Colors().train()
    model.drop.eval()
    gray = torch.full((3, 4, 4), 128, dtype=torch.uint8)
    predict(model, gray, preprocessing=PLAIN)
    assert (model.training, model.drop.training) == (True, False)
    model.drop.train()
    guesses = predict(model, gray, preprocessing=PLAIN)[0].guesses  # in eval mode: no dropout
    assert [g.probability for g in guesses] == pytest.approx([1 / 3] * 3)
    assert model.scale.grad is None


def test_weights_that_are_not_finite_make_no_guess(tmp_path: Path) -> None:
    model = Colors()
    nn.init.constant_(model.scale, float("nan"))
    assert message(
        lambda: predict(model, [picture(tmp_path / "red.png", 255, 0, 0)], preprocessing=PLAIN),
        WeightsError,
    ) == (
        "The network returned logits that aren't finite.\n"
        "Its weights contain NaN or infinity, or overflow the number format.\n"
        "Load the weights again, or run in fp32"
    )


def test_top_is_at_most_all_classes_and_names_may_be_missing() -> None:
    blue = torch.zeros(3, 4, 4, dtype=torch.uint8)
    blue[2] = 255
    (prediction,) = predict(Colors(()), blue, top=50, preprocessing=PLAIN)
    assert prediction.guesses[0].name == "class 2"
    assert len(prediction.guesses) == 3
    assert sum(g.probability for g in prediction.guesses) == pytest.approx(1)


def test_a_bad_image_does_not_stop_the_rest(tmp_path: Path) -> None:
    good = picture(tmp_path / "good.png", 255, 0, 0)
    (tmp_path / "bad.png").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    paths: list[Path | str] = [
        tmp_path / "bad.png",
        good,
        tmp_path / "none.png",
        tmp_path / "empty",
        good,
        "a\0b",
    ]
    for batch in (1, 2, 50):
        predictions = predict(
            Colors(), [*paths, torch.zeros(2, 2)], batch=batch, preprocessing=PLAIN
        )
        assert [p.error for p in predictions] == [
            f"Can't read {tmp_path / 'bad.png'}. The file is empty.",
            None,
            f"Can't read {tmp_path / 'none.png'}. No such file or directory.",
            f"The folder {tmp_path / 'empty'} and its subfolders have no images.",
            None,
            "Can't read 'a\\x00b'. It isn't a valid path.",
            "Preprocessing can't take a tensor (2, 2) of torch.float32. A tensor is one image: "
            "uint8, (channels, height, width), 1 or 3 channels. "
            "Call it for each image and torch.stack the results",
        ]
        assert [bool(p.guesses) for p in predictions] == [p.error is None for p in predictions]
        assert predictions[1].guesses[0].name == predictions[4].guesses[0].name == "red"


@pytest.mark.parametrize("option", ["top", "batch"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_wrong_numbers(option: str, value: Any) -> None:
    assert (
        message(lambda: predict(Colors(), [], **{option: value}), ConfigError)
        == f"predict can't have {option}={value!r}.\nIt is a whole number, > 0."
    )


def test_transforms_are_the_models_own() -> None:
    model = zoo.create("resnet20", seed=0).eval()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    (prediction,) = predict(model, image, top=10)
    with torch.inference_mode():
        expected = model(CIFAR10(image)[None])[0].softmax(0)
    got = torch.zeros(10)
    for guess in prediction.guesses:
        got[guess.label] = guess.probability
    torch.testing.assert_close(got, expected)


def test_images_are_read_a_batch_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Colors()
    path = picture(tmp_path / "a.png", 255, 0, 0)
    read, waiting = 0, []

    def counted(image: Image.Image | Tensor) -> Tensor:
        nonlocal read
        read += 1
        waiting.append(read - sum(model.batches))
        return PLAIN(image)

    predictions = predict(model, [path] * 100, batch=8, preprocessing=counted)  # type: ignore[arg-type]
    assert len(predictions) == read == 100
    assert max(waiting) == 8


# The command


@pytest.mark.usefixtures("colors")
def test_table(tmp_path: Path) -> None:
    # Logits 10, 8, 6: probabilities 1 : e^-2 : e^-4.
    red = picture(tmp_path / "r.png", 255, 204, 153)
    blue = picture(tmp_path / "in a folder" / "blue.png", 153, 204, 255)
    done = run(red, blue)
    wide = len(str(blue))
    gap = " " * (wide - len(str(red)))
    assert done.exit_code == 0
    assert done.stderr == DEFAULT
    assert done.stdout == (
        f"image{' ' * (wide - 5)}  rank  class  probability\n"
        f"{red}{gap}     1  red         86.7 %\n"
        f"{' ' * wide}     2  green       11.7 %\n"
        f"{' ' * wide}     3  blue         1.6 %\n"
        f"{blue}     1  blue        86.7 %\n"
        f"{' ' * wide}     2  green       11.7 %\n"
        f"{' ' * wide}     3  red          1.6 %\n"
    )


@pytest.mark.usefixtures("colors")
def test_json_lines(tmp_path: Path) -> None:
    red = picture(tmp_path / "r.png", 255, 0, 0)
    done = run(red, tmp_path / "no.png", "--json", "--top", 1)
    assert done.exit_code == 1
    first, second = map(json.loads, done.stdout.splitlines())
    assert first == {
        "image": str(red),
        "guesses": [{"class": "red", "label": 0, "probability": round(SURE, 6)}],
    }
    reason = f"Can't read {tmp_path / 'no.png'}. No such file or directory."
    assert second == {"image": str(tmp_path / "no.png"), "error": reason}
    assert done.stderr == DEFAULT + f"error: {reason}\n"


@pytest.mark.usefixtures("colors")
def test_files_folders_and_standard_input_in_their_order(tmp_path: Path) -> None:
    names = ["b/2.png", "b/10.png", "b/a/1.png", "c.png", "d/e.png"]
    for name in names:
        picture(tmp_path / name, 1, 2, 3)
    (tmp_path / "b/notes.txt").write_text("not an image")
    lines = f"{tmp_path / 'd'}\n\n{tmp_path / 'c.png'}\r\n".encode()
    done = run(tmp_path / "b", "-", tmp_path / "c.png", "--json", stdin=lines)
    assert done.exit_code == 0
    seen = [json.loads(line)["image"] for line in done.stdout.splitlines()]
    expected = ["b/10.png", "b/2.png", "b/a/1.png", "d/e.png", "c.png", "c.png"]
    assert seen == [str(tmp_path / name) for name in expected]


@pytest.mark.usefixtures("colors")
def test_pictures_of_a_report_are_left_out_of_a_folder(tmp_path: Path, colors: Colors) -> None:
    image = Image.new("RGB", (8, 8), (250, 0, 0))
    image.save(tmp_path / "photo.png")
    (tmp_path / "loss.png").write_bytes(png(image, MARK))
    (tmp_path / "photo.explain.png").write_bytes(png(image, WRITTEN))
    done = run("--json", tmp_path)
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["image"] == str(tmp_path / "photo.png")
    said = "2 files left out, written by senetzoo: loss.png, photo.explain.png"
    assert f"{tmp_path}: {said}" in done.stderr
    # One that is named is an image.
    assert "error" not in json.loads(run("--json", tmp_path / "loss.png").stdout)


def test_a_network_for_gray_images_says_so_of_color_ones_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    model = senetzoo.load("lenet5")
    said = "Color images become gray, 32x32; the network knows only 0, 1, 2, 3, 4, 5, 6, 7, 8, 9\n"
    say_once.cache_clear()
    capfd.readouterr()
    predict(model, Image.new("L", (8, 8)))
    assert capfd.readouterr().err == ""
    predict(model, [Image.new("RGB", (8, 8))] * 2)
    assert capfd.readouterr().err == said


def test_names_that_are_no_text(tmp_path: Path) -> None:
    for name in (b"caf\xe9.png", b"esc\x1b[31m.png"):
        image = io.BytesIO()
        Image.new("RGB", (2, 2)).save(image, "PNG")
        (tmp_path / name.decode("utf-8", "surrogateescape")).write_bytes(image.getvalue())
    done = run(tmp_path)
    assert done.exit_code == 0
    assert str(tmp_path / "caf\\xe9.png") in done.stdout
    assert str(tmp_path / "esc\\x1b[31m.png") in done.stdout
    listed = b"".join(bytes(path) + b"\n" for path in sorted(tmp_path.iterdir()))
    done = run("-", "--json", stdin=listed)
    assert done.exit_code == 0
    assert [json.loads(line)["image"] for line in done.stdout.splitlines()] == [
        str(path) for path in sorted(tmp_path.iterdir())
    ]


@pytest.mark.usefixtures("colors")
def test_nothing_found(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.exit_code, done.stdout) == (1, "")
    assert (
        done.stderr
        == DEFAULT + f"error: The folder {tmp_path} and its subfolders have no images.\n"
    )
    done = run("-", "--json", stdin=b"\n")
    assert done.exit_code == 1
    assert done.stderr == DEFAULT + "error: Standard input has no paths.\n"
    assert json.loads(done.stdout) == {"image": "-", "error": "Standard input has no paths."}


def test_probabilities_are_those_at_the_temperature(colors: Colors) -> None:
    image = Image.new("RGB", (4, 4), (255, 0, 0))
    colors.temperature = 4.0
    (found,) = predict(colors, image)
    odd = float(np.exp(10 / 4))
    assert found.guesses[0].probability == pytest.approx(odd / (odd + 2), abs=1e-6)


def test_what_is_not_sure_is_rejected(tmp_path: Path, colors: Colors) -> None:
    red, gray = picture(tmp_path / "a.png", 255, 0, 0), picture(tmp_path / "b.png", 9, 9, 9)
    assert [p.rejected for p in predict(colors, [red, gray])] == [False, False]
    assert [p.rejected for p in predict(colors, [red, gray], reject=0.5)] == [False, True]
    assert [p.rejected for p in predict(colors, [red, gray], reject=1.0)] == [True, True]
    with pytest.raises(ConfigError) as caught:
        predict(colors, red, reject="auto")
    assert str(caught.value).splitlines()[::2] == [
        "The network has no stored probability for rejecting images.",
        "Type: senetzoo eval FOLDER VALIDATION --calibrate; or set one: --reject 0.8",
    ]
    colors.reject_below = 0.5
    assert [p.rejected for p in predict(colors, [red, gray], reject="auto")] == [False, True]
    for wrong in (1.5, -0.1, float("nan"), True, "0.5"):
        with pytest.raises(ConfigError, match="It is a probability from 0 to 1, or the word auto"):
            predict(colors, red, reject=wrong)  # type: ignore[arg-type]
    done = run(red, gray, "--reject", "auto", "--top", 1)
    assert done.stdout.splitlines()[2] == f"{gray}     -  rejected: not confident enough"
    lines = run(red, gray, "--reject", "0.5", "--json").stdout.splitlines()
    assert [json.loads(line)["rejected"] for line in lines] == [False, True]
    done = run(red, "--reject", "many")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "predict can't have reject='many'" in done.stderr


@pytest.mark.usefixtures("colors")
def test_ctrl_c_keeps_the_rows_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    red, gray = picture(tmp_path / "a.png", 255, 0, 0), picture(tmp_path / "b.png", 9, 9, 9)
    predicting = importlib.import_module("senetzoo.eval.predict")
    real = predicting._read

    def read(source: Any, transform: Preprocessing, names: Sequence[str]) -> Any:
        if source == gray:
            raise KeyboardInterrupt
        return real(source, transform, names)

    monkeypatch.setattr(predicting, "_read", read)
    table = tmp_path / "answers.csv"
    done = run(red, red, gray, red, "--csv", table, "--batch", "1")
    assert done.exit_code == 130
    with table.open(newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [str(red)] * 2


@pytest.mark.usefixtures("colors")
def test_a_table_of_comma_separated_values(tmp_path: Path) -> None:
    red, gray = picture(tmp_path / "a,b.png", 255, 0, 0), picture(tmp_path / "b.png", 9, 9, 9)
    table = tmp_path / "answers.csv"
    done = run(red, gray, tmp_path / "no.png", "--csv", table, "--reject", "0.5")
    assert done.exit_code == 1
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    sure, third = str(round(SURE, 6)), str(round(1 / 3, 6))
    assert [tuple(row.values()) for row in rows[:2]] == [
        (str(red), "red", sure, "0", ""),
        (str(gray), "red", third, "1", ""),
    ]
    assert list(rows[0]) == ["path", "predicted", "probability", "rejected", "error"]
    assert rows[2]["error"].startswith("Can't read")
    assert run(red, "--csv", tmp_path / "made" / "x.csv").exit_code == 0
    assert (tmp_path / "made" / "x.csv").is_file()
    assert run(red, "--csv", red / "x.csv").exit_code == 2


def test_the_network_may_come_first(
    tmp_path: Path, colors: Colors, monkeypatch: pytest.MonkeyPatch
) -> None:
    red = picture(tmp_path / "resnet50.png", 255, 0, 0)
    named, default = run("se_resnet20", red), run(red)
    assert (named.exit_code, named.stderr, default.exit_code) == (0, "", 0)
    assert default.stderr == DEFAULT
    assert default.stdout == named.stdout
    assert run("resnet50", red).stderr.startswith("error: resnet50 has no weights.")
    monkeypatch.chdir(tmp_path)
    # A file is an image, whatever its name; a folder without a network contains images.
    assert run("resnet50.png", "resnet50.png").exit_code == 0
    picture(tmp_path / "photos" / "a.png", 0, 255, 0)
    assert run("photos", "resnet50.png").exit_code == 0
    (tmp_path / "photos" / "config.json").write_text("{}")
    assert run("photos", "resnet50.png").stderr.startswith("error: photos has no weights.")


def test_a_path_that_is_no_network_comes_first(tmp_path: Path, colors: Colors) -> None:
    red, odd = picture(tmp_path / "a.png", 255, 0, 0), tmp_path / "net.bin"
    odd.write_bytes(b"no image")
    odd.with_suffix(".xml").write_bytes(b"")
    for first, why in (
        (tmp_path / "run" / "photos", "No such file or directory."),
        (odd, "It isn't an image, or it is too damaged to be recognized."),
    ):
        done = run(first, red)
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr == (
            f"error: {first} is neither a network nor an image.\n{why}\n"
            "Check its path, or give the network with --model\n"
        )
    for folder, alone in (("run/photos", [red]), ("runs/photo", [])):
        (tmp_path / "runs" / "photos").mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs" / "photos" / "log.jsonl").write_text("")
        done = run(tmp_path / folder, *alone)
        assert done.exit_code == 2
        assert done.stderr.endswith(f"Did you mean '{tmp_path / 'runs' / 'photos'}'?\n")
    assert colors.batches == []
    # With --model, alone, or named like an image, it is an image that can't be read.
    for words in ([odd, red, "--model", "se_resnet20"], [odd], [tmp_path / "no.png", red]):
        assert run(*words).exit_code == 1
    bare = red.rename(tmp_path / "IMG_1")
    assert run(bare, bare).exit_code == 0


def test_a_network_among_the_images(tmp_path: Path, colors: Colors) -> None:
    red = picture(tmp_path / "a.png", 255, 0, 0)
    trained, saved, exported = (tmp_path / name for name in ("run", "saved", "net.xml"))
    picture(trained / "picture.png", 255, 0, 0)
    (trained / "log.jsonl").write_text("")
    senetzoo.save(zoo.create("lenet5", seed=0), saved)
    exported.write_text("<annotation/>")
    assert run(red, exported, "--model", "se_resnet20").exit_code == 1  # not a network: no .bin
    exported.with_suffix(".bin").write_bytes(b"")
    for network in (trained, saved, exported, "resnet20"):
        for words in ([red, network], [network], [network, "--model", "se_resnet20"]):
            colors.batches.clear()
            done = run(*words)
            assert (done.exit_code, done.stdout, colors.batches) == (2, "", [])
            assert f"{network} is a network, and was given as an image.\n" in done.stderr
            assert "Put it first, before the images, or give it with --model\n" in done.stderr
    # Images may have a network's name, and a config.json of another program.
    assert run(red, tmp_path / "resnet50.png").exit_code == 1
    picture(tmp_path / "photos" / "b.png", 255, 0, 0)
    (tmp_path / "photos" / "config.json").write_text("{}")
    assert run(red, tmp_path / "photos").exit_code == 0


def test_batch_and_top(tmp_path: Path, colors: Colors) -> None:
    path = picture(tmp_path / "a.png", 255, 0, 0)
    done = run("-", "--batch", 4, "--top", 2, "--json", stdin=f"{path}\n".encode() * 10)
    assert colors.batches == [4, 4, 2]
    assert [len(json.loads(line)["guesses"]) for line in done.stdout.splitlines()] == [2] * 10


# The table's layout


def rows(
    columns: int | None, image: str, names: tuple[str, ...] = ("cat", "automobile")
) -> list[str]:
    table = _Table.fitting([image], names, columns)
    guesses = tuple(Guess(name, k, 0.5) for k, name in enumerate(names))
    return [table.header(), *table.rows(Prediction(image, guesses))]


def test_table_is_as_wide_as_its_content() -> None:
    assert (
        rows(None, "a/b.png")
        == rows(200, "a/b.png")
        == [
            "image    rank  class       probability",
            "a/b.png     1  cat              50.0 %",
            "            2  automobile       50.0 %",
        ]
    )


@pytest.mark.parametrize("columns", [40, 41, 60, 80, 120])
@pytest.mark.parametrize("image", ["x.png", "long/" * 30 + "cat.png", "日本語の写真" * 9 + ".png"])
@pytest.mark.parametrize("name", ["cat", "American black bear, Ursus americanus, Euarctos"])
def test_table_fits_the_terminal(columns: int, image: str, name: str) -> None:
    lines = rows(columns, image, (name, "dog"))
    assert max(map(cells, lines)) <= columns
    assert len({cells(line) for line in lines}) == 1  # columns stay aligned
    assert lines[1].split("  ")[0].strip().endswith("g")  # the name's end, which tells files apart


def test_what_is_cut_says_so() -> None:
    lines = rows(45, "photographs/2024/kitten.png", ("American black bear", "dog"))
    assert lines == [
        "image         rank  class         probability",
        "...itten.png     1  American ...       50.0 %",
        "                 2  dog                50.0 %",
    ]


def test_table_without_limit_cuts_nothing() -> None:
    image, name = "x" * 300, "y" * 200
    lines = rows(None, image, (name,))
    assert image in lines[1]
    assert name in lines[1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_on_a_narrow_terminal(tmp_path: Path) -> None:
    import pty

    path = picture(tmp_path / f"{'long' * 20}.png", 1, 2, 3)
    code = (
        "import sys\nfrom senetzoo import config\nfrom senetzoo.cli import predict\n"
        "predict.trained = lambda name, **_: config(name).build(seed=0)\n"
        "predict.command(['se_resnet20', *sys.argv[1:], '--top', '2'])\n"
    )
    terminal, end = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        stdout=end,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[1],
        env={**os.environ, "COLUMNS": "48", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    # Before the read, which would wait for good for what a failure did not write.
    assert (done.returncode, done.stderr) == (0, b"")
    lines = os.read(terminal, 4096).decode().splitlines()
    os.close(terminal)
    os.close(end)
    assert len(lines) == 3
    assert {len(line) for line in lines} == {48}
    assert lines[1].startswith("...glonglong")


def test_real_photographs_of_every_class(sample: Callable[[str], Path]) -> None:
    from senetzoo.data.cifar import CIFAR10

    if not zoo.list_models("se_resnet20", pretrained=True):
        pytest.skip("se_resnet20 has no weights in the manifest")
    data = CIFAR10.load(sample("cifar10-test-sample.parquet"), "test").first(10)
    predictions = predict(
        zoo.create("se_resnet20", pretrained=True), data.images.permute(0, 3, 1, 2), top=1
    )
    right = sum(
        p.guesses[0].name == data.classes[label]
        for p, label in zip(predictions, data.labels.tolist(), strict=True)
    )
    assert right >= 80
