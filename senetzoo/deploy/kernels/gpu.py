"""The operators of `senetzoo.deploy.tail` on a GPU, in Triton; imported on first use.

A map in channels_last is a matrix with a row for each pixel and a column for each channel, and a
1x1 convolution is its product with the weights. Each program computes a tile of that product, and
applies gate, shortcut and activation before writing it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from senetzoo.deploy import tail
from senetzoo.errors import ConfigError

_RELU, _SIGMOID, _SILU, _HARDSIGMOID = map(
    tl.constexpr, (tail.RELU, tail.SIGMOID, tail.SILU, tail.HARDSIGMOID)
)
_DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
# Pixels and channels that a program sums at a time, for means.
_PIXELS, _CHANNELS = 64, 64
# Tiles for large maps, for small maps, and for the vectors of an excitation. tl.dot needs at least
# 16.
_TILES = [
    triton.Config({"ROWS": rows, "COLUMNS": columns, "DEPTH": depth}, warps, stages)
    for rows, columns, depth, warps, stages in (
        (128, 128, 64, 8, 3),
        (128, 64, 64, 4, 4),
        (64, 64, 64, 4, 4),
        (32, 64, 64, 4, 4),
        (16, 32, 128, 2, 4),
    )
]


@triton.jit
def _activated(y, ACTIVATION: tl.constexpr):
    # Comparisons, which keep NaN.
    if ACTIVATION == _RELU:
        y = tl.where(y < 0, 0.0, y)
    if ACTIVATION == _SIGMOID:
        y = 1 / (1 + tl.exp(-y))
    if ACTIVATION == _SILU:
        y = y / (1 + tl.exp(-y))
    if ACTIVATION == _HARDSIGMOID:
        y = y / 6 + 0.5
        y = tl.where(y < 0, 0.0, tl.where(y > 1, 1.0, y))
    return y


# A tail in place overwrites its shortcut, so that is restored for each trial of a tile.
@triton.autotune(_TILES, key=["rows", "inputs", "outputs"], restore_value=["to"])
@triton.jit
def _product(
    x,
    weight,
    bias,
    gate,
    shortcut,
    input_gate,
    to,
    rows,
    pixels,
    inputs,
    outputs,
    ACTIVATION: tl.constexpr,
    FACTORS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    # Programs that run at the same time read the same rows, because maps are larger than weights.
    blocks = tl.cdiv(outputs, COLUMNS)
    program = tl.program_id(0)
    row = (program // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = program % blocks * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    image = row // pixels
    inside, within = row < rows, column < outputs
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, inputs, DEPTH):
        channel = start + tl.arange(0, DEPTH)
        across, down = channel[None, :], channel[:, None]
        there = inside & (across < inputs)
        maps = tl.load(x + row * inputs + across, mask=there, other=0.0)
        if input_gate is not None:
            by = tl.load(input_gate + image * inputs + across, mask=there, other=0.0)
            maps = (maps.to(tl.float32) * by.to(tl.float32)).to(x.dtype.element_ty)
        weights = tl.load(weight + column * inputs + down, mask=within & (down < inputs), other=0.0)
        # In fp32 the default would round both factors to ten bits.
        sums = tl.dot(maps.to(FACTORS), weights.to(FACTORS), sums, input_precision="ieee")
    if bias is not None:
        sums += tl.load(bias + column, mask=within, other=0.0).to(tl.float32)
    there = inside & within
    if gate is not None:
        sums *= tl.load(gate + image * outputs + column, mask=there, other=0.0).to(tl.float32)
    place = row * outputs + column
    if shortcut is not None:
        sums += tl.load(shortcut + place, mask=there, other=0.0).to(tl.float32)
    tl.store(to + place, _activated(sums, ACTIVATION).to(to.dtype.element_ty), mask=there)


@triton.jit
def _means(x, to, pixels, channels, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    image = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channel < channels
    sums = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for start in range(0, pixels, PIXELS):
        pixel = start + tl.arange(0, PIXELS)[:, None]
        at = x + (image * pixels + pixel) * channels + channel[None, :]
        sums += tl.load(at, mask=(pixel < pixels) & known[None, :], other=0.0).to(tl.float32)
    mean = tl.sum(sums, 0) / pixels
    tl.store(to + image * channels + channel, mean.to(to.dtype.element_ty), mask=known)


def gated_tail(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gate: Tensor | None,
    shortcut: Tensor | None,
    activation: int,
    input_gate: Tensor | None = None,
) -> Tensor:
    """`senetzoo.deploy.tail.gated_tail` for fp32, bf16 or fp16, with weights (C, K)."""
    _check(x, weight, bias, gate, shortcut, input_gate)
    size = (len(x), len(weight), *x.shape[2:])
    to = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    _run(x, weight, bias, gate, shortcut, activation, input_gate, to)
    return to


def gated_tail_(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gate: Tensor | None,
    shortcut: Tensor,
    activation: int,
    input_gate: Tensor | None = None,
) -> None:
    """`gated_tail`, with the result written to the shortcut."""
    _check(x, weight, bias, gate, shortcut, input_gate)
    to = shortcut.contiguous(memory_format=torch.channels_last)
    _run(x, weight, bias, gate, to, activation, input_gate, to)
    if to.data_ptr() != shortcut.data_ptr():
        shortcut.copy_(to)


def excitation(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    hidden: int = tail.RELU,
    activation: int = tail.SIGMOID,
) -> Tensor:
    """`senetzoo.deploy.tail.excitation` for fp32, bf16 or fp16, with weights (R, K) and (C, R)."""
    _check(x, weight1, bias1)
    number, channels, height, width = x.shape
    mean = x.new_empty(number, channels, 1, 1)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        _means[number, triton.cdiv(channels, _CHANNELS)](
            *(x.contiguous(memory_format=torch.channels_last), mean, height * width, channels),
            PIXELS=_PIXELS,
            CHANNELS=_CHANNELS,
        )
    units = gated_tail(mean, weight1, bias1, None, None, hidden)
    return gated_tail(units, weight2, bias2, None, None, activation).flatten(1)


def _check(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gate: Tensor | None = None,
    shortcut: Tensor | None = None,
    input_gate: Tensor | None = None,
) -> None:
    """Raise if a kernel would read beyond the end of a tensor."""
    if x.dim() != 4 or not x.numel() or x.dtype not in _DTYPES:
        raise ConfigError(
            f"A tail got maps of shape {tuple(x.shape)} in {x.dtype}.",
            "It takes (images, channels, height, width), at least one image, in fp32, bf16 or "
            "fp16.",
        )
    number, inputs, *size = x.shape
    outputs = len(weight)
    for name, value, shape in (
        ("weights", weight, (outputs, inputs)),
        ("bias", bias, (outputs,)),
        ("gate", gate, (number, outputs)),
        ("shortcut", shortcut, (number, outputs, *size)),
        ("gate of its input", input_gate, (number, inputs)),
    ):
        if value is not None and (tuple(value.shape), value.dtype) != (shape, x.dtype):
            raise ConfigError(
                f"A tail got the wrong {name} for maps {tuple(x.shape)} in {x.dtype}.",
                f"It is {tuple(value.shape)} in {value.dtype}, not {shape}.",
            )


def _run(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gate: Tensor | None,
    shortcut: Tensor | None,
    activation: int,
    input_gate: Tensor | None,
    to: Tensor,
) -> None:
    maps, shortcut = (
        value if value is None else value.contiguous(memory_format=torch.channels_last)
        for value in (x, shortcut)
    )
    flat = [v if v is None else v.contiguous() for v in (weight, bias, gate, input_gate)]
    rows, pixels, inputs, outputs = to.numel() // to.shape[1], to[0, 0].numel(), *weight.shape[::-1]
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        _product[
            lambda tile: (triton.cdiv(rows, tile["ROWS"]) * triton.cdiv(outputs, tile["COLUMNS"]),)
        ](
            *(maps, *flat[:3], shortcut, flat[3], to, rows, pixels, inputs, outputs),
            ACTIVATION=activation,
            # Triton's interpreter would multiply the bit patterns of bf16.
            FACTORS=_DTYPES[x.dtype] if x.is_cuda else tl.float32,
        )


for _name, _kernel in (
    ("gated_tail", gated_tail),
    ("gated_tail_", gated_tail_),
    ("excitation", excitation),
):
    tail.LIBRARY.impl(_name, _kernel, "CUDA")
