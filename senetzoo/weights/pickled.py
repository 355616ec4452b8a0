"""Pickles of tensors, as other publishers have them: opened with ``weights_only=True``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from senetzoo.errors import WeightsError

WRAPPERS = ("state_dict", "model", "ema")
"""Keys under which training scripts keep the weights beside other things."""
PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.pth`` or ``.pt`` file, floating point ones as float32.

    Args:
        path: A state dict, or a dictionary with one under a key of `WRAPPERS`.

    Raises:
        WeightsError: No such file; it holds other objects than tensors, which are not made; or it
            is damaged.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # A damaged pickle can raise anything, and none of it is a fault of this package.
    except Exception as error:
        what = " ".join([f"{type(error).__name__}:", *str(error).splitlines()[:1]])
        raise WeightsError(
            f"Can't read the weights {path}.",
            f"It can't be opened as a file of tensors alone ({what})."
            if path.is_file()
            else "There is no such file.",
            "Get the file from its publisher again; a pickle of anything else is not opened",
        ) from None
    return unwrapped(content, str(path))


def unwrapped(content: object, name: str) -> dict[str, Tensor]:
    """The state dict in what a file holds, without the prefixes that all its names share.

    Args:
        content: A dictionary.
        name: What messages call the file.

    Raises:
        WeightsError: There is none.
    """
    while isinstance(content, Mapping):
        inner = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if len(inner) != 1:
            break
        content = content[inner[0]]
    tensors = isinstance(content, Mapping) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    )
    if not isinstance(content, Mapping) or not tensors or not content:
        raise WeightsError(
            f"The file {name} holds no state dict.",
            f"It is neither a dictionary of tensors nor one with a dictionary of tensors under "
            f"one of {', '.join(WRAPPERS)}.",
            "Save model.state_dict() alone",
        )
    state: dict[str, Tensor] = dict(content)
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in state)), ""):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
