"""Find the blocks of a network that torch.fx can't trace, by running it once with hooks.

Hooks see the inputs and outputs of modules, but not the operations between them. So the blocks are
whole modules, and their residual sums are unknown.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from senetzoo.nn.modes import evaluated
from senetzoo.nn.slots import Layout
from senetzoo.policies.foreign.hooks import remove_all
from senetzoo.policies.foreign.sitemap import Block, Place, Unsupported

UNTRACED = "torch.fx can't trace the network, so its sums are unknown"
# A module whose convolutions have maps of more sizes than this contains several blocks.
_SIZES = 2


@dataclass(frozen=True)
class _Call:
    """Input and output of one call of a module.

    Args:
        took: Shape of its input if that is a single map; otherwise empty.
        gave: Shape of its output if that is a single map; otherwise empty.
        size: Height and width of the output of a convolution or linear layer; empty for a single
            pixel, as in a squeeze.
    """

    took: tuple[int, ...]
    gave: tuple[int, ...]
    size: tuple[int, ...] = ()


def blocks_called(model: nn.Module, example_input: Any) -> tuple[list[Block], list[Unsupported]]:
    """Name, map size and places of each block, and the modules that aren't in a block.

    A block is a module that runs once, maps one map to one map, and contains at least two
    convolutions, of which all but one can be linear layers. Of nested modules, it is the innermost
    one, unless an outer one has several convolutions besides the inner ones, whose outputs it
    combines.
    """
    calls = _calls(model, example_input)
    modules = dict(model.named_modules())
    convs = {name: call.size for name, (call, *_) in calls.items() if call.size}
    heads = [n for n, (call, *_) in calls.items() if n and not call.took and not call.gave]
    unsupported = [
        Unsupported(head, "", "it doesn't map one map to one map")
        for head in heads
        if _inside(head, convs) and not any(head.startswith(other + ".") for other in heads)
    ]
    candidates: list[str] = []
    for name, seen in calls.items():
        headless = not any(f"{name}.".startswith(head + ".") for head in heads)
        inside = _inside(name, convs)
        spatial = any(isinstance(modules[conv], nn.Conv2d) for conv in inside)
        maps = seen[0].took and seen[0].gave
        if not (name and headless and maps and spatial) or len(inside) < 2:
            continue
        if isinstance(modules[name], (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            continue
        if len(seen) > 1:
            unsupported.append(Unsupported(name, "", "it runs more than once"))
        else:
            candidates.append(name)
    chosen = _chosen(candidates, convs)
    blocks = [name for name in calls if name in chosen]
    around = [*blocks, *heads, *(lacking.module for lacking in unsupported)]
    unsupported += [
        Unsupported(conv, "", "it isn't in a block of two convolutions")
        for conv in convs
        if not any(conv.startswith(name + ".") for name in around)
    ]
    last = {
        shape
        for name in calls
        if isinstance(modules[name], nn.Linear)
        for call in calls[name]
        for shape in (call.took, call.gave)
        if shape
    }
    return [_block(name, calls[name][0], last) for name in blocks], unsupported


def _block(name: str, call: _Call, last: Collection[tuple[int, ...]]) -> Block:
    """Map size and places of a block; `last` are the shapes with channels last."""
    layout: Layout = "nhwc" if call.took in last or call.gave in last else "nchw"
    channels = 1 if layout == "nchw" else 3
    return (
        name,
        call.gave[2:] if layout == "nchw" else call.gave[1:3],
        {
            "pre": Place(name, "pre", "before", channels=call.took[channels], layout=layout),
            "standard": Place(name, channels=call.gave[channels], layout=layout),
            "identity": UNTRACED,
            "post": UNTRACED,
            "inner": UNTRACED,
        },
    )


def _calls(model: nn.Module, example_input: Any) -> dict[str, list[_Call]]:
    """The calls of each module by name, in the order in which they return."""
    network = evaluated(model)
    remove_all(network)
    found: dict[str, list[_Call]] = {}

    def watch(name: str, module: nn.Module) -> None:
        def see(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            took, gave = _shape(args[0]) if len(args) == 1 else (), _shape(output)
            size = gave[2:] if isinstance(module, nn.Conv2d) else ()
            size = gave[1:3] if isinstance(module, nn.Linear) else size
            call = _Call(took, gave, size if math.prod(size) > 1 else ())
            found.setdefault(name, []).append(call)

        module.register_forward_hook(see)

    for name, module in network.named_modules():
        watch(name, module)
    with torch.no_grad():
        network(example_input)
    return found


def _shape(value: object) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) and value.ndim == 4 else ()


def _inside(name: str, convs: Mapping[str, object]) -> set[str]:
    """The convolutions in a module."""
    return {conv for conv in convs if conv.startswith(name + ".")}


def _chosen(candidates: list[str], convs: Mapping[str, tuple[int, ...]]) -> set[str]:
    """The blocks among the candidates."""

    def choose(within: list[str]) -> Iterator[str]:
        outermost = [n for n in within if not any(n.startswith(o + ".") for o in within)]
        for name in outermost:
            inner = [n for n in within if n.startswith(name + ".")]
            own = _inside(name, convs)
            sizes = {convs[conv] for conv in own}
            own = own.difference(*(_inside(n, convs) for n in inner))
            if len(sizes) > _SIZES or (inner and len(own) < 2):
                yield from choose(inner)
            else:
                yield name

    return set(choose(candidates))
