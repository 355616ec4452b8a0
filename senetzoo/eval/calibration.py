"""Calibration of probabilities: calibration error, temperature, and rejection."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

BINS = 15
PRECISION = 0.99
# A temperature outside this range isn't determined by the data.
_LEAST, _MOST = 0.01, 100.0
# Number of images computed in float64 at once.
_CHUNK = 4096


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Expected calibration error: the difference between probability and accuracy.

    The difference between mean probability and accuracy in 15 intervals of equal width,
    ``(0, 1/15]`` to ``(14/15, 1]``, averaged with the number of images as weights (Guo et
    al. 2017, "On Calibration of Modern Neural Networks", Eq. 3).

    Args:
        confidence: (N,), probability of each predicted class.
        right: (N,), bool, whether the prediction is right.
    """
    place = (confidence.double() * BINS).ceil().long().clamp(1, BINS) - 1
    gaps = torch.zeros(BINS, dtype=torch.float64)
    gaps.index_add_(0, place, confidence.double() - right.double())
    return float(gaps.abs().sum()) / len(confidence)


def best_temperature(logits: Tensor, labels: Tensor) -> float | None:
    """The temperature at which the mean cross-entropy is lowest.

    Temperature scaling (Guo et al. 2017, Section 4.2) divides the logits by the temperature, which
    doesn't change the predicted classes. The loss is convex in the inverse temperature; a bracketed
    Newton's method finds the minimum.

    Args:
        logits: (N, outputs).
        labels: (N,), int64.

    Returns:
        The temperature, from 0.01 to 100, rounded to six digits; None if there is no minimum in
        this range: all images are right, or the logits don't depend on the labels.
    """
    low, high = 1 / _MOST, 1 / _LEAST
    if _slope(logits, labels, low)[0] >= 0 or _slope(logits, labels, high)[0] <= 0:
        return None
    inverse = 1.0
    for _ in range(100):
        slope, curvature = _slope(logits, labels, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else math.nan
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) <= 1e-9 * inverse:
            break
        inverse = following
    return float(f"{1 / inverse:.6g}")


def _slope(logits: Tensor, labels: Tensor, inverse: float) -> tuple[float, float]:
    """First and second derivative of the mean cross-entropy by the inverse temperature."""
    first = second = 0.0
    for part, own in zip(torch.split(logits, _CHUNK), torch.split(labels, _CHUNK), strict=True):
        z = part.double()
        z = z - z.gather(1, own[:, None])
        p = F.softmax(z * inverse, 1)
        mean = (p * z).sum(1)
        first += float(mean.sum())
        second += float(((p * z * z).sum(1) - mean * mean).sum())
    return first / len(labels), second / len(labels)


def smallest_probability(
    confidence: Tensor, right: Tensor, precision: float = PRECISION
) -> float | None:
    """The smallest probability at or above which a fraction of `precision` of the images is right.

    Args:
        confidence: (N,), probability of each predicted class.
        right: (N,), bool, whether the prediction is right.
        precision: Fraction of the kept images that has to be right.

    Returns:
        The probability, rounded down to five decimals; None if there is none.
    """
    ordered, order = confidence.double().sort(descending=True, stable=True)
    kept = right[order].double().cumsum(0) / torch.arange(1, len(order) + 1)
    # Images with equal probabilities are kept or rejected together.
    last = torch.ones(len(order), dtype=torch.bool)
    last[:-1] = ordered[:-1] > ordered[1:]
    enough = (last & (kept >= precision)).nonzero()[:, 0]
    return math.floor(float(ordered[enough[-1]]) * 1e5) / 1e5 if len(enough) else None
