"""Initializations shared by several families."""

from __future__ import annotations

from typing import Literal

from torch import nn


def init_convs(model: nn.Module, mode: Literal["fan_in", "fan_out"]) -> None:
    """He initialization of every convolution for ReLUs (arXiv:1502.01852), with zero biases.

    Args:
        model: The network without gates.
        mode: Preserve the scale of the forward (fan_in) or of the backward pass (fan_out).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def init_separable(model: nn.Module) -> None:
    """Initialize networks of depthwise separable convolutions, as their authors' code does.

    He initialization by fan out. The fan out of a grouped convolution is that of one group, which
    `nn.init.kaiming_normal_` ignores: a depthwise convolution would start too small by the square
    root of its channels.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            height, width = module.kernel_size
            outputs = height * width * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=(2 / outputs) ** 0.5)
        elif isinstance(module, nn.Linear):
            bound = module.out_features**-0.5
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)
