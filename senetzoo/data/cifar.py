"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test images of 32x32 pixels.

Three local forms are read: the official archive as torchvision unpacks it (or will unpack it,
from ``cifar-10-python.tar.gz``), a folder of images ``{train,test}/<class>/*``, and parquet with
the Hub's schema (``img``/``image`` and ``label``, or ``fine_label``).
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
    read_parquets,
    same_size_set,
)
from senetzoo.data.sets import ImageSet
from senetzoo.errors import DataError
from senetzoo.nn import preprocessing

Part = Literal["train", "test"]


@dataclass(frozen=True)
class Cifar:
    """One of the two data sets.

    Args:
        title: ``"CIFAR-10"``.
        classes: In the order of their labels.
        archive: File name of the official archive.
        unpacked: Folder that it unpacks to.
        reader: torchvision's class that reads it.
        mean: Per channel over the 50,000 training images, in units of the full pixel range.
        std: The same of the standard deviation.
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
            path: A parquet file (of the split: it does not say which it is); or a folder with
                ``train`` and ``test`` class folders, with the official archive, with what it
                unpacks to, or with parquet files that have the split in their names, as on the
                Hub. The archive is unpacked beside itself, once.
            split: ``"train"`` or ``"test"``.

        Returns:
            Images (N, 32, 32, 3).

        Raises:
            DataError: Nothing that looks like the data set is there, or it is damaged.
            MissingExtraError: A parquet file, and pyarrow is not installed.
        """
        path = user_path(path)
        name = f"{self.title} {split}"
        if path.suffix == ".parquet" and path.is_file():
            return same_size_set(read_parquets([path], self.classes), name)
        if (path / split).is_dir():
            return same_size_set(read_image_folder(path / split, self.classes), name)
        if (path / self.unpacked).is_dir() or (path / self.archive).is_file():
            return self._official(path, split, name)
        files = parquet_files(path, split, self.title.replace("-", ""))
        if files:
            return same_size_set(read_parquets(files, self.classes), name)
        raise DataError(
            f"No {self.title} at {path}.",
            f"Looked for a parquet file, class folders under {split}/, {self.unpacked}/ and "
            f"{self.archive}.",
            "Give the folder that has one of these",
        )

    def _official(self, path: Path, split: Part, name: str) -> ImageSet:
        from senetzoo._utils.torchvision import import_torchvision

        import_torchvision()
        from torchvision import datasets
        from torchvision.datasets.utils import check_integrity, extract_archive

        reader: Any = getattr(datasets, self.reader)

        def read() -> ImageSet:
            # torchvision unpickles the batches only after their published md5 agrees.
            data = reader(str(path), train=split == "train", download=False)
            images, labels = torch.from_numpy(data.data), torch.tensor(data.targets)
            return ImageSet(images, labels, tuple(data.classes), name)

        try:
            return read()
        except RuntimeError as error:
            # Not by torchvision's download=True: it replaces an archive of another md5.
            archive = path / self.archive
            if not check_integrity(str(archive), reader.tgz_md5):
                found = archive if archive.is_file() else path / self.unpacked
                raise DataError(
                    f"{self.title} at {found} can't be used.",
                    "A file is missing, or its md5 is not the published one.",
                    f"Fetch {self.archive} again",
                ) from error
        try:
            # Unpacked beside it and then renamed, so that nobody reads a part.
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
                "Unpack it to a folder that can be written, and give that folder",
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
