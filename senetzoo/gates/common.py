"""What several gates share: fields that differ by stage, and the handling of the two layouts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from senetzoo.errors import PolicyError
from senetzoo.nn.slots import Layout, Site
from senetzoo.policies.algebra import Gate

Init: TypeAlias = Literal["paper", "identity"]
Layer: TypeAlias = nn.Linear | nn.Conv1d | nn.Conv2d

FEWEST = 8
"""Hidden channels, at least, of the gates that normalize them."""


def for_stage(gate: Gate, field: str, site: Site) -> int:
    """The value of a field that is one number, or one per stage, at `site`."""
    value: int | tuple[int, ...] = getattr(gate, field)
    if not isinstance(value, tuple):
        return value
    if len(value) != site.stages:
        raise PolicyError(
            f"{type(gate).__name__} got {len(value)} {field}s, {value}.",
            f"The network has {site.stages} stages.",
            f"Give one {field} per stage, or one for all",
        )
    return value[site.stage - 1]


def groups(gate: Gate, site: Site) -> int:
    """The gate's groups, or the largest number that divides them and the channels."""
    return math.gcd(site.channels, for_stage(gate, "groups", site))


def hidden(gate: Gate, site: Site) -> int:
    """Channels over the gate's reduction, rounded down: at least 1."""
    return max(site.channels // for_stage(gate, "reduction", site), 1)


class GateModule(nn.Module):
    """Base of the gates' modules, for maps of one layout."""

    spec: Gate
    excitation: Callable[[Tensor], Tensor]
    """Of a gate of channels alone: the factor of each, (N, C), for a map."""

    def __init__(self, spec: Gate, layout: Layout) -> None:
        super().__init__()
        self.spec = spec
        self.layout: Layout = layout
        self.identity = getattr(spec, "init", "paper") == "identity"

    def forward(self, x: Tensor) -> Tensor:
        return x * self.spread(self.excitation(x))

    def draw(self, *layers: Layer, last: Sequence[Layer] = ()) -> None:
        """Initialize layers for ReLUs (He et al. 2015); the `last` are zero for the identity."""
        for layer in (*layers, *last):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if self.identity:
            zero(*last)

    @property
    def top(self) -> float:
        """The value that an open gate comes near to; a closed one is near 0."""
        return 2.0 if self.identity else 1.0

    @property
    def space(self) -> tuple[int, int]:
        """The dimensions of height and width."""
        return (2, 3) if self.layout == "nchw" else (1, 2)

    def spread(self, s: Tensor) -> Tensor:
        """Values (N, C), so that they multiply a map."""
        return s[:, :, None, None] if self.layout == "nchw" else s[:, None, None, :]

    def turned(self, x: Tensor) -> Tensor:
        """A map of the gate's layout as (N, C, H, W); without a copy."""
        return x if self.layout == "nchw" else x.permute(0, 3, 1, 2)

    def back(self, x: Tensor) -> Tensor:
        """What `turned` did, undone."""
        return x if self.layout == "nchw" else x.permute(0, 2, 3, 1)

    def sigmoid(self, z: Tensor) -> Tensor:
        """A gate's values: for the identity twice the sigmoid, which is exactly 1 at 0."""
        s = torch.sigmoid(z)
        return s * 2.0 if self.identity else s

    def normalized(self, norm: nn.Module, z: Tensor) -> Tensor:
        """`z` (N, C, ...) after a batch norm; an error where one value per channel is trained."""
        if self.training and z.numel() == z.shape[1]:
            raise PolicyError(
                f"{self.spec.text()} got one value per channel to normalize in training mode.",
                "Its batch norm needs the variance of at least two.",
                "Train with more than one image in a batch, or type model.eval()",
            )
        out: Tensor = norm(z)
        return out

    def extra_repr(self) -> str:
        return self.spec.text()


def zero(*layers: nn.Module) -> None:
    """Set every parameter of `layers` to zero."""
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
