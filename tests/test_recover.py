"""Recovered policies resolve to the same gates, and are as short as possible."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from support.networks import SMALL, message, reduced

from senetzoo import ECA, GE, NONE, SE, policy
from senetzoo.errors import PolicyError
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate
from senetzoo.policies.recover import recovered

GATES: list[Gate] = [SE(), SE(8), SE(reduction=4, bias=False), ECA(), GE(), ECA(init="identity")]


def sites_of(name: str) -> tuple[Site, ...]:
    with torch.device("meta"):
        return reduced(name).build(seed=0).sites()


RESNET = sites_of("resnet20")
SWIN = sites_of("swin_t")


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


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("se", "se"),
        ("se/attn", "se/attn"),
        ("se@inner", "se@inner"),
        ("se/~attn&s2", "se/mlp&s2"),
        ("se/(attn|s1)", "se/(attn|(mlp&s1))"),
        ("se@post/mlp+eca@post/attn&s1&b1", "se@post/mlp+eca@post/attn&s1&b1"),
    ],
)
def test_a_branch_is_named_where_a_block_has_two(given: str, text: str) -> None:
    gates = policy(given).resolve(SWIN)
    assert str(recovered(gates, SWIN)) == text
    assert policy(text).resolve(SWIN) == gates


@pytest.mark.parametrize("name", [*SMALL.values(), "swin_t", "densenet264"])
def test_every_assignment_of_gates_has_a_text(name: str) -> None:
    """Also if all sites have different gates."""
    sites, draw = sites_of(name), random.Random(name)
    for number in range(31):
        few = draw.choice([0.0, 0.2, 0.9, 1.0])
        kinds = draw.sample(GATES, draw.randint(1, 3))
        gates: dict[Site, Gate] = {
            site: draw.choice(kinds) for site in sites if draw.random() < few
        }
        if number == 30:
            gates = {site: SE(reduction) for reduction, site in enumerate(sites, 1)}
        found = recovered(gates, sites)
        assert found.resolve(sites) == gates
        read = policy(str(found))
        assert read.as_tree() == found.as_tree()
        assert read.resolve(sites) == gates


def test_no_gates() -> None:
    assert recovered({}, RESNET) == NONE


def test_sites_that_no_text_can_tell_apart() -> None:
    twin = dataclasses.replace(RESNET[0], path="elsewhere")
    sites = (*RESNET, twin)
    assert message(lambda: recovered({twin: SE()}, sites), PolicyError) == (
        "No policy selects only the gates at elsewhere.\n"
        "Other sites have the same stage, block and position."
    )
    assert recovered({twin: SE(), RESNET[0]: SE()}, sites).resolve(sites).keys() == {
        twin, RESNET[0],
    }  # fmt: skip
