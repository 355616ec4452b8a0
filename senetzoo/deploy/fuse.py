"""Replace tails of residual branches, and gates, in a network's graph by one operator each."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from senetzoo._utils.environment import unwarned
from senetzoo.deploy.graph import Graph, argument, aten, is_call, only_user, shape
from senetzoo.deploy.rewrite import FRESH
from senetzoo.deploy.squeeze import squeeze_through
from senetzoo.deploy.tail import HARDSIGMOID, IDENTITY, LANES, RELU, SIGMOID, SILU, pack


def fused(module: fx.GraphModule, dtype: torch.dtype) -> tuple[fx.GraphModule, int, frozenset[str]]:
    """Replace the tails of a rewritten network by operators; `module` is not changed.

    Returns:
        The graph, with weights packed for `dtype`; the number of its tails; and the gates that now
        read the input of the convolution before them.
    """
    with unwarned(FutureWarning):  # of copies of torch's traced graphs
        graph = Graph(fx.GraphModule(module, copy.deepcopy(module.graph)))
    # The operators never read a map for its gate, so this pays even with as many inputs as outputs.
    reasons = squeeze_through(graph, level=True)
    tails = 0
    # Sums first; the remaining convolutions have no sum.
    for operator, matched in ((aten.add.Tensor, _with_sum), (aten.conv2d.default, _without_sum)):
        graph.nodes.eliminate_dead_code()  # averages and maps that nothing reads anymore
        for node in graph.calls(operator):
            tail = matched(node)
            weights = None if tail is None else _fitting(graph, tail.conv)
            if tail is not None and weights is not None and not _overwritten(graph, tail):
                _replace(graph, tail, weights, dtype)
                tails += 1
    for node in graph.calls(aten.sigmoid.default, aten.hardsigmoid.default):
        _replace_excitation(graph, node, dtype)
    return graph.finish(), tails, frozenset(path for path, why in reasons.items() if not why)


@dataclass(frozen=True)
class _Tail:
    """Nodes of a tail; the operator's output replaces that of the last node."""

    x: fx.Node
    conv: fx.Node
    last: fx.Node
    input_gate: fx.Node | None = None
    gate: fx.Node | None = None
    shortcut: fx.Node | None = None
    activation: int = IDENTITY


def _with_sum(add: fx.Node) -> _Tail | None:
    """The tail whose sum is `add`, or None."""
    terms = add.all_input_nodes
    if len(terms) != 2 or add.kwargs:
        return None
    following = only_user(add)
    relu = is_call(following, aten.relu.default, aten.relu_.default)
    last = following if relu and following is not None else add
    for branch, shortcut in (terms, terms[::-1]):
        if only_user(branch) is not add or shape(shortcut) != shape(add):
            continue
        conv, gate = _ungated(branch)
        if is_call(conv, aten.conv2d.default) and (gate is None or only_user(conv) is branch):
            x, input_gate = _ungated(conv.all_input_nodes[0])
            return _Tail(x, conv, last, input_gate, gate, shortcut, RELU if relu else IDENTITY)
    return None


def _without_sum(conv: fx.Node) -> _Tail | None:
    """The tail that consists of a convolution of a gated map, or None."""
    x, input_gate = _ungated(conv.all_input_nodes[0])
    return None if input_gate is None else _Tail(x, conv, conv, input_gate)


def _ungated(node: fx.Node) -> tuple[fx.Node, fx.Node | None]:
    """Map and gate, if a node is their product and has one user; otherwise the node and None."""
    factors = node.all_input_nodes
    if is_call(node, aten.mul.Tensor) and len(factors) == 2 and len(node.users) == 1:
        for x, gate in (factors, factors[::-1]):
            if shape(x) == shape(node) and tuple(shape(gate)) == (*shape(x)[:2], 1, 1):
                return x, gate
    return node, None


def _fitting(graph: Graph, conv: fx.Node) -> tuple[Tensor, Tensor | None] | None:
    """Weight and bias of a convolution that the operator can compute; otherwise None."""
    found = graph.weights(conv)
    if found is None or (argument(conv, 2, None) and found[1] is None):
        return None
    single = tuple(found[0].shape[2:]) == (1, 1) and argument(conv, 6, 1) == 1
    still = {*argument(conv, 3, [1, 1])} == {1} and {*argument(conv, 4, [0, 0])} == {0}
    return found if single and still and found[0].shape[1] % 2 == 0 else None


def _overwritten(graph: Graph, tail: _Tail) -> bool:
    """Whether an in-place tail overwrites an input of this one, which reads it only at its end."""
    first = tail.conv if tail.input_gate is None else tail.conv.all_input_nodes[0]
    read = [tail.x, tail.gate, tail.input_gate, tail.shortcut]
    bases = [_base(node) for node in read if node is not None]
    written = (
        node.args[_SHORTCUT]
        for node in graph.calls(torch.ops.senetzoo.gated_tail_.default)
        if first < node < tail.last
    )
    return any(isinstance(node, fx.Node) and _base(node) in bases for node in written)


_SHORTCUT = 4
"""Index of the shortcut in the arguments of `gated_tail_`."""


def _replace(
    graph: Graph, tail: _Tail, weights: tuple[Tensor, Tensor | None], dtype: torch.dtype
) -> None:
    last, shortcut = tail.last, tail.shortcut
    gate, input_gate = (g and _flat(graph, g, last) for g in (tail.gate, tail.input_gate))
    layer = _layer(graph, *weights, dtype, last)
    arguments = (tail.x, *layer, gate, shortcut, tail.activation, input_gate)
    # The operator must not write in place to a tensor that it also reads.
    read = [_base(node) for node in (tail.x, gate, input_gate) if node is not None]
    if shortcut is None or shortcut in read or not _is_dead(shortcut, last):
        graph.replace(last, graph.call(last, torch.ops.senetzoo.gated_tail.default, *arguments))
        return
    graph.call(last, torch.ops.senetzoo.gated_tail_.default, *arguments)
    inner = [user for user in last.all_input_nodes if user is not shortcut]
    last.replace_all_uses_with(shortcut)
    graph.nodes.erase_node(last)
    for node in inner:  # the sum before an activation reads the shortcut too
        if not node.users:
            graph.nodes.erase_node(node)


def _layer(
    graph: Graph, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, before: fx.Node
) -> tuple[fx.Node, fx.Node | None]:
    """Constants for packed weights and the bias."""
    packed = graph.constant(pack(weight.flatten(1).to(dtype)), dtype, before)
    return packed, None if bias is None else graph.constant(bias, dtype, before)


def _flat(graph: Graph, gate: fx.Node, before: fx.Node) -> fx.Node:
    """A gate (N, C, 1, 1) as (N, C)."""
    source = gate
    for dim in (3, 2):
        if not (is_call(source, aten.unsqueeze.default) and source.args[1] in (dim, dim - 4)):
            return graph.call(before, aten.reshape.default, gate, [-1, shape(gate)[1]])
        source = source.all_input_nodes[0]
    return source


def _is_dead(shortcut: fx.Node, last: fx.Node) -> bool:
    """Whether nothing after its tail reads the memory of a shortcut."""
    return is_call(shortcut, *FRESH) and all(
        user <= last and (not _is_view(user) or all(later <= last for later in user.users))
        for user in shortcut.users
    )


def _base(node: fx.Node) -> fx.Node:
    """The node whose memory a node shares."""
    while _is_view(node):
        node = node.all_input_nodes[0]
    return node


def _is_view(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    returns = schema.returns if schema is not None else ()
    return any(value.alias_info is not None for value in returns)


_HIDDEN: dict[Any, int] = {
    aten.relu.default: RELU,
    aten.relu_.default: RELU,
    aten.silu.default: SILU,
    aten.silu_.default: SILU,
}


def _replace_excitation(graph: Graph, gate: fx.Node, dtype: torch.dtype) -> None:
    """Replace a mean, two layers and the gate by one operator, if the graph has this pattern."""
    chain = list(_back(gate))
    if len(chain) < 4:
        return
    second, hidden, first, mean = chain
    x, weights = mean.all_input_nodes[0], [graph.weights(layer) for layer in (first, second)]
    if None in weights or len(shape(x)) != 4:
        return
    (weight1, bias1), (weight2, bias2) = (found for found in weights if found is not None)
    if weight1.shape[1] % 2:
        return
    # Additional hidden channels, whose value is 0.
    more = -len(weight1) % LANES
    weight1, weight2 = F.pad(weight1, (0, 0, 0, more)), F.pad(weight2, (0, more))
    bias1 = None if bias1 is None else F.pad(bias1, (0, more))
    arguments = (
        *_layer(graph, weight1, bias1, dtype, gate),
        *_layer(graph, weight2, bias2, dtype, gate),
        _HIDDEN[hidden.target],
        SIGMOID if is_call(gate, aten.sigmoid.default) else HARDSIGMOID,
    )
    graph.replace(gate, graph.call(gate, torch.ops.senetzoo.excitation.default, x, *arguments))
    for node in chain:  # an in-place activation would keep them alive
        graph.nodes.erase_node(node)


def _back(gate: fx.Node) -> Iterator[fx.Node]:
    """The nodes before a gate, as far as they are a layer, an activation, a layer and a mean."""
    node = gate
    for operators in ((aten.linear.default,), _HIDDEN, (aten.linear.default,), (aten.mean.dim,)):
        source = node.all_input_nodes[0]
        if not is_call(source, *operators) or only_user(source) is not node:
            return
        if is_call(source, aten.mean.dim):
            dims: Any = source.args[1]
            if {dim % 4 for dim in dims} != {2, 3} or argument(source, 2, False):
                return
        yield source
        node = source
