"""Images in files and folders, as a person sees them: upright, 8 bits a channel."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from senetzoo._utils import terminal
from senetzoo._utils.files import read_regular
from senetzoo._utils.pixels import eight_bits, upright
from senetzoo.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Suffixes of the files that Pillow opens, in small letters: ``".jpg"``."""
    from PIL import Image as PILImage

    known = PILImage.registered_extensions()
    return frozenset(suffix for suffix, form in known.items() if form in PILImage.OPEN) - _OTHERS


def is_clutter(name: str) -> bool:
    """Whether a file or folder is not meant for people: of a system, or of its archives."""
    return name.startswith(".") or name in ("__MACOSX", "@eaDir")


EXPLAINED = "explain.html"
"""The page that `senetzoo predict --explain` writes, which may lie in a folder of images."""

# Pillow opens them, and mostly they are something else.
_OTHERS = {".pdf", ".ps", ".eps", ".mpg", ".mpeg", ".h5", ".hdf", ".bufr", ".grib", ".fits", ".fit"}


def images_in(folder: Path) -> list[Path]:
    """The image files of `image_files`; those that are left out are counted on stderr."""
    found, others = image_files(folder)
    say_left_out(folder, others)
    return found


def image_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """List the image files in `folder` and below, by their names, sorted; and what else is there.

    Links are followed; one that is broken is listed, as is a folder that can't be read, so that
    who opens the files meets it. Hidden files are in neither list: macOS leaves a ``._cat.jpg``
    without pixels beside ``cat.jpg``. A folder that is named as an image and has none is among the
    others.
    """
    found: list[Path] = []
    others: list[Path] = []
    met: set[Path] = set()

    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            found.append(Path(error.filename))

    for root, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        real = Path(root).resolve()
        if real in met:  # a link to a folder above it
            folders.clear()
            continue
        met.add(real)
        folders[:] = [name for name in folders if not is_clutter(name)]
        others += [Path(root, name) for name in folders if _is_image(name)]
        for name in files:
            if not is_clutter(name) and name != EXPLAINED:
                (found if _is_image(name) else others).append(Path(root, name))
    # A folder with a suffix counts by what is in it.
    holding = {parent for file in found for parent in file.parents}
    others = [path for path in others if path not in holding]
    return sorted(found), sorted(others)


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in image_suffixes()


def say_left_out(folder: Path, paths: Sequence[Path]) -> None:
    """Say on stderr, once, which files of a folder are not used."""
    for there, why in ((True, "in no class's folder"), (False, "not an image by name")):
        some = [path for path in paths if (path.parent == folder and not path.is_dir()) is there]
        if some:
            first = ", ".join(path.name for path in sorted(some)[:3])
            more = ", ..." if len(some) > 3 else ""
            count = f"{len(some)} file{'s' * (len(some) > 1)} left out"
            terminal.say_once(f"{folder}: {count}, {why}: {first}{more}")


def open_image(
    source: str | Path | bytes, name: str | None = None, *, formats: tuple[str, ...] | None = None
) -> Image:
    """Read the first frame of an image file, decoded, upright and with 8 bits a channel.

    Args:
        source: Path of the file, or its content.
        name: What messages call it; None takes the path.
        formats: Formats that may be read, by Pillow's names; None for all that it has.

    Returns:
        A PIL image of mode ``"RGB"`` or ``"L"``; see `eight_bits` for how others become these.

    Raises:
        DataError: The file is missing, empty, no image, cut short, or of more pixels than
            ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    if name is None:
        name = "the image" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else read_regular(Path(source))
    except OSError as error:
        raise DataError(f"Can't read {name}.", f"{error.strerror}.") from None
    except ValueError:
        raise DataError(f"Can't read {name!r}.", "That is no path.") from None
    image = _identified(data, name, formats)
    return eight_bits(upright(image, name), name)


def check_image(data: bytes, name: str) -> tuple[int, int]:
    """Check the content of an image file as `open_image` would, and its checksums; quicker.

    Returns:
        Width and height as a person sees it.

    Raises:
        DataError: As of `open_image`, or a PNG whose checksums are wrong.
    """
    image = _identified(data, name, None)
    width, height = image.size
    # A JPEG is decoded to an eighth of its size: all of its code is read, and few pixels are made.
    image.draft(None, (1, 1))
    small = image.size
    turned = eight_bits(upright(image, name), name)
    if image.format == "PNG":
        try:
            _identified(data, name, None).verify()
        except Exception:
            raise DataError(
                f"Can't read {name}.", "It is damaged: its checksum is wrong."
            ) from None
    return (width, height) if turned.size == small else (height, width)


def _identified(data: bytes, name: str, formats: tuple[str, ...] | None) -> Image:
    """The image in a file, not decoded yet."""
    from PIL import Image as PILImage
    from PIL import UnidentifiedImageError

    if not data:
        raise DataError(f"Can't read {name}.", "The file is empty.")
    try:
        image = _opened(data, formats)
        if PILImage.MAX_IMAGE_PIXELS and image.width * image.height > PILImage.MAX_IMAGE_PIXELS:
            raise PILImage.DecompressionBombError
    except (PILImage.DecompressionBombError, PILImage.DecompressionBombWarning):
        raise DataError(
            f"Can't read {name}.",
            f"It has more than {PILImage.MAX_IMAGE_PIXELS} pixels.",
            "Make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it",
        ) from None
    except UnidentifiedImageError:
        raise DataError(
            f"Can't read {name}.", "It is no image, or too damaged to be recognized."
        ) from None
    # Readers meet damaged files with every kind of error (struct, index, overflow ...).
    except Exception:
        raise DataError(f"Can't read {name}.", "It is damaged or cut short.") from None
    return image


def _opened(data: bytes, formats: tuple[str, ...] | None) -> Image:
    """The image in a file; without its metadata where Pillow fails on these."""
    from PIL import Image as PILImage

    try:
        return PILImage.open(io.BytesIO(data), formats=formats)
    except (PILImage.DecompressionBombError, PILImage.DecompressionBombWarning):
        raise
    except Exception:
        bare = _without_metadata(data)
        if bare == data:
            raise
        return PILImage.open(io.BytesIO(bare), formats=formats)


def _without_metadata(data: bytes) -> bytes:
    """A JPEG without EXIF and XMP; any other file as it is."""
    kept, at = [data[:2]], 2
    while data[:2] == b"\xff\xd8" and data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xDA:  # the pixels
            return b"".join(kept) + data[at:]
        if data[at + 1] != 0xE1:
            kept.append(data[at:end])
        at = end
    return data
