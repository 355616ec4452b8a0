"""What `explain` says beyond sites and costs: shares, and rules that have no effect."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from test_policies import SITES, meaning, policies
from torch import nn

from senetzoo import CBAM, ECA, NONE, SE, Place, Policy, SiteMap, explain, policy, stage
from senetzoo.policies.explain import Shadowed, shadowed
from senetzoo.weights import manifest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("se", []),
        ("none", []),
        ("se|eca/s3", []),
        ("se/s3|eca", [("se/s3", ["eca"], 1)]),
        ("se|eca", [("se", ["eca"], 6)]),
        ("se|se", [("se", ["se"], 6)]),
        ("se@pre|eca", []),
        ("se|eca/s1|eca3/~s1", [("se", ["eca/s1", "eca3/~s1"], 6)]),
        # A shadowed rule doesn't shadow others.
        ("se|eca|gct", [("se", ["gct"], 6), ("eca", ["gct"], 6)]),
        (
            "se|(eca/s1|gct/s1)+ese/~s1",
            [("se", ["gct/s1", "ese/~s1"], 6), ("eca/s1", ["gct/s1"], 2)],
        ),
        ("(se/s1+eca/s2)|gct/s1", [("se/s1", ["gct/s1"], 2)]),
        # A rule that matches nothing is another error.
        ("se/s9|eca", []),
    ],
)
def test_shadowed_rules(text: str, expected: list[tuple[str, list[str], int]]) -> None:
    found = [(s.rule, list(s.by), s.sites) for s in shadowed(policy(text), SITES)]
    assert found == expected


@settings(deadline=None, max_examples=200)
@given(policies)
def test_winners_are_what_a_policy_means(p: Policy) -> None:
    whole = meaning(p)
    if whole is None:
        return
    rules = list(p.rules())
    assert {site: rules[number].gate for site, number in p.winners(SITES).items()} == whole
    for site, number in p.winners(SITES).items():
        assert site in rules[number].resolve([site])


@settings(deadline=None, max_examples=100)
@given(policies, policies)
def test_a_shadowed_rule_can_be_left_out(p: Policy, q: Policy) -> None:
    """Dropping the left side of ``|`` changes nothing where each of its rules is shadowed."""
    if meaning(p) is None or meaning(q) is None:
        return
    if all(number >= len(list(p.rules())) for number in (p | q).winners(SITES).values()):
        assert meaning(p | q) == meaning(q)
    else:
        assert meaning(p | q) != meaning(q)


def test_shadowed_rules_are_shown() -> None:
    found = explain("resnet20", SE(8).on(stage(3)) | ECA(3) | CBAM().at("pre"))
    assert found.shadowed == (Shadowed("se8/s3", ("eca3",), 3),)
    assert str(found).splitlines()[-1] == "se8/s3 has no effect: eca3 wins at all of its 3 sites"
    again = explain("resnet20", SE() | ECA().on(stage(1)) | ECA(3).off(stage(1)))
    assert str(again).splitlines()[-1] == (
        "se has no effect: eca/s1, eca3/~s1 win at all of its 9 sites"
    )
    read = json.loads(json.dumps(found.as_dict()))
    assert read["shadowed"] == [{"rule": "se8/s3", "by": ["eca3"], "sites": 3}]
    assert explain("resnet20", "se").as_dict()["shadowed"] == []
    # The default policy of a name is a rule like others; NONE removes it.
    assert [s.rule for s in explain("se_resnet20", "eca").shadowed] == ["se"]
    assert explain("se_resnet20", NONE).shadowed == ()


def test_a_lone_site_is_singular() -> None:
    found = explain("resnet20", "se/s3&b1|eca")
    assert str(found).splitlines()[-1] == "se/s3&b1 has no effect: eca wins at all of its 1 site"


@pytest.mark.parametrize(
    "tag",
    [
        "se_resnet20.cifar10_v2",  # gates that are run as a part of their block
        "resnet20.flowers5_v2",  # at another size than the network's own
        "efficientnet_b0.ra4_e3600_r224_in1k",
        "googlenet_bn.imagenet1k_v1",  # auxiliary heads
        "swin_t.imagenet1k_v1",  # attention and tables outside of its layers
    ],
)
def test_layers_add_up_to_the_network(tag: str) -> None:
    entry = manifest.manifest()[tag]
    found = explain(tag, layers=True, size=entry.preprocessing.size)
    assert sum(layer.params for layer in found.layers) == entry.params
    assert sum(layer.macs for layer in found.layers) == entry.macs
    assert min(layer.macs for layer in found.layers) >= 0
    assert max(map(len, str(found).splitlines())) <= 80
    last = str(found).splitlines()[-1].split()
    assert last == ["total", f"{entry.params:,}", f"{entry.macs:,}"]
    assert json.loads(json.dumps(found.as_dict()))["layers"][0]["output"]


def test_layers_are_those_of_a_course() -> None:
    """LeNet-5 by hand: 32x32, 5x5 convolutions, three linear layers."""
    rows = [vars(layer) for layer in explain("lenet5", layers=True).layers]
    costly = [(r["kind"], r["output"], r["params"], r["macs"]) for r in rows if r["params"]]
    assert costly[0] == ("Conv2d", (6, 28, 28), 6 * (25 + 1), 6 * 25 * 28 * 28)
    assert costly[-1] == ("Linear", (10,), 84 * 10 + 10, 84 * 10)


def test_layers_of_any_network() -> None:
    shared = nn.Linear(8, 8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), shared, nn.Identity(), shared)
    spec = SiteMap((Place("1", channels=8),))
    found = explain(model, NONE, sites=spec, size=2, layers=True).layers
    assert [(layer.name, layer.params, layer.macs) for layer in found] == [
        ("0", 0, 0),
        ("1", 104, 96),
        ("2", 72, 128),
    ]
