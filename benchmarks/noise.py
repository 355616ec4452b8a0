"""Accuracy of two networks on corrupted test images of CIFAR-10 or CIFAR-100.

    python benchmarks/noise.py resnet20.cifar10_v2 se_resnet20.cifar10_v2 \\
        --data CIFAR10 --out benchmarks/records/noise.jsonl
    python benchmarks/noise.py runs/ablation_positions/plain-0 runs/ablation_positions/standard-0 \\
        --data CIFAR10 --per-class 200 --out benchmarks/records/noise-seeds.jsonl

Six corruptions of `senetzoo.data.corruptions` at five severities, and the clean images; the same
images for both networks. One JSON line for each corruption; what the record has is not measured
again. `squares` is for the interval of the mean over severities: the sum over images of the square
of the number of severities at which the second network is right minus that of the first.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch
from torch import Tensor

import senetzoo
from senetzoo._utils.environment import machine, revision
from senetzoo.data.cifar import CIFAR10, CIFAR100
from senetzoo.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from senetzoo.deploy.engines import ENGINES, Engine
from senetzoo.nn.classifier import Classifier
from senetzoo.runs import LOG, is_run, read_log
from senetzoo.train.augment import normalize

BATCH = 500
SEED = 0


class Hits:
    """Which images a network gets right."""

    def __init__(self, model: Classifier, engine: Engine, like: Tensor) -> None:
        self.preprocessing = senetzoo.transforms(model)
        self.run = engine.load(model, self.seen(like[:BATCH]))

    def seen(self, images: Tensor) -> Tensor:
        """The images as the network was trained to see them."""
        p = self.preprocessing
        return normalize(images, p.mean, p.std, p.size)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """(N,), whether each image gets its label."""
        parts = [
            self.run(self.seen(images[n : n + BATCH])).argmax(1)
            for n in range(0, len(images), BATCH)
        ]
        return torch.cat(parts) == labels


@click.command()
@click.argument("networks", nargs=2, metavar="FIRST SECOND")
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSONL, appended to.")
@click.option("--per-class", type=int, help="Only so many test images of each class.")
@click.option("--engine", default="eager", show_default=True, type=click.Choice(list(ENGINES)))
def main(
    networks: tuple[str, str], data: Path, out: Path, per_class: int | None, engine: str
) -> None:
    """Measure two networks, tags or folders of runs, and append to the record."""
    models = [senetzoo.load(name) for name in networks]
    (classes,) = {model.classes for model in models}
    (cifar,) = (each for each in (CIFAR10, CIFAR100) if each.classes == classes)
    test = cifar.load(data, "test")
    test = test if per_class is None else test.first(per_class)
    headers = [read_log(Path(name, LOG))[0] for name in networks if is_run(Path(name))]
    key = {
        "networks": [header["variant"] for header in headers] or list(networks),
        "seed": headers[0]["seed"] if headers else None,
        "data": test.name,
    }
    text = out.read_text(encoding="utf-8") if out.is_file() else ""
    known = [json.loads(line) for line in text.splitlines()]
    hits = [Hits(model, ENGINES[engine], test.images) for model in models]
    for corruption in (None, *CORRUPTIONS):
        key |= {"corruption": corruption or "none"}
        if any(key.items() <= line.items() for line in known):
            continue
        right = torch.stack(
            [
                torch.stack([hit(images, test.labels) for hit in hits], 1)
                for images in (
                    [test.images]
                    if corruption is None
                    else (corrupt(test.images, corruption, s, seed=SEED) for s in SEVERITIES)
                )
            ]
        )  # (severities, images, networks)
        first, second = right.sum(0).unbind(1)
        line = {
            **key,
            "test_correct": right.sum(1).T.tolist(),  # of each network, by severity
            "test_images": len(test.images),
            "squares": int((second - first).square().sum()),
            "noise_seed": SEED,
            "engine": engine,
            "machine": machine(),
            "commit": revision(),
        }
        click.echo(json.dumps(line))
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
