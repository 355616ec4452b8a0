"""Compute a gate's averages from the input of the convolution before it, by linearity.

The average of ``W * h + b`` over the map is linear in the averages of h over the windows that each
weight of W reads: for a 1x1 convolution, the average of h; for a padded 3x3 of stride 1, the sums
over h, over its first and last row and column, and its four corners. The layer after the average
(SE's first, the only one of ESE and cSE, ECA's convolution along the channels) is linear too, and
both become one small matrix. So the gate is known before the convolution has run, and reads a map
with fewer channels: a quarter in a ResNet's bottleneck, half in that of ResNeXt-50 32x4d.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from senetzoo.deploy.graph import END, Graph, argument, aten, is_call, operator_name, shape


def squeeze_through(
    graph: Graph, *, everywhere: bool = False, level: bool = False
) -> dict[str, str]:
    """Compute the averages of gates from the input of the convolution whose map they gate.

    Args:
        graph: The graph, with its norms folded.
        everywhere: Whether to do this even if it doesn't read less. By default it is done for 1x1
            convolutions with fewer inputs than outputs, whose map is otherwise only read by the
            product with the gate.
        level: Whether to also do it for as many inputs as outputs.

    Returns:
        By the module that computes an average: why it stays; empty if it was rewritten.
    """
    reasons: dict[str, str] = {}
    for mean in graph.calls(aten.mean.dim, aten.adaptive_avg_pool2d.default):
        conv = mean.all_input_nodes[0]
        if not _is_over_space(mean) or len(conv.users) < 2:
            continue
        weights = graph.weights(conv) if is_call(conv, aten.conv2d.default) else None
        why = _is_impossible(conv, weights)
        if weights is not None and not why:
            weight, bias = weights
            weight = _ungrouped(weight, argument(conv, 6, 1))
            why = "" if everywhere else _does_not_pay(mean, conv, weight, level)
            if not why:
                _rewrite(graph, mean, conv, weight, bias)
        stack = mean.meta.get("nn_module_stack") or {"": ("", None)}
        reasons[list(stack.values())[-1][0]] = why
    for conv in graph.calls(aten.conv1d.default):
        _fold_along_channels(graph, conv)
    return reasons


def _is_over_space(mean: fx.Node) -> bool:
    if is_call(mean, aten.adaptive_avg_pool2d.default):
        return tuple(argument(mean, 1, ())) == (1, 1)
    dims = {dim % 4 for dim in argument(mean, 1, None) or ()}
    return dims == {2, 3} and len(shape(mean.all_input_nodes[0])) == 4 and not mean.kwargs


def _is_impossible(conv: fx.Node, weights: tuple[Tensor, Tensor | None] | None) -> str:
    """Why the average of a node's output can't be computed from its input; empty if it can."""
    if not is_call(conv, aten.conv2d.default):
        return f"its map comes from {operator_name(conv)}, not from a convolution"
    if weights is None:
        return "the weights of its convolution are computed"
    kernel = tuple(weights[0].shape[2:])
    stride, padding, dilation = (
        tuple(argument(conv, index, default))
        for index, default in ((3, [1, 1]), (4, [0, 0]), (5, [1, 1]))
    )
    single = kernel == (1, 1) and padding == (0, 0)
    padded = kernel == (3, 3) and stride == padding == dilation == (1, 1)
    if single or padded:
        return ""
    return f"its convolution is {kernel[0]}x{kernel[1]} of stride {stride[0]}"


def _does_not_pay(mean: fx.Node, conv: fx.Node, weight: Tensor, level: bool) -> str:
    """Why the rewrite would not be faster; empty if it would."""
    if weight.shape[2:] != (1, 1):
        return "its convolution is 3x3, whose windows differ at the borders"
    read, written = (math.prod(shape(node)[1:]) for node in (conv.all_input_nodes[0], conv))
    if read > written or (read == written and not level):
        return "its convolution reads at least as much as it writes"
    for user in conv.users:
        if user is not mean and shape(user)[2:] != shape(conv)[2:]:
            return f"its map is read by {operator_name(user)} anyway"
    return ""


def _ungrouped(weight: Tensor, groups: int) -> Tensor:
    """The weight of a grouped convolution as that of an ungrouped one."""
    outputs, inputs, *kernel = weight.shape
    whole = weight.new_zeros(groups, outputs // groups, groups, inputs, *kernel)
    each = torch.arange(groups)
    whole[each, :, each] = weight.reshape(groups, outputs // groups, inputs, *kernel)
    return whole.reshape(outputs, groups * inputs, *kernel)


def _rewrite(
    graph: Graph, mean: fx.Node, conv: fx.Node, weight: Tensor, bias: Tensor | None
) -> None:
    """Compute the users of `mean` from the input of `conv` instead."""
    pooled, matrix = _pooled(graph, conv, weight)
    dtype = conv.meta["val"].dtype
    shift = matrix.new_zeros(len(matrix)) if bias is None else bias

    def put(old: fx.Node, weight: Tensor, bias: Tensor) -> None:
        constants = [graph.constant(value, dtype, old) for value in (weight, bias)]
        new = graph.call(old, aten.linear.default, pooled, *constants)
        for dim in range(2, len(shape(old))):
            new = graph.call(old, aten.unsqueeze.default, new, dim)
        graph.replace(old, new)

    flat = [user for user in mean.users if is_call(user, aten.reshape.default)]
    for average in (mean, *(user for user in flat if len(shape(user)) == 2)):
        for user in list(average.users):
            first = _first_layer(graph, user, len(shape(average)))
            if first is not None:
                layer, own = first
                moved = layer @ shift
                put(user, layer @ matrix, moved if own is None else moved + own)
    if mean.users:
        put(mean, matrix, shift)


def _first_layer(graph: Graph, user: fx.Node, ndim: int) -> tuple[Tensor, Tensor | None] | None:
    """Weight (H, C) and bias of the linear layer, or 1x1 convolution, that reads an average."""
    if not is_call(user, aten.conv2d.default if ndim == 4 else aten.linear.default):
        return None
    found = graph.weights(user)
    if found is None or (ndim == 4 and (found[0].shape[2:] != (1, 1) or argument(user, 6, 1) != 1)):
        return None
    return found[0].flatten(1), found[1]


def _fold_along_channels(graph: Graph, conv: fx.Node) -> None:
    """Fold a convolution along the outputs of a linear layer, as ECA's, into that layer."""
    view, weight = conv.all_input_nodes[0], graph.exact(conv.args[1])
    if weight is None or not is_call(view, aten.unsqueeze.default, aten.reshape.default):
        return
    linear = view.all_input_nodes[0]
    found = graph.weights(linear) if is_call(linear, aten.linear.default) else None
    made = linear.meta.get("val")  # not there if the layer was made here, from (N, C)
    if found is None or (made is not None and made.dim() != 2):
        return
    layer, bias = found
    # One signal with a sample for each output of the layer, and a result for each sample.
    signal = (1, len(layer))
    same = tuple(shape(view)[1:]) == tuple(shape(conv)[1:]) == signal
    if not same or {*argument(conv, 3, [1]), *argument(conv, 5, [1])} != {1}:
        return
    impulses = torch.eye(len(layer), dtype=layer.dtype)[:, None]
    band = F.conv1d(impulses, weight, padding=argument(conv, 4, [0]))[:, 0].T
    shift = graph.exact(argument(conv, 2, None))
    moved = layer.new_zeros(len(layer)) if bias is None else band @ bias
    values = band @ layer, moved if shift is None else moved + shift
    constants = [graph.constant(value, conv.meta["val"].dtype, conv) for value in values]
    new = graph.call(conv, aten.linear.default, linear.args[0], *constants)
    graph.replace(conv, graph.call(conv, aten.unsqueeze.default, new, 1))


def _pooled(graph: Graph, conv: fx.Node, weight: Tensor) -> tuple[fx.Node, Tensor]:
    """Sums over the source (N, K), and the matrix (O, K) from these to the averages."""
    source = conv.all_input_nodes[0]

    def call(operator: Any, *args: Any) -> fx.Node:
        return graph.call(conv, operator, *args)

    if weight.shape[2:] == (1, 1):
        for dim, step in enumerate(argument(conv, 3, [1, 1]), 2):
            if step > 1:
                source = call(aten.slice.Tensor, source, dim, 0, END, step)
        return call(aten.mean.dim, source, [2, 3]), weight.flatten(1)

    def sums_read(x: fx.Node) -> list[fx.Node]:
        """Sums over the rows (or columns) that the first, second and third weights read."""
        whole = call(aten.sum.dim_IntList, x, [2])
        last, first = (call(aten.select.int, x, 2, end) for end in (-1, 0))
        return [call(aten.sub.Tensor, whole, last), whole, call(aten.sub.Tensor, whole, first)]

    parts = [part for row in sums_read(source) for part in sums_read(row)]
    matrix = weight.permute(0, 2, 3, 1).flatten(1) / math.prod(shape(source)[2:])
    return call(aten.cat.default, parts, 1), matrix
