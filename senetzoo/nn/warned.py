"""Warnings about the use of a network, which point at the caller's line."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

# Frames in these files are skipped to find the caller.
_INSIDE = (str(Path(__file__).parent), nn.Module.__call__.__code__.co_filename)


def warn(text: str) -> None:
    """Issue a `UserWarning` for the line that called the network or one of its methods."""
    level, frame = 1, sys._getframe(0)
    while frame.f_code.co_filename.startswith(_INSIDE) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, UserWarning, stacklevel=level)


def versions(model: nn.Module) -> tuple[int, int] | None:
    """Versions of a batch norm's weight and running mean; None if no batch norm is trainable."""
    for norm in model.modules():
        if isinstance(norm, _BatchNorm) and norm.affine and norm.weight.requires_grad:
            mean = norm.running_mean
            if mean is None or norm.weight.is_inference() or mean.is_inference():
                return None
            return norm.weight._version, mean._version
    return None


def trained_in_eval_mode(before: tuple[int, int] | None, after: tuple[int, int] | None) -> bool:
    """Whether only an optimizer wrote between the `versions` of two forward passes in eval mode.

    Loading weights writes to both tensors.
    """
    if before is None or after is None:
        return False
    return after[0] != before[0] and after[1] == before[1]


def watches(x: object) -> bool:
    """Whether a forward pass of `x` may be part of a training, rather than a trace or compile."""
    return (
        isinstance(x, torch.Tensor)
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )
