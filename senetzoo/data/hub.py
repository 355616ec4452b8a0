"""Image data sets of the Hugging Face Hub, by the `datasets` library: loaded, or as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from senetzoo._utils.environment import bad_certificates, offline
from senetzoo._utils.files import user_path
from senetzoo._utils.terminal import say_once
from senetzoo.data.files import LabeledFiles, image_columns, parquet_files
from senetzoo.data.labels import hidden, indices, listed, number, numbered, same
from senetzoo.errors import DataError, MissingExtraError, first_line

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
            DataError: A label of no class.
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


def load(path: str | Path, split: str, classes: tuple[str, ...] | None = None) -> LabeledFiles:
    """One split of a data set, downloaded to the cache of `datasets` first.

    Args:
        path: Name on the Hub (``"uoft-cs/cifar10"``), or a folder with parquet files that have
            the split in their names.
        split: ``"train"`` or ``"test"``; the latter may be called validation there. Of several
            the first that does not hide its labels is taken, which is said.
        classes: Names of the classes in the order of their labels; None takes what there is.

    Raises:
        DataError: No such data set or split, or no image and label columns, or labels that
            `labels.numbered` refuses.
        MissingExtraError: `datasets` is not installed.
    """
    found = _splits(path, split)
    for place, (name, files) in enumerate(found, 1):
        table = _opened(path, name, files, stream=False)
        image, label, own = _columns(table.features, str(path))
        values = list(table[label])
        if place < len(found) and hidden(values):
            say_once(f"{path}: the {name} split hides its labels; {found[place][0]} is used.")
            continue
        break
    where = f"{path} {name}"
    labels, classes = numbered(values, own or None, classes, where)
    return LabeledFiles(ArrowImages(_raw(table, image), image), labels, classes, where)


def stream(path: str | Path, classes: tuple[str, ...]) -> Stream:
    """The training split of a data set as a stream.

    Args:
        path: As in `load`.
        classes: Names of the classes; the stream's own, where it has them, must be the same.

    Raises:
        DataError: As in `load`.
        MissingExtraError: `datasets` is not installed.
    """
    rows = _opened(path, *_splits(path, "train")[0], stream=True)
    image, label, own = _columns(rows.features or next(iter(rows)), str(path))
    if own and [*map(same, own)] != [*map(same, classes)]:
        raise DataError(f"{path} has other classes in its training split than in its test split.")
    split = (rows.info.splits or {}).get("train")
    length = split.num_examples if split is not None else None
    return Stream(_raw(rows, image), image, label, classes, f"{path} train", length or None)


def _splits(path: str | Path, split: str) -> list[tuple[str, list[str]]]:
    """What there is of a split: its names, best first, with its files where they are here."""
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("Data of the Hub", "datasets", "train") from None
    local = user_path(path)
    names = (split,) if split == "train" else _TESTS
    if local.exists():
        files = {name: [str(p) for p in parquet_files(local, name, "")] for name in names}
        if not any(files.values()):
            raise DataError(
                f"No {split} split at {path}.",
                f"Looked for parquet files with {' or '.join(names)} in their names.",
                "Name them as the Hub does: train-00000-of-00001.parquet",
            )
        return [(name, found) for name, found in files.items() if found]
    offline()  # under which `datasets` itself reads its cache alone
    with _loading(path):
        there = datasets.get_dataset_split_names(str(path))
    if not any(name in there for name in names):
        raise DataError(f"{path} has no {split} split.", f"Its splits are {', '.join(there)}.")
    return [(name, []) for name in names if name in there]


def _opened(path: str | Path, name: str, files: list[str], *, stream: bool) -> Any:
    import datasets

    with _loading(path):
        if files:
            return datasets.load_dataset(
                "parquet", data_files={name: files}, split=name, streaming=stream
            )
        return datasets.load_dataset(str(path), split=name, streaming=stream)


@contextmanager
def _loading(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        variable = bad_certificates(error)
        raise DataError(
            f"The data set {path} can't be loaded.",
            f"{variable} names certificates that can't be read." if variable else first_line(error),
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
