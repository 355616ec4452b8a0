"""Data sets in memory, and the names of splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Split: TypeAlias = Literal["all", "train", "val", "test"]
# What the splits are called in folders, files and columns; the preferred name comes first.
_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
SPLITS = {name: split for split, names in _NAMES.items() for name in names}


def said_of_parent(path: Path) -> str:
    """A sentence on the parent of a folder that is one of several splits; empty for others."""
    there = [name for name in SPLITS if (path.parent / name).is_dir()]
    one_of = path.name in there and len(there) > 1
    return f"Its parent has {'/ and '.join(there)}/." if one_of else ""


@dataclass(frozen=True)
class ImageSet:
    """Images of one size with their labels.

    Args:
        images: (N, H, W, C), uint8.
        labels: (N,), int64, from 0 to ``len(classes) - 1``.
        classes: Name of each class.
        name: Name of the data, for records: ``"CIFAR-10 test"``.
        files: File of each image; empty if the images aren't from files.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    files: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        """Each image (C, H, W) with its label."""
        yield from zip(self.images.permute(0, 3, 1, 2), self.labels.tolist(), strict=True)

    def keep(self, indices: Sequence[int], name: str | None = None) -> ImageSet:
        """The images at `indices`, in that order, optionally under another name."""
        where = torch.tensor(indices, dtype=torch.int64)
        return dataclasses.replace(
            self,
            images=self.images[where],
            labels=self.labels[where],
            name=name or self.name,
            files=tuple(self.files[i] for i in indices) if self.files else (),
        )

    def first(self, count: int) -> ImageSet:
        """The first `count` images of each class, in their order."""
        keep = torch.cat(
            [(self.labels == k).nonzero()[:count, 0] for k in range(len(self.classes))]
        )
        return self.keep(keep.sort().values.tolist())

    def source_name(self, index: int) -> str:
        """A name of image `index` for messages."""
        return str(self.files[index]) if self.files else f"image {index} of {self.name}"
