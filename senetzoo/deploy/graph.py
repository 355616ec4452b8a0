"""A network as a graph of ATen operators, with helpers for the rewrites.

The graph is from `torch.export`: it has no in-place operators, takes any batch size and one image
size, and has the parameters as constants.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from senetzoo.deploy.program import exported, quiet

aten = torch.ops.aten
END = 2**63 - 1
"""The end of a slice up to the last element."""


class Graph:
    """The graph of a network in eval mode, which the rewrites change."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.nodes = module.graph
        self._made = 0

    def calls(self, *operators: object) -> Iterator[fx.Node]:
        """Nodes that call one of `operators`, in order; the graph may change during iteration."""
        for node in list(self.nodes.nodes):
            if is_call(node, *operators) and not node._erased:
                yield node

    def exact(self, node: object) -> Any:
        """The value of a constant node, in fp64; None for any other node."""
        if not isinstance(node, fx.Node) or node.op != "get_attr":
            return None
        value: Any = self.module
        for name in str(node.target).split("."):
            value = getattr(value, name)
        return value.detach().double() if isinstance(value, Tensor) else None

    def weights(self, layer: fx.Node) -> tuple[Tensor, Tensor | None] | None:
        """Weight and bias of a convolution or linear layer in fp64; None if they are computed."""
        weight = self.exact(layer.args[1])
        return None if weight is None else (weight, self.exact(argument(layer, 2, None)))

    def set_weights(self, layer: fx.Node, weight: Tensor, bias: Tensor | None) -> None:
        """Replace the weights of a layer."""
        dtype = layer.meta["val"].dtype
        constants = [v if v is None else self.constant(v, dtype, layer) for v in (weight, bias)]
        layer.args = (layer.args[0], *constants, *layer.args[3:])

    def constant(self, value: Tensor, dtype: torch.dtype, before: fx.Node) -> fx.Node:
        """Insert a node for a new constant before another node."""
        while hasattr(self.module, name := f"_made_{self._made}"):
            self._made += 1
        self.module.register_buffer(name, value.detach().to(dtype).contiguous())
        with self.nodes.inserting_before(before):
            return self.nodes.get_attr(name)

    def call(self, before: fx.Node, operator: Callable[..., Any], *args: Any) -> fx.Node:
        """Insert a node that calls `operator` before another node."""
        with self.nodes.inserting_before(before):
            return self.nodes.call_function(operator, args)

    def replace(self, old: fx.Node, new: fx.Node) -> None:
        """Replace `old` by `new` in all users of `old`, and erase `old`."""
        new.meta.setdefault("val", old.meta.get("val"))
        old.replace_all_uses_with(new)
        self.nodes.erase_node(old)

    def finish(self) -> fx.GraphModule:
        """The module after the changes, without unused nodes and constants."""
        self.nodes.eliminate_dead_code()
        self.nodes.lint()
        return fx.GraphModule(self.module, self.nodes)  # copies only what the graph uses


def traced(model: nn.Module, sample: Tensor) -> Graph:
    """The graph of a copy of `model` in eval mode, for any number of images like `sample`."""
    program = exported(copy.deepcopy(model).eval(), sample.detach())
    with quiet():
        program = program.run_decompositions({})
        # Older versions of torch add no guards to the module, and don't have this option.
        guards = "check_guards" in inspect.signature(program.module).parameters
        graph = Graph(program.module(**({"check_guards": False} if guards else {})))
    for node in graph.calls(aten.view.default, aten._unsafe_view.default):
        # The view assumes the sample's memory layout, but images may have another.
        node.target = aten.reshape.default
    return graph


def is_call(node: object, *operators: object) -> bool:
    """Whether a node calls one of `operators`."""
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in operators


def shape(node: fx.Node) -> Sequence[Any]:
    """Shape of a node's tensor: integers, except for the batch size."""
    return node.meta["val"].shape  # type: ignore[no-any-return]


def only_user(node: fx.Node) -> fx.Node | None:
    """The only node that uses `node`; None if it doesn't have exactly one user."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def argument(node: fx.Node, index: int, default: Any) -> Any:
    """A positional argument of an operator, or its default, which the graph may leave out."""
    return node.args[index] if len(node.args) > index else default


def operator_name(node: fx.Node) -> str:
    """Short name of a node's operator: ``relu``."""
    name = getattr(node.target, "__name__", str(node.target))
    return name.removeprefix("aten.").partition(".")[0].removeprefix("_")
