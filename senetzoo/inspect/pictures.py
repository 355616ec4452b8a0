"""Draw heat maps and gates with Pillow."""

from __future__ import annotations

import base64
import io
from bisect import bisect
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn import functional as F

from senetzoo.inspect.evidence import Evidence
from senetzoo.inspect.excitations import short_name

# Minimum of a picture's shorter side in pixels: smaller images are enlarged.
SIDE = 224
# Opacity of a heat map over a picture.
_OPACITY = 0.55

# Equidistant colors from dark to bright, ordered by brightness, too: matplotlib's inferno and
# viridis at five points.
_HEAT = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
_GATE = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))

# What the colors of `sheet` mean.
_MAPS = (
    "Heat maps: for the most probable class, from dark (nothing) to bright (the image's maximum)"
)
_CELLS = (
    "Gates: cells for the channels, from 0 on the left, averaged where they are many; from dark "
    "(closed) to bright (open)"
)

_Pixels = npt.NDArray[np.uint8]
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _colored(values: Tensor, anchors: Sequence[tuple[int, int, int]]) -> _Pixels:
    """Map values (H, W) from 0 to 1 to colors (H, W, 3)."""
    at = np.linspace(0.0, 1.0, len(anchors))
    x = values.clamp(0, 1).double().numpy()
    channels = [np.interp(x, at, [anchor[k] for anchor in anchors]) for k in range(3)]
    return np.stack(channels, 2).round().astype(np.uint8)


def to_image(picture: Tensor) -> Image.Image:
    """Convert a picture (C, H, W), uint8, to RGB, enlarged to sides of at least `SIDE` pixels."""
    pixels = picture.permute(1, 2, 0).expand(-1, -1, 3).contiguous().numpy()
    image = Image.fromarray(pixels)
    factor = -(-SIDE // min(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def overlay(picture: Tensor, heat: Tensor) -> Image.Image:
    """Draw a nonnegative heat map (h, w) over its picture, scaled to its largest value."""
    below = to_image(picture)
    top = float(heat.max())
    scaled = heat / top if top > 0 else heat
    smooth = F.interpolate(
        scaled[None, None], size=(below.height, below.width), mode="bilinear", align_corners=False
    )
    return Image.blend(below, Image.fromarray(_colored(smooth[0, 0], _HEAT)), _OPACITY)


def strip(relative: Tensor, width: int, height: int) -> Image.Image:
    """Draw a gate's channels (C,) from 0 to 1 side by side, from dark (closed) to bright (open).

    Channels that share a pixel are averaged.
    """
    cells = Image.fromarray(_colored(relative[None], _GATE))
    count = len(relative)
    method = Image.Resampling.NEAREST if count <= width else Image.Resampling.BOX
    return cells.resize((width, height), method)


def png(image: Image.Image, comment: str = "") -> bytes:
    """Encode an image as PNG."""
    data, info = io.BytesIO(), PngInfo()
    if comment:
        info.add_text("Comment", comment)
    image.save(data, "png", pnginfo=info)
    return data.getvalue()


def data_uri(image: Image.Image) -> str:
    """Encode an image as a data URI, for self-contained pages."""
    return f"data:image/png;base64,{base64.b64encode(png(image)).decode('ascii')}"


def pictures(evidence: Evidence) -> list[tuple[str, Image.Image]]:
    """The image as the network saw it and its heat maps, each with a caption."""
    return [
        ("what the network saw", to_image(evidence.picture)),
        ("Grad-CAM", overlay(evidence.picture, evidence.grad_cam)),
        ("Layer-CAM", overlay(evidence.picture, evidence.layer_cam)),
    ]


def sheet(evidence: Evidence, title: str, guesses: Sequence[str]) -> Image.Image:
    """One picture with the image, both heat maps, the guesses and the gates.

    A title that is too long is cut at its start.
    """
    gap, line, row = 12, 18, 16
    large, small = ImageFont.load_default(15), ImageFont.load_default(12)
    ink, soft = "#1c2127", "#5d6670"
    shown = pictures(evidence)
    columns = [
        [f"{word} most: {short_name(c.gate)} {c.channel} ({c.value:.2f})" for c in channels]
        for word, channels in (("open", evidence.opened(3)), ("closed", evidence.closed(3)))
    ]
    wide, high = shown[0][1].size
    full = 3 * wide + 4 * gap
    legend = gap + line + gap + line + high + gap // 2
    texts = legend + line + gap
    cells = texts + line * (len(guesses) + len(columns[0])) + 2 * gap
    strips = cells + line * bool(evidence.gates)
    canvas = Image.new("RGB", (full, strips + row * len(evidence.gates) + gap), "white")
    draw = ImageDraw.Draw(canvas)

    def fitted(text: str, width: float, font: _Font, *, end: bool = False) -> str:
        def cut(count: int) -> str:
            return f"...{text[-count:]}" if end else f"{text[:count]}..."

        if draw.textlength(text, font) <= width:
            return text
        lengths = range(1, len(text))
        return cut(max(1, bisect(lengths, width, key=lambda n: draw.textlength(cut(n), font))))

    draw.text((gap, gap), fitted(title, full - 2 * gap, large, end=True), ink, large)
    for number, (caption, image) in enumerate(shown):
        left = gap + number * (wide + gap)
        draw.text((left, 2 * gap + line), caption, soft, small)
        canvas.paste(image, (left, 2 * gap + 2 * line))
    draw.text((gap, legend), fitted(_MAPS, full - 2 * gap, small), soft, small)
    for number, text in enumerate(guesses):
        draw.text((gap, texts + number * line), fitted(text, full - 2 * gap, small), ink, small)
    half = (full - gap) // 2
    for number, column in enumerate(columns):
        for index, text in enumerate(column):
            at = texts + gap + line * (len(guesses) + index)
            draw.text((gap + number * half, at), fitted(text, half - gap, small), ink, small)
    if evidence.gates:
        draw.text((gap, cells), fitted(_CELLS, full - 2 * gap, small), soft, small)
    names = [fitted(short_name(path), full / 3, small) for path in evidence.gates]
    left = 2 * gap + max((round(draw.textlength(name, small)) for name in names), default=0)
    for number, (name, gate) in enumerate(zip(names, evidence.gates.values(), strict=True)):
        at = strips + number * row
        draw.text((gap, at), name, soft, small)
        canvas.paste(strip(gate.relative, full - gap - left, row - 4), (left, at + 1))
    return canvas
