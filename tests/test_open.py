"""`senetzoo.data.open`: all sources of labeled images, CSVs, and held-out images."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.images import class_folders, picture, write_parquet
from support.networks import message

from senetzoo import data
from senetzoo.data import digits, hub
from senetzoo.data.cifar import CIFAR10
from senetzoo.data.files import LabeledFiles
from senetzoo.data.listing import read_csv, write_csv
from senetzoo.data.sets import ImageSet
from senetzoo.data.split import Images, hold_out
from senetzoo.errors import ConfigError, DataError


def names(images: Images) -> list[str]:
    assert isinstance(images, LabeledFiles)
    return [images.file_name(index) for index in range(len(images))]


# Sources


def test_a_folder_without_a_split(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "photos", {"cat": 3, "dog": 2})
    (root / "notes.txt").write_text("")
    (root / "dog" / "a.heic").write_bytes(b"?")
    everything = data.open(root)
    assert names(everything) == [
        "cat/00.png",
        "cat/01.png",
        "cat/02.png",
        "dog/00.png",
        "dog/01.png",
    ]
    assert isinstance(everything, LabeledFiles)
    assert everything.left_out == (root / "dog" / "a.heic", root / "notes.txt")
    assert list(data.open_splits(root)) == ["all"]
    with pytest.raises(DataError) as error:
        data.open(root, "train")
    assert str(error.value).splitlines()[:2] == [f"{root} has no train split.", "It has no splits."]
    parts = data.open_splits(root, held_out=0.3)
    assert [len(part) for part in parts.values()] == [3, 2]
    assert names(data.open(root, "val", held_out=0.3)) == names(parts["val"])
    assert sorted(names(parts["train"]) + names(parts["val"])) == names(everything)


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_a_folder_with_splits(validation: str, tmp_path: Path) -> None:
    class_folders(tmp_path / "train", {"a": 4, "b": 4, "c": 2})
    class_folders(tmp_path / validation, {"a": 1, "c": 1}, 50)
    class_folders(tmp_path / "test", {"a": 2, "b": 2, "c": 2}, 90)
    parts = data.open_splits(tmp_path)
    assert {split: len(part) for split, part in parts.items()} == {"train": 10, "val": 2, "test": 6}
    # Classes that are missing in a split keep their numbers.
    assert parts["val"].classes == ("a", "b", "c")
    assert list(parts["val"].labels) == [0, 2]
    assert len(data.open(tmp_path)) == 6  # what networks are tested on
    shutil.rmtree(tmp_path / "test")
    assert len(data.open(tmp_path)) == 2
    # The source's own split takes precedence.
    assert [len(p) for p in data.open_splits(tmp_path, held_out=0.4).values()] == [10, 2]
    class_folders(tmp_path / "test", {"z": 1})
    with pytest.raises(DataError, match="has the class 'z', which the first split does not have"):
        data.open_splits(tmp_path)


def test_other_folders_beside_splits_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folders(tmp_path / "train", {"a": 1, "b": 1})
    class_folders(tmp_path / "unsure", {"a": 1})
    # A class may have the name of a split: it has images, not folders.
    assert list(data.open_splits(tmp_path)) == ["train"]
    assert capsys.readouterr().err == f"{tmp_path}: left out, not a split: unsure\n"
    vehicles = class_folders(tmp_path / "vehicles", {"bus": 2, "train": 2})
    assert data.open(vehicles).classes == ("bus", "train")


def test_splits_are_known_in_capitals_and_clutter_is_no_class(tmp_path: Path) -> None:
    class_folders(tmp_path / "Train", {"a": 2, "b": 2})
    class_folders(tmp_path / "VAL", {"a": 1, "b": 1}, seed=9)
    # Folders that archivers and servers create.
    for part in ("__MACOSX", "Train/__MACOSX", "Train/a/@eaDir"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "00.png").write_bytes(b"")
    parts = data.open_splits(tmp_path)
    assert {split: (len(part), part.classes) for split, part in parts.items()} == {
        "train": (4, ("a", "b")),
        "val": (2, ("a", "b")),
    }


def test_a_split_finds_its_images_when_it_moves_alone_or_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folders(tmp_path / "here" / "photos", {"a": 2, "b": 2})
    (tmp_path / "here" / "run").mkdir()
    split = tmp_path / "here" / "run" / "split.csv"
    write_csv(split, {"all": data.open_splits(root)["all"]})  # type: ignore[dict-item]
    (tmp_path / "far" / "away").mkdir(parents=True)
    alone = Path(shutil.copy(split, tmp_path / "far" / "away"))
    for csv in (split, alone):
        (part,) = read_csv(csv).values()
        assert {Path(str(source)).resolve() for source in part.sources} == set(root.glob("*/*"))  # type: ignore[union-attr]
    # Through a link too, they are called as they are from here.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "here" / "run", target_is_directory=True)
    for name in ("here/run", "link", "far/../here/run"):
        (part,) = read_csv(Path(name) / "split.csv").values()
        assert {str(source) for source in part.sources} == {  # type: ignore[union-attr]
            str(path.relative_to(tmp_path)) for path in root.glob("*/*")
        }
    (tmp_path / "here").rename(tmp_path / "there")
    (part,) = read_csv(tmp_path / "there" / "run" / "split.csv").values()
    assert len(list(part)) == 4
    with pytest.raises(DataError, match="None of the 4 images"):
        read_csv(alone)


def test_built_in_sets_hold_out_a_part_of_their_training_images() -> None:
    parts = data.open_splits("digits", held_out=0.1)
    train, test = digits.load("train"), digits.load("test")
    assert isinstance(parts["val"], ImageSet)
    held = Counter(parts["val"].labels.tolist())
    all_of_them = Counter(train.labels.tolist())
    assert held == {label: int(0.1 * n + 0.5) for label, n in all_of_them.items()}
    assert len(parts["train"]) + len(parts["val"]) == len(train)
    assert isinstance(parts["test"], ImageSet)
    assert torch.equal(parts["test"].images, test.images)
    assert parts["val"].name == "scikit-learn digits val"
    other = data.open("digits", "val", held_out=0.1, seed=1)
    assert isinstance(other, ImageSet)
    assert not torch.equal(other.images, parts["val"].images)
    assert len(data.open("digits", "train")) == len(train)


def test_parquet_files_by_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    root = tmp_path / "d"
    contents = [picture(seed) for seed in range(8)]
    for split, count in (("train", 8), ("validation", 2), ("test", 2)):
        write_parquet(root / f"{split}-00000-of-00001.parquet", [k % 2 for k in range(count)])
    parts = data.open_splits(root)
    assert {split: len(part) for split, part in parts.items()} == {"train": 8, "val": 2, "test": 2}
    train = parts["train"]
    assert isinstance(train, LabeledFiles)
    assert train.numbered
    assert [train.sources[k] for k in range(8)] == contents
    # Sizes without reading the contents.
    kept = train.keep([6, 1])
    assert train.sizes() == [len(content) for content in contents]
    assert kept.sizes() == [len(contents[6]), len(contents[1])]
    assert kept.sources[0] == contents[6]


def test_a_test_split_without_labels_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    root = tmp_path / "d"
    for split, labels in (("train", [0, 1, 0, 1]), ("test", [-1, -1])):
        write_parquet(root / f"{split}-0.parquet", labels)
    assert list(data.open_splits(root)) == ["train"]
    assert f"{root} test hides its labels" in capsys.readouterr().err
    with pytest.raises(DataError, match="hides its labels"):
        data.open(root)


def test_a_hub_data_set_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def splits(path: object) -> dict[str, str]:
        asked.append(path)
        return {"train": "train", "test": "test"}

    def load(path: object, split: str) -> ImageSet:
        asked.append(split)
        return digits.load("test")

    monkeypatch.setattr(hub, "splits", splits)
    monkeypatch.setattr(hub, "load", load)
    data.open("hf-hub:owner/name")
    assert asked == ["owner/name", "test"]
    with pytest.raises(DataError, match="There is no data at owner/name"):
        data.open("owner/name")


# A CSV


def table(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("path,label\ncat/00.png,cat\ndog/00.png,dog\n", "utf-8"),
        ("path;label\r\ncat/00.png;cat\r\n;\r\ndog/00.png;dog\r\n\r\n", "utf-8-sig"),
        ('\n Label\tid\tPath\ncat\t1\t"cat/00.png"\n\t\t\ndog\t2\tdog/00.png', "utf-8"),
    ],
)
def test_a_csv_without_splits(text: str, encoding: str, tmp_path: Path) -> None:
    class_folders(tmp_path, {"cat": 1, "dog": 1})
    path = table(tmp_path / "x.csv", text, encoding)
    images = data.open(path)
    assert names(images) == ["cat/00.png", "dog/00.png"]
    assert (list(images.labels), images.classes, images.name) == ([0, 1], ("cat", "dog"), str(path))
    assert list(data.open_splits(path)) == ["all"]


def test_a_csv_with_splits_and_numbers(tmp_path: Path) -> None:
    class_folders(tmp_path, {"x": 4})
    lines = ["x/00.png,10,train", "x/01.png,9,Train", "x/02.png,9,validation", "x/03.png,10,test"]
    path = table(tmp_path / "x.csv", "\n".join(["path,label,split", *lines]))
    parts = data.open_splits(path)
    assert {split: list(part.labels) for split, part in parts.items()} == {
        "train": [1, 0],
        "val": [0],
        "test": [1],
    }
    assert parts["train"].classes == ("9", "10")
    assert names(data.open(path)) == ["x/03.png"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no column 'path', or has it twice."),
        ("file,label\na.png,x\n", "has no column 'path', or has it twice."),
        ("path,class\na.png,x\n", "has no column 'label', or has it twice."),
        ("path,label,label\na.png,x,y\n", "has no column 'label', or has it twice."),
        ("path,label\n", "lists no images."),
        ("path,label\na.png,\n", "has no label in line 2."),
        ("path,label\n,x\n", "has no path in line 2."),
        ("path,label\na.png\n", "has no label in line 2."),
        ("path,label\n/tmp/a.png,x\n", "has the absolute path /tmp/a.png in line 2."),
        ("path,label\nC:\\a.png,x\n", "has the absolute path C:\\a.png in line 2."),
        ("path,label\na.png,x\nb.png,y\n\na.png,x\n", "has a.png twice."),
        ("path,label\na.png,x\n./a.png,y\n", "has ./a.png twice."),
        ("path,label\nb.png,x\nc.png,x\n", "None of the 2 images of"),
        ("path,label,split\na.png,x,train\nb.png,x,\n", "has no split in line 3."),
        ("path,label,split\na.png,x,trian\n", "has the split 'trian' in line 2."),
        ('path,label\n"a.png,x\n', "can't be read."),
    ],
)
def test_a_csv_that_can_not_be_used(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(0))
    path = table(tmp_path / "x.csv", text)
    with pytest.raises(DataError) as error:
        data.open_splits(path)
    first = str(error.value).splitlines()[0]
    assert says in first
    assert str(path) in first


def test_a_csv_in_another_encoding(tmp_path: Path) -> None:
    path = table(tmp_path / "x.csv", "path,label\nä.png,Käfer\n", "cp1252")
    assert message(lambda: data.open(path), DataError) == (
        f"{path} can't be read.\nIt isn't UTF-8 text.\nSave it as a CSV in UTF-8"
    )
    path = table(tmp_path / "y.csv", "path,label\na.png,x\n", "utf-16")
    with pytest.raises(DataError, match=r"y.csv can't be read"):
        data.open(path)


def test_a_split_is_written_and_opens_again(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "my photos", {"a,b": 5, 'Kä"fer': 4})
    (root / "a,b" / "00.png").rename(root / "a,b" / "one, two.png")
    parts = data.open_splits(root, held_out=0.4)
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    files = {split: part for split, part in parts.items() if isinstance(part, LabeledFiles)}
    write_csv(run / "split.csv", files)
    again = data.open_splits(run / "split.csv")
    assert list(again) == ["train", "val"]
    for split, part in again.items():
        assert (part.classes, list(part.labels)) == (
            files[split].classes,
            list(files[split].labels),
        )
        assert isinstance(part, LabeledFiles)
        for index in range(len(part)):
            mine, theirs = part.sources[index], files[split].sources[index]
            assert isinstance(mine, Path)
            assert isinstance(theirs, Path)
            assert mine.resolve() == theirs.resolve()
    with pytest.raises(DataError, match="Its images aren't files"):
        write_csv(run / "x.csv", {"all": LabeledFiles((b"",), (0,), ("a",), "contents")})
    assert not (run / "x.csv").exists()
    assert read_csv(run / "split.csv")["val"].name == f"{run / 'split.csv'} val"


# Held-out images


def test_the_split_is_by_class_and_seeded(tmp_path: Path) -> None:
    root = class_folders(tmp_path, {"a": 20, "b": 7, "c": 2})
    images = data.open(root)
    kept, held = hold_out(images, 0.2)
    assert sorted(kept + held) == list(range(29))
    count = Counter(images.labels[index] for index in held)
    assert count == {0: 4, 1: 1, 2: 1}
    assert hold_out(images, 0.2) == (kept, held)
    assert hold_out(images, 0.2, seed=1)[1] != held
    everything_but_one = Counter(images.labels[index] for index in hold_out(images, 0.99)[1])
    assert everything_but_one == {0: 19, 1: 6, 2: 1}
    for wrong in (0.0, 1.0, -1, float("nan")):
        with pytest.raises(ConfigError, match="must be between 0 and 1"):
            hold_out(images, wrong)


def test_the_split_does_not_depend_on_order_or_hidden_files(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "one", {"a": 12, "b": 9})
    before = names(data.open(root, "val", held_out=0.25))
    (root / "a" / ".DS_Store").write_bytes(b"")
    (root / "a" / "._00.png").write_bytes(b"")
    (root / ".cache").mkdir()
    assert names(data.open(root, "val", held_out=0.25)) == before
    copied = tmp_path / "elsewhere" / "two"
    shutil.copytree(root, copied)
    assert names(data.open(copied, "val", held_out=0.25)) == before
    images = data.open(root)
    assert isinstance(images, LabeledFiles)
    order = list(range(len(images)))
    random.Random(0).shuffle(order)
    turned = images.keep(order)
    held = hold_out(turned, 0.25)[1]
    assert sorted(turned.file_name(index) for index in held) == before
    # A new image doesn't affect other classes, and moves at most one image of its own.
    (root / "b" / "new.png").write_bytes(picture(999))
    after = names(data.open(root, "val", held_out=0.25))
    assert [n for n in after if n[0] == "a"] == [n for n in before if n[0] == "a"]
    assert len(set(before) - set(after)) <= 1


def test_copies_lie_on_one_side(tmp_path: Path) -> None:
    root = class_folders(tmp_path, {"a": 10, "b": 10})
    for index in range(6):
        shutil.copy(root / "a" / "00.png", root / "a" / f"copy{index}.png")
    shutil.copy(root / "b" / "01.png", root / "b" / "copy.png")
    images = data.open(root)
    for seed in range(10):
        _, held = hold_out(images, 0.3, seed)
        inside = {names(images)[index] for index in held}
        copies = {"a/00.png", *(f"a/copy{k}.png" for k in range(6))}
        assert inside & copies in (set(), copies)
        assert len(inside & {"b/01.png", "b/copy.png"}) != 1
        assert Counter(name[0] for name in inside)["b"] == 3
    for name in (root / "b").iterdir():
        name.write_bytes(picture(7))
    with pytest.raises(DataError) as error:
        hold_out(data.open(root), 0.3)
    assert str(error.value).splitlines()[:2] == [
        f"The class 'b' of {root} can't be split.",
        "It has one image and copies of it.",
    ]


def test_contents_in_memory_split_by_what_they_are() -> None:
    contents = tuple(picture(seed) for seed in range(20))
    images = LabeledFiles(contents, (0,) * 20, ("a",), "contents")
    chosen = {contents[index] for index in hold_out(images, 0.3)[1]}
    turned = LabeledFiles(contents[::-1], (0,) * 20, ("a",), "contents")
    assert {contents[::-1][index] for index in hold_out(turned, 0.3)[1]} == chosen
    assert len(chosen) == 6


def test_cifar_folders_are_known_by_their_classes(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for index, name in enumerate(CIFAR10.classes):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (32, 32), (index, 0, 0)).save(tmp_path / split / name / "0.png")
    parts = data.open_splits(tmp_path)
    assert {split: part.name for split, part in parts.items()} == {
        "train": "CIFAR-10 train",
        "test": "CIFAR-10 test",
    }
    assert all(isinstance(part, ImageSet) for part in parts.values())
