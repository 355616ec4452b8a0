"""One function that opens labeled images from any source."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import torch

from senetzoo._utils import terminal
from senetzoo._utils.files import user_path
from senetzoo.data import digits, flowers5, hub
from senetzoo.data.cifar import CIFAR10, CIFAR100, Cifar, Part
from senetzoo.data.files import LabeledFiles, parquet_files, read_image_folder, read_parquet
from senetzoo.data.images import is_clutter, say_left_out
from senetzoo.data.labels import HiddenLabelsError, positions
from senetzoo.data.listing import read_csv
from senetzoo.data.sets import SPLITS, ImageSet, Split
from senetzoo.data.split import Images, hold_out
from senetzoo.errors import DataError, first_line

Kind: TypeAlias = Literal[
    "digits", "cifar10", "cifar100", "flowers5", "csv", "parquet", "folder", "hub"
]
HUB = "hf-hub:"
_Readers: TypeAlias = Mapping[Split, Callable[[], Images]]
CIFAR: dict[Kind, Cifar] = {"cifar10": CIFAR10, "cifar100": CIFAR100}
WORDS: tuple[Kind, ...] = ("digits", *CIFAR)
"""Data sets that need no path."""


def open(
    where: str | Path,
    split: Split | None = None,
    *,
    kind: Kind | None = None,
    held_out: float = 0.0,
    seed: int = 0,
    allow_empty: bool = False,
) -> Images:
    """Open labeled images.

    Args:
        where: The source:

            - a folder with one folder of images per class;
            - a folder with some of ``train``, ``val`` (or ``valid``, ``validation``) and ``test``,
              each of them such a folder;
            - a CSV with the columns ``path,label`` or ``path,label,split`` (`read_csv`);
            - a parquet file with the Hub's schema, or a folder of such files by split;
            - a data set on the Hub: ``"hf-hub:owner/name"``;
            - a copy of CIFAR-10 or CIFAR-100 (`Cifar.load`) or of ``flower_photos``
              (`flowers5.load`);
            - the word ``digits`` for scikit-learn's.
        split: ``"train"``, ``"val"``, ``"test"``; ``"all"`` if the source has no split; None for
            ``"test"`` if there is one, else ``"val"``, else all.
        kind: Kind of the source; None to detect it.
        held_out: Fraction of the training images, or of all, to hold out as ``"val"`` if the source
            has none (`hold_out`); 0 for none.
        seed: Seed of the held-out images.
        allow_empty: Whether a folder of a class may have no images, if nothing is held out.

    Raises:
        DataError: The source is missing, has no such split, or can't be read.
        MissingExtraError: A library that reads it is not installed.
    """
    readers = (
        _given(open_splits(where, kind=kind, held_out=held_out, seed=seed))
        if held_out
        else _readers(where, kind, allow_empty)
    )
    wanted: tuple[Split, ...] = (split,) if split is not None else ("test", "val", "all", "train")
    there = [name for name in wanted if name in readers]
    if not there:
        whole = "all" in readers
        raise DataError(
            f"{where} has no {wanted[0]} split.",
            "It has no splits." if whole else f"It has {', '.join(readers)}.",
            "Name its folders train, val and test, or give a CSV with a column split; the folder "
            "of a fine-tuned run has one, split.csv"
            if whole
            else "Ask for one of these",
        )
    if there[:2] == ["test", "val"]:
        # Some test splits on the Hub have no labels.
        found = _labeled("test", lambda: _read(readers, "test"))
        return _read(readers, "val") if found is None else found
    return _read(readers, there[0])


def open_splits(
    where: str | Path, *, kind: Kind | None = None, held_out: float = 0.0, seed: int = 0
) -> dict[Split, Images]:
    """Open all splits of a source; see `open`.

    Returns:
        The images by ``"train"``, ``"val"``, ``"test"``; ``"all"`` if the source has no split and
        nothing is held out. All have the same classes. Ignored files are in ``left_out``, and not
        reported. A test split on the Hub without labels is left out, and reported.

    Raises:
        DataError: As in `open`, or the classes of the splits differ.
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
        terminal.say_once(first_line(error))
        return None


def _with_classes(images: Images, classes: tuple[str, ...]) -> Images:
    """Images of some of the classes, with labels that are numbers in all `classes`."""
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
    """Hold out some of the training images, or of all, as ``"val"`` if there is none.

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


def _readers(where: str | Path, kind: Kind | None, allow_empty: bool = False) -> _Readers:
    """A function that reads each split of a source."""
    kind = kind or kind_of(where)
    path = user_path(where)
    parts: dict[str, Callable[[Part], Images]] = {
        "digits": digits.load,
        "flowers5": partial(flowers5.load, path),
    }
    for name, cifar in CIFAR.items():
        archive = path.name == cifar.archive and path.is_file()
        parts[name] = partial(cifar.load, path.parent if archive else path)
    if kind in parts:
        return {part: partial(parts[kind], part) for part in get_args(Part)}
    if kind == "csv":
        return _given(read_csv(path))
    if kind == "parquet":
        return {"all": lambda: dataclasses.replace(read_parquet(path), name=path.name)}
    if kind == "hub":
        where = str(where).removeprefix(HUB)
        return {split: partial(hub.load, where, split) for split in hub.splits(where)}
    folders: dict[Split, Path] = split_folders(path) or {"all": path}
    return {
        split: partial(read_image_folder, folder, allow_empty=allow_empty)
        for split, folder in folders.items()
    }


def _given(parts: Mapping[Split, Images]) -> _Readers:
    return {split: partial(lambda images: images, parts[split]) for split in parts}


def split_folders(path: Path) -> dict[Split, Path]:
    """The subfolders that are splits, with class folders in them."""
    there = _folders(path)
    by_word = {folder.name.lower(): folder for folder in there}
    found: dict[Split, Path] = {}
    for name, split in SPLITS.items():
        if split not in found and name in by_word and _folders(by_word[name]):
            found[split] = by_word[name]
    others = [folder for folder in there if folder not in found.values()]
    if found and others:
        names = ", ".join(sorted(entry.name for entry in others)[:3])
        terminal.say_once(f"{path}: left out, not a split: {names}{', ...' * (len(others) > 3)}")
    return {split: found[split] for split in get_args(Split) if split in found}


def _folders(path: Path) -> list[Path]:
    entries = sorted(path.iterdir()) if path.is_dir() else ()
    return [entry for entry in entries if entry.is_dir() and not is_clutter(entry.name)]


def named(where: str | Path) -> Kind | None:
    """The one of `WORDS` that `where` is, in upper or lower case; None if there is such a path."""
    word = next((word for word in WORDS if word == str(where).lower()), None)
    return None if user_path(where).exists() else word


def kind_of(where: str | Path) -> Kind:
    """The kind of a source, by its name and by the content of its folder.

    Raises:
        DataError: The source is missing, or a file of another kind.
    """
    path = user_path(where)
    if str(where).startswith(HUB):
        return "hub"
    if (word := named(where)) is not None:
        return word
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
            f"There is no data at {where}.",
            "Data is a folder of class folders, a CSV or parquet file, a copy of CIFAR-10, "
            "CIFAR-100 or flower_photos, a data set on the Hub, or one of the words "
            f"{', '.join(WORDS)}.",
            "Check the path, or give hf-hub:OWNER/NAME for a data set on the Hub",
        )
    return "hub" if parquet_files(path, "", "") else "folder"
