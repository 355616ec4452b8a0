"""Augmentation of a whole batch of small images at once, so the processor is busy with the net."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def crop_and_flip(
    images: Tensor, index: Tensor, size: int, flip: bool, generator: torch.Generator
) -> Tensor:
    """Random crops of padded images, half of them mirrored.

    Args:
        images: (N, H + 2 * pad, W + 2 * pad, C), uint8, padded.
        index: (B,) which images.
        size: Side of the crop; the padding follows from it.
        flip: Whether to mirror each with probability 1/2.
        generator: Source of the randomness.

    Returns:
        (B, size, size, C), uint8.
    """
    count, room = len(index), images.shape[1] - size
    dy = torch.randint(0, room + 1, (count, 1), generator=generator)
    dx = torch.randint(0, room + 1, (count, 1), generator=generator)
    columns = torch.arange(size).expand(count, size)
    if flip:
        mirrored = torch.rand((count, 1), generator=generator) < 0.5
        columns = torch.where(mirrored, size - 1 - columns, columns)
    rows = (torch.arange(size) + dy)[:, :, None]
    return images[index[:, None, None], rows, (columns + dx)[:, None, :]]


def pad(images: Tensor, margin: int) -> Tensor:
    """(N, H, W, C) uint8 images with `margin` reflected pixels on every side."""
    if not margin:
        return images
    channels_first = images.permute(0, 3, 1, 2).float()
    padded = F.pad(channels_first, (margin,) * 4, mode="reflect")
    return padded.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...], size: int) -> Tensor:
    """Network input from uint8 images: scaled to `size`, normalised, channels_last.

    Args:
        images: (B, H, W, C), uint8.
        mean: Per channel, in units of the full range.
        std: Per channel, in units of the full range.
        size: Side of the result.

    Returns:
        (B, C, size, size), float32.
    """
    x = (images.float() / 255.0 - torch.tensor(mean)) / torch.tensor(std)
    x = x.permute(0, 3, 1, 2)
    if x.shape[2] != size:
        x = F.interpolate(
            x, size=(size, size), mode="bilinear", antialias=True, align_corners=False
        )
    return x.contiguous(memory_format=torch.channels_last)


def rotate_and_zoom(x: Tensor, degrees: float, zoom: float, generator: torch.Generator) -> Tensor:
    """Each image turned and resized by a random amount, its border pixels repeated beyond it.

    Args:
        x: (B, C, H, W), normalised.
        degrees: Largest angle to either side.
        zoom: Largest change of size: 0.1 for 0.9 to 1.1 times.
        generator: Source of the randomness.

    Returns:
        (B, C, H, W).
    """
    angle = (torch.rand(len(x), generator=generator) * 2 - 1) * (degrees * torch.pi / 180)
    factor = 1 + (torch.rand(len(x), generator=generator) * 2 - 1) * zoom
    cos, sin = angle.cos() / factor, angle.sin() / factor
    zero = torch.zeros_like(cos)
    theta = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False, padding_mode="border")
