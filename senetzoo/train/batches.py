"""Batches of an epoch, the same ones wherever an interrupted run goes on.

What is in a batch depends on the seed, the epoch and the step alone: not on the network, nor on
the number of processes or workers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from senetzoo._utils.torchvision import torchvision
from senetzoo.data.files import LabeledFiles
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
        images = data.train
        if isinstance(images, ImageSet):
            self._images = augment.pad(images.images, recipe.margin).to(device)
            self._labels = images.labels.to(device)
            return
        transforms = TrainTransforms(recipe, seed)
        read: Callable[[Any], tuple[Tensor, int]] = functools.partial(_content, transforms)
        if isinstance(images, LabeledFiles):
            read = functools.partial(_file, images, transforms)
        self._order = _Order()
        self._loader = loader(
            read, device, workers, batch_sampler=self._order, persistent_workers=workers > 0
        )

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
        images = self.data.train
        if isinstance(images, ImageSet):
            side = images.images.shape[1]
            for part in parts:
                draws, index = self._draws(), part.to(self.device)
                crops = augment.crop_and_flip(self._images, index, side, self.recipe.flip, draws)
                yield crops, self._labels[index], draws
            return
        if isinstance(images, LabeledFiles):
            self._order.items = ([Key(epoch, int(i), size) for i in part] for part in parts)
        else:
            self._order.items = self._streamed(images, epoch, size, start)
        for x, labels in loaded(self._loader, self.device):
            yield x, labels, self._draws()

    def _streamed(self, stream: Stream, epoch: int, size: int, start: int) -> Iterator[list[Any]]:
        """What the workers decode, read from the stream here: all processes read the whole."""
        batch = self.recipe.batch
        content = stream.read((self.seed << 20) + epoch, start * batch)
        for step in range(start, self.steps):
            items = list(islice(content, batch))
            if len(items) < batch:
                raise DataError(
                    f"{stream.name} has fewer images than {self.steps * batch}.",
                    "An epoch of a stream is as many images as the recipe or the Hub says.",
                    f"Type: --set stream_images={step * batch + len(items)}",
                )
            yield [
                (*item, f"image {number} of {stream.name}", Key(epoch, number, size))
                for number, item in enumerate(items, step * batch)
            ][self.rows]

    def _draws(self) -> Draws:
        return Draws(self.generator, self.recipe.batch, self.rows, self.device)

    def _finished(self, images: Tensor, labels: Tensor, draws: Draws, size: int) -> Batch:
        recipe = self.recipe
        x = augment.normalize(images, self.data.mean, self.data.std, size)
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


class _Order:
    """What a loader's workers read next, batch by batch; set before each epoch."""

    items: Iterable[list[Any]] = ()

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self.items)


def _file(files: LabeledFiles, transforms: TrainTransforms, key: Key) -> tuple[Tensor, int]:
    source, name = files.sources[key.image], files.source_name(key.image)
    return transforms(source, name, key), files.labels[key.image]


def _content(transforms: TrainTransforms, item: tuple[bytes, int, str, Key]) -> tuple[Tensor, int]:
    content, label, name, key = item
    return transforms(content, name, key), label


class _Images(Dataset[Any]):
    """What `read` makes of an item, in a worker."""

    def __init__(self, read: Callable[[Any], tuple[Tensor, int]]) -> None:
        self._read = read

    def __getitem__(self, item: Any) -> tuple[Tensor, int] | DataError:
        try:
            return self._read(item)
        except DataError as error:
            # Raised in a worker, it would arrive with that worker's traceback in its message.
            return error


def _stacked(items: list[tuple[Tensor, int] | DataError]) -> tuple[Tensor, Tensor] | DataError:
    """A batch of what a data set gave; the first error where there is one."""
    pairs: list[tuple[Tensor, int]] = []
    for item in items:
        if isinstance(item, DataError):
            return item
        pairs.append(item)
    return torch.stack([image for image, _ in pairs]), torch.tensor([y for _, y in pairs])


def loader(
    read: Callable[[Any], tuple[Tensor, int]], device: torch.device, workers: int, **options: Any
) -> DataLoader[Any]:
    """Reads images in workers; see `loaded`.

    Args:
        read: Image and label of an item.
        device: Where the images will go.
        workers: Processes that read.
        options: Which items, of the `DataLoader`.
    """
    return DataLoader(
        _Images(read),
        num_workers=workers,
        collate_fn=_stacked,
        pin_memory=device.type == "cuda",
        # Its seeds are unused here; without one of its own it takes them from the network's.
        generator=torch.Generator(),
        **options,
    )


def loaded(loader: DataLoader[Any], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of a `loader`, on the device.

    Raises:
        DataError: An image can't be read.
    """
    for item in loader:
        if isinstance(item, DataError):
            raise item
        images, labels = item
        yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
