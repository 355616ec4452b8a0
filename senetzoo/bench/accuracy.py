"""Top-1 accuracy with its interval, over all images and per class."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

from senetzoo.data import cifar10, digits, flowers5
from senetzoo.data.files import LabelledFiles, read_image_folder, read_parquet
from senetzoo.data.sets import ImageSet
from senetzoo.errors import DataError
from senetzoo.nn.classifier import finite

if TYPE_CHECKING:
    from PIL.Image import Image

Images: TypeAlias = ImageSet | LabelledFiles
DIGITS = "digits"
_ARCHIVE = "cifar-10-python.tar.gz"


def wilson(right: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (JASA 22, 1927, 209-212).

    Unlike ``p +- 1.96 sqrt(p (1 - p) / n)`` it stays within 0..1 and has a width at 0 and at 1.

    Args:
        right: Successes.
        total: Trials; 0 gives (0, 1).
        confidence: Coverage of the two-sided interval.

    Returns:
        Lower and upper limit.
    """
    if not total:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = right / total
    centre = p + z * z / (2 * total)
    half = z * (p * (1 - p) / total + z * z / (4 * total * total)) ** 0.5
    scale = 1 + z * z / total
    # At 0 and at 1 rounding would leave the limit a hair off.
    low = 0.0 if right == 0 else (centre - half) / scale
    high = 1.0 if right == total else (centre + half) / scale
    return low, high


@dataclass(frozen=True)
class Tally:
    """How many images of a kind were classified rightly.

    Args:
        name: Of the class, or of the whole data set.
        right: Images whose highest logit is their class.
        total: Images.
    """

    name: str
    right: int
    total: int

    @property
    def accuracy(self) -> float:
        """Fraction that is right; 0 without images."""
        return self.right / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy."""
        return wilson(self.right, self.total)


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on a data set: of all images, and of each class of the data."""

    whole: Tally
    classes: tuple[Tally, ...]


@dataclass(frozen=True)
class LabelledImages:
    """A data set whose labels are a network's output numbers.

    Args:
        name: What the data is.
        images: The images.
        outputs: For each class of `images`, the number of the network's output that means it.
    """

    name: str
    images: Images
    outputs: tuple[int, ...]


def accuracy(
    model: nn.Module,
    data: LabelledImages,
    transforms: Callable[[Image | Tensor], Tensor],
    *,
    batch: int = 64,
    advance: Callable[[int], None] = lambda images: None,
) -> Accuracy:
    """Evaluate `model`, in eval mode, on its device and in its dtype.

    Args:
        model: Takes (N, C, H, W) and gives logits (N, outputs).
        data: The images.
        transforms: Makes the network's input of a PIL image or a uint8 (C, H, W) tensor.
        batch: Images in a batch.
        advance: Called after each batch with its number of images; a progress bar's tick.

    Raises:
        DataError: An image can't be read.
    """
    like = next(iter(model.parameters()), torch.empty(0))
    outputs = torch.tensor(data.outputs)
    count = len(data.images.classes)
    right, total = torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.long)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for images, labels in batches(data.images, transforms, batch):
                images = images.to(like.device, like.dtype)
                logits = finite(model(images), images)
                hit = logits.argmax(1).cpu() == outputs[labels]
                right += labels[hit].bincount(minlength=count)
                total += labels.bincount(minlength=count)
                advance(len(labels))
    finally:
        model.train(was_training)
    tallies = zip(data.images.classes, right.tolist(), total.tolist(), strict=True)
    return Accuracy(
        Tally(data.name, int(right.sum()), int(total.sum())),
        tuple(Tally(*tally) for tally in tallies),
    )


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


def read_images(where: str, classes: Sequence[str], outputs: int) -> LabelledImages:
    """Read a data set from its local copy and match its classes to a network's.

    Args:
        where: ``"digits"`` for scikit-learn's held-out digits; else the path of a parquet file,
            of CIFAR-10 (its archive, or a folder that has it, or ``test`` with its class
            folders), of ``flower_photos`` or what it lies in (its held-out tenth,
            `senetzoo.data.flowers5`), or of a folder of class folders, which may lie under
            ``test``.
        classes: Names of the network's outputs, in their order; empty where they are not known.
            Then the classes of the data count in their own order.
        outputs: Number of the network's outputs.

    Raises:
        DataError: Nothing there, or classes that are not the network's.
    """
    name, images, named = _read(where, outputs)
    own = images.classes
    if classes and named:
        unknown = [word for word in own if word not in classes]
        if unknown:
            raise DataError(
                f"{name} has the class {unknown[0]!r}, which the network does not have.",
                f"The network's classes are {', '.join(classes[:10])}"
                f"{' ...' if len(classes) > 10 else ''}.",
                "Give data of these classes, with folders named after them",
            )
        return LabelledImages(name, images, tuple(classes.index(word) for word in own))
    if len(own) != outputs:
        raise DataError(
            f"{name} has {len(own)} classes.",
            f"The network has {outputs}, and no names to match them by.",
            "Give data with as many classes",
        )
    if classes:
        images = dataclasses.replace(images, classes=tuple(classes))
    return LabelledImages(name, images, tuple(range(outputs)))


def _read(where: str, outputs: int) -> tuple[str, Images, bool]:
    """Name, images, and whether the classes have names rather than numbers."""
    if where == DIGITS:
        held_out = digits.load("test")
        return held_out.name, held_out, True
    path = Path(where).expanduser()
    if path.name == _ARCHIVE and path.is_file():
        path = path.parent
    if (path / "cifar-10-batches-py").is_dir() or (path / _ARCHIVE).is_file():
        official = cifar10.load(path, "test")
        return official.name, official, True
    if (path / flowers5.FOLDER).is_dir() or (path.name == flowers5.FOLDER and path.is_dir()):
        flowers = flowers5.load(path, "test")
        return flowers.name, flowers, True
    if path.suffix == ".parquet" and path.is_file():
        files = read_parquet(path)
        named = any(not word.isdecimal() for word in files.classes)
        if not named and len(files.classes) < outputs:
            # Without names in the schema the count is only the highest label that occurs.
            files = dataclasses.replace(files, classes=tuple(map(str, range(outputs))))
        return path.name, files, named
    test = path / "test"
    if test.is_dir():
        folders = {entry.name for entry in test.iterdir() if entry.is_dir()}
        if folders == set(cifar10.CLASSES):
            official = cifar10.load(path, "test")
            return official.name, official, True
        path = test
    if not path.is_dir():
        raise DataError(
            f"No data at {where}.",
            "Data is a folder of class folders, a copy of CIFAR-10 or flower_photos, a parquet "
            "file, or the word digits.",
            "Type for example: --accuracy digits",
        )
    return str(path), read_image_folder(path), True
