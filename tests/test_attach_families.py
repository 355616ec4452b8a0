"""Gates in networks of other libraries: all of them run, and all can be removed completely."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from support.foreign import (
    SMALL,
    SMOOTH,
    at,
    everywhere,
    image,
    randomize_gates,
    small,
    traces,
    values,
)
from support.networks import randomize
from torch import Tensor, nn

from senetzoo import ECA, SE, attach, detach, site_map
from senetzoo.nn.slots import Site

FIVE = {"pre", "standard", "post", "identity", "inner"}
UNIT = {"pre", "standard"}
POSITIONS = {
    "vgg": UNIT,
    "vgg_bn": UNIT,
    "alexnet": UNIT,
    "densenet": UNIT,
    "googlenet": UNIT,
    "inception_v3": UNIT,
    "inception_resnet": {"pre", "standard", "post"},
    "squeezenet": UNIT,
    "swin": {"pre", "standard", "post"},
    "swin_v2": {"pre", "standard", "post"},
    "shufflenet": {"pre", "standard", "identity", "inner"},
    "dla": {"pre", "standard", "post", "inner"},
    # No block adds its input.
    "mobilenetv1": {"pre", "standard", "inner"},
}


# Gates are run in all of these networks, and removed from one of each kind.
FEW = {
    *("basic", "regnet", "vgg_bn", "densenet", "googlenet", "mobilenet_v3_small", "squeezenet"),
    *("swin", "swin_v2", "seresnet", "preact basic", "inception_resnet", "mobilenetv1"),
    *("seresnet20", "convnext", "shufflenet"),
}
# One of each way in which a gate is put in: beside a skip that has no module, where maps are
# flattened, in a unit, in a block that adds its input itself.
WAYS = ["torchvision basic", "timm swin", "torchvision vgg_bn", "torchvision mobilenet_v3_small"]
A_FEW = [
    pytest.param(name, marks=[pytest.mark.slow] * (name.partition(" ")[2] not in FEW))
    for name in SMALL
]


def offered(name: str) -> set[str]:
    if name.endswith("convnext"):
        return FIVE - {"inner"} - ({"identity"} if name.startswith("torchvision") else set())
    return POSITIONS.get(name.split()[1], FIVE)


@pytest.mark.parametrize("name", list(SMALL))
def test_every_gate_acts(name: str) -> None:
    """Runs once, on a map with its site's channels, gets gradients and changes the output."""
    model, x = small(name).eval(), image(name)
    # Some libraries initialize branches to zero, so that gates would get no gradient.
    randomize(model)
    sites = site_map(model)
    assert at(sites) == offered(name)
    with torch.no_grad():
        bare = model(x)
    gates = attach(model, everywhere(SMOOTH, sites), seed=0, sample=x)
    assert {site.position for site in gates} == offered(name)
    randomize_gates(gates)
    fired: Counter[str] = Counter()

    def watch(site: Site) -> Any:
        def see(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
            fired[site.path] += 1
            (seen,) = args
            assert seen.ndim == 4
            assert seen.shape[1 if site.layout == "nchw" else 3] == site.channels, site
            assert output.shape == seen.shape

        return see

    for site, gate in gates.items():
        gate.register_forward_hook(watch(site))
    modules = dict(model.named_modules())
    output = model(x)
    output.square().sum().backward()
    for site, gate in gates.items():
        assert modules[site.path] is gate
        assert fired[site.path] == 1, site
        for key, parameter in gate.named_parameters():
            assert parameter.grad is not None, (site, key)
            assert parameter.grad.abs().max() > 0, (site, key)
    assert (output - bare).abs().max() > 1e-4 * bare.abs().max()


@pytest.mark.parametrize("name", A_FEW)
def test_identity_gates_and_detaching(name: str) -> None:
    """The identity is exact at all positions; detaching leaves no trace, in copies too."""
    model, x = small(name).eval(), image(name, batch=1)
    before = traces(model)
    kept = values(model)
    with torch.no_grad():
        bare = model(x)
        assert torch.isfinite(bare).all()
        policy = everywhere(SE(4, init="identity"), site_map(model))
        gates = attach(model, policy, seed=0)
        assert torch.equal(model(x), bare)
        randomize_gates(gates)
        assert not torch.equal(model(x), bare)
        twin = copy.deepcopy(model)
        # Existing gates don't change the sites.
        other = everywhere(ECA(), site_map(model))
        assert set(attach(model, other, seed=0)) == set(gates)
        assert set(attach(model, policy, seed=0)) == set(gates)
        assert torch.equal(model(x), bare)
        assert detach(model) is model
        assert torch.equal(model(x), bare)
    assert traces(model) == before
    assert values(detach(twin)) == kept
    assert site_map(twin) == site_map(model)


@pytest.mark.parametrize("name", WAYS)
def test_the_trunks_state_dict_still_loads(name: str) -> None:
    model = small(name)
    trunk = copy.deepcopy(model.state_dict())
    gates = attach(model, everywhere(SE(4), site_map(model)), seed=0)
    own = {f"{s.path}.{key}" for s, gate in gates.items() for key in gate.state_dict()}
    found = model.load_state_dict(trunk, strict=False)
    assert found.unexpected_keys == []
    assert set(found.missing_keys) == own
    assert set(model.state_dict()) == set(trunk) | own
    assert all(".senetzoo_" in f".{key}" for key in own)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("training", [False, True])
def test_an_empty_policy_changes_nothing(name: str, training: bool) -> None:
    model = small(name).train(training)
    before = traces(model)
    assert len(attach(model, "none")) == 0
    assert traces(model) == before
