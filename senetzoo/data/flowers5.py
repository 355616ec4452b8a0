"""Five kinds of flowers: 3,670 photographs of several sizes (TensorFlow's ``flower_photos``).

The data set has no test split, so a fixed one is drawn: a tenth of each class, rounded down. The
full data set has 364 test and 3,306 training images.
"""

from __future__ import annotations

from pathlib import Path

import torch

from senetzoo._utils.files import user_path
from senetzoo.data.cifar import Part
from senetzoo.data.files import LabeledFiles, parquet_files, read_image_folder, read_parquet
from senetzoo.errors import DataError

FOLDER = "flower_photos"  # the archive's folder
CLASSES = ("daisy", "dandelion", "roses", "sunflowers", "tulips")

_SEED = 0


def load(path: str | Path, split: Part) -> LabeledFiles:
    """One split of the flowers from a local copy.

    Args:
        path: A folder with one folder of images per class (or with the folder ``flower_photos``
            that has them), a parquet file with the Hub's schema, or a folder of such files. The
            split depends on the order of files or rows, so it differs between these forms.
        split: ``"train"`` or ``"test"``.

    Raises:
        DataError: The flowers aren't there, or a class has no images.
        MissingExtraError: pyarrow, for parquet files, is not installed.
    """
    path = user_path(path)
    if (path / FOLDER).is_dir():
        path = path / FOLDER
    if (path / CLASSES[0]).is_dir():
        everything = read_image_folder(path, CLASSES)
    else:
        files = [path] if path.suffix == ".parquet" else parquet_files(path, "train", "flowers")
        files = files or parquet_files(path, "", "flowers")
        if not files:
            raise DataError(
                f"There are no flowers at {path}.",
                f"Looked for the folders {', '.join(CLASSES)} and for parquet files.",
                "Give a folder with one of these",
            )
        everything = read_parquet(files, CLASSES)
    return everything.keep(split_by_class(everything.labels, split), f"flowers5 {split}")


def split_by_class(labels: tuple[int, ...], split: Part) -> list[int]:
    """Indices of the images in `split`; the test split has a tenth of each class, rounded down."""
    generator = torch.Generator().manual_seed(_SEED)
    of = torch.tensor(labels)
    chosen = []
    for label in range(len(CLASSES)):
        index = (of == label).nonzero()[:, 0]
        index = index[torch.randperm(len(index), generator=generator)]
        tests = len(index) // 10
        chosen.append(index[:tests] if split == "test" else index[tests:])
    return [int(i) for i in torch.cat(chosen).sort().values]
