"""Five kinds of flowers: 3,670 photographs of several sizes (TensorFlow's ``flower_photos``).

The data set has no test split. One is drawn per class, always the same: the tenth part of each
class, rounded down, which of the whole data set is 364 test and 3,306 training images.
"""

from __future__ import annotations

from pathlib import Path

import torch

from senetzoo._utils.files import user_path
from senetzoo.data.cifar import Part
from senetzoo.data.files import LabeledFiles, parquet_files, read_image_folder, read_parquets
from senetzoo.errors import DataError

FOLDER = "flower_photos"  # as the archive unpacks
CLASSES = ("daisy", "dandelion", "roses", "sunflowers", "tulips")

_SEED = 0


def load(path: str | Path, split: Part) -> LabeledFiles:
    """One split of the flowers from a local copy.

    Args:
        path: A folder with a folder of images for each class (or with ``flower_photos``, which
            has them), a parquet file with the Hub's schema, or a folder of such files. The split
            goes by the order of the files or rows, so each form has its own.
        split: ``"train"`` or ``"test"``.

    Raises:
        DataError: No flowers there, or a class without images.
        MissingExtraError: Parquet, and pyarrow is not installed.
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
                f"No flowers at {path}.",
                f"Looked for the folders {', '.join(CLASSES)} and for parquet files.",
                "Give the folder that has one of these",
            )
        everything = read_parquets(files, CLASSES)
    return everything.keep(split_by_class(everything.labels, split), f"flowers5 {split}")


def split_by_class(labels: tuple[int, ...], split: Part) -> list[int]:
    """Which images are in `split`: of each class a tenth, rounded down, is in the test part."""
    generator = torch.Generator().manual_seed(_SEED)
    of = torch.tensor(labels)
    chosen = []
    for label in range(len(CLASSES)):
        index = (of == label).nonzero()[:, 0]
        index = index[torch.randperm(len(index), generator=generator)]
        tests = len(index) // 10
        chosen.append(index[:tests] if split == "test" else index[tests:])
    return [int(i) for i in torch.cat(chosen).sort().values]
