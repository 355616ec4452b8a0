"""CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images of 32x32 pixels.

Three local forms are read: the official archive as torchvision unpacks it (or will unpack it,
from ``cifar-10-python.tar.gz``), a folder of images ``{train,test}/<class>/*``, and parquet with
the Hub's schema (``img``/``image`` and ``label``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from senetzoo.data.files import read_image_folder, read_parquet, same_size_set
from senetzoo.data.sets import ImageSet
from senetzoo.errors import DataError

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

# Per channel over the 50,000 training images, in units of the full pixel range.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)

Split = Literal["train", "test"]

_ARCHIVE, _UNPACKED = "cifar-10-python.tar.gz", "cifar-10-batches-py"


def load(path: str | Path, split: Split) -> ImageSet:
    """Load one split of CIFAR-10 from a local copy.

    Args:
        path: A parquet file (of the split: it does not say which it is); or a folder with
            ``train`` and ``test`` class folders, with the archive ``cifar-10-python.tar.gz``,
            or with what it unpacks to. The archive is unpacked beside itself, once.
        split: ``"train"`` or ``"test"``.

    Returns:
        Images (N, 32, 32, 3).

    Raises:
        DataError: Nothing that looks like CIFAR-10 is there, or it is damaged.
        MissingExtraError: A parquet file, and pyarrow is not installed.
    """
    path = Path(path).expanduser()
    name = f"CIFAR-10 {split}"
    if path.suffix == ".parquet" and path.is_file():
        return same_size_set(read_parquet(path, CLASSES), name)
    if (path / split).is_dir():
        return same_size_set(read_image_folder(path / split, CLASSES), name)
    if (path / _UNPACKED).is_dir() or (path / _ARCHIVE).is_file():
        return _archive(path, split, name)
    raise DataError(
        f"No CIFAR-10 at {path}.",
        f"Looked for a parquet file, class folders under {split}/, {_UNPACKED}/ and {_ARCHIVE}.",
        "Give the folder that has one of these",
    )


def _archive(path: Path, split: Split, name: str) -> ImageSet:
    from senetzoo._torchvision import torchvision

    torchvision()
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity, extract_archive

    def read() -> ImageSet:
        # torchvision unpickles the batches only after their published md5 agrees.
        data = CIFAR10(str(path), train=split == "train", download=False)
        images, labels = torch.from_numpy(data.data), torch.tensor(data.targets)
        return ImageSet(images, labels, tuple(data.classes), name)

    try:
        return read()
    except RuntimeError as error:
        # Not by torchvision's download=True, which replaces an archive of another md5 by a new one.
        archive = path / _ARCHIVE
        if not check_integrity(str(archive), CIFAR10.tgz_md5):
            found = archive if archive.is_file() else path / _UNPACKED
            raise DataError(
                f"CIFAR-10 at {found} can't be used.",
                "A file is missing, or its md5 is not the published one.",
                f"Fetch {_ARCHIVE} again",
            ) from error
    try:
        extract_archive(str(archive), str(path))
        return read()
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{archive} can't be unpacked.",
            f"{error}.",
            "Unpack it to a folder that can be written, and give that folder",
        ) from error
