"""scikit-learn's handwritten digits, a data set that needs no download."""

from __future__ import annotations

from typing import Literal

import torch

from senetzoo.data.sets import ImageSet
from senetzoo.errors import MissingExtraError

# Over all pixels of the training split, which are from 0 to 1.
MEAN = (0.3048,)
STD = (0.3757,)


def load(split: Literal["train", "test"]) -> ImageSet:
    """Every third image of each digit (test), or the other two thirds (train).

    Returns:
        Gray images (N, 8, 8, 1), uint8, scaled from 0..16 to 0..255.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtraError("The digits data set", "scikit-learn", "train") from None
    data = load_digits()
    images = torch.from_numpy(data.images * (255.0 / 16.0)).round().to(torch.uint8)[..., None]
    labels = torch.from_numpy(data.target).long()
    keep = []
    for digit in range(10):
        index = (labels == digit).nonzero()[:, 0]
        held_out = torch.arange(len(index)) % 3 == 2
        keep.append(index[held_out if split == "test" else ~held_out])
    chosen = torch.cat(keep).sort().values
    return ImageSet(
        images[chosen], labels[chosen], tuple("0123456789"), f"scikit-learn digits {split}"
    )
