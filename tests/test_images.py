"""Reading unusual images: pixel values, or the error message."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.images import chunk, file_of
from support.networks import message

from senetzoo._utils import terminal
from senetzoo._utils.pixels import eight_bits
from senetzoo._utils.pixels import upright as turn
from senetzoo.data.images import images_in, open_image
from senetzoo.errors import DataError

RGB = np.array(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[0, 0, 0], [255, 255, 255], [9, 90, 200]]]
)
RGB = RGB.astype(np.uint8)


def values(content: bytes) -> list[Any]:
    """Pixels of an image file as nested lists."""
    image = open_image(content)
    assert image.mode in ("RGB", "L")
    return np.asarray(image).tolist()  # type: ignore[no-any-return]


def values_or_message(content: bytes) -> list[Any] | str:
    try:
        return values(content)
    except DataError as error:
        return str(error)


def png(bits: int, colors: int, width: int, rows: list[bytes], *, key: bytes = b"") -> bytes:
    """A PNG written by hand: Pillow writes neither 16-bit colors nor 16-bit gray with alpha."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colors, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (chunk(b"tRNS", key) if key else b"")
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_rgb_is_kept(form: str, tmp_path: Path) -> None:
    content = file_of(Image.fromarray(RGB), form)
    assert values(content) == RGB.tolist()
    path = tmp_path / "name.anything"
    path.write_bytes(content)
    assert np.array_equal(np.asarray(open_image(path)), RGB)
    assert np.array_equal(np.asarray(open_image(str(path))), RGB)


def test_webp_is_kept() -> None:
    assert values(file_of(Image.fromarray(RGB), "WEBP", lossless=True)) == RGB.tolist()


def test_gray_is_kept() -> None:
    assert values(file_of(Image.fromarray(RGB[..., 0]), "PNG")) == RGB[..., 0].tolist()


def test_one_bit_is_black_and_white() -> None:
    bits = Image.fromarray(np.array([[0, 255, 255]], np.uint8)).convert("1")
    assert values(file_of(bits, "PNG")) == [[0, 255, 255]]
    assert values(file_of(bits, "TIFF")) == [[0, 255, 255]]


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_16_bit_gray_is_scaled_and_rounded(form: str) -> None:
    deep = np.array([[0, 128, 129, 257, 32896, 32767, 65406, 65535]], np.uint16)
    expected = [[0, 0, 1, 1, 128, 127, 254, 255]]
    assert [[round(v / 257) for v in deep[0].tolist()]] == expected
    assert values(file_of(Image.fromarray(deep), form)) == expected


def test_16_bit_big_endian_tiff() -> None:
    pixels = struct.pack(">2H", 32896, 65535)
    tags = [(256, 3, 2), (257, 3, 1), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 3, 1), (279, 4, 4)]
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1) + struct.pack(">HH" if kind == 3 else ">I", *v)
        for tag, kind, value in tags
        for v in [(value, 0) if kind == 3 else (value,)]
    )
    directory = struct.pack(">H", len(tags)) + entries + struct.pack(">I", 0)
    assert values(b"MM\0*" + struct.pack(">I", 12) + pixels + directory) == [[128, 255]]


def test_16_bit_colors() -> None:
    row = struct.pack(">6H", 0, 32896, 65535, 65535, 128, 257)
    assert values(png(16, 2, 2, [row])) == [[[0, 128, 255], [255, 0, 1]]]


def test_16_bit_gray_with_alpha_lies_on_white() -> None:
    row = struct.pack(">4H", 32896, 65535, 0, 0)
    assert values(png(16, 4, 2, [row])) == [[[128, 128, 128], [255, 255, 255]]]


def test_16_bit_gray_with_a_transparent_value() -> None:
    row = struct.pack(">2H", 4660, 32896)
    assert values(png(16, 0, 2, [row], key=struct.pack(">H", 4660))) == [[255, 128]]


def test_8_bit_with_a_transparent_value() -> None:
    white = [255, 255, 255]
    assert values(png(8, 0, 2, [b"\x07\x08"], key=b"\0\x07")) == [[white, [8, 8, 8]]]
    assert values(png(8, 2, 2, [bytes([1, 2, 3, 4, 5, 6])], key=b"\0\1\0\2\0\3")) == [
        [white, [4, 5, 6]]
    ]
    assert values(png(1, 0, 8, [b"\xa0"], key=b"\0\0"))[0][1] == white


@pytest.mark.parametrize(
    ("floats", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 0.25, 0.5], [0, 64, 128]),
        ([0.0, 100.4, 255.0], [0, 100, 255]),
        ([0.0, 0.0, 0.0], [0, 0, 0]),
    ],
)
def test_float_tiff(floats: list[float], expected: list[int]) -> None:
    assert values(file_of(Image.fromarray(np.array([floats], np.float32)), "TIFF")) == [expected]


@pytest.mark.parametrize(
    ("array", "extremes"),
    [
        (np.array([[0, 70000]], np.int32), "0 to 70000"),
        (np.array([[-1, 5]], np.int32), "-1 to 5"),
        (np.array([[-0.5, 0.5]], np.float32), "-0.5 to 0.5"),
        (np.array([[0, 1000]], np.float32), "0 to 1000"),
        (np.array([[0, np.nan]], np.float32), "nan to nan"),
        (np.array([[0, np.inf]], np.float32), "0 to inf"),
    ],
)
def test_numbers_of_unknown_scale(array: np.ndarray[Any, Any], extremes: str) -> None:
    assert message(
        lambda: open_image(file_of(Image.fromarray(array), "TIFF"), "scan.tif"), DataError
    ) == (
        "Can't use scan.tif.\n"
        f"Its values go from {extremes}, and their scale isn't known.\n"
        "Scale them to 0..255 and save them with 8 bits"
    )


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_alpha_lies_on_white(form: str) -> None:
    image = Image.new("RGBA", (3, 1))
    for x, pixel in enumerate([(200, 100, 0, 255), (200, 100, 0, 0), (200, 100, 0, 51)]):
        image.putpixel((x, 0), pixel)
    got = values(file_of(image, form, **({"lossless": True} if form == "WEBP" else {})))
    # color * a + 255 * (1 - a) with a = 51/255 = 0.2
    assert got == [[[200, 100, 0], [255, 255, 255], [244, 224, 204]]]


def test_gray_with_alpha_lies_on_white() -> None:
    image = Image.fromarray(np.array([[[10, 255], [10, 0], [10, 102]]], np.uint8))
    assert image.mode == "LA"
    # 10 * 0.4 + 255 * 0.6
    assert values(file_of(image, "PNG")) == [[[10] * 3, [255] * 3, [157] * 3]]


def test_palette() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    for form in ("PNG", "GIF", "BMP", "TIFF"):
        assert values(file_of(image, form)) == [[[10, 20, 30], [200, 100, 50]]], form
    for form in ("PNG", "GIF"):
        assert values(file_of(image, form, transparency=0)) == [[[255] * 3, [200, 100, 50]]], form
    # Alpha for each entry of the palette, 51/255 = 0.2.
    content = file_of(image, "PNG", transparency=b"\xff\x33")
    assert values(content) == [[[10, 20, 30], [244, 224, 214]]]


def test_cmyk() -> None:
    image = Image.new("CMYK", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 0))
    assert values(file_of(image, "TIFF")) == [[[255, 255, 255], [0, 255, 255]]]
    flat = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red = np.asarray(open_image(file_of(flat, "JPEG", quality=95)))
    assert np.abs(red.astype(int) - [255, 0, 0]).max() <= 3


def test_lab_is_converted() -> None:
    white = Image.merge("LAB", [Image.new("L", (1, 1), value) for value in (255, 128, 128)])
    assert np.min(values(file_of(white, "TIFF"))) >= 250


def test_colors_that_pillow_does_not_convert_are_refused() -> None:
    assert message(lambda: eight_bits(Image.new("La", (2, 2)), "print.tif"), DataError) == (
        "Can't use print.tif.\nPillow can't convert its color mode La to RGB.\nSave it as RGB"
    )


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame(form: str) -> None:
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "lime", "blue")]
    options: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
    content = file_of(frames[0], form, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(content)) as file:
        assert getattr(file, "n_frames", 1) == 3
    assert values(content) == [[[255, 0, 0]] * 4] * 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG"])
def test_exif_rotated(orientation: int, form: str) -> None:
    # What a camera stores for each orientation, from the EXIF standard's rows and columns.
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }[orientation]
    big = np.kron(stored, np.ones((16, 16), np.uint8))  # JPEG keeps flat blocks
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = file_of(Image.fromarray(big), form, exif=exif)
    assert (np.array(values(content))[8::16, 8::16] == upright).all()
    # The orientation is removed after rotating.
    once = open_image(content)
    assert turn(once).tobytes() == once.tobytes()


def test_damaged_exif_does_not_matter() -> None:
    content = file_of(
        Image.new("L", (8, 8), 128), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", quality=95
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert values(content) == [[128] * 8] * 8


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "YCbCr"])
def test_one_pixel_of_every_mode(mode: str) -> None:
    image = Image.new(mode, (1, 1))
    assert eight_bits(image).size == (1, 1)
    form = "PNG" if mode in ("1", "L", "LA", "P", "RGB", "RGBA") else "TIFF"
    if mode == "YCbCr":  # which Pillow 12 can't read back where it is not compressed
        content = file_of(image, form, compression="tiff_lzw")
    else:
        content = file_of(image, form)
    assert np.asarray(open_image(content)).shape[:2] == (1, 1)


def test_decompression_bomb_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    content = file_of(Image.new("L", (30, 10)), "PNG")
    message = (
        "Can't read big.png.\nIt has more than {} pixels.\n"
        "Make it smaller; in Python, you can raise PIL.Image.MAX_IMAGE_PIXELS"
    )
    for limit in (100, 200):  # 300 is over twice the first: Pillow's error; else its warning
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            with pytest.raises(DataError) as error:
                open_image(content, "big.png")
        assert str(error.value) == message.format(limit)
        # Pillow's own warnings are not suppressed.
        assert {one.category for one in said} <= {Image.DecompressionBombWarning}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    assert open_image(content).size == (30, 10)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_cut_short_anywhere_is_whole_or_refused(form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 25, 3), dtype=np.uint8)
    content = file_of(Image.fromarray(noise), form)
    whole = values(content)
    lengths = sorted({*range(0, len(content), 41), *range(len(content) - 30, len(content))})
    results = [values_or_message(content[:length]) for length in lengths]
    messages = [result for result in results if isinstance(result, str)]
    assert all(result == whole for result in results if not isinstance(result, str))
    assert len(messages) > len(results) // 2
    assert {*messages} <= {
        f"Can't read the image.\n{reason}"
        for reason in (
            "The file is empty.",
            "It isn't an image, or it is too damaged to be recognized.",
            "It is damaged or truncated.",
        )
    }


def test_messages_of_files(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("no image")
    whole = file_of(Image.fromarray(RGB), "PNG")
    (tmp_path / "cut.png").write_bytes(whole[:-40])
    for name, reason in [
        ("empty.png", "The file is empty."),
        ("text.jpg", "It isn't an image, or it is too damaged to be recognized."),
        ("cut.png", "It is damaged or truncated."),
        ("none.png", "No such file or directory."),
        ("", "Is a directory."),
    ]:
        with pytest.raises(DataError) as error:
            open_image(tmp_path / name)
        assert str(error.value) == f"Can't read {tmp_path / name}.\n{reason}"
    assert (
        message(lambda: open_image("a\0b"), DataError)
        == "Can't read 'a\\x00b'.\nIt isn't a valid path."
    )


def test_images_in_is_sorted_and_leaves_out_what_is_hidden(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.say_once.cache_clear()
    for name in ("b.PNG", "a/z.jpg", "a/a.jpeg", "c.txt", "._b.png", ".git/d.png", "no.png/e.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [str(path.relative_to(tmp_path)) for path in images_in(tmp_path)]
    assert names == ["a/a.jpeg", "a/z.jpg", "b.PNG", "no.png/e.tif"]
    assert f"{tmp_path}: 3 of 4 images are in subfolders, such as a\n" in capsys.readouterr().err


def test_the_page_of_explanations_is_not_said_to_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.say_once.cache_clear()
    for name in ("a.png", "explain.html"):
        (tmp_path / name).touch()
    assert images_in(tmp_path) == [tmp_path / "a.png"]
    assert capsys.readouterr().err == ""
    (tmp_path / "notes.html").touch()
    images_in(tmp_path)
    said = capsys.readouterr().err
    assert "1 file left out, not named like an image: notes.html" in said
