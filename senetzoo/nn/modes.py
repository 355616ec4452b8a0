"""Running and copying networks that belong to somebody else, and leaving them as they were."""

from __future__ import annotations

import copy
from types import MethodType
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from senetzoo.errors import DataError, WeightsError

ModuleT = TypeVar("ModuleT", bound=nn.Module)
# Types that torch itself computes in, by their names in options and records.
TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def evaluated(model: ModuleT) -> ModuleT:
    """A copy of `model` in eval mode that shares its tensors, to compute with and to put hooks on.

    Modes and hooks of `model` stay as they are, whatever other threads do with it meanwhile. Of a
    compiled network it is one of the network inside.
    """
    copies: dict[nn.Module, nn.Module] = {}

    def copied(module: nn.Module) -> nn.Module:
        module = getattr(module, "_orig_mod", module)
        if isinstance(module, torch.jit.ScriptModule):
            # Its modes are in an object of torch's, which a copy of this kind would share.
            return copies.setdefault(module, copy.deepcopy(module).eval())
        if module not in copies:
            made = copies[module] = object.__new__(type(module))
            for name, value in module.__dict__.items():
                # Parameters, buffers and hooks are in mappings of the module.
                if isinstance(value, dict):
                    value = copy.copy(value)
                # A forward that was put around the class's own, as Accelerate does.
                elif isinstance(value, MethodType) and value.__self__ is module:
                    value = MethodType(value.__func__, made)
                made.__dict__[name] = value
            made.training = False
            for name, child in module._modules.items():
                made._modules[name] = None if child is None else copied(child)
        return copies[module]

    return cast(ModuleT, copied(model))


def inside(model: nn.Module) -> tuple[nn.Module, str]:
    """The network in wrappers of torch (`DataParallel`, `torch.compile`), and its path there."""
    path = "model"
    while name := next((n for n in ("module", "_orig_mod") if hasattr(model, n)), None):
        model, path = getattr(model, name), f"{path}.{name}"
    return model, path


def finite(logits: Tensor, images: Tensor) -> Tensor:
    """`logits` as they are; for code that would make a guess of anything.

    Args:
        logits: What a network gave (N, num_classes).
        images: What it got.

    Raises:
        WeightsError: Some are NaN or infinite, and the images are not.
        DataError: Some are, and the images are so as well.
    """
    if bool(torch.isfinite(logits).all()):
        return logits
    if not bool(torch.isfinite(images).all()):
        raise DataError(
            "The images hold values that are not finite.",
            "A network can't make anything of NaN or infinity.",
            "Look at what loads and normalizes them",
        )
    raise WeightsError(
        "The network gave logits that are not finite.",
        "Its weights hold NaN or infinity, or are too large for the number format.",
        "Load the weights again, or run in fp32",
    )


def to_meta(module: nn.Module) -> nn.Module:
    """A copy of `module` in eval mode, whose tensors have shapes only: no memory for a second."""
    memo: dict[int, object] = {
        id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in module.parameters()
    }
    memo |= {id(buffer): buffer.to("meta") for buffer in module.buffers()}
    return copy.deepcopy(module, memo).eval()
