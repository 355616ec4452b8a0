"""The picture of the five positions, docs/positions.svg."""

from __future__ import annotations

from xml.sax.saxutils import escape

from senetzoo.nn.slots import POSITIONS, Position

PICTURE = "docs/positions.svg"
_WIDTH, _HEIGHT = 420, 520
# Centers of the two columns, and half of what a box is wide and high.
_BRANCH, _SKIP = 130, 310
_HALF_WIDTH, _HALF_HEIGHT = 66, 16
# Where each position sits: its column and the middle of its box.
PLACES: dict[Position, tuple[int, int]] = {
    "pre": (_BRANCH, 86),
    "standard": (_BRANCH, 326),
    "post": (_BRANCH, 466),
    "identity": (_SKIP, 326),
    "inner": (_BRANCH, 230),
}
_LAYERS = (
    (_BRANCH, 134, "conv 1×1"),  # noqa: RUF001
    (_BRANCH, 182, "conv 3×3"),  # noqa: RUF001
    (_BRANCH, 278, "conv 1×1"),  # noqa: RUF001
    (_SKIP, 182, "shortcut"),
    (_BRANCH, 418, "activation"),
)
_SUM = 374
_STYLE = """
  text { font: 15px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1b1f24;
         text-anchor: middle; dominant-baseline: central; }
  text.name { font-weight: 600; }
  text.note { font-size: 13px; fill: #4d5560; text-anchor: start; }
  .layer { fill: #ffffff; stroke: #6b7480; stroke-width: 1.2; }
  .place { fill: #ffd591; stroke: #a65f00; stroke-width: 1.6; }
  .flow { fill: none; stroke: #4d5560; stroke-width: 1.6; }
"""
_TITLE = "The five positions of a gate in a residual block"
_DESCRIPTION = (
    "The input x goes two ways. On the branch: the position pre, a 1x1 convolution, a 3x3 "
    "convolution, the position inner, a 1x1 convolution, the position standard. On the skip: the "
    "shortcut, then the position identity. Both are summed; then come the activation and the "
    "position post, whose output is y."
)


def _box(x: int, y: int, label: str, kind: str, name: str = "") -> str:
    radius = _HALF_HEIGHT if kind == "place" else 3
    return (
        f'  <rect class="{kind}" x="{x - _HALF_WIDTH}" y="{y - _HALF_HEIGHT}" '
        f'width="{2 * _HALF_WIDTH}" height="{2 * _HALF_HEIGHT}" rx="{radius}"/>\n'
        f'  <text{name} x="{x}" y="{y}">{escape(label)}</text>\n'
    )


def positions() -> str:
    """A bottleneck with its five positions, as SVG on white: the page's color is not known."""
    # Below the boxes, which cover them.
    lines = (
        f"M {_BRANCH} 34 V 496 M {_BRANCH - 5} 488 l 5 9 l 5 -9",
        f"M {_BRANCH} 52 H {_SKIP} V {_SUM} H {_BRANCH + 13} m 9 -5 l -9 5 l 9 5",
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="title description">\n',
        f'  <title id="title">{_TITLE}</title>\n',
        f'  <desc id="description">{_DESCRIPTION}</desc>\n',
        f"  <style>{_STYLE}  </style>\n",
        f'  <rect width="{_WIDTH}" height="{_HEIGHT}" rx="8" fill="#ffffff"/>\n',
        *(f'  <path class="flow" d="{line}"/>\n' for line in lines),
        f'  <text x="{_BRANCH}" y="22">x</text>\n',
        f'  <text x="{_BRANCH}" y="508">y</text>\n',
        *(_box(x, y, label, "layer") for x, y, label in _LAYERS),
        *(_box(*PLACES[name], name, "place", ' class="name"') for name in POSITIONS),
        f'  <circle class="layer" cx="{_BRANCH}" cy="{_SUM}" r="13"/>\n',
        f'  <text x="{_BRANCH}" y="{_SUM - 1}">+</text>\n',
        '  <text class="note" x="30" y="52">branch</text>\n',
        f'  <text class="note" x="{_SKIP + 8}" y="80">skip</text>\n',
        f'  <rect class="place" x="{_SKIP - 78}" y="410" width="26" height="16" rx="8"/>\n',
        f'  <text class="note" x="{_SKIP - 44}" y="418">a gate can sit here</text>\n',
        f'  <rect class="layer" x="{_SKIP - 78}" y="442" width="26" height="16" rx="3"/>\n',
        f'  <text class="note" x="{_SKIP - 44}" y="450">the network\'s own</text>\n',
        "</svg>\n",
    ]
    return "".join(parts)
