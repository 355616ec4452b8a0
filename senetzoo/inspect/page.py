"""Write explanations of images to a folder: a picture of each, and a self-contained HTML page."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

import senetzoo
from senetzoo._utils.files import atomically
from senetzoo._utils.terminal import clean, printable
from senetzoo.data.images import EXPLAINED, WRITTEN
from senetzoo.errors import ConfigError
from senetzoo.inspect.evidence import Channel, Evidence
from senetzoo.inspect.excitations import Excitation, short_name
from senetzoo.inspect.pictures import data_uri, pictures, png, sheet, strip

_SUFFIX = ".explain.png"
_CHANNELS = 3
# In bytes: file names can have 255, and a suffix and a number are appended.
_STEM = 150


class Page:
    """The page and its pictures, in a folder that is created if needed.

    Raises:
        ConfigError: `folder` is a file.
    """

    def __init__(self, folder: Path, network: str, layer: int | str | None = None) -> None:
        if folder.exists() and not folder.is_dir():
            raise ConfigError(
                f"Explanations can't be written to {folder}.",
                "It is a file, and explanations are several files in a folder.",
                "Name a folder, which doesn't have to exist",
            )
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / EXPLAINED
        self._folder = folder.resolve()
        self._network = printable(network)
        where = "its last map" if layer is None else f"the map of layer {layer}"
        self._about = f"Network {self._network}; heat maps of {where}."
        self._sections: list[str] = []
        self._taken: set[str] = set()

    def add(
        self, source: str, name: str, guesses: Sequence[tuple[str, float]], found: Evidence
    ) -> Path:
        """Add an image, write its picture, and return the path of the picture."""
        lines = [f"{label}  {100 * probability:.1f} %" for label, probability in guesses]
        path = self.path.with_name(self._file(source))
        content = png(sheet(found, f"{name}: {self._network}", lines), WRITTEN)
        with atomically(path) as partial:
            partial.write_bytes(content)
        self._sections.append(_section(name, guesses, found))
        return path

    def made(self, source: str) -> bool:
        """Whether an image is one of these pictures, written now or earlier."""
        path = Path(source)
        if "\0" in source or not path.name.endswith(_SUFFIX):
            return False
        return path.parent.resolve() == self._folder

    def failed(self, name: str, error: str) -> None:
        """Add the error of an image that can't be read."""
        self._sections.append(
            f'<section><h2>{escape(name)}</h2><p class="error">{escape(error)}</p></section>'
        )

    def write(self) -> Path:
        """Write the page and return its path."""
        template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
        text = template.substitute(
            title=escape(f"What {self._network} sees"),
            about=escape(self._about),
            body="\n".join(self._sections),
            version=escape(senetzoo.__version__),
        )
        with atomically(self.path) as partial:
            partial.write_text(clean(text), encoding="utf-8")
        return self.path

    def _file(self, source: str) -> str:
        """A file name that no other image of the page has."""
        stem = Path(source).stem
        while len(os.fsencode(stem)) > _STEM:
            stem = stem[:-1]
        name, number = f"{stem}{_SUFFIX}", 2
        # In lowercase, because some file systems ignore case.
        while name.lower() in self._taken:
            name, number = f"{stem}-{number}{_SUFFIX}", number + 1
        self._taken.add(name.lower())
        return name


def _section(name: str, guesses: Sequence[tuple[str, float]], found: Evidence) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td class="number">{100 * p:.1f} %</td>'
        f'<td class="bar"><i style="width: {100 * p:.1f}%"></i></td></tr>'
        for label, p in guesses
    )
    return (
        f"<section><h2>{escape(name)}</h2>{figures(name, guesses[0][0], found)}"
        f'<div class="wide"><table><tbody>{rows}</tbody></table></div>'
        f"{gates_table(found)}</section>"
    )


def figures(name: str, label: str, found: Evidence) -> str:
    """HTML of the image as the network saw it and of the heat maps for the class `label`."""
    saw, *maps = pictures(found)
    alts = [f"{name}, as the network saw it", *(f"{caption} for {label}" for caption, _ in maps)]
    shown = "".join(
        f'<figure><img src="{data_uri(image)}" alt="{escape(alt)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for (caption, image), alt in zip((saw, *maps), alts, strict=True)
    )
    empty = (
        '<p class="soft">Grad-CAM is zero everywhere: this map is evidence against the class.</p>'
    )
    return f'<div class="pictures">{shown}</div>{"" if float(found.grad_cam.max()) > 0 else empty}'


def gates_table(found: Evidence) -> str:
    """HTML of the most open and most closed channels, and of all gates."""
    if not found.gates:
        return '<p class="soft">This network has no gates.</p>'
    # One pixel per channel, scaled by the page.
    cells = [data_uri(strip(gate.relative, len(gate.mean), 1)) for gate in found.gates.values()]
    rows = "".join(
        f'<tr><th scope="row">{escape(short_name(path))}</th>'
        f'<td class="strip"><img src="{uri}" alt=""></td>'
        f'<td class="number">{float(gate.mean.mean()):.2f}</td>'
        f'<td class="number">{_one(gate, int(gate.mean.argmax()))}</td>'
        f'<td class="number">{_one(gate, int(gate.mean.argmin()))}</td></tr>'
        for (path, gate), uri in zip(found.gates.items(), cells, strict=True)
    )
    return (
        f"<p>Channels open most: {_listed(found.opened(_CHANNELS))}.<br>"
        f"Channels closed most: {_listed(found.closed(_CHANNELS))}.</p>"
        '<div class="wide"><table class="gates"><thead><tr><th>gate</th><th>channels</th>'
        "<th>mean</th><th>open most</th><th>closed most</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _one(gate: Excitation, channel: int) -> str:
    return f"{channel} ({float(gate.mean[channel]):.2f})"


def _listed(channels: Iterable[Channel]) -> str:
    texts = (f"{short_name(c.gate)} {c.channel} ({c.value:.2f})" for c in channels)
    return escape(", ".join(texts))
