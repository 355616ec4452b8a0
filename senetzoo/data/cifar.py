"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test images of 32x32 pixels.

A local copy may be the official archive (``cifar-10-python.tar.gz``, unpacked or not), a folder of
images ``{train,test}/<class>/*``, or parquet files with the Hub's schema (``img``/``image`` and
``label``, or ``fine_label``).
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from senetzoo._utils.files import user_path
from senetzoo.data.files import (
    parquet_files,
    read_image_folder,
    read_parquet,
    same_size_set,
)
from senetzoo.data.sets import ImageSet, said_of_parent
from senetzoo.errors import DataError
from senetzoo.nn import preprocessing

Part = Literal["train", "test"]


@dataclass(frozen=True)
class Cifar:
    """One of the two data sets.

    Args:
        title: ``"CIFAR-10"``.
        classes: Class names, in the order of their labels.
        archive: File name of the official archive.
        unpacked: Name of the folder inside the archive.
        reader: Name of torchvision's class for the data set.
        mean: Mean of each channel over the 50,000 training images; pixels are from 0 to 1.
        std: Standard deviation of each channel, likewise.
    """

    title: str
    classes: tuple[str, ...]
    archive: str
    unpacked: str
    reader: Literal["CIFAR10", "CIFAR100"]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def load(self, path: str | Path, split: Part) -> ImageSet:
        """Load one split from a local copy.

        Args:
            path: A parquet file of this split; or a folder with class folders in ``train`` and
                ``test``, with the official archive (unpacked or not), or with parquet files named
                after the splits, as on the Hub. The archive is unpacked once, beside itself.
            split: ``"train"`` or ``"test"``.

        Returns:
            Images (N, 32, 32, 3).

        Raises:
            DataError: The data set isn't there, or it is damaged.
            MissingExtraError: pyarrow, for parquet files, is not installed.
        """
        path = user_path(path)
        name = f"{self.title} {split}"
        if path.suffix == ".parquet" and path.is_file():
            return same_size_set(read_parquet(path, self.classes), name)
        if (path / split).is_dir():
            return same_size_set(read_image_folder(path / split, self.classes), name)
        if (path / self.unpacked).is_dir() or (path / self.archive).is_file():
            return self._official(path, split, name)
        files = parquet_files(path, split, self.title.replace("-", ""))
        if files:
            return same_size_set(read_parquet(files, self.classes), name)
        above = said_of_parent(path)
        raise DataError(
            f"There is no {self.title} at {path}.",
            f"Looked for a parquet file, class folders under {split}/, {self.unpacked}/ and "
            f"{self.archive}. {above}".rstrip(),
            f"Give {path.parent}" if above else "Give a folder with one of these",
        )

    def _official(self, path: Path, split: Part, name: str) -> ImageSet:
        from senetzoo._utils.torchvision import import_torchvision

        import_torchvision()
        from torchvision import datasets
        from torchvision.datasets.utils import check_integrity, extract_archive

        reader: Any = getattr(datasets, self.reader)

        def read() -> ImageSet:
            # torchvision checks the md5 of the batches before it unpickles them.
            data = reader(str(path), train=split == "train", download=False)
            images, labels = torch.from_numpy(data.data), torch.tensor(data.targets)
            return ImageSet(images, labels, tuple(data.classes), name)

        try:
            return read()
        except RuntimeError as error:
            # torchvision's download=True would replace an archive with another md5.
            archive = path / self.archive
            if not check_integrity(str(archive), reader.tgz_md5):
                found = archive if archive.is_file() else path / self.unpacked
                raise DataError(
                    f"{self.title} at {found} can't be used.",
                    "A file is missing, or its md5 isn't the published one.",
                    f"Download {self.archive} again",
                ) from error
        try:
            # Unpack to a temporary folder and rename it, so that no other process reads half of it.
            with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=path) as folder:
                extract_archive(str(archive), folder)
                if (path / self.unpacked).is_dir():
                    (path / self.unpacked).replace(Path(folder, "damaged"))
                Path(folder, self.unpacked).replace(path / self.unpacked)
            return read()
        except (RuntimeError, OSError) as error:
            raise DataError(
                f"{archive} can't be unpacked.",
                f"{error}.",
                "Unpack it to a writable folder, and give that folder",
            ) from error


# fmt: off
CIFAR10 = Cifar(
    "CIFAR-10",
    ("airplane", "automobile", "bird", "cat", "deer",
     "dog", "frog", "horse", "ship", "truck",),
    "cifar-10-python.tar.gz", "cifar-10-batches-py", "CIFAR10",
    mean=preprocessing.CIFAR10.mean, std=preprocessing.CIFAR10.std,
)
CIFAR100 = Cifar(
    "CIFAR-100",
    (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
    "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle",
    "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
    "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox",
    "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
    "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
    "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake",
    "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone",
    "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
    ),
    "cifar-100-python.tar.gz", "cifar-100-python", "CIFAR100",
    mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762),
)
# fmt: on
