"""A network as a graph of ATen operators, and what the rewrites read from it.

The graph is that of `torch.export`: without in-place operators, for any batch size and one image
size, with the parameters as its constants.
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
"""Of a slice up to the end."""


class Graph:
    """The graph of a network in eval mode, which the rewrites change."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.nodes = module.graph
        self._made = 0

    def calls(self, *operators: object) -> Iterator[fx.Node]:
        """Nodes that call one of `operators`, in order; the graph may be changed meanwhile."""
        for node in list(self.nodes.nodes):
            if is_call(node, *operators) and not node._erased:
                yield node

    def exact(self, node: object) -> Any:
        """The constant that a node stands for, in fp64; None of any other."""
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
        """Give a layer other weights."""
        dtype = layer.meta["val"].dtype
        constants = [v if v is None else self.constant(v, dtype, layer) for v in (weight, bias)]
        layer.args = (layer.args[0], *constants, *layer.args[3:])

    def constant(self, value: Tensor, dtype: torch.dtype, before: fx.Node) -> fx.Node:
        """A node for a new constant, put before another node."""
        while hasattr(self.module, name := f"_made_{self._made}"):
            self._made += 1
        self.module.register_buffer(name, value.detach().to(dtype).contiguous())
        with self.nodes.inserting_before(before):
            return self.nodes.get_attr(name)

    def call(self, before: fx.Node, operator: Callable[..., Any], *args: Any) -> fx.Node:
        """A node that calls `operator`, put before another node."""
        with self.nodes.inserting_before(before):
            return self.nodes.call_function(operator, args)

    def replace(self, old: fx.Node, new: fx.Node) -> None:
        """Give `old`'s users `new`, and take `old` out."""
        new.meta.setdefault("val", old.meta.get("val"))
        old.replace_all_uses_with(new)
        self.nodes.erase_node(old)

    def finish(self) -> fx.GraphModule:
        """The module after the changes, without what nothing uses any more."""
        self.nodes.eliminate_dead_code()
        self.nodes.lint()
        return fx.GraphModule(self.module, self.nodes)  # takes what the graph uses


def traced(model: nn.Module, sample: Tensor) -> Graph:
    """The graph of a copy of `model` in eval mode, for any number of images like `sample`."""
    program = exported(copy.deepcopy(model).eval(), sample.detach())
    with quiet():
        program = program.run_decompositions({})
        # Older versions of torch put no guards into the module, and have no such option.
        guards = "check_guards" in inspect.signature(program.module).parameters
        graph = Graph(program.module(**({"check_guards": False} if guards else {})))
    for node in graph.calls(aten.view.default, aten._unsafe_view.default):
        # A view of the sample's memory layout; images may come in another.
        node.target = aten.reshape.default
    return graph


def is_call(node: object, *operators: object) -> bool:
    """Whether a node calls one of `operators`."""
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in operators


def shape(node: fx.Node) -> Sequence[Any]:
    """Shape of the tensor that a node gives: whole numbers, but for the batch size."""
    return node.meta["val"].shape  # type: ignore[no-any-return]


def only_user(node: fx.Node) -> fx.Node | None:
    """The one node that uses `node`; None where there are several."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def argument(node: fx.Node, index: int, default: Any) -> Any:
    """An argument of an operator by its position, which the graph leaves out at its default."""
    return node.args[index] if len(node.args) > index else default


def operator_name(node: fx.Node) -> str:
    """A node's operator as people call it: ``relu``."""
    name = getattr(node.target, "__name__", str(node.target))
    return name.removeprefix("aten.").partition(".")[0].removeprefix("_")
