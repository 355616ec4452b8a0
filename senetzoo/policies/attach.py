"""Putting gates into a network."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from senetzoo.nn.classifier import Classifier
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate, Policy, resolve


def site_seed(seed: int, path: str) -> int:
    """Seed of the gate at `path`: it depends on nothing else in the network."""
    digest = hashlib.sha256(f"{seed}:{path}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def attach(model: Classifier, policy: Policy, *, seed: int | None = None) -> dict[Site, nn.Module]:
    """Fill the slots of `model` as `policy` says, in place.

    Args:
        model: A network of this zoo.
        policy: What to put where. A slot that already holds a gate gets the new one.
        seed: Seed of the gates' initialisation; None draws one from torch's global state.

    Returns:
        The new gates by site.

    Raises:
        PolicyError: The policy does not fit the network; nothing is changed then.

    """
    if seed is None:
        seed = int(torch.randint(2**62, ()).item())
    slots = dict(model.slots())
    chosen = resolve(policy, slots, type(model).__name__)
    like = next(model.parameters())
    gates: dict[Site, nn.Module] = {}
    with torch.random.fork_rng(devices=[]):
        for site, gate in chosen.items():
            gates[site] = _build(gate, site, seed).to(device=like.device, dtype=like.dtype)
    for site, module in gates.items():
        module.train(model.training)
        slots[site].put(site.position, module)
    return gates


def _build(gate: Gate, site: Site, seed: int) -> nn.Module:
    torch.manual_seed(site_seed(seed, site.path))
    return gate.build(site)
