"""What a network says of the way that it is used: once, and of the caller's line."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

# Each of its parts can be on the way from a caller to a warning.
_INSIDE = (str(Path(__file__).parent), nn.Module.__call__.__code__.co_filename)


def warn(text: str) -> None:
    """A `UserWarning` of the line that called the network, by ``model(x)`` or a method."""
    level, frame = 1, sys._getframe(0)
    while frame.f_code.co_filename.startswith(_INSIDE) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, UserWarning, stacklevel=level)


def versions(model: nn.Module) -> tuple[int, int] | None:
    """How often a batch norm's weight and statistics were written to; None where none learns."""
    for norm in model.modules():
        if isinstance(norm, _BatchNorm) and norm.affine and norm.weight.requires_grad:
            mean = norm.running_mean
            if mean is None or norm.weight.is_inference() or mean.is_inference():
                return None
            return norm.weight._version, mean._version
    return None


def trained_in_eval_mode(before: tuple[int, int] | None, after: tuple[int, int] | None) -> bool:
    """Whether an optimizer wrote between two forward passes in eval mode, by their `versions`.

    What loads weights writes to both.
    """
    if before is None or after is None:
        return False
    return after[0] != before[0] and after[1] == before[1]


def watches(x: object) -> bool:
    """Whether a forward pass of `x` may be one of a training, and is no trace of a graph."""
    return (
        isinstance(x, torch.Tensor)
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )
