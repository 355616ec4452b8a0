"""What the gates of an embedded network do with CIFAR-10.

    python benchmarks/gates.py --data CIFAR10 --out benchmarks/records/gates se_resnet20.cifar10_v1

Writes TAG.excitations.json: every gate on the 10,000 test images, as ``senetzoo inspect --json``
has it.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch
from torch import Tensor

import senetzoo
from senetzoo._utils.environment import machine, revision
from senetzoo.data.cifar import CIFAR10
from senetzoo.data.sets import ImageSet
from senetzoo.inspect import drift, excitations
from senetzoo.train.augment import normalize
from senetzoo.weights.manifest import history

BATCH = 500


def batches(images: ImageSet) -> list[tuple[Tensor, Tensor]]:
    """The images as the networks were trained to see them, with their labels."""
    seen = normalize(images.images, CIFAR10.mean, CIFAR10.std, 32)
    return list(zip(torch.split(seen, BATCH), torch.split(images.labels, BATCH), strict=True))


@click.command()
@click.argument("tag")
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder.")
def main(tag: str, data: Path, out: Path) -> None:
    """Measure, and write the record."""
    test = batches(CIFAR10.load(data, "test"))
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
    rows = [excitation.as_dict(CIFAR10.classes, moved) for excitation in seen.values()]
    whole = {"network": tag, "data": "CIFAR-10 test", **where, "gates": rows}
    (out / f"{tag}.excitations.json").write_text(json.dumps(whole) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
