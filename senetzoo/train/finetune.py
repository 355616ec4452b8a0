"""Fine-tuning on your own photographs: chooses a recipe and runs it."""

from __future__ import annotations

import csv
import dataclasses
import os
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from safetensors.torch import load_file

from senetzoo._utils.documents import reading
from senetzoo._utils.environment import launched
from senetzoo._utils.files import user_path
from senetzoo._utils.terminal import counted, echo
from senetzoo.data.files import LabeledFiles
from senetzoo.data.images import image_files
from senetzoo.data.listing import read_csv, write_csv
from senetzoo.data.scan import scan
from senetzoo.data.sets import ImageSet, Split
from senetzoo.data.sources import kind_of
from senetzoo.data.split import Images
from senetzoo.errors import ConfigError
from senetzoo.eval.accuracy import Evaluation
from senetzoo.eval.data import LabeledImages
from senetzoo.eval.fetch import local
from senetzoo.eval.predictions import Predictions
from senetzoo.nn.preprocessing import Preprocessing
from senetzoo.runs import LEFT_OUT, LOG, REMEDY, SPLIT, TEST, is_run, read_log, read_result
from senetzoo.train import engine, start
from senetzoo.train.data import Data, make_data
from senetzoo.train.pace import Pace
from senetzoo.train.recipe import Options, Recipe
from senetzoo.train.start import SMALL, Start
from senetzoo.zoo import config

HELD_OUT = 0.2
"""Fraction of the images to hold out for validation if they have no split."""
# The number of epochs is such that a run trains on this many images, between a minimum and a
# maximum.
_IMAGES, _LEAST, _MOST = 40_000, 6, 40
_BATCH = 64
# Images of each class, with `quick`.
_FEW = 8
# If the largest class has this many times the images of the smallest, weigh classes equally.
_UNEVEN = 5
# Fraction of a time budget for training; the rest is for the start and the end.
_BUDGET = 0.9


def finetune(
    photos: str | Path,
    *,
    model: str | None = None,
    weights: str | Path | None = None,
    out: str | Path | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    size: int | None = None,
    freeze: Literal["trunk"] | int = 0,
    seed: int = 0,
    quick: bool = False,
    settings: Mapping[str, Any] = MappingProxyType({}),
    options: Options | None = None,
    command: str = "",
    say: Callable[[str], None] = echo,
) -> Finetuned:
    """Fine-tune a network on your own photographs, starting from trained weights.

    This is a run of `senetzoo.train`: to resume it, make the same call again. The best epoch on the
    validation images is saved. Test images, if there are any, are evaluated once, after that.

    Args:
        photos: As in `senetzoo.data.sources.open`: a folder with a folder of images for each
            class, with or without ``train``, ``val`` and ``test``; a CSV; a data set of the Hub; or
            ``cifar10`` and ``cifar100``, which are fetched.
        model: Initial network, as in `senetzoo.create`. New gates of a policy start as the
            identity, if they have one. None for a network of the package that suits the size of
            the images.
        weights: A weights file for `model`, with the names of this or another library; a head with
            other classes is replaced.
        out: Folder of the run; None for ``runs/<photos>-<model>``.
        epochs: Number of epochs; None to choose it by the number of images.
        minutes: Duration in minutes, instead of `epochs`: some steps are measured to find the
            number of epochs.
        size: Image size in pixels; None to choose it by the network and the images.
        freeze: Freeze the stem and this many stages, or with ``"trunk"`` everything except the
            head and new gates.
        seed: Seed of the split, the new layers, the order and the augmentation.
        quick: Train one short epoch on few images, to check that everything works.
        settings: Other fields of the recipe.
        options: Options that don't change the result.
        command: The command line, for the record.
        say: Called with progress lines.

    Returns:
        The result. `senetzoo.load` and all commands accept its ``folder`` as a network.

    Raises:
        ConfigError: Invalid options, or the folder has another run.
        DataError: There are no images to train on.
        PolicyError: The policy can't be parsed or doesn't fit the network.
        TrainingError: The run can't continue.
        WeightsError: The weights can't be read or don't fit the network.
        Interrupted: Ctrl-C.
    """
    asked = [f"{epochs} epochs"] * (epochs is not None) + ["one short epoch (quick)"] * quick
    asked += [] if minutes is None else [f"{minutes:g} minutes"]
    if len(asked) > 1:
        raise ConfigError(
            f"finetune got {' and '.join(asked)}.",
            "Only one of them can set the length of the training.",
            "Leave out the others",
        )
    options = options or Options()
    if launched("WORLD_SIZE", 1) > 1:
        raise ConfigError(
            "Fine-tuning was started in several processes.",
            "It only supports a single process.",
            "Type: senetzoo finetune, without accelerate launch or torchrun",
        )
    if model is not None:
        config(model)  # raises before all images are read
    start.check_length(epochs, minutes)
    folder = _folder(photos, model, seed) if out is None else user_path(out)
    start.check_place(folder, photos)
    kind_of(photos)  # raises if there are none, whatever the run in the folder has
    file = None if weights is None else user_path(weights)
    origin = start.origin(photos, model, file, folder, seed)
    if is_run(folder):
        start.require_same(folder, origin)
    earlier = _earlier(folder)
    if earlier is None and model is not None and weights is None:
        start.fetch(model)
    held_out = settings.get("held_out", HELD_OUT)
    parts = _open(photos, folder, seed, held_out, earlier is not None, say)
    if earlier is None:
        start.write_origin(folder, origin)
    side = shorter_side(parts["train"])
    begin = start.choose(model, file, side, size, folder)
    if side <= SMALL:
        parts = {
            split: in_memory(images, begin.preprocessing.size) for split, images in parts.items()
        }
    recipe = fitted(parts, begin, side, freeze=freeze, epochs=epochs, quick=quick)
    recipe = recipe.replace(**settings)
    title, held = Path(str(photos)).name or str(photos), parts["val"]
    data = make_data(recipe, parts["train"], parts.get("test", held), title, held)
    for line in described(recipe, data, parts["train"], begin, side):
        say(line)
    given = epochs is not None or "epochs" in settings or "phases" in settings
    pace = None
    if earlier is not None:
        # Keep what was decided at the start of the run.
        own = {"compile": earlier.compile} | ({} if given else {"epochs": earlier.epochs})
        recipe = recipe.replace(**{**own, **settings})
        patience = earlier.patience
    else:
        if not quick:
            pace = engine.measure(recipe, data, seed, options)
            recipe = _timed(recipe, pace, None if given else minutes, settings)
        # Most of the run, because a one-cycle schedule gains most in its last epochs.
        patience = max(8, 2 * recipe.epochs // 3)
    if recipe.keep == "best" and "patience" not in settings:
        recipe = recipe.replace(patience=patience)
    engine.train(
        recipe,
        folder,
        data=data,
        seed=seed,
        command=command,
        options=options,
        pace=pace,
        say=say,
    )
    return finished(folder, recipe, data)


@dataclass(frozen=True)
class Finetuned:
    """The result of fine-tuning; prints a table.

    Args:
        folder: Folder of the run.
        photos: The CSV of the images and their splits; None if they aren't files.
        part: The images that were evaluated.
        evaluation: The results.
        chose_epoch: Whether these images selected the epoch, too.
    """

    folder: Path
    photos: Path | None
    part: Literal["test", "validation"]
    evaluation: Evaluation
    chose_epoch: bool

    def as_dict(self) -> dict[str, object]:
        """As a dict for JSON."""
        return {"part": self.part, **self.evaluation.as_dict()}

    def __str__(self) -> str:
        chosen = " (which also selected the epoch)" * self.chose_epoch
        return f"On the {self.part} images{chosen}:\n{self.evaluation}"


def finished(folder: Path, recipe: Recipe, data: Data) -> Finetuned:
    """The result of a finished run."""
    tested, result = load_file(folder / TEST), read_result(folder)
    images = LabeledImages(data.test, tuple(range(len(data.classes))))
    name, kept = config(folder).name, folder / SPLIT
    found = Predictions(tested["logits"], tested["labels"])
    evaluation = Evaluation(name, folder.name, recipe.precision, images, found)
    photos = kept if kept.is_file() else None
    return Finetuned(folder, photos, result.part, evaluation, result.chose_epoch)


def _open(
    photos: str | Path,
    folder: Path,
    seed: int,
    held_out: float,
    begun: bool,
    say: Callable[[str], None],
) -> Mapping[Split, Images]:
    """The usable images of each split; the split is stored in `folder`."""
    kept = folder / SPLIT
    if begun and kept.is_file():
        say(f"{kept}: using the split of the run")
        parts = _listed(kept)
        if new := _unlisted(user_path(photos), parts, folder / LEFT_OUT):
            shown = f"{counted(len(new), 'image')} in {photos}, such as {new[0].name},"
            say(f"warning: the run doesn't have {shown} and won't train on them.")
            say("Give another folder with --out to train on all images")
        return parts
    found = scan(local(photos), held_out=held_out, seed=seed)
    say(str(found))
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        split: images
        for split, images in found.parts.items()
        if isinstance(images, LabeledFiles) and images.root is not None
    }
    if len(files) == len(found.parts):
        found.write_csv(folder / LEFT_OUT)
        write_csv(kept, files)
        # Read it back, so that a resumed run has the same order.
        return _listed(kept)
    for stale in (kept, folder / LEFT_OUT):  # from a start that failed
        stale.unlink(missing_ok=True)
    return found.parts


def _unlisted(photos: Path, parts: Mapping[Split, Images], left_out: Path) -> list[Path]:
    """Image files in the folder `photos` that are in none of `parts` and were not left out."""
    if not photos.is_dir():
        return []
    known = {Path(part.source_name(n)) for part in parts.values() for n in range(len(part))}
    if left_out.is_file():
        with left_out.open(newline="", encoding="utf-8") as file:
            known |= {(photos / row["file"]).resolve() for row in csv.DictReader(file)}
    found, _ = image_files(photos)
    # The split has the files that links lead to.
    return [file for file in found if file.resolve() not in known]


def _listed(kept: Path) -> Mapping[Split, Images]:
    """The images of a CSV, by absolute paths, with their common folder as the root."""
    parts = read_csv(kept.resolve())
    files = [Path(part.source_name(n)) for part in parts.values() for n in range(len(part))]
    root = Path(os.path.commonpath([file.parent for file in files]))
    return {split: dataclasses.replace(images, root=root) for split, images in parts.items()}


def shorter_side(images: Images) -> int:
    """Median shorter side in pixels of a sample of the images."""
    if isinstance(images, ImageSet):
        return min(images.images.shape[1:3])
    some = range(0, len(images), -(-len(images) // 64))
    sides = [min(images.open(index).size) for index in some]
    return int(statistics.median(sides))


def in_memory(images: Images, side: int) -> ImageSet:
    """Load small images into one tensor, in RGB and in one size, for augmentation by batch."""
    if isinstance(images, LabeledFiles):
        whole = Preprocessing(min(side, SMALL), (0.0,) * 3, (1.0,) * 3)
        pixels = torch.stack([whole.pixels(whole(image)) for image, _ in images])
        pixels, labels = pixels.permute(0, 2, 3, 1).contiguous(), torch.tensor(images.labels)
        return ImageSet(pixels, labels, images.classes, images.name, images.files)
    colors = images.images.expand(*images.images.shape[:3], 3)
    return dataclasses.replace(images, images=colors)


def fitted(
    parts: Mapping[Split, Images],
    begin: Start,
    side: int,
    *,
    freeze: Literal["trunk"] | int,
    epochs: int | None,
    quick: bool,
) -> Recipe:
    """The recipe for photographs of `side` pixels and an initial network."""
    labels = torch.as_tensor(parts["train"].labels)
    counts = labels.bincount(minlength=len(parts["train"].classes))
    known, limit = begin.preprocessing, _FEW * quick
    total = int((counts.clamp(max=limit) if quick else counts).sum())
    batch = _BATCH
    while batch > 16 and 8 * batch > total:
        batch //= 2
    batch = min(batch, total)
    many = epochs or min(max(round(_IMAGES / total), _LEAST), _MOST)
    return Recipe(
        name="finetune",
        model=begin.model,
        stem=begin.stem,
        data="folder",
        held_out=HELD_OUT,
        broken="skip",
        images_per_class=limit,
        phases=((known.size, 1 if quick else many),),
        mean=known.mean,
        std=known.std,
        test_crop=known.crop,
        batch=batch,
        compile=False,
        optimizer="adamw",
        # Adam needs smaller steps for wider layers (Yang et al. 2022, arXiv:2203.03466) and for
        # smaller, noisier batches; measured with 64 features and 64 images.
        lr=float(f"{4e-3 * 64 / begin.features * (batch / 64) ** 0.5:.3g}"),
        layer_decay=0.7,
        freeze=freeze,
        weight_decay=0.02,
        warmup=0.25,
        schedule="one-cycle",
        label_smoothing=0.1,
        class_weights=bool(counts.max() > _UNEVEN * counts.min()),
        margin=known.size // 8,
        crop_scale=(0.35, 1.0),
        keep="best",
    )


def described(recipe: Recipe, data: Data, train: Images, begin: Start, side: int) -> Iterator[str]:
    """Lines that say what was found and chosen."""
    held, counts = data.validation, torch.as_tensor(train.labels).bincount()
    own = f", {len(data.test)} to test" if data.test is not held else ""
    yield (
        f"{data.title}: {data.count} images to train, {len(held or ())} to validate{own}; "
        f"{len(data.classes)} classes, median side {side} px"
    )
    if recipe.class_weights:
        least, most = int(counts.argmin()), int(counts.argmax())
        yield (
            f"{data.classes[most]} has {counts[most]} images and {data.classes[least]} "
            f"{counts[least]}: classes are weighted equally in the loss"
        )
    network = f"{recipe.model} ({begin.why})"
    if (recipe.model, recipe.stem) != (begin.model, begin.stem):  # by --set
        network = recipe.model + f" (with the stem {recipe.stem})" * bool(recipe.stem)
    yield f"{network}, at {recipe.final_size} px, in batches of {recipe.batch}"


def _timed(
    recipe: Recipe, pace: Pace, minutes: float | None, settings: Mapping[str, Any]
) -> Recipe:
    """Set the fields that depend on the speed of this machine, unless they are in `settings`."""
    if minutes is not None:
        many = pace.epochs(60 * minutes * _BUDGET)
        recipe = recipe.replace(**{"epochs": many, **settings})
    if "compile" not in settings:
        recipe = recipe.replace(compile=pace.compiling_pays(recipe))
    return recipe


def _earlier(folder: Path) -> Recipe | None:
    """The recipe of the run in `folder`; None if there is none."""
    if not is_run(folder):
        return None
    with reading(folder / LOG, REMEDY):
        return Recipe.from_json(read_log(folder / LOG)[0]["recipe"])


def _folder(photos: str | Path, model: str | None, seed: int) -> Path:
    """``runs/<photos>-<model>``, followed by a seed other than 0."""
    name = user_path(str(photos)).resolve().stem
    network = start.EMBEDDED.partition(".")[0] if model is None else Path(model).name
    return Path("runs") / (f"{name}-{network}" + f"-{seed}" * bool(seed))
