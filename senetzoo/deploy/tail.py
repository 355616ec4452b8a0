"""The tail of a residual branch as one operator: convolution, gate, shortcut and activation.

A gate after a convolution costs little arithmetic, but its product with the map is a separate pass
over memory, and prevents libraries from fusing the sum and the activation into the convolution.
`gated_tail` computes each tile of the convolution and does all three while the tile is in the
cache; a gate before the convolution (MobileNetV3, EfficientNet) is multiplied with the input of a
tile. `excitation` is the gate itself, a mean and two layers, in one call. This file defines them
with PyTorch's operators; `senetzoo.deploy.kernels` has fast implementations, and
`senetzoo.deploy.fuse` puts them into a network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from senetzoo.errors import ConfigError

IDENTITY, RELU, SIGMOID, SILU, HARDSIGMOID = range(5)
"""Activations of a tail."""

BLOCK = 64
"""Channels of a tile."""
LANES = 32
"""Two vectors of 16 floats; with other numbers of channels the kernel's last part is slower."""

# torch's class has no type annotations.
LIBRARY: Any = torch.library.Library("senetzoo", "FRAGMENT")  # type: ignore[no-untyped-call]
_TAIL = (
    "(Tensor x, Tensor weight, Tensor? bias, Tensor? gate, Tensor{} shortcut, int activation, "
    "Tensor? input_gate=None)"
)
LIBRARY.define(f"gated_tail{_TAIL.format('?')} -> Tensor")
LIBRARY.define(f"gated_tail_{_TAIL.format('(a!)')} -> ()")
LIBRARY.define(
    "excitation(Tensor x, Tensor weight1, Tensor? bias1, Tensor weight2, Tensor? bias2, "
    f"int hidden={RELU}, int activation={SIGMOID}) -> Tensor"
)


def pack(weight: Tensor) -> Tensor:
    """Pack weights (C, K) for the operators, on the CPU into blocks of B outputs.

    Packed weights are (C / B, K, B), or in bf16 (C / B, K / 2, 2 B) with pairs of inputs of an
    output next to each other, as the CPU multiplies them. B is `BLOCK` or `LANES` if that divides
    C, otherwise C; K is even. On other devices the weights are not rearranged.
    """
    if weight.device.type != "cpu":
        return weight.contiguous()
    outputs, inputs = weight.shape
    block = next((size for size in (BLOCK, LANES) if outputs % size == 0), outputs)
    pair = 2 if weight.dtype == torch.bfloat16 else 1
    blocks = weight.reshape(outputs // block, block, inputs // pair, pair).permute(0, 2, 1, 3)
    return blocks.reshape(outputs // block, inputs // pair, block * pair).contiguous()


def unpack(packed: Tensor) -> Tensor:
    """Undo `pack`: the weights (C, K)."""
    if packed.dim() == 2:
        return packed
    pair = 2 if packed.dtype == torch.bfloat16 else 1
    blocks, rows, columns = packed.shape
    parts = packed.reshape(blocks, rows, columns // pair, pair).permute(0, 2, 1, 3)
    return parts.reshape(blocks * (columns // pair), rows * pair)


def gated_tail(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gate: Tensor | None,
    shortcut: Tensor | None,
    activation: int,
    input_gate: Tensor | None = None,
) -> Tensor:
    """``act(gate * ((input_gate * x) W^T + b) + shortcut)``.

    It defines ``senetzoo::gated_tail``, and ``senetzoo::gated_tail_``, which writes the result to
    the shortcut.

    Args:
        x: Maps (N, K, H, W), in any memory layout, of at least one image.
        weight: Weights of a 1x1 convolution, packed by `pack`.
        bias: (C,), or None.
        gate: (N, C), or None.
        shortcut: (N, C, H, W), or None.
        activation: `IDENTITY`, `RELU`, `SIGMOID`, `SILU` or `HARDSIGMOID`.
        input_gate: (N, K), or None.

    Returns:
        (N, C, H, W) in the layout channels_last.
    """
    if x.numel() == 0:
        raise ConfigError(
            "A tail got no images.", f"Their shape is {tuple(x.shape)}.", "Give at least one"
        )
    if input_gate is not None:
        x = x * input_gate[:, :, None, None]
    y = F.conv2d(x, unpack(weight)[:, :, None, None], bias)
    if gate is not None:
        y = y * gate[:, :, None, None]
    if shortcut is not None:
        y = y + shortcut
    if activation:
        y = (torch.relu, torch.sigmoid, F.silu, F.hardsigmoid)[activation - 1](y)
    return y.contiguous(memory_format=torch.channels_last)


def _gated_tail_(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gate: Tensor | None,
    shortcut: Tensor,
    activation: int,
    input_gate: Tensor | None = None,
) -> None:
    shortcut.copy_(gated_tail(x, weight, bias, gate, shortcut, activation, input_gate))


def excitation(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    hidden: int = RELU,
    activation: int = SIGMOID,
) -> Tensor:
    """``activation(W2 hidden(W1 mean(x) + b1) + b2)``: the definition of ``senetzoo::excitation``.

    Args:
        x: Maps (N, K, H, W), in any memory layout, of at least one image.
        weight1: Weights of the first layer, K to R, packed by `pack`.
        bias1: (R,), or None.
        weight2: Weights of the second layer, R to C, packed by `pack`.
        bias2: (C,), or None.
        hidden: Activation after the first layer, as in `gated_tail`.
        activation: Activation after the second layer.

    Returns:
        (N, C).
    """
    units = gated_tail(x.mean((2, 3), keepdim=True), weight1, bias1, None, None, hidden)
    return gated_tail(units, weight2, bias2, None, None, activation).flatten(1)


def _channels(packed: Tensor) -> int:
    if packed.dim() == 2:
        return len(packed)
    return packed.shape[0] * packed.shape[2] // (2 if packed.dtype == torch.bfloat16 else 1)


def _fake_tail(x: Tensor, weight: Tensor, *others: object) -> Tensor:
    size = (x.shape[0], _channels(weight), *x.shape[2:])
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _fake_excitation(
    x: Tensor, weight1: Tensor, bias1: Tensor | None, weight2: Tensor, *others: object
) -> Tensor:
    return x.new_empty(x.shape[0], _channels(weight2))


for _name, _define, _fake in (
    ("gated_tail", gated_tail, _fake_tail),
    ("gated_tail_", _gated_tail_, lambda *arguments: None),
    ("excitation", excitation, _fake_excitation),
):
    LIBRARY.impl(_name, _define, "CompositeExplicitAutograd")
    torch.library.register_fake(f"senetzoo::{_name}", _fake, lib=LIBRARY)
