"""Fine-tuning on one's own photographs: the recipe that fits them, and its run."""

from __future__ import annotations

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

from senetzoo._utils.environment import launched
from senetzoo._utils.files import user_path
from senetzoo._utils.terminal import echo
from senetzoo.data.files import LabeledFiles, StoredImages
from senetzoo.data.listing import read_csv, write_csv
from senetzoo.data.scan import scan
from senetzoo.data.sets import ImageSet, Split
from senetzoo.data.split import Images
from senetzoo.errors import ConfigError
from senetzoo.eval.accuracy import Evaluation
from senetzoo.eval.data import LabeledImages
from senetzoo.eval.fetch import local
from senetzoo.eval.predictions import Predictions
from senetzoo.nn.preprocessing import Preprocessing
from senetzoo.runs import LOG, TEST, is_run, read_log
from senetzoo.train import engine, start
from senetzoo.train.data import Data, TestImages, make_data
from senetzoo.train.pace import Pace
from senetzoo.train.recipe import Options, Recipe
from senetzoo.train.start import SMALL, Start
from senetzoo.zoo import config

SPLIT, LEFT_OUT = "split.csv", "left_out.csv"
"""What the run keeps of its photographs: the images of each part, and the files left out."""
HELD_OUT = 0.2
"""Part of images without a split that is held out as validation images."""
# Images that a run trains on in all, if few are there; and the least and the most epochs.
_IMAGES, _LEAST, _MOST = 40_000, 6, 40
_BATCH = 64
# Images of each class, with `quick`.
_FEW = 8
# Classes that differ more count alike in the loss.
_UNEVEN = 5
# Part of a budget that the schedule is fitted to: the rest is for the start and the end.
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
    """Train a network on one's own photographs, from trained weights.

    It is a run of `senetzoo.train`: the same call again goes on where it stopped. What is saved is
    the epoch that did best on the validation images; test images, where there are some, are looked
    at once, after it.

    Args:
        photos: What `senetzoo.data.sources.open` takes: a folder with a folder of images for each
            class, with or without ``train``, ``val`` and ``test``; a CSV; a data set of the Hub; or
            the words ``cifar10`` and ``cifar100``, which are fetched.
        model: What to start from, as `senetzoo.create` takes it. New gates of a policy begin as
            the identity. None for a network of the package that suits the size of the images.
        weights: A file of weights of `model`, by our names or another library's; a head with other
            classes is replaced.
        out: Folder of the run; None for ``runs/<photos>-<model>``.
        epochs: How long to train; None for what suits the number of images.
        minutes: How long to train in minutes, in place of `epochs`: after some measured steps as
            many epochs as fit.
        size: Image side in pixels; None for what suits the network and the images.
        freeze: So many stages and the stem are not trained, or with ``"trunk"`` all but the head.
        seed: Of the split, the new layers, the order and the augmentation.
        quick: One short epoch on few images, to see that everything works.
        settings: Other fields of the recipe.
        options: What does not change the result.
        command: What was typed, for the record.
        say: Where lines go.

    Returns:
        What came of it. Its ``folder`` is what `senetzoo.load` and every command take as a network.

    Raises:
        ConfigError: Options that do not fit, or a folder that has another run.
        DataError: There are no images to train on.
        PolicyError: A policy that can't be read or does not fit.
        TrainingError: The run can't go on.
        WeightsError: Weights that can't be had or do not fit.
        Interrupted: Ctrl-C.
    """
    asked = [f"{epochs} epochs"] * (epochs is not None) + ["one short epoch (quick)"] * quick
    asked += [] if minutes is None else [f"{minutes:g} minutes"]
    if len(asked) > 1:
        raise ConfigError(
            f"Training was to last {' and '.join(asked)}.",
            "One of them decides.",
            "Leave the others out",
        )
    options = options or Options()
    if launched("WORLD_SIZE", 1) > 1:
        raise ConfigError(
            "Fine-tuning was started in several processes.",
            "It reads the photographs, and measures its pace, in one.",
            "Type: senetzoo finetune, without accelerate launch or torchrun",
        )
    if model is not None:
        config(model)  # before all images are read
    start.check_length(epochs, minutes)
    folder = _folder(photos, model, seed) if out is None else user_path(out)
    start.check_place(folder, photos)
    file = None if weights is None else user_path(weights)
    origin, earlier = start.origin(photos, model, file, folder, seed), _earlier(folder)
    if earlier is not None:
        start.require_same(folder, origin)
    parts = _open(photos, folder, seed, earlier is not None, say)
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
    data = photo_data(recipe, parts, Path(str(photos)).name or str(photos))
    for line in described(recipe, data, parts["train"], begin, side):
        say(line)
    given = epochs is not None or "epochs" in settings or "phases" in settings
    pace = None
    if earlier is not None:
        # What was decided when it began.
        own = {"compile": earlier.compile} | ({} if given else {"epochs": earlier.epochs})
        recipe = recipe.replace(**{**own, **settings})
        patience = earlier.patience
    else:
        if not quick:
            pace = engine.measure(recipe, data, seed, options)
            recipe = _timed(recipe, pace, None if given else minutes, settings)
        # Most of a one-cycle: what it gains comes with its last epochs.
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
    """A finished fine-tuning. Print it for the table.

    Args:
        folder: The run.
        photos: The CSV with which `eval` gives the same figures; None where there is none.
        part: What the figures are of: the images to test, or to validate.
        evaluation: The figures.
    """

    folder: Path
    photos: Path | None
    part: Literal["test", "validation"]
    evaluation: Evaluation

    def as_dict(self) -> dict[str, object]:
        """JSON values."""
        return {"part": self.part, **self.evaluation.as_dict()}

    def __str__(self) -> str:
        chosen = " (by which the epoch was chosen)" * (self.part == "validation")
        return f"On the {self.part} images{chosen}:\n{self.evaluation}"


def finished(folder: Path, recipe: Recipe, data: Data) -> Finetuned:
    """What a finished run says of its test images."""
    tested = load_file(folder / TEST)
    images = LabeledImages(data.test, tuple(range(len(data.classes))))
    name, kept = config(folder).name, folder / SPLIT
    found = Predictions(tested["logits"], tested["labels"])
    evaluation = Evaluation(name, folder.name, recipe.precision, images, found)
    part: Literal["test", "validation"] = "validation" if data.test is data.validation else "test"
    # `eval` takes all images of the same part, and computes in fp32.
    same = kept.is_file() and not recipe.images_per_class and recipe.precision == "fp32"
    return Finetuned(folder, kept if same else None, part, evaluation)


def _open(
    photos: str | Path, folder: Path, seed: int, begun: bool, say: Callable[[str], None]
) -> Mapping[Split, Images]:
    """The images of each split without those that can't be used; the split is kept in `folder`."""
    kept = folder / SPLIT
    if begun and kept.is_file():
        say(f"{kept}: the split of the run")
        return _listed(kept)
    found = scan(local(photos), held_out=HELD_OUT, seed=seed)
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
        # As it is read again, so that an interrupted run goes on with the same order.
        return _listed(kept)
    for stale in (kept, folder / LEFT_OUT):  # of a start that failed
        stale.unlink(missing_ok=True)
    return found.parts


def _listed(kept: Path) -> Mapping[Split, Images]:
    """The images of a CSV, with plain paths: through the run's folder none is easy to read."""
    here, parts = kept.parent.resolve(), read_csv(kept)
    files = {
        split: [Path(os.path.normpath(here / images.file_name(n))) for n in range(len(images))]
        for split, images in parts.items()
    }
    root = Path(os.path.commonpath([file.parent for part in files.values() for file in part]))
    return {
        split: dataclasses.replace(images, sources=tuple(files[split]), root=root)
        for split, images in parts.items()
    }


def shorter_side(images: TestImages) -> int:
    """The median of the images' shorter sides in pixels, of a sample of them."""
    if isinstance(images, ImageSet):
        return min(images.images.shape[1:3])
    some = range(0, len(images), -(-len(images) // 64))
    sides = [min(images.open(index).size) for index in some]
    return int(statistics.median(sides))


def in_memory(images: TestImages, side: int) -> ImageSet:
    """Small images in one tensor, in color and of one size, which are augmented a batch at once."""
    if isinstance(images, LabeledFiles):
        whole = Preprocessing(min(side, SMALL), (0.0,) * 3, (1.0,) * 3)
        pixels = torch.stack([whole.pixels(whole(image)) for image, _ in images])
        sources = () if isinstance(images.sources, StoredImages) else images.sources
        return ImageSet(
            pixels.permute(0, 2, 3, 1).contiguous(),
            torch.tensor(images.labels),
            images.classes,
            images.name,
            tuple(source for source in sources if isinstance(source, Path)),
        )
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
    """The recipe for photographs of `side` pixels and a start."""
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
        # The wider a layer, the smaller the steps that Adam may take (Yang et al. 2022,
        # arXiv:2203.03466), and the noisier a batch; measured with 64 features and images.
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


def photo_data(recipe: Recipe, parts: Mapping[Split, Images], title: str) -> Data:
    """The photographs as a run takes them."""
    held = parts["val"]
    return make_data(recipe, parts["train"], parts.get("test", held), title, held)


def described(recipe: Recipe, data: Data, train: Images, begin: Start, side: int) -> Iterator[str]:
    """What was found and chosen, in lines."""
    held, counts = data.validation, torch.as_tensor(train.labels).bincount()
    own = f", {len(data.test)} to test" if data.test is not held else ""
    yield (
        f"{data.title}: {data.count} images to train, {len(held or ())} to validate{own}; "
        f"{len(data.classes)} classes, mostly {side} px"
    )
    if recipe.class_weights:
        least, most = int(counts.argmin()), int(counts.argmax())
        yield (
            f"{data.classes[most]} has {counts[most]} images and {data.classes[least]} "
            f"{counts[least]}: each class counts alike in the loss"
        )
    yield f"{begin.model} ({begin.why}), at {recipe.final_size} px, in batches of {recipe.batch}"


def _timed(
    recipe: Recipe, pace: Pace, minutes: float | None, settings: Mapping[str, Any]
) -> Recipe:
    """The recipe with what depends on the speed of this machine; what was set by hand stays."""
    if minutes is not None:
        many = pace.epochs(60 * minutes * _BUDGET)
        recipe = recipe.replace(**{"epochs": many, **settings})
    if "compile" not in settings:
        recipe = recipe.replace(compile=pace.compiling_pays(recipe))
    return recipe


def _earlier(folder: Path) -> Recipe | None:
    """The recipe of the run in `folder`; None where there is none."""
    if not is_run(folder):
        return None
    header = next((line for line in read_log(folder / LOG) if line["kind"] == "run"), None)
    return None if header is None else Recipe.from_json(header["recipe"])


def _folder(photos: str | Path, model: str | None, seed: int) -> Path:
    """``runs/<photos>-<model>``, and a seed other than 0."""
    name = user_path(str(photos)).resolve().stem
    network = start.EMBEDDED.partition(".")[0] if model is None else Path(model).name
    return Path("runs") / (f"{name}-{network}" + f"-{seed}" * bool(seed))
