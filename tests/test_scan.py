"""The scan before training, on a folder in which everything that goes wrong is planted."""

from __future__ import annotations

import csv
import json
import os
import shutil
import struct
import sys
import unicodedata
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.images import chunk, class_folders, file_of, picture
from support.networks import message

from senetzoo import data
from senetzoo.data.digits import load
from senetzoo.data.files import LabeledFiles
from senetzoo.data.scan import Problem, Scan, scan
from senetzoo.errors import DataError


def with_wrong_checksum(png: bytes) -> bytes:
    at = png.index(b"IDAT")
    end = at + 4 + int.from_bytes(png[at - 4 : at], "big")
    return png[:end] + bytes([png[end] ^ 1]) + png[end + 1 :]


HUGE = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    + (chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b""))
)


def animation() -> bytes:
    frames = [Image.new("P", (9, 9), color) for color in (1, 2, 3)]
    return file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])


def plant(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Plant bad files beside good ones; the kind of problem by file."""
    cat, dog = root / "cat", root / "dog"
    jpeg = picture(500, "JPEG", (64, 64))
    (cat / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (cat / "empty.png").write_bytes(b"")
    (cat / "text.jpg").write_text("no image at all")
    (cat / "folder.jpg").mkdir()
    (cat / "link.png").symlink_to(root / "gone.png")
    (dog / "secret.png").write_bytes(picture(501))
    shutil.copy(cat / "00.png", cat / "copy.png")
    shutil.copy(dog / "01.png", cat / "other.png")
    (dog / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (dog / "checksum.png").write_bytes(with_wrong_checksum(picture(502)))
    (dog / "huge.png").write_bytes(HUGE)
    (root / "loose.png").write_bytes(picture(503))
    (dog / "fine.gif").write_bytes(animation())
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:  # as of a file without permission: root may read it
        if path.name == "secret.png":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    return {
        "cat/cut.jpg": "broken",
        "cat/empty.png": "empty",
        "cat/text.jpg": "broken",
        "cat/folder.jpg": "unsupported",
        "cat/link.png": "unreadable",
        "dog/secret.png": "unreadable",
        "cat/copy.png": "duplicate",
        "cat/other.png": "two labels",
        "dog/01.png": "two labels",
        "dog/phone.heic": "unsupported",
        "dog/checksum.png": "broken",
        "dog/huge.png": "broken",
        "loose.png": "unsupported",
    }


def test_every_planted_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = class_folders(tmp_path / "photos", {"cat": 6, "dog": 6})
    planted = plant(root, monkeypatch)
    found = scan(root, held_out=0.2, threads=2)
    assert {problem.file: problem.kind for problem in found.problems} == planted
    assert found.counts == {"train": {"cat": 5, "dog": 5}, "val": {"cat": 1, "dog": 1}}
    kept = {part.file_name(k) for part in found.parts.values() for k in range(len(part))}  # type: ignore[union-attr]
    good = {f"cat/{k:02}.png" for k in range(6)} | {f"dog/{k:02}.png" for k in (0, 2, 3, 4, 5)}
    assert kept == good | {"dog/fine.gif"}
    for part in found.parts.values():
        assert isinstance(part, LabeledFiles)
        assert len(list(part)) == len(part)  # every image that is kept opens
    table = str(found)
    assert all(file in table for file in planted)
    assert "  broken images: 4\n" in table
    assert "cat/copy.png: the same as cat/00.png\n" in table
    assert "cat/other.png: the same as dog/01.png" in table
    assert "dog/huge.png: it has more than" in table
    assert "13 files are left out:" in table
    record = json.loads(json.dumps(found.record()))
    assert {row["file"]: row["kind"] for row in record["problems"]} == planted
    assert record["counts"]["val"] == {"cat": 1, "dog": 1}
    found.write_csv(tmp_path / "problems.csv")
    with (tmp_path / "problems.csv").open(encoding="utf-8", newline="") as file:
        assert {row["file"]: row["kind"] for row in csv.DictReader(file)} == planted
    # With other numbers of threads and the split after it, the same.
    assert scan(data.open_splits(root), held_out=0.2, threads=1).problems == found.problems


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
def test_a_file_whose_name_is_no_text_is_left_out(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "photos", {"cat": 4, "dog": 4})
    (root / "cat" / "00.png").rename(root / "cat" / os.fsdecode(b"\xe9.png"))
    found = scan(root)
    (problem,) = found.problems
    assert (problem.kind, problem.detail) == ("unsupported", "its name isn't UTF-8")
    found.write_csv(tmp_path / "problems.csv")
    assert b"cat/\xe9.png" in (tmp_path / "problems.csv").read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
def test_a_class_whose_name_is_no_text(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "photos", {"tea": 2, os.fsdecode(b"caf\xe9"): 2})
    with pytest.raises(DataError) as caught:
        scan(root)
    assert str(caught.value).splitlines()[0] == f"{root} has a class named b'caf\\xe9'."


def test_the_same_image_in_two_splits_stays_where_it_is_tested(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        class_folders(tmp_path / split, {"a": 3, "b": 3}, 10 * number)
    shutil.copy(tmp_path / "test" / "a" / "00.png", tmp_path / "train" / "a" / "x.png")
    shutil.copy(tmp_path / "test" / "a" / "00.png", tmp_path / "val" / "a" / "y.png")
    shutil.copy(tmp_path / "val" / "b" / "01.png", tmp_path / "train" / "b" / "z.png")
    shutil.copy(tmp_path / "val" / "b" / "02.png", tmp_path / "train" / "a" / "w.png")
    found = scan(tmp_path, held_out=0.2)
    assert {(p.file, p.kind, p.detail) for p in found.problems} == {
        ("train/a/x.png", "two splits", "the same as test/a/00.png"),
        ("val/a/y.png", "two splits", "the same as test/a/00.png"),
        ("train/b/z.png", "two splits", "the same as val/b/01.png"),
        ("train/a/w.png", "two labels", "the same as val/b/02.png"),
        ("val/b/02.png", "two labels", "the same as train/a/w.png"),
    }
    assert found.counts == {
        "train": {"a": 3, "b": 3},
        "val": {"a": 3, "b": 2},
        "test": {"a": 3, "b": 3},
    }


def test_numbers_of_the_table(tmp_path: Path) -> None:
    root = class_folders(tmp_path, {"few": 2, "many": 9})
    for size in ((40, 30), (40, 30), (40, 30)):
        name = f"{len(list((root / 'many').iterdir())):02}.jpg"
        (root / "many" / name).write_bytes(picture(700 + int(name[:2]), "JPEG", size))
    # Turned by its metadata: 30 wide and 50 tall becomes 50 wide and 30 tall.
    exif = Image.Exif()
    exif[0x112] = 6
    for index in range(16):
        tall = Image.fromarray(
            np.random.default_rng(index).integers(0, 256, (50, 30, 3), dtype=np.uint8)
        )
        tall.save(root / "many" / f"t{index}.jpg", exif=exif)
    found = scan(root)
    assert found.imbalance == 14.0
    assert found.size == (50, 30)
    assert found.problems == ()
    assert str(found).splitlines() == [
        "class  all",
        "few      2",
        "many    28",
        "all     30",
        "median image 50x30 pixels, largest class 14 times the smallest",
        "no files are left out",
    ]


def test_long_lists_are_shortened_in_the_table_alone() -> None:
    names = tuple(f"c{k:02}" for k in range(30))
    images = LabeledFiles((b"",) * 60, tuple(range(30)) * 2, names, "many")
    problems = tuple(
        Problem("empty", f"x/{k}.png", "all", "c00", "it has no bytes") for k in range(50)
    )
    found = Scan("many", {"all": images}, problems, (32, 32))
    lines = found.lines(5)
    assert [line.split() for line in lines[:7]] == [
        ["class", "all"],
        *(["c00", "2"], ["c01", "2"], ["c02", "2"], ["c03", "2"]),
        ["26", "more", "52"],
        ["all", "60"],
    ]
    assert lines[-1] == "    and 46 more"
    assert sum("x/" in line for line in lines) == 4
    assert sum("x/" in line for line in found.lines(None)) == 50
    assert len(found.record()["problems"]) == 50


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ({"cat": 3}, "has one class: cat."),
        ({"cat": 3, "dog": 1}, "has 1 image that can be used."),
        ({"Cat": 2, "cat": 2}, "has the classes 'Cat' and 'cat'.\nThey differ only in case."),
        (
            {unicodedata.normalize("NFC", "café"): 2, unicodedata.normalize("NFD", "café"): 2},
            "They differ only in their Unicode encoding",
        ),
    ],
)
def test_classes_that_can_not_be_trained_on(
    images: dict[str, int], says: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as error:
        scan(class_folders(tmp_path, images))
    assert says in str(error.value)


def test_a_class_whose_images_are_bad_is_explained(tmp_path: Path) -> None:
    root = class_folders(tmp_path, {"a": 3, "b": 3})
    (root / "b" / "00.png").write_bytes(b"")
    (root / "b" / "01.png").write_bytes(b"?")
    assert message(lambda: scan(root), DataError) == (
        f"The class 'b' of {root} has 1 image that can be used.\n"
        "Left out: b/00.png (empty), b/01.png (broken). Each class needs two, one of them to "
        "train on.\nAdd images to it, or remove the class"
    )


def test_a_csv_is_scanned_as_a_folder_is(tmp_path: Path) -> None:
    root = class_folders(tmp_path, {"a": 4, "b": 4})
    lines = [f"{c}/{k:02}.png,{c}" for c in "ab" for k in range(4)] + ["a/gone.png,a"]
    (root / "x.csv").write_text("\n".join(["path,label", *lines]))
    (root / "b" / "00.png").write_bytes(b"")
    found = scan(root / "x.csv", held_out=0.25)
    assert [(p.kind, p.file) for p in found.problems] == [
        ("empty", "b/00.png"),
        ("unreadable", "a/gone.png"),
    ]
    assert found.counts == {"train": {"a": 3, "b": 2}, "val": {"a": 1, "b": 1}}


def test_images_that_are_no_files(tmp_path: Path) -> None:
    contents = (picture(1), picture(2), b"", picture(1), picture(3), picture(4)[:60])
    images = LabeledFiles(contents, (0, 0, 0, 0, 1, 1), ("a", "b"), "rows")
    more = LabeledFiles((*contents, picture(5)), (*images.labels, 1), ("a", "b"), "rows")
    found = scan({"all": more})
    assert [(p.kind, p.file, p.detail) for p in found.problems] == [
        ("empty", "image 2 of rows", "it has no bytes"),
        ("broken", "image 5 of rows", "it is damaged or truncated"),
        ("duplicate", "image 3 of rows", "the same as image 0 of rows"),
    ]
    kept = found.parts["all"]
    assert isinstance(kept, LabeledFiles)
    assert kept.sources == (contents[0], contents[1], contents[4], picture(5))


def test_sets_in_memory_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    found = scan("digits", held_out=0.1)
    assert found.problems == ()
    assert found.size == (8, 8)
    train = load("train")
    assert {split: sum(of.values()) for split, of in found.counts.items()} == {
        "train": len(train) - len(found.parts["val"]),
        "val": sum(int(0.1 * n + 0.5) for n in Counter(train.labels.tolist()).values()),
        "test": len(load("test")),
    }
