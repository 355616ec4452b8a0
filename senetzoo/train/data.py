"""The data of a recipe, with the statistics that it normalizes by."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

from senetzoo._utils.files import user_path
from senetzoo.data import digits, flowers5, hub
from senetzoo.data.cifar import CIFAR10, CIFAR100
from senetzoo.data.files import LabeledFiles, read_image_folder
from senetzoo.data.hub import Stream
from senetzoo.data.sets import ImageSet
from senetzoo.errors import ConfigError, DataError
from senetzoo.nn.preprocessing import Preprocessing
from senetzoo.runs import statistics
from senetzoo.train.recipe import Recipe

TrainImages: TypeAlias = ImageSet | LabeledFiles | Stream
TestImages: TypeAlias = ImageSet | LabeledFiles


@dataclass(frozen=True)
class Data:
    """A data set with the statistics that its recipe normalizes by.

    Args:
        train: The training images: in memory, in files, or a stream.
        test: The test images.
        mean: Per channel, in units of the full range.
        std: Per channel, in units of the full range.
        count: Training images in an epoch.
        title: What the data is, for records.
    """

    train: TrainImages
    test: TestImages
    mean: tuple[float, ...]
    std: tuple[float, ...]
    count: int
    title: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each class."""
        return self.test.classes

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return len(self.mean)

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What tells this data from other data, for records: classes, numbers, and a hash.

        Of images in memory the hash is of the pixels; of files, of their names in the folder, and
        ``bytes`` is their size; of a stream, which is not read before, of its name.
        """
        found, size = hashlib.sha256(), 0
        for part in (self.train, self.test):
            for piece, more in _pieces(part):
                found.update(piece)
                found.update(b"\0")
                size += more
        return {
            "train_images": self.count,
            "test_images": len(self.test),
            "classes": list(self.classes),
            "sha256": found.hexdigest(),
            "bytes": size,
        }

    def preprocessing(self, recipe: Recipe) -> Preprocessing:
        """What the test images go through; nothing is cut off small ones."""
        crop = 1.0 if isinstance(self.test, ImageSet) else recipe.test_crop
        return Preprocessing(recipe.final_size, self.mean, self.std, crop=crop)


def _pieces(images: TrainImages) -> Iterator[tuple[bytes, int]]:
    """What is hashed, and the size of the files."""
    if isinstance(images, Stream):
        yield images.name.encode("utf-8", "surrogateescape"), 0
    elif isinstance(images, ImageSet):
        yield images.images.contiguous().numpy().tobytes(), 0
        yield images.labels.contiguous().numpy().tobytes(), 0
    else:
        root = Path(images.name)
        for index, label in enumerate(images.labels):
            source = images.sources[index]
            if isinstance(source, bytes):
                yield hashlib.sha256(source).digest(), len(source)
            else:
                inside = source.relative_to(root) if source.is_relative_to(root) else source.name
                size = source.stat().st_size if source.is_file() else 0
                yield str(inside).encode("utf-8", "surrogateescape"), size
            yield str(label).encode(), 0


_WANTED = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "flowers5": "the five kinds of flowers",
    "folder": "a folder of images",
    "hub": "a data set of the Hub",
}


def load_data(recipe: Recipe, path: Path | None) -> Data:
    """The data of `recipe`: from the package for the digits, from `path` else."""
    train, test, title = _read(recipe, path)
    own, limit = statistics(recipe.data), recipe.images_per_class
    mean, std = recipe.mean or own[0], recipe.std or own[1]
    channels = len(own[0])
    if len(mean) != channels or len(std) != channels:
        raise ConfigError(
            f"The recipe got mean={mean} and std={std}.",
            f"The images of {title} have {channels} channel{'s' * (channels > 1)}.",
            f'Type for example: --set "mean={(0.5,) * channels}" --set "std={(0.5,) * channels}"',
        )
    _check_labels(test)
    if isinstance(train, Stream):
        count = recipe.stream_images or limit * len(train.classes) or train.length
        if not count:
            raise ConfigError(
                f"{train.name} does not say how many images it has.",
                "An epoch of a stream is so many images.",
                "Type for example: --set stream_images=1281167",
            )
    else:
        _check_labels(train)
        train = train.first(limit) if limit else train
        count = len(train)
    return Data(train, test.first(limit) if limit else test, mean, std, count, title)


def _read(recipe: Recipe, path: Path | None) -> tuple[TrainImages, TestImages, str]:
    """The training images, the test images, and what they are called in records."""
    if recipe.data == "digits":
        return digits.load("train"), digits.load("test"), "scikit-learn digits"
    if path is None:
        what = "name" if recipe.data == "hub" else "folder"
        raise DataError(
            f"The recipe {recipe.name} trains on {_WANTED[recipe.data]}.",
            f"No {what} was given.",
            f"Type: senetzoo train {recipe.name} --data {what.upper()}",
        )
    path = user_path(path)
    if recipe.data in ("cifar10", "cifar100"):
        cifar = CIFAR10 if recipe.data == "cifar10" else CIFAR100
        if path.suffix == ".parquet":
            raise DataError(
                f"{path} is one split of {_WANTED[recipe.data]}.",
                "Training needs both, and the file does not say which it is.",
                "Give the folder that has both, as train*.parquet and test*.parquet",
            )
        return cifar.load(path, "train"), cifar.load(path, "test"), _WANTED[recipe.data]
    if recipe.data == "flowers5":
        return flowers5.load(path, "train"), flowers5.load(path, "test"), recipe.data
    # Of a path only its end: records are read on other machines.
    if recipe.data == "folder":
        return *_folders(path), path.name
    if recipe.stream:
        test = hub.load(path, "test")
        return hub.stream(path, test.classes), test, path.name
    train = hub.load(path, "train")
    return train, hub.load(path, "test", train.classes), path.name


def _folders(path: Path) -> tuple[LabeledFiles, LabeledFiles]:
    if not path.is_dir():
        raise DataError(f"No folder {path}.", "", "Give a folder that has train and test")
    found = next((path / name for name in ("val", "test") if (path / name).is_dir()), None)
    if found is None or not (path / "train").is_dir():
        raise DataError(
            f"{path} has no {'train' if found is not None else 'val or test'} folder.",
            "The network trains on train/<class>/* and is tested on val/<class>/* (or test).",
            "Name the folders so",
        )
    train = read_image_folder(path / "train")
    return train, read_image_folder(found, train.classes)


def _check_labels(images: TestImages) -> None:
    labels = torch.as_tensor(images.labels)
    if not len(labels):
        raise DataError(f"{images.name} has no images.")
    low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < len(images.classes):
        raise DataError(
            f"{images.name} has labels from {low} to {high}.",
            f"There are {len(images.classes)} classes, from 0 to {len(images.classes) - 1}.",
        )
