"""Evaluation of networks on labeled images."""

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

from senetzoo._utils.terminal import columns, cut, printable
from senetzoo.errors import ConfigError, DataError, SenetzooError, first_line
from senetzoo.eval.data import LabeledImages, batches, images_for
from senetzoo.eval.predictions import ClassScore, Predictions, Scores, Tally
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.modes import evaluated, finite
from senetzoo.nn.provenance import checksums
from senetzoo.nn.transforms import transforms

if TYPE_CHECKING:
    from PIL.Image import Image

_TOP = 5
# Limits of the printed text: cells of a class name, classes, confusion matrix, mistakes.
_NAME, _CLASSES, _MATRIX, _WRONG = 24, 20, 10, 10


@dataclass(frozen=True)
class Mistake:
    """A misclassified image.

    Args:
        path: Its file, or a name if it isn't from a file.
        label: Its class.
        predicted: The predicted class.
        probability: Probability of the predicted class.
    """

    path: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of a network on a data set. Print it, or use ``as_dict()`` or ``rows()``.

    Args:
        model: Name of the network.
        weights: Tag or file of its weights.
        dtype: Type that it computed in.
        data: The images.
        predictions: The predictions for them.
        names: Names of the network's outputs; empty if the weights have none.
        flipped: Whether the logits are averaged with those of the mirror images.
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
        """Top-5 accuracy; None if the network has at most five outputs."""
        outputs = self.predictions.logits.shape[1]
        return self.predictions.top(_TOP) if outputs > _TOP else None

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Name of each output, from the weights or else from the data's classes."""
        known = dict(zip(self.data.outputs, self.data.images.classes, strict=True))
        known = dict(enumerate(self.names)) or known
        return tuple(known.get(k, f"class {k}") for k in range(self.predictions.logits.shape[1]))

    def classes(self) -> list[ClassScore]:
        """Scores of the data's classes, in their order."""
        found, images = self.predictions.class_scores(), self.data.images
        return [
            dataclasses.replace(found[k], tally=dataclasses.replace(found[k].tally, name=name))
            for name, k in zip(images.classes, self.data.outputs, strict=True)
        ]

    def mistakes(self) -> list[Mistake]:
        """All misclassified images, the most confident mistake first."""
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
        """A row of a table for each image."""
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
        """JSON values, with classes, confusion matrix and mistakes."""
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
        """Tables of at most 80 columns, except for paths: all, classes, confusions, mistakes."""
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
            ["", "-" if best is None else f"{best:.3g}", "best for these images"],
        ]
        flips = ", averaged with mirror images" * self.flipped
        # The weights of a folder are called as the folder is.
        again = Path(self.weights) == Path(self.model)
        title = self.model if again else f"{self.model} ({self.weights})"
        title += f" on {self.data.images.name}, {self.dtype}{flips}"
        return [title, *columns(rows, left=3)]

    def _classes(self) -> list[str]:
        """The classes, the least accurate first."""
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
        return [
            *columns(rows),
            *_more(len(found) - _CLASSES, "classes with as much or more: --json"),
        ]

    def _confusion(self) -> list[str]:
        """Images by class (rows) and predicted class (columns)."""
        heads, names = self.outputs, [cut(name, _NAME) for name in self.outputs]
        if max(map(len, heads)) > 2:
            heads = tuple(string.ascii_uppercase[: len(heads)])
            names = [f"{head}  {name}" for head, name in zip(heads, names, strict=True)]
        matrix = zip(names, self.predictions.confusion().tolist(), strict=True)
        rows = [[name, *map(str, counts)] for name, counts in matrix]
        return columns([["class \\ predicted", *heads], *rows])

    def _wrong(self) -> list[str]:
        """The most confident mistakes."""
        wrong = self.mistakes()
        if not wrong:
            return ["no images are misclassified"]
        shown = [
            [f"{m.probability:.1%}", cut(m.predicted, _NAME // 2), cut(m.label, _NAME // 2)]
            for m in wrong[:_WRONG]
        ]
        lines = columns([["prob.", "predicted", "class"], *shown], left={1, 2})
        width = max(map(len, lines)) + 2
        paths = ["file", *(printable(m.path) for m in wrong[:_WRONG])]
        lines = [f"{line:<{width}}{path}" for line, path in zip(lines, paths, strict=True)]
        total = len(self.predictions.labels)
        head = f"misclassified: {len(wrong)} of {total} images, the most confident first"
        return [head, *lines, *_more(len(wrong) - _WRONG, "images: senetzoo eval --csv FILE")]


def _rounded(found: Scores | Mistake) -> dict[str, object]:
    """JSON values, rounded because the last digits depend on the batch size."""
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
    """Run `model` on labeled images, in eval mode, on its device and in its dtype.

    The network's own mode isn't changed, so that several threads can use one network.

    ``evaluate(load("lenet5"), "digits").top(1)`` is the accuracy with its 95 % interval;
    ``.scores()`` has balanced accuracy, macro F1, calibration error and so on.

    Args:
        model: Maps (N, C, H, W) to logits (N, outputs).
        data: The images; for networks of this zoo, also their location, as in `read_images`.
        preprocessing: Converts a PIL image or a uint8 (C, H, W) tensor to the network's input; None
            for `senetzoo.transforms`.
        batch: Images per batch.
        tta: Average the logits of each image with those of its mirror image, left to right.
        advance: Called after each batch with its number of images, for a progress bar.

    Raises:
        ConfigError: The network is of another library, and `data` or `preprocessing` is missing.
        DataError: There are no images, one of a `LabeledImages` can't be read, or the classes
            don't match the network's.
        WeightsError: Logits aren't finite.
    """
    if batch < 1:
        raise ConfigError(f"evaluate got batch={batch}.", "batch is a whole number of at least 1.")
    if preprocessing is None or not isinstance(data, LabeledImages):
        if not isinstance(model, Classifier):
            raise ConfigError(
                f"evaluate got a {type(model).__name__}.",
                "Classes and preprocessing are known only for networks made by senetzoo.create.",
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
    """Set `model.temperature` and `model.reject_below` from predictions for labeled images.

    The images must not have been trained on, and results must be reported on other images: on these
    they are too optimistic. The predicted classes don't change.

    Args:
        model: The network, which is changed.
        predictions: Its predictions, as `evaluate` returns them.

    Returns:
        The predictions at the new temperature, which is 1 if the images don't determine one (all
        are right). `reject_below` is None if no probability gives a precision of 99 %.
    """
    found = predictions.calibrated()
    model.temperature, model.reject_below = found.temperature, found.smallest_probability()
    model.calibrated = {name: checksums(t) for name, t in model.state_dict().items()}
    return found


@contextlib.contextmanager
def failures_explained(name: str, image: tuple[int, int, int], batch: int) -> Iterator[None]:
    """Turn the failure of a forward pass into a `ConfigError` with the shape and the message."""
    try:
        yield
    except SenetzooError:
        raise  # its message is better
    except Exception as error:  # other libraries raise any kind of error
        shape = "x".join(map(str, (batch, *image)))
        who = "torch" if isinstance(error, RuntimeError) else "Its code"
        raise ConfigError(
            f"{name} fails on images of shape {shape}.",
            f"{who} says: {first_line(error)}",
            "Give another size or a smaller batch: --size 224 --batch 8",
        ) from error
