"""Images a second of senetzoo's training loop against a plain PyTorch loop, interleaved.

The plain loop is what a tutorial has: fp32, eager, channels first, torch.optim.SGD, torchvision's
CIFAR transforms on PIL images in a DataLoader. Ours is the engine's own batches and step, compiled
and channels last. Both train the same network on the same images with the same batch, by turns in
one process, so that what else the machine does falls on both.

    python benchmarks/training_speed.py --data CIFAR10 --threads 2

One JSON line per network is appended to benchmarks/records/training-speed.jsonl.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from senetzoo._utils.environment import environment
from senetzoo._utils.torchvision import import_torchvision
from senetzoo.data.cifar import CIFAR10
from senetzoo.data.sets import ImageSet
from senetzoo.train.batches import Batches
from senetzoo.train.data import Data
from senetzoo.train.optim import make_optimizer
from senetzoo.train.recipe import Recipe
from senetzoo.train.step import Step, Sums

PARTS = ("data", "forward", "backward", "rest")


class Pictures(Dataset[tuple[Tensor, int]]):
    """CIFAR-10 as torchvision's data set gives it: PIL images through transforms."""

    def __init__(self, images: ImageSet) -> None:
        import_torchvision()
        from torchvision import transforms

        self._images = images.images.numpy()
        self._labels = images.labels.tolist()
        self._transforms = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(CIFAR10.mean, CIFAR10.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self._transforms(Image.fromarray(self._images[index])), self._labels[index]


class Clock:
    """Seconds of each part of a step; on a GPU each reading waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.restart()

    def restart(self) -> None:
        self._last = self._now()

    def tick(self, part: str) -> None:
        now = self._now()
        self.seconds[part] += now - self._last
        self._last = now

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


class Plain:
    """The loop of a tutorial."""

    def __init__(self, recipe: Recipe, images: ImageSet, device: torch.device, workers: int):
        self._device = device
        self._model = recipe.network(10, 3).build(seed=0).to(device).train()
        self._optimizer = torch.optim.SGD(
            self._model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4, nesterov=True
        )
        loader: Any = DataLoader(
            Pictures(images), recipe.batch, shuffle=True, drop_last=True, num_workers=workers
        )
        self._batches = endless(lambda: iter(loader))
        self.clock = Clock(device)

    def step(self) -> None:
        x, y = next(self._batches)
        x, y = x.to(self._device), y.to(self._device)
        self.clock.tick("data")
        loss = F.cross_entropy(self._model(x), y)
        self.clock.tick("forward")
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.clock.tick("backward")
        self._optimizer.step()
        loss.item()
        self.clock.tick("rest")


class Ours:
    """The engine's batches and step, with a clock between their parts."""

    def __init__(self, recipe: Recipe, images: ImageSet, device: torch.device, workers: int):
        from accelerate import Accelerator

        accelerator = Accelerator(
            cpu=device.type == "cpu",
            mixed_precision=recipe.precision if recipe.precision == "bf16" else "no",
        )
        model = recipe.network(10, 3).build(seed=0)
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        prepared, optimizer = accelerator.prepare(model, make_optimizer(model, recipe))
        network = torch.compile(prepared, dynamic=False) if recipe.compile else prepared
        self.clock = Clock(device)
        self._step = Step(accelerator, _Timed(network, self.clock), model, optimizer, recipe)
        backward = accelerator.backward

        def timed(loss: Tensor) -> None:
            self.clock.tick("forward")
            backward(loss)
            self.clock.tick("backward")

        accelerator.backward = timed
        data = Data(images, images, CIFAR10.mean, CIFAR10.std, len(images), "CIFAR-10")
        batches = Batches(recipe, data, 0, device, workers=workers)
        self._batches = endless(lambda: batches.epoch(0))
        self._sums = Sums.zero(len(self._step.depths), device)

    def step(self) -> None:
        batch = next(self._batches)
        self.clock.tick("data")
        self._step(batch, self._sums)
        self.clock.tick("rest")


class _Timed(nn.Module):
    """A network whose forward pass begins with a reading of the clock."""

    def __init__(self, network: Any, clock: Clock) -> None:
        super().__init__()
        self.network = network
        self.clock = clock

    def forward(self, x: Tensor) -> Tensor:
        self.clock.tick("rest")
        result: Tensor = self.network(x)
        return result


def endless(epoch: Any) -> Iterator[Any]:
    """Epoch after epoch."""
    while True:
        yield from epoch()


def random_set(count: int) -> ImageSet:
    """So many random images, where there are no others."""
    random = torch.Generator().manual_seed(0)
    return ImageSet(
        torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=random),
        torch.randint(0, 10, (count,), generator=random),
        CIFAR10.classes,
        "random",
    )


def measure(name: str, images: ImageSet, options: argparse.Namespace) -> dict[str, Any]:
    """Images a second of both loops on the network called `name`, in alternating rounds."""
    device = torch.device(options.device)
    recipe = Recipe(
        name="speed",
        model=name,
        data="cifar10",
        phases=((32, 1),),
        batch=options.batch,
        lr=0.01,
        precision=options.precision,
        compile=not options.no_compile,
    )
    loops: dict[str, Plain | Ours] = {
        "plain": Plain(recipe, images, device, options.workers),
        "ours": Ours(recipe, images, device, options.workers),
    }
    compile_seconds = {}
    for kind, loop in loops.items():
        start = time.perf_counter()
        for _ in range(2):
            loop.step()
        compile_seconds[kind] = round(time.perf_counter() - start, 2)
        loop.clock.seconds = dict.fromkeys(PARTS, 0.0)
    rates: dict[str, list[float]] = {kind: [] for kind in loops}
    for _ in range(options.rounds):
        for kind, loop in loops.items():
            loop.clock.restart()
            start = time.perf_counter()
            for _ in range(options.steps):
                loop.step()
            rates[kind].append(options.steps * options.batch / (time.perf_counter() - start))
    ratios = [ours / plain for plain, ours in zip(rates["plain"], rates["ours"], strict=True)]
    total = options.rounds * options.steps
    return {
        "kind": "training speed",
        "model": name,
        "size": 32,
        "batch": options.batch,
        "rounds": options.rounds,
        "steps": options.steps,
        "workers": options.workers,
        "compile": recipe.compile,
        "precision": recipe.precision,
        "ratio": {
            "median": round(statistics.median(ratios), 3),
            "min": round(min(ratios), 3),
            "max": round(max(ratios), 3),
        },
        "images_per_second": {k: round(statistics.median(v), 1) for k, v in rates.items()},
        "milliseconds_per_step": {
            kind: {p: round(1000 * s / total, 2) for p, s in loop.clock.seconds.items()}
            for kind, loop in loops.items()
        },
        "first_two_steps_seconds": compile_seconds,
        "environment": environment(device, torch.get_num_threads()),
    }


def main() -> None:
    """Measure and append to the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="CIFAR-10; random images without it")
    parser.add_argument("--model", action="append", help="default: resnet20 and se_resnet20")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20, help="of a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--workers", type=int, default=0, help="of both loops' data")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"], help="ours")
    parser.add_argument("--no-compile", action="store_true", help="ours eager")
    parser.add_argument(
        "--record",
        type=Path,
        default=Path(__file__).parent / "records" / "training-speed.jsonl",
    )
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.data is not None:
        images = CIFAR10.load(options.data, "train")
    else:
        images = random_set(8 * options.batch)
    for name in options.model or ["resnet20", "se_resnet20"]:
        record = measure(name, images, options)
        print(json.dumps(record, indent=1))
        with options.record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
