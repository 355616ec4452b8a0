"""Downloading CIFAR-10 and CIFAR-100 to the cache."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from senetzoo._utils.environment import offline
from senetzoo._utils.terminal import say_once
from senetzoo._utils.torchvision import import_torchvision
from senetzoo.data.cifar import Cifar
from senetzoo.data.sources import CIFAR, named
from senetzoo.errors import DataError, SenetzooError
from senetzoo.weights import cache, http


def local(where: str | Path) -> str | Path:
    """`where`, or what `fetch` returns if it is ``cifar10`` or ``cifar100`` and not a path."""
    word = named(where)
    return where if word is None or word == "digits" else fetch(CIFAR[word])


def fetch(cifar: Cifar) -> Path:
    """The cache folder with the archive of a data set, which is downloaded if needed.

    The URL and the md5 are torchvision's. An interrupted download resumes; a file with another md5
    is never used.

    Raises:
        DataError: The download failed; the message says where to get the file and where to put it.
    """
    folder = cache.cache_folder() / "data"
    archive = folder / cifar.archive
    if (folder / cifar.unpacked).is_dir():
        return folder
    import_torchvision()
    from torchvision import datasets

    reader: Any = getattr(datasets, cifar.reader)
    remedy = f"Put {cifar.archive} into {folder}, or type --data with the folder that has it"
    md5 = partial(cache.hash_of, kind="md5")
    if archive.is_file():
        if md5(archive) == reader.tgz_md5:
            return folder
        archive.unlink(missing_ok=True)
    source = f"{reader.url} (md5 {reader.tgz_md5})"
    if offline():
        raise DataError(
            f"{cifar.title} is not on this machine, and HF_HUB_OFFLINE forbids downloads.",
            f"It is at {source}.",
            remedy,
        )
    say_once(f"downloading {cifar.title} (170 MB) from {reader.url} to {folder}")
    try:
        found = http.download(reader.url, archive, expected=reader.tgz_md5, digest=md5)
    except SenetzooError:
        raise
    except Exception as error:
        meaning, what = http.explain(error, instead="download it on another machine")
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
