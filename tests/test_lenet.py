"""LeNet against a forward pass written out, and the sizes of the paper's layers."""

from __future__ import annotations

import math

import pytest
import torch
from support.networks import learnable, on_meta, randomize, relative_error
from torch import Tensor

from senetzoo.zoo import create


def convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A valid convolution as a sum over the 5x5 offsets."""
    side = x.shape[2] - 4
    shifted = (x[:, :, i : i + side, j : j + side] for i in range(5) for j in range(5))
    offsets = ((i, j) for i in range(5) for j in range(5))
    total = sum(
        torch.einsum("ncij,oc->noij", part, weight[:, :, i, j])
        for part, (i, j) in zip(shifted, offsets, strict=True)
    )
    out: Tensor = total + bias[:, None, None]
    return out


def pooled(x: Tensor, largest: bool) -> Tensor:
    blocks = x.unfold(2, 2, 2).unfold(3, 2, 2)
    return blocks.amax((-1, -2)) if largest else blocks.mean((-1, -2))


@pytest.mark.parametrize("name", ["lenet", "lenet5"])
def test_written_out(name: str) -> None:
    model = create(name, seed=0).double().eval()
    randomize(model)
    modern = name == "lenet"
    x = torch.randn(3, 3 if modern else 1, 32, 32, generator=torch.Generator().manual_seed(1))
    x = x.double()
    state = model.state_dict()
    y = x
    for number, side in ((1, 28), (2, 10)):
        y = convolved(y, state[f"conv{number}.weight"], state[f"conv{number}.bias"])
        assert y.shape[2:] == (side, side)
        y = pooled(y.clamp(min=0) if modern else y.tanh(), largest=modern)
    # S4 of the paper: 16 maps of 5x5.
    assert y.shape == (3, 16, 5, 5)
    y = y.flatten(1)
    for number in (1, 2, 3):
        y = y @ state[f"fc{number}.weight"].T + state[f"fc{number}.bias"]
        if number < 3:
            y = y.clamp(min=0) if modern else y.tanh()
    with torch.no_grad():
        assert relative_error(model(x), y) < 1e-12


@pytest.mark.parametrize(("name", "channels"), [("lenet", 3), ("lenet5", 1)])
def test_parameters(name: str, channels: int) -> None:
    sizes = [(channels * 25, 6), (6 * 25, 16), (16 * 25, 120), (120, 84), (84, 10)]
    expected = sum(math.prod(size) + size[1] for size in sizes)
    assert learnable(on_meta(lambda: create(name, seed=0))) == expected
