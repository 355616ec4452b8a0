"""Labels of all types: in parquet files, in data sets on the Hub, and in streams."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from support.images import picture, write_parquet
from support.networks import message

import senetzoo
from senetzoo._utils import terminal
from senetzoo.data import hub
from senetzoo.data.files import read_image_folder, read_parquet
from senetzoo.data.labels import numbered
from senetzoo.errors import DataError
from senetzoo.eval.data import read_images
from senetzoo.train.data import load_data
from senetzoo.train.recipe import Recipe

NFC, NFD = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
GOOD: dict[str, tuple[list[Any], list[int], tuple[str, ...]]] = {
    "numbers": ([2, 0, 1], [2, 0, 1], ("0", "1", "2")),
    "text": (["dog", "cat", "dog"], [1, 0, 1], ("cat", "dog")),
    "numbers as text": (["10", "2", "9"], [10, 2, 9], tuple(map(str, range(11)))),
    "whole floats": ([1.0, 0.0, 2.0], [1, 0, 2], ("0", "1", "2")),
    "bool": ([True, False, True], [1, 0, 1], ("False", "True")),
    "only True": ([True, True, True], [1, 1, 1], ("False", "True")),
    "two forms of one name": (["zoo", NFC, NFD], [1, 0, 0], (NFD, "zoo")),
}
BAD: dict[str, tuple[list[Any], str]] = {
    "null": ([0, None, 1], "has no label in 1 of 3 rows.|Leave out these rows"),
    "null text": (["cat", "dog", None], "has no label in 1 of 3 rows.|Leave out these rows"),
    "NaN": ([0.0, float("nan"), 1.0], "has no label in 1 of 3 rows.|Leave out these rows"),
    "floats": ([0.5, 1.0, 2.0], "has labels such as 0.5.|Write a column label"),
    "several": ([[0], [0, 1], []], "has lists of labels.|Write a column label"),
    "bytes": ([b"a", b"b", b"a"], "has labels such as b'a'.|Write a column label"),
    "hidden": ([-1, -1, -1], "hides its labels: all are -1.|Give another split"),
    "hidden floats": ([-1.0] * 3, "hides its labels: all are -1.|Give another split"),
    "no values": ([None] * 3, "hides its labels: all are missing.|Give another split"),
    "below": ([0, -1, 1], "has labels from -1 to 1.|There are 2 classes"),
}


class Rows(list[dict[str, Any]]):
    """A mock of an iterable data set, because a real one takes seconds to shut down."""

    def shuffle(self, **_: int) -> Rows:
        return self

    def skip(self, count: int) -> Rows:
        return Rows(self[count:])


def streamed(labels: Sequence[Any], classes: tuple[str, ...]) -> list[int]:
    rows = Rows({"image": picture(n % 3), "label": label} for n, label in enumerate(labels))
    stream = hub.Stream(rows, "image", "label", classes, "d train", None)
    return [label for _, label in stream.read(0, 0)]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    terminal.say_once.cache_clear()


@pytest.mark.parametrize("kind", GOOD)
def test_labels_with_a_plain_meaning(kind: str, tmp_path: Path) -> None:
    labels, expected, classes = GOOD[kind]
    path = write_parquet(tmp_path / "d" / "train.parquet", labels)
    files, table = read_parquet(path), hub.load(tmp_path / "d", "train")
    assert (files.labels, files.classes) == (tuple(expected), classes)
    assert (table.labels, table.classes) == (tuple(expected), classes)
    assert streamed(labels, classes) == expected
    # In `eval` they are the network's outputs of these names, and numbers are its outputs.
    order = classes if classes[0] == "0" else classes[::-1]
    found = read_images(str(path), order, len(order))
    shown = [order[found.outputs[label]] for label in found.images.labels]
    assert shown == [classes[label] for label in expected]


@pytest.mark.parametrize("kind", BAD)
def test_labels_that_are_refused(kind: str, tmp_path: Path) -> None:
    labels, parts = BAD[kind]
    path = write_parquet(tmp_path / "d" / "train.parquet", labels)
    for name, read in (
        (path, lambda: read_parquet(path)),
        (path, lambda: read_images(str(path), (), 2)),
        (f"{tmp_path / 'd'} train", lambda: hub.load(tmp_path / "d", "train")),
    ):
        said = message(read, DataError)
        first, last = parts.split("|")
        assert said.splitlines()[0] == f"{name} {first}"
        assert said.splitlines()[-1].startswith(last)
    with pytest.raises(DataError, match=r"^d train .*label"):
        streamed(labels, ("0", "1", "cat", "dog"))


def test_names_of_a_class_label(tmp_path: Path) -> None:
    write_parquet(tmp_path / "d" / "train.parquet", [2, 0], classes=("b", "a", "c"))
    write_parquet(tmp_path / "d" / "test.parquet", [1], classes=("b", "a", "c"))
    data = load_data(RECIPE, tmp_path / "d")
    assert data.classes == ("b", "a", "c")
    assert (data.train.labels, data.test.labels) == ((2, 0), (1,))  # type: ignore[union-attr]
    write_parquet(tmp_path / "d" / "test.parquet", [1], classes=("a", "b", "c"))
    data = load_data(RECIPE, tmp_path / "d")
    assert (data.test.classes, tuple(data.test.labels)) == (("b", "a", "c"), (0,))


RECIPE = Recipe(
    name="photos", model="resnet20", data="hub", phases=((8, 1),), batch=2, compile=False
)


def test_a_test_split_lacks_a_class(tmp_path: Path) -> None:
    write_parquet(tmp_path / "d" / "train.parquet", ["dog", "cat", "elk"])
    write_parquet(tmp_path / "d" / "test.parquet", ["elk", "dog"])
    data = load_data(RECIPE, tmp_path / "d")
    assert data.classes == ("cat", "dog", "elk")
    assert tuple(data.test.labels) == (2, 1)
    write_parquet(tmp_path / "d" / "test.parquet", ["elk", "fox"])
    assert message(lambda: load_data(RECIPE, tmp_path / "d"), DataError).startswith(
        f"{tmp_path / 'd'} test has the class 'fox', which the first split does not have.\n"
        "The classes of the first split are cat, dog, elk."
    )


@pytest.mark.parametrize("labels", [[-1, -1], [None, None]])
def test_hidden_labels_of_a_test_split(
    labels: list[int | None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "d"
    write_parquet(folder / "train.parquet", [0, 1, 2])
    write_parquet(folder / "test.parquet", pa.array(labels, pa.int64()))
    assert message(lambda: load_data(RECIPE, folder), DataError).startswith(
        f"{folder} test hides its labels: all are "
    )
    write_parquet(folder / "validation.parquet", [2, 0])
    for recipe in (RECIPE, RECIPE.replace(stream=True, stream_images=2)):
        data = load_data(recipe, folder)
        assert (tuple(data.test.labels), data.test.name) == ((2, 0), f"{folder} val")
    assert f"\n{folder} test hides its labels: all are " in capsys.readouterr().err


def test_text_over_several_files(tmp_path: Path) -> None:
    """The classes are those of all files, not numbered in each anew."""
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    write_parquet(paths[0], ["cat"])
    write_parquet(paths[1], ["bee", "cat"])
    files = read_parquet(paths)
    assert (files.labels, files.classes) == ((1, 0, 1), ("bee", "cat"))
    write_parquet(paths[0], [0], classes=["bee", "cat"])
    write_parquet(paths[1], [0], classes=["cat", "bee"])
    with pytest.raises(DataError, match="Expected bee, cat, in this order"):
        read_parquet(paths)


# --- One name in two forms of Unicode ------------------------------------------------------------


@pytest.mark.parametrize(("ours", "theirs"), [(NFC, NFD), (NFD, NFC)], ids=["NFC", "NFD"])
def test_names_match_in_both_forms(ours: str, theirs: str, tmp_path: Path) -> None:
    for split, name in (("train", ours), ("val", theirs)):
        for folder in (name, "tea"):
            (tmp_path / split / folder).mkdir(parents=True)
            (tmp_path / split / folder / "0.png").write_bytes(picture(1))
    data = load_data(RECIPE.replace(data="folder"), tmp_path)
    assert data.classes == (ours, "tea")
    assert tuple(data.test.labels) == (0, 1)
    model = senetzoo.create("lenet5", num_classes=2, seed=0)
    senetzoo.save(model, tmp_path / "network", classes=data.classes)
    loaded = senetzoo.load(tmp_path / "network")
    assert loaded.load_report is not None
    assert loaded.load_report.classes == (ours, "tea")
    found = read_images(str(tmp_path / "val"), ("tea", ours), 2)
    assert dict(zip(found.images.classes, found.outputs, strict=True)) == {theirs: 1, "tea": 0}
    path = write_parquet(tmp_path / "x.parquet", [theirs, "tea"])
    assert read_parquet(path, [ours, "tea"]).labels == (0, 1)
    path = write_parquet(tmp_path / "x.parquet", [0, 1], classes=[theirs, "tea"])
    assert read_parquet(path, [ours, "tea"]).labels == (0, 1)


def test_a_class_in_two_folders(tmp_path: Path) -> None:
    for name in (NFC, NFD):
        try:
            (tmp_path / name).mkdir()
        except FileExistsError:
            pytest.skip("one folder to this file system")
        (tmp_path / name / "0.png").write_bytes(picture(1))
    said = message(lambda: read_image_folder(tmp_path), DataError)
    assert said.splitlines()[-1] == "Put the images of both into one"


def test_numbers_are_whole() -> None:
    labels, classes = numbered([], None, None, "nothing")
    assert (labels, classes) == ((), ())
    assert numbered([torch.tensor(1).item(), 0.0], None, ("a", "b"), "x")[0] == (1, 0)
