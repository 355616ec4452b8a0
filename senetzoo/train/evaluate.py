"""Evaluation on the test images: logits, loss, accuracy, and the most confident mistakes."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from senetzoo._utils.terminal import echo
from senetzoo.data.files import LabeledFiles
from senetzoo.data.sets import ImageSet
from senetzoo.data.split import Images
from senetzoo.errors import DataError
from senetzoo.eval.predictions import Predictions
from senetzoo.nn.modes import evaluated
from senetzoo.nn.preprocessing import Preprocessing
from senetzoo.runs import FILES
from senetzoo.train.augment import normalize
from senetzoo.train.batches import loaded, loader
from senetzoo.train.data import Data
from senetzoo.train.recipe import Recipe

_SHOWN = 32  # mistakes in a record
_BATCH = 64  # large images in a batch


def end(tested: Predictions) -> dict[str, Any]:
    """Accuracy with its interval, and for each class, for the last line of a log."""
    whole = tested.top(1)
    return {
        "test_accuracy": round(whole.accuracy, 7),
        "test_images": whole.total,
        "test_correct": whole.right,
        "wilson": [round(limit, 5) for limit in whole.interval],
        "by_class": tested.by_class(),
    }


def _file(
    files: LabeledFiles, transforms: Preprocessing, skip: bool, index: int
) -> tuple[Tensor, int]:
    """An image and its label; with `skip`, zeros and ``-1 - label`` if it can't be read."""
    label = files.labels[index]
    try:
        return transforms(files.open(index)), label
    except DataError:
        if not skip:
            raise
    return torch.zeros(transforms.channels, transforms.size, transforms.size), -1 - label


@torch.no_grad()
def classify(
    model: nn.Module,
    images: Images,
    data: Data,
    recipe: Recipe,
    size: int,
    accelerator: Any,
    *,
    workers: int = 0,
    say: Callable[[str], None] = echo,
) -> Predictions:
    """Classify `images` of `data` at `size`, distributed over all processes.

    If the recipe skips images that can't be read, `say` is called with a line for each.
    """
    ranks, rank, device = accelerator.num_processes, accelerator.process_index, accelerator.device
    if ranks > 1:
        # Each process has its own running statistics. Use those of the first one.
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)
    total = len(images)
    # All processes take the same number of images, so some images may be classified twice.
    mine = torch.arange(rank, rank + ranks * -(-total // ranks), ranks).clamp(max=total - 1)
    dtype = torch.float64 if recipe.precision == "fp64" else torch.float32
    network = evaluated(model)
    pieces = []
    skip = recipe.broken == "skip"
    done = 0
    for x, labels in inputs(images, data, recipe, size, device, mine, workers, skip=skip):
        with accelerator.autocast():
            logits = network(x.to(dtype)).float()
        # An image that can't be read counts as wrong: predict anything but its class.
        for row in (labels < 0).nonzero()[:, 0].tolist():
            logits[row] = 0.0
            logits[row, -1 - labels[row]] = -1.0
            say(f"{images.source_name(int(mine[done + row]))} can't be read: it counts as wrong")
        done += len(labels)
        pieces.append(logits)
    logits = torch.cat(pieces)
    if ranks > 1:
        gathered, index = accelerator.gather((logits, mine.to(device)))
        logits = torch.empty(total, logits.shape[1], device=device)
        logits[index] = gathered
    return Predictions(logits.cpu(), torch.as_tensor(images.labels))


def inputs(
    images: Images,
    data: Data,
    recipe: Recipe,
    size: int,
    device: torch.device,
    mine: Tensor | None = None,
    workers: int = 0,
    *,
    skip: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of preprocessed test images of `data` with their labels.

    With `skip`, an image that can't be read is zeros with the label ``-1 - label``.
    """
    mine = torch.arange(len(images)) if mine is None else mine
    if isinstance(images, ImageSet):
        for part in torch.split(mine, 500):
            x = normalize(images.images[part].to(device), data.mean, data.std, size)
            yield x, images.labels[part]
        return
    transforms = Preprocessing(size, data.mean, data.std, crop=recipe.test_crop)
    read = functools.partial(_file, images, transforms, skip)
    order = [part.tolist() for part in torch.split(mine, _BATCH)]
    bytes_of_batch = _BATCH * 3 * size * size * 4
    yield from loaded(loader(read, order, device, workers, bytes_of_batch), device)


def record(tested: Predictions, data: Data, recipe: Recipe) -> dict[str, Tensor]:
    """Content of ``test.safetensors``: logits, labels, and the most confident mistakes.

    Returns:
        ``logits`` (N, classes) in fp32, ``labels`` (N,), ``mistakes`` (M,), which are indices of up
        to 32 images, and their ``images`` (M, H, W, C) in uint8.
    """
    mistakes = tested.worst(_SHOWN)
    images = [picture(data.test, index, recipe) for index in mistakes]
    channels = data.channels
    return {
        "logits": tested.logits.contiguous(),
        "labels": tested.labels.contiguous(),
        "mistakes": torch.tensor(mistakes, dtype=torch.int64),
        "images": torch.stack(images).contiguous()
        if images
        else torch.zeros((0, recipe.final_size, recipe.final_size, channels), dtype=torch.uint8),
    }


def picture(images: Images, index: int, recipe: Recipe) -> Tensor:
    """Test image `index` in uint8 (H, W, C); large images are resized and cropped."""
    if isinstance(images, ImageSet):
        return images.images[index]
    plain = Preprocessing(recipe.final_size, (0.0,) * 3, (1.0,) * 3, crop=recipe.test_crop)
    x, _ = _file(images, plain, recipe.broken == "skip", index)
    return plain.pixels(x).permute(1, 2, 0).contiguous()


def names(images: Images, recorded: Mapping[str, Tensor]) -> dict[str, str]:
    """Metadata for `record`: file names of the mistakes, if the images are files."""
    files = images.files
    named = [str(files[index]) for index in recorded["mistakes"].tolist()] if files else []
    return {FILES: json.dumps(named)} if files else {}
