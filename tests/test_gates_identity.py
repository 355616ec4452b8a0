"""The exact identity of the gates that have one."""

from __future__ import annotations

import copy

import pytest
import torch
from support.networks import gate_site, images, randomize, tiny

from senetzoo import (
    CBAM,
    ECA,
    ELA,
    ESE,
    FCA,
    GC,
    GCT,
    GE,
    SCSE,
    SE,
    SGE,
    SRM,
    CoordinateAttention,
    MultiScaleAttention,
    NonLocal,
    TripletAttention,
    attach,
)
from senetzoo.gates import GATES
from senetzoo.nn.slots import POSITIONS, Position
from senetzoo.policies.algebra import Gate

IDENTITIES: list[Gate] = [
    SE(4, init="identity"),
    SE(4, init="identity", gate="hardsigmoid", act="silu", bias=False),
    ECA(init="identity"),
    CBAM(4, init="identity"),
    CBAM(4, part="channel", init="identity"),
    CBAM(part="spatial", init="identity"),
    SCSE(init="identity"),
    SCSE(combine="max", init="identity"),
    SCSE(part="cse", init="identity"),
    SCSE(part="sse", init="identity"),
    GE(4, "theta", init="identity"),
    GE(4, "theta-plus", 4, init="identity"),
    SRM(init="identity"),
    GCT(init="identity"),
    GCT("l1"),
    CoordinateAttention(init="identity"),
    ESE(init="identity"),
    GC(init="identity"),
    GC(4, "scale", init="identity"),
    TripletAttention(init="identity"),
    SGE(4, init="identity"),
    FCA(4, init="identity"),
    MultiScaleAttention(4, init="identity"),
    ELA(init="identity"),
    NonLocal(),
    ESE("sigmoid", init="identity"),
]


def test_every_gate_that_can_is_here() -> None:
    able = {kind for kind in GATES.values() if not kind.no_identity}
    assert {type(spec) for spec in IDENTITIES} == able


@pytest.mark.parametrize("spec", IDENTITIES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_identity_is_exact(spec: Gate, dtype: torch.dtype) -> None:
    for shape in ((3, 16, 5, 4), (2, 16, 1, 1), (3, 3, 3, 3)):
        x = images(*shape).to(dtype)
        for layout, y in (("nchw", x), ("nhwc", x.permute(0, 2, 3, 1))):
            module = spec.build(gate_site(shape[1], layout=layout)).to(dtype)  # type: ignore[arg-type]
            assert torch.equal(module.eval()(y), y)
            assert torch.equal(module.train()(y), y)


@pytest.mark.parametrize("spec", IDENTITIES, ids=str)
def test_identity_learns(spec: Gate) -> None:
    torch.manual_seed(0)
    module, x = spec.build(gate_site(16)), images(8, 16, 6, 6).float() + 1
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    losses = []
    before = copy.deepcopy(dict(module.named_parameters()))
    for _ in range(30):
        loss = (module(x) - x * 0.5).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    moved = {n for n, p in module.named_parameters() if not torch.equal(p, before[n])}
    assert moved == set(before)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("spec", IDENTITIES, ids=str)
def test_identity_keeps_a_networks_function(spec: Gate, position: Position) -> None:
    model = tiny().eval()
    randomize(model)
    x = images(2, 3, 20, 20).float()
    with torch.no_grad():
        before = model(x)
        attach(model, spec.at(position), seed=0)
        assert torch.equal(model(x), before)
