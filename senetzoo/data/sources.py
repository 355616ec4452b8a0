"""One entry for labeled images of every source."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import torch

from senetzoo._utils import terminal
from senetzoo._utils.files import user_path
from senetzoo.data import digits, flowers5, hub
from senetzoo.data.cifar import CIFAR10, CIFAR100, Cifar
from senetzoo.data.files import LabeledFiles, parquet_files, read_image_folder, read_parquet
from senetzoo.data.images import is_clutter, say_left_out
from senetzoo.data.labels import HiddenLabelsError, positions
from senetzoo.data.listing import SPLITS, read_csv
from senetzoo.data.sets import ImageSet, Split
from senetzoo.data.split import Images, hold_out
from senetzoo.errors import DataError

Kind: TypeAlias = Literal[
    "digits", "cifar10", "cifar100", "flowers5", "csv", "parquet", "folder", "hub"
]
HUB = "hf-hub:"
_Readers: TypeAlias = Mapping[Split, Callable[[], Images]]
CIFAR: dict[Literal["cifar10", "cifar100"], Cifar] = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def open(
    where: str | Path,
    split: Split | None = None,
    *,
    kind: Kind | None = None,
    held_out: float = 0.0,
    seed: int = 0,
) -> Images:
    """Open labeled images.

    Args:
        where: What has them:

            - a folder with one folder of images per class;
            - a folder with ``train``, ``val`` (or ``valid``, ``validation``) and ``test``, each
              such a folder, or some of them;
            - a CSV with the columns ``path,label`` or ``path,label,split`` (`read_csv`);
            - a parquet file with the Hub's schema, or a folder of such files by split;
            - a data set of the Hub: ``"hf-hub:owner/name"``;
            - a copy of CIFAR-10 or CIFAR-100 (`Cifar.load`) or of ``flower_photos``
              (`flowers5.load`);
            - the word ``digits`` (scikit-learn's).
        split: ``"train"``, ``"val"``, ``"test"``; ``"all"`` where the source has no split; None
            for what networks are tested on: ``"test"`` where it is, else ``"val"``, else all.
        kind: What it is; None finds out.
        held_out: How much of the training images, or of all, is held out as ``"val"`` where the
            source has none (`hold_out`); 0 for nothing.
        seed: Of what is held out.

    Raises:
        DataError: Nothing is there, it has no such split, or it can't be read.
        MissingExtraError: A library that reads it is not installed.
    """
    readers = (
        _given(open_splits(where, kind=kind, held_out=held_out, seed=seed))
        if held_out
        else _readers(where, kind)
    )
    wanted: tuple[Split, ...] = (split,) if split is not None else ("test", "val", "all", "train")
    there = [name for name in wanted if name in readers]
    if not there:
        raise DataError(
            f"{where} has no {wanted[0]} split.",
            f"It has {', '.join(readers)}.",
            "Name its folders train, val and test, or list it in a CSV with a column split",
        )
    if there[:2] == ["test", "val"]:
        # Of the Hub's test splits some have no labels.
        found = _labeled("test", lambda: _read(readers, "test"))
        return _read(readers, "val") if found is None else found
    return _read(readers, there[0])


def open_splits(
    where: str | Path, *, kind: Kind | None = None, held_out: float = 0.0, seed: int = 0
) -> dict[Split, Images]:
    """Open all splits of a source; see `open`.

    Returns:
        The images by ``"train"``, ``"val"``, ``"test"``; ``"all"`` where the source has no split
        and nothing is held out. All have the same classes. Files that are left out are in
        ``left_out``, and nothing is said of them. A test split of the Hub without labels is left
        out, which is said.

    Raises:
        DataError: As of `open`, or splits with other classes.
    """
    read = ((split, _labeled(split, reader)) for split, reader in _readers(where, kind).items())
    parts = {split: images for split, images in read if images is not None}
    if not parts:
        raise DataError(f"{where} has no split with labels.")
    classes = next(iter(parts.values())).classes
    parts = {split: _with_classes(images, classes) for split, images in parts.items()}
    return with_val(parts, held_out, seed) if held_out else parts


def _labeled(split: Split, read: Callable[[], Images]) -> Images | None:
    try:
        return read()
    except HiddenLabelsError as error:
        if split != "test":
            raise
        terminal.say_once(str(error).partition("\n")[0])
        return None


def _with_classes(images: Images, classes: tuple[str, ...]) -> Images:
    """Images of some of the classes, with labels that count all of them."""
    if images.classes == classes:
        return images
    number = positions(images.classes, classes, images.name, "the first split")
    if isinstance(images, ImageSet):
        return dataclasses.replace(
            images, classes=classes, labels=torch.tensor(number)[images.labels]
        )
    labels = tuple(number[label] for label in images.labels)
    return dataclasses.replace(images, classes=classes, labels=labels)


def with_val(
    parts: Mapping[Split, Images],
    held_out: float,
    seed: int = 0,
    digests: Mapping[Split, Sequence[str]] | None = None,
) -> dict[Split, Images]:
    """Splits with a part of the training images, or of all, as ``"val"`` where there is none.

    Raises:
        ConfigError: `held_out` is not between 0 and 1.
        DataError: A class has too few images to hold one out.
    """
    source: Split = "train" if "train" in parts else "all"
    if "val" in parts or source not in parts:
        return dict(parts)
    whole = parts[source]
    known = (digests or {}).get(source)
    kept, held = hold_out(whole, held_out, seed, digests=known)
    name = whole.name.removesuffix(" train")
    found: dict[Split, Images] = {
        "train": whole.keep(kept, f"{name} train"),
        "val": whole.keep(held, f"{name} val"),
    }
    return found | ({"test": parts["test"]} if "test" in parts else {})


def _read(readers: _Readers, split: Split) -> Images:
    images = readers[split]()
    if isinstance(images, LabeledFiles) and images.root is not None:
        say_left_out(images.root, images.left_out)
    return images


def _readers(where: str | Path, kind: Kind | None) -> _Readers:
    """What reads each split of a source."""
    kind = kind or kind_of(where)
    path = user_path(where)
    if kind == "digits":
        return {"train": lambda: digits.load("train"), "test": lambda: digits.load("test")}
    if kind == "cifar10" or kind == "cifar100":
        return _cifar(CIFAR[kind], path)
    if kind == "flowers5":
        return {
            "train": lambda: flowers5.load(path, "train"),
            "test": lambda: flowers5.load(path, "test"),
        }
    if kind == "csv":
        return _given(read_csv(path))
    if kind == "parquet":
        return {"all": lambda: dataclasses.replace(read_parquet(path), name=path.name)}
    if kind == "hub":
        name = str(where).removeprefix(HUB)
        return {split: functools.partial(hub.load, name, split) for split in hub.splits(name)}
    folders = split_folders(path)
    if not folders:
        return {"all": lambda: read_image_folder(path)}
    return {split: functools.partial(read_image_folder, folders[split]) for split in folders}


def _given(parts: Mapping[Split, Images]) -> _Readers:
    return {split: functools.partial(lambda images: images, parts[split]) for split in parts}


def _cifar(cifar: Cifar, path: Path) -> _Readers:
    if path.name == cifar.archive and path.is_file():
        path = path.parent
    return {
        "train": lambda: cifar.load(path, "train"),
        "test": lambda: cifar.load(path, "test"),
    }


def split_folders(path: Path) -> dict[Split, Path]:
    """The folders of a folder that are splits, with class folders in them."""
    there = _folders(path)
    by_word = {folder.name.lower(): folder for folder in there}
    found: dict[Split, Path] = {}
    for name, split in SPLITS.items():
        if split not in found and name in by_word and _folders(by_word[name]):
            found[split] = by_word[name]
    others = [folder for folder in there if folder not in found.values()]
    if found and others:
        names = ", ".join(sorted(entry.name for entry in others)[:3])
        terminal.say_once(f"{path}: no splits, and left out: {names}{', ...' * (len(others) > 3)}")
    return {split: found[split] for split in get_args(Split) if split in found}


def _folders(path: Path) -> list[Path]:
    entries = sorted(path.iterdir()) if path.is_dir() else ()
    return [entry for entry in entries if entry.is_dir() and not is_clutter(entry.name)]


def kind_of(where: str | Path) -> Kind:
    """What a source is, by its name and by what lies in its folder.

    Raises:
        DataError: Nothing is there, or a file of another kind.
    """
    path = user_path(where)
    if str(where).startswith(HUB):
        return "hub"
    if str(where) == "digits" and not path.exists():
        return "digits"
    for kind, cifar in CIFAR.items():
        if path.name == cifar.archive and path.is_file():
            return kind
        if (path / cifar.unpacked).is_dir() or (path / cifar.archive).is_file():
            return kind
        test = path / "test"
        if test.is_dir() and {e.name for e in test.iterdir() if e.is_dir()} == set(cifar.classes):
            return kind
    if (path / flowers5.FOLDER).is_dir() or (path.name == flowers5.FOLDER and path.is_dir()):
        return "flowers5"
    if path.is_file():
        kinds: dict[str, Kind] = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
        if path.suffix.lower() in kinds:
            return kinds[path.suffix.lower()]
    if not path.is_dir():
        raise DataError(
            f"No data at {where}.",
            "Data is a folder of class folders, a CSV or parquet file, a copy of CIFAR-10, "
            "CIFAR-100 or flower_photos, a data set of the Hub, or the word digits.",
            "Type for example: digits; or hf-hub:OWNER/NAME",
        )
    return "hub" if parquet_files(path, "", "") else "folder"
