"""How far probabilities can be trusted: calibration error, temperature, and rejection."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

BINS = 15
PRECISION = 0.99
# Beyond these a temperature says that the data does not determine it.
_LEAST, _MOST = 0.01, 100.0
# Images that are computed with in float64 at once.
_CHUNK = 4096


def calibration_error(confidence: Tensor, right: Tensor, bins: int = BINS) -> float:
    """Expected calibration error: how far apart probability and accuracy are.

    The mean over `bins` intervals of equal width, ``(0, 1/bins]`` to ``(1 - 1/bins, 1]``, of the
    difference between the mean probability and the accuracy of the images in each, weighted by
    their number (Guo et al. 2017, "On Calibration of Modern Neural Networks", Eq. 3).

    Args:
        confidence: (N,), the probability of each predicted class.
        right: (N,), bool: whether it is the image's class.
        bins: Number of intervals.
    """
    place = (confidence.double() * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.float64)
    gaps.index_add_(0, place, confidence.double() - right.double())
    return float(gaps.abs().sum()) / len(confidence)


def best_temperature(logits: Tensor, labels: Tensor) -> float | None:
    """The temperature at which the mean cross-entropy is lowest.

    Temperature scaling (Guo et al. 2017, Section 4.2): the logits are divided by it; the predicted
    classes stay what they are. The loss is convex in its inverse, of which Newton's method, kept
    within a bracket, finds the minimum.

    Args:
        logits: (N, outputs).
        labels: (N,), int64.

    Returns:
        From 0.01 to 100, rounded to six digits; None where no temperature in this range is best:
        all images are right, or the logits say nothing of the labels.
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
    """The smallest probability such that of the images at or above it `precision` are right.

    Args:
        confidence: (N,), the probability of each predicted class.
        right: (N,), bool: whether it is the image's class.
        precision: Fraction of what is kept that has to be right.

    Returns:
        It, rounded down to five decimals; None where there is none.
    """
    ordered, order = confidence.double().sort(descending=True, stable=True)
    kept = right[order].double().cumsum(0) / torch.arange(1, len(order) + 1)
    # Of equal probabilities all are kept or none.
    last = torch.ones(len(order), dtype=torch.bool)
    last[:-1] = ordered[:-1] > ordered[1:]
    enough = (last & (kept >= precision)).nonzero()[:, 0]
    return math.floor(float(ordered[enough[-1]]) * 1e5) / 1e5 if len(enough) else None
