"""Accuracy on corrupted images: noisy, blurred, compressed, or with low contrast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from senetzoo._utils.terminal import columns
from senetzoo.data.corruptions import CORRUPTIONS, SEVERITIES, Corruption, corrupt
from senetzoo.errors import DataError
from senetzoo.eval.data import LabeledImages, batches, images_for
from senetzoo.eval.predictions import Tally
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.modes import evaluated, finite
from senetzoo.nn.transforms import transforms


@dataclass(frozen=True)
class Robustness:
    """Accuracy on clean and corrupted images. Print it, or use ``as_dict()``.

    Args:
        clean: Accuracy on the clean images.
        corrupted: Accuracy for each corruption at severities 1 to 5.
    """

    clean: Tally
    corrupted: Mapping[Corruption, Sequence[Tally]]

    @property
    def mean(self) -> float:
        """Mean accuracy over all corruptions and severities."""
        return fmean(tally.accuracy for row in self.corrupted.values() for tally in row)

    def as_dict(self) -> dict[str, object]:
        """JSON values, with a list by severity for each corruption."""
        return {
            "clean": self.clean.as_dict(),
            "mean_accuracy": round(self.mean, 6),
            "corruptions": {
                name: [tally.as_dict() for tally in row] for name, row in self.corrupted.items()
            },
        }

    def __str__(self) -> str:
        """A row for each corruption, a column for each severity."""
        rows = [["corruption", *map(str, SEVERITIES), "mean"]]
        rows += [
            [name, *(f"{t.accuracy:.2%}" for t in row), f"{fmean(t.accuracy for t in row):.2%}"]
            for name, row in self.corrupted.items()
        ]
        head = f"mean accuracy at severities 1 to 5: {self.mean:.2%}; clean: {self.clean}"
        return "\n".join([head, *columns(rows)])


@torch.inference_mode()
def robustness(
    model: Classifier,
    data: str | Path | LabeledImages,
    *,
    batch: int = 64,
    seed: int = 0,
    advance: Callable[[int], None] = lambda images: None,
) -> Robustness:
    """Accuracy on images with each of six common corruptions at five severities.

    Images are corrupted after resizing and cropping (`senetzoo.data.corruptions`, with the
    strengths of CIFAR-10-C, which are meant for images of 32 pixels). The noise of an image depends
    only on `seed` and its index, so that networks are compared on the same pixels, with any batch
    size.

    Args:
        model: A network of this zoo; its mode, device and dtype are kept.
        data: The images or their location, as in `senetzoo.evaluate`.
        batch: Images per batch.
        seed: Seed of the noise.
        advance: Called after each batch with its number of images, 31 times.

    Raises:
        DataError: There are no images, or one of a `LabeledImages` can't be read.
        MissingExtraError: SciPy, for the blur, is not installed.
        WeightsError: Logits aren't finite.
    """
    images = data if isinstance(data, LabeledImages) else images_for(model, str(data))
    total = len(images.images)
    if not total:
        raise DataError(f"{images.images.name} has no images.", "", "Give other data")
    preprocessing, network = transforms(model), evaluated(model)
    like, outputs = next(model.parameters()), torch.tensor(images.outputs)
    right: dict[tuple[Corruption, int], int] = {}
    clean = first = 0
    for x, numbers in batches(images.images, preprocessing, batch):
        labels = outputs[numbers]

        def count(inputs: torch.Tensor, labels: torch.Tensor = labels) -> int:
            inputs = inputs.to(like.device, like.dtype)
            logits = finite(network(inputs), inputs).cpu()
            advance(len(labels))
            return int((logits.argmax(1) == labels).sum())

        clean += count(x)
        pixels = [preprocessing.pixels(image).permute(1, 2, 0)[None] for image in x]
        for name in CORRUPTIONS:
            for severity in SEVERITIES:
                made = [
                    corrupt(image, name, severity, seed=seed + number)[0].permute(2, 0, 1)
                    for number, image in enumerate(pixels, first)
                ]
                found = count(torch.stack([preprocessing.normalized(image) for image in made]))
                right[name, severity] = right.get((name, severity), 0) + found
        first += len(labels)
    return Robustness(
        Tally("clean", clean, total),
        {
            name: tuple(Tally(f"{name} {s}", right[name, s], total) for s in SEVERITIES)
            for name in CORRUPTIONS
        },
    )
