"""Random sequences of attach, detach, copy, save and load leave nothing behind."""

from __future__ import annotations

import copy
import io
import pickle
import random
from collections.abc import Callable

import pytest
import torch
from support.foreign import image, small, values
from support.networks import tiny
from torch import Tensor, nn

from senetzoo import ECA, NONE, SE, attach, block, detach, stage
from senetzoo.errors import PolicyError
from senetzoo.gates.common import GateModule
from senetzoo.nn.slots import POSITIONS
from senetzoo.policies.algebra import Policy

NAMES = ["ours", "pytorchcv basic", "torchvision mobilenet_v2", "torchvision vgg", "timm swin"]


def build(name: str) -> tuple[nn.Module, Tensor]:
    if name == "ours":
        torch.manual_seed(0)
        return tiny("bottleneck").eval(), torch.randn(1, 3, 16, 16)
    return small(name).eval(), image(name, batch=1)


def drawn(chance: random.Random) -> Policy:
    """A policy of up to three rules, some of which match nothing."""
    policy: Policy = NONE
    for _ in range(chance.randint(0, 3)):
        gate = chance.choice([SE(4), SE(4, init="identity"), ECA(), ECA(kernel=3)])
        rule = gate.at(chance.choice(POSITIONS))
        if chance.random() < 0.5:
            selector = chance.choice([stage(1), stage(-1), stage(9), block(1), ~stage(2)])
            rule = rule.on(selector)
        policy = policy + rule if chance.random() < 0.3 else policy | rule
    return policy


def sequence(seed: int, name: str) -> None:
    """After up to eight calls, the bare trunk is restored bit for bit."""
    chance = random.Random(seed)
    model, x = build(name)
    trunk, bare = copy.deepcopy(model.state_dict()), values(model)
    saved: list[dict[str, Tensor]] = [trunk]

    def do_attach() -> None:
        before = values(model)
        try:
            attached = attach(model, drawn(chance), seed=chance.randint(0, 9))
        except PolicyError:
            assert values(model) == before
        else:
            here = {id(module) for module in model.modules()}
            assert all(id(gate) in here for gate in attached.values())

    def do_copy() -> None:
        nonlocal model
        model = copy.deepcopy(model)

    def do_pickle() -> None:
        nonlocal model
        model = pickle.loads(pickle.dumps(model))

    def do_save() -> None:
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        saved.append(torch.load(file, weights_only=True))

    def do_load() -> None:
        state = chance.choice(saved)
        own = model.state_dict()
        fitting = {k: v for k, v in state.items() if k not in own or own[k].shape == v.shape}
        found = model.load_state_dict(fitting, strict=False)
        assert not set(found.missing_keys) & set(trunk)
        assert not set(found.unexpected_keys) & set(trunk)

    def do_run() -> None:
        with torch.no_grad():
            assert torch.isfinite(model(x)).all()

    def do_detach() -> None:
        assert detach(model) is model
        assert values(model) == bare

    calls: list[Callable[[], None]] = [
        do_attach, do_attach, do_attach, do_copy, do_pickle, do_save, do_load, do_run, do_detach,
    ]  # fmt: skip
    for _ in range(chance.randint(2, 8)):
        chance.choice(calls)()
    do_run()
    do_detach()
    assert not any(isinstance(module, GateModule) for module in model.modules())
    with torch.no_grad():
        fresh, _ = build(name)
        fresh.load_state_dict(trunk)
        assert torch.equal(model(x), fresh(x))


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * n.endswith("mobilenet_v2")) for n in NAMES],
)
def test_a_hundred_sequences(name: str) -> None:
    for seed in range(100 // len(NAMES)):
        sequence(seed, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_thousand_sequences(name: str) -> None:
    for seed in range(1000, 1000 + 2000 // len(NAMES)):
        sequence(seed, name)
