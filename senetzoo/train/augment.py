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
