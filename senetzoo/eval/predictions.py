"""What a network predicts for labeled images, and accuracy with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import torch
from torch import Tensor
from torch.nn import functional as F


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
    center = p + z * z / (2 * total)
    half = z * (p * (1 - p) / total + z * z / (4 * total * total)) ** 0.5
    scale = 1 + z * z / total
    # At 0 and at 1 rounding would leave the limit a hair off.
    low = 0.0 if right == 0 else (center - half) / scale
    high = 1.0 if right == total else (center + half) / scale
    return low, high


@dataclass(frozen=True)
class Tally:
    """How many images of a kind were classified rightly.

    Args:
        name: Of the class, or of the whole data set.
        right: Images whose class is predicted.
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
class Predictions:
    """What a network says of labeled images.

    Args:
        logits: (N, outputs), float32 (float16 where they are stored), on the CPU.
        labels: (N,), int64: the output that means the image's class.
    """

    logits: Tensor
    labels: Tensor

    @cached_property
    def guesses(self) -> Tensor:
        """(N,), the output with the highest logit."""
        return self.logits.argmax(1)

    @cached_property
    def confidence(self) -> Tensor:
        """(N,), the probability of that output."""
        return self.logits.float().softmax(1).max(1).values

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return float(F.cross_entropy(self.logits, self.labels))

    @property
    def accuracy(self) -> float:
        """Fraction of the images whose highest logit is their class."""
        return self.top(1).accuracy

    def top(self, k: int) -> Tally:
        """How many images have their class among the `k` highest logits."""
        best = self.guesses[:, None] if k == 1 else self.logits.topk(k).indices
        right = int((best == self.labels[:, None]).any(1).sum())
        return Tally(f"top-{k}", right, len(self.labels))

    def by_class(self) -> list[list[int]]:
        """For each output how many of its images are right, and how many it has."""
        count = self.logits.shape[1]
        right = self.labels[self.guesses == self.labels]
        pairs = (labels.bincount(minlength=count) for labels in (right, self.labels))
        return torch.stack(list(pairs), dim=1).tolist()

    def confusion(self) -> Tensor:
        """(outputs, outputs): how many images of the row's class are predicted as the column's."""
        outputs = self.logits.shape[1]
        pairs = self.labels * outputs + self.guesses
        return pairs.bincount(minlength=outputs**2).view(outputs, outputs)

    def worst(self, most: int) -> list[int]:
        """Numbers of up to `most` wrongly classified images, the most confident first."""
        wrong = (self.guesses != self.labels).nonzero()[:, 0]
        order = self.confidence[wrong].argsort(descending=True, stable=True)
        return [int(i) for i in wrong[order[:most]]]
