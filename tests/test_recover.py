"""From gates back to a policy: what is recovered means the same, and is as short as it can be."""

from __future__ import annotations

import random

import pytest
import torch
from helpers import SMALL, reduced

from senetzoo import ECA, GE, NONE, SE, policy
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate
from senetzoo.policies.recover import exactly, recovered

GATES: list[Gate] = [SE(), SE(8), SE(reduction=4, bias=False), ECA(), GE(), ECA(init="identity")]


def sites_of(name: str) -> tuple[Site, ...]:
    with torch.device("meta"):
        return reduced(name).build(seed=0).sites()


RESNET = sites_of("resnet20")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("none", "none"),
        ("se8", "se8"),
        ("se8/s1-3", "se8"),
        ("se8@pre/s3+eca/s1-2", "se8@pre/s3+eca/s1-2"),
        ("se/b1", "se/b1"),
        ("se/b-1", "se/b3"),
        ("se/~s2", "se/s1,3"),
        ("se/s2&b1,3", "se/s2&b1,3"),
        ("se/s1&b1|eca/s2", "se/s1&b1+eca/s2"),
        ("se|eca/s2&b2", "se/((s1,3&b1-3)|(s2&b1,3))+eca/s2&b2"),
        ("se@pre+se@post", "se@pre+se@post"),
    ],
)
def test_the_shortest_text(given: str, text: str) -> None:
    gates = policy(given).resolve(RESNET)
    assert set(policy(str(recovered(gates, RESNET))).resolve(RESNET).items()) == set(gates.items())
    rules = sorted(str(recovered(gates, RESNET)).split("+"))
    assert rules == sorted(text.split("+"))


@pytest.mark.parametrize("name", SMALL.values())
def test_recovered_policies_mean_the_same(name: str) -> None:
    sites, draw = sites_of(name), random.Random(name)
    for _ in range(30):
        few = draw.choice([0.0, 0.2, 0.9, 1.0])
        kinds = draw.sample(GATES, draw.randint(1, 3))
        gates = {site: draw.choice(kinds) for site in sites if draw.random() < few}
        assert recovered(gates, sites).resolve(sites) == gates
        assert exactly(gates).resolve(sites) == gates


def test_no_gates() -> None:
    assert recovered({}, RESNET) == exactly({}) == NONE


def test_sites_that_a_text_can_not_tell_apart() -> None:
    """Swin has two residuals in a block."""
    sites = sites_of("swin_t")
    first = next(site for site in sites if site.position == "standard")
    twins = [s for s in sites if (s.stage, s.block, s.position) == (1, 1, "standard")]
    assert len(twins) == 2
    found = recovered({first: SE()}, sites)
    assert found.resolve(sites) == {first: SE()}
    assert str(found) == "se/<1 site>"
