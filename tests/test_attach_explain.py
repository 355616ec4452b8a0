"""Explaining and detaching gates in our networks and others."""

from __future__ import annotations

import torch
from support.foreign import all_five, small, traces
from support.networks import tiny

from senetzoo import NONE, SE, attach, block, create, detach, explain, stage

BASIC = "torchvision basic"


# --- Ours ----------------------------------------------------------------------------------------


def test_detaching_ours() -> None:
    model = tiny("bottleneck").eval()
    before = traces(model)
    attach(model, all_five(), seed=0)
    assert traces(detach(model)) == before
    se = create("se_resnet20", seed=0)
    assert set(detach(se).state_dict()) == set(create("resnet20", seed=0).state_dict())


def test_identity_in_the_embedded_network() -> None:
    model = create("resnet20", pretrained=True)
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(x)
        attach(model, all_five(SE(init="identity")), seed=0)
        assert torch.equal(model(x), expected)


# --- Explain -------------------------------------------------------------------------------------


def test_explain_takes_a_network() -> None:
    model = small(BASIC)
    before = traces(model)
    table = explain(model, SE(4).at("identity").on(stage(1) & block(1)), size=64)
    assert str(table).splitlines()[2:] == [
        "    1      1  identity        64  se4     2,128  0.04%  2,048  0.00%",
        "1 of 25 sites have a gate: 2,128 parameters (0.04%), 2,048 MACs (0.00%)",
    ]
    assert traces(model) == before
    attach(model, "eca@post/s4", seed=0)
    rows = [row for row in explain(model, size=64).rows if row.gate]
    assert [(row.path, row.gate, row.params) for row in rows] == [
        ("layer4.0.senetzoo_post", "eca", 5)
    ]


def test_explain_of_a_network_is_that_of_its_name() -> None:
    named, given = explain("resnet20+se4@pre"), explain(create("resnet20+se4@pre", seed=0))
    assert named.rows == given.rows
    assert (named.params, named.macs, named.size) == (given.params, given.macs, given.size)
    assert explain(create("lenet", seed=0), NONE).rows == explain("lenet").rows
