"""``senetzoo inspect``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch

from senetzoo import _complete
from senetzoo._command import LazyGroup, SenetzooCommand

if TYPE_CHECKING:
    from torch import Tensor

    from senetzoo.eval.data import LabeledImages
    from senetzoo.inspect.excitations import Excitation
    from senetzoo.inspect.prune import Pruned
    from senetzoo.nn.classifier import Classifier

DATA = (
    "A folder of class folders, a copy of CIFAR-10 or flower_photos (its test split), a parquet "
    "file, or digits."
)
IMAGES = "At most so many images of each class."
_BATCH = 250


# A report, in the room of reports.
_ELSEWHERE = {"excitations": "senetzoo.report.excitations_command:command"}


@click.group(cls=LazyGroup, elsewhere=_ELSEWHERE)
def inspect() -> None:
    """Look at what the gates of a network do, and take out those that do nothing.

    \b
    Examples:
      senetzoo inspect excitations se_resnet20 --data cifar10
      senetzoo inspect prune-gates se_resnet20 --data cifar10/train --test cifar10
    """


@inspect.command("prune-gates", cls=SenetzooCommand)
@click.argument("network", shell_complete=_complete.networks_and_folders)
@click.option(
    "--data",
    required=True,
    help=f"Training images, for the constants. {DATA}",
    shell_complete=_complete.data,
)
@click.option("--images", type=click.IntRange(min=1), help=IMAGES)
@click.option(
    "--test",
    help="Other images, to tell the accuracy before and after.",
    shell_complete=_complete.data,
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0.0, 1.0),
    default=0.05,
    show_default=True,
    help="Fold gates whose values a constant would get wrong by less than this, relative.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=0),
    default=15,
    show_default=True,
    help="Rounds of the comparison of speeds; 0 for none.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Images at a time, in the comparison of speeds.",
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Save it here.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def prune_command(
    network: str,
    data: str,
    images: int | None,
    test: str | None,
    tolerance: float,
    rounds: int,
    batch: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Fold the gates of NETWORK that do the same for every image into its weights.

    Folding a constant is exact; what is lost is what the gate did not do the same for every image.
    Gates that stay are told with the reason.

    \b
    Examples:
      senetzoo inspect prune-gates se_resnet20 --data cifar10/train --test cifar10
      senetzoo inspect prune-gates se_resnet20 --data cifar10/train --tolerance 0.15 --out pruned
    """
    from senetzoo.inspect.prune import prune_gates
    from senetzoo.io.folder import save

    model = trained(network)
    tested = None if test is None else pictures_of(model, test, None)
    found = measured(model, pictures_of(model, data, images))
    pruned, told = prune_gates(model, found, tolerance=tolerance)
    models = {"before": model, "after": pruned}
    right = {} if tested is None else {k: _accuracy(m, tested) for k, m in models.items()}
    ratio = _speed(models, batch, rounds) if rounds else None
    if out is not None:
        save(pruned, out)
    result: dict[str, Any] = {
        "network": network,
        "tolerance": tolerance,
        "gates": [_pruned(each) for each in told],
        "folded": sum(not each.why for each in told),
        "accuracy": right or None,
        "speed": ratio,
        "saved": None if out is None else str(out),
    }
    click.echo(json.dumps(result) if as_json else _told(result, batch))


def trained(name: str) -> Classifier:
    """A network with weights, as `senetzoo.load` takes it."""
    from senetzoo.zoo import load

    return load(name)


def pictures_of(model: Classifier, where: str, count: int | None) -> LabeledImages:
    """The data at `where`, or the first `count` images of each class, for what `model` tells."""
    import dataclasses

    from senetzoo.eval.data import read_images

    report = model.load_report
    classes = report.classes if report is not None else ()
    found = read_images(where, classes, model.config.num_classes)
    return found if count is None else dataclasses.replace(found, images=found.images.first(count))


def measured(model: Classifier, pictures: LabeledImages) -> dict[str, Excitation]:
    """What the gates of `model` do with them."""
    from senetzoo.eval.data import batches
    from senetzoo.inspect.excitations import excitations
    from senetzoo.zoo import transforms

    pairs = batches(pictures.images, transforms(model), _BATCH)
    return excitations(model, pairs, classes=len(pictures.images.classes))


def _accuracy(model: Classifier, pictures: LabeledImages) -> dict[str, Any]:
    from senetzoo.eval.accuracy import evaluate
    from senetzoo.zoo import transforms

    whole = evaluate(model, pictures, transforms(model), batch=_BATCH).top(1)
    return {"right": whole.right, "images": whole.total, "interval": whole.interval}


def _speed(models: dict[str, Classifier], batch: int, rounds: int) -> dict[str, Any]:
    """Throughput after over that before, eagerly, in turn."""
    from senetzoo.bench.timing import BenchmarkCase, Settings, measure

    config = models["before"].config
    image = (config.in_chans, config.input_size, config.input_size)
    cases = [BenchmarkCase(name, model, image) for name, model in models.items()]
    before, after = measure(cases, Settings(batch=batch, rounds=rounds))
    ratio = after.ratio(before)
    return {
        "ratio": ratio.median,
        "interval": ratio.interval,
        "batch": batch,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
    }


def as_dict(
    excitation: Excitation, classes: Sequence[str], drift: Mapping[str, float] | None
) -> dict[str, Any]:
    """All figures of a gate, for JSON."""
    seen = excitation.counts > 0
    return {
        "gate": excitation.path,
        "policy": excitation.gate,
        "top": excitation.top,
        "images": int(excitation.counts.sum()),
        "mean": _rounded(excitation.mean),
        "std": _rounded(excitation.std),
        "low": _rounded(excitation.low),
        "high": _rounded(excitation.high),
        "by_class": {
            name: _rounded(excitation.by_class[k]) for k, name in enumerate(classes) if seen[k]
        },
        "histogram": excitation.histogram.sum(0).tolist(),
        "closed": int(excitation.closed.sum()),
        "open": int(excitation.open.sum()),
        "constant": int(excitation.constant.sum()),
        "variation": excitation.variation,
        "spread": excitation.spread,
        "drift": None if drift is None else drift.get(excitation.path),
    }


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 6) for value in values.tolist()]


def _pruned(each: Pruned) -> dict[str, Any]:
    return {
        "gate": each.path,
        "policy": each.gate,
        "variation": each.variation,
        "params": each.params,
        "folded": not each.why,
        "why": each.why,
    }


def _told(result: dict[str, Any], batch: int) -> str:
    from senetzoo._utils.terminal import columns

    rows, fates = [["gate", "depends on image", "parameters"]], [""]
    for gate in result["gates"]:
        variation = f"{100 * gate['variation']:.1f} %"
        rows.append([gate["gate"], variation, f"{gate['params']:,}"])
        fates.append("folded" if gate["folded"] else f"stays: {gate['why']}")
    lines = [f"{row}  {fate}".rstrip() for row, fate in zip(columns(rows), fates, strict=True)]
    lines += [f"folded {result['folded']} of {len(result['gates'])} gates"]
    for name, tally in (result["accuracy"] or {}).items():
        low, high = tally["interval"]
        lines.append(
            f"accuracy {name}: {100 * tally['right'] / tally['images']:.2f} % of "
            f"{tally['images']:,} images [{100 * low:.2f}, {100 * high:.2f}]"
        )
    if result["speed"] is not None:
        speed = result["speed"]
        text = "" if speed["interval"] is None else " [{:.2f}, {:.2f}]".format(*speed["interval"])
        lines.append(
            f"speed after / before: {speed['ratio']:.2f}{text}, batch {batch}, "
            f"{speed['rounds']} rounds"
        )
    if result["saved"] is not None:
        lines.append(f"saved: {result['saved']}")
    return "\n".join(lines)
