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

_VIEWS: tuple[object, ...] = (aten.view.default, aten._unsafe_view.default)


class Graph:
    """The graph of a network in eval mode, which the rewrites change.

    Args:
        module: What `torch.export` makes of the network.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self._made = 0

    @property
    def nodes(self) -> Sequence[fx.Node]:
        """The nodes in order, in a list of their own: the graph may be changed meanwhile."""
        return list(self.module.graph.nodes)

    def calls(self, *operators: object) -> Iterator[fx.Node]:
        """Nodes that call one of `operators`, in order, of those that are still there."""
        for node in self.nodes:
            if is_call(node, *operators) and not node._erased:
                yield node

    def tensor(self, node: object) -> Tensor | None:
        """The constant that a node stands for; None of any other."""
        if not isinstance(node, fx.Node) or node.op != "get_attr":
            return None
        value: Any = self.module
        for name in str(node.target).split("."):
            value = getattr(value, name)
        return value.detach() if isinstance(value, Tensor) else None

    def needed(self, node: object) -> Tensor:
        """The constant that a node stands for, where there can't be anything else."""
        tensor = self.tensor(node)
        if tensor is None:
            raise TypeError(node)
        return tensor

    def constant(self, value: Tensor, before: fx.Node) -> fx.Node:
        """A node for a new constant, of the dtype of the network, put before another node."""
        name = f"_made_{self._made}"
        self._made += 1
        self.module.register_buffer(name, value.contiguous())
        with self.module.graph.inserting_before(before):
            node = self.module.graph.get_attr(name)
        return node

    def call(self, before: fx.Node, operator: Callable[..., Any], *args: Any) -> fx.Node:
        """A node that calls `operator`, put before another node."""
        with self.module.graph.inserting_before(before):
            return self.module.graph.call_function(operator, args)

    def replace(self, old: fx.Node, new: fx.Node) -> None:
        """Give `old`'s users `new`, and take `old` out."""
        new.meta.setdefault("val", old.meta.get("val"))
        old.replace_all_uses_with(new)
        self.module.graph.erase_node(old)

    def finish(self) -> fx.GraphModule:
        """The module after the changes, without what nothing uses any more."""
        graph = self.module.graph
        graph.eliminate_dead_code()
        graph.lint()
        self.module.delete_all_unused_submodules()
        used = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
        for path in [name for name, _ in _tensors(self.module) if name not in used]:
            parent, _, name = path.rpartition(".")
            delattr(self.module.get_submodule(parent), name)
        self.module.recompile()
        return self.module


def traced(model: nn.Module, sample: Tensor) -> Graph:
    """The graph of a copy of `model` in eval mode, for images like `sample`, any number of them.

    Args:
        model: A network of images (N, C, H, W) to logits (N, classes).
        sample: Images of the size that it will get, on its device.

    Raises:
        ConfigError: torch can't export the network.
    """
    program = exported(copy.deepcopy(model).eval(), sample.detach())
    with quiet():
        program = program.run_decompositions({})
        # Older versions of torch put no guards into the module, and have no such option.
        guards = "check_guards" in inspect.signature(program.module).parameters
        graph = Graph(program.module(**({"check_guards": False} if guards else {})))
    for node in graph.calls(*_VIEWS):
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


def module_path(node: fx.Node) -> str:
    """Name of the innermost module that a node is from."""
    stack = node.meta.get("nn_module_stack") or {"": ("", None)}
    path: str = list(stack.values())[-1][0]
    return path


def operator_name(node: fx.Node) -> str:
    """A node's operator as people call it: ``relu``."""
    name = getattr(node.target, "__name__", str(node.target))
    return name.removeprefix("aten.").partition(".")[0].removeprefix("_")


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)
