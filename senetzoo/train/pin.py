"""From a finished run to weights in the package: ``senetzoo weights pin``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import Tensor

from senetzoo._files import atomically
from senetzoo.blueprint import merge
from senetzoo.counting import count
from senetzoo.data.sets import ImageSet
from senetzoo.data.transforms import Transforms
from senetzoo.errors import ConfigError
from senetzoo.eval.accuracy import evaluate
from senetzoo.eval.data import LabeledImages
from senetzoo.nn.stem import STEMS, as_stem
from senetzoo.train.data import load_data
from senetzoo.train.recipe import Recipe, parse_stem
from senetzoo.train.run import WEIGHTS
from senetzoo.train.trained import summary_of
from senetzoo.weights import fetch, manifest
from senetzoo.weights.load import load_file_into
from senetzoo.weights.stored import stored
from senetzoo.zoo import config, policy, split


def half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` in fp16; batch-norm statistics stay in fp32, whose range they need."""
    return {
        name: value.half()
        if value.is_floating_point() and not name.endswith(("running_mean", "running_var"))
        else value
        for name, value in state.items()
    }


def pin(
    run: Path,
    tag: str,
    *,
    data: Path | None,
    default: bool | None = None,
    drop_start: bool = False,
) -> manifest.Entry:
    """Embed the final weights of a run and write their manifest entry.

    Args:
        run: Folder that `senetzoo train` wrote.
        tag: The tag, without the network's name: ``"cifar10_v1"``.
        data: Local copy of the data set, on whose test images the embedded file is measured.
        default: Whether ``pretrained=True`` means these weights; None for True unless the
            network's present default has a higher accuracy on the same images.
        drop_start: Whether the weights that the run began with are taken out of the package. How
            they were trained stays in the new ones' entry.

    Returns:
        The entry, with the accuracy of the embedded file.

    Raises:
        ConfigError: The run is not finished, has no commit to name, or began with no weights of
            the package that could be dropped.
        WeightsError: The weights do not fit their network.
    """
    from safetensors.torch import load_file

    summary = summary_of(run)
    recipe = Recipe.from_json(summary["recipe"])
    if not summary["revision"] or summary["revision"].endswith("-dirty"):
        raise ConfigError(
            f"{run} was trained from a checkout without a commit: {summary['revision']}.",
            "Published weights name the commit that they were trained with.",
            "Commit the changes and train again",
        )
    base, start, own = split(recipe.model)
    name = f"{base}.{tag}"
    entries = dict(manifest.manifest())
    dropped = _dropped(f"{base}.{start}" if start else None, name) if drop_start else None
    gone = None if dropped is None else fetch.EMBEDDED / entries[dropped].source.file
    # A run that began with other weights trained their form of the network.
    before = None if start is None else manifest.find(base, start)[1]
    stem = _stem(recipe, base) if recipe.stem or before is None else before.stem
    sets = load_data(recipe.replace(images_per_class=0), data)  # all test images
    classes, in_chans, size = sets.classes, sets.channels, recipe.final_size
    crop = 1.0 if isinstance(sets.test, ImageSet) else recipe.test_crop
    model = recipe.network(len(classes), in_chans).build(seed=0)

    file = fetch.EMBEDDED / f"{name}.safetensors"
    file.parent.mkdir(exist_ok=True)
    with atomically(file) as partial:
        state = half(load_file(str(run / WEIGHTS)))
        partial.write_bytes(stored(state, {"format": "pt", "tag": name}))
        load_file_into(model, partial)
        digest = fetch.sha256(partial)
        seen = manifest.Input(in_chans, size, sets.mean, sets.std, "bilinear", crop)
        transforms = Transforms(size, sets.mean, sets.std, crop=crop)
        test = LabeledImages(sets.test, tuple(range(len(classes))))
        result = evaluate(model, test, transforms).top(1)
        counts = count(model, size)
        entry = manifest.Entry(
            model=base,
            policy=_over(before.policy if before else "", own or ""),
            stem=stem,
            config=before.config if before else {},
            num_classes=len(classes),
            classes=classes,
            default=default is not False,
            source=manifest.Source("embedded", file.name),
            sha256=digest,
            sha256_prefix=None,
            bytes=partial.stat().st_size,
            params=counts.params,
            macs=counts.macs,
            input=seen,
            dialect="senetzoo",
            data=sets.train.name,
            metrics=(
                manifest.Metric(
                    "accuracy",
                    sets.test.name,
                    result.total,
                    round(100 * result.accuracy, 4),
                    None,
                    1,
                    "last",
                    None,
                ),
            ),
            training=manifest.Training(
                recipe=recipe.name,
                command=summary["command"],
                epochs=recipe.epochs,
                seed=summary["seed"],
                revision=summary["revision"],
                hours=round(summary["train_seconds"] / 3600, 4),
                machine=summary["machine"],
                start=None if start is None else f"{base}.{start}",
                before=None,
            ),
            licence=manifest.Licence(
                "Apache-2.0", "Apache-2.0", DATA_TERMS.get(recipe.data, _NONE)
            ),
            provenance="trained by senetzoo",
        )
        if dropped is not None:
            entry = manifest.withdrawn({**entries, name: entry}, dropped)[name]
            entries = manifest.withdrawn(entries, dropped)
        if default is None and manifest.ahead(entries, name, entry):
            entry = dataclasses.replace(entry, default=False)
        whole = manifest.text(manifest.added(entries, name, entry))
        manifest.parse(whole)  # nothing that can't be read again is written
    with atomically(manifest.path()) as draft:
        draft.write_text(whole, encoding="utf-8")
    manifest.manifest.cache_clear()
    if gone is not None:
        gone.unlink()
    return entry


def _dropped(start: str | None, name: str) -> str:
    """The tag of the weights that a run began with, if they can go."""
    if start is None:
        raise ConfigError(
            "The run began with random weights.",
            "There are none to drop.",
            "Leave --drop-start out",
        )
    if start == name or manifest.manifest()[start].source.kind != "embedded":
        raise ConfigError(
            f"The run began with {start}.",
            "Only other weights of the package can be dropped.",
            "Leave --drop-start out",
        )
    return start


_NONE = "of its owner: see the data set's own terms"
DATA_TERMS = {
    "cifar100": "CIFAR-100 (Krizhevsky 2009): no licence stated, cite the report",
    "flowers5": "flower_photos (TensorFlow): CC BY, each photograph's owner is named with it",
    "cifar10": "CIFAR-10 (Krizhevsky 2009): no licence stated, cite the report",
    "digits": "UCI Optical Recognition of Handwritten Digits: CC BY 4.0",
}


def _over(first: str, second: str) -> str:
    """The text of a policy over another's."""
    return str(merge(policy(first), policy(second))) if first and second else first or second


def _stem(recipe: Recipe, base: str) -> str | None:
    """Name of the stem as the manifest has it: None for the network's own."""
    if not recipe.stem:
        return None
    stem = as_stem(parse_stem(recipe.stem))
    own = config(base).arch
    if as_stem(getattr(own, "stem", stem)) == stem:
        return None
    name = next((name for name, value in STEMS.items() if value == stem), None)
    if name is None:
        raise ConfigError(
            f"The stem {recipe.stem} has no name.",
            "Published weights name their stem, so that it can be built again.",
            f"Train with one of {', '.join(STEMS)}",
        )
    return name
