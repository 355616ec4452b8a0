"""Loading and evaluating networks by reference."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from senetzoo._utils.terminal import progress
from senetzoo.data.sets import Split
from senetzoo.errors import ConfigError, SenetzooError, WeightsError

if TYPE_CHECKING:
    import torch

    from senetzoo.data.split import Images
    from senetzoo.deploy.readers import ExportedFile
    from senetzoo.eval.accuracy import Evaluation
    from senetzoo.nn.classifier import Classifier


def trained(reference: str, **stated: Any) -> Classifier:
    """`senetzoo.load` for networks that have weights for every parameter.

    Raises:
        WeightsError: There are no weights, or they lack the gates or the classifier.
    """
    from senetzoo.zoo import load

    model = load(reference, **stated)
    report = model.load_report
    if report is not None and report.replaced:
        parameter, why = report.replaced[0]
        raise WeightsError(
            f"{reference} has parameters without trained weights.",
            f"{report.tag} lacks {parameter} ({why}).",
            "Train it first, or give weights of exactly this network: --weights FILE",
        )
    return model


def opened(reference: str, **options: Any) -> ExportedFile:
    """Open an exported file.

    Args:
        reference: Its path.
        options: Options of the command that only a network can take.

    Raises:
        ConfigError: One of `options` was given.
        WeightsError: The file is missing or damaged.
    """
    from senetzoo.deploy.readers import read_file

    file = read_file(reference)
    for name, value in options.items():
        if value not in (None, False):
            flags = "--mean, --std, --size and --crop" if name == "preprocessing" else f"--{name}"
            raise ConfigError(
                f"{reference} is an exported file, which can't be used with {flags}.",
                "It has fixed weights and preprocessing, and runs on the CPU.",
                f"Give the network that it was exported from: {file.metadata['model']}",
            )
    return file


def evaluate_file(file: ExportedFile, where: str, part: Split | None, batch: int) -> Evaluation:
    """Evaluate an exported file, as `evaluate_networks` does networks."""
    data = file.labeled(where, part)
    with progress(len(data.images), "accuracy", "image") as advance:
        return file.evaluate(data, batch=batch, advance=advance)


def used_in_training(reference: str, images: Images) -> tuple[int, int] | None:
    """How many of `images` a run trained on, and how many others chose its epoch.

    Known from the list of images in the run's folder; the paths are compared, not the contents.

    Returns:
        Both numbers; None if they aren't known.
    """
    from senetzoo.data.listing import read_csv
    from senetzoo.runs import SPLIT, read_summary
    from senetzoo.zoo import saved_in

    folder = saved_in(reference)
    if folder is None or not (folder / SPLIT).is_file():
        return None
    try:
        parts, keep = read_csv(folder / SPLIT), read_summary(folder)["recipe"].get("keep")
    except SenetzooError:  # it isn't finished, or the images were moved
        return None
    given = _paths(images)
    trained, chose = (
        len(given & _paths(parts[split])) if split in parts else 0 for split in ("train", "val")
    )
    return trained, chose if keep == "best" else 0


def _paths(images: Images) -> set[str]:
    names = (images.source_name(index) for index in range(len(images)))
    return {os.path.normcase(os.path.realpath(name)) for name in names}


def evaluate_networks(
    names: Sequence[str],
    where: str,
    part: Split | None = None,
    *,
    stated: Mapping[str, Any] | None = None,
    dtypes: Sequence[str] = ("fp32",),
    batch: int = 64,
    tta: bool = False,
    device: torch.device,
) -> list[Evaluation]:
    """Evaluate networks, each in every dtype.

    Raises:
        WeightsError: A network has no trained weights, or they don't fit.
        DataError: The data is missing, can't be read, or has other classes.
        ConfigError: A network doesn't exist, or fails on its images.
    """
    from senetzoo.eval.accuracy import Evaluation, evaluate, failures_explained
    from senetzoo.eval.data import images_for
    from senetzoo.nn.modes import TORCH_DTYPES
    from senetzoo.nn.transforms import transforms

    # Load everything first, so that missing files fail before the long part.
    models = [(name, trained(name, **(stated or {}))) for name in names]
    networks = [(name, model, images_for(model, where, part)) for name, model in models]
    total = len(dtypes) * sum(len(data.images) for *_, data in networks)
    done = []
    with progress(total, "accuracy", "image") as advance:
        for dtype in dtypes:
            for name, model, data in networks:
                ready = copy.deepcopy(model).to(device, TORCH_DTYPES[dtype])
                size = transforms(model).size
                with failures_explained(name, (model.in_chans, size, size), batch):
                    found = evaluate(ready, data, batch=batch, tta=tta, advance=advance)
                report = model.load_report
                tag, names = ("", ()) if report is None else (report.tag, report.classes)
                done.append(Evaluation(name, tag, dtype, data, found, names, tta))
    return done
