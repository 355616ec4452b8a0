"""Augmentation of a whole batch of small images at once, to leave the processor to the network.

All functions draw random numbers for the whole batch of all processes and augment their own part,
so the images don't depend on the number of processes.

`images` are (N, H, W, C), uint8, and `x` is (B, C, H, W), normalized. The units of options are
documented in `Recipe`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from senetzoo._utils.torchvision import import_torchvision


@dataclass(frozen=True)
class Draws:
    """The random numbers of one batch.

    Args:
        generator: Random generator on the CPU, so that all devices get the same numbers.
        count: Number of images in the whole batch.
        rows: The images of this process.
        device: Device of the results.
    """

    generator: torch.Generator
    count: int
    rows: slice = dataclasses.field(default_factory=lambda: slice(None))
    device: torch.device | str = "cpu"

    def whole(self, end: int, *shape: int) -> Tensor:
        """Integers from 0 to ``end - 1``: (rows, *shape)."""
        return self._own(torch.randint(0, end, (self.count, *shape), generator=self.generator))

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1): (rows, *shape)."""
        return self._own(torch.rand((self.count, *shape), generator=self.generator))

    def normal(self, *shape: int) -> Tensor:
        """Numbers of mean 0 and variance 1: (rows, *shape)."""
        return self._own(torch.randn((self.count, *shape), generator=self.generator))

    def _own(self, drawn: Tensor) -> Tensor:
        return drawn[self.rows].to(self.device)

    def numpy(self) -> np.random.Generator:
        """A generator for the whole batch, for distributions that torch doesn't have."""
        seed = torch.randint(2**62, (), generator=self.generator)
        return np.random.default_rng(int(seed))


def crop_and_flip(
    images: Tensor, index: Tensor, size: int, mirrored: Tensor | bool, draws: Draws
) -> Tensor:
    """Random crops of padded images, optionally mirrored.

    Args:
        images: Padded images.
        index: (B,), indices of the images to use.
        size: Size of the crops.
        mirrored: (B,), whether each image is mirrored; or True to mirror with probability 1/2.
        draws: Random numbers.

    Returns:
        (B, size, size, C), uint8.
    """
    room = images.shape[1] - size
    dy, dx = draws.whole(room + 1, 1), draws.whole(room + 1, 1)
    line = torch.arange(size, device=images.device)
    columns = line.expand(len(index), size)
    if mirrored is True:
        mirrored = draws.uniform() < 0.5
    if isinstance(mirrored, Tensor):
        columns = torch.where(mirrored[:, None], size - 1 - columns, columns)
    rows = (line + dy)[:, :, None]
    return images[index[:, None, None], rows, (columns + dx)[:, None, :]]


def pad(images: Tensor, margin: int) -> Tensor:
    """Pad (N, H, W, C) uint8 images with `margin` reflected pixels on every side."""
    if not margin:
        return images
    channels_first = images.permute(0, 3, 1, 2).float()
    padded = F.pad(channels_first, (margin,) * 4, mode="reflect")
    return padded.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...], size: int) -> Tensor:
    """Turn uint8 images into network input: resized to `size`, normalized, channels_last.

    Returns:
        (B, C, size, size), float32.
    """
    statistics = torch.tensor([mean, std], device=images.device)
    x = ((images.float() / 255.0 - statistics[0]) / statistics[1]).permute(0, 3, 1, 2)
    if x.shape[2] != size:
        x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
    return x.contiguous(memory_format=torch.channels_last)


def rotate_and_zoom(x: Tensor, degrees: float, zoom: float, draws: Draws) -> Tensor:
    """Rotate and resize each image by a random amount, repeating its border pixels.

    Returns:
        (B, C, H, W).
    """
    angle = (draws.uniform() * 2 - 1) * (degrees * torch.pi / 180)
    factor = 1 + (draws.uniform() * 2 - 1) * zoom
    cos, sin = angle.cos() / factor, angle.sin() / factor
    zero = torch.zeros_like(cos)
    theta = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False, padding_mode="border")


def cutout(x: Tensor, side: int, draws: Draws) -> Tensor:
    """Set a random square of each image to 0, the mean; its center can be at any pixel."""
    height, width = x.shape[2:]
    top = draws.whole(height) - side // 2
    left = draws.whole(width) - side // 2
    return x.masked_fill(_inside(x, top, left, top + side, left + side), 0.0)


def erase(x: Tensor, probability: float, draws: Draws) -> Tensor:
    """Set a rectangle with 2 to 33 % of the area and an aspect ratio of 0.3 to 3.3 to 0."""
    height, width = x.shape[2:]
    area = (0.02 + 0.31 * draws.uniform()) * height * width
    aspect = ((2 * draws.uniform() - 1) * math.log(3.3)).exp()
    tall = (area * aspect).sqrt().round().clamp(1, height)
    wide = (area / aspect).sqrt().round().clamp(1, width)
    top = (draws.uniform() * (height - tall + 1)).floor()
    left = (draws.uniform() * (width - wide + 1)).floor()
    # The other images get an empty rectangle.
    tall = torch.where(draws.uniform() < probability, tall, torch.zeros_like(tall))
    return x.masked_fill(_inside(x, top, left, top + tall, left + wide), 0.0)


def _inside(x: Tensor, top: Tensor, left: Tensor, bottom: Tensor, right: Tensor) -> Tensor:
    """Mask (B, 1, H, W) of a rectangle in each image; `bottom` and `right` are exclusive."""
    rows = torch.arange(x.shape[2], device=x.device)
    columns = torch.arange(x.shape[3], device=x.device)
    down = (rows >= top[:, None]) & (rows < bottom[:, None])
    across = (columns >= left[:, None]) & (columns < right[:, None])
    return down[:, None, :, None] & across[:, None, None, :]


def mix(
    x: Tensor, labels: Tensor, classes: int, mixup: float, cutmix: float, draws: Draws
) -> tuple[Tensor, Tensor]:
    """Mixup or CutMix of neighbors in the batch: the first with the second, and so on.

    One weight is drawn for the whole batch. Its order is random, so neighbors are random pairs. If
    the parts of a batch have even sizes, both images of a pair are in the same part.

    Returns:
        Images, and the weight of each class (B, classes).
    """
    random = draws.numpy()
    cut = cutmix > 0 and (mixup == 0 or random.random() < 0.5)
    kept = float(random.beta(cutmix, cutmix) if cut else random.beta(mixup, mixup))
    # 0 with 1, 2 with 3 ...; with an odd number, the last image has no partner.
    partner = (torch.arange(len(x), device=x.device) ^ 1).clamp(max=len(x) - 1)
    if cut:
        height, width = x.shape[2:]
        tall, wide = (int(side * math.sqrt(1 - kept)) for side in (height, width))
        y, z = int(random.integers(height)), int(random.integers(width))
        rows = slice(max(y - tall // 2, 0), min(y + tall // 2, height))
        columns = slice(max(z - wide // 2, 0), min(z + wide // 2, width))
        patch = (rows.stop - rows.start) * (columns.stop - columns.start)
        kept = 1.0 - patch / (height * width)
        x = x.clone(memory_format=torch.preserve_format)
        # Indexing copies, so no pixel is read after it was replaced.
        x[:, :, rows, columns] = x[partner][:, :, rows, columns]
    else:
        x = kept * x + (1.0 - kept) * x[partner]
    own = F.one_hot(labels, classes).to(torch.float32)
    return x, kept * own + (1.0 - kept) * own[partner]


def degrade(
    x: Tensor, noise: float, blur: float, enlarge: float, std: tuple[float, ...], draws: Draws
) -> Tensor:
    """Degrade images: downscale and enlarge them, blur them and add noise, in this order."""
    size = list(x.shape[2:])
    if enlarge > 1:
        small = [max(round(side / enlarge), 1) for side in size]
        x = F.interpolate(x, size=small, mode="bilinear", antialias=True)
        x = F.interpolate(x, size=size, mode="bilinear")
    if blur:
        import_torchvision()
        from torchvision.transforms.v2 import functional

        reach = min(math.ceil(3 * blur), min(size) - 1)
        x = functional.gaussian_blur(x, [2 * reach + 1] * 2, [blur] * 2)
    if noise:
        scale = noise / torch.tensor(std, device=x.device)[:, None, None]
        x = x + draws.normal(*x.shape[1:]) * scale
    return x
