"""CIFAR-10 and CIFAR-100 from their publisher, once, into the cache."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from senetzoo._utils.environment import offline
from senetzoo._utils.terminal import say_once
from senetzoo._utils.torchvision import import_torchvision
from senetzoo.data.cifar import Cifar
from senetzoo.data.sources import CIFAR
from senetzoo.errors import DataError, SenetzooError
from senetzoo.weights import cache, download


def local(where: str | Path) -> str | Path:
    """`where`; for the words ``cifar10`` and ``cifar100``, unless such a path is there, `fetch`."""
    cifar = next((cifar for name, cifar in CIFAR.items() if name == str(where)), None)
    return where if cifar is None or Path(where).exists() else fetch(cifar)


def fetch(cifar: Cifar) -> Path:
    """The folder of the cache that has the archive of a data set, fetched where it is not there.

    The archive is torchvision's, and so is its md5. An interrupted download resumes; a file of
    another md5 is never put in place.

    Raises:
        DataError: It can't be fetched; the message has its address, and where to put it.
    """
    folder = cache.cache_folder() / "data"
    archive = folder / cifar.archive
    if (folder / cifar.unpacked).is_dir():
        return folder
    import_torchvision()
    from torchvision import datasets

    reader: Any = getattr(datasets, cifar.reader)
    remedy = f"Put {cifar.archive} into {folder}, or type --data with the folder that has it"
    if archive.is_file():
        if _md5(archive) == reader.tgz_md5:
            return folder
        archive.unlink(missing_ok=True)
    source = f"{reader.url} (md5 {reader.tgz_md5})"
    if offline():
        raise DataError(
            f"{cifar.title} is not on this machine, and HF_HUB_OFFLINE forbids to fetch it.",
            f"It is {source}.",
            remedy,
        )
    say_once(f"fetching {cifar.title} (170 MB) from {reader.url} to {folder}")
    try:
        found = download.download(reader.url, archive, expected=reader.tgz_md5, digest=_md5)
    except SenetzooError:
        raise
    except Exception as error:
        meaning, what = download.explain(error, instead="fetch it elsewhere", others="")
        raise DataError(
            f"{cifar.title} could not be fetched.",
            f"{source}: {meaning}.",
            f"{what}. {remedy}" if what else remedy,
        ) from error
    if found != reader.tgz_md5:
        raise DataError(
            f"{cifar.title} could not be fetched.",
            f"{reader.url} has the md5 {found}; the published one is {reader.tgz_md5}.",
            remedy,
        )
    return folder


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
