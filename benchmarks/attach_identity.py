"""What an identity SE brings to a network that is trained already, on CIFAR-10.

    python benchmarks/attach_identity.py --data CIFAR10 --out RECORD.jsonl

For each seed the embedded resnet20 gets an SE with ``init="identity"`` at every block. First only
the gates are trained, on the trunk as it is (its batch norms in eval mode), then everything. A
control trains the bare trunk as the last step does, on the same batches: what it gains too is the
training's doing, not the gates'. One JSON line for every step of every seed; lines that the record
has are not measured again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
import torch
from torch import nn
from torch.nn import functional as F

import senetzoo
from senetzoo._utils.environment import machine, revision
from senetzoo.data.cifar import CIFAR10
from senetzoo.data.sets import ImageSet
from senetzoo.train.augment import Draws, crop_and_flip, normalize, pad

NETWORK, POLICY = "resnet20.cifar10_v1", senetzoo.SE(reduction=4, init="identity")
BATCH = 128


@torch.inference_mode()
def correct(model: nn.Module, test: ImageSet) -> int:
    """How many test images the network gets right."""
    model.eval()
    right = 0
    for start in range(0, len(test.labels), 500):
        part = slice(start, start + 500)
        x = normalize(test.images[part], CIFAR10.mean, CIFAR10.std, 32)
        right += int((model(x).argmax(1) == test.labels[part]).sum())
    return right


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: ImageSet,
    epochs: int,
    seed: int,
    *,
    frozen: bool,
    compiled: bool,
) -> float:
    """Train with the learning rate falling linearly to 0; the mean loss of the last epoch.

    Batches depend on the seed alone. With `frozen` batch norms use their statistics, and keep them.
    """
    model.train(not frozen)
    network = torch.compile(model, dynamic=False) if compiled else model
    generator = torch.Generator().manual_seed(seed)
    images, steps = pad(train.images, 4), len(train.labels) // BATCH
    peaks = [group["lr"] for group in optimizer.param_groups]
    loss_sum = torch.zeros(())
    for step in range(epochs * steps):
        if step % steps == 0:
            order = torch.randperm(len(train.labels), generator=generator)
            loss_sum = torch.zeros(())
        index = order[step % steps * BATCH :][:BATCH]
        x = crop_and_flip(images, index, 32, True, Draws(generator, len(index)))
        loss = F.cross_entropy(
            network(normalize(x, CIFAR10.mean, CIFAR10.std, 32)), train.labels[index]
        )
        loss.backward()  # type: ignore[no-untyped-call]
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * (1 - step / (epochs * steps))
        optimizer.step()
        optimizer.zero_grad()
        loss_sum += loss.detach()
    return float(loss_sum) / steps


def sgd(groups: list[dict[str, object]], lr: float) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum."""
    return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSONL, appended to.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--gate-epochs", default=2, show_default=True)
@click.option("--epochs", default=2, show_default=True, help="Of everything, and of the control.")
@click.option("--limit", type=int, help="Use so many images of each class, to try it.")
@click.option("--compile/--no-compile", "compiled", default=True, show_default=True)
def main(
    data: Path,
    out: Path,
    seeds: int,
    gate_epochs: int,
    epochs: int,
    limit: int | None,
    compiled: bool,
) -> None:
    """Measure, and append to the record."""
    train, test = CIFAR10.load(data, "train"), CIFAR10.load(data, "test")
    if limit is not None:
        train, test = train.first(limit), test.first(limit)
    lines = out.read_text(encoding="utf-8").splitlines() if out.is_file() else []
    known = {(line["seed"], line["step"]) for line in map(json.loads, lines)}

    def record(seed: int, step: str, count: int, right: int, **more: object) -> None:
        line = {
            "seed": seed,
            "step": step,
            "network": NETWORK,
            "epochs": count,
            "test_correct": right,
            "test_images": len(test.labels),
            "train_images": len(train.labels),
            **more,
            "machine": machine(),
            "commit": revision(),
        }
        click.echo(json.dumps(line))
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def trunk() -> nn.Module:
        model: nn.Module = senetzoo.create(NETWORK, pretrained=True)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    for seed in range(seeds):
        if (seed, "everything") in known:
            continue
        model = trunk()
        if (seed, "trunk") not in known:
            record(seed, "trunk", 0, correct(model, test))
        attached = senetzoo.attach(model, POLICY, seed=seed)
        if (seed, "attached") not in known:
            record(seed, "attached", 0, correct(model, test), policy=str(POLICY))
        rest, gates = attached.parameters(weight_decay=5e-4)
        for parameter in rest["params"]:
            parameter.requires_grad_(False)
        start = time.perf_counter()
        loss = fit(
            model, sgd([gates], 0.1), train, gate_epochs, seed, frozen=True, compiled=compiled
        )
        used = time.perf_counter() - start
        if (seed, "gates") not in known:
            record(seed, "gates", gate_epochs, correct(model, test), train_loss=loss, seconds=used)
        for parameter in rest["params"]:
            parameter.requires_grad_(True)
        start = time.perf_counter()
        optimizer = sgd([rest, gates], 0.01)
        loss = fit(model, optimizer, train, epochs, seed + 1000, frozen=False, compiled=compiled)
        used = time.perf_counter() - start
        record(seed, "everything", epochs, correct(model, test), train_loss=loss, seconds=used)
    for seed in range(seeds):
        if (seed, "control") in known:
            continue
        model = trunk()
        groups = senetzoo.attach(model, senetzoo.NONE).parameters(weight_decay=5e-4)
        start = time.perf_counter()
        optimizer = sgd(groups[:1], 0.01)
        loss = fit(model, optimizer, train, epochs, seed + 1000, frozen=False, compiled=compiled)
        used = time.perf_counter() - start
        record(seed, "control", epochs, correct(model, test), train_loss=loss, seconds=used)


if __name__ == "__main__":
    main()
