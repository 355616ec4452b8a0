"""Image data sets of the Hugging Face Hub, by the `datasets` library: loaded, or as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from senetzoo._utils.environment import bad_certificates, offline
from senetzoo._utils.files import user_path
from senetzoo.data.files import LabeledFiles, check_labels, image_columns, parquet_files
from senetzoo.errors import DataError, MissingExtraError

# What test splits are called, best first.
_TESTS = ("test", "validation", "valid", "val")
_BUFFER = 10_000


class ArrowImages(Dataset[Path | bytes]):
    """Contents of image files in an Arrow table on disk: one is read when it is asked for.

    Args:
        table: A `datasets.Dataset` with one undecoded image column.
        column: Its name.
    """

    def __init__(self, table: Any, column: str) -> None:
        self._table, self._column = table, column

    def __getitem__(self, index: int) -> bytes:
        return _content(self._table[index][self._column])


@dataclass(frozen=True)
class Stream:
    """A split that is read from front to end, an image at a time, without being downloaded first.

    Args:
        rows: A `datasets.IterableDataset`.
        image: Name of its image column.
        label: Name of its label column.
        classes: Name of each class.
        name: Where it is from.
        length: Its number of images; None where the Hub does not say.
    """

    rows: Any
    image: str
    label: str
    classes: tuple[str, ...]
    name: str
    length: int | None

    def read(self, seed: int, skip: int) -> Iterator[tuple[bytes, int]]:
        """Content and label of each image, shuffled through a buffer of 10,000.

        Args:
            seed: Of the order.
            skip: Images to leave out at the start: where an interrupted run goes on.

        Raises:
            DataError: A label out of range.
        """
        rows = self.rows.shuffle(seed=seed, buffer_size=_BUFFER).skip(skip)
        for row in rows:
            label = row[self.label]
            if type(label) is not int or not 0 <= label < len(self.classes):
                raise DataError(
                    f"{self.name} has the label {label}.",
                    f"There are {len(self.classes)} classes, from 0 to {len(self.classes) - 1}.",
                )
            yield _content(row[self.image]), label


def load(path: str | Path, split: str) -> LabeledFiles:
    """One split of a data set, downloaded to the cache of `datasets` first.

    Args:
        path: Name on the Hub (``"uoft-cs/cifar10"``), or a folder with parquet files that have
            the split in their names.
        split: ``"train"`` or ``"test"``; the latter may be called validation there.

    Raises:
        DataError: No such data set or split, or no image and label columns, or labels that are
            not whole numbers from 0 to the last class.
        MissingExtraError: `datasets` is not installed.
    """
    table = _open(path, split, stream=False)
    image, label, classes = _columns(table.features, str(path))
    labels = tuple(table[label])
    classes = classes or tuple(map(str, range(max(labels, default=-1) + 1)))
    check_labels(labels, classes, str(path))
    return LabeledFiles(ArrowImages(_raw(table, image), image), labels, classes, f"{path} {split}")


def stream(path: str | Path, classes: tuple[str, ...]) -> Stream:
    """The training split of a data set as a stream.

    Args:
        path: As in `load`.
        classes: Names of the classes; the stream's own, where it has them, must be the same.

    Raises:
        DataError: As in `load`.
        MissingExtraError: `datasets` is not installed.
    """
    rows = _open(path, "train", stream=True)
    image, label, own = _columns(rows.features or next(iter(rows)), str(path))
    if own and own != classes:
        raise DataError(f"{path} has other classes in its training split than in its test split.")
    split = (rows.info.splits or {}).get("train")
    length = split.num_examples if split is not None else None
    return Stream(_raw(rows, image), image, label, classes, f"{path} train", length or None)


def _open(path: str | Path, split: str, *, stream: bool) -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("Data of the Hub", "datasets", "train") from None
    local = user_path(path)
    names = (split,) if split == "train" else _TESTS
    if not local.exists():
        offline()  # under which `datasets` itself reads its cache alone
    try:
        if local.exists():
            for name in names:
                files = [str(p) for p in parquet_files(local, name, "")]
                if files:
                    return datasets.load_dataset(
                        "parquet", data_files={name: files}, split=name, streaming=stream
                    )
            raise DataError(
                f"No {split} split at {path}.",
                f"Looked for parquet files with {' or '.join(names)} in their names.",
                "Name them as the Hub does: train-00000-of-00001.parquet",
            )
        there = datasets.get_dataset_split_names(str(path))
        found = next((name for name in names if name in there), None)
        if found is None:
            raise DataError(f"{path} has no {split} split.", f"Its splits are {', '.join(there)}.")
        return datasets.load_dataset(str(path), split=found, streaming=stream)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        variable = bad_certificates(error)
        raise DataError(
            f"The data set {path} can't be loaded.",
            f"{variable} names certificates that can't be read."
            if variable
            else str(error).partition("\n")[0] or type(error).__name__,
            "Give a local folder with its parquet files, or its name on the Hub",
        ) from None


def _columns(features: Any, name: str) -> tuple[str, str, tuple[str, ...]]:
    """Names of the image and the label column, and of the classes where there are names."""
    image, label = image_columns(features, name)
    return image, label, tuple(getattr(features[label], "names", None) or ())


def _raw(table: Any, image: str) -> Any:
    """`table` with the contents of image files in place of decoded images."""
    import datasets

    kind = (table.features or {}).get(image)
    if isinstance(kind, datasets.Image):
        return table.cast_column(image, datasets.Image(decode=False))
    return table


def _content(cell: Any) -> bytes:
    """Content of an image file from a cell."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if isinstance(content, bytes):
        return content
    path = cell.get("path") if isinstance(cell, dict) else None
    if isinstance(path, str) and Path(path).is_file():
        return Path(path).read_bytes()
    raise DataError("A row has no image file.", "Expected the file's content (bytes).")
