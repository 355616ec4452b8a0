"""What several gates share: checks of a spec's fields, and the handling of the two layouts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from senetzoo.errors import PolicyError, nearest
from senetzoo.nn.slots import Layout, Site
from senetzoo.policies.algebra import Gate, is_number

INITS = ("paper", "identity")

# --- Fields --------------------------------------------------------------------------------------


def wrong(gate: Gate, field: str, true: str, remedy: str = "") -> PolicyError:
    """The error for a wrong `field` of `gate`; the remedy is the field's default if not given."""
    kind = type(gate).__name__
    return PolicyError(
        f"{kind} got {field}={getattr(gate, field)!r}.",
        true,
        remedy or f"Type for example: {kind}({field}={getattr(type(gate), field)!r})",
    )


def check_choices(spec: Gate, /, **choices: tuple[str, ...]) -> None:
    """Raise where a field is none of the words it may be."""
    for field, allowed in choices.items():
        value = getattr(spec, field)
        if value not in allowed:
            raise wrong(
                spec,
                field,
                f"{field} is one of {', '.join(map(repr, allowed))}.",
                nearest(value, allowed) if isinstance(value, str) else "",
            )


def check_flag(gate: Gate, field: str) -> None:
    """Raise where `field` is not True or False."""
    if type(getattr(gate, field)) is not bool:
        raise wrong(gate, field, f"{field} is True or False.")


def check_positive(gate: Gate, field: str) -> None:
    """Raise where `field` is no number above 0."""
    value = getattr(gate, field)
    if not is_number(value) or value <= 0:
        raise wrong(gate, field, f"{field} is a number above 0.")


def check_per_stage(gate: Gate, field: str, example: object) -> None:
    """Raise where `field` is neither a whole number from 1 nor a tuple of them.

    A list becomes a tuple, so that the spec stays hashable.
    """
    if isinstance(getattr(gate, field), list):
        object.__setattr__(gate, field, tuple(getattr(gate, field)))
    value = getattr(gate, field)
    numbers = value if isinstance(value, tuple) else (value,)
    if not numbers or any(type(n) is not int or n < 1 for n in numbers):
        raise wrong(
            gate,
            field,
            f"The {field} is a whole number of at least 1, or a tuple of them, one per stage.",
            f"Type for example: {type(gate).__name__}({field}={example!r})",
        )


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


def hidden(gate: Gate, site: Site) -> int:
    """Channels over the gate's reduction, rounded down: at least 1."""
    return max(site.channels // for_stage(gate, "reduction", site), 1)


# --- Modules -------------------------------------------------------------------------------------


class GateModule(nn.Module):
    """Base of the gates' modules.

    Args:
        spec: The gate.
        layout: Layout of the maps that come in and go out.
    """

    spec: Gate

    def __init__(self, spec: Gate, layout: Layout) -> None:
        super().__init__()
        self.spec = spec
        self.layout: Layout = layout
        self.identity = getattr(spec, "init", "paper") == "identity"

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
        """`z` (N, C, ...) after a batch norm.

        Raises:
            PolicyError: One value per channel in training mode: it has no variance.
        """
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


def he(*layers: nn.Linear | nn.Conv1d | nn.Conv2d) -> None:
    """Initialize layers for ReLUs (He et al. 2015), with zero biases."""
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def zero(*layers: nn.Module) -> None:
    """Set every parameter of `layers` to zero."""
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
