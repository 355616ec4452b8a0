"""Tensors as the content of a safetensors file, the same bytes for the same content."""

from __future__ import annotations

import json
from collections.abc import Mapping

from torch import Tensor


def stored(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> bytes:
    """`tensors` as safetensors, with metadata in the order of its names.

    safetensors writes metadata in an order that it draws anew each time, so that the hash of a
    file would say more than what is in it.

    Args:
        tensors: Contiguous tensors by name, each with its own memory.
        about: The metadata.
    """
    from safetensors.torch import save

    content = save(dict(tensors), metadata=dict(about))
    start = 8  # the header's length comes first
    end = start + int.from_bytes(content[:start], "little")
    header = json.loads(content[start:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    # Spaces fill it up to where the tensors begin: the same content in another order is as long.
    return content[:start] + text.ljust(end - start) + content[end:]
