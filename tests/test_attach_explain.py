"""Explaining and detaching gates in our networks and others."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from support.foreign import all_five, small, traces
from support.networks import tiny
from torch import nn

from senetzoo import (
    NONE,
    SE,
    Place,
    SiteMap,
    attach,
    block,
    create,
    detach,
    explain,
    propose,
    site_map,
    stage,
)
from senetzoo.errors import PolicyError

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


def test_explain_finds_gates_that_were_attached_by_a_site_map() -> None:
    """By a proposal, to a network that no table knows, and after it was copied."""
    with pytest.raises(PolicyError, match=r"^explain got a Sequential\.") as refused:
        explain(own_net())
    assert "explain(model, sites=propose(model, example_input))" in str(refused.value)
    model, image = own_net(), torch.zeros(1, 3, 32, 32)
    before = traces(model)
    sites = propose(model, image)
    gates = attach(model, SE(4), sites=sites, seed=0, sample=image)
    for network in (model, copy.deepcopy(model)):
        found = explain(network, size=32)
        assert found == explain(network, sites=sites, size=32)
        assert [row.path for row in found.rows if row.gate] == [site.path for site in gates]
        assert len(found.rows) == len(sites.places) > len(gates) > 0
    # More gates, and those of a policy that is only explained.
    assert attach(model, "eca@pre", seed=0)
    assert {row.gate for row in explain(model, "gct@pre", size=32).rows} == {"se4", "gct"}
    assert {row.gate for row in explain(model, size=32).rows} == {"se4", "eca"}
    assert traces(detach(model)) == before
    with pytest.raises(PolicyError, match="explain got a Sequential"):
        explain(model)
    # A gate is no place for others.
    named = site_map(model, lambda _, m: isinstance(m, nn.Conv2d))
    attach(model, "cbam@post", sites=propose(model, image) + SiteMap((Place("0", "post"),)))
    assert site_map(model, lambda _, m: isinstance(m, nn.Conv2d)) == named
    assert propose(model, image) == sites
    # Of known blocks, with one gate by the tables and one elsewhere.
    known = small(BASIC)
    attach(known, "eca@post/s4", seed=0)
    attach(known, "se4", sites=SiteMap((Place("layer1.0.bn1"),)), seed=0)
    rows = [row for row in explain(known, size=64).rows if row.gate]
    assert [row.gate for row in rows] == ["eca", "se4"]


def test_modules_that_were_moved_after_gates_were_attached() -> None:
    """Their gates are found by the tables or by another map, or named."""
    model, image = nn.Sequential(OrderedDict(stem=own_net(), rest=nn.Identity())), (3, 32, 32)
    example = torch.zeros(1, *image)
    attach(model, SE(4), sites=SiteMap((Place("stem.0"), Place("stem.2"))), seed=0)
    model.rest = model.stem
    model.stem = nn.Identity()
    for refused in (lambda: explain(model), lambda: attach(model, SE(4)).model):
        with pytest.raises(PolicyError, match=r" found a gate at 'rest\.0\.senetzoo_standard'"):
            refused()
    one = SiteMap((Place("rest.0"),))
    with pytest.raises(
        PolicyError, match=r"sites=SiteMap\(\(Place\('rest\.2', 'standard'\),\)\)\)"
    ):
        explain(model, sites=one)
    found = explain(model, sites=one + SiteMap((Place("rest.2"),)), size=32)
    assert [row.path for row in found.rows if row.gate] == [
        "rest.0.senetzoo_standard",
        "rest.2.senetzoo_standard",
    ]
    # Of known blocks, the gates are found again.
    known = nn.Sequential(OrderedDict(stem=nn.Identity(), body=small(BASIC)))
    attach(known, "eca@post/s4", seed=0)
    known.stem = known.body
    known.body = nn.Identity()
    rows = [row.path for row in explain(known, size=64).rows if row.gate]
    assert rows == ["stem.layer4.0.senetzoo_post"]
    assert detach(model)(example).shape == detach(own_net())(example).shape


def own_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(1)
    )


def test_explain_of_a_network_is_that_of_its_name() -> None:
    named, given = explain("resnet20+se4@pre"), explain(create("resnet20+se4@pre", seed=0))
    assert named.rows == given.rows
    assert (named.params, named.macs, named.size) == (given.params, given.macs, given.size)
    assert explain(create("lenet", seed=0), NONE).rows == explain("lenet").rows
