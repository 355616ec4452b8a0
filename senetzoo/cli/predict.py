"""The command ``senetzoo predict``."""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
from torch import Tensor

from senetzoo._utils.checks import Le, PositiveInt
from senetzoo._utils.files import write_csv
from senetzoo._utils.terminal import cells, cut, echo, printable
from senetzoo.cli import complete
from senetzoo.cli.networks import trained
from senetzoo.cli.options import FILE, Batch, Json, Stated, WeightsFile, as_command
from senetzoo.errors import DataError
from senetzoo.nn.transforms import transforms
from senetzoo.predict import (
    Prediction,
    Source,
    class_names,
    least_probability,
    predictions,
    sources,
)
from senetzoo.zoo import is_network

if TYPE_CHECKING:
    from senetzoo.inspect.evidence import Evidence
    from senetzoo.inspect.page import Page


@as_command(
    "predict",
    exits={1: "some images could not be read (stderr names them); the others were classified"},
)
def command(
    images: Annotated[tuple[str, ...], {"metavar": "[NETWORK] IMAGE..."}],
    *,
    name: Annotated[
        str | None,
        complete.networks_and_folders,
        "--model",
        "The network, where it does not come first. [default: se_resnet20]",
        {"metavar": "NETWORK"},
    ] = None,
    weights: WeightsFile = None,
    preprocessing: Stated,
    top: Annotated[PositiveInt, "How many classes to print for each image."] = 5,
    batch: Annotated[Batch, Le(1_000_000), "How many images to hold and compute at a time."] = 32,
    reject: Annotated[
        str | None,
        "Say none of the classes where the best has less than this probability; auto: than the "
        "network has stored.",
        {"metavar": "P"},
    ] = None,
    csv_file: Annotated[
        Path | None, FILE, "--csv", "Write a row for each image.", {"metavar": "FILE"}
    ] = None,
    as_json: Annotated[Json, "JSON Lines: one object per image."] = False,
    folder: Annotated[
        Path | None,
        "--explain",
        "Write where the network looked, and what its gates did, into FOLDER: a page, "
        "explain.html, and a picture of each image.",
        {"metavar": "FOLDER"},
    ] = None,
    layer: Annotated[
        str | None,
        "What --explain looks at: the map after a stage, by its number from 1 or from the end as "
        "-1, or a module by its name. Default: the last map before the pooling.",
        {"metavar": "LAYER"},
    ] = None,
) -> None:
    """Tell what images show, with probabilities.

    NETWORK is a name, with its default weights or those of a tag; a folder that senetzoo.save or a
    training run wrote; or hf-hub:OWNER/NAME. IMAGE is a file; a folder, for the image files in it
    and below; or -, for paths on the standard input, one a line.

    With --json, each image's line comes as soon as it is known and has "image" (the path), and
    either "guesses" (best first, each with "class", "label" and "probability") or "error"; with
    --reject also "rejected". --csv has the columns path, predicted, probability, rejected, error.

    A network that senetzoo eval --calibrate was run on has its probabilities calibrated, and knows
    the one for --reject auto: 99 % of the answers at or above it were right there.

    With --explain, FOLDER gets heat maps (Grad-CAM and Layer-CAM, of the most probable class)
    over the part of each image that the network saw, and the values of its gates: NAME.explain.png
    for each, and all of them in explain.html, which needs no other file. Files of these names in
    FOLDER are replaced, and never taken for images to explain. A line of --json then has
    "explanation": "page", "picture", and the gates' channels that were "opened" and "closed" most.

    \b
    Examples:
      senetzoo predict photo.jpg holiday/
      senetzoo predict photo.jpg --explain why
      senetzoo predict runs/photos-resnet20 holiday/ --reject auto --csv answers.csv
      find . -name '*.png' | senetzoo predict - --json --top 1
    """
    if layer is not None and folder is None:
        raise click.UsageError("--layer is of --explain: give both.")
    if name is None and len(images) > 1 and is_network(images[0]):
        name, images = images[0], images[1:]
    name = "se_resnet20" if name is None else name
    model = trained(name, weights=weights, preprocessing=preprocessing)
    least = least_probability(model, _probability(reject))
    wanted = _asked(images)
    page = None
    if folder is not None:
        # Only here: who does not ask for it does not wait for it.
        from senetzoo.inspect.evidence import evidence
        from senetzoo.inspect.page import Page

        where = _stage_or_module(layer)
        page = Page(folder, name, where)
        look = functools.partial(evidence, model, transforms=transforms(model), layer=where)
        # FOLDER may lie in a folder of images.
        wanted = (source for source in wanted if not page.made(source[0]))
    table: _Table | None = None
    if not as_json:
        wanted = iter(listed := list(wanted))
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        table = _Table.fitting([image for image, _ in listed], class_names(model), columns)
    failed = headed = False
    rows: list[dict[str, object]] = []
    try:
        for prediction, image in predictions(model, wanted, top, batch, None, least):
            if prediction.error is not None:
                failed = True
                echo(f"error: {printable(prediction.error)}", err=True)
            explanation = _explain(page, look, prediction, image) if page is not None else {}
            rows.append(dict(zip(_COLUMNS, _row(prediction), strict=True)))
            if table is None:
                echo(json.dumps(_as_dict(prediction, reject is not None) | explanation))
            elif prediction.guesses:
                if not headed:
                    echo(table.header())
                    headed = True
                echo("\n".join(table.rows(prediction)))
    finally:  # after Ctrl-C, too, what is done is kept
        if rows and csv_file is not None:
            write_csv(csv_file, _COLUMNS, rows)
        if rows and page is not None:
            page.write()
    if page is not None and not as_json:
        echo(f"explained: {printable(str(page.path))}")
    if failed:
        raise click.exceptions.Exit(1)


def _probability(text: str | None) -> float | str | None:
    """What ``--reject`` was given, as a number where it is one."""
    try:
        return text if text is None else float(text)
    except ValueError:
        return text


def _explain(
    page: Page, look: Callable[..., Evidence], prediction: Prediction, image: Tensor | None
) -> dict[str, object]:
    """Add an image to the page of ``--explain``; what the line of ``--json`` has of it."""
    name = printable(prediction.image)
    if image is None:
        page.failed(name, printable(prediction.error or ""))
        return {}
    found = look(image, target=prediction.guesses[0].label)
    guesses = [(printable(guess.name), guess.probability) for guess in prediction.guesses]
    picture = page.add(prediction.image, name, guesses, found)
    channels = {
        word: [{"gate": c.gate, "channel": c.channel, "value": round(c.value, 6)} for c in channels]
        for word, channels in (("opened", found.opened(5)), ("closed", found.closed(5)))
    }
    return {"explanation": {"page": str(page.path), "picture": str(picture), **channels}}


def _stage_or_module(layer: str | None) -> int | str | None:
    """A stage by its number, or a module by its name."""
    try:
        return layer if layer is None else int(layer)
    except ValueError:
        return layer


def _asked(images: Iterable[str]) -> Iterator[Source]:
    """Name the images that the command's arguments stand for."""
    for image in images:
        if image != "-":
            yield from sources([image])
            continue
        empty = True
        # A program that was started without a standard input has None.
        for line in sys.stdin.buffer if sys.stdin is not None else ():
            # Names of files are bytes, not always text in the terminal's encoding.
            if path := os.fsdecode(line.rstrip(b"\r\n")):
                empty = False
                yield from sources([path])
        if empty:
            yield "-", DataError("The standard input has no paths.")


_COLUMNS = ("path", "predicted", "probability", "rejected", "error")


def _row(prediction: Prediction) -> tuple[object, ...]:
    """A row of ``--csv``: its `_COLUMNS`."""
    best = next(iter(prediction.guesses), None)
    of_best = ("", "") if best is None else (best.name, round(best.probability, 6))
    return prediction.image, *of_best, int(prediction.rejected), prediction.error or ""


def _as_dict(prediction: Prediction, rejecting: bool) -> dict[str, object]:
    if prediction.error is not None:
        return {"image": prediction.image, "error": prediction.error}
    return {
        "image": prediction.image,
        **({"rejected": prediction.rejected} if rejecting else {}),
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
        image = max([5, *(cells(printable(text)) for text in images)])
        name = max([5, *(cells(printable(text)) for text in names)])
        if columns is None:
            return cls(image, name)
        room = columns - len("  rank    probability")
        name = min(name, max(8, room - image, room // 2))
        return cls(min(image, max(8, room - name)), name)

    def header(self) -> str:
        return f"{'image':<{self.image}}  rank  {'class':<{self.name}}  probability"

    def rows(self, prediction: Prediction) -> Iterator[str]:
        image = _fit(prediction.image, self.image, keep_end=True)
        if prediction.rejected:
            yield f"{image}     -  none of the classes"
            image = " " * self.image
        for rank, guess in enumerate(prediction.guesses, 1):
            name = _fit(guess.name, self.name, keep_end=False)
            yield f"{image}  {rank:>4}  {name}  {100 * guess.probability:>9.1f} %"
            image = " " * self.image


def _fit(text: str, width: int, *, keep_end: bool) -> str:
    """`text` in exactly `width` cells; a path is cut at its start, a class at its end."""
    short = cut(text, width, keep_end=keep_end)
    return short + " " * (width - cells(short))
