"""Image data sets of the Hugging Face Hub, loaded or streamed by the `datasets` library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from senetzoo._utils.environment import bad_certificates, offline
from senetzoo._utils.files import user_path
from senetzoo.data.files import (
    LabeledFiles,
    StoredImages,
    content_of,
    image_columns,
    parquet_files,
)
from senetzoo.data.labels import indices, listed, number, numbered, require_same
from senetzoo.data.sets import SPLITS, Split
from senetzoo.errors import DataError, MissingExtraError, SenetzooError, first_line

_BUFFER = 10_000


class ArrowImages(StoredImages):
    """Contents of image files in an Arrow table on disk, read one at a time.

    Args:
        table: A `datasets.Dataset` with an undecoded image column.
        column: The name of the column.
    """

    def __init__(self, table: Any, column: str) -> None:
        self._table, self._column = table, column

    def __getitem__(self, index: int) -> bytes:
        return _content(self._table[index][self._column])

    def keep(self, indices: Sequence[int]) -> ArrowImages:
        return ArrowImages(self._table.select(indices), self._column)

    def sizes(self) -> list[int]:
        import pyarrow
        from pyarrow import compute

        # Arrow stores the lengths of a column separately from its contents.
        cells = self._table.with_format("arrow")[:][self._column]
        if pyarrow.types.is_struct(cells.type):
            cells = compute.struct_field(cells, "bytes")
        return [int(size or 0) for size in compute.binary_length(cells).to_pylist()]


@dataclass(frozen=True)
class Stream:
    """A split that is streamed, image by image, without being downloaded first.

    Args:
        rows: A `datasets.IterableDataset`.
        image: Name of the image column.
        label: Name of the label column.
        classes: Name of each class.
        name: Name of the data, for messages.
        length: Number of images; None if the Hub doesn't state it.
    """

    rows: Any
    image: str
    label: str
    classes: tuple[str, ...]
    name: str
    length: int | None

    def read(self, seed: int, skip: int) -> Iterator[tuple[bytes, int]]:
        """Content and label of each image, shuffled with a buffer of 10,000 images.

        Args:
            seed: Seed of the order.
            skip: Number of images to skip, to resume an interrupted run.

        Raises:
            DataError: A label is none of the classes.
        """
        rows = self.rows.shuffle(seed=seed, buffer_size=_BUFFER).skip(skip)
        classes = indices(self.classes)
        for row in rows:
            label = number(row[self.label], classes)
            if label is None:
                raise DataError(
                    f"{self.name} has the label {row[self.label]!r}.",
                    f"There are {len(classes)} classes, from 0 to {len(classes) - 1}: "
                    f"{listed(self.classes)}.",
                    "Give data with one of these for each image",
                )
            yield _content(row[self.image]), label


def splits(path: str | Path) -> dict[Split, str]:
    """The splits of a data set, ``"train"``, ``"val"`` and ``"test"``, and their names on the Hub.

    Raises:
        DataError: There is no such data set, or it has none of these splits.
        MissingExtraError: `datasets` is not installed.
    """
    local = user_path(path)
    with _explained(path) as datasets:
        if local.exists():
            there = [name for name in SPLITS if parquet_files(local, name, "")]
        else:
            offline()  # checks the variables; offline, `datasets` reads only its cache
            there = datasets.get_dataset_split_names(str(path))
    found: dict[Split, str] = {}
    for name, split in SPLITS.items():
        if name in there:
            found.setdefault(split, name)
    if not found:
        raise DataError(
            f"{path} has no split with a known name.",
            f"Its splits are {', '.join(there)}."
            if there
            else "No parquet file there is named after one.",
            f"Give them one of these names: {', '.join(SPLITS)}",
        )
    return found


def load(path: str | Path, split: Split) -> LabeledFiles:
    """One split of a data set, downloaded to the cache of `datasets` first.

    Args:
        path: Name on the Hub (``"uoft-cs/cifar10"``), or a folder with parquet files named after
            the splits.
        split: ``"train"``, ``"val"`` (or another name of the validation split) or ``"test"``.

    Raises:
        DataError: There is no such data set or split, it has no image or label column, or its
            labels can't be numbered; a `HiddenLabelsError` if all labels are hidden.
        MissingExtraError: `datasets` is not installed.
    """
    table = _open(path, split, stream=False)
    image, label, classes = _columns(table.features, str(path))
    values, where = list(table[label]), f"{path} {split}"
    labels, known = numbered(values, classes or None, None, where)
    bare = not classes and all(word.isdecimal() for word in known)
    return LabeledFiles(ArrowImages(_raw(table, image), image), labels, known, where, numbered=bare)


def stream(path: str | Path, classes: tuple[str, ...]) -> Stream:
    """The training split of a data set as a stream.

    Args:
        path: As in `load`.
        classes: Class names, which must equal the stream's own if it has any.

    Raises:
        DataError: As in `load`.
        MissingExtraError: `datasets` is not installed.
    """
    rows = _open(path, "train", stream=True)
    image, label, own = _columns(rows.features or next(iter(rows)), str(path))
    if own:
        require_same(own, classes, f"{path} train")
    split = (rows.info.splits or {}).get("train")
    length = split.num_examples if split is not None else None
    return Stream(_raw(rows, image), image, label, classes, f"{path} train", length or None)


def _open(path: str | Path, split: Split, *, stream: bool) -> Any:
    there = splits(path)
    local = user_path(path)
    if split not in there:
        if local.exists():
            names = [name for name, of in SPLITS.items() if of == split]
            raise DataError(
                f"There is no {split} split at {path}.",
                f"Looked for parquet files with {' or '.join(names)} in their names.",
                "Name them as the Hub does: train-00000-of-00001.parquet",
            )
        raise DataError(
            f"{path} has no {split} split.", f"Its splits are {', '.join(there.values())}."
        )
    name = there[split]
    with _explained(path) as datasets:
        if local.exists():
            files = [str(p) for p in parquet_files(local, name, "")]
            return datasets.load_dataset(
                "parquet", data_files={name: files}, split=name, streaming=stream
            )
        return datasets.load_dataset(str(path), split=name, streaming=stream)


@contextmanager
def _explained(path: str | Path) -> Iterator[Any]:
    """The library `datasets`, with its errors turned into `DataError`."""
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("Data from the Hub", "datasets", "train") from None
    # It reports each use of a reader to a server, even of a local file.
    counts = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        yield datasets
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, SenetzooError):
            raise
        variable = bad_certificates(error)
        raise DataError(
            f"The data set {path} can't be loaded.",
            f"{variable} names certificates that can't be read." if variable else first_line(error),
            "Give the name of a data set on the Hub, or a local folder with its parquet files",
        ) from None
    finally:
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = counts


def _columns(features: Any, name: str) -> tuple[str, str, tuple[str, ...]]:
    """Names of the image column, the label column, and the classes, if they have names."""
    image, label = image_columns(features, name)
    return image, label, tuple(getattr(features[label], "names", None) or ())


def _raw(table: Any, image: str) -> Any:
    """`table` with the contents of image files instead of decoded images."""
    import datasets

    kind = (table.features or {}).get(image)
    if isinstance(kind, datasets.Image):
        return table.cast_column(image, datasets.Image(decode=False))
    return table


def _content(cell: Any) -> bytes:
    """The content of an image file in a cell."""
    if (content := content_of(cell)) is not None:
        return content
    path = cell.get("path") if isinstance(cell, dict) else None
    if isinstance(path, str) and Path(path).is_file():
        return Path(path).read_bytes()
    raise DataError("A row has no image file.", "Expected the file's content (bytes).")
