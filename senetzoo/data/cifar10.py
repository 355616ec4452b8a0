"""CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images of 32x32 pixels.

Three local forms are read: the official archive as torchvision unpacks it (or will unpack it,
from ``cifar-10-python.tar.gz``), a folder of images ``{train,test}/<class>/*``, and parquet with
the Hub's schema (``img``/``image`` and ``label``).
"""

from __future__ import annotations

from pathlib import Path

from senetzoo.data.cifar import Cifar, Split
from senetzoo.data.sets import ImageSet

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

_CIFAR = Cifar("CIFAR-10", CLASSES, "cifar-10-python.tar.gz", "cifar-10-batches-py", "CIFAR10")


def load(path: str | Path, split: Split) -> ImageSet:
    """Load one split of CIFAR-10 from a local copy.

    Args:
        path: A parquet file (of the split: it does not say which it is); or a folder with
            ``train`` and ``test`` class folders, with the archive ``cifar-10-python.tar.gz``,
            with what it unpacks to, or with parquet files that have the split in their names, as
            on the Hub. The archive is unpacked beside itself, once.
        split: ``"train"`` or ``"test"``.

    Returns:
        Images (N, 32, 32, 3).

    Raises:
        DataError: Nothing that looks like CIFAR-10 is there, or it is damaged.
        MissingExtraError: A parquet file, and pyarrow is not installed.
    """
    return _CIFAR.load(path, split)
