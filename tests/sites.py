"""What the tests of gates need: a site, images, and a gate's module with random weights."""

from __future__ import annotations

import torch
from helpers import randomise
from torch import Tensor, nn

from senetzoo.nn.slots import Layout, Site
from senetzoo.policies.algebra import Gate


def site(channels: int, *, stage: int = 1, stages: int = 4, layout: Layout = "nchw") -> Site:
    return Site(
        path="x.standard",
        stage=stage,
        block=1,
        stages=stages,
        blocks=1,
        position="standard",
        channels=channels,
        layout=layout,
    )


def build(spec: Gate, channels: int, *, layout: Layout = "nchw", seed: int = 0) -> nn.Module:
    """The gate's module in fp64, every parameter and every running statistic random."""
    module = spec.build(site(channels, layout=layout)).double()
    randomise(module, seed)
    generator = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.uniform_(-0.5, 0.5, generator=generator)
            norm.running_var.uniform_(0.5, 1.5, generator=generator)
    return module


def images(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()
