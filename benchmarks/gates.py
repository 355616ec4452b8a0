"""What the gates of an embedded network do with CIFAR-10, and what it costs to take them out.

    python benchmarks/gates.py --data CIFAR10 --out benchmarks/records/gates se_resnet20.cifar10_v1

Writes TAG.excitations.json: every gate on the 10,000 test images, as ``senetzoo inspect excitations
--json`` has it. And TAG.pruning.jsonl: gates folded into the weights one after another, the least
variable first, constants from training images; accuracy on the test images, and speed against the
network as it was, all in turn.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch
from torch import Tensor

import senetzoo
from senetzoo.bench.timing import Backend, BenchmarkCase, Settings, measure
from senetzoo.data import cifar10
from senetzoo.data.sets import ImageSet
from senetzoo.deploy.engines import ENGINES, Runner
from senetzoo.environment import machine, revision
from senetzoo.inspect import drift, excitations, prune_gates
from senetzoo.inspect.command import as_dict
from senetzoo.train.augment import normalise
from senetzoo.weights.manifest import history

BATCH = 500


def batches(images: ImageSet) -> list[tuple[Tensor, Tensor]]:
    """The images as the networks were trained to see them, with their labels."""
    seen = normalise(images.images, cifar10.MEAN, cifar10.STD, 32)
    return list(zip(torch.split(seen, BATCH), torch.split(images.labels, BATCH), strict=True))


def answers(run: Runner, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Whether each image is classified rightly."""
    return torch.cat([run(images).argmax(1) == labels for images, labels in pairs])


@click.command()
@click.argument("tag")
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder.")
@click.option("--images", default=500, show_default=True, help="Training images of each class.")
@click.option("--engine", default="openvino", show_default=True, type=click.Choice(list(ENGINES)))
@click.option("--rounds", default=25, show_default=True)
@click.option("--batch", default=256, show_default=True, help="Of the speeds.")
def main(
    tag: str, data: Path, out: Path, images: int, engine: str, rounds: int, batch: int
) -> None:
    """Measure, and write both records."""
    test = batches(cifar10.load(data, "test"))
    train = batches(cifar10.load(data, "train").first(images))
    model = senetzoo.create(tag, pretrained=True).eval()
    if not history(tag):
        raise click.UsageError(f"{tag} does not say how it was trained.")
    # Before the first of its trainings.
    first, training = next(iter(history(tag).items()))
    initial = senetzoo.config(first).build(seed=training.seed)
    where = {"machine": machine(), "commit": revision()}

    out.mkdir(parents=True, exist_ok=True)
    seen = excitations(model, test, classes=10)
    moved = drift(model, initial)
    rows = [as_dict(each, cifar10.CLASSES, moved) for each in seen.values()]
    whole = {"network": tag, "data": "CIFAR-10 test", **where, "gates": rows}
    (out / f"{tag}.excitations.json").write_text(json.dumps(whole) + "\n", encoding="utf-8")

    found = excitations(model, train, classes=10)
    order = sorted(found.values(), key=lambda each: each.variation)
    folded = {0: model}
    for count, each in enumerate(order, 1):
        folded[count], found_gates = prune_gates(model, found, tolerance=each.variation)
        if sum(not one.why for one in found_gates) != count:
            raise click.ClickException(f"Not every gate could be folded: {found_gates}")
    right = {}
    for count, network in folded.items():
        right[count] = answers(ENGINES[engine].load(network, test[0][0]), test)
        click.echo(f"{count} folded: {int(right[count].sum())}", err=True)
    cases = [
        BenchmarkCase(str(count), network, (3, 32, 32), Backend(engine))
        for count, network in folded.items()
    ]
    timings = measure(cases, Settings(batch=batch, rounds=rounds))
    with (out / f"{tag}.pruning.jsonl").open("w", encoding="utf-8") as file:
        for count, timing in enumerate(timings):
            ratio = timing.ratio(timings[0])
            line = {
                "network": tag,
                "folded": count,
                "last": order[count - 1].path if count else None,
                "variation": round(order[count - 1].variation, 6) if count else None,
                "test_correct": int(right[count].sum()),
                "test_images": len(right[count]),
                "only_this": int((right[count] & ~right[0]).sum()),
                "only_that": int((right[0] & ~right[count]).sum()),
                "train_images": sum(len(labels) for _, labels in train),
                "speed": round(ratio.median, 4),
                "interval": ratio.interval and [round(end, 4) for end in ratio.interval],
                "batch": batch,
                "rounds": rounds,
                "engine": engine,
                **where,
            }
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
