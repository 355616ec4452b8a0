"""Classify images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from senetzoo._utils.files import user_path
from senetzoo._utils.terminal import say_once
from senetzoo.data.images import images_in, open_image
from senetzoo.data.labels import listed
from senetzoo.errors import ConfigError, DataError
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.head import NO_CLASSIFIER
from senetzoo.nn.modes import evaluated, finite
from senetzoo.nn.preprocessing import Preprocessing
from senetzoo.nn.transforms import transforms

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    Pixels = Image | Tensor | NDArray[np.uint8] | bytes
    ImageOrPath = Pixels | str | Path


@dataclass(frozen=True)
class Guess:
    """One class that an image may show.

    Args:
        name: Name of the class; ``"class 7"`` if the network's weights have no names.
        label: Index of the class in the network's outputs.
        probability: Probability among all classes, from 0 to 1.
    """

    name: str
    label: int
    probability: float


@dataclass(frozen=True)
class Prediction:
    """A network's prediction for one image.

    Args:
        image: Path of the image, or ``"image 3"`` for the fourth one if it was passed as pixels.
        guesses: The most probable classes, best first; empty if the image can't be read.
        error: Why the image can't be read, in one line; None if it was read.
        rejected: Whether the network isn't confident enough: the best probability is below the
            requested one.
    """

    image: str
    guesses: tuple[Guess, ...] = ()
    error: str | None = None
    rejected: bool = False


def predict(
    model: Classifier,
    images: ImageOrPath | Iterable[ImageOrPath],
    *,
    top: int = 5,
    batch: int = 32,
    preprocessing: Preprocessing | None = None,
    reject: float | Literal["auto"] | None = None,
) -> list[Prediction]:
    """Classify images. Images that can't be read don't stop the others.

    Probabilities use ``model.temperature``, which `senetzoo eval --calibrate` stores.

    Args:
        model: A network of the zoo. It runs in eval mode; its mode and hooks don't change, so
            several threads can use one network.
        images: One or many images: PIL images, uint8 tensors (C, H, W), uint8 arrays (H, W, 3) or
            (H, W), contents of image files, or paths of files or folders; of folders, all image
            files in them and in their subfolders, sorted.
        top: Number of classes to return for each image; all if the network has fewer.
        batch: Number of images in a batch.
        preprocessing: Preprocessing of each image; None for ``senetzoo.transforms(model)``.
        reject: Reject images whose best probability is below this; ``"auto"`` for
            ``model.reject_below``; None to reject none.

    Returns:
        A prediction per image, in the same order.

    Raises:
        ConfigError: `top` or `batch` isn't a positive integer, `reject` isn't a probability, or
            it is ``"auto"`` and the network has none stored.
    """
    for name, value in (("top", top), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"predict can't have {name}={value!r}.", "It is a whole number, > 0.")
    from PIL.Image import Image as PILImage

    # An array or tensor (N, ...) is many images.
    single = isinstance(images, (PILImage, str, Path, bytes)) or getattr(images, "ndim", 4) < 4
    several: Iterable[ImageOrPath] = [images] if single else images  # type: ignore[list-item,assignment]
    least = least_probability(model.reject_below, reject)
    transform = transforms(model) if preprocessing is None else preprocessing
    found = predictions(
        probabilities_of(model), transform, class_names(model), sources(several), top, batch, least
    )
    return [prediction for prediction, _ in found]


def least_probability(stored: float | None, reject: float | str | None) -> float:
    """The probability below which images are rejected.

    Args:
        stored: The probability stored with the network, if any.
        reject: A probability, or ``"auto"`` for the stored one; None to reject none.

    Raises:
        ConfigError: `reject` isn't valid, or is ``"auto"`` and the network has none stored.
    """
    if reject is None:
        return 0.0
    if reject == "auto":
        if stored is None:
            raise ConfigError(
                "The network has no stored probability for rejecting images.",
                "It is chosen so that 99 % of the labeled images at or above it are right.",
                "Type: senetzoo eval FOLDER VALIDATION --calibrate; or set one: --reject 0.8",
            )
        return stored
    if isinstance(reject, (str, bool)) or not 0 <= reject <= 1:
        raise ConfigError(
            f"predict can't have reject={reject!r}.",
            "It is a probability from 0 to 1, or the word auto.",
            "Give for example: 0.8",
        )
    return float(reject)


# Name of an image in messages, and the image or its error.
Source = tuple[str, "Pixels | Path | DataError"]


def sources(images: Iterable[ImageOrPath]) -> Iterator[Source]:
    """Name all images, and replace folders with the images in them."""
    for index, image in enumerate(images):
        if not isinstance(image, (str, Path)):
            yield f"image {index}", image
            continue
        path = user_path(image)
        try:
            files = images_in(path) if path.is_dir() else [path]
        # Null byte, too long, in a locked folder: open_image will raise an error for it.
        except (OSError, ValueError):
            files = [path]
        if not files:
            yield str(path), DataError(f"The folder {path} and its subfolders have no images.")
        for file in files:
            yield str(file), file


def predictions(
    probabilities: Callable[[list[Tensor]], Tensor],
    transform: Callable[[Image | Tensor], Tensor],
    names: tuple[str, ...],
    sources: Iterable[Source],
    top: int,
    batch: int,
    least: float = 0.0,
) -> Iterator[tuple[Prediction, Tensor | None]]:
    """Predict images one by one, with at most `batch` of them in memory.

    Images whose best class is less probable than `least` are rejected. Each prediction comes with
    the transformed image, or None if the image can't be read.

    Args:
        probabilities: Gives the probabilities (N, K) of transformed images.
        transform: Transforms an image.
        names: Names of the classes.
        sources: The images.
        top: Number of classes for each image.
        batch: Images per batch.
        least: The smallest probability that isn't rejected.
    """
    sources = iter(sources)
    while chunk := list(islice(sources, batch)):
        read = [_read(source, transform, names) for _, source in chunk]
        tensors = [result for result in read if isinstance(result, Tensor)]
        guesses = iter(best(probabilities(tensors), top, names) if tensors else [])
        for (name, _), result in zip(chunk, read, strict=True):
            if isinstance(result, Tensor):
                found = next(guesses)
                yield Prediction(name, found, rejected=found[0].probability < least), result
            else:
                yield Prediction(name, error=" ".join(str(result).splitlines())), None


def _read(
    source: Pixels | Path | DataError,
    transform: Callable[[Image | Tensor], Tensor],
    names: Sequence[str],
) -> Tensor | DataError:
    """Turn an image into the network's input, or return the error.

    Says once that a network for gray images gets color ones, and which classes it knows.
    """
    if isinstance(source, DataError):
        return source
    from PIL import Image as PILImage

    try:
        if isinstance(source, (Path, bytes)):
            source = open_image(source)
        elif not isinstance(source, (Tensor, PILImage.Image)):
            try:
                source = PILImage.fromarray(source)
            except (AttributeError, TypeError, ValueError) as error:
                raise DataError(
                    f"Can't use a {type(source).__name__} as an image.",
                    f"{error}.",
                    "Pass a path, the content of a file, a PIL image, a uint8 tensor (C, H, W) "
                    "or a uint8 array (H, W, 3)",
                ) from None
        color = getattr(source, "mode", "") == "RGB"
        if color and isinstance(transform, Preprocessing) and transform.channels == 1:
            size = f"{transform.size}x{transform.size}"
            say_once(f"Color images become gray, {size}; the network knows only {listed(names)}")
        return transform(source)
    except DataError as error:
        return error


def probabilities_of(model: Classifier) -> Callable[[list[Tensor]], Tensor]:
    """A function that gives a network's probabilities (N, K) for transformed images."""
    network, weight = evaluated(model), next(model.parameters())

    def run(inputs: list[Tensor]) -> Tensor:
        with torch.inference_mode():
            images = torch.stack(inputs).to(weight.device, weight.dtype)
            logits = finite(network(images), images)
            return (logits.float() / model.temperature).softmax(1)

    return run


def best(probabilities: Tensor, top: int, names: tuple[str, ...]) -> list[tuple[Guess, ...]]:
    """The `top` most probable classes, or all if there are fewer, of each row of (N, K)."""
    found = probabilities.topk(min(top, probabilities.shape[1]))
    return [
        tuple(Guess(names[k], k, p) for k, p in zip(labels, values, strict=True))
        for labels, values in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    ]


def class_names(model: Classifier) -> tuple[str, ...]:
    """Class names of the network's weights; ``"class 0"`` ... if they have none.

    Raises:
        ConfigError: The network has no classifier.
    """
    if not model.num_classes:
        raise ConfigError(*NO_CLASSIFIER)
    return model.classes or tuple(f"class {k}" for k in range(model.num_classes))
