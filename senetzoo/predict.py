"""Classify images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from senetzoo._utils.files import user_path
from senetzoo.data.images import images_in, open_image
from senetzoo.errors import ConfigError, DataError
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.modes import evaluated, finite
from senetzoo.nn.transforms import transforms

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from senetzoo.nn.preprocessing import Preprocessing

    Pixels = Image | Tensor | NDArray[np.uint8] | bytes
    ImageOrPath = Pixels | str | Path


@dataclass(frozen=True)
class Guess:
    """One class that an image may show.

    Args:
        name: Name of the class; ``"class 7"`` where the network's weights name none.
        label: Its index among the network's outputs.
        probability: From 0 to 1, of all the network's classes.
    """

    name: str
    label: int
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What a network sees in one image.

    Args:
        image: Path of the image, or ``"image 3"`` for the fourth of those given as pixels.
        guesses: The most probable classes, best first; empty for an image that can't be read.
        error: Why it can't be read, in one line; None for an image that was.
        rejected: Whether it shows none of the classes, as far as the network can say: the most
            probable one is less probable than was asked for.
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
    """Classify images. An image that can't be read does not stop the others.

    Probabilities are those at ``model.temperature``, which `senetzoo eval --calibrate` stores.

    Args:
        model: A network of the zoo; it computes in eval mode; its own mode and hooks stay as they
            are, so that several threads can predict with one network.
        images: One image or many: PIL images, uint8 tensors (C, H, W), uint8 arrays (H, W, 3) or
            (H, W), contents of image files, paths of files, or of folders, which stand for the
            image files in them and below, sorted.
        top: How many classes to tell of each image; all where the network has fewer.
        batch: How many images to hold and compute at a time.
        preprocessing: What each image goes through; None takes ``senetzoo.transforms(model)``.
        reject: Probability of the best class below which an image is rejected; ``"auto"`` for
            ``model.reject_below``; None rejects none.

    Returns:
        A prediction per image, in their order.

    Raises:
        ConfigError: `top` or `batch` is no whole number above 0, `reject` no probability, or
            ``"auto"`` for a network that has none stored.
    """
    for name, value in (("top", top), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"predict can't have {name}={value!r}.", "It is a whole number, > 0.")
    from PIL.Image import Image as PILImage

    # An array or tensor (N, ...) is many images: iterating gives each.
    single = isinstance(images, (PILImage, str, Path, bytes)) or getattr(images, "ndim", 4) < 4
    several: Iterable[ImageOrPath] = [images] if single else images  # type: ignore[list-item,assignment]
    least = least_probability(model, reject)
    found = predictions(model, sources(several), top, batch, preprocessing, least)
    return [prediction for prediction, _ in found]


def least_probability(model: Classifier, reject: float | str | None) -> float:
    """The probability below which images are rejected, by what a user asks for.

    Raises:
        ConfigError: It is none, or ``"auto"`` for a network that has none stored.
    """
    if reject is None:
        return 0.0
    if reject == "auto":
        if model.reject_below is None:
            raise ConfigError(
                "The network has no probability stored to reject images by.",
                "It is found on labeled images, of which 99 % at or above it are right.",
                "Type: senetzoo eval FOLDER VALIDATION --calibrate; or give one: --reject 0.8",
            )
        return model.reject_below
    if isinstance(reject, (str, bool)) or not 0 <= reject <= 1:
        raise ConfigError(
            f"predict can't have reject={reject!r}.",
            "It is a probability from 0 to 1, or the word auto.",
            "Type for example: reject=0.8",
        )
    return float(reject)


# An image under the name that messages call it, or why there is none.
Source = tuple[str, "Pixels | Path | DataError"]


def sources(images: Iterable[ImageOrPath]) -> Iterator[Source]:
    """Name each image, with folders replaced by the images in them."""
    for index, image in enumerate(images):
        if not isinstance(image, (str, Path)):
            yield f"image {index}", image
            continue
        path = user_path(image)
        try:
            files = images_in(path) if path.is_dir() else [path]
        # A null byte, too long, below a locked folder: of which open_image tells.
        except (OSError, ValueError):
            files = [path]
        if not files:
            yield str(path), DataError(f"The folder {path} has no images in it or below.")
        for file in files:
            yield str(file), file


def predictions(
    model: Classifier,
    sources: Iterable[Source],
    top: int,
    batch: int,
    preprocessing: Preprocessing | None,
    least: float = 0.0,
) -> Iterator[tuple[Prediction, Tensor | None]]:
    """Predict image by image, with at most `batch` of them in memory.

    Images whose best class is less probable than `least` are rejected.

    With each comes what the network got, (C, H, W); None for an image that can't be read.
    """
    transform = transforms(model) if preprocessing is None else preprocessing
    names = class_names(model)
    network = evaluated(model)
    sources = iter(sources)
    while chunk := list(islice(sources, batch)):
        read = [_read(source, transform) for _, source in chunk]
        tensors = [result for result in read if isinstance(result, Tensor)]
        guesses = iter(_guesses(network, tensors, top, names) if tensors else [])
        for (name, _), result in zip(chunk, read, strict=True):
            if isinstance(result, Tensor):
                found = next(guesses)
                yield Prediction(name, found, rejected=found[0].probability < least), result
            else:
                yield Prediction(name, error=" ".join(str(result).splitlines())), None


def _read(source: Pixels | Path | DataError, transform: Preprocessing) -> Tensor | DataError:
    """Make an image the network's input, or say why it can't be."""
    if isinstance(source, DataError):
        return source
    from PIL import Image as PILImage

    try:
        if isinstance(source, (Path, bytes)):
            return transform(open_image(source))
        if not isinstance(source, (Tensor, PILImage.Image)):
            try:
                source = PILImage.fromarray(source)
            except (AttributeError, TypeError, ValueError) as error:
                raise DataError(
                    f"Can't use a {type(source).__name__} as an image.",
                    f"{error}.",
                    "Give a path, the content of a file, a PIL image, a uint8 tensor (C, H, W) "
                    "or a uint8 array (H, W, 3)",
                ) from None
        return transform(source)
    except DataError as error:
        return error


def _guesses(
    model: Classifier, tensors: list[Tensor], top: int, names: tuple[str, ...]
) -> list[tuple[Guess, ...]]:
    """Guesses for each of some transformed images."""
    weight = next(model.parameters())
    with torch.inference_mode():
        images = torch.stack(tensors).to(weight.device, weight.dtype)
        logits = finite(model(images), images)
        return best((logits.float() / model.temperature).softmax(1), top, names)


def best(probabilities: Tensor, top: int, names: tuple[str, ...]) -> list[tuple[Guess, ...]]:
    """The `top` most probable classes, or all if there are fewer, of each row of (N, K)."""
    found = probabilities.topk(min(top, probabilities.shape[1]))
    return [
        tuple(Guess(names[k], k, p) for k, p in zip(labels, values, strict=True))
        for labels, values in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    ]


def class_names(model: Classifier) -> tuple[str, ...]:
    """What the network's weights call their classes; ``"class 0"`` ... where they don't."""
    return model.classes or tuple(f"class {k}" for k in range(model.num_classes))
