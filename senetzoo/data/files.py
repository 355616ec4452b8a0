"""Labeled images from class folders and parquet files."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from senetzoo._utils.files import user_path
from senetzoo.data.images import image_files, is_clutter, open_image
from senetzoo.data.labels import in_order, numbered, positions, require_same, same
from senetzoo.data.sets import ImageSet
from senetzoo.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image


class StoredImages(ABC):
    """Contents of image files that stay on disk until they are read."""

    @abstractmethod
    def __getitem__(self, index: int) -> bytes: ...

    @abstractmethod
    def keep(self, indices: Sequence[int]) -> StoredImages:
        """The images at `indices`, in that order."""

    @abstractmethod
    def sizes(self) -> list[int]:
        """Size of each file in bytes, without reading it."""


@dataclass(frozen=True)
class LabeledFiles:
    """Labeled images that are read one at a time.

    Args:
        sources: Path or content of each image file.
        labels: Label of each image, from 0 to ``len(classes) - 1``.
        classes: Name of each class.
        name: Name of the data, for messages.
        root: Folder that file names are relative to; None for contents.
        left_out: Files in the folder that are ignored, because their names aren't those of images.
        numbered: Whether the data has only class numbers, no class names.
    """

    sources: Sequence[Path | bytes] | StoredImages
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    name: str
    root: Path | None = None
    left_out: tuple[Path, ...] = ()
    numbered: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def files(self) -> tuple[Path, ...]:
        """File of each image; empty if the images are contents."""
        sources = () if isinstance(self.sources, StoredImages) else self.sources
        return tuple(source for source in sources if isinstance(source, Path))

    def __iter__(self) -> Iterator[tuple[Image, int]]:
        for index, label in enumerate(self.labels):
            yield self.open(index), label

    def open(self, index: int) -> Image:
        """Image `index`, read by `open_image`."""
        return open_image(self.sources[index], self.source_name(index))

    def keep(self, indices: Sequence[int], name: str | None = None) -> LabeledFiles:
        """The images at `indices`, in that order, optionally under another name."""
        sources = (
            self.sources.keep(indices)
            if isinstance(self.sources, StoredImages)
            else tuple(self.sources[i] for i in indices)
        )
        labels = tuple(self.labels[i] for i in indices)
        return dataclasses.replace(self, sources=sources, labels=labels, name=name or self.name)

    def first(self, count: int) -> LabeledFiles:
        """The first `count` images of each class, in their order."""
        left = [count] * len(self.classes)
        kept = []
        for index, label in enumerate(self.labels):
            if left[label]:
                left[label] -= 1
                kept.append(index)
        return self.keep(kept)

    def source_name(self, index: int) -> str:
        """A name of image `index` for messages."""
        path = self._path(index)
        return f"image {index} of {self.name}" if path is None else str(path)

    def file_name(self, index: int) -> str:
        """Path of a file relative to `root`, with slashes; empty for contents."""
        path = self._path(index)
        if path is None:
            return ""
        if self.root is not None:
            inside = path.is_relative_to(self.root)
            path = path.relative_to(self.root) if inside else Path(os.path.relpath(path, self.root))
        return path.as_posix()

    def _path(self, index: int) -> Path | None:
        """File of image `index`; None for contents, which aren't read for it."""
        source = None if isinstance(self.sources, StoredImages) else self.sources[index]
        return source if isinstance(source, Path) else None

    def sizes(self) -> list[int]:
        """Size of each file in bytes; 0 if it is missing."""
        if isinstance(self.sources, StoredImages):
            return self.sources.sizes()
        return [len(s) if isinstance(s, bytes) else _size(s) for s in self.sources]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def read_image_folder(
    path: str | Path, classes: Sequence[str] | None = None, *, allow_empty: bool = False
) -> LabeledFiles:
    """List a folder with one folder of images per class; hidden files and folders are ignored.

    Args:
        path: The folder.
        classes: Class names in the order of their labels; None for the sorted names of the
            folders, sorted numerically if all are numbers.
        allow_empty: Whether a class may have no images.

    Raises:
        DataError: There is no folder, a folder isn't one of `classes`, or a class has no images.
    """
    root = user_path(path)
    if not root.is_dir():
        raise DataError(
            f"There is no folder {root}.", "", "Give a folder with one folder per class"
        )
    entries = [entry for entry in root.iterdir() if not is_clutter(entry.name)]
    found = in_order(entry.name for entry in entries if entry.is_dir())
    left_out = [entry for entry in entries if not entry.is_dir()]
    if not found:
        raise DataError(
            f"{root} has no class folders.", "It has no folders.", "Make one folder per class"
        )
    names = tuple(classes) if classes is not None else tuple(found)
    folders = {same(name): name for name in found}
    if len(folders) < len(found):
        twice = next(name for name in found if folders[same(name)] != name)
        raise DataError(
            f"{root} has two folders named {twice!r}.",
            "They differ only in their Unicode encoding.",
            "Put the images of both into one",
        )
    positions(found, names, str(root), "the data set")
    sources: list[Path | bytes] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        files, others = image_files(root / folders.get(same(name), name))
        if not files and not allow_empty:
            raise DataError(
                f"The class {name!r} of {root} has no images.",
                "Images are recognized by their suffix: .jpg, .png and others that Pillow reads.",
                "Add images to it" + (" or remove the folder" if classes is None else ""),
            )
        sources += files
        labels += [label] * len(files)
        left_out += others
    return LabeledFiles(
        tuple(sources), tuple(labels), names, str(root), root, tuple(sorted(left_out))
    )


def read_parquet(
    where: str | Path | Sequence[Path], classes: Sequence[str] | None = None
) -> LabeledFiles:
    """Read a parquet file with the Hub's image schema, or several shards of one data set.

    The schema has a column ``image`` or ``img`` of image files (bytes, or a struct with the field
    ``bytes``), and a column ``label``, ``labels`` or ``fine_label``, as in `labels.numbered`.

    Args:
        where: The file, or the shards in their order.
        classes: Class names in the order of their labels; None for the names in the file's
            metadata, or else those of the labels.

    Raises:
        DataError: A file is missing or damaged, has other columns, or labels that can't be
            numbered.
        MissingExtraError: pyarrow is not installed.
    """
    paths = [user_path(where)] if isinstance(where, (str, Path)) else where
    name = str(paths[0] if len(paths) == 1 else paths[0].parent)
    sources: list[Path | bytes] = []
    values: list[object] = []
    own: tuple[str, ...] | None = None
    for path in paths:
        contents, found, names = _rows(path)
        if own is not None:
            require_same(names or ["without names"], own, str(path))
        own = names
        sources += contents
        values += found
    labels, known = numbered(values, own, classes, name)
    bare = classes is None and own is None and all(word.isdecimal() for word in known)
    return LabeledFiles(tuple(sources), labels, known, name, numbered=bare)


def _rows(path: Path) -> tuple[list[bytes], list[object], tuple[str, ...] | None]:
    """The image files' contents, the labels and the class names of a parquet file."""
    try:
        import pyarrow
        from pyarrow.parquet import read_table
    except ImportError:
        raise MissingExtraError("Reading parquet", "pyarrow", "bench") from None
    if not path.is_file():
        raise DataError(f"There is no file {path}.", "", "Give a parquet file")
    try:
        table = read_table(path)
    except (pyarrow.ArrowException, OSError):
        raise DataError(
            f"{path} can't be read.", "It isn't a parquet file, or it is damaged or truncated."
        ) from None
    image, label = image_columns(table.column_names, str(path))
    contents = [content_of(cell) for cell in table.column(image).to_pylist()]
    if None in contents:
        raise DataError(
            f"{path} has no image file in row {contents.index(None)} of the column {image!r}.",
            "Expected the content of the files (bytes), not their paths or pixels.",
        )
    found = [content for content in contents if content is not None]
    return found, table.column(label).to_pylist(), _hub_names(table.schema.metadata, label)


def image_columns(columns: Iterable[str], name: str) -> tuple[str, str]:
    """The image and label columns of a table with the Hub's image schema.

    Raises:
        DataError: The table, called `name` in the message, lacks one of them.
    """
    image = next((c for c in ("image", "img") if c in columns), None)
    label = next((c for c in ("label", "labels", "fine_label") if c in columns), None)
    if image is None or label is None:
        raise DataError(
            f"{name} has the columns {', '.join(columns)}.",
            "Expected image (or img) and label (or labels, fine_label).",
            "Rename them: Dataset.rename_column",
        )
    return image, label


def parquet_files(folder: Path, split: str, data: str) -> list[Path]:
    """The parquet files of a split in `folder` or its subfolder ``data``, as laid out on the Hub.

    Args:
        folder: The folder.
        split: The split, a word in the file names: ``train-00000-of-00002.parquet``; all if empty.
        data: Name of the data set; if some file names contain it, only those are listed.
    """
    found = sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))
    words = {path: re.split(r"[^a-z0-9]+", path.stem.lower()) for path in found}
    ours = [path for path in found if data.lower() in words[path]] or found
    return [path for path in ours if not split or split in words[path]]


def content_of(cell: object) -> bytes | None:
    """The content of an image file in a cell of a table; None if it has none."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    return content if isinstance(content, bytes) else None


def _hub_names(metadata: dict[bytes, bytes] | None, label: str) -> tuple[str, ...] | None:
    """The class names that the `datasets` library stores in a parquet file, if any."""
    try:
        features: Any = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[label]["names"])
    except (KeyError, TypeError, ValueError):
        return None


def same_size_set(files: LabeledFiles, name: str) -> ImageSet:
    """Read all `files` into one tensor of RGB images.

    Raises:
        DataError: There are no images, one can't be read, or their sizes differ.
    """
    import numpy as np

    images: list[NDArray[np.uint8]] = []
    for index, (image, _) in enumerate(files):
        array = np.asarray(image.convert("RGB"))
        if images and array.shape != images[0].shape:
            raise DataError(
                f"{files.source_name(index)} has {array.shape[1]}x{array.shape[0]} pixels.",
                f"The images before it have {images[0].shape[1]}x{images[0].shape[0]}.",
            )
        images.append(array)
    if not images:
        raise DataError(f"{files.name} has no images.")
    pixels, labels = torch.from_numpy(np.stack(images)), torch.tensor(files.labels)
    return ImageSet(pixels, labels, files.classes, name, files.files)
