"""Accuracy on corrupted CIFAR-10 test images: of runs, or of the weights in the package.

    python benchmarks/noise.py --data CIFAR10 --out benchmarks/records/noise.jsonl \\
        runs/ablation_positions/plain-0 runs/ablation_positions/standard-0

Six corruptions of `senetzoo.data.corruptions` at five severities, and the clean images; the same
corrupted images for every network. One JSON line for every network, corruption and severity;
what the record has is not measured again.
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
from senetzoo.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from senetzoo.deploy.engines import ENGINES, Runner
from senetzoo.nn.classifier import Classifier
from senetzoo.runs import LOG, read_log, renamed
from senetzoo.train.augment import normalize
from senetzoo.train.recipe import networks_of

BATCH = 500
SEED = 0


def network(name: str) -> tuple[Classifier, str, int]:
    """The network of a run's folder or of a tag, with the variant and the seed of the run."""
    folder = Path(name)
    if not folder.is_dir():
        return senetzoo.create(name, pretrained=True), name, 0
    model, _ = networks_of(folder)
    header = read_log(folder / LOG)[0]
    return model, header["variant"], header["seed"]


@click.command()
@click.argument("networks", nargs=-1, required=True)
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSONL, appended to.")
@click.option("--per-class", type=int, help="Only so many test images of each class.")
@click.option("--engine", default="eager", show_default=True, type=click.Choice(list(ENGINES)))
def main(
    networks: tuple[str, ...], data: Path, out: Path, per_class: int | None, engine: str
) -> None:
    """Measure, and append to the record."""
    test = CIFAR10.load(data, "test")
    test = test if per_class is None else test.first(per_class)
    text = out.read_text(encoding="utf-8") if out.is_file() else ""
    keys = ("variant", "seed", "corruption", "severity")
    known = {
        tuple(line[key] for key in keys)
        for line in map(renamed, map(json.loads, text.splitlines()))
    }
    loaded = [network(name) for name in networks]
    first = normalize(test.images[:BATCH], CIFAR10.mean, CIFAR10.std, 32)
    running = [(ENGINES[engine].load(m, first), variant, seed) for m, variant, seed in loaded]
    for corruption in (None, *CORRUPTIONS):
        for severity in SEVERITIES if corruption else (0,):
            kind = corruption or "none"
            if all((variant, seed, kind, severity) in known for _, variant, seed in running):
                continue
            images = test.images
            if corruption:
                images = corrupt(images, corruption, severity, seed=SEED)
            # Of each network, which images it gets right.
            right = [hits(run, images, test.labels) for run, _, _ in running]
            for (_, variant, seed), found in zip(running, right, strict=True):
                if (variant, seed, kind, severity) in known:
                    continue
                line = {
                    "variant": variant,
                    "seed": seed,
                    "corruption": kind,
                    "severity": severity,
                    "test_correct": int(found.sum()),
                    "test_images": len(images),
                    # The same images: what the two disagree on is what their difference rests on.
                    "against": running[0][1],
                    "only_this": int((found & ~right[0]).sum()),
                    "only_that": int((right[0] & ~found).sum()),
                    "noise_seed": SEED,
                    "engine": engine,
                    "machine": machine(),
                    "commit": revision(),
                }
                click.echo(json.dumps(line))
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")


def hits(run: Runner, images: Tensor, labels: Tensor) -> Tensor:
    """(N,), whether each image gets its label."""
    parts = [
        run(normalize(images[n : n + BATCH], CIFAR10.mean, CIFAR10.std, 32)).argmax(1)
        for n in range(0, len(images), BATCH)
    ]
    return torch.cat(parts) == labels


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
