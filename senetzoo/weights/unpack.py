"""From a file of anybody's to a plain state dict: read safely, and taken out of its wrappers."""

from __future__ import annotations

import argparse
import io
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from senetzoo._utils.environment import unwarned
from senetzoo.errors import WeightsError

# What training code puts a state dict under: a key of the file, or a prefix of every name.
_KEYS = (
    *("state_dict", "state_dict_ema", "model", "model_ema", "model_state_dict", "ema"),
    *("net", "network", "net_state_dict", "weights"),
)
_PREFIXES = ("module", "_orig_mod", "backbone", "encoder", *_KEYS)
# A counter that torch's own AveragedModel keeps beside the weights.
_BESIDE = ("n_averaged",)
_SAFE = "Get the file as safetensors, or save its state dict alone where you trust it"


def load(content: bytes, name: Path) -> object:
    """What a file of weights holds: safetensors, or a pickle of torch's with nothing but data.

    Pickles are read with ``weights_only=True``, which builds tensors, containers and numbers and
    calls nothing else; `argparse.Namespace`, which timm's checkpoints hold, is such a container.
    `name` is the file, for messages.
    """
    asked = f"Can't read the weights {name}."
    if content[8:9] == b"{":
        try:
            return safetensors.torch.load(content)
        except safetensors.SafetensorError as error:
            raise WeightsError(
                asked, f"It isn't a complete safetensors file ({error}).", "Get the file again"
            ) from None
    if content[257:262] == b"ustar":
        raise WeightsError(
            asked,
            "It is in torch's tar format of 2016, which can only be read by running its pickle.",
            _SAFE,
        )
    if _is_torchscript(content):
        raise WeightsError(
            asked,
            "It is a TorchScript program, and would have to be run.",
            "Save the state_dict() of its module instead",
        )
    try:
        # Warnings are of pickle protocols that torch.save does not write.
        with unwarned(), torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises anything
        called = re.search(r"GLOBAL (\S+)|(?:class|type|function) (\S+) ", str(error))
        what = next((group for group in called.groups() if group), "") if called else ""
        # A zip archive or a pickle with a version: not, say, a page that a server sent instead.
        begun = content.startswith((b"PK", b"\x80"))
        if isinstance(error, pickle.UnpicklingError) and (what or begun):
            raise WeightsError(
                asked,
                f"Unpickling it would call {what}, which weights do not need; it was not called."
                if what
                else "It contains more than tensors and plain containers; nothing of it was run.",
                _SAFE,
            ) from None
        raise WeightsError(
            asked,
            f"It is neither safetensors nor a whole file of torch.save ({type(error).__name__}).",
            "Get the file again",
        ) from None


def _is_torchscript(content: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def unpack(
    content: object, name: Path, part: str | None = None
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state dict in what a file holds; and what was left out or taken off, in sentences.

    `part` says which to take, where the file has several, such as ``"state_dict_ema"``.
    """
    tensors, notes = dict[str, Tensor](), list[str]()
    found, taken = content, part is None
    while isinstance(found, Mapping):
        inside = {key: found[key] for key in _KEYS if isinstance(found.get(key), Mapping)}
        if inside:
            key = _chosen(list(inside), part, name)
            notes.append(f"Taken from {key!r} of the file.")
            found, taken = inside[key], taken or key == part
            continue
        tensors = {
            key: value
            for key, value in found.items()
            if isinstance(key, str) and isinstance(value, Tensor) and key not in _BESIDE
        }
        if left := [str(key) for key in found if key not in tensors]:
            notes.append(f"Left out, being no weights: {', '.join(left)}.")
        starts = list(dict.fromkeys(key.partition(".")[0] for key in tensors))
        if not tensors or not all("." in key for key in tensors) or set(starts) - {*_PREFIXES}:
            break
        start = _chosen(starts, part, name)
        notes.append(f"The prefix {start + '.'!r} is taken off.")
        taken = taken or start == part
        start += "."
        found = {key.removeprefix(start): v for key, v in tensors.items() if key.startswith(start)}
    if not tensors:
        raise WeightsError(
            f"There are no weights in {name}.",
            "It contains no named tensors.",
            "Give a file with a state dict",
        )
    if not taken:
        raise WeightsError(
            f"{name} has no part {part!r}.", "It contains one state dict.", "Leave out --part"
        )
    return tensors, tuple(notes)


def _chosen(keys: list[str], part: str | None, name: Path) -> str:
    if len(keys) == 1:
        return keys[0]
    if part in keys:
        return part or ""
    raise WeightsError(
        f"{name} has no part {part!r}." if part else f"{name} contains several state dicts.",
        f"They are {', '.join(keys)}.",
        f"Type for example: --part {keys[-1]}",
    )
