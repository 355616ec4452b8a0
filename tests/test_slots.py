"""The five positions, written out by hand for both blocks and both shortcuts."""

from __future__ import annotations

import itertools
from typing import Literal

import pytest
import torch
from support.networks import calibrate_on_next_batch, randomize, relative_error, tiny
from torch import Tensor, nn
from torch.nn import functional

from senetzoo.models.staged import Block
from senetzoo.nn.drop_path import DropPath
from senetzoo.nn.slots import POSITIONS, Position, Site, Slots, residual, unit


class Affine(nn.Module):
    """A recognizable gate, with its own factor and offset for each channel."""

    def __init__(self, channels: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.factor = torch.rand(channels, 1, 1, generator=generator).double() + 0.5
        self.offset = torch.rand(channels, 1, 1, generator=generator).double() - 0.5

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor + self.offset


def written_out(block: Block, x: Tensor, gates: dict[Position, Affine]) -> Tensor:
    """The block's output by the formula of the paper's Fig. 5, from its parameters alone."""
    state = block.state_dict()

    def gate(position: Position, y: Tensor) -> Tensor:
        if position not in gates:
            return y
        return y * gates[position].factor + gates[position].offset

    def conv(y: Tensor, name: str, stride: int) -> Tensor:
        weight = state[f"{name}.weight"]
        return functional.conv2d(y, weight, stride=stride, padding=weight.shape[-1] // 2)

    def norm(y: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        out: Tensor = (y - mean) / (var + 1e-5).sqrt() * weight + bias
        return out

    projects = "downsample.0.weight" in state
    stride = 2 if projects and block.depth == 2 else 1
    if block.depth == 2:
        y = norm(conv(gate("pre", x), "conv1", stride), "bn1").clamp(min=0)
        y = norm(conv(gate("inner", y), "conv2", 1), "bn2")
    else:
        second = block.get_submodule("conv2")
        assert isinstance(second, nn.Conv2d)
        stride = second.stride[0]
        y = norm(conv(gate("pre", x), "conv1", 1), "bn1").clamp(min=0)
        y = norm(conv(y, "conv2", stride), "bn2").clamp(min=0)
        y = norm(conv(gate("inner", y), "conv3", 1), "bn3")
    skip = norm(conv(x, "downsample.0", stride), "downsample.1") if projects else x
    return gate("post", (gate("standard", y) + gate("identity", skip)).clamp(min=0))


def prepared(kind: Literal["basic", "bottleneck"], shortcut: str) -> tuple[Block, Tensor]:
    """A block in eval mode with calibrated statistics, and an input for it (as after a ReLU)."""
    model = tiny(kind).double()
    randomize(model)
    calibrate_on_next_batch(model)
    with torch.no_grad():
        model(torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(3)).double())
    model.eval()
    first, second = model.stages()[1]
    block = first if shortcut == "projection" else second
    assert isinstance(block, Block)
    assert (block.downsample is not None) == (shortcut == "projection")
    channels = block.slots.channels["pre"]
    x = torch.randn(2, channels, 10, 10, generator=torch.Generator().manual_seed(4)).double()
    return block, x.clamp(min=0)


FILLINGS = [
    (),
    *((position,) for position in POSITIONS),
    *itertools.combinations(POSITIONS, 2),
    POSITIONS,
]


@pytest.mark.parametrize("shortcut", ["identity", "projection"])
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_positions(kind: Literal["basic", "bottleneck"], shortcut: str) -> None:
    block, x = prepared(kind, shortcut)
    outputs = []
    for filling in FILLINGS:
        gates = {p: Affine(block.slots.channels[p], POSITIONS.index(p)) for p in filling}
        for position in POSITIONS:
            block.slots.clear(position)
        for position, gate in gates.items():
            block.slots.put(position, gate)
        with torch.no_grad():
            outputs.append(block(x))
            assert relative_error(outputs[-1], written_out(block, x, gates)) < 1e-12
    # All five positions differ: no two combinations give the same output.
    for one, other in itertools.combinations(outputs, 2):
        assert (one - other).abs().max() > 1e-3


def test_an_empty_slot_leaves_no_trace() -> None:
    slots = Slots({"pre": 4, "standard": 4})
    x = torch.randn(1, 4, 2, 2)
    assert slots.at("pre", x) is x
    assert slots.state_dict() == {}
    assert list(slots.parameters()) == []
    assert slots.get("pre") is None
    gate = nn.Conv2d(4, 4, 1)
    slots.put("pre", gate)
    assert slots.get("pre") is gate
    assert list(slots.state_dict()) == ["pre.weight", "pre.bias"]
    slots.clear("pre")
    slots.clear("pre")
    assert slots.state_dict() == {}


def test_residual_scale_drop_path_and_preactivation() -> None:
    x = torch.randn(2, 3, 4, 4).double()
    slots = Slots(dict.fromkeys(POSITIONS, 3))
    gates = {p: Affine(3, index) for index, p in enumerate(POSITIONS)}
    for position, gate in gates.items():
        slots.put(position, gate)

    def branch(y: Tensor) -> Tensor:
        return y.sin()

    def project(y: Tensor) -> Tensor:
        return y.cos()

    def drop(y: Tensor) -> Tensor:
        return y * 3

    pre, standard, post, identity = (gates[p] for p in POSITIONS[:4])
    p = x.tanh()
    y = residual(
        x, slots, branch, shortcut=project, preact=torch.tanh, act=torch.exp, scale=0.2,
        drop_path=drop,
    )  # fmt: skip
    expected = post((standard(pre(p).sin() * 0.2) * 3 + identity(p.cos())).exp())
    assert relative_error(y, expected) < 1e-12
    # Without a projection the skip is the input itself, not its pre-activation.
    y = residual(x, slots, branch, preact=torch.tanh, scale=0.2)
    assert relative_error(y, post(standard(pre(p).sin() * 0.2) + identity(x))) < 1e-12


def test_unit() -> None:
    x = torch.randn(2, 3, 4, 4).double()
    slots = Slots({"pre": 3, "standard": 3})
    pre, standard = Affine(3, 0), Affine(3, 1)
    assert torch.equal(unit(x, slots, torch.sin), x.sin())
    slots.put("pre", pre)
    slots.put("standard", standard)
    assert torch.equal(unit(x, slots, torch.sin), standard(pre(x).sin()))


def test_sites_of_a_network() -> None:
    model = tiny("bottleneck", depths=(1, 2)).double()
    sites = model.sites()
    assert [(s.stage, s.block) for s in sites[::5]] == [(1, 1), (2, 1), (2, 2)]
    assert sites[5] == Site(
        path="layer2.0.slots.pre",
        stage=2,
        block=1,
        stages=2,
        blocks=2,
        position="pre",
        channels=32,
    )
    # The declared channels are right.
    widths = {"pre": 32, "standard": 64, "post": 64, "identity": 64, "inner": 16}
    assert {s.position: s.channels for s in sites[5:10]} == widths
    for site, slots in model.slots():
        slots.put(site.position, Affine(site.channels, 0))
        assert model.get_submodule(site.path) is slots.get(site.position)
    model(torch.randn(2, 3, 8, 8).double())


def test_drop_path_drops_samples_and_keeps_the_expectation() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.25)
    x = torch.rand(4000, 2, 3, 3) + 0.5
    y = drop(x)
    kept = y.flatten(1).abs().sum(1) > 0
    assert torch.equal(y[~kept], torch.zeros_like(y[~kept]))
    torch.testing.assert_close(y[kept], x[kept] / 0.75)
    # 4 standard deviations of 4000 draws are 0.028.
    assert abs(kept.float().mean().item() - 0.75) < 0.028
    assert drop.eval()(x) is x
    assert DropPath(0.0)(x) is x
