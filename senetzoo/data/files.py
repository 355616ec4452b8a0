"""Images from class folders and parquet files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from senetzoo.data.images import IMAGE_SUFFIXES, open_image
from senetzoo.data.sets import ImageSet
from senetzoo.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class LabelledFiles:
    """Labelled images that are read one at a time."""

    sources: tuple[Path | bytes, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[tuple[Image, int]]:
        for source, label in zip(self.sources, self.labels, strict=True):
            yield open_image(source), label


def read_image_folder(path: str | Path, classes: Sequence[str] | None = None) -> LabelledFiles:
    """A folder with one folder of images per class.

    Args:
        path: The folder.
        classes: Names of the classes in the order of their labels; None takes the folders'
            names, sorted.

    Raises:
        DataError: No folder, a folder that is none of `classes`, or a class without images.

    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"No folder {root}.", "", "Give a folder that has one folder per class")
    found = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    if not found:
        raise DataError(
            f"No class folders in {root}.", "It has no folders.", "Make one folder per class"
        )
    names = tuple(classes) if classes is not None else tuple(found)
    unknown = [name for name in found if name not in names]
    if unknown:
        raise DataError(
            f"{root} has the folder {unknown[0]!r}.",
            f"The classes are {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}.",
            "Name each folder after a class",
        )
    sources: list[Path | bytes] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        folder = root / name
        files = (
            sorted(f for f in folder.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
            if folder.is_dir()
            else []
        )
        if not files:
            raise DataError(
                f"The class {name!r} of {root} has no images.",
                f"Images end in {', '.join(IMAGE_SUFFIXES)}.",
                "Add images to it or remove the folder" if classes is None else "",
            )
        sources += files
        labels += [label] * len(files)
    return LabelledFiles(tuple(sources), tuple(labels), names)


def read_parquet(path: str | Path, classes: Sequence[str] | None = None) -> LabelledFiles:
    """A parquet file with the Hub's image schema: ``image`` or ``img`` (bytes), and ``label``.

    Raises:
        DataError: No such file, other columns, or labels outside the classes.
        MissingExtraError: pyarrow is not installed.

    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError:
        raise MissingExtraError("Reading parquet", "pyarrow", "bench") from None
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataError(f"No file {path}.", "", "Give a parquet file")
    try:
        table = read_table(path)
    except (ArrowException, OSError) as error:
        raise DataError(
            f"{path} can't be read.", f"It is no whole parquet file ({error})."
        ) from None
    image = next((c for c in ("image", "img") if c in table.column_names), None)
    label = next((c for c in ("label", "labels", "fine_label") if c in table.column_names), None)
    if image is None or label is None:
        raise DataError(
            f"{path} has the columns {', '.join(table.column_names)}.",
            "Expected image (or img) and label.",
        )
    labels = tuple(int(value) for value in table.column(label).to_pylist())
    sources = tuple(cell["bytes"] for cell in table.column(image).to_pylist())
    names = tuple(classes) if classes is not None else _hub_names(table.schema, label, labels)
    if labels and not 0 <= min(labels) <= max(labels) < len(names):
        raise DataError(
            f"{path} has labels from {min(labels)} to {max(labels)}.",
            f"There are {len(names)} classes, from 0 to {len(names) - 1}.",
        )
    return LabelledFiles(sources, labels, names)


def _hub_names(schema: object, label: str, labels: tuple[int, ...]) -> tuple[str, ...]:
    """Class names as the `datasets` library stores them in the schema; else the numbers."""
    metadata = getattr(schema, "metadata", None) or {}
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return tuple(features[label]["names"])
    except (KeyError, TypeError, ValueError):
        return tuple(str(k) for k in range(max(labels, default=-1) + 1))


def same_size_set(files: LabelledFiles, name: str) -> ImageSet:
    """All of `files` as one tensor of RGB images; they must have one size."""
    import numpy as np

    images = []
    for index, (image, _) in enumerate(files):
        array = np.asarray(image.convert("RGB"))
        if images and array.shape != images[0].shape:
            raise DataError(
                f"Image {index} of {name} has {array.shape[1]}x{array.shape[0]} pixels.",
                f"The ones before have {images[0].shape[1]}x{images[0].shape[0]}.",
            )
        images.append(array)
    if not images:
        raise DataError(f"{name} has no images.")
    return ImageSet(
        torch.from_numpy(np.stack(images)), torch.tensor(files.labels), files.classes, name
    )
