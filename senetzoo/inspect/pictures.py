"""Heat maps and gates as pictures; with Pillow alone."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from senetzoo.inspect.evidence import Evidence, parts_of

# Pixels of a side of a picture, at least; an image of a network for small ones is enlarged.
SIDE = 224
# Of a heat map over a picture.
_OPACITY = 0.55

# Colours at equal distances, dark to bright, whose brightness alone tells the order as well. They
# are matplotlib's inferno and viridis at five points.
_HEAT = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
_GATE = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))

_Pixels = npt.NDArray[np.uint8]


def _coloured(values: Tensor, anchors: Sequence[tuple[int, int, int]]) -> _Pixels:
    """Values (H, W) from 0 to 1 as colours (H, W, 3)."""
    at = np.linspace(0.0, 1.0, len(anchors))
    x = values.clamp(0, 1).double().numpy()
    channels = [np.interp(x, at, [anchor[k] for anchor in anchors]) for k in range(3)]
    return np.stack(channels, 2).round().astype(np.uint8)


def shown(picture: Tensor) -> Image.Image:
    """A picture (C, H, W), uint8, with one channel or three, in RGB and at least `SIDE` high.

    It is enlarged by a whole number, pixels as squares, so that one sees what the network sees.
    """
    pixels = picture.permute(1, 2, 0).expand(-1, -1, 3).contiguous().numpy()
    image = Image.fromarray(pixels)
    factor = -(-SIDE // min(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def overlay(picture: Tensor, heat: Tensor) -> Image.Image:
    """A heat map over its picture.

    Args:
        picture: (C, H, W), uint8, with one channel or three.
        heat: (h, w), from 0; its largest value gets the brightest colour. One of zeros is dark all
            over.

    Returns:
        RGB, of the size of ``shown(picture)``.
    """
    below = shown(picture)
    top = float(heat.max())
    scaled = heat / top if top > 0 else heat
    smooth = F.interpolate(
        scaled[None, None], size=(below.height, below.width), mode="bilinear", align_corners=False
    )
    return Image.blend(below, Image.fromarray(_coloured(smooth[0, 0], _HEAT)), _OPACITY)


def strip(parts: Tensor, width: int, height: int) -> Image.Image:
    """A gate's channels side by side, dark where it is closed and bright where it is open.

    Args:
        parts: (C,), from 0 to 1.
        width: Pixels; channels that share one are averaged.
        height: Pixels.
    """
    cells = Image.fromarray(_coloured(parts[None], _GATE))
    count = len(parts)
    method = Image.Resampling.NEAREST if count <= width else Image.Resampling.BOX
    return cells.resize((width, height), method)


def png(image: Image.Image) -> bytes:
    """An image as the content of a PNG file."""
    data = io.BytesIO()
    image.save(data, "png")
    return data.getvalue()


def data_uri(image: Image.Image) -> str:
    """An image as an address that holds it, for pages that need nothing else."""
    return f"data:image/png;base64,{base64.b64encode(png(image)).decode('ascii')}"


def sheet(evidence: Evidence, title: str, guesses: Sequence[str]) -> Image.Image:
    """All about one image in one picture: it, both heat maps, the guesses and the gates.

    Args:
        evidence: What the network made of it.
        title: Line at the top.
        guesses: Lines, best first.
    """
    gap, line, row = 12, 18, 16
    big, small = ImageFont.load_default(15), ImageFont.load_default(12)
    pictures = [
        ("what the network saw", shown(evidence.picture)),
        ("Grad-CAM", overlay(evidence.picture, evidence.grad_cam)),
        ("Layer-CAM", overlay(evidence.picture, evidence.layer_cam)),
    ]
    wide, high = pictures[0][1].size
    full = 3 * wide + 4 * gap
    text = [
        *guesses,
        "",
        *(
            f"{word} most: " + ", ".join(f"{c.gate} {c.channel} ({c.value:.2f})" for c in channels)
            for word, channels in (("open", evidence.opened(3)), ("closed", evidence.closed(3)))
            if channels
        ),
    ]
    top = gap + line + gap
    below = top + line + high + gap
    height = below + line * len(text) + gap + row * len(evidence.gates) + gap
    canvas = Image.new("RGB", (full, height), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((gap, gap), title, "#1c2127", big)
    for number, (caption, image) in enumerate(pictures):
        left = gap + number * (wide + gap)
        draw.text((left, top), caption, "#5d6670", small)
        canvas.paste(image, (left, top + line))
    for number, words in enumerate(text):
        draw.text((gap, below + number * line), words, "#1c2127", small)
    left = gap + max((round(draw.textlength(p, small)) for p in evidence.gates), default=0) + gap
    at = below + line * len(text) + gap
    for path, gate in evidence.gates.items():
        draw.text((gap, at), path, "#5d6670", small)
        canvas.paste(strip(parts_of(gate), full - gap - left, row - 4), (left, at + 1))
        at += row
    return canvas
