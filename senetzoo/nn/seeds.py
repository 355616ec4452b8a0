"""Random initialization that depends on a seed alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


def site_seed(seed: int, path: str) -> int:
    """Seed of the gate at `path`: it depends on nothing else in the network."""
    digest = hashlib.sha256(f"{seed}:{path}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class _Undrawn(TorchFunctionMode):
    """Leaves out random initialization: on the meta device it does nothing, and takes seconds."""

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
