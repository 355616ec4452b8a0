"""Count parameters and multiply-accumulates, on the meta device: nothing is computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from senetzoo.nn.classifier import Classifier
from senetzoo.nn.modes import to_meta


@dataclass(frozen=True)
class Counts:
    """Cost of a network.

    Args:
        params: Number of learnable parameters.
        macs: Multiply-accumulates of convolutions and matrix products for one image, which papers
            and torchvision call (G)FLOPs.
    """

    params: int
    macs: int


def parameters(module: nn.Module) -> int:
    """Number of learnable parameters, without running statistics."""
    return sum(parameter.numel() for parameter in module.parameters())


def count(model: Classifier, size: int | None = None) -> Counts:
    """Parameters and MACs of `model` for one image.

    Args:
        model: A network on any device; it isn't changed.
        size: Size of the square input in pixels; None for the network's own.
    """
    side = model.input_size if size is None else size
    shape = (1, model.in_chans, side, side)
    return Counts(parameters(model), module_macs(model, shape))


def module_macs(module: nn.Module, shape: tuple[int, ...]) -> int:
    """MACs of `module` for an input of `shape`."""
    twin = to_meta(module)
    for part in twin.modules():
        # They have no MACs, but take half of the time on the meta device.
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.forward = nn.Identity().forward  # type: ignore[method-assign]
    return macs_by_name(twin, shape)[""]


class _Running:
    """Tracks which modules run; torch's own tracker hooks the modules of all threads."""

    def __init__(self, network: nn.Module) -> None:
        self.parents = {"Global"}
        for name, module in network.named_modules():
            module.register_forward_pre_hook(lambda *_, name=name: self.parents.add(name))
            module.register_forward_hook(lambda *_, name=name: self.parents.discard(name))

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def macs_by_name(twin: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """MACs of each module by name; hooks are added to `twin`, which is on the meta device.

    ``""`` is the whole network; modules without MACs are left out.
    """
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _Running(twin)  # type: ignore[assignment]
    with torch.device("meta"), counter, torch.no_grad():
        twin(torch.empty(shape))
    counts = counter.get_flop_counts()
    counts[""] = counts.pop("Global", {})
    return {name: int(sum(ops.values())) // 2 for name, ops in counts.items()}
