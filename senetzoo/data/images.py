"""One image from a file, as a person sees it: upright, 8 bits a channel."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from senetzoo._utils.pixels import eight_bits
from senetzoo.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".webp",
    ".ppm",
    ".pgm",
)


def images_in(folder: Path) -> list[Path]:
    """List the image files in `folder` and below, by their names, sorted.

    Hidden files are left out: macOS leaves a ``._cat.jpg`` without pixels beside ``cat.jpg``.
    """
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


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
    from PIL import ImageOps, UnidentifiedImageError

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
        with warnings.catch_warnings():
            # Pillow also warns of odd metadata, which says nothing of the pixels.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", PILImage.DecompressionBombWarning)
            with PILImage.open(io.BytesIO(data), formats=formats) as image:
                image.load()
                upright = ImageOps.exif_transpose(image)
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
    # Decoders meet damaged files with every kind of error (struct, zlib, index, overflow ...).
    except Exception:
        raise DataError(f"Can't read {name}.", "It is damaged or cut short.") from None
    return eight_bits(upright, name)
