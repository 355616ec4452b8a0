"""Batches of an epoch, the same ones wherever an interrupted run goes on.

What is in a batch depends on the seed, the epoch and the step alone: not on the network, nor on
the number of processes or workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from senetzoo._utils.torchvision import torchvision
from senetzoo.data.files import LabelledFiles
from senetzoo.data.hub import Stream
from senetzoo.data.images import open_image
from senetzoo.data.sets import ImageSet
from senetzoo.errors import DataError
from senetzoo.train import augment
from senetzoo.train.augment import Draws
from senetzoo.train.data import Data
from senetzoo.train.recipe import Recipe


class Batch(NamedTuple):
    """A process's part of a batch.

    Args:
        x: Network input (B, C, size, size).
        target: What the loss compares with: labels (B,), or the weight of each class (B, classes).
        labels: (B,), of the images before any mixing.
    """

    x: Tensor
    target: Tensor
    labels: Tensor


class Batches:
    """The training images of one process, epoch by epoch.

    Args:
        recipe: Size of batches, augmentation.
        data: Where the images are.
        seed: Of the order and the augmentation.
        device: Where batches go.
        rank: Number of this process.
        ranks: Number of processes; each takes an equal part of a batch.
        workers: Processes that read and augment large images.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Data,
        seed: int,
        device: torch.device,
        *,
        rank: int = 0,
        ranks: int = 1,
        workers: int = 0,
    ) -> None:
        self.recipe, self.data, self.seed, self.device = recipe, data, seed, device
        self.steps = data.count // recipe.batch
        share = recipe.batch // ranks
        self.rows = slice(rank * share, (rank + 1) * share)
        self.generator = torch.Generator()
        self._dtype = torch.float64 if recipe.precision == "fp64" else torch.float32
        self._source: _Memory | _Files | _Streamed
        if isinstance(data.train, ImageSet):
            self._source = _Memory(recipe, data.train, device)
        elif isinstance(data.train, LabelledFiles):
            self._source = _Files(recipe, data.train, seed, workers, device)
        else:
            self._source = _Streamed(recipe, data.train, seed, workers, device)

    def epoch(self, epoch: int, start: int = 0, state: Tensor | None = None) -> Iterator[Batch]:
        """The batches of `epoch`, counted from 0.

        Args:
            epoch: Which one.
            start: Steps of it that are done.
            state: ``generator.get_state()`` after those.

        Raises:
            DataError: An image can't be read.
        """
        self.generator.manual_seed((self.seed << 20) + epoch)
        order = torch.randperm(self.data.count, generator=self.generator)
        if state is not None:
            self.generator.set_state(state)
        parts = [
            order[step * self.recipe.batch : (step + 1) * self.recipe.batch][self.rows]
            for step in range(start, self.steps)
        ]
        size = self.recipe.size(epoch)
        for images, labels, draws in self._read(epoch, size, start, parts):
            yield self._finished(images, labels, draws, size)

    def _read(
        self, epoch: int, size: int, start: int, parts: list[Tensor]
    ) -> Iterator[tuple[Tensor, Tensor, Draws]]:
        """Images (B, H, W, C) before what is done on the device, labels, and the rest's draws."""
        if isinstance(self._source, _Memory):
            for part in parts:
                draws = self._draws()
                yield *self._source.take(part.to(self.device), draws), draws
        elif isinstance(self._source, _Files):
            for images, labels in self._source.read(epoch, size, parts):
                yield images, labels, self._draws()
        else:
            for images, labels in self._source.read(epoch, size, start, self.steps, self.rows):
                yield images, labels, self._draws()

    def _draws(self) -> Draws:
        return Draws(self.generator, self.recipe.batch, self.rows, self.device)

    def _finished(self, images: Tensor, labels: Tensor, draws: Draws, size: int) -> Batch:
        recipe = self.recipe
        x = augment.normalise(images, self.data.mean, self.data.std, size)
        if recipe.rotation or recipe.zoom:
            x = augment.rotate_and_zoom(x, recipe.rotation, recipe.zoom, draws)
        if recipe.noise or recipe.blur or recipe.enlarge > 1:
            x = augment.degrade(x, recipe.noise, recipe.blur, recipe.enlarge, self.data.std, draws)
        if recipe.cutout:
            x = augment.cutout(x, recipe.cutout, draws)
        if recipe.erase:
            x = augment.erase(x, recipe.erase, draws)
        target = labels
        if recipe.mixup or recipe.cutmix:
            classes = len(self.data.classes)
            x, target = augment.mix(x, labels, classes, recipe.mixup, recipe.cutmix, draws)
        if not recipe.channels_last:
            x = x.contiguous()
        target = target.to(self._dtype) if target.is_floating_point() else target
        return Batch(x.to(self._dtype), target, labels)


class _Memory:
    """Small images, all on the device."""

    def __init__(self, recipe: Recipe, images: ImageSet, device: torch.device) -> None:
        self._recipe = recipe
        self._side = images.images.shape[1]
        self._images = augment.pad(images.images, recipe.margin).to(device)
        self._labels = images.labels.to(device)

    def take(self, index: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        images = augment.crop_and_flip(self._images, index, self._side, self._recipe.flip, draws)
        return images, self._labels[index]


class Key(NamedTuple):
    """Which image is wanted, for which epoch and at which size."""

    epoch: int
    image: int
    size: int


class TrainTransforms:
    """Random crop, mirror and RandAugment of one large image, from its own seed.

    Args:
        recipe: What to do.
        seed: Of the run.
    """

    def __init__(self, recipe: Recipe, seed: int) -> None:
        self._recipe, self._seed = recipe, seed
        self._made: dict[int, Any] = {}

    def __call__(self, source: Any, name: str, key: Key) -> Tensor:
        """Read `source` and make it a uint8 image (size, size, 3)."""
        image = open_image(source, name).convert("RGB")
        torchvision()
        from torchvision.transforms.v2 import functional

        if key.size not in self._made:
            self._made[key.size] = self._pipeline(key.size)
        words = np.random.SeedSequence([self._seed, key.epoch, key.image]).generate_state(2)
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would seed the accelerators too.
            torch.default_generator.manual_seed(int(words[0]) << 31 ^ int(words[1]))
            image = self._made[key.size](image)
        pixels: Tensor = functional.pil_to_tensor(image)
        return pixels.permute(1, 2, 0)

    def _pipeline(self, size: int) -> Any:
        from torchvision.transforms import v2

        recipe = self._recipe
        if recipe.crop_scale[1]:
            steps: list[Any] = [v2.RandomResizedCrop(size, recipe.crop_scale, antialias=True)]
        else:
            short = int(size / recipe.test_crop + 1e-6)
            steps = [v2.Resize(short, antialias=True), v2.CenterCrop(size)]
        if recipe.flip:
            steps.append(v2.RandomHorizontalFlip())
        if recipe.randaugment:
            steps.append(v2.RandAugment(recipe.randaugment_ops, recipe.randaugment))
        return v2.Compose(steps)


class _Images(Dataset[Any]):
    def __init__(self, files: LabelledFiles, transforms: TrainTransforms) -> None:
        self._files, self._transforms = files, transforms

    def __getitem__(self, key: Key) -> tuple[Tensor, int] | DataError:
        files = self._files
        try:
            source, name = files.sources[key.image], files.source_name(key.image)
            return self._transforms(source, name, key), files.labels[key.image]
        except DataError as error:
            # Raised in a worker, it would arrive with that worker's traceback in its message.
            return error


class _Order:
    """What the loader's workers are to read next: lists of keys."""

    def __init__(self) -> None:
        self.keys: list[list[Key]] = []

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


def stacked(items: list[tuple[Tensor, int] | DataError]) -> tuple[Tensor, Tensor] | DataError:
    """A batch of what a data set gave; the first error where there is one."""
    pairs: list[tuple[Tensor, int]] = []
    for item in items:
        if isinstance(item, DataError):
            return item
        pairs.append(item)
    return torch.stack([image for image, _ in pairs]), torch.tensor([y for _, y in pairs])


class _Files:
    """Large images, read by workers."""

    def __init__(
        self, recipe: Recipe, files: LabelledFiles, seed: int, workers: int, device: torch.device
    ) -> None:
        self._order = _Order()
        self._device = device
        self._loader = _loader(
            _Images(files, TrainTransforms(recipe, seed)), self._order, workers, device
        )

    def read(self, epoch: int, size: int, parts: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        self._order.keys = [[Key(epoch, int(i), size) for i in part] for part in parts]
        yield from _on_device(self._loader, self._device)


class _Content(NamedTuple):
    """One image of a stream."""

    content: bytes
    label: int
    name: str
    key: Key


class _Contents(Dataset[Any]):
    def __init__(self, transforms: TrainTransforms) -> None:
        self._transforms = transforms

    def __getitem__(self, item: _Content) -> tuple[Tensor, int] | DataError:
        try:
            return self._transforms(item.content, item.name, item.key), item.label
        except DataError as error:
            return error


class _StreamOrder:
    """What the workers are to decode next, read from the stream here: they share one stream."""

    def __init__(self, stream: Stream, seed: int, batch: int) -> None:
        self._stream, self._seed, self._batch = stream, seed, batch
        self.epoch = self.size = self.start = self.steps = 0
        self.rows = slice(0)

    def __iter__(self) -> Iterator[list[_Content]]:
        name, batch = self._stream.name, self._batch
        content = self._stream.read((self._seed << 20) + self.epoch, self.start * batch)
        for step in range(self.start, self.steps):
            items = list(islice(content, batch))
            if len(items) < batch:
                raise DataError(
                    f"{name} has fewer images than {self.steps * batch}.",
                    "An epoch of a stream is as many images as the recipe or the Hub says.",
                    f"Type: --set stream_images={step * batch + len(items)}",
                )
            numbers = range(step * batch, (step + 1) * batch)
            yield [
                _Content(*item, f"image {number} of {name}", Key(self.epoch, number, self.size))
                for item, number in list(zip(items, numbers, strict=True))[self.rows]
            ]


class _Streamed:
    """A stream: each process reads it all and decodes its part."""

    def __init__(
        self, recipe: Recipe, stream: Stream, seed: int, workers: int, device: torch.device
    ) -> None:
        self._order = _StreamOrder(stream, seed, recipe.batch)
        self._device = device
        self._loader = _loader(
            _Contents(TrainTransforms(recipe, seed)), self._order, workers, device
        )

    def read(
        self, epoch: int, size: int, start: int, steps: int, rows: slice
    ) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._order
        order.epoch, order.size, order.start, order.steps = epoch, size, start, steps
        order.rows = rows
        yield from _on_device(self._loader, self._device)


def _loader(data: Dataset[Any], order: Any, workers: int, device: torch.device) -> Any:
    return DataLoader(
        data,
        batch_sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=stacked,
        pin_memory=device.type == "cuda",
        # Its seeds are unused here; without one of its own it takes them from the network's.
        generator=torch.Generator(),
    )


def _on_device(loader: Any, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    for item in loader:
        if isinstance(item, DataError):
            raise item
        images, labels = item
        yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
