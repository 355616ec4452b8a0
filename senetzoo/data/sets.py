"""Data sets in memory: images as one uint8 tensor, labels, class names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Split: TypeAlias = Literal["all", "train", "val", "test"]


@dataclass(frozen=True)
class ImageSet:
    """Images of one size with their labels.

    Args:
        images: (N, H, W, C), uint8.
        labels: (N,), int64, each from 0 to ``len(classes) - 1``.
        classes: Name of each class.
        name: What the data is, for records: ``"CIFAR-10 test"``.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.labels)

    def keep(self, indices: Sequence[int], name: str) -> ImageSet:
        """Those of `indices`, in their order, under another name."""
        where = torch.tensor(indices, dtype=torch.int64)
        return ImageSet(self.images[where], self.labels[where], self.classes, name)

    def first(self, count: int) -> ImageSet:
        """Keep the first `count` images of each class, in their order."""
        keep = torch.cat(
            [(self.labels == k).nonzero()[:count, 0] for k in range(len(self.classes))]
        )
        return self.keep(keep.sort().values.tolist(), self.name)
