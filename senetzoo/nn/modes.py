"""Run and copy a user's network without changing it."""

from __future__ import annotations

import copy
from types import MethodType
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from senetzoo.errors import DataError, WeightsError

ModuleT = TypeVar("ModuleT", bound=nn.Module)
# Types that torch computes in, by their names in options and records.
TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def evaluated(model: ModuleT) -> ModuleT:
    """A copy of `model` in eval mode that shares its tensors, to run and to put hooks on.

    The modes and hooks of `model` don't change, even if other threads use it at the same time. For
    a compiled network, copies the original one.
    """
    copies: dict[nn.Module, nn.Module] = {}

    def copied(module: nn.Module) -> nn.Module:
        module = getattr(module, "_orig_mod", module)
        if isinstance(module, torch.jit.ScriptModule):
            # Its modes are in a C++ object, which a shallow copy would share.
            return copies.setdefault(module, copy.deepcopy(module).eval())
        if module not in copies:
            made = copies[module] = object.__new__(type(module))
            for name, value in module.__dict__.items():
                # Parameters, buffers and hooks are in dicts of the module.
                if isinstance(value, dict):
                    value = copy.copy(value)
                # A wrapped forward, such as Accelerate's.
                elif isinstance(value, MethodType) and value.__self__ is module:
                    value = MethodType(value.__func__, made)
                made.__dict__[name] = value
            made.training = False
            for name, child in module._modules.items():
                made._modules[name] = None if child is None else copied(child)
        return copies[module]

    return cast(ModuleT, copied(model))


def inside(model: nn.Module) -> tuple[nn.Module, str]:
    """The network inside torch's wrappers (`DataParallel`, `torch.compile`), and its path."""
    path = "model"
    while name := next((n for n in ("module", "_orig_mod") if hasattr(model, n)), None):
        model, path = getattr(model, name), f"{path}.{name}"
    return model, path


def finite(logits: Tensor, images: Tensor) -> Tensor:
    """Return `logits` if all of them are finite.

    Raises:
        WeightsError: Some logits are NaN or infinite, although all pixels are finite.
        DataError: Some logits and some pixels are NaN or infinite.
    """
    if bool(torch.isfinite(logits).all()):
        return logits
    if not bool(torch.isfinite(images).all()):
        raise DataError(
            "The images have values that aren't finite.",
            "A network can't classify NaN or infinity.",
            "Check the code that loads and normalizes them",
        )
    raise WeightsError(
        "The network returned logits that aren't finite.",
        "Its weights contain NaN or infinity, or overflow the number format.",
        "Load the weights again, or run in fp32",
    )


def to_meta(module: nn.Module) -> nn.Module:
    """A copy of `module` in eval mode on the meta device, without a second copy of its tensors."""
    memo: dict[int, object] = {
        id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in module.parameters()
    }
    memo |= {id(buffer): buffer.to("meta") for buffer in module.buffers()}
    return copy.deepcopy(module, memo).eval()
