"""Random initialization that depends only on a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


def site_seed(seed: int, path: str) -> int:
    """Seed of the gate at `path`, which depends on nothing else in the network."""
    digest = hashlib.sha256(f"{seed}:{path}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class _Undrawn(TorchFunctionMode):
    """Skip random initialization, which has no effect on the meta device but takes seconds."""

    draws = frozenset({torch.Tensor.normal_, torch.Tensor.uniform_})

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return args[0] if func in self.draws else func(*args, **(kwargs or {}))


class _Drawn(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Draw random numbers from a separate generator.

    Modes are thread-local: torch's generator, and what other threads draw from it, don't change.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Otherwise torch imports its compiler, which takes 1.5 seconds, to disable it here.
        return False

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags and kwargs.get("generator") is None:
            kwargs = {**kwargs, "generator": self._generator}
            if func._overloadname == "default" and "generator" in func.overloadpacket.overloads():
                func = func.overloadpacket.generator
        return func(*args, **kwargs)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Build modules from `seed` without changing the caller's random state.

    They are built on the CPU, whatever the default device, so that a seed gives the same weights
    everywhere; or on the meta device. They can be trained even if built in inference mode.
    """
    drawing = _Undrawn() if device.type == "meta" else _Drawn(seed)
    place = torch.device("meta" if device.type == "meta" else "cpu")
    with torch.inference_mode(False), place, drawing:
        yield


def drawn_seed() -> int:
    """A seed drawn from torch's global random state."""
    return int(torch.randint(2**62, (), device="cpu").item())
