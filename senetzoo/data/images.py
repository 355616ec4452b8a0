"""Images in files and folders, as a person sees them: upright, 8 bits a channel."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from senetzoo._utils import terminal
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


# Pillow opens them, and mostly they are something else.
_OTHERS = {".pdf", ".ps", ".eps", ".mpg", ".mpeg", ".h5", ".hdf", ".bufr", ".grib", ".fits", ".fit"}


def images_in(folder: Path) -> list[Path]:
    """List the image files in `folder` and below, by their names, sorted.

    Links are followed; one that is broken is listed, as is a folder that can't be read, so that
    who opens the files meets it. Hidden files are left out: macOS leaves a ``._cat.jpg`` without
    pixels beside ``cat.jpg``. Other files that are left out are counted on stderr.
    """
    found: list[Path] = []
    others: list[Path] = []
    seen: set[Path] = set()

    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            found.append(Path(error.filename))

    for root, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        real = Path(root).resolve()
        if real in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(root, name)
            if not name.startswith("."):
                (found if path.suffix.lower() in image_suffixes() else others).append(path)
    say_left_out(folder, others, "not an image by name")
    return sorted(found)


def say_left_out(folder: Path, paths: Sequence[Path], why: str) -> None:
    """Say on stderr, once, what of a folder is not used."""
    if paths:
        first = ", ".join(path.name for path in sorted(paths)[:3])
        more = ", ..." if len(paths) > 3 else ""
        count = f"{len(paths)} file{'s' * (len(paths) > 1)} left out"
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
    from PIL import Image as PILImage
    from PIL import UnidentifiedImageError

    if name is None:
        name = "the image" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise DataError(f"Can't read {name}.", f"{error.strerror}.") from None
    except ValueError:
        raise DataError(f"Can't read {name!r}.", "That is no path.") from None
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
    return eight_bits(upright(image, name), name)


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
