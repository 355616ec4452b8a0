"""Shared by several gates: fields with a value per stage, and both memory layouts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from senetzoo.errors import PolicyError
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate

Init: TypeAlias = Literal["paper", "identity"]
Layer: TypeAlias = nn.Linear | nn.Conv1d | nn.Conv2d

FEWEST = 8
"""Minimum of hidden channels in gates that normalize them."""


def for_stage(gate: Gate, field: str, site: Site) -> int:
    """Value at `site` of a field that holds one number, or one per stage."""
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
    """The largest number of groups that divides both `gate.groups` and the channels."""
    return math.gcd(site.channels, for_stage(gate, "groups", site))


def hidden(gate: Gate, site: Site, least: int = 1) -> int:
    """Channels divided by the gate's reduction, rounded down to at least `least`."""
    return max(site.channels // for_stage(gate, "reduction", site), least)


class GateModule(nn.Module):
    """Base of the gates' modules, for maps in the layout of one site."""

    spec: Gate
    excitation: Callable[[Tensor], Tensor]
    """For gates that only scale channels: the factors (N, C) for a map."""

    def __init__(self, spec: Gate, site: Site) -> None:
        super().__init__()
        self.spec = spec
        self.layout = site.layout
        self.identity = getattr(spec, "init", "paper") == "identity"

    def forward(self, x: Tensor) -> Tensor:
        return x * self.spread(self.excitation(x))

    def draw(self, *layers: Layer, last: Sequence[Layer] = ()) -> None:
        """He initialization of layers (He et al. 2015); zeros in `last` for the identity."""
        for layer in (*layers, *last):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if self.identity:
            zero(*last)

    @property
    def top(self) -> float:
        """Upper bound of the gate's values, 1 if they have none; a closed gate is near 0."""
        return 2.0 if self.identity else 1.0

    @property
    def space(self) -> tuple[int, int]:
        """The dimensions of height and width."""
        return (2, 3) if self.layout == "nchw" else (1, 2)

    def spread(self, s: Tensor) -> Tensor:
        """Reshape (N, C) to broadcast against a map."""
        return s[:, :, None, None] if self.layout == "nchw" else s[:, None, None, :]

    def turned(self, x: Tensor) -> Tensor:
        """View a map in the gate's layout as (N, C, H, W)."""
        return x if self.layout == "nchw" else x.permute(0, 3, 1, 2)

    def back(self, x: Tensor) -> Tensor:
        """Undo `turned`."""
        return x if self.layout == "nchw" else x.permute(0, 2, 3, 1)

    def sigmoid(self, z: Tensor) -> Tensor:
        """Sigmoid; doubled for the identity, so that it is exactly 1 at 0."""
        s = torch.sigmoid(z)
        return s * 2.0 if self.identity else s

    def normalized(self, norm: nn.Module, z: Tensor) -> Tensor:
        """Apply a batch norm to `z` (N, C, ...); raises if training with one value per channel."""
        if self.training and z.numel() == z.shape[1]:
            raise PolicyError(
                f"{self.spec.text()} got one value per channel in training mode.",
                "Its batch norm needs at least two to compute a variance.",
                "Use more than one image per batch, or type model.eval()",
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
