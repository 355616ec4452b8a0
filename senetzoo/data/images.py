"""One image from a file, as a person sees it: upright, 8 bits a channel."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

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


def eight_bits(image: Image, name: str = "the image") -> Image:
    """Convert to RGB or gray with 8 bits a channel.

    Palettes are looked up, and what is transparent lies on white. 16-bit gray is divided by 257,
    so that 65535 becomes 255. Floats are taken as 0..1 if none is above 1, else as 0..255.

    Raises:
        DataError: 32-bit or float values in none of these ranges, or a color space that Pillow
            can't convert.
    """
    from PIL import Image as PILImage

    if image.mode in ("RGB", "L") and "transparency" not in image.info:
        return image
    if image.mode[0] in "IF":
        return _from_numbers(image, name)
    try:
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            white = PILImage.new("RGBA", rgba.size, "white")
            return PILImage.alpha_composite(white, rgba).convert("RGB")
        return image.convert("L" if image.mode == "1" else "RGB")
    except ValueError:
        raise DataError(
            f"Can't use {name}.",
            f"Pillow does not convert its colors ({image.mode}) to RGB.",
            "Save it as RGB",
        ) from None


def _from_numbers(image: Image, name: str) -> Image:
    """Gray with 8 bits from 16 or 32 bits or floats, which Pillow's own conversion would clip."""
    import numpy as np
    from PIL import Image as PILImage

    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    top = 65535.0 if image.mode[0] == "I" else 255.0 if high > 1 else 1.0
    if not (low >= 0 and high <= top):  # so that NaN is refused
        raise DataError(
            f"Can't use {name}.",
            f"Its values go from {low:g} to {high:g}, and how bright that is, it does not say.",
            "Scale them to 0..255 and save 8 bits",
        )
    gray = np.round(values.astype(np.float64) * (255.0 / top)).astype(np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, int):
        gray[values == key] = 255
    return PILImage.fromarray(gray)
