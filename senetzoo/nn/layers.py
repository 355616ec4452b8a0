"""Tables of a network's layers, with output shapes and costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from senetzoo._utils.terminal import cells, columns, cut
from senetzoo.nn.counting import macs_by_name
from senetzoo.nn.slots import Slots

_WIDTH = 80
_KIND = 17


@dataclass(frozen=True)
class Layer:
    """One module of a network, without its submodules.

    Args:
        name: Path in the network; empty for the network itself.
        kind: Name of its class.
        output: Shape of its (first) output for one image, without the batch dimension; empty if
            it doesn't return a tensor.
        params: Number of its own learnable parameters.
        macs: Multiply-accumulates of its own convolutions and matrix products for one image.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    params: int
    macs: int


def layers(model: nn.Module, shape: tuple[int, ...]) -> tuple[tuple[Layer, ...], dict[str, int]]:
    """The layers of `model` in the order in which they run, and the MACs of each module by name.

    Containers and modules that don't run are left out, unless they have parameters of their own:
    these come last if they don't run. What a module computes outside its submodules, such as
    attention, counts as its own, so the MACs of all layers add up to those of the network.

    Args:
        model: The network, on the meta device; hooks are added to it.
        shape: Shape of an image: (C, H, W).
    """
    outputs: dict[nn.Module, tuple[int, ...]] = {}
    paths = {module: path for path, module in model.named_modules()}

    def note(module: nn.Module, args: object, output: object) -> None:
        outputs.setdefault(module, tuple(output.shape[1:]) if isinstance(output, Tensor) else ())

    for module in paths:
        module.register_forward_hook(note)
    macs_of = macs_by_name(model.eval(), (1, *shape))
    costs = {paths[m]: macs_of.get(paths[m], 0) for m in outputs}
    own_costs = dict(costs)
    for path in filter(None, costs):
        # Skip parents that aren't called, such as a ModuleList.
        parent = path.rpartition(".")[0]
        while parent not in costs:
            parent = parent.rpartition(".")[0]
        own_costs[parent] -= costs[path]
    counted = set[nn.Parameter]()
    found = []
    for module in [*outputs, *(module for module in paths if module not in outputs)]:
        own = [p for p in module.parameters(recurse=False) if p not in counted]
        counted |= set(own)
        params = sum(p.numel() for p in own)
        macs = own_costs.get(paths[module], 0)
        leaf = not any(True for _ in module.children()) and module in outputs
        if params or macs or (leaf and not isinstance(module, (Slots, nn.Identity))):
            kind, output = type(module).__name__, outputs.get(module, ())
            found.append(Layer(paths[module], kind, output, params, macs))
    return tuple(found), macs_of


def table(found: Sequence[Layer], params: int, macs: int) -> list[str]:
    """The layers as lines of at most 80 columns, with the network's totals below."""
    numbers = [
        ["x".join(map(str, layer.output)), f"{layer.params:,}", f"{layer.macs:,}"]
        for layer in found
    ]
    numbers = [["output", "params", "MACs"], *numbers, ["", f"{params:,}", f"{macs:,}"]]
    kinds = ["kind", *(cut(layer.kind, _KIND) for layer in found), ""]
    taken = sum(2 + max(map(cells, column)) for column in zip(*numbers, strict=True))
    room = max(12, _WIDTH - taken - 2 - max(map(cells, kinds)))
    names = ["layer", *(cut(layer.name or "-", room, keep_end=True) for layer in found), "total"]
    rows = [[name, kind, *row] for name, kind, row in zip(names, kinds, numbers, strict=True)]
    return columns(rows, left=2)
