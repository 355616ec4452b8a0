"""A network layer by layer: what each is, what it gives, and what it costs."""

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
    """A module that computes something itself, without the modules inside it.

    Args:
        name: Its path in the network; empty for the network itself.
        kind: Its class.
        output: Shape of what it gives for one image, without the batch; where it runs several
            times, the first time; empty for what gives no tensor.
        params: Its learnable parameters.
        macs: Multiply-accumulates of its convolutions and matrix products for one image.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    params: int
    macs: int


def layers(model: nn.Module, shape: tuple[int, ...]) -> tuple[tuple[Layer, ...], dict[str, int]]:
    """The layers of `model`, on the meta device, which gets hooks, in the order in which they run.

    With them come the MACs of each module by name, as of `macs_by_name`.

    Modules that only hold others, and those that do not run, are left out; what a module computes
    beside those inside it, such as attention, is its own. The sums of `params` and `macs` are those
    of the network, but for parameters of what does not run in eval mode, which come last.

    Args:
        model: The network.
        shape: Of an image: (C, H, W).
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
        # A module between the two that is not called has no cost of its own.
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
    """Layers as lines of at most 80 columns, under which the network's own figures stand."""
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
