"""The accuracy of networks with trained weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from senetzoo._utils.terminal import columns
from senetzoo.errors import ConfigError, DataError, SenetzooError
from senetzoo.eval.data import LabeledImages, batches, images_for
from senetzoo.eval.predictions import Predictions, Tally
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.modes import evaluated, finite
from senetzoo.nn.transforms import transforms

if TYPE_CHECKING:
    from PIL.Image import Image

_TOP = 5


@dataclass(frozen=True)
class Evaluation:
    """What one network says of a data set.

    Args:
        model: Its name.
        weights: Tag of its weights, or their file.
        dtype: Type it computed in.
        data: The images.
        predictions: For these.
    """

    model: str
    weights: str
    dtype: str
    data: LabeledImages
    predictions: Predictions

    @property
    def top5(self) -> Tally | None:
        """Of all images; None where five outputs are all that the network has."""
        outputs = self.predictions.logits.shape[1]
        return self.predictions.top(_TOP) if outputs > _TOP else None

    def classes(self) -> list[Tally]:
        """Of each class of the data."""
        pairs, images = self.predictions.by_class(), self.data.images
        return [
            Tally(name, *pairs[output])
            for name, output in zip(images.classes, self.data.outputs, strict=True)
        ]

    def as_dict(self) -> dict[str, object]:
        """JSON values, with the classes."""
        top5 = self.top5
        return {
            "model": self.model,
            "weights": self.weights,
            "data": self.data.images.name,
            "dtype": self.dtype,
            **self.predictions.top(1).as_dict(),
            "top5": None if top5 is None else top5.as_dict(),
            "classes": [{"name": tally.name, **tally.as_dict()} for tally in self.classes()],
        }

    def __str__(self) -> str:
        """A table with a row for all images and one for each class."""
        rows = [["class", "images", "accuracy [95 % interval, Wilson]"]]
        whole = {"all": self.predictions.top(1), "all, top-5": self.top5}
        rows += [[name, str(t.total), str(t)] for name, t in whole.items() if t is not None]
        rows += [[tally.name, str(tally.total), str(tally)] for tally in self.classes()]
        title = f"{self.model} ({self.weights}) on {self.data.images.name}, {self.dtype}"
        return "\n".join([title, *columns(rows)])


def evaluate(
    model: nn.Module,
    data: str | Path | LabeledImages,
    preprocessing: Callable[[Image | Tensor], Tensor] | None = None,
    *,
    batch: int = 64,
    advance: Callable[[int], None] = lambda images: None,
) -> Predictions:
    """Run `model` over labeled images, in eval mode, on its device and in its dtype.

    Its own mode stays as it is, so that several threads can do so with one network.

    ``evaluate(load("lenet5"), "digits").top(1)`` is the accuracy with its 95 % interval.

    Args:
        model: Takes (N, C, H, W) and gives logits (N, outputs).
        data: The images; or for a network of this zoo where they are, as `read_images` takes it.
        preprocessing: Makes the network's input of a PIL image or a uint8 (C, H, W) tensor; None
            for that of `senetzoo.transforms`.
        batch: Images in a batch.
        advance: Called after each batch with its number of images; a progress bar's tick.

    Raises:
        ConfigError: A network of another library without `data` and `preprocessing` of its own.
        DataError: There are no images, one can't be read, or the classes are not the network's.
        WeightsError: Logits are not finite.
    """
    if preprocessing is None or not isinstance(data, LabeledImages):
        if not isinstance(model, Classifier):
            raise ConfigError(
                f"evaluate got a {type(model).__name__}.",
                "Classes and preprocessing are known of networks made by senetzoo.create alone.",
                "Give data as senetzoo.eval.data.LabeledImages, and preprocessing",
            )
        preprocessing = preprocessing or transforms(model)
        data = data if isinstance(data, LabeledImages) else images_for(model, str(data))
    if not len(data.images):
        raise DataError(f"{data.images.name} has no images.", "", "Give other data")
    like = next(iter(model.parameters()), torch.empty(0))
    logits, classes = [], []
    network = evaluated(model)
    with torch.inference_mode():
        for images, labels in batches(data.images, preprocessing, batch):
            images = images.to(like.device, like.dtype)
            logits.append(finite(network(images), images).float().cpu())
            classes.append(labels)
            advance(len(labels))
    return Predictions(torch.cat(logits), torch.tensor(data.outputs)[torch.cat(classes)])


@contextlib.contextmanager
def failures_explained(name: str, image: tuple[int, int, int], batch: int) -> Iterator[None]:
    """Turn the failure of a forward pass into a `ConfigError` with the shape and its words."""
    try:
        yield
    except SenetzooError:
        raise  # the network's own words, or those of the images' reader, are better
    except Exception as error:  # a library's network may check its images with whatever it likes
        shape = "x".join(map(str, (batch, *image)))
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"{name} fails on images of shape {shape}.",
            f"{'torch' if isinstance(error, RuntimeError) else 'Its code'} says: {said[0]}",
            "Give another size or a smaller batch: --size 224 --batch 8",
        ) from error
