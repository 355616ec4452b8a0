"""``senetzoo finetune``."""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from senetzoo._utils.checks import Ge, Le, PositiveInt, from_text
from senetzoo.cli import complete
from senetzoo.cli.options import (
    FILE,
    Json,
    Threads,
    as_command,
    command_line,
    recorded,
    say,
)
from senetzoo.cli.train import (
    EXITS,
    Quick,
    SaveMinutes,
    Settings,
    Workers,
    interruptible,
    options_of,
    say_progress,
    set_threads,
)
from senetzoo.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from senetzoo.train.finetune import Finetuned


@as_command("finetune", exits=EXITS)
def command(
    photos: Annotated[str, complete.data],
    *,
    model: Annotated[
        str | None,
        complete.networks_and_folders,
        "Network to start from: a name, perhaps with a tag and policy, a folder, or "
        "hf-hub:OWNER/NAME. [resnet20.cifar10_v2, in the package]",
    ] = None,
    weights: Annotated[
        Path | None, FILE, "Weights file for --model, from senetzoo or another library."
    ] = None,
    out: Annotated[
        Path | None, "Folder of the run. [runs/PHOTOS-MODEL, or runs/PHOTOS-MODEL-SEED]"
    ] = None,
    epochs: Annotated[
        PositiveInt | None, "Number of epochs. [depends on the number of photos]"
    ] = None,
    budget: Annotated[
        str | None,
        "--time",
        "Time for the whole command, such as 20m or 1h30m; it trains for nine tenths of it.",
        {"metavar": "DURATION"},
    ] = None,
    size: Annotated[
        PositiveInt | None, "Image side in pixels. [by the network and the photos]"
    ] = None,
    freeze: Annotated[
        str | None,
        "Freeze the trunk and train only the head and new gates, or freeze the stem and this many "
        "stages.",
        lambda incomplete: complete.starting(("trunk", "1", "2"), incomplete),
        {"metavar": "trunk|STAGES"},
    ] = None,
    settings: Settings = (),
    seed: Annotated[Annotated[int, Ge(0), Le(2**32 - 1)], "Seed."] = 0,
    quick: Quick = False,
    threads: Threads = None,
    workers: Workers = None,
    save_minutes: SaveMinutes = 15.0,
    as_json: Annotated[Json, "JSON of the result; progress on stderr."] = False,
) -> None:
    """Train a network on your own PHOTOS, starting from trained weights.

    PHOTOS is a folder with one folder of images per class, perhaps inside train, val and test
    folders; a CSV with the columns path, label and optionally split; a parquet file; or
    hf-hub:OWNER/NAME. Without val, a fifth of each class is held out, of train if there is one;
    of image files, the split is saved in the run.

    The epoch with the best result on the held-out photos is saved. Running the same command again
    resumes an interrupted run. Commands that run a network take the folder of the run.

    \b
    Examples:
      senetzoo finetune photos/
      senetzoo finetune photos/ --model resnet50 --time 20m
      senetzoo finetune photos/ --model resnet20.cifar10_v2+se8@standard
      senetzoo finetune photos.csv --model resnet50+se16 --weights mine.pth --freeze trunk
      senetzoo finetune photos/ --quick --json
    """
    from senetzoo.train.finetune import finetune
    from senetzoo.train.recipe import Recipe, read_setting

    set_threads(threads, 1)
    again = command_line(
        *("senetzoo", "finetune", recorded(photos) or photos),
        model=model,
        weights=recorded(weights),
        epochs=epochs,
        time=budget,
        size=size,
        freeze=freeze,
        seed=seed,
        threads=threads,
        set=settings,
        quick=quick,
        out=recorded(out),
    )
    with interruptible():
        done = finetune(
            photos,
            model=model,
            weights=weights,
            out=out,
            epochs=epochs,
            minutes=None if budget is None else _minutes(budget),
            size=size,
            freeze=0 if freeze is None else from_text(Recipe, "freeze", freeze, "--freeze"),
            seed=seed,
            quick=quick,
            settings=dict(map(read_setting, settings)),
            options=options_of(workers, quick, save_minutes),
            command=again,
            say=functools.partial(say_progress, err=as_json),
        )
    report = _report(done.folder)
    found = {"run": str(done.folder), "report": report and str(report), **done.as_dict()}
    say(as_json, found, f"{done}\n\n{_next(done, report)}")


_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def _minutes(text: str) -> float:
    """``"1h30m"`` in minutes."""
    found = _DURATION.fullmatch(text.strip().lower())
    hours, minutes, seconds = (float(part or 0) for part in (found.groups() if found else "000"))
    total = 60 * hours + minutes + seconds / 60
    if total <= 0:
        raise ConfigError(
            f"--time got {text!r}.",
            "A duration is a number of hours, minutes and seconds.",
            "Type for example: --time 20m, or --time 1h30m",
        )
    return total


def _report(folder: Path) -> Path | None:
    """Write the report of a run into its folder; None if the report's packages are missing."""
    from senetzoo.cli.report import write
    from senetzoo.report.page import RunReport
    from senetzoo.report.paired import Differences
    from senetzoo.report.run import find

    page = folder / "report.html"
    try:
        write(RunReport(find([folder]), folder.name, Differences()), page)
    except MissingExtraError:
        return None
    return page


def _next(done: Finetuned, report: Path | None) -> str:
    """What to read and type next."""
    run, photo = shlex.quote(str(done.folder)), "PHOTO.jpg"
    if done.photos is not None:
        photo = shlex.quote(done.evaluation.data.images.source_name(0))
    lines = [
        f"Network: {done.folder}",
        f"Report: {report}" if report is not None else f"Report: senetzoo report {run}",
        "Next:",
        f"  senetzoo predict {photo} --model {run}",
        f"  senetzoo export {run} --to onnx --with-preprocessing",
    ]
    if done.photos is not None:
        lines[-1] += f" --data {shlex.quote(str(done.photos))}"
        lines.insert(3, f"  senetzoo eval {run} {shlex.quote(str(done.photos))}")
    return "\n".join(lines)
