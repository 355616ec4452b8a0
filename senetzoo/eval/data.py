"""Data sets whose labels are matched to a network's outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from senetzoo._utils.terminal import say_once
from senetzoo.data import sources
from senetzoo.data.files import LabeledFiles
from senetzoo.data.labels import positions
from senetzoo.data.scan import Problem, readable
from senetzoo.data.sets import Split
from senetzoo.data.split import Images
from senetzoo.errors import ConfigError, DataError
from senetzoo.eval.fetch import local
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.head import NO_CLASSIFIER

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class LabeledImages:
    """A data set whose classes are matched to a network's outputs.

    Args:
        images: The images.
        outputs: Index of the network's output for each class of `images`.
        left_out: Files that can't be read, and aren't among `images`.
    """

    images: Images
    outputs: tuple[int, ...]
    left_out: tuple[Problem, ...] = ()


def batches(
    images: Images, transforms: Callable[[Image | Tensor], Tensor], batch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of transformed images (N, C, H, W) and their labels (N,)."""
    inputs: list[Tensor] = []
    labels: list[int] = []
    for image, label in images:
        inputs.append(transforms(image))
        labels.append(label)
        if len(labels) == batch:
            yield torch.stack(inputs), torch.tensor(labels)
            inputs, labels = [], []
    if labels:
        yield torch.stack(inputs), torch.tensor(labels)


def images_for(model: Classifier, where: str, part: Split | None = None) -> LabeledImages:
    """The data set at `where`, as in `read_images`, for a network."""
    return read_images(where, model.classes, model.num_classes, part)


def read_images(
    where: str, classes: Sequence[str], outputs: int, part: Split | None = None
) -> LabeledImages:
    """Read a data set and match its classes to a network's.

    Files that can't be read are left out, and reported on stderr.

    Args:
        where: As in `senetzoo.data.open`, or ``cifar10`` or ``cifar100``, which are downloaded.
        classes: Names of the network's outputs, in their order; empty if not known. Then classes
            that are numbers are the outputs with these numbers, and other classes are the outputs
            in order, which is reported on stderr.
        outputs: Number of the network's outputs.
        part: The split; None for the test split, or if there is none, ``val``, or else all.

    Raises:
        DataError: The data or the split is missing, or the classes don't match the network's.
        ConfigError: The network has no outputs.
    """
    if not outputs:
        raise ConfigError(*NO_CLASSIFIER)
    images, bad = readable(sources.open(local(where), part, allow_empty=True))
    for problem in bad:
        say_once(f"left out: {problem.file}: {problem.detail}")
    own = images.classes
    numbered = isinstance(images, LabeledFiles) and images.numbered
    if numbered and len(own) < outputs:
        # Without names, the number of classes is only known from the highest label.
        own = tuple(map(str, range(outputs)))
        images = dataclasses.replace(images, classes=own)
    if not classes and all(word.isdecimal() for word in own):
        numbers = tuple(map(int, own))
        if max(numbers) >= outputs:
            raise DataError(
                f"{images.name} has the class {max(numbers)}.",
                f"The network's outputs are 0 to {outputs - 1}.",
                "Give data with these classes",
            )
        return LabeledImages(images, numbers, bad)
    if classes and not numbered:
        return LabeledImages(images, positions(own, classes, images.name, "the network"), bad)
    if len(own) != outputs:
        raise DataError(
            f"{images.name} has {len(own)} classes.",
            f"The network has {outputs}, without names to match them by.",
            "Give data with the same number of classes",
        )
    if not classes:
        say_once(
            f"The weights have no class names: those of {images.name} are used in their order, "
            f"{own[0]} for output 0 to {own[-1]} for output {outputs - 1}."
        )
    else:
        images = dataclasses.replace(images, classes=tuple(classes))
    return LabeledImages(images, tuple(range(outputs)), bad)
