"""Embeds the weights of a finished run in the package and writes their manifest entry.

python scripts/pin_weights.py runs/digits-lenet5-0 digits_v1
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import click
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from senetzoo._utils.files import atomically
from senetzoo.cli.base import SenetzooCommand
from senetzoo.errors import ConfigError
from senetzoo.eval.accuracy import evaluate
from senetzoo.eval.data import LabeledImages
from senetzoo.io.folder import WEIGHTS
from senetzoo.nn.counting import count
from senetzoo.nn.stem import as_stem
from senetzoo.spec import merge, named, policy, split
from senetzoo.train.data import load_data
from senetzoo.train.recipe import Recipe, read_run
from senetzoo.weights import cache, manifest
from senetzoo.weights.load import load_strictly, read, stored
from senetzoo.weights.manifest import Entry, Metric


def text(entries: Mapping[str, Entry]) -> str:
    """The manifest's text, as `parse` reads it: one canonical form."""
    raw = {tag: dataclasses.asdict(entry) for tag, entry in sorted(entries.items())}
    whole = {"schema": manifest.SCHEMA, "entries": raw}
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def added(entries: Mapping[str, Entry], tag: str, entry: Entry) -> dict[str, Entry]:
    """`entries` with one of ours; where it is a default, no other of its network is."""
    kept = {
        other: dataclasses.replace(found, default=False)
        if entry.default and found.model == entry.model
        else found
        for other, found in entries.items()
    }
    return {**kept, tag: entry}


def ahead(entries: Mapping[str, Entry], tag: str, entry: Entry) -> tuple[str, Metric] | None:
    """The default of the entry's network, and its figure, where that is above the entry's own.

    The first metric is compared, with the one of the same name on the same images; not with that of
    an entry `tag`, whose place it takes.
    """
    own = entry.metrics[0]
    for other, found in entries.items():
        if found.default and found.model == entry.model and other != tag:
            for metric in found.metrics:
                if (metric.name, metric.data) == (own.name, own.data) and metric.value > own.value:
                    return other, metric
    return None


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
) -> Entry:
    """Embed the final weights of a run and write their manifest entry.

    Args:
        run: Folder that `senetzoo train` wrote.
        tag: The tag, without the network's name: ``"cifar10_v1"``.
        data: Local copy of the data set, on whose test images the embedded file is measured.
        default: Whether ``pretrained=True`` means these weights; None for True unless the
            network's present default has a higher accuracy on the same images.
        drop_start: Whether the weights that the run began with are taken out of the package.
    """
    from safetensors.torch import load_file

    recipe, summary = read_run(run)
    if not summary["revision"] or summary["revision"].endswith("-dirty"):
        raise ConfigError(
            f"{run} was trained from a checkout without a commit: {summary['revision']}.",
            "Published weights name the commit that they were trained with.",
            "Commit the changes and train again",
        )
    if recipe.keep != "last":
        raise ConfigError(
            f"{run} kept the best epoch.",
            "The manifest states the accuracy of the last one.",
            "Train with --set keep=last",
        )
    base, start, own = split(recipe.model)
    name = f"{base}.{tag}"
    entries = dict(manifest.manifest())
    begun = None if start is None else f"{base}.{start}"
    if drop_start and (begun in (None, name) or entries[begun or ""].source.kind != "embedded"):
        raise ConfigError(
            f"The run began with {begun or 'random weights'}.",
            "Only other weights of the package can be dropped.",
            "Leave --drop-start out",
        )
    # A run that began with other weights trained their form of the network.
    before = None if start is None else manifest.find(base, start)[1]
    stem = _stem(recipe, base) if recipe.stem or before is None else before.stem
    texts = [text for text in (before.policy if before else "", own) if text]
    sets = load_data(recipe.replace(images_per_class=0), data)  # all test images
    classes, preprocessing = sets.classes, sets.preprocessing(recipe)
    model = recipe.network(len(classes), sets.channels).build(seed=0)

    file = cache.EMBEDDED / f"{name}.safetensors"
    file.parent.mkdir(exist_ok=True)
    with atomically(file) as partial:
        state = half(load_file(str(run / WEIGHTS)))
        partial.write_bytes(stored(state, {"format": "pt", "tag": name}))
        embedded, digest = read(partial)
        load_strictly(model, embedded, str(partial))
        test = LabeledImages(sets.test, tuple(range(len(classes))))
        result = evaluate(model, test, preprocessing).top(1)
        value, counts = round(100 * result.accuracy, 4), count(model, preprocessing.size)
        metric = Metric("accuracy", sets.test.name, result.total, value, None, 1, "last", None)
        entry = Entry(
            model=base,
            policy=str(merge(*map(policy, texts))) if len(texts) == 2 else "".join(texts),
            stem=stem,
            config=before.config if before else {},
            num_classes=len(classes),
            classes=classes,
            default=default is not False,
            source=manifest.Source("embedded", file.name),
            sha256=digest,
            sha256_prefix=None,
            sha1=None,
            bytes=partial.stat().st_size,
            params=counts.params,
            macs=counts.macs,
            preprocessing=preprocessing,
            dialect="senetzoo",
            data=sets.train.name,
            metrics=(metric,),
            training=(
                *(before.training if before else ()),
                manifest.Training(
                    recipe=recipe.name,
                    command=summary["command"],
                    epochs=recipe.epochs,
                    seed=summary["seed"],
                    revision=summary["revision"],
                    hours=round(summary["train_seconds"] / 3600, 4),
                    machine=summary["machine"],
                    start=begun,
                ),
            ),
            license=manifest.License(
                "Apache-2.0", "Apache-2.0", DATA_TERMS.get(recipe.data, _NONE)
            ),
            provenance="trained by senetzoo",
        )
        gone = entries.pop(begun or "") if drop_start else None
        if default is None and ahead(entries, name, entry):
            entry = dataclasses.replace(entry, default=False)
        whole = text(added(entries, name, entry))
        manifest.parse(whole)  # nothing that can't be read again is written
    with atomically(manifest.path()) as draft:
        draft.write_text(whole, encoding="utf-8")
    manifest.manifest.cache_clear()
    if gone is not None:
        (cache.EMBEDDED / gone.source.file).unlink()
    return entry


_NONE = "of its owner: see the data set's own terms"
DATA_TERMS = {
    "cifar100": "CIFAR-100 (Krizhevsky 2009): no license stated, cite the report",
    "flowers5": "flower_photos (TensorFlow): CC BY, each photograph's owner is named with it",
    "cifar10": "CIFAR-10 (Krizhevsky 2009): no license stated, cite the report",
    "digits": "UCI Optical Recognition of Handwritten Digits: CC BY 4.0",
}


def _stem(recipe: Recipe, base: str) -> str | None:
    """The stem as the manifest has it: None for the network's own."""
    own = getattr(named(base).config, "stem", recipe.stem)
    return recipe.stem if recipe.stem and as_stem(recipe.stem) != as_stem(own) else None


@click.command(cls=SenetzooCommand)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("tag")
@click.option("--data", type=click.Path(path_type=Path), help="Local copy of the data set.")
@click.option(
    "--default/--no-default",
    default=None,
    help="Whether they become the network's default. Else they do unless the present default "
    "has a higher accuracy on the same images.",
)
@click.option(
    "--drop-start",
    is_flag=True,
    help="Take the weights that the run began with out of the package. How they were trained "
    "stays in the manifest.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="JSON, the manifest entry, instead of a line."
)
def main(
    run: Path, tag: str, data: Path | None, default: bool | None, drop_start: bool, as_json: bool
) -> None:
    """Embed the weights of a finished RUN as TAG and write their manifest entry.

    \b
    Examples:
      python scripts/pin_weights.py runs/digits-lenet5-0 digits_v1
      python scripts/pin_weights.py runs/digits-lenet5-0 digits_v2 --no-default --json
      python scripts/pin_weights.py runs/digits-lenet5-1 digits_v3 --drop-start
    """
    entry = pin(run, tag, data=data, default=default, drop_start=drop_start)
    name = f"{entry.model}.{tag}"
    if as_json:
        click.echo(json.dumps({"tag": name, **dataclasses.asdict(entry)}))
        return
    line = f"{name}: {entry.metrics[0].value:.2f} % on {entry.metrics[0].data}"
    if default is None and not entry.default:
        stays = ahead(manifest.manifest(), name, entry)
        if stays is not None:
            line += (
                f"\nThe default stays {stays[0]} ({stays[1].value:.2f} %). "
                "Type --default to make these the default."
            )
    click.echo(line)


if __name__ == "__main__":
    main()
