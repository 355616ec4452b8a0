"""Compare an exported file with its network on labeled images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from senetzoo._utils.terminal import counted
from senetzoo.data.sets import ImageSet
from senetzoo.deploy.engines.common import Runner
from senetzoo.deploy.inside import photograph
from senetzoo.errors import DataError
from senetzoo.eval.accuracy import evaluate
from senetzoo.eval.data import LabeledImages
from senetzoo.eval.predictions import Predictions, newcombe
from senetzoo.nn.preprocessing import Preprocessing

# Maximum number of images for calibrating int8.
_CALIBRATION = 300


@dataclass(frozen=True)
class Beside:
    """Predictions of a file and of its network for the same labeled images.

    Args:
        data: Name of the images.
        network: Predictions of the network.
        file: Predictions of the file, at the network's temperature.
    """

    data: str
    network: Predictions
    file: Predictions

    @property
    def points(self) -> float:
        """Accuracy of the file minus that of the network, in points."""
        return 100 * (self.file.accuracy - self.network.accuracy)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of `points`."""
        file, network = self.file.right, self.network.right
        pairs = (file & network, file & ~network, ~file & network, ~file & ~network)
        low, high = newcombe(*(int(pair.sum()) for pair in pairs))
        return 100 * low, 100 * high

    @property
    def same(self) -> int:
        """Number of images for which both predict the same class."""
        return int((self.file.guesses == self.network.guesses).sum())

    @property
    def largest(self) -> float:
        """The largest difference between their probabilities of a class of an image."""
        return float((self.network.probabilities - self.file.probabilities).abs().max())

    def as_dict(self) -> dict[str, object]:
        """JSON values."""
        return {
            "data": self.data,
            "network": self.network.top(1).as_dict(),
            "file": self.file.top(1).as_dict(),
            "points": self.points,
            "points_interval": self.interval,
            "same_class": self.same,
            "largest_difference_of_probability": self.largest,
        }

    def __str__(self) -> str:
        network, file = self.network.top(1), self.file.top(1)
        return (
            f"{self.data}: {file} of {file.total} images are right (95 %, Wilson), "
            f"{self.points:+.2f} points from the network's {network.accuracy:.2%}; the same class "
            f"for {self.same}; probabilities differ by at most {self.largest:.2g}"
        )


def divided(data: LabeledImages) -> tuple[LabeledImages, LabeledImages]:
    """Split into calibration images, at most half and drawn with a fixed seed, and the others.

    Raises:
        DataError: There is only one image, or none.
    """
    count = len(data.images)
    if count < 2:
        raise DataError(
            f"{data.images.name} has {counted(count, 'image')}.",
            "int8 is calibrated with some images and evaluated on others.",
            "Give a few hundred images",
        )
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    parts = drawn[: min(_CALIBRATION, count // 2)], drawn[min(_CALIBRATION, count // 2) :]
    calibration, rest = (part.sort().values.tolist() for part in parts)
    name = data.images.name
    return (
        dataclasses.replace(data, images=data.images.keep(calibration, name)),
        dataclasses.replace(data, images=data.images.keep(rest, name)),
    )


def predictions_of(
    run: Runner,
    data: LabeledImages,
    preprocessing: Preprocessing,
    *,
    inside: bool,
    temperature: float,
    batch: int = 64,
    advance: Callable[[int], None],
) -> Predictions:
    """Predictions of a file, which `run` runs, for labeled images.

    With `inside`, the file takes photographs, which have different sizes and are run one at a time,
    and returns probabilities; otherwise it takes the network's input and returns logits, which are
    divided by `temperature` before the softmax.
    """
    alone = inside and not isinstance(data.images, ImageSet)
    found = evaluate(
        _File(run, inside, temperature),
        data,
        (lambda image: photograph(image, preprocessing.channels)) if inside else preprocessing,
        batch=1 if alone else batch,
        advance=advance,
    )
    return dataclasses.replace(found, temperature=temperature)


class _File(nn.Module):
    """A file as a module that returns logits."""

    def __init__(self, run: Runner, inside: bool, temperature: float) -> None:
        super().__init__()
        self._run = run
        self._inside = inside
        self._temperature = temperature

    def forward(self, images: Tensor) -> Tensor:
        if not self._inside:
            return self._run(images)
        given = self._run(images.to(torch.uint8)).clamp_min(torch.finfo().tiny)
        # The logarithms of probabilities are logits of that softmax, up to a constant per image.
        return self._temperature * given.log()
