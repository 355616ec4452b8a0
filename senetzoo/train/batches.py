"""Batches of an epoch, which are the same after a run is resumed.

The contents of a batch depend only on the seed, the epoch and the step, not on the network or the
number of processes or workers.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import math
import os
import signal
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from senetzoo._utils.terminal import say_once
from senetzoo._utils.torchvision import import_torchvision
from senetzoo.data.files import LabeledFiles
from senetzoo.data.hub import Stream
from senetzoo.data.images import open_image
from senetzoo.data.sets import ImageSet
from senetzoo.errors import DataError, first_line
from senetzoo.train import augment
from senetzoo.train.augment import Draws
from senetzoo.train.data import Data
from senetzoo.train.recipe import Recipe
from senetzoo.train.stop import STOPPING, held

if TYPE_CHECKING:
    from numpy.typing import NDArray


PATIENCE = 600
"""Seconds after which a worker that reads a batch counts as stuck."""


_SHARED = "/dev/shm"
# Batches per worker that exist at the same time (two prefetched, one being read, one in use),
# doubled for safety.
_AT_ONCE = 8
_MORE_MEMORY = "In Docker, give it more: --shm-size 2g"
_LESS_MEMORY = "To use less memory: --workers 0"


class Batch(NamedTuple):
    """A process's part of a batch.

    Args:
        x: Network input (B, C, size, size).
        target: Target of the loss: labels (B,), or the weight of each class (B, classes).
        labels: (B,), labels of the images before mixing.
    """

    x: Tensor
    target: Tensor
    labels: Tensor


class Batches:
    """The training images of one process, epoch by epoch."""

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
        # Messages of unreadable images since the list was last cleared.
        self.left_out: list[str] = []
        self._dtype = torch.float64 if recipe.precision == "fp64" else torch.float32
        if isinstance(data.train, ImageSet):
            self._images = augment.pad(data.train.images, recipe.margin).to(device)
            self._labels = data.train.labels.to(device)
            if recipe.flip == "alternate":
                self.generator.manual_seed(seed << 20)
                first = torch.rand(data.count, generator=self.generator) < 0.5
                self._mirrored_first = first.to(device)
            return
        self._order = _Order()
        images = data.train.name if isinstance(data.train, Stream) else data.train
        read = functools.partial(_read, recipe, seed, images)
        skip = recipe.broken == "skip"
        side = max(recipe.size(epoch) for epoch in range(recipe.epochs))
        size = share * side * side * 3
        self._loader = loader(read, self._order, device, workers, size, persistent=True, skip=skip)

    def epoch(self, epoch: int, start: int = 0, state: Tensor | None = None) -> Iterator[Batch]:
        """The batches of `epoch`, which counts from 0."""
        self.generator.manual_seed((self.seed << 20) + epoch)
        order = torch.randperm(self.data.count, generator=self.generator)
        if state is not None:
            self.generator.set_state(state)
        parts = [
            order[step * self.recipe.batch : (step + 1) * self.recipe.batch][self.rows]
            for step in range(start, self.steps)
        ]
        size = self.recipe.size(epoch)
        images: Tensor
        if isinstance(self.data.train, ImageSet):
            side = self.data.train.images.shape[1]
            for part in parts:
                draws, index = self._draws(), part.to(self.device)
                mirrored: Tensor | bool = self.recipe.flip is True
                if self.recipe.flip == "alternate":
                    mirrored = self._mirrored_first[index] ^ bool(epoch % 2)
                images = augment.crop_and_flip(self._images, index, side, mirrored, draws)
                yield self._finished(images, self._labels[index], draws, size)
            return
        if isinstance(self.data.train, Stream):
            self._order.items = self._streamed(self.data.train, epoch, size, start)
        else:
            self._order.items = ([(epoch, int(i), size) for i in part] for part in parts)
        for images, labels in loaded(self._loader, self.device, self.left_out.extend):
            yield self._finished(images, labels, self._draws(), size)

    def close(self) -> None:
        """Shut down the workers, which ignore signals."""
        iterator = getattr(getattr(self, "_loader", None), "_iterator", None)
        if iterator is not None and self._loader.num_workers:
            _shut_down(iterator)
            self._loader._iterator = None

    def _streamed(self, stream: Stream, epoch: int, size: int, start: int) -> Iterator[list[Any]]:
        """Items for the workers to decode; every process reads the whole stream."""
        batch = self.recipe.batch
        content = stream.read((self.seed << 20) + epoch, start * batch)
        for step in range(start, self.steps):
            items = list(itertools.islice(content, batch))
            if len(items) < batch:
                raise DataError(
                    f"{stream.name} has fewer images than {self.steps * batch}.",
                    "An epoch of a stream has as many images as the recipe or the Hub states.",
                    f"Type: --set stream_images={step * batch + len(items)}",
                )
            yield [(epoch, number, size, *item) for number, item in enumerate(items, step * batch)][
                self.rows
            ]

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
            x, mixed = augment.mix(x, labels, classes, recipe.mixup, recipe.cutmix, draws)
            target = mixed.to(self._dtype)
        x = x if recipe.channels_last else x.contiguous()
        return Batch(x.to(self._dtype), target, labels)


class _Order:
    """A sampler of the batches that a loader's workers read next; set before each epoch."""

    items: Iterable[list[Any]] = ()

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self.items)


def _read(
    recipe: Recipe, seed: int, images: LabeledFiles | str, item: tuple[Any, ...]
) -> tuple[Tensor, int]:
    """Read a large training image as uint8 (size, size, 3), augmented with its own seed."""
    epoch, number, size, *streamed = item
    if isinstance(images, str):
        source, label = streamed
        name = f"image {number} of {images}"
    else:
        source, label = images.sources[number], images.labels[number]
        name = images.source_name(number)
    image: Any = open_image(source, name).convert("RGB")
    import_torchvision()
    from torchvision.transforms.v2 import functional

    words = np.random.SeedSequence([seed, epoch, number]).generate_state(2)
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the accelerators, too.
        torch.default_generator.manual_seed(int(words[0]) << 31 ^ int(words[1]))
        image = _transforms(recipe, size)(image)
    if recipe.flip == "alternate":
        first = np.random.SeedSequence([seed, number]).generate_state(1)[0]
        if (first + epoch) % 2:
            image = functional.hflip(image)
    return functional.pil_to_tensor(image).permute(1, 2, 0), label


@functools.cache
def _transforms(recipe: Recipe, size: int) -> Any:
    """Random crop, flip and RandAugment."""
    from torchvision.transforms import v2

    if recipe.crop_scale[1]:
        steps: list[Any] = [v2.RandomResizedCrop(size, recipe.crop_scale, antialias=True)]
    else:
        short = int(size / recipe.test_crop + 1e-6)
        steps = [v2.Resize(short, antialias=True), v2.CenterCrop(size)]
    if recipe.flip is True:
        steps.append(v2.RandomHorizontalFlip())
    if recipe.randaugment:
        steps.append(v2.RandAugment(recipe.randaugment_ops, recipe.randaugment))
    return v2.Compose(steps)


class _Images(Dataset[Any]):
    """Reads lists of items as batches, in a worker.

    With `skip`, an image that can't be read is replaced by another one of its batch.
    """

    def __init__(
        self, read: Callable[[Any], tuple[Tensor, int]], by_pipe: bool, skip: bool
    ) -> None:
        self._read, self._by_pipe, self._skip = read, by_pipe, skip

    def __getitem__(self, items: Iterable[Any]) -> _Read | DataError:
        found = list(map(self._tried, items))
        errors = [one for one in found if isinstance(one, DataError)]
        good = [one for one in found if not isinstance(one, DataError)]
        if errors and not (self._skip and good):
            # If it were raised here, its message would contain the worker's traceback.
            return errors[0]
        others = itertools.cycle(good)
        images, labels = zip(
            *(next(others) if isinstance(one, DataError) else one for one in found), strict=True
        )
        said = [" ".join(str(error).splitlines()) for error in errors]
        stacked = torch.stack(images)
        return stacked.numpy() if self._by_pipe else stacked, labels, said

    def _tried(self, item: Any) -> tuple[Tensor, int] | DataError:
        try:
            return self._read(item)
        except DataError as error:
            return error


# Images of a batch, their labels, and messages of unreadable images. Workers send tensors through
# shared memory, and arrays through pipes.
_Read: TypeAlias = "tuple[Tensor | NDArray[Any], tuple[int, ...], list[str]]"


def loader(
    read: Callable[[Any], tuple[Tensor, int]],
    order: Iterable[Iterable[Any]],
    device: torch.device,
    workers: int,
    size: int,
    *,
    persistent: bool = False,
    skip: bool = False,
) -> DataLoader[Any]:
    """A loader that reads images in workers, for `loaded`.

    Args:
        read: Reads an item as an image and its label.
        order: The items of each batch.
        device: Device of the batches.
        workers: Number of workers.
        size: Size of a batch in bytes.
        persistent: Whether to keep the workers between epochs.
        skip: Whether to replace images that can't be read.
    """
    by_pipe = workers > 0 and _free_shared_memory() < _AT_ONCE * workers * size
    if by_pipe:
        say_once(
            f"{_SHARED} is too small: workers send images through pipes, which is slower. "
            + _MORE_MEMORY
        )
    return DataLoader(
        _Images(read, by_pipe, skip),
        sampler=order,
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        timeout=PATIENCE if workers else 0,
        persistent_workers=persistent and workers > 0,
        pin_memory=device.type == "cuda",
        # Otherwise it would draw seeds, unused here, from torch's global generator.
        generator=torch.Generator(),
        worker_init_fn=_left_to_the_run,
    )


def _free_shared_memory() -> float:
    """Free shared memory in bytes; infinite if no limit is known."""
    try:
        room = os.statvfs(_SHARED)
    except (AttributeError, OSError):  # Windows, macOS
        return math.inf
    return float(room.f_bavail * room.f_frsize)


def _as_it_is(batch: Any) -> Any:
    return batch


def _left_to_the_run(worker: int) -> None:
    """Ignore signals to the process group: the run handles them and ends its workers."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def loaded(
    loader: DataLoader[Any],
    device: torch.device,
    leave_out: Callable[[list[str]], None] = lambda said: None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of a `loader`, on the device; `leave_out` gets messages of unreadable images.

    Raises:
        DataError: An image can't be read.
        WorkerError: A worker can't be started, has died, or is stuck.
    """
    try:
        with held():
            iterator = iter(loader)
    except OSError as error:
        raise WorkerError(f"It can't be started: {first_line(error)}.", _LESS_MEMORY) from error
    workers = getattr(iterator, "_workers", ())
    _started.update(workers)
    try:
        for item in iterator:
            if isinstance(item, DataError):
                raise item
            images, labels, said = item
            leave_out(said)
            yield (
                torch.as_tensor(images).to(device, non_blocking=True),
                torch.tensor(labels).to(device, non_blocking=True),
            )
    except RuntimeError as error:
        if (explained := worker_error(error)) is None:
            raise
        _end(workers)
        raise explained from error
    finally:
        if workers and not loader.persistent_workers:
            _shut_down(iterator)


class WorkerError(RuntimeError):
    """A worker has died or is stuck; its arguments are what is true and what to type."""


def worker_error(error: RuntimeError) -> WorkerError | None:
    """Turn torch's error about a worker, which can be raised anywhere; None for other errors."""
    if isinstance(error, WorkerError):
        return error
    said = str(error)
    if "DataLoader timed out" in said:
        return WorkerError(
            f"It has read no batch in {PATIENCE} seconds: a disk or the network hangs.",
            "Check whether the images can be read",
        )
    if "DataLoader worker (pid" not in said:
        return None
    dead = [worker for worker in _started if worker.exitcode]
    _started.difference_update(dead)
    if hasattr(signal, "SIGBUS") and any(w.exitcode == -signal.SIGBUS for w in dead):
        return WorkerError("There is too little shared memory (/dev/shm).", _MORE_MEMORY)
    return WorkerError("It was killed, most likely because memory ran out.", _LESS_MEMORY)


_started = weakref.WeakSet[Any]()
if hasattr(os, "register_at_fork"):  # not on Windows
    # A child process must not end the workers of its parent.
    os.register_at_fork(after_in_child=_started.clear)


def _shut_down(iterator: Any) -> None:
    iterator._shutdown_workers()  # waits a few seconds for each
    _end(iterator._workers)


@atexit.register
def _end(workers: Iterable[Any] = _started) -> None:
    """Kill workers, because Python would wait for ones that are stuck.

    Also called when the process exits, because workers ignore Python's signals.
    """
    for worker in [worker for worker in workers if worker.is_alive()]:
        # Torch raises an error when a worker dies, wherever the program is.
        with contextlib.suppress(RuntimeError):
            worker.kill()
            worker.join(1)  # a worker that waits for a disk can't be killed
