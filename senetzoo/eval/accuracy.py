"""The accuracy of networks with trained weights."""

from __future__ import annotations

import contextlib
import dataclasses
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from senetzoo._utils.terminal import columns, cut
from senetzoo.errors import ConfigError, DataError, SenetzooError
from senetzoo.eval.data import LabeledImages, batches, images_for
from senetzoo.eval.predictions import ClassScore, Predictions, Scores, Tally
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.modes import evaluated, finite
from senetzoo.nn.provenance import checksums
from senetzoo.nn.transforms import transforms

if TYPE_CHECKING:
    from PIL.Image import Image

_TOP = 5
# What is printed: cells of a class's name, classes, outputs of a confusion matrix, mistakes.
_NAME, _CLASSES, _MATRIX, _WRONG = 24, 20, 10, 10


@dataclass(frozen=True)
class Mistake:
    """An image that is classified wrongly.

    Args:
        path: Its file, or a name for an image that is no file.
        label: Its class.
        predicted: What it is taken for.
        probability: Of that.
    """

    path: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Evaluation:
    """What one network says of a data set. Print it, or take ``as_dict()`` or ``rows()``.

    Args:
        model: Its name.
        weights: Tag of its weights, or their file.
        dtype: Type it computed in.
        data: The images.
        predictions: For these.
        names: Of the network's outputs; empty where its weights do not say.
        flipped: Whether each image's logits are averaged with those of its mirror image.
    """

    model: str
    weights: str
    dtype: str
    data: LabeledImages
    predictions: Predictions
    names: tuple[str, ...] = ()
    flipped: bool = False

    @property
    def top5(self) -> Tally | None:
        """Of all images; None where five outputs are all that the network has."""
        outputs = self.predictions.logits.shape[1]
        return self.predictions.top(_TOP) if outputs > _TOP else None

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Name of each output: the weights' word, else that of the data's class."""
        known = dict(zip(self.data.outputs, self.data.images.classes, strict=True))
        known = dict(enumerate(self.names)) or known
        return tuple(known.get(k, f"class {k}") for k in range(self.predictions.logits.shape[1]))

    def classes(self) -> list[ClassScore]:
        """Of each class of the data, in its order."""
        found, images = self.predictions.class_scores(), self.data.images
        return [
            dataclasses.replace(found[k], tally=dataclasses.replace(found[k].tally, name=name))
            for name, k in zip(images.classes, self.data.outputs, strict=True)
        ]

    def mistakes(self) -> list[Mistake]:
        """Every image that is classified wrongly, the most confident mistake first."""
        found = self.predictions
        return [
            Mistake(
                self.data.images.source_name(index),
                self.outputs[int(found.labels[index])],
                self.outputs[int(found.guesses[index])],
                float(found.confidence[index]),
            )
            for index in found.worst(len(found.labels))
        ]

    def rows(self) -> Iterator[dict[str, object]]:
        """For each image what was made of it, under the names of a table's columns."""
        found = self.predictions
        own = found.probabilities.gather(1, found.labels[:, None])[:, 0]
        for index, (label, guess) in enumerate(
            zip(found.labels.tolist(), found.guesses.tolist(), strict=True)
        ):
            yield {
                "path": self.data.images.source_name(index),
                "label": self.outputs[label],
                "predicted": self.outputs[guess],
                "probability": round(float(found.confidence[index]), 6),
                "label_probability": round(float(own[index]), 6),
                "right": int(guess == label),
            }

    def as_dict(self) -> dict[str, object]:
        """JSON values, with the classes, the confusion matrix, and every mistake."""
        top5 = self.top5
        return {
            "model": self.model,
            "weights": self.weights,
            "data": self.data.images.name,
            "dtype": self.dtype,
            "flipped": self.flipped,
            **self.predictions.top(1).as_dict(),
            "top5": None if top5 is None else top5.as_dict(),
            **_rounded(self.predictions.scores()),
            "classes": [score.as_dict() for score in self.classes()],
            "confusion": {
                "outputs": list(self.outputs),
                "matrix": self.predictions.confusion().tolist(),
            },
            "mistakes": [_rounded(mistake) for mistake in self.mistakes()],
            "left_out": [dataclasses.asdict(problem) for problem in self.data.left_out],
        }

    def __str__(self) -> str:
        """Tables of at most 80 columns: all images, each class, what is confused, what is wrong."""
        parts = [self._whole(), self._classes()]
        parts += [self._confusion()] if len(self.outputs) <= _MATRIX else []
        return "\n\n".join("\n".join(part) for part in [*parts, self._wrong()] if part)

    def _whole(self) -> list[str]:
        scores, top5, total = self.predictions.scores(), self.top5, len(self.predictions.labels)
        best = scores.best_temperature
        rows = [["top-1", str(self.predictions.top(1)), f"of {total} images; 95 %, Wilson"]]
        left_out = len(self.data.left_out)
        rows += [["left out", str(left_out), "can't be read"]] if left_out else []
        rows += [] if top5 is None else [["top-5", str(top5), ""]]
        rows += [
            ["balanced accuracy", f"{scores.balanced_accuracy:.2%}", "macro recall"],
            ["macro precision", f"{scores.macro_precision:.2%}", ""],
            ["macro F1", f"{scores.macro_f1:.2%}", ""],
            ["loss", f"{scores.loss:.4f}", "cross-entropy"],
            ["calibration error", f"{scores.calibration_error:.2%}", "ECE, 15 equal bins"],
            ["temperature", f"{scores.temperature:.3g}", "used"],
            ["", "-" if best is None else f"{best:.3g}", "would fit these images best"],
        ]
        flips = ", averaged with mirror images" * self.flipped
        title = f"{self.model} ({self.weights}) on {self.data.images.name}, {self.dtype}{flips}"
        return [title, *columns(rows, left=3)]

    def _classes(self) -> list[str]:
        """The classes, those of the lowest accuracy first."""
        found = [score for score in self.classes() if score.tally.total]
        found.sort(key=lambda score: score.tally.accuracy)
        rows = [["class", "images", "recall [95 %]", "precision", "F1"]]
        rows += [
            [
                cut(score.tally.name, _NAME),
                str(score.tally.total),
                str(score.tally),
                f"{score.precision:.2%}",
                f"{score.f1:.2%}",
            ]
            for score in found[:_CLASSES]
        ]
        return [*columns(rows), *_more(len(found) - _CLASSES, "classes that are better: --json")]

    def _confusion(self) -> list[str]:
        """Images by their class (rows) and what they are predicted as (columns)."""
        matrix = self.predictions.confusion()
        letters = string.ascii_uppercase[: len(self.outputs)]
        rows = [["", "class \\ predicted", *letters]]
        rows += [
            [letter, cut(name, _NAME), *map(str, counts)]
            for letter, name, counts in zip(letters, self.outputs, matrix.tolist(), strict=True)
        ]
        return columns(rows, left={1})

    def _wrong(self) -> list[str]:
        """The most confident mistakes."""
        wrong = self.mistakes()
        if not wrong:
            return ["no image is wrong"]
        shown = [
            [f"{m.probability:.1%}", cut(m.predicted, _NAME // 2), cut(m.label, _NAME // 2)]
            for m in wrong[:_WRONG]
        ]
        lines = columns([["sure", "predicted", "class"], *shown], left={1, 2})
        width = max(map(len, lines)) + 2
        paths = ["file", *(cut(m.path, 80 - width, keep_end=True) for m in wrong[:_WRONG])]
        lines = [f"{line:<{width}}{path}" for line, path in zip(lines, paths, strict=True)]
        head = f"wrong: {len(wrong)} of {len(self.predictions.labels)} images, the surest first"
        return [head, *lines, *_more(len(wrong) - _WRONG, "wrong images: senetzoo eval --csv FILE")]


def _rounded(found: Scores | Mistake) -> dict[str, object]:
    """JSON values without the digits that change with the size of a batch."""
    values = dataclasses.asdict(found).items()
    return {name: round(v, 6) if isinstance(v, float) else v for name, v in values}


def _more(count: int, what: str) -> list[str]:
    return [f"... {count} more {what}"] if count > 0 else []


def evaluate(
    model: nn.Module,
    data: str | Path | LabeledImages,
    preprocessing: Callable[[Image | Tensor], Tensor] | None = None,
    *,
    batch: int = 64,
    tta: bool = False,
    advance: Callable[[int], None] = lambda images: None,
) -> Predictions:
    """Run `model` over labeled images, in eval mode, on its device and in its dtype.

    Its own mode stays as it is, so that several threads can do so with one network.

    ``evaluate(load("lenet5"), "digits").top(1)`` is the accuracy with its 95 % interval, and
    ``.scores()`` has balanced accuracy, macro F1, calibration error and the like.

    Args:
        model: Takes (N, C, H, W) and gives logits (N, outputs).
        data: The images; or for a network of this zoo where they are, as `read_images` takes it.
        preprocessing: Makes the network's input of a PIL image or a uint8 (C, H, W) tensor; None
            for that of `senetzoo.transforms`.
        batch: Images in a batch.
        tta: Average the logits of each image with those of its mirror image, left to right.
        advance: Called after each batch with its number of images; a progress bar's tick.

    Raises:
        ConfigError: A network of another library without `data` and `preprocessing` of its own.
        DataError: There are no images, one can't be read, or the classes are not the network's.
        WeightsError: Logits are not finite.
    """
    if batch < 1:
        raise ConfigError(f"evaluate got batch={batch}.", "", "Give a whole number of at least 1")
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
            found = finite(network(images), images).float()
            if tta:
                found = (found + finite(network(images.flip(-1)), images).float()) / 2
            logits.append(found.cpu())
            classes.append(labels)
            advance(len(labels))
    inner = getattr(model, "_orig_mod", model)  # of a compiled one
    temperature = inner.temperature if isinstance(inner, Classifier) else 1.0
    labels = torch.tensor(data.outputs)[torch.cat(classes)]
    return Predictions(torch.cat(logits), labels, temperature)


def calibrate(model: Classifier, predictions: Predictions) -> Predictions:
    """Set `model.temperature` and `model.reject_below` by what it predicted for labeled images.

    The images must be ones that were neither trained on nor are reported on afterwards: figures of
    the images that a temperature was chosen by flatter. The classes that are predicted stay as they
    are.

    Args:
        model: The network, which is changed.
        predictions: Its own, as `evaluate` gives them.

    Returns:
        The predictions at the new temperature. It is 1 where the images do not determine one (all
        are right), and `reject_below` None where no probability has a precision of 99 %.
    """
    found = predictions.calibrated()
    model.temperature, model.reject_below = found.temperature, found.smallest_probability()
    model.calibrated = {name: checksums(t) for name, t in model.state_dict().items()}
    return found


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
