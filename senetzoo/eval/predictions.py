"""Predictions for labeled images, and their scores with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist, fmean

import torch
from torch import Tensor
from torch.nn import functional as F

from senetzoo.eval.calibration import (
    PRECISION,
    best_temperature,
    calibration_error,
    smallest_probability,
)


def wilson(right: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (JASA 22, 1927, 209-212).

    Unlike ``p +- 1.96 sqrt(p (1 - p) / n)``, it stays within 0..1 and isn't empty at 0 and 1.

    Args:
        right: Number of successes.
        total: Number of trials; 0 gives (0, 1).
        confidence: Coverage of the two-sided interval.

    Returns:
        Lower and upper limit.
    """
    if not total:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = right / total
    center = p + z * z / (2 * total)
    half = z * (p * (1 - p) / total + z * z / (4 * total * total)) ** 0.5
    scale = 1 + z * z / total
    # Exact at 0 and 1 despite rounding.
    low = 0.0 if right == 0 else (center - half) / scale
    high = 1.0 if right == total else (center + half) / scale
    return low, high


def newcombe(both: int, first: int, second: int, neither: int) -> tuple[float, float]:
    """95 % interval of the difference of two proportions that are counted on the same trials.

    From Wilson's intervals of both: method 10 of Newcombe (Statistics in Medicine 17, 1998,
    2635-2650).

    Args:
        both: Number of trials in which both succeed.
        first: Those in which only the first does.
        second: Those in which only the second does.
        neither: Those in which none does.

    Returns:
        Lower and upper limit of the first proportion minus the second; -1 and 1 without trials.
    """
    total = both + first + second + neither
    if not total:
        return -1.0, 1.0
    one, other = both + first, both + second
    (low1, high1), (low2, high2) = wilson(one, total), wilson(other, total)
    p1, p2 = one / total, other / total
    covariance = float(both * neither - first * second)
    if covariance > 0:
        covariance = max(covariance - total / 2, 0.0)
    variances = one * (total - one) * other * (total - other)
    phi = covariance / math.sqrt(variances) if variances else 0.0

    def together(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    return (
        p1 - p2 - together(p1 - low1, high2 - p2),
        p1 - p2 + together(p2 - low2, high1 - p1),
    )


@dataclass(frozen=True)
class Tally:
    """How many images were classified correctly.

    Args:
        name: Name of the class or data set.
        right: Number of correctly classified images.
        total: Number of images.
    """

    name: str
    right: int
    total: int

    @property
    def accuracy(self) -> float:
        """Fraction of correctly classified images; 0 without images."""
        return self.right / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy."""
        return wilson(self.right, self.total)

    def as_dict(self) -> dict[str, object]:
        """JSON values, without the name."""
        return {
            "right": self.right,
            "images": self.total,
            "accuracy": self.accuracy if self.total else None,
            "wilson95": list(self.interval),
        }

    def __str__(self) -> str:
        """``91.60% [89.72%, 93.17%]``."""
        if not self.total:
            return "no images"
        low, high = self.interval
        return f"{self.accuracy:.2%} [{low:.2%}, {high:.2%}]"


@dataclass(frozen=True)
class ClassScore:
    """How well one class is recognized; its recall is the accuracy of its images.

    Args:
        tally: The images of the class.
        guessed: Number of images predicted as the class.
    """

    tally: Tally
    guessed: int

    @property
    def precision(self) -> float:
        """Fraction of the images predicted as the class that belong to it; 0 without any."""
        return self.tally.right / self.guessed if self.guessed else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        both = self.tally.total + self.guessed
        return 2 * self.tally.right / both if both else 0.0

    def as_dict(self) -> dict[str, object]:
        """JSON values; recall is called accuracy."""
        more = {"guessed": self.guessed, "precision": self.precision, "f1": self.f1}
        return {"name": self.tally.name, **self.tally.as_dict(), **more}


@dataclass(frozen=True)
class Scores:
    """Scores over all images. Macro scores are means over the classes with images.

    Args:
        balanced_accuracy: Macro recall: the mean accuracy of the classes.
        macro_precision: Mean precision of the classes.
        macro_f1: Mean F1 of the classes.
        loss: Mean cross-entropy.
        calibration_error: `senetzoo.eval.calibration.calibration_error` with 15 bins.
        temperature: The temperature of the logits.
        best_temperature: The temperature that minimizes the loss on these images; None if there is
            no minimum.
    """

    balanced_accuracy: float
    macro_precision: float
    macro_f1: float
    loss: float
    calibration_error: float
    temperature: float
    best_temperature: float | None


@dataclass(frozen=True)
class Predictions:
    """A network's predictions for labeled images.

    Args:
        logits: (N, outputs), float32 (float16 if read from a file), on the CPU.
        labels: (N,), int64, the output for the image's class.
        temperature: Divisor of the logits before the softmax.
    """

    logits: Tensor
    labels: Tensor
    temperature: float = 1.0

    @cached_property
    def guesses(self) -> Tensor:
        """(N,), the output with the highest logit."""
        return self.logits.argmax(1)

    @cached_property
    def confidence(self) -> Tensor:
        """(N,), the highest probability."""
        return self.probabilities.max(1).values

    @cached_property
    def probabilities(self) -> Tensor:
        """(N, outputs), float32."""
        return (self.logits.float() / self.temperature).softmax(1)

    @cached_property
    def right(self) -> Tensor:
        """(N,), bool, whether the prediction is the label."""
        return self.guesses == self.labels

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return float(F.cross_entropy(self.logits.float() / self.temperature, self.labels))

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy."""
        return self.top(1).accuracy

    def top(self, k: int) -> Tally:
        """Top-`k` accuracy."""
        best = self.guesses[:, None] if k == 1 else self.logits.topk(k).indices
        right = int((best == self.labels[:, None]).any(1).sum())
        return Tally(f"top-{k}", right, len(self.labels))

    def by_class(self) -> list[list[int]]:
        """For each output, the numbers of its correctly classified images and of its images."""
        count = self.logits.shape[1]
        right = self.labels[self.right]
        pairs = (labels.bincount(minlength=count) for labels in (right, self.labels))
        return torch.stack(list(pairs), dim=1).tolist()

    def class_scores(self) -> list[ClassScore]:
        """Scores of each output, named by its index."""
        guessed = self.guesses.bincount(minlength=self.logits.shape[1]).tolist()
        return [
            ClassScore(Tally(str(output), *pair), number)
            for output, (pair, number) in enumerate(zip(self.by_class(), guessed, strict=True))
        ]

    def scores(self) -> Scores:
        """Scores over all images."""
        classes = [score for score in self.class_scores() if score.tally.total]
        return Scores(
            balanced_accuracy=fmean(score.tally.accuracy for score in classes),
            macro_precision=fmean(score.precision for score in classes),
            macro_f1=fmean(score.f1 for score in classes),
            loss=self.loss,
            calibration_error=calibration_error(self.confidence, self.right),
            temperature=self.temperature,
            best_temperature=best_temperature(self.logits, self.labels),
        )

    def calibrated(self) -> Predictions:
        """The predictions at the best temperature for these images; at 1 if there is none."""
        best = best_temperature(self.logits, self.labels)
        return replace(self, temperature=1.0 if best is None else best)

    def smallest_probability(self, precision: float = PRECISION) -> float | None:
        """`senetzoo.eval.calibration.smallest_probability` for these images."""
        return smallest_probability(self.confidence, self.right, precision)

    def confusion(self) -> Tensor:
        """Confusion matrix (outputs, outputs): rows are the classes, columns the predictions."""
        outputs = self.logits.shape[1]
        pairs = self.labels * outputs + self.guesses
        return pairs.bincount(minlength=outputs**2).view(outputs, outputs)

    def worst(self, most: int) -> list[int]:
        """Indices of up to `most` misclassified images, the most confident first."""
        wrong = (~self.right).nonzero()[:, 0]
        order = self.confidence[wrong].argsort(descending=True, stable=True)
        return [int(i) for i in wrong[order[:most]]]
