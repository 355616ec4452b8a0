"""Holding out a part of labeled images: seeded, by class, with copies on the same side."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import torch

from senetzoo.data.files import LabeledFiles
from senetzoo.data.sets import ImageSet
from senetzoo.errors import ConfigError, DataError

Images: TypeAlias = ImageSet | LabeledFiles


def hold_out(
    images: Images, part: float, seed: int = 0, *, digests: Sequence[str | None] | None = None
) -> tuple[list[int], list[int]]:
    """Split images into a kept and a held-out part.

    The split depends on the seed and on the names of the files (or the contents of images that
    aren't files), not on their order or on images of other classes. Images with the same bytes are
    in the same part.

    Args:
        images: The images.
        part: Fraction of each class to hold out, between 0 and 1; each part gets at least one image
            of each class.
        seed: The seed.
        digests: Hash of each image's content, by which copies are found. None computes the hashes
            of files that have the same size as another one.

    Returns:
        Indices of the kept and of the held-out images, both ascending.

    Raises:
        ConfigError: `part` is not between 0 and 1.
        DataError: A class has a single distinct image.
    """
    if not 0 < part < 1:
        raise ConfigError(
            f"Can't hold out a part of {part}.",
            "It must be between 0 and 1.",
            "Type for example: 0.2",
        )
    found = contents(images) if digests is None else digests
    keys = [_key(images, index, found[index], seed) for index in range(len(images))]
    labels = torch.as_tensor(images.labels).tolist()
    copies: dict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        copies[found[index] or key].append(index)
    of_class: dict[int, list[list[int]]] = defaultdict(list)
    for same in copies.values():
        same.sort(key=lambda index: keys[index])
        of_class[labels[same[0]]].append(same)
    held: list[int] = []
    for label, name in enumerate(images.classes):
        groups = sorted(of_class[label], key=lambda same: keys[same[0]])
        if not groups:
            continue
        if len(groups) == 1:
            raise DataError(
                f"The class {name!r} of {images.name} can't be split.",
                f"It has one image{' and copies of it' * (len(groups[0]) > 1)}.",
                "Add images to it, or remove the class",
            )
        held += _some(groups, part)
    out = set(held)
    return [index for index in range(len(images)) if index not in out], sorted(out)


def _some(groups: list[list[int]], part: float) -> list[int]:
    """The first groups that make up `part` of the images: at least one image and not all."""
    total = sum(map(len, groups))
    wanted = min(max(1, int(part * total + 0.5)), total - 1)
    held: list[int] = []
    for same in groups:
        if len(held) + len(same) <= wanted:
            held += same
    return held or min(groups, key=len)


def _key(images: Images, index: int, digest: str | None, seed: int) -> str:
    """The key that sorts images into a random order given by the seed."""
    name = images.file_name(index) if isinstance(images, LabeledFiles) else ""
    # macOS stores the same name in other code points.
    name = unicodedata.normalize("NFC", name) or digest or str(index)
    return hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).hexdigest()


def contents(images: Images) -> list[str | None]:
    """A hash of each image's content; None for files with a unique size.

    Images that aren't files always have one, which replaces their name.
    """
    if isinstance(images, ImageSet):
        return [hashlib.sha256(image.numpy()).hexdigest() for image in images.images]
    sizes = images.sizes()
    count: dict[int, int] = defaultdict(int)
    for size in sizes:
        count[size] += 1
    return [
        _hash(images.sources[index]) if images.root is None or count[size] > 1 else None
        for index, size in enumerate(sizes)
    ]


def _hash(source: Path | bytes) -> str | None:
    try:
        return hashlib.sha256(
            source if isinstance(source, bytes) else source.read_bytes()
        ).hexdigest()
    except OSError:
        return None
