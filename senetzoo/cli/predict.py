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
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import click
from torch import Tensor

from senetzoo._utils.checks import Le, PositiveInt
from senetzoo._utils.files import user_path, write_csv
from senetzoo._utils.terminal import cells, cut, echo, printable
from senetzoo.cli import complete
from senetzoo.cli.base import EXITS, UNWRITTEN
from senetzoo.cli.networks import opened, trained
from senetzoo.cli.options import Batch, CsvFile, Json, Stated, WeightsFile, as_command
from senetzoo.data.images import is_named_as_image, open_image
from senetzoo.errors import ConfigError, DataError, SenetzooError, nearest
from senetzoo.eval.predict import (
    Prediction,
    Source,
    class_names,
    least_probability,
    predictions,
    probabilities_of,
    sources,
)
from senetzoo.nn.transforms import transforms
from senetzoo.runs import is_run
from senetzoo.zoo import config, is_exported, is_network

if TYPE_CHECKING:
    from senetzoo.inspect.evidence import Evidence
    from senetzoo.inspect.page import Page
    from senetzoo.nn.classifier import Classifier

Number = TypeVar("Number", int, float)


@as_command(
    "predict",
    exits={
        UNWRITTEN: "an image could not be read, or a folder has none; stderr names them; or "
        + EXITS[UNWRITTEN]
    },
)
def command(
    images: Annotated[tuple[str, ...], {"metavar": "[NETWORK] IMAGE..."}],
    *,
    name: Annotated[
        str | None,
        complete.networks_and_folders,
        "--model",
        "The network, if it isn't the first argument. [default: se_resnet20]",
        {"metavar": "NETWORK"},
    ] = None,
    weights: WeightsFile = None,
    preprocessing: Stated,
    top: Annotated[PositiveInt, "How many classes to print for each image."] = 5,
    batch: Annotated[Batch, Le(1_000_000), "Images per batch."] = 32,
    reject: Annotated[
        str | None,
        "Mark images whose best class has a lower probability than this as rejected; auto uses "
        "the probability stored with the network.",
        {"metavar": "P"},
    ] = None,
    csv_file: CsvFile = None,
    as_json: Annotated[Json, "JSON Lines: one object per image."] = False,
    folder: Annotated[
        Path | None,
        "--explain",
        "Write heat maps and gate values to FOLDER: a page, explain.html, and a picture for each "
        "image.",
        {"metavar": "FOLDER"},
    ] = None,
    layer: Annotated[
        str | None,
        "The layer for --explain: a stage by its number, from 1 or from the end as -1, or a module "
        "by its name. Default: the last feature map before the pooling.",
        {"metavar": "LAYER"},
    ] = None,
) -> None:
    """Classify images, with probabilities.

    NETWORK is a name, with its default weights or those of a tag; a folder that senetzoo.save or a
    training run wrote; hf-hub:OWNER/NAME; or a file that senetzoo export wrote. IMAGE is a file; a
    folder, for all image files below it that senetzoo didn't write; or -, for paths on standard
    input, one per line.

    With --json, each image's line is printed as soon as it is done. It has "image" (the path), and
    either "guesses" (best first, each with "class", "label" and "probability") and, with --reject,
    "rejected"; or "error". --csv has the columns path, predicted, probability, rejected, error.

    After senetzoo eval --calibrate, a network's probabilities are calibrated, and --reject auto
    uses the probability at or above which 99 % of its predictions were right. The network is
    not confident enough about a rejected image; an image of none of the classes can still get a
    high probability.

    With --explain, FOLDER gets heat maps (Grad-CAM and Layer-CAM of the most probable class) over
    the part of each image that the network saw, and the values of its gates: NAME.explain.png for
    each image, and all of them in the self-contained explain.html. Existing files with these names
    in FOLDER are replaced, and are never taken as images to explain. A line of --json then has
    "explanation": "page", "picture", and the gate channels "opened" and "closed" the most.

    \b
    Examples:
      senetzoo predict photo.jpg holiday/
      senetzoo predict photo.jpg --explain why
      senetzoo predict runs/photos-resnet20 holiday/ --reject auto --csv answers.csv
      senetzoo predict photos.onnx holiday/ --json
      find . -name '*.png' | senetzoo predict - --json --top 1
    """
    if layer is not None and folder is None:
        raise click.UsageError("--layer requires --explain.")
    if name is None and len(images) > 1 and is_network(images[0]):
        name, images = images[0], images[1:]
    _check_no_network(images)
    default = name is None
    if name is None:
        _check_first(images[0], alone=len(images) == 1)
        name = "se_resnet20"
    model: Classifier | None = None
    run: Callable[[list[Tensor]], Tensor]
    transform: Callable[[Any], Tensor]
    if is_exported(name):
        file = opened(name, weights=weights, preprocessing=preprocessing, explain=folder)
        run, transform, names = file.probabilities, file.transform, file.classes
        stored, batch = file.metadata.get("reject_below"), 1 if file.inside else batch
    else:
        model = trained(name, weights=weights, preprocessing=preprocessing)
        run, transform, names = probabilities_of(model), transforms(model), class_names(model)
        stored = model.reject_below
    if default:
        echo(f"No network was given; {name} knows: {', '.join(names)}.", err=True)
    least = least_probability(stored, _number(float, reject))
    wanted = _asked(images)
    page = None
    if folder is not None and model is not None:
        # Imported here because it is slow.
        from senetzoo.inspect.evidence import evidence
        from senetzoo.inspect.page import Page

        where = _number(int, layer)
        page = Page(folder, name, where)
        look = functools.partial(evidence, model, transforms=transforms(model), layer=where)
        # FOLDER may lie in a folder of images.
        wanted = (source for source in wanted if not page.made(source[0]))
    table: _Table | None = None
    if not as_json:
        wanted = iter(listed := list(wanted))
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        table = _Table.fitting([image for image, _ in listed], names, columns)
    failed = headed = False
    rows: list[dict[str, object]] = []
    try:
        for prediction, image in predictions(run, transform, names, wanted, top, batch, least):
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
    finally:  # keep what is done, on Ctrl-C too
        if rows and csv_file is not None:
            write_csv(csv_file, _COLUMNS, rows)
        if rows and page is not None:
            page.write()
    if page is not None and not as_json:
        echo(f"explained: {printable(str(page.path))}")
    if failed:
        raise click.exceptions.Exit(UNWRITTEN)


def _check_first(path: str, *, alone: bool) -> None:
    """Check that the first path, which names no network, may be an image.

    Raises:
        ConfigError: It is missing, or has other content and isn't `alone`; and it isn't named like
            an image.
    """
    file = user_path(path)
    if path == "-" or is_named_as_image(path) or (os.path.exists if alone else os.path.isdir)(file):
        return
    try:
        open_image(file)
    except DataError as error:
        raise ConfigError(
            f"{path} is neither a network nor an image.",
            str(error).splitlines()[1],
            _near(file) or "Check its path, or give the network with --model",
        ) from None


def _near(missing: Path) -> str:
    """Ask whether a network with a similar path was meant; empty if there is none.

    A name with a suffix is a file's, which resembles an exported file or a folder only by chance.
    """
    if missing.suffix:
        return ""
    there = missing.parent.is_dir()
    found = missing.parent.glob("*") if there else missing.parent.parent.glob("*/*")
    return nearest(str(missing), filter(is_network, map(str, found)))


def _check_no_network(images: Iterable[str]) -> None:
    """Check that no image is a network.

    Raises:
        ConfigError: One is a run, a saved or exported network, or a network's name.
    """
    for image in images:
        if _is_surely_network(image):
            raise ConfigError(
                f"{image} is a network, and was given as an image.",
                "Without --model, the first of several arguments can be the network.",
                "Put it first, before the images, or give it with --model",
            )


def _is_surely_network(text: str) -> bool:
    """Whether `text` is a network, not a folder or a file that resembles one."""
    if not is_network(text):
        return False
    path = user_path(text)
    if is_exported(text):  # other programs write .xml files beside images
        return path.is_file() and (path.suffix != ".xml" or path.with_suffix(".bin").is_file())
    if not path.is_dir() or is_run(path):
        return not is_named_as_image(text)
    try:
        config(text)
    except SenetzooError:  # the config.json of another program
        return False
    return True


def _number(kind: type[Number], text: str | None) -> Number | str | None:
    """`text` as a number if it is one."""
    try:
        return text if text is None else kind(text)
    except ValueError:
        return text


def _explain(
    page: Page, look: Callable[..., Evidence], prediction: Prediction, image: Tensor | None
) -> dict[str, object]:
    """Add an image to the page of ``--explain`` and return its part of the JSON line."""
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


def _asked(images: Iterable[str]) -> Iterator[Source]:
    """The images of the command's arguments."""
    for image in images:
        if image != "-":
            yield from sources([image])
            continue
        empty = True
        # sys.stdin is None in a program that was started without one.
        for line in sys.stdin.buffer if sys.stdin is not None else ():
            # File names are bytes, not always text in the terminal's encoding.
            if path := os.fsdecode(line.rstrip(b"\r\n")):
                empty = False
                yield from sources([path])
        if empty:
            yield "-", DataError("Standard input has no paths.")


_COLUMNS = ("path", "predicted", "probability", "rejected", "error")


def _row(prediction: Prediction) -> tuple[object, ...]:
    """The values of `_COLUMNS`."""
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
    """Layout of the table: widths of the image and class columns, in terminal cells."""

    image: int
    name: int

    @classmethod
    def fitting(cls, images: Iterable[str], names: Iterable[str], columns: int | None) -> _Table:
        """Fit the columns to their content, and to the width of the terminal if given."""
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
            yield f"{image}     -  rejected: not confident enough"
            image = " " * self.image
        for rank, guess in enumerate(prediction.guesses, 1):
            name = _fit(guess.name, self.name, keep_end=False)
            yield f"{image}  {rank:>4}  {name}  {100 * guess.probability:>9.1f} %"
            image = " " * self.image


def _fit(text: str, width: int, *, keep_end: bool) -> str:
    """Pad or cut `text` to `width` cells, keeping its start or its end."""
    short = cut(text, width, keep_end=keep_end)
    return short + " " * (width - cells(short))
