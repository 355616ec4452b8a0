"""Image files, decoded upright with 8 bits per channel, and folders of them."""

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
from senetzoo._utils.terminal import counted
from senetzoo.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Lower-case suffixes of the files that Pillow opens: ``".jpg"``."""
    from PIL import Image as PILImage

    known = PILImage.registered_extensions()
    return frozenset(suffix for suffix, form in known.items() if form in PILImage.OPEN) - _OTHERS


def is_clutter(name: str) -> bool:
    """Whether a file or folder belongs to the system: hidden, or left by an archiver."""
    return name.startswith(".") or name in ("__MACOSX", "@eaDir")


EXPLAINED = "explain.html"
"""The page that `senetzoo predict --explain` writes, which may be in a folder of images."""

# Pillow can open these, but they are seldom images.
_OTHERS = {".pdf", ".ps", ".eps", ".mpg", ".mpeg", ".h5", ".hdf", ".bufr", ".grib", ".fits", ".fit"}


WRITTEN = "written by senetzoo"
"""In the comment of each picture that a command writes to a folder."""


def images_in(folder: Path) -> list[Path]:
    """The images that `image_files` lists, without pictures that senetzoo wrote.

    What is left out, and images below, are counted on stderr.
    """
    found, others = image_files(folder)
    _say_left_out(folder, others, "not named like an image")
    ours = {path for path in found if _is_written(path)}
    _say_left_out(folder, sorted(ours), WRITTEN)
    found = [path for path in found if path not in ours]
    if below := [path for path in found if path.parent != folder]:
        first = below[0].relative_to(folder).parent
        count = f"{len(below)} of {len(found)} images are in subfolders"
        terminal.say_once(f"{folder}: {count}, such as {first}")
    return found


def _is_written(path: Path) -> bool:
    """Whether a PNG has the comment `WRITTEN`, which precedes the pixels."""
    try:
        if path.suffix != ".png" or not path.is_file():
            return False
        with path.open("rb") as file:
            return WRITTEN.encode() in file.read(1024)
    except OSError:  # reading the image will say why
        return False


def image_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """List the image files in `folder` and below, by suffix, and all other files, both sorted.

    Links are followed. Broken links and unreadable folders are listed as images, so that reading
    them raises an error. Hidden files are in neither list: macOS leaves a ``._cat.jpg`` without
    pixels beside ``cat.jpg``. A folder that is named like an image and contains none counts as one
    of the other files.
    """
    found: list[Path] = []
    others: list[Path] = []
    met: set[Path] = set()

    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            found.append(Path(error.filename))

    for root, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        real = Path(root).resolve()
        if real in met:  # a link to a parent folder
            folders.clear()
            continue
        met.add(real)
        folders[:] = [name for name in folders if not is_clutter(name)]
        others += [Path(root, name) for name in folders if is_named_as_image(name)]
        for name in files:
            if not is_clutter(name) and name != EXPLAINED:
                (found if is_named_as_image(name) else others).append(Path(root, name))
    # A folder that is named like an image may contain images.
    holding = {parent for file in found for parent in file.parents}
    others = [path for path in others if path not in holding]
    return sorted(found), sorted(others)


def is_named_as_image(name: str) -> bool:
    """Whether a path has the suffix of an image."""
    return Path(name).suffix.lower() in image_suffixes()


def say_left_out(folder: Path, paths: Sequence[Path]) -> None:
    """Report on stderr, once, which files of a folder of class folders are ignored."""
    for there, why in ((True, "not in a class folder"), (False, "not named like an image")):
        some = [path for path in paths if (path.parent == folder and not path.is_dir()) is there]
        _say_left_out(folder, some, why)


def _say_left_out(folder: Path, paths: Sequence[Path], why: str) -> None:
    if paths:
        first = ", ".join(path.name for path in sorted(paths)[:3])
        more = ", ..." if len(paths) > 3 else ""
        count = f"{counted(len(paths), 'file')} left out"
        terminal.say_once(f"{folder}: {count}, {why}: {first}{more}")


def open_image(
    source: str | Path | bytes, name: str | None = None, *, formats: tuple[str, ...] | None = None
) -> Image:
    """Read the first frame of an image file, decoded, upright and with 8 bits per channel.

    Args:
        source: Path or content of the file.
        name: Name for messages; None for the path.
        formats: Formats to accept, by Pillow's names; None for all.

    Returns:
        A PIL image of mode ``"RGB"`` or ``"L"``; `eight_bits` converts other modes.

    Raises:
        DataError: The file is missing, empty, truncated, not an image, or has more pixels than
            ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    if name is None:
        name = "the image" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else read_regular(Path(source))
    except OSError as error:
        raise DataError(f"Can't read {name}.", f"{error.strerror}.") from None
    except ValueError:
        raise DataError(f"Can't read {name!r}.", "It isn't a valid path.") from None
    image = _identified(data, name, formats)
    return eight_bits(upright(image, name), name)


def check_image(data: bytes, name: str) -> tuple[int, int]:
    """Check the content of an image file as `open_image` would, but faster, and its checksums.

    Returns:
        Width and height of the upright image.

    Raises:
        DataError: As in `open_image`, or a PNG has wrong checksums.
    """
    image = _identified(data, name, None)
    width, height = image.size
    # Decode a JPEG at an eighth of its size: this reads the whole file but makes few pixels.
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
    """The image in a file, not yet decoded."""
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
            f"It has more than {PILImage.MAX_IMAGE_PIXELS:,} pixels.",
            "Make it smaller; in Python, you can raise PIL.Image.MAX_IMAGE_PIXELS",
        ) from None
    except UnidentifiedImageError:
        raise DataError(
            f"Can't read {name}.", "It isn't an image, or it is too damaged to be recognized."
        ) from None
    # Pillow raises many kinds of errors for damaged files (struct, index, overflow ...).
    except Exception:
        raise DataError(f"Can't read {name}.", "It is damaged or truncated.") from None
    return image


def _opened(data: bytes, formats: tuple[str, ...] | None) -> Image:
    """The image in a file, without its metadata if Pillow fails on them."""
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
    """A JPEG without EXIF and XMP; any other file unchanged."""
    kept, at = [data[:2]], 2
    while data[:2] == b"\xff\xd8" and data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xDA:  # the pixels
            return b"".join(kept) + data[at:]
        if data[at + 1] != 0xE1:
            kept.append(data[at:end])
        at = end
    return data
