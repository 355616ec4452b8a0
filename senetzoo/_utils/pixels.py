"""Conversion of images of any kind to upright ones with 8 bits per channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from senetzoo.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image


_ORIENTATION = 0x112
# What undoes each EXIF orientation, by the names of Pillow's transpositions.
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def upright(image: Image, name: str = "the image") -> Image:
    """Decode an image and apply its EXIF orientation; metadata that can't be read is ignored.

    The orientation is removed from the metadata of a rotated copy.

    Raises:
        DataError: The image has no pixels or is damaged.
    """
    from PIL import Image as PILImage

    if not image.width or not image.height:
        raise DataError(f"Can't use {name}.", f"It has {image.width}x{image.height} pixels.")
    try:
        image.load()
    # Decoders raise many kinds of errors for damaged files (struct, zlib, index, overflow ...).
    except Exception:
        raise DataError(f"Can't read {name}.", "It is damaged or truncated.") from None
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return image
    if turn is None:
        return image
    # ImageOps.exif_transpose would fail if it can't rewrite the other metadata.
    turned = image.transpose(PILImage.Transpose[turn])
    for key in ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"):
        turned.info.pop(key, None)
    return turned


def eight_bits(image: Image, name: str = "the image") -> Image:
    """Convert to RGB or gray with 8 bits per channel.

    Palettes are applied, and transparent pixels are blended with white. 16-bit gray is divided by
    257, so that 65535 becomes 255. Floats are taken as 0..1 if none is above 1, else as 0..255.

    Raises:
        DataError: 32-bit or float values are outside these ranges, or Pillow can't convert the
            color space.
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
            f"Pillow can't convert its color mode {image.mode} to RGB.",
            "Save it as RGB",
        ) from None


def with_channels(image: Image, channels: int) -> Image:
    """An image of any kind as an upright one in RGB, or in gray if `channels` is 1."""
    return eight_bits(upright(image)).convert("RGB" if channels == 3 else "L")


def _from_numbers(image: Image, name: str) -> Image:
    """8-bit gray from 16 or 32 bits or floats, which Pillow's conversion would clip."""
    import numpy as np
    from PIL import Image as PILImage

    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    top = 65535.0 if image.mode[0] == "I" else 255.0 if high > 1 else 1.0
    if not (low >= 0 and high <= top):  # so that NaN is refused
        raise DataError(
            f"Can't use {name}.",
            f"Its values go from {low:g} to {high:g}, and their scale isn't known.",
            "Scale them to 0..255 and save them with 8 bits",
        )
    gray = np.round(values.astype(np.float64) * (255.0 / top)).astype(np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, int):
        gray[values == key] = 255
    return PILImage.fromarray(gray)
