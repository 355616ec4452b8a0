"""Classify images: the function `predict` and the command ``senetzoo predict``."""

from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch
from torch import Tensor

from senetzoo import _complete, zoo
from senetzoo._command import SenetzooCommand
from senetzoo._network import network_options
from senetzoo.data.images import images_in, open_image
from senetzoo.errors import ConfigError, DataError
from senetzoo.nn.classifier import Classifier, finite
from senetzoo.nn.modes import evaluating

if TYPE_CHECKING:
    from PIL.Image import Image

    from senetzoo.data.preprocessing import Preprocessing

    ImageOrPath = Image | Tensor | str | Path


@dataclass(frozen=True)
class Guess:
    """One class that an image may show.

    Args:
        name: Name of the class; ``"class 7"`` where the network's weights name none.
        label: Its index among the network's outputs.
        probability: From 0 to 1, of all the network's classes.
    """

    name: str
    label: int
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What a network sees in one image.

    Args:
        image: Path of the image, or ``"image 3"`` for the fourth of those given as pixels.
        guesses: The most probable classes, best first; empty for an image that can't be read.
        error: Why it can't be read, in one line; None for an image that was.
    """

    image: str
    guesses: tuple[Guess, ...] = ()
    error: str | None = None


def predict(
    model: Classifier,
    images: ImageOrPath | Iterable[ImageOrPath],
    *,
    top: int = 5,
    batch: int = 32,
    preprocessing: Preprocessing | None = None,
) -> list[Prediction]:
    """Classify images. An image that can't be read does not stop the others.

    Args:
        model: A network of the zoo; it computes in eval mode and gets its own mode back.
        images: One image or many: PIL images, uint8 tensors (C, H, W), paths of files, or of
            folders, which stand for the image files in them and below, sorted.
        top: How many classes to tell of each image; all where the network has fewer.
        batch: How many images to hold and compute at a time.
        preprocessing: What each image goes through; None takes ``senetzoo.transforms(model)``.

    Returns:
        A prediction per image, in their order.

    Raises:
        ConfigError: `top` or `batch` is no whole number above 0.
    """
    for name, value in (("top", top), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"predict can't have {name}={value!r}.", "It is a whole number, > 0.")
    from PIL.Image import Image as PILImage

    # A tensor (N, C, H, W) is many images: iterating gives each.
    single = isinstance(images, (PILImage, str, Path)) or (
        isinstance(images, Tensor) and images.dim() < 4
    )
    several: Iterable[ImageOrPath] = [images] if single else images  # type: ignore[list-item,assignment]
    predictions = _predictions(model, _sources(several), top, batch, preprocessing)
    return [prediction for prediction, _ in predictions]


# An image under the name that messages call it, or why there is none.
_Source = tuple[str, "Image | Tensor | Path | DataError"]


def _sources(images: Iterable[ImageOrPath]) -> Iterator[_Source]:
    """Name each image, with folders replaced by the images in them."""
    for index, image in enumerate(images):
        if not isinstance(image, (str, Path)):
            yield f"image {index}", image
            continue
        path = Path(image)
        try:
            files = images_in(path) if path.is_dir() else [path]
        except ValueError:  # a null byte, of which open_image tells
            files = [path]
        if not files:
            yield str(path), DataError(f"The folder {path} has no images in it or below.")
        for file in files:
            yield str(file), file


def _predictions(
    model: Classifier,
    sources: Iterable[_Source],
    top: int,
    batch: int,
    preprocessing: Preprocessing | None,
) -> Iterator[tuple[Prediction, Tensor | None]]:
    """Predict image by image, with at most `batch` of them in memory.

    With each comes what the network got, (C, H, W); None for an image that can't be read.
    """
    transform = zoo.transforms(model) if preprocessing is None else preprocessing
    names = class_names(model)
    sources = iter(sources)
    while chunk := list(islice(sources, batch)):
        read = [_read(source, transform) for _, source in chunk]
        tensors = [result for result in read if isinstance(result, Tensor)]
        guesses = iter(_guesses(model, tensors, top, names) if tensors else [])
        for (name, _), result in zip(chunk, read, strict=True):
            if isinstance(result, Tensor):
                yield Prediction(name, next(guesses)), result
            else:
                yield Prediction(name, error=" ".join(str(result).splitlines())), None


def _read(
    source: Image | Tensor | Path | DataError, transform: Preprocessing
) -> Tensor | DataError:
    """Make an image the network's input, or say why it can't be."""
    if isinstance(source, DataError):
        return source
    try:
        return transform(open_image(source) if isinstance(source, Path) else source)
    except DataError as error:
        return error


def _guesses(
    model: Classifier, tensors: list[Tensor], top: int, names: tuple[str, ...]
) -> list[tuple[Guess, ...]]:
    """Guesses for each of some transformed images."""
    weight = next(model.parameters())
    with evaluating(model), torch.inference_mode():
        images = torch.stack(tensors).to(weight.device, weight.dtype)
        logits = finite(model(images), images)
        return best(logits.float().softmax(1), top, names)


def best(probabilities: Tensor, top: int, names: tuple[str, ...]) -> list[tuple[Guess, ...]]:
    """The `top` most probable classes, or all if there are fewer, of each row of (N, K)."""
    found = probabilities.topk(min(top, probabilities.shape[1]))
    return [
        tuple(Guess(names[k], k, p) for k, p in zip(labels, values, strict=True))
        for labels, values in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    ]


def class_names(model: Classifier) -> tuple[str, ...]:
    """What the network's weights call their classes; ``"class 0"`` ... where they don't."""
    if model.load_report is not None and model.load_report.classes:
        return model.load_report.classes
    return tuple(f"class {k}" for k in range(model.config.num_classes))


@click.command(
    "predict",
    cls=SenetzooCommand,
    exits={1: "some images could not be read, of which stderr tells; the others are told"},
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--model",
    "name",
    default="se_resnet20",
    metavar="NETWORK",
    show_default=True,
    help="The network: a name, with its default weights or those of a tag; a folder that "
    "senetzoo.save or a training run wrote; or hf-hub:OWNER/NAME.",
    shell_complete=_complete.networks_and_folders,
)
@network_options
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How many classes to tell of each image.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 1_000_000),
    default=32,
    show_default=True,
    help="How many images to hold and compute at a time.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON Lines: one object per image.")
@click.option(
    "--explain",
    "folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write where the network looked, and what its gates did, into FOLDER: a page, "
    "explain.html, and a picture of each image.",
)
@click.option(
    "--layer",
    metavar="LAYER",
    help="What --explain looks at: the map after a stage, by its number from 1 or from the end "
    "as -1, or a module by its name. Default: the last map before the pooling.",
)
@click.pass_context
def command(
    ctx: click.Context,
    images: tuple[str, ...],
    name: str,
    stated: dict[str, Any],
    top: int,
    batch: int,
    as_json: bool,
    folder: Path | None,
    layer: str | None,
) -> None:
    """Tell what images show, with probabilities.

    IMAGE is a file; a folder, for the image files in it and below; or -, for paths on the
    standard input, one a line.

    With --json, each image's line comes as soon as it is known and has "image" (the path), and
    either "guesses" (best first, each with "class", "label" and "probability") or "error".

    With --explain, FOLDER gets heat maps (Grad-CAM and Layer-CAM, of the most probable class)
    over the part of each image that the network saw, and the values of its gates: NAME.explain.png
    for each, and all of them in explain.html, which needs no other file. Files of these names in
    FOLDER are replaced, and never taken for images to explain. A line of --json then has
    "explanation": "page", "picture", and the gates' channels that were "opened" and "closed" most.

    \b
    Examples:
      senetzoo predict photo.jpg holiday/
      senetzoo predict photo.jpg --explain why
      senetzoo predict holiday/ --model runs/photos-resnet20-0
      find . -name '*.png' | senetzoo predict - --json --top 1
    """
    if layer is not None and folder is None:
        raise click.UsageError("--layer is of --explain: give both.")
    model = zoo.load(name, **stated)
    explainer = None if folder is None else _Explainer(model, name, folder, layer)
    sources = _asked(images)
    if explainer is not None:
        # FOLDER may lie in a folder of images.
        made = explainer.page.made
        sources = (source for source in sources if not made(source[0]))
    table: _Table | None = None
    if not as_json:
        sources = iter(listed := list(sources))
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        table = _Table.fitting([image for image, _ in listed], class_names(model), columns)
    failed = headed = False
    for prediction, seen in _predictions(model, sources, top, batch, None):
        if prediction.error is not None:
            failed = True
            click.echo(f"error: {_printable(prediction.error)}", err=True)
        explanation = explainer.add(prediction, seen) if explainer is not None else {}
        if table is None:
            click.echo(json.dumps(_as_dict(prediction) | explanation))
        elif prediction.guesses:
            if not headed:
                click.echo(table.header())
                headed = True
            click.echo("\n".join(table.rows(prediction)))
    if explainer is not None:
        page = explainer.page.write()
        if not as_json:
            click.echo(f"explained: {_printable(str(page))}")
    if failed:
        ctx.exit(1)


class _Explainer:
    """What ``--explain`` adds to the predictions.

    Args:
        model: The network.
        name: Its name.
        folder: Where the page and the pictures go.
        layer: The layer that was asked for.
    """

    def __init__(self, model: Classifier, name: str, folder: Path, layer: str | None) -> None:
        # Only here: who does not ask for it does not wait for it.
        from senetzoo.inspect.page import Page

        self._model = model
        self._layer = _stage_or_module(layer)
        self._transforms = zoo.transforms(model)
        self.page = Page(folder, name, self._layer)

    def add(self, prediction: Prediction, seen: Tensor | None) -> dict[str, object]:
        """Add an image to the page; what the line of ``--json`` has of it."""
        from senetzoo.inspect.evidence import evidence

        name = _printable(prediction.image)
        if seen is None:
            self.page.failed(name, _printable(prediction.error or ""))
            return {}
        found = evidence(
            self._model,
            seen,
            self._transforms,
            target=prediction.guesses[0].label,
            layer=self._layer,
        )
        guesses = [(guess.name, guess.probability) for guess in prediction.guesses]
        picture = self.page.add(prediction.image, name, guesses, found)
        return {
            "explanation": {
                "page": str(self.page.path),
                "picture": str(picture),
                **{
                    word: [
                        {"gate": c.gate, "channel": c.channel, "value": round(c.value, 6)}
                        for c in channels
                    ]
                    for word, channels in (("opened", found.opened(5)), ("closed", found.closed(5)))
                },
            }
        }


def _stage_or_module(layer: str | None) -> int | str | None:
    """A stage by its number, or a module by its name."""
    try:
        return layer if layer is None else int(layer)
    except ValueError:
        return layer


def _asked(images: Iterable[str]) -> Iterator[_Source]:
    """Name the images that the command's arguments stand for."""
    for image in images:
        if image != "-":
            yield from _sources([image])
            continue
        empty = True
        # A program that was started without a standard input has None.
        for line in sys.stdin.buffer if sys.stdin is not None else ():
            # Names of files are bytes, not always text in the terminal's encoding.
            if path := os.fsdecode(line.rstrip(b"\r\n")):
                empty = False
                yield from _sources([path])
        if empty:
            yield "-", DataError("The standard input has no paths.")


def _as_dict(prediction: Prediction) -> dict[str, object]:
    if prediction.error is not None:
        return {"image": prediction.image, "error": prediction.error}
    return {
        "image": prediction.image,
        "guesses": [
            {"class": guess.name, "label": guess.label, "probability": round(guess.probability, 6)}
            for guess in prediction.guesses
        ],
    }


@dataclass(frozen=True)
class _Table:
    """Layout of the table: how wide the columns of images and classes are, in cells."""

    image: int
    name: int

    @classmethod
    def fitting(cls, images: Iterable[str], names: Iterable[str], columns: int | None) -> _Table:
        """Fit the columns to their content and, if given, to a terminal's `columns`."""
        image = max([5, *(_cells(_printable(text)) for text in images)])
        name = max([5, *map(_cells, names)])
        if columns is None:
            return cls(image, name)
        room = columns - len("  rank    probability")
        name = min(name, max(8, room - image, room // 2))
        return cls(min(image, max(8, room - name)), name)

    def header(self) -> str:
        return f"{'image':<{self.image}}  rank  {'class':<{self.name}}  probability"

    def rows(self, prediction: Prediction) -> Iterator[str]:
        image = _fit(_printable(prediction.image), self.image, keep_end=True)
        for rank, guess in enumerate(prediction.guesses, 1):
            name = _fit(guess.name, self.name, keep_end=False)
            yield f"{image}  {rank:>4}  {name}  {100 * guess.probability:>9.1f} %"
            image = " " * self.image


def _fit(text: str, width: int, *, keep_end: bool) -> str:
    """`text` in exactly `width` cells; a path is cut at its start, a class at its end."""
    short = text
    while _cells(short) > width:
        text = text[1:] if keep_end else text[:-1]
        short = f"...{text}" if keep_end else f"{text}..."
    return short + " " * (width - _cells(short))


def _cells(text: str) -> int:
    """How many cells of a terminal `text` fills."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _printable(text: str) -> str:
    """`text` without what would move the cursor, or can't be encoded."""
    return "".join(c if c.isprintable() else "?" for c in text)
