"""Slots: the places in a network where attention can sit, and how they are applied.

A block registers one `Slots` module, which declares the number of channels at each position.
`residual` and `unit` apply the gates; a block only passes its branch and its shortcut to them. An
empty slot has no parameters and no state-dict keys.

Positions of a residual block (SE paper, TPAMI version, Fig. 5 and Table 15)::

    y = post( act( standard( branch( pre(x) ) ) + identity( shortcut(x) ) ) )

with `inner` inside the branch, after the spatial convolution's norm and activation. A plain
unit has two positions: ``y = standard( body( pre(x) ) )``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from torch import Tensor, nn

Position: TypeAlias = Literal["pre", "standard", "post", "identity", "inner"]
Branch: TypeAlias = Literal["", "attn", "mlp"]
Layout: TypeAlias = Literal["nchw", "nhwc"]
POSITIONS: tuple[Position, ...] = get_args(Position)
BRANCHES: tuple[Branch, ...] = get_args(Branch)[1:]

TensorMap: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Site:
    """One position of one block of one network.

    No two sites of a network of the zoo have the same stage, block, position and branch.

    Args:
        path: Module name of a gate at this site: ``"layer1.0.slots.standard"``.
        stage: Stage, from 1 (``layer1``, which the papers call stage 2).
        block: Block within the stage, from 1.
        stages: Number of stages in the network.
        blocks: Number of blocks in this stage.
        position: Position within the block.
        channels: Channels of the feature map at this site.
        layout: ``"nchw"`` or ``"nhwc"``.
        branch: The residual branch if the block has two (Swin's ``"attn"`` and ``"mlp"``);
            otherwise empty.
    """

    path: str
    stage: int
    block: int
    stages: int
    blocks: int
    position: Position
    channels: int
    layout: Layout = "nchw"
    branch: Branch = ""


class Slots(nn.Module):
    """The positions of one block, each empty or holding one gate.

    Args:
        channels: Channels of the feature map at each position that the block has.
        layout: ``"nchw"``, or ``"nhwc"`` for channels in the last dimension (Swin).
        branch: The residual branch they belong to, if the block has two.
    """

    def __init__(
        self, channels: Mapping[Position, int], layout: Layout = "nchw", branch: Branch = ""
    ) -> None:
        super().__init__()
        self.channels: dict[Position, int] = dict(channels)
        self.layout: Layout = layout
        self.branch: Branch = branch

    @classmethod
    def residual(cls, inputs: int, outputs: int, inner: int) -> Slots:
        """All five positions of a residual block.

        Args:
            inputs: Input channels.
            outputs: Output channels.
            inner: Channels of the branch's spatial convolution.
        """
        return cls(
            {
                "pre": inputs,
                "standard": outputs,
                "post": outputs,
                "identity": outputs,
                "inner": inner,
            }
        )

    def at(self, position: Position, x: Tensor) -> Tensor:
        """Apply the gate at `position` to `x`; return `x` itself if the slot is empty."""
        gate = self._modules.get(position)
        if gate is None:
            return x
        out: Tensor = gate(x)
        return out

    def get(self, position: Position) -> nn.Module | None:
        """The gate at `position`, or None."""
        return self._modules.get(position)

    def put(self, position: Position, gate: nn.Module) -> None:
        """Fill the slot at `position` (one of those declared in `channels`)."""
        self._modules[position] = gate

    def clear(self, position: Position) -> None:
        """Empty the slot at `position`."""
        self._modules.pop(position, None)

    def extra_repr(self) -> str:
        return ", ".join(f"{position}={count}" for position, count in self.channels.items())


def residual(
    x: Tensor,
    slots: Slots,
    branch: TensorMap,
    *,
    shortcut: TensorMap | None = None,
    preact: TensorMap | None = None,
    act: TensorMap | None = None,
    scale: float = 1.0,
    drop_path: TensorMap | None = None,
    join: Callable[[Tensor, Tensor], Tensor] = operator.add,
) -> Tensor:
    """A residual block with its slots.

    Args:
        x: Input of the block.
        slots: The block's slots; the branch applies ``inner`` itself.
        branch: The residual branch.
        shortcut: Projection on the skip connection; None for the identity.
        preact: Shared pre-activation: the branch and a projection get ``preact(x)``, an identity
            skip gets `x`.
        act: Activation after the sum.
        scale: Factor on the branch (residual scaling of Inception-ResNet), before ``standard``.
        drop_path: Stochastic depth on the branch, after ``standard``.
        join: Combines the outputs of branch and skip; usually their sum.
    """
    p = x if preact is None else preact(x)
    y = branch(slots.at("pre", p))
    if scale != 1.0:
        y = y * scale
    y = slots.at("standard", y)
    if drop_path is not None:
        y = drop_path(y)
    skip = x if shortcut is None else shortcut(p)
    y = join(y, slots.at("identity", skip))
    if act is not None:
        y = act(y)
    return slots.at("post", y)


def unit(x: Tensor, slots: Slots, body: TensorMap) -> Tensor:
    """A block without a skip connection, with its slots."""
    return slots.at("standard", body(slots.at("pre", x)))


def chain(*layers: TensorMap) -> TensorMap:
    """Compose `layers` in order, without making them children of a module."""

    def run(x: Tensor) -> Tensor:
        for layer in layers:
            x = layer(x)
        return x

    return run
