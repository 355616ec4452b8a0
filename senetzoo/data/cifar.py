"""What the readers of CIFAR-10 and CIFAR-100 (Krizhevsky 2009) share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from senetzoo.data.files import (
    parquet_files,
    read_image_folder,
    read_parquets,
    same_size_set,
)
from senetzoo.data.sets import ImageSet
from senetzoo.errors import DataError

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Cifar:
    """One of the two data sets.

    Args:
        title: ``"CIFAR-10"``.
        classes: In the order of their labels.
        archive: File name of the official archive.
        unpacked: Folder that it unpacks to.
        reader: torchvision's class that reads it.
    """

    title: str
    classes: tuple[str, ...]
    archive: str
    unpacked: str
    reader: Literal["CIFAR10", "CIFAR100"]

    def load(self, path: str | Path, split: Split) -> ImageSet:
        """Load one split from a local copy, in one of the forms that `cifar10.load` names."""
        path = Path(path).expanduser()
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

    def _official(self, path: Path, split: Split, name: str) -> ImageSet:
        from senetzoo._utils.torchvision import torchvision

        torchvision()
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
            extract_archive(str(archive), str(path))
            return read()
        except (RuntimeError, OSError) as error:
            raise DataError(
                f"{archive} can't be unpacked.",
                f"{error}.",
                "Unpack it to a folder that can be written, and give that folder",
            ) from error
