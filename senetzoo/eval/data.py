"""Data sets whose labels are a network's outputs, read from their local copies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from senetzoo._utils.files import user_path
from senetzoo._utils.terminal import say_once
from senetzoo.data import digits, flowers5
from senetzoo.data.cifar import CIFAR10
from senetzoo.data.files import LabeledFiles, read_image_folder, read_parquet
from senetzoo.data.labels import indices, same
from senetzoo.data.sets import ImageSet
from senetzoo.errors import DataError
from senetzoo.nn.classifier import Classifier

if TYPE_CHECKING:
    from PIL.Image import Image

Images: TypeAlias = ImageSet | LabeledFiles
DIGITS = "digits"
_ARCHIVE = "cifar-10-python.tar.gz"


@dataclass(frozen=True)
class LabeledImages:
    """A data set whose labels are a network's output numbers.

    Args:
        images: The images.
        outputs: For each class of `images`, the number of the network's output that means it.
    """

    images: Images
    outputs: tuple[int, ...]


def batches(
    images: Images, transforms: Callable[[Image | Tensor], Tensor], batch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of what `transforms` makes of images (N, C, H, W), and of the data's labels (N,)."""
    inputs: list[Tensor] = []
    labels: list[int] = []
    for image, label in _pairs(images):
        inputs.append(transforms(image))
        labels.append(label)
        if len(labels) == batch:
            yield torch.stack(inputs), torch.tensor(labels)
            inputs, labels = [], []
    if labels:
        yield torch.stack(inputs), torch.tensor(labels)


def _pairs(images: Images) -> Iterator[tuple[Image | Tensor, int]]:
    if isinstance(images, ImageSet):
        yield from zip(images.images.permute(0, 3, 1, 2), images.labels.tolist(), strict=True)
    else:
        yield from images


def images_for(model: Classifier, where: str) -> LabeledImages:
    """The data set at `where`, as `read_images` takes it, for a network and its classes."""
    report = model.load_report
    return read_images(where, report.classes if report else (), model.num_classes)


def read_images(where: str, classes: Sequence[str], outputs: int) -> LabeledImages:
    """Read a data set from its local copy and match its classes to a network's.

    Args:
        where: ``"digits"`` for scikit-learn's held-out digits; else the path of a parquet file,
            of CIFAR-10 (its archive, or a folder that has it, or ``test`` with its class
            folders), of ``flower_photos`` or what it lies in (its held-out tenth,
            `senetzoo.data.flowers5`), or of a folder of class folders, which may lie under
            ``test``.
        classes: Names of the network's outputs, in their order; empty where they are not known.
            Then classes that are numbers are those outputs, and others count in
            their own order, which is said on stderr.
        outputs: Number of the network's outputs.

    Raises:
        DataError: Nothing there, or classes that are not the network's.
    """
    images, named = _read(where, outputs)
    own = images.classes
    if not classes and all(word.isdecimal() for word in own):
        numbers = tuple(map(int, own))
        if max(numbers) >= outputs:
            raise DataError(
                f"{images.name} has the class {max(numbers)}.",
                f"The network's outputs are 0 to {outputs - 1}.",
                "Give data of these classes",
            )
        return LabeledImages(images, numbers)
    if classes and named:
        by_name = indices(classes)
        unknown = [word for word in own if same(word) not in by_name]
        if unknown:
            raise DataError(
                f"{images.name} has the class {unknown[0]!r}, which the network does not have.",
                f"The network's classes are {', '.join(classes[:10])}"
                f"{' ...' if len(classes) > 10 else ''}.",
                "Give data of these classes, with folders named after them",
            )
        return LabeledImages(images, tuple(by_name[same(word)] for word in own))
    if len(own) != outputs:
        raise DataError(
            f"{images.name} has {len(own)} classes.",
            f"The network has {outputs}, and no names to match them by.",
            "Give data with as many classes",
        )
    if not classes:
        say_once(
            f"The weights name no classes: those of {images.name} are taken in their order, "
            f"{own[0]} for output 0 to {own[-1]} for output {outputs - 1}."
        )
    else:
        images = dataclasses.replace(images, classes=tuple(classes))
    return LabeledImages(images, tuple(range(outputs)))


def _read(where: str, outputs: int) -> tuple[Images, bool]:
    """The images, and whether the classes have names rather than numbers."""
    if where == DIGITS:
        return digits.load("test"), True
    path = user_path(where)
    if path.name == _ARCHIVE and path.is_file():
        path = path.parent
    if (path / "cifar-10-batches-py").is_dir() or (path / _ARCHIVE).is_file():
        return CIFAR10.load(path, "test"), True
    if (path / flowers5.FOLDER).is_dir() or (path.name == flowers5.FOLDER and path.is_dir()):
        return flowers5.load(path, "test"), True
    if path.suffix == ".parquet" and path.is_file():
        files = dataclasses.replace(read_parquet(path), name=path.name)
        named = any(not word.isdecimal() for word in files.classes)
        if not named and len(files.classes) < outputs:
            # Without names in the schema the count is only the highest label that occurs.
            files = dataclasses.replace(files, classes=tuple(map(str, range(outputs))))
        return files, named
    test = path / "test"
    if test.is_dir():
        folders = {entry.name for entry in test.iterdir() if entry.is_dir()}
        if folders == set(CIFAR10.classes):
            return CIFAR10.load(path, "test"), True
        path = test
    if not path.is_dir():
        raise DataError(
            f"No data at {where}.",
            "Data is a folder of class folders, a copy of CIFAR-10 or flower_photos, a parquet "
            "file, or the word digits.",
            "Type for example: digits",
        )
    return read_image_folder(path), True
