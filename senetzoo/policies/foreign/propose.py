"""A `SiteMap` for an unknown network, found in its graph."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from senetzoo._utils.environment import PROCESS
from senetzoo.errors import PolicyError
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.modes import to_meta
from senetzoo.nn.slots import Layout, Position
from senetzoo.policies.attach import check_no_backbone, check_unwrapped
from senetzoo.policies.foreign.calls import blocks_called
from senetzoo.policies.foreign.hooks import remove_all
from senetzoo.policies.foreign.places import FUSED, fused_away
from senetzoo.policies.foreign.sitemap import Block, Place, SiteMap, Unsupported, When

_ADDS = ("add", "iadd", "add_")
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ACTS = ("relu", "silu", "gelu", "hardswish", "leaky_relu", "elu", "relu6", "tanh", "sigmoid")
_ACT_MODULES = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.Tanh)
# Ends of the names of modules that drop a branch for whole samples: a gate sits before them.
_DROPS = ("DropPath", "StochasticDepth")
_NO_MAP = "there is no map, but a tensor of"


class _Tracer(fx.Tracer):
    """Traces into sequences and every module that has children; the others are leaves.

    Meanwhile torch.fx has all modules of the process call it, those of other threads too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        # An empty sequence does nothing, and a gate in it would be one of what it runs.
        return not isinstance(module, nn.Sequential) and not any(True for _ in module.children())


def propose(model: nn.Module, example_input: Tensor) -> SiteMap:
    """A map of an unknown network, found by tracing it with ``torch.fx``, or by running it.

    The places are around its residual sums; in a network without any, at its convolutions. Where
    torch.fx can't trace it, as a YOLO, it is run once, in eval mode, and the places are before and
    after its blocks: modules of two convolutions or more that take one map and give one.

    Args:
        model: The network; it is not changed.
        example_input: What it takes; only the shape counts where it can be traced.

    Returns:
        The map; ``unsupported`` says what could not be placed, with the reason. Print it.

    Raises:
        PolicyError: The network is one of this zoo, which has its own sites, or one that `attach`
            would refuse: a `Backbone`, wrapped or compiled.
    """
    check_unwrapped(model, "propose")
    check_no_backbone(model, "propose")
    if isinstance(model, Classifier):
        raise PolicyError(
            f"propose got a {type(model).__name__} of this zoo.",
            "Networks of this zoo declare their own sites.",
            "Type attach(model, policy), without sites",
        )
    try:
        blocks, unsupported = _traced(model, example_input)
    except Exception as error:  # what a network's own code raises can be anything
        reason = f"torch.fx can't trace it: {_first(error)}"
        try:
            blocks, unsupported = blocks_called(model, example_input)
        except Exception as second:
            reason += f"; and it can't be run: {_first(second)}"
            return SiteMap((), (Unsupported("", "", reason),))
        if not blocks:
            return SiteMap((), (Unsupported("", "", reason), *unsupported))
    places: list[Place] = []
    stage, number, last = 0, 0, ""
    before: tuple[int, ...] = ()
    for name, size, found in blocks:
        if not stage or size != before:
            stage, number, before = stage + 1, 0, size
        # Two sums in one block have one number.
        number += not name or name != last or not number
        last = name
        for position, place in found.items():
            if isinstance(place, Place) and fused_away(model, place.module):
                place = f"{place.module} is {FUSED}"
            if isinstance(place, Place):
                places.append(dataclasses.replace(place, stage=stage, block=number))
            else:
                unsupported.append(Unsupported(name, position, place, stage, number))
    if not places:
        sequences = any(_NO_MAP in lacking.reason for lacking in unsupported)
        reason = (
            "its blocks process sequences, but gates need feature maps"
            if sequences
            else "it has neither residual sums nor convolutions of images"
        )
        unsupported.insert(0, Unsupported("", "", reason))
    gone = [name for name, _ in model.named_modules() if fused_away(model, name)]
    if gone:
        more = f"; so are {len(gone) - 1} others" if gone[1:] else ""
        unsupported.append(Unsupported(gone[0], "", f"it is {FUSED}{more}"))
    return SiteMap(tuple(places), tuple(unsupported))


def _first(error: Exception) -> str:
    """The first sentence of an error."""
    return f"{type(error).__name__}: {error}".splitlines()[0].split(". ")[0]


def _traced(model: nn.Module, example_input: Tensor) -> tuple[list[Block], list[Unsupported]]:
    """The blocks in the network's graph, and what is in none."""
    twin = to_meta(model)
    remove_all(twin)
    with PROCESS:
        graph = _Tracer().trace(twin)
    traced = fx.GraphModule(twin, graph)
    with torch.no_grad(), torch.device("meta"):
        traced(example_input.to("meta"))  # fails here first, because ShapeProp prints a traceback
        ShapeProp(traced).propagate(example_input.to("meta"))
    reader = _Graph(traced)
    blocks = list(reader.residuals())
    if not blocks:
        return list(reader.units()), []
    outside = [conv for conv in reader.convolutions() if conv not in reader.used]
    return blocks, [Unsupported(str(c.target), "", "it is in no residual branch") for c in outside]


class _Graph:
    """What is to be known of a traced network."""

    def __init__(self, traced: fx.GraphModule) -> None:
        self.modules = dict(traced.named_modules())
        self.nodes = list(traced.graph.nodes)
        self.order = {node: index for index, node in enumerate(self.nodes)}
        self.calls = Counter(map(self.module, self.nodes))
        self.used: set[fx.Node] = set()
        self.layouts: dict[fx.Node, Layout | None] = {}
        self.last: dict[str, fx.Node] = {}
        for node in self.nodes:
            self.layouts[node] = self.layout(node)
            self.last |= dict.fromkeys(_homes(node), node)

    def convolutions(self) -> Iterator[fx.Node]:
        """Calls of convolutions."""
        return (node for node in self.nodes if isinstance(self.module(node), _CONVS))

    def module(self, node: fx.Node) -> nn.Module | None:
        """The module that `node` calls."""
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Shape of the tensor that `node` gives; empty if it gives none."""
        meta = node.meta.get("tensor_meta")
        return tuple(getattr(meta, "shape", ()))

    def size(self, node: fx.Node) -> tuple[int, ...]:
        """Size of the map that `node` gives."""
        shape = self.shape(node)
        return shape[1:3] if self.layouts.get(node) == "nhwc" else shape[2:]

    def layout(self, node: fx.Node) -> Layout | None:
        """Layout of the map that `node` gives, from those before it; None where it is no map."""
        if len(self.shape(node)) != 4:
            return None
        module = self.module(node)
        if isinstance(module, _CONVS):
            return "nchw"
        # Not subclasses, some of which turn the map around themselves.
        if type(module) in (nn.Linear, nn.LayerNorm):
            return "nhwc"
        known = (self.layouts.get(source) for source in node.all_input_nodes)
        before = next((layout for layout in known if layout), None)
        order = _order(node, module)
        if order:
            return "nhwc" if order[-1] == 1 else "nchw" if order[1] == 3 else before
        return before or "nchw"

    def place(self, node: fx.Node, position: Position, side: When, tensor: fx.Node) -> Place | str:
        """The place before or after the module that `node` calls, or why there is none."""
        module = self.module(node)
        if module is None:
            return f"there is no module at {node.name}, only the operation {_target(node)}"
        if self.calls[module] > 1:
            return f"{node.target} runs more than once"
        return self.at(str(node.target), position, side, tensor)

    def before(self, node: fx.Node, position: Position) -> Place | str:
        """The place at the input of the module that `node` calls."""
        return self.place(node, position, "before", node.all_input_nodes[0])

    def at(self, name: str, position: Position, side: When, tensor: fx.Node) -> Place | str:
        """The place at the module called `name`, where `tensor` passes."""
        layout, shape = self.layouts.get(tensor), self.shape(tensor)
        if layout is None:
            return f"at {name} {_NO_MAP} {shape}"
        channels = shape[1] if layout == "nchw" else shape[3]
        return Place(name, position, side, channels=channels, layout=layout)

    def residuals(self) -> Iterator[Block]:
        """The sums of a branch and what bypasses it."""
        for node in self.nodes:
            sides = [arg for arg in node.args if isinstance(arg, fx.Node)]
            if _target(node) not in _ADDS or len(sides) != 2 or len(node.args) > 2:
                continue
            if self.shape(sides[0]) != self.shape(sides[1]) or len(self.shape(node)) < 3:
                continue
            up = [_above(side) for side in sides]
            branch, skip = up[0] - up[1], up[1] - up[0]
            end, bypass = sides
            if self.weight(branch) <= self.weight(skip):
                branch, skip, end, bypass = skip, branch, bypass, end
            if self.weight(branch):
                self.used |= branch | skip
                yield self.residual(node, branch, skip, end, bypass)

    def weight(self, side: set[fx.Node]) -> int:
        """How likely a side is the branch: a convolution or linear layer decides."""
        modules = [self.module(node) for node in side]
        known = sum(module is not None for module in modules)
        known += sum(node.op == "get_attr" for node in side)
        return known + 999 * sum(isinstance(m, (*_CONVS, nn.Linear)) for m in modules)

    def residual(
        self, node: fx.Node, branch: set[fx.Node], skip: set[fx.Node], end: fx.Node, bypass: fx.Node
    ) -> Block:
        """The places around one sum."""
        inside = sorted(branch, key=self.order.__getitem__)
        starts = [n for n in inside if n.all_input_nodes and branch.isdisjoint(n.all_input_nodes)]
        # Without those of a squeeze, which see one pixel.
        area = math.prod(self.size(node))
        convs = [
            n
            for n in inside
            if isinstance(self.module(n), _CONVS) and (area == 1 or math.prod(self.size(n)) > 1)
        ]
        spatial = len(convs) > 1 and max(self.module(convs[-2]).kernel_size) > 1  # type: ignore[union-attr, arg-type]
        name = next(reversed(_homes(node)), "")
        found: dict[Position, Place | str] = {
            "pre": self.before(starts[0], "pre")
            if len(starts) == 1
            else f"the branch begins at {len(starts) or 'no'} modules",
            "standard": self.branch_output(end, node),
            "inner": self.before(convs[-1], "inner")
            if spatial
            else "no convolution follows the spatial one and its activation",
            "identity": self.output(bypass, "identity", node)
            if skip
            else "the skip is the block's input as it is, and no module of its own",
            "post": self.post(node, name),
        }
        return name, self.size(node), found

    def branch_output(self, end: fx.Node, total: fx.Node) -> Place | str:
        """The place at the end of a branch, before its stochastic depth."""
        if not type(self.module(end)).__name__.endswith(_DROPS):
            return self.output(end, "standard", total)
        found = self.output(end.all_input_nodes[0], "standard", total)
        return found if isinstance(found, Place) else self.before(end, "standard")

    def output(self, end: fx.Node, position: Position, total: fx.Node) -> Place | str:
        """The place after `end`, or after the module whose output that is."""
        if self.module(end) is not None:
            return self.place(end, position, "after", end)
        around = [name for name in reversed(_homes(end)) if name not in _homes(total)]
        for name in around:
            module = self.modules[name]
            if self.last[name] is end and not isinstance(module, (nn.Sequential, nn.ModuleList)):
                return self.at(name, position, "after", end)
        return f"there is no module at {end.name}, only the operation {_target(end)}"

    def post(self, node: fx.Node, name: str) -> Place | str:
        """The output of the module that the sum is in."""
        module = self.modules.get(name)
        if not name or module is None or isinstance(module, (nn.Sequential, nn.ModuleList)):
            return "the sum is in no module of its own"
        last, at = self.last[name], node
        while at is not last:
            users = list(at.users)
            if len(users) != 1 or not self.activates(users[0]):
                return f"{name} goes on after the sum"
            at = users[0]
        return self.at(name, "post", "after", last)

    def activates(self, node: fx.Node) -> bool:
        """Whether `node` is an activation."""
        return isinstance(self.module(node), _ACT_MODULES) or _target(node).rstrip("_") in _ACTS

    def units(self) -> Iterator[Block]:
        """Convolutions, each with the norm and the activation that follow it."""
        for conv in self.convolutions():
            if len(self.shape(conv)) != 4:
                continue
            last = conv
            while len(last.users) == 1:
                (user,) = last.users
                module = self.module(user)
                if not isinstance(module, (nn.modules.batchnorm._BatchNorm, *_ACT_MODULES)):
                    break
                last = user
            yield (
                str(conv.target),
                self.shape(conv)[2:],
                {
                    "pre": self.before(conv, "pre"),
                    "standard": self.place(last, "standard", "after", last),
                },
            )


def _above(node: fx.Node) -> set[fx.Node]:
    """`node` and all that it is computed from."""
    found: set[fx.Node] = set()
    todo = [node]
    while todo:
        at = todo.pop()
        if at not in found:
            found.add(at)
            todo += at.all_input_nodes
    return found


def _target(node: fx.Node) -> str:
    """Name of the function or method that `node` calls; empty if it calls none."""
    if node.op not in ("call_function", "call_method"):
        return ""
    return str(getattr(node.target, "__name__", node.target))


def _homes(node: fx.Node) -> list[str]:
    """Names of the modules that run `node`, from the outermost on, without a leaf itself."""
    paths = [str(path) for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return [p for p in paths if p and not (node.op == "call_module" and p == str(node.target))]


def _order(node: fx.Node, module: nn.Module | None) -> tuple[int, ...]:
    """The order in which `node` puts the four dimensions of a map; empty if it does not."""
    given: Any = getattr(module, "dims", ())
    if _target(node) == "permute":
        given = node.args[1:]
        given = given[0] if len(given) == 1 else given
    fits = isinstance(given, (tuple, list)) and sorted(given) == [0, 1, 2, 3]
    return tuple(given) if fits else ()
