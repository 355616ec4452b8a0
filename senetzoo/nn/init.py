"""Initializations that several families share."""

from __future__ import annotations

from typing import Literal

from torch import nn


def init_convs(model: nn.Module, mode: Literal["fan_in", "fan_out"]) -> None:
    """He initialization of every convolution for ReLUs (arXiv:1502.01852); biases are zero.

    Args:
        model: The network, without gates.
        mode: Whether the forward (fan_in) or the backward pass (fan_out) keeps its scale.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def init_separable(model: nn.Module) -> None:
    """Initialize convolutions and linear layers as in the authors' code of both networks.

    He initialization for the outputs. Those of one weight in a grouped convolution are the
    outputs of its group, which `nn.init.kaiming_normal_` does not know: a depthwise convolution
    would start too small by the square root of its channels.

    Args:
        model: The network, without gates.
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
