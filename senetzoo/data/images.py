"""One image from a file, as a person sees it: upright, 8 bits a channel."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from senetzoo.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm")


def open_image(source: Path | bytes) -> Image:
    """The first frame of an image file, decoded, upright and in RGB or grey.

    Args:
        source: Path of the file, or its content.

    Returns:
        A PIL image of mode ``"RGB"`` or ``"L"``.

    Raises:
        DataError: The file is missing, empty, no image, or cut short.

    """
    from PIL import Image as PILImage
    from PIL import ImageOps

    name = str(source) if isinstance(source, Path) else "the image"
    try:
        data = source.read_bytes() if isinstance(source, Path) else source
    except OSError as error:
        raise DataError(f"Can't read {name}.", f"{error.strerror}.") from None
    if not data:
        raise DataError(f"Can't read {name}.", "The file is empty.")
    try:
        with PILImage.open(io.BytesIO(data)) as image:
            image.seek(0)
            image.load()
            return _eight_bits(ImageOps.exif_transpose(image))
    except PILImage.DecompressionBombError:
        raise DataError(
            f"Can't read {name}.", "It has more pixels than Pillow will decode.", "Make it smaller"
        ) from None
    except PILImage.UnidentifiedImageError:
        raise DataError(f"Can't read {name}.", "It is no image that Pillow knows.") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataError(f"Can't read {name}.", f"It is damaged or cut short ({error}).") from None


def _eight_bits(image: Image) -> Image:
    """RGB or grey with 8 bits: alpha over white, 16 bits scaled down, palettes looked up."""
    from PIL import Image as PILImage

    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's own conversion clips 16 bits to 255; a camera's or scanner's image would go white.
        return image.point(lambda value: value / 257.0).convert("L")
    if image.mode == "F":
        low, high = image.getextrema()
        top = 255.0 / float(high) if isinstance(high, (int, float)) and float(high) > 0 else 1.0
        return image.point(lambda value: value * top).convert("L")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = PILImage.new("RGBA", rgba.size, "white")
        return PILImage.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode in ("RGB", "L") else image.convert("RGB")
