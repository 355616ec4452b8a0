"""The data of a recipe, with the statistics to normalize it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

from senetzoo._utils.environment import launched
from senetzoo._utils.files import user_path
from senetzoo._utils.terminal import counted, echo
from senetzoo.data import hub, sources
from senetzoo.data.files import LabeledFiles, StoredImages
from senetzoo.data.hub import Stream
from senetzoo.data.images import say_left_out
from senetzoo.data.sets import ImageSet, said_of_parent
from senetzoo.data.split import Images
from senetzoo.errors import ConfigError, DataError
from senetzoo.eval.fetch import fetch, local
from senetzoo.nn.preprocessing import Preprocessing
from senetzoo.runs import statistics
from senetzoo.train.recipe import Recipe

TrainImages: TypeAlias = Images | Stream


@dataclass(frozen=True)
class Data:
    """A data set with the statistics to normalize it.

    Args:
        train: The training images: in memory, in files, or a stream.
        test: The images that the result is of; if test images are missing or for `eval` only, those
            of `validation`.
        mean: Mean of each channel, in units of the full range.
        std: Standard deviation of each channel, in units of the full range.
        count: Training images in an epoch.
        title: Name of the data, for records.
        validation: The images that epochs are tested on; None if these are the test images.
    """

    train: TrainImages
    test: Images
    mean: tuple[float, ...]
    std: tuple[float, ...]
    count: int
    title: str
    validation: Images | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.test.classes

    @property
    def channels(self) -> int:
        """Number of channels of an image."""
        return len(self.mean)

    def class_weights(self) -> torch.Tensor:
        """Weight of each class in the loss (classes,), so that all classes count equally."""
        if isinstance(self.train, Stream):
            raise ConfigError(
                f"{self.train.name} is a stream.",
                "The number of images in each class isn't known in advance.",
                "Type for example: --set stream=false",
            )
        labels = torch.as_tensor(self.train.labels)
        counts = labels.bincount(minlength=len(self.classes)).clamp(min=1)
        return len(labels) / (len(self.classes) * counts)

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """Classes, counts and a hash that identify the data in records.

        The hash is of the pixels for images in memory, of the file names for files (``bytes`` is
        their total size), and of the name for a stream, which isn't read in advance.
        """
        found, size = hashlib.sha256(), 0
        parts: list[TrainImages] = [self.train, self.test]
        if self.validation is not None and self.validation is not self.test:
            parts.append(self.validation)
        for part in parts:
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
        """Preprocessing of the test images; small ones aren't cropped."""
        crop = 1.0 if isinstance(self.test, ImageSet) else recipe.test_crop
        return Preprocessing(recipe.final_size, self.mean, self.std, crop=crop)


def _pieces(images: TrainImages) -> Iterator[tuple[bytes | memoryview, int]]:
    """Pieces to hash, with sizes of files."""
    if isinstance(images, Stream):
        yield images.name.encode("utf-8", "surrogateescape"), 0
    elif isinstance(images, ImageSet):
        yield images.images.contiguous().numpy().data, 0
        yield images.labels.contiguous().numpy().data, 0
    else:
        stored = isinstance(images.sources, StoredImages)
        for index, (label, size) in enumerate(zip(images.labels, images.sizes(), strict=True)):
            source = None if stored else images.sources[index]
            if isinstance(source, bytes):
                yield hashlib.sha256(source).digest(), size
            else:
                yield images.file_name(index).encode("utf-8", "surrogateescape"), size
            yield str(label).encode(), 0


_WANTED = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "flowers5": "the five kinds of flowers",
    "digits": "scikit-learn digits",
    "folder": "a folder of images",
    "hub": "a data set of the Hub",
}


def load_data(recipe: Recipe, path: Path | None) -> Data:
    """Load the data of `recipe` from `path`; digits come from scikit-learn, CIFAR is fetched."""
    if path is not None and launched("RANK", 0) == 0:
        echo(f"reading the images in {path}", err=True)
    return make_data(recipe, *_read(recipe, path))


def make_data(
    recipe: Recipe,
    train: TrainImages,
    test: Images,
    title: str,
    validation: Images | None = None,
) -> Data:
    """Make `Data` from images.

    Raises:
        ConfigError: The recipe's statistics have the wrong number of channels, or the length of a
            stream is unknown.
        DataError: There are no images, or a label is out of range.
    """
    own, limit = statistics(recipe.data), recipe.images_per_class
    mean, std = recipe.mean or own[0], recipe.std or own[1]
    channels = len(own[0])
    if len(mean) != channels or len(std) != channels:
        raise ConfigError(
            f"The recipe got mean={mean} and std={std}.",
            f"The images of {title} have {counted(channels, 'channel')}.",
            f'Type for example: --set "mean={(0.5,) * channels}" --set "std={(0.5,) * channels}"',
        )
    _check_labels(test)
    if isinstance(train, Stream):
        count = recipe.stream_images or limit * len(train.classes) or train.length
        if not count:
            raise ConfigError(
                f"{train.name} doesn't state how many images it has.",
                "The length of an epoch is needed.",
                "Type for example: --set stream_images=1281167",
            )
    else:
        _check_labels(train)
        train = train.first(limit) if limit else train
        count = len(train)
    parts = [test] if validation is None or validation is test else [test, validation]
    parts = [part.first(limit) if limit else part for part in parts]
    held = None if validation is None else parts[-1]
    return Data(train, parts[0], mean, std, count, title, held)


def _read(recipe: Recipe, path: Path | None) -> tuple[TrainImages, Images, str, Images | None]:
    """Training images, test images, their name in records, and validation images."""
    word = None if path is None else sources.named(path)
    if recipe.data == "digits":
        if path is not None and word != "digits":
            raise ConfigError(
                f"The recipe {recipe.name} trains on {_WANTED['digits']}, not on {path}.",
                "They come with that library.",
                f"Leave out --data. For your own images, type: senetzoo finetune {path}",
            )
        path = Path("digits")
    elif word not in (None, recipe.data) and recipe.data != "hub":
        other = recipe.data in sources.CIFAR and word in sources.CIFAR
        raise ConfigError(
            f"The recipe {recipe.name} trains on {_WANTED[recipe.data]}, not on {path}.",
            f"{path} is the name of another data set, and there is no such path.",
            f"Add --set data={word}" if other else "Give the path of its data",
        )
    elif path is None and recipe.data in sources.CIFAR:
        path = fetch(sources.CIFAR[recipe.data])
    elif path is None:
        what = "name" if recipe.data == "hub" else "folder"
        raise DataError(
            f"The recipe {recipe.name} trains on {_WANTED[recipe.data]}.",
            f"No {what} was given.",
            f"Type --data {what.upper()}",
        )
    elif recipe.data in sources.CIFAR and path.suffix == ".parquet":
        raise DataError(
            f"{path} is one split of {_WANTED[recipe.data]}.",
            "Training needs both, and the file doesn't say which one it is.",
            "Give the folder that has both, as train*.parquet and test*.parquet",
        )
    if recipe.data in sources.CIFAR:
        path = Path(local(path))
    if recipe.data == "hub":
        path = Path(str(path).removeprefix(sources.HUB))
    # Only the last part of a path, because records are read on other machines.
    titles = {"flowers5": "flowers5", "folder": path.name, "hub": path.name}
    title = titles.get(recipe.data) or _WANTED[recipe.data]
    if recipe.stream:
        there = hub.splits(path)
        test = hub.load(path, "val" if "val" in there else "test")
        held = test if "val" in there or _chooses(recipe) else None
        return hub.stream(path, test.classes), test, title, held
    parts = sources.open_splits(path, kind=_kind(recipe, path))
    if _chooses(recipe):
        parts = sources.with_val(parts, recipe.held_out or 0.1)
    # Use test images only at the end if there are validation images.
    held_out = parts.get("val", parts.get("test"))
    if recipe.data == "hub" and held_out is None:
        held_out = hub.load(path, "test")  # raises an error that says what is missing
    if held_out is None or "train" not in parts:
        missing = "train and val" if "all" in parts else "train" if held_out else "val or test"
        if user_path(path).is_file():
            raise DataError(
                f"{path} has no rows with the split {missing}.",
                "The column split says which rows are train, val or test.",
                "Add it, or these rows",
            )
        above = said_of_parent(path)
        raise DataError(
            f"{path} has no {missing} folder.",
            above
            or "The network trains on train/<class>/* and is tested on val/<class>/* (or test).",
            f"Give {path.parent}" if above else "Rename the folders accordingly",
        )
    for images in (parts["train"], held_out):
        if isinstance(images, LabeledFiles) and images.root is not None:
            say_left_out(images.root, images.left_out)
    tested = parts.get("test", held_out) if _chooses(recipe) else held_out
    return parts["train"], tested, title, parts.get("val")


def _chooses(recipe: Recipe) -> bool:
    """Whether an epoch is selected, for which test images must not be used."""
    return recipe.keep == "best" or recipe.held_out > 0


def _kind(recipe: Recipe, path: Path) -> sources.Kind:
    if recipe.data != "folder":
        return recipe.data
    if not user_path(path).exists():
        raise DataError(f"There is no folder {path}.", "", "Give a folder with train and test")
    return "csv" if user_path(path).is_file() else "folder"


def _check_labels(images: Images) -> None:
    labels = torch.as_tensor(images.labels)
    if not len(labels):
        raise DataError(f"{images.name} has no images.")
    low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < len(images.classes):
        raise DataError(
            f"{images.name} has labels from {low} to {high}.",
            f"There are {len(images.classes)} classes, from 0 to {len(images.classes) - 1}.",
        )
