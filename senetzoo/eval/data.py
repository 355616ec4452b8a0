"""Data sets whose labels are a network's outputs, read from their local copies."""

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
from senetzoo.data.sets import ImageSet, Split
from senetzoo.data.split import Images
from senetzoo.errors import DataError
from senetzoo.eval.fetch import local
from senetzoo.nn.classifier import Classifier

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class LabeledImages:
    """A data set whose labels are a network's output numbers.

    Args:
        images: The images.
        outputs: For each class of `images`, the number of the network's output that means it.
        left_out: The files that can't be read, and are not among `images`.
    """

    images: Images
    outputs: tuple[int, ...]
    left_out: tuple[Problem, ...] = ()


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


def images_for(model: Classifier, where: str, part: Split | None = None) -> LabeledImages:
    """The data set at `where`, as `read_images` takes it, for a network and its classes."""
    return read_images(where, model.classes, model.num_classes, part)


def read_images(
    where: str, classes: Sequence[str], outputs: int, part: Split | None = None
) -> LabeledImages:
    """Read a data set from its local copy and match its classes to a network's.

    Files that can't be read are left out, and named on stderr.

    Args:
        where: As `senetzoo.data.open` takes it, or the words ``cifar10`` and ``cifar100``, which
            are fetched.
        classes: Names of the network's outputs, in their order; empty where they are not known.
            Then classes that are numbers are those outputs, and others count in
            their own order, which is said on stderr.
        outputs: Number of the network's outputs.
        part: Which of a source with splits; None for the test part, or where it has none,
            ``val``; else all of it.

    Raises:
        DataError: Nothing there, no such part, or classes that are not the network's.
    """
    images, bad = readable(sources.open(local(where), part))
    for problem in bad:
        say_once(f"left out: {problem.file}: {problem.detail}")
    own = images.classes
    numbered = isinstance(images, LabeledFiles) and images.numbered
    if numbered and len(own) < outputs:
        # Without names the count is only the highest label that occurs.
        own = tuple(map(str, range(outputs)))
        images = dataclasses.replace(images, classes=own)
    if not classes and all(word.isdecimal() for word in own):
        numbers = tuple(map(int, own))
        if max(numbers) >= outputs:
            raise DataError(
                f"{images.name} has the class {max(numbers)}.",
                f"The network's outputs are 0 to {outputs - 1}.",
                "Give data of these classes",
            )
        return LabeledImages(images, numbers, bad)
    if classes and not numbered:
        return LabeledImages(images, positions(own, classes, images.name, "the network"), bad)
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
    return LabeledImages(images, tuple(range(outputs)), bad)
