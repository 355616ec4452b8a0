"""The exact identity of the gates that have one; what wrong fields say; what a gate costs."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from support.networks import gate_site, images, message, randomize, tiny

from senetzoo import (
    BAM,
    CBAM,
    ECA,
    ESE,
    GCT,
    GE,
    SCSE,
    SE,
    SRM,
    CoordinateAttention,
    SimAM,
    attach,
)
from senetzoo.errors import ConfigError, PolicyError
from senetzoo.gates import GATES
from senetzoo.nn.counting import module_macs
from senetzoo.nn.slots import POSITIONS, Position
from senetzoo.policies.algebra import Gate

IDENTITIES: list[Gate] = [
    SE(4, init="identity"),
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


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (
            lambda: SimAM(init="identity"),  # type: ignore[call-arg]
            "SimAM got init='identity'.\n"
            "SimAM has no parameters: it has no identity to start from.\n"
            "Type SimAM(), or take a gate that has one: SE(init='identity')",
        ),
        (
            lambda: BAM(init="identity"),  # type: ignore[call-arg]
            "BAM got init='identity'.\nBAM multiplies by 1 + sigmoid, which is never 1.\n"
            "Type BAM(), or take a gate that has one: SE(init='identity')",
        ),
        (lambda: GE(init="identity"), "GE got init='identity'.\n"
         "The variant 'theta-minus' has no parameters: it has no identity to start from.\n"
         "Type for example: GE(extent=8, variant='theta', init='identity')"),
        (
            lambda: CBAM(part="chanel"),  # type: ignore[arg-type]
            "CBAM got part='chanel'.\npart is one of 'both', 'channel', 'spatial'.\n"
            "Did you mean 'channel'?",
        ),
        (lambda: CBAM(kernel=4), "CBAM got kernel=4.\n"
         "kernel is an odd whole number of at least 1.\nType for example: kernel=7"),
        (lambda: SCSE(0), "SCSE got reduction=0.\n"
         "reduction is a whole number of at least 1 or a tuple of one or more whole "
         "numbers of at least 1.\nType for example: reduction=2"),
        (lambda: GE(1), "GE got extent=1.\nextent is 0 or a whole number of at least 2.\n"
         "Type for example: extent=0"),
        (lambda: GE(6, "theta"),
         "GE got extent=6.\nThe variant 'theta' halves the map until it is gathered: its "
         "extent is a power of 2.\nType for example: GE(extent=8, variant='theta')"),
        (lambda: GE(variant="theta"),
         "GE got side=0.\nThe side of the map is needed by a gather of the whole map with "
         "weights, and by no other.\nType for example: GE(variant='theta', side=(56, 28, 14, "
         "7)) or GE(extent=8, variant='theta')"),
        (lambda: GE(8, side=7),
         "GE got side=7.\nThe side of the map is needed by a gather of the whole map with "
         "weights, and by no other.\nType for example: GE(variant='theta', side=(56, 28, 14, "
         "7)) or GE(extent=8, variant='theta')"),
        (lambda: GE(variant="theta", side=True), "GE got side=True.\n"
         "side is 0, a whole number of at least 1 or a tuple of one or more whole "
         "numbers of at least 1.\nType for example: side=0"),
        (lambda: GE(variant="theta", side=(8, 4)).build(gate_site(8)),
         "GE got 2 sides, (8, 4).\nThe network has 4 stages.\n"
         "Give one side per stage, or one for all"),
        (
            lambda: SRM(unbiased=1),  # type: ignore[arg-type]
            "SRM got unbiased=1.\nunbiased is True or False.\nType for example: unbiased=False",
        ),
        (
            lambda: GCT("L2"),  # type: ignore[arg-type]
            "GCT got norm='L2'.\nnorm is one of 'l2', 'l1'.\nDid you mean 'l2'?",
        ),
        (lambda: SimAM(0.0),
         "SimAM got eps=0.0.\neps is a number above 0.\nType for example: eps=0.0001"),
        (lambda: BAM(dilation=0), "BAM got dilation=0.\n"
         "dilation is a whole number of at least 1.\nType for example: dilation=4"),
    ],
)  # fmt: skip
def test_wrong_fields(wrong: Callable[[], object], text: str) -> None:
    assert message(lambda: wrong(), PolicyError) == text


def test_a_misspelled_option() -> None:
    with pytest.raises(ConfigError) as caught:
        SimAM(lambda_=1e-4)  # type: ignore[call-arg]
    assert str(caught.value) == "SimAM has no option 'lambda_'.\nIts options are eps."


@pytest.mark.parametrize(
    ("spec", "parameters", "macs"),
    [
        # By the layers' sizes, at 64 channels and 8x6 pixels.
        (CBAM(), 2 * 64 * 4 + 4 + 64 + 98 + 2, 2 * 2 * 64 * 4 + 98 * 48),
        (SCSE(), 2 * 64 * 32 + 32 + 64 + 64 + 1, 2 * 64 * 32 + 64 * 48),
        (GE(), 0, 0),
        (GE(4, "theta"), 2 * (9 * 64 + 2 * 64), 9 * 64 * (4 * 3 + 2 * 2)),
        (SRM(), 2 * 64 + 2 * 64, 0),
        (GCT(), 3 * 64, 0),
        (CoordinateAttention(), 3 * 64 * 8 + 8 + 2 * 64 + 16, 2 * 64 * 8 * 14),
        (ESE(), 64 * 64 + 64, 64 * 64),
        (
            BAM(),
            (2 * 64 * 4 + 4 + 64 + 8) + (64 * 4 + 4 + 8) + 2 * (9 * 16 + 4 + 8) + (4 + 1),
            2 * 64 * 4 + (64 * 4 + 2 * 9 * 16 + 4) * 48,
        ),
        (SimAM(), 0, 0),
    ],
    ids=str,
)
def test_cost(spec: Gate, parameters: int, macs: int) -> None:
    module = spec.build(gate_site(64))
    assert sum(p.numel() for p in module.parameters()) == parameters
    assert module_macs(module, (1, 64, 8, 6)) == macs
