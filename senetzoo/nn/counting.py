"""Parameters and multiply-accumulates, counted on the meta device: nothing is computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from senetzoo.nn.classifier import Classifier
from senetzoo.nn.modes import to_meta


@dataclass(frozen=True)
class Counts:
    """What a network costs.

    Args:
        params: Learnable parameters.
        macs: Multiply-accumulates of convolutions and matrix products for one image; what papers
            and torchvision call (G)FLOPs.
    """

    params: int
    macs: int


def parameters(module: nn.Module) -> int:
    """Number of learnable parameters, running statistics not counted."""
    return sum(parameter.numel() for parameter in module.parameters())


def count(model: Classifier, size: int | None = None) -> Counts:
    """Parameters and MACs of `model` for one image.

    Args:
        model: A network, on any device; it is not changed.
        size: Side of the square input in pixels; None for the network's own.
    """
    side = model.input_size if size is None else size
    shape = (1, model.in_chans, side, side)
    return Counts(parameters(model), module_macs(model, shape))


def module_macs(module: nn.Module, shape: tuple[int, ...]) -> int:
    """MACs of `module` for an input of `shape`."""
    twin = to_meta(module)
    for part in twin.modules():
        # They count as nothing, and on the meta device are half of the time.
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.forward = nn.Identity().forward  # type: ignore[method-assign]
    with torch.device("meta"):
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            twin(torch.empty(shape))
    return int(counter.get_total_flops()) // 2
