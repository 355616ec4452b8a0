"""Tensors as the content of a safetensors file, the same bytes for the same content."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor


def stored(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> bytes:
    """`tensors` as safetensors, with the metadata `about` in the order of its names.

    safetensors writes metadata in an order that it draws anew each time, so that the hash of a
    file would say more than what is in it.
    """
    from safetensors.torch import save

    # On the CPU, contiguous, and each with its own memory: safetensors takes no others.
    own = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    whole = save(own, metadata=dict(about))
    # The format: 8 bytes with the length of a header of JSON, padded with spaces; the header; the
    # tensors.
    start = 8 + int.from_bytes(whole[:8], "little")
    header = {**json.loads(whole[8:start]), "__metadata__": dict(sorted(about.items()))}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    return b"".join([len(text).to_bytes(8, "little"), text, memoryview(whole)[start:]])
