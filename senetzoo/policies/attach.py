"""Putting gates into a network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from senetzoo.nn.classifier import Classifier
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Policy, resolve


def site_seed(seed: int, path: str) -> int:
    """Seed of the gate at `path`: it depends on nothing else in the network."""
    digest = hashlib.sha256(f"{seed}:{path}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class _Undrawn(TorchFunctionMode):
    """Leaves out random initialisation: on the meta device it does nothing, and takes seconds."""

    draws = frozenset({torch.Tensor.normal_, torch.Tensor.uniform_})

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return args[0] if func in self.draws else func(*args, **(kwargs or {}))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Build modules from `seed`, and leave the caller's random state as it was.

    They are built on the CPU, whatever the default device, so that a seed means the same weights
    everywhere; for the meta device, on that.
    """
    if device.type == "meta":
        with torch.device("meta"), _Undrawn():
            yield
        return
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Not torch.manual_seed, which would seed the accelerators' generators too, for good.
        torch.default_generator.manual_seed(seed)
        yield


def drawn_seed() -> int:
    """A seed from torch's global state."""
    return int(torch.randint(2**62, (), device="cpu").item())


def attach(
    model: Classifier, policy: Policy, *, seed: int | None = None, name: str | None = None
) -> dict[Site, nn.Module]:
    """Fill the slots of `model` as `policy` says, in place.

    Args:
        model: A network of this zoo.
        policy: What to put where. A slot that already holds a gate gets the new one.
        seed: Seed of the gates' initialisation; None draws one from torch's global state.
        name: What messages call the network; None for its class.

    Returns:
        The new gates by site.

    Raises:
        PolicyError: The policy does not fit the network; nothing is changed then.
    """
    if seed is None:
        seed = drawn_seed()
    slots = dict(model.slots())
    chosen = resolve(policy, slots, name or type(model).__name__)
    like = next(model.parameters())
    gates: dict[Site, nn.Module] = {}
    for site, gate in chosen.items():
        with seeded(site_seed(seed, site.path), like.device):
            gates[site] = gate.build(site).to(device=like.device, dtype=like.dtype)
    for site, module in gates.items():
        module.train(model.training)
        slots[site].put(site.position, module)
    return gates
