"""Common corruptions of small images, at five severities.

Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (arXiv:1903.12261), Section 3; strengths as in the released CIFAR-10-C. Its random
numbers are not known, so the images differ from its files but have the same distribution. Six of
its corruptions are implemented: noise, blur, compression and contrast.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from senetzoo.errors import ConfigError, MissingExtraError

Corruption = Literal[
    "gaussian_noise", "shot_noise", "impulse_noise", "gaussian_blur", "jpeg", "contrast"
]
CORRUPTIONS: tuple[Corruption, ...] = get_args(Corruption)
SEVERITIES = (1, 2, 3, 4, 5)

_Pixels = npt.NDArray[np.float64]
# By severity: standard deviation; photons at full brightness; part of the values; standard
# deviation in pixels; quality; factor.
_STRENGTHS: dict[Corruption, tuple[float, ...]] = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "shot_noise": (500, 250, 100, 75, 50),
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "jpeg": (80, 65, 58, 50, 40),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
}


def corrupt(images: Tensor, corruption: Corruption, severity: int, *, seed: int = 0) -> Tensor:
    """Corrupt images.

    Args:
        images: (N, H, W, C), uint8; C is 1 or 3.
        corruption: One of `CORRUPTIONS`.
        severity: From 1 to 5.
        seed: Seed of the noise, which differs between the images of a batch.

    Returns:
        (N, H, W, C), uint8, rounded down as in CIFAR-10-C.

    Raises:
        ConfigError: An unknown corruption or severity, or images of another shape or dtype.
        MissingExtraError: SciPy, for the blur, is not installed.
    """
    if corruption not in CORRUPTIONS:
        raise ConfigError(
            f"There is no corruption {corruption!r}.",
            f"The corruptions are {', '.join(CORRUPTIONS)}.",
        )
    if severity not in SEVERITIES:
        raise ConfigError(
            f"There is no severity {severity!r}.", "A severity is a whole number from 1 to 5."
        )
    if (
        images.dtype != torch.uint8
        or images.ndim != 4
        or not len(images)
        or images.shape[3] not in (1, 3)
    ):
        raise ConfigError(
            f"Images of shape {tuple(images.shape)} and {images.dtype} can't be corrupted.",
            "Expected at least one image, (N, H, W, C), uint8, with one channel or three.",
        )
    pixels = images.cpu().numpy()
    strength = _STRENGTHS[corruption][severity - 1]
    if corruption == "jpeg":
        return torch.stack([torch.from_numpy(_jpeg(image, int(strength))) for image in pixels])
    # A separate stream for each corruption, so that no two share their random numbers.
    random = np.random.default_rng([seed, CORRUPTIONS.index(corruption), severity])
    values = _MAKERS[corruption](pixels / 255.0, strength, random)
    return torch.from_numpy((values.clip(0.0, 1.0) * 255.0).astype(np.uint8))


def _gaussian_noise(x: _Pixels, deviation: float, random: np.random.Generator) -> _Pixels:
    return x + random.normal(scale=deviation, size=x.shape)


def _shot_noise(x: _Pixels, photons: float, random: np.random.Generator) -> _Pixels:
    return random.poisson(x * photons) / photons


def _impulse_noise(x: _Pixels, part: float, random: np.random.Generator) -> _Pixels:
    """Set single values, not whole pixels, to 0 or 1."""
    drawn = random.random(x.shape)
    return np.where(drawn < part / 2, 0.0, np.where(drawn < part, 1.0, x))


def _gaussian_blur(x: _Pixels, deviation: float, _: np.random.Generator) -> _Pixels:
    try:
        from scipy.ndimage import gaussian_filter
    except ImportError as error:
        raise MissingExtraError("The blur", "scipy", "bench") from error
    blurred: _Pixels = gaussian_filter(x, (0, deviation, deviation, 0), mode="nearest")
    return blurred


def _contrast(x: _Pixels, factor: float, _: np.random.Generator) -> _Pixels:
    """Move values toward the mean of each channel of each image."""
    mean: _Pixels = x.mean((1, 2), keepdims=True)
    return (x - mean) * factor + mean


def _jpeg(image: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(
        file, "JPEG", quality=quality
    )
    return np.array(Image.open(file)).reshape(image.shape)


_MAKERS: dict[Corruption, Callable[[_Pixels, float, np.random.Generator], _Pixels]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "gaussian_blur": _gaussian_blur,
    "contrast": _contrast,
}
