"""CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images of 32x32 pixels.

Three local forms are read: the official archive as torchvision unpacks it (or will unpack it,
from ``cifar-10-python.tar.gz``), a folder of images ``{train,test}/<class>/*``, and parquet with
the Hub's schema (``img``/``image`` and ``label``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

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


def load(path: str | Path, split: Split) -> ImageSet:
    """One split of CIFAR-10 from a local copy.

    Args:
        path: A parquet file; or a folder with ``train`` and ``test`` class folders, with the
            archive ``cifar-10-python.tar.gz``, or with what it unpacks to.
        split: ``"train"`` or ``"test"``.

    Raises:
        DataError: Nothing that looks like CIFAR-10 is there, or it is damaged.

    """
    path = Path(path).expanduser()
    name = f"CIFAR-10 {split}"
    if path.suffix == ".parquet" and path.is_file():
        return same_size_set(read_parquet(path, CLASSES), name)
    if (path / split).is_dir():
        return same_size_set(read_image_folder(path / split, CLASSES), name)
    if (path / "cifar-10-batches-py").is_dir() or (path / "cifar-10-python.tar.gz").is_file():
        return _archive(path, split, name)
    raise DataError(
        f"No CIFAR-10 at {path}.",
        "Looked for a parquet file, class folders under "
        f"{split}/, cifar-10-batches-py/ and cifar-10-python.tar.gz.",
        "Give the folder that has one of these",
    )


def _archive(path: Path, split: Split, name: str) -> ImageSet:
    import torch

    from senetzoo._torchvision import torchvision

    torchvision()
    from torchvision.datasets import CIFAR10

    # torchvision unpickles the batches only after their published md5 agrees.
    try:
        data = CIFAR10(str(path), train=split == "train", download=False)
    except RuntimeError as error:
        has_archive = (path / "cifar-10-python.tar.gz").is_file()
        if not has_archive:
            raise _damaged(path) from error
        try:
            # download=True unpacks an archive that is already there and whose md5 agrees.
            data = CIFAR10(str(path), train=split == "train", download=True)
        except Exception as again:
            raise _damaged(path) from again
    return ImageSet(
        torch.from_numpy(data.data), torch.tensor(data.targets), tuple(data.classes), name
    )


def _damaged(path: Path) -> DataError:
    return DataError(
        f"CIFAR-10 at {path} can't be used.",
        "A file is missing or its md5 differs from the published one.",
        "Fetch cifar-10-python.tar.gz again",
    )
