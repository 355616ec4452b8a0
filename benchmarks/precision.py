"""What bf16 and int8 cost in accuracy: networks with embedded CIFAR-10 weights, on each engine.

    python benchmarks/precision.py --data CIFAR10 --out benchmarks/records/deploy/precision.jsonl

Each engine runs all test images in every dtype that it has. int8 is calibrated with the
first images of each class of the training split, never with test images. One JSON line for
every network, engine and dtype: right answers, and how many differ from eager fp32's. Lines that
the record has are not measured again.
"""

from __future__ import annotations

import importlib.metadata
import json
import time
import warnings
from pathlib import Path

import click
import torch
from torch import Tensor

import senetzoo
from senetzoo._utils.environment import cpu_flags, machine, revision
from senetzoo.data.cifar import CIFAR10
from senetzoo.data.sets import ImageSet
from senetzoo.deploy.engines import ENGINES, Dtype, Engine, Runner
from senetzoo.train.augment import normalize

NETWORKS = ("resnet20.cifar10_v1", "se_resnet20.cifar10_v1")
# bf16 last: without instructions for it, it takes a quarter of an hour.
ORDER: tuple[tuple[Dtype, ...], ...] = (("fp32", "int8"), ("bf16",))
BATCH = 500


def seen(images: ImageSet) -> Tensor:
    """The images as the networks were trained to see them."""
    return normalize(images.images, CIFAR10.mean, CIFAR10.std, 32)


def answers(run: Runner, images: Tensor) -> Tensor:
    """The class that the network gives to each image."""
    parts = [run(images[n : n + BATCH]).argmax(1) for n in range(0, len(images), BATCH)]
    return torch.cat(parts)


def version(engine: Engine) -> str:
    """Of the library that runs it."""
    return importlib.metadata.version(engine.packages[-1] if engine.packages else "torch")


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSONL, appended to.")
@click.option("--calibration", default=50, show_default=True, help="Images of each class.")
@click.option("--limit", type=int, help="Use so many test images of each class, to try it.")
def main(data: Path, out: Path, calibration: int, limit: int | None) -> None:
    """Measure, and append to the record."""
    test = CIFAR10.load(data, "test")
    if limit is not None:
        test = test.first(limit)
    images, ranges = seen(test), seen(CIFAR10.load(data, "train").first(calibration))
    lines = out.read_text(encoding="utf-8").splitlines() if out.is_file() else []
    known = {(line["network"], line["engine"], line["dtype"]) for line in map(json.loads, lines)}
    out.parent.mkdir(parents=True, exist_ok=True)

    for name, dtypes in [(name, dtypes) for dtypes in ORDER for name in NETWORKS]:
        model = senetzoo.create(name, pretrained=True)
        pairs = [(e, t) for t in dtypes for e in ENGINES.values() if t in e.dtypes]
        if all((name, engine.name, dtype) in known for engine, dtype in pairs):
            continue
        exact = answers(ENGINES["eager"].load(model, images[:BATCH]), images)
        for engine, dtype in pairs:
            if (name, engine.name, dtype) in known:
                continue
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # the record has it as a note
                given = ranges if dtype == "int8" else None
                run = engine.load(model, images[:BATCH], dtype, calibration=given)
            found = answers(run, images)
            line = {
                "network": name,
                "engine": engine.name,
                "version": version(engine),
                "dtype": dtype,
                "test_correct": int((found == test.labels).sum()),
                "test_images": len(test.labels),
                "differs_from_fp32": int((found != exact).sum()),
                "calibration_images": len(ranges) if dtype == "int8" else None,
                "seconds": round(time.perf_counter() - start, 1),
                "machine": machine(),
                "cpu_flags": cpu_flags(),
                "commit": revision(),
            }
            click.echo(json.dumps(line))
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
