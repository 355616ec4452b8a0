"""The tail of a residual branch as one operator: convolution, gate, shortcut and activation.

A gate behind a convolution costs little arithmetic, but its product with the map is a pass over
memory of its own, and takes from the convolution the sum and the activation that libraries fuse
into it. `gated_tail` computes each tile of the convolution and does all three while the tile is in
the cache; `excitation` is the gate itself, mean and two layers, in one call. What they compute is
defined here in PyTorch's operators; `senetzoo.deploy.kernels` has the fast form.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from senetzoo.deploy.graph import Graph, argument, aten, is_call, only_user, shape
from senetzoo.deploy.rewrite import FRESH
from senetzoo.deploy.squeeze import squeeze_through
from senetzoo.errors import ConfigError

IDENTITY, RELU, SIGMOID = range(3)
"""Activations of a tail."""

BLOCK = 64
"""Channels of a tile."""
LANES = 32
"""The kernel's channels are a multiple of it: two vectors of 16 floats."""

# torch's own has no types.
_LIBRARY: Any = torch.library.Library("senetzoo", "FRAGMENT")  # type: ignore[no-untyped-call]
_TAIL = "(Tensor x, Tensor weight, Tensor? bias, Tensor? gate, Tensor{} shortcut, int activation)"
_LIBRARY.define(f"gated_tail{_TAIL.format('?')} -> Tensor")
_LIBRARY.define(f"gated_tail_{_TAIL.format('(a!)')} -> ()")
_LIBRARY.define(
    "excitation(Tensor x, Tensor weight1, Tensor? bias1, Tensor weight2, Tensor? bias2) -> Tensor"
)


def pack(weight: Tensor) -> Tensor:
    """Weights (C, K) as the operators take them: blocks of B outputs beside each other.

    (C / B, K, B), or in bf16 (C / B, K / 2, 2 B), where two inputs of an output are neighbors as
    the processor multiplies them. B is `BLOCK` or `LANES` where it divides C, or C; K is even.
    """
    outputs, inputs = weight.shape
    block = next((size for size in (BLOCK, LANES) if outputs % size == 0), outputs)
    pair = 2 if weight.dtype == torch.bfloat16 else 1
    blocks = weight.reshape(outputs // block, block, inputs // pair, pair).permute(0, 2, 1, 3)
    return blocks.reshape(outputs // block, inputs // pair, block * pair).contiguous()


def unpack(packed: Tensor) -> Tensor:
    """The weights (C, K) that `pack` packed."""
    pair = 2 if packed.dtype == torch.bfloat16 else 1
    blocks, rows, columns = packed.shape
    parts = packed.reshape(blocks, rows, columns // pair, pair).permute(0, 2, 1, 3)
    return parts.reshape(blocks * (columns // pair), rows * pair)


def gated_tail(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gate: Tensor | None,
    shortcut: Tensor | None,
    activation: int,
) -> Tensor:
    """``act(gate * (x W^T + b) + shortcut)``: the definition of ``senetzoo::gated_tail``.

    ``senetzoo::gated_tail_`` writes it to the shortcut.

    Args:
        x: Maps (N, K, H, W), in any memory layout, of at least one image.
        weight: Of a 1x1 convolution, as `pack` gives them.
        bias: (C,), or none.
        gate: (N, C), or none.
        shortcut: (N, C, H, W), or none.
        activation: `IDENTITY`, `RELU` or `SIGMOID`.

    Returns:
        (N, C, H, W) in the layout channels_last.
    """
    if x.numel() == 0:
        raise ConfigError(
            "A tail got no images.", f"They are of shape {tuple(x.shape)}.", "Give at least one"
        )
    y = F.conv2d(x, unpack(weight)[:, :, None, None], bias)
    if gate is not None:
        y = y * gate[:, :, None, None]
    if shortcut is not None:
        y = y + shortcut
    y = (y, y.relu(), y.sigmoid())[activation] if activation else y
    return y.contiguous(memory_format=torch.channels_last)


def _gated_tail_(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gate: Tensor | None,
    shortcut: Tensor,
    activation: int,
) -> None:
    shortcut.copy_(gated_tail(x, weight, bias, gate, shortcut, activation))


def excitation(
    x: Tensor, weight1: Tensor, bias1: Tensor | None, weight2: Tensor, bias2: Tensor | None
) -> Tensor:
    """``sigmoid(W2 relu(W1 mean(x) + b1) + b2)``: the definition of ``senetzoo::excitation``.

    Args:
        x: Maps (N, K, H, W), in any memory layout, of at least one image.
        weight1: Of the first layer, K to R, as `pack` gives them.
        bias1: (R,), or none.
        weight2: Of the second layer, R to C.
        bias2: (C,), or none.

    Returns:
        (N, C).
    """
    hidden = gated_tail(x.mean((2, 3), keepdim=True), weight1, bias1, None, None, RELU)
    return gated_tail(hidden, weight2, bias2, None, None, SIGMOID).flatten(1)


def _channels(packed: Tensor) -> int:
    return packed.shape[0] * packed.shape[2] // (2 if packed.dtype == torch.bfloat16 else 1)


def _fake_tail(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gate: Tensor | None,
    shortcut: Tensor | None,
    activation: int,
) -> Tensor:
    size = (x.shape[0], _channels(weight), *x.shape[2:])
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _fake_excitation(
    x: Tensor, weight1: Tensor, bias1: Tensor | None, weight2: Tensor, bias2: Tensor | None
) -> Tensor:
    return x.new_empty(x.shape[0], _channels(weight2))


for _name, _define, _fake in (
    ("gated_tail", gated_tail, _fake_tail),
    ("gated_tail_", _gated_tail_, lambda *arguments: None),
    ("excitation", excitation, _fake_excitation),
):
    _LIBRARY.impl(_name, _define, "CompositeExplicitAutograd")
    torch.library.register_fake(f"senetzoo::{_name}", _fake, lib=_LIBRARY)


@dataclass(frozen=True)
class Fused:
    """A graph whose residual tails are one operator each.

    Args:
        graph: It, with weights packed for one dtype.
        tails: How many there are.
        gated: Those of them with a gate.
    """

    graph: fx.GraphModule
    tails: int
    gated: int


def fused(module: fx.GraphModule, dtype: torch.dtype) -> Fused:
    """A rewritten network with its tails as operators; `module` is not changed.

    Args:
        module: As `senetzoo.deploy.rewrite.rewritten` gives it.
        dtype: Type that it will compute in.
    """
    graph = Graph(fx.GraphModule(module, copy.deepcopy(module.graph)))
    # Here no map is read for the gate anyway: a convolution that reads as much as it writes pays.
    squeeze_through(graph, level=True)
    graph.nodes.eliminate_dead_code()  # averages of maps that are read no more
    tails = gated = 0
    for node in graph.calls(aten.add.Tensor):
        tail = _matched(node)
        if tail is not None and _fits(graph, tail.conv):
            _replace(graph, tail, dtype)
            tails += 1
            gated += tail.gate is not None
    for node in graph.calls(aten.sigmoid.default):
        _replace_excitation(graph, node, dtype)
    return Fused(graph.finish(), tails, gated)


@dataclass(frozen=True)
class _Tail:
    conv: fx.Node
    gate: fx.Node | None
    shortcut: fx.Node
    last: fx.Node
    activation: int


def _matched(add: fx.Node) -> _Tail | None:
    """The tail whose sum is `add`."""
    terms = add.all_input_nodes
    if len(terms) != 2 or add.kwargs:
        return None
    following = only_user(add)
    relu = is_call(following, aten.relu.default, aten.relu_.default)
    last = following if relu and following is not None else add
    for branch, shortcut in (terms, terms[::-1]):
        if only_user(branch) is not add or shape(shortcut) != shape(add):
            continue
        conv, gate = branch, None
        if is_call(branch, aten.mul.Tensor):
            factors = sorted(
                branch.all_input_nodes, key=lambda node: not is_call(node, aten.conv2d.default)
            )
            if len(factors) != 2 or only_user(factors[0]) is not branch:
                continue
            conv, gate = factors
            if tuple(shape(gate)) != (*shape(conv)[:2], 1, 1):
                continue
        if is_call(conv, aten.conv2d.default):
            return _Tail(conv, gate, shortcut, last, RELU if relu else IDENTITY)
    return None


def _fits(graph: Graph, conv: fx.Node) -> bool:
    """Whether the operator can compute a convolution."""
    weight = graph.exact(conv.args[1])
    if weight is None or ((bias := argument(conv, 2, None)) and graph.exact(bias) is None):
        return False
    single = tuple(weight.shape[2:]) == (1, 1) and argument(conv, 6, 1) == 1
    still = {*argument(conv, 3, [1, 1])} == {1} and {*argument(conv, 4, [0, 0])} == {0}
    return single and still and weight.shape[0] % LANES == 0 and weight.shape[1] % 2 == 0


def _replace(graph: Graph, tail: _Tail, dtype: torch.dtype) -> None:
    found = graph.weights(tail.conv)
    if found is None:
        raise RuntimeError("a convolution without weights")
    gate, last = tail.gate, tail.last
    if gate is not None:
        gate = _flat(graph, gate, last)
    layer = _layer(graph, *found, dtype, last)
    arguments = (tail.conv.args[0], *layer, gate, tail.shortcut, tail.activation)
    if not _is_dead(tail.shortcut, last):
        graph.replace(last, graph.call(last, torch.ops.senetzoo.gated_tail.default, *arguments))
        return
    graph.call(last, torch.ops.senetzoo.gated_tail_.default, *arguments)
    inner = [user for user in last.all_input_nodes if user is not tail.shortcut]
    last.replace_all_uses_with(tail.shortcut)
    graph.nodes.erase_node(last)
    for node in inner:  # the sum below an activation reads the shortcut too
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
    """Whether nothing reads the memory of a shortcut but its tail and what came before."""
    return is_call(shortcut, *FRESH) and all(
        user <= last and (not _is_view(user) or all(later <= last for later in user.users))
        for user in shortcut.users
    )


def _is_view(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    returns = schema.returns if schema is not None else ()
    return any(value.alias_info is not None for value in returns)


def _replace_excitation(graph: Graph, sigmoid: fx.Node, dtype: torch.dtype) -> None:
    """Make a mean, two layers and the sigmoid of them one operator, where they are that."""
    chain = list(_back(sigmoid))
    if len(chain) < 4:
        return
    second, _, first, mean = chain
    x, weights = mean.all_input_nodes[0], [graph.weights(layer) for layer in (first, second)]
    if None in weights or len(shape(x)) != 4:
        return
    (weight1, bias1), (weight2, bias2) = (found for found in weights if found is not None)
    if weight2.shape[0] % LANES or weight1.shape[1] % LANES:
        return
    # More hidden channels, whose value is 0.
    more = -len(weight1) % LANES
    weight1, weight2 = F.pad(weight1, (0, 0, 0, more)), F.pad(weight2, (0, more))
    bias1 = None if bias1 is None else F.pad(bias1, (0, more))
    layers = (
        *_layer(graph, weight1, bias1, dtype, sigmoid),
        *_layer(graph, weight2, bias2, dtype, sigmoid),
    )
    graph.replace(sigmoid, graph.call(sigmoid, torch.ops.senetzoo.excitation.default, x, *layers))


def _back(sigmoid: fx.Node) -> Iterator[fx.Node]:
    """What a sigmoid comes from, as long as it is a layer, a ReLU, a layer and a mean."""
    node = sigmoid
    for operators in (
        (aten.linear.default,),
        (aten.relu.default, aten.relu_.default),
        (aten.linear.default,),
        (aten.mean.dim,),
    ):
        source = node.all_input_nodes[0]
        if not is_call(source, *operators) or only_user(source) is not node:
            return
        if is_call(source, aten.mean.dim):
            dims: Any = source.args[1]
            if {dim % 4 for dim in dims} != {2, 3} or argument(source, 2, False):
                return
        yield source
        node = source
