"""Squeeze through linearity: a gate's averages from the input of the convolution before it.

The average over the map of ``W * h + b`` is linear in the averages of the windows of h that each
weight of W sees: for a 1x1 convolution in the average of h, for a padded 3x3 of stride 1 in the sum
over h, those over its first and last row and column, and its four corners. The layer after the
average (SE's first, the one of ESE and cSE) is linear too, and both become one small matrix. So
the gate is known before the convolution has run, and reads a map of fewer channels: a quarter in a
ResNet's bottleneck, half in a ResNeXt's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from senetzoo.deploy.graph import Graph, argument, aten, is_call, module_path, operator_name, shape

_END = 2**63 - 1


@dataclass(frozen=True)
class _Squeeze:
    """An average over a convolution's map.

    Args:
        mean: The node of the average.
        keepdim: Whether it has the shape (N, C, 1, 1), else (N, C).
        conv: The convolution.
        source: The convolution's input.
        weight: Its weight, with zeros between groups: (O, I, kh, kw).
        bias: Its bias (O,).
        stride: Its stride; not 1 only for 1x1.
    """

    mean: fx.Node
    keepdim: bool
    conv: fx.Node
    source: fx.Node
    weight: Tensor
    bias: Tensor
    stride: tuple[int, int]


def squeeze_through(graph: Graph, *, everywhere: bool = False) -> dict[str, str]:
    """Compute the averages of gates from the input of the convolution whose map they gate.

    Args:
        graph: The graph, with its norms folded.
        everywhere: Also where that reads no less: by default a map is squeezed through a 1x1
            convolution that has fewer inputs than outputs, and is read for nothing else than to
            be multiplied.

    Returns:
        For each average over a map that is used for something else too, by the module that takes
        it: why it stays as it is; empty where it was rewritten.
    """
    told: dict[str, str] = {}
    for node in graph.calls(aten.mean.dim, aten.adaptive_avg_pool2d.default):
        source = node.args[0]
        if not _is_over_space(node) or not isinstance(source, fx.Node) or len(source.users) < 2:
            continue
        found = _match(graph, node)
        if isinstance(found, _Squeeze):
            why = "" if everywhere else _does_not_pay(found)
            if not why:
                _rewrite(graph, found)
        else:
            why = found
        told[module_path(node)] = why
    return told


def _is_over_space(mean: fx.Node) -> bool:
    if is_call(mean, aten.adaptive_avg_pool2d.default):
        return tuple(argument(mean, 1, ())) == (1, 1)
    dims = {dim % 4 for dim in argument(mean, 1, None) or ()}
    return dims == {2, 3} and len(shape(mean.all_input_nodes[0])) == 4 and not mean.kwargs


def _match(graph: Graph, mean: fx.Node) -> _Squeeze | str:
    """What there is to rewrite, or why it can't be."""
    keepdim = not is_call(mean, aten.mean.dim) or bool(argument(mean, 2, False))
    conv = mean.all_input_nodes[0]
    if not is_call(conv, aten.conv2d.default):
        return f"its map comes from {operator_name(conv)}, not from a convolution"
    weight, bias = graph.tensor(conv.args[1]), graph.tensor(argument(conv, 2, None))
    source = conv.all_input_nodes[0]
    stride, padding, dilation = (
        tuple(argument(conv, index, default))
        for index, default in ((3, [1, 1]), (4, [0, 0]), (5, [1, 1]))
    )
    if weight is None:
        return "the weights of its convolution are computed"
    kernel = tuple(weight.shape[2:])
    single = kernel == (1, 1) and padding == (0, 0)
    padded = kernel == (3, 3) and stride == padding == dilation == (1, 1)
    if not single and not padded:
        return f"its convolution is {kernel[0]}x{kernel[1]} of stride {stride[0]}"
    weight = _ungrouped(weight.double(), argument(conv, 6, 1))
    bias = weight.new_zeros(len(weight)) if bias is None else bias.double()
    return _Squeeze(mean, keepdim, conv, source, weight, bias, stride)


def _does_not_pay(squeeze: _Squeeze) -> str:
    """Why the rewritten form would be no faster; empty where it would."""
    conv = squeeze.conv
    if squeeze.weight.shape[2:] != (1, 1):
        return "its convolution is 3x3, whose windows differ at the borders"
    if math.prod(shape(squeeze.source)[1:]) >= math.prod(shape(conv)[1:]):
        return "its convolution reads as much as it writes"
    for user in conv.users:
        if user is not squeeze.mean and shape(user)[2:] != shape(conv)[2:]:
            return f"its map is read for {operator_name(user)} anyway"
    return ""


def _ungrouped(weight: Tensor, groups: int) -> Tensor:
    """The weight of a grouped convolution as that of an ungrouped one."""
    if groups == 1:
        return weight
    outputs, inputs, *kernel = weight.shape
    whole = weight.new_zeros(groups, outputs // groups, groups, inputs, *kernel)
    each = torch.arange(groups)
    whole[each, :, each] = weight.reshape(groups, outputs // groups, inputs, *kernel)
    return whole.reshape(outputs, groups * inputs, *kernel)


def _rewrite(graph: Graph, squeeze: _Squeeze) -> None:
    pooled, matrix = _pooled(graph, squeeze)
    dtype = graph.needed(squeeze.conv.args[1]).dtype
    averages = [(squeeze.mean, squeeze.keepdim)]
    averages += [
        (user, False)
        for user in squeeze.mean.users
        if is_call(user, aten.reshape.default) and len(shape(user)) == 2
    ]
    for average, keepdim in averages:
        for user in list(average.users):
            first = _first_layer(graph, user, keepdim)
            if first is not None:
                weight, bias = first
                new = _linear(
                    graph,
                    user,
                    pooled,
                    weight @ matrix,
                    weight @ squeeze.bias + bias,
                    dtype,
                    keepdim=keepdim,
                )
                graph.replace(user, new)
    if squeeze.mean.users:
        new = _linear(
            graph, squeeze.mean, pooled, matrix, squeeze.bias, dtype, keepdim=squeeze.keepdim
        )
        graph.replace(squeeze.mean, new)


def _first_layer(graph: Graph, user: fx.Node, keepdim: bool) -> tuple[Tensor, Tensor] | None:
    """Weight (H, C) and bias (H,) of a linear layer on an average, or of the 1x1 convolution."""
    if not is_call(user, aten.conv2d.default if keepdim else aten.linear.default):
        return None
    weight, bias = graph.tensor(user.args[1]), graph.tensor(argument(user, 2, None))
    if weight is None or (keepdim and (weight.shape[2:] != (1, 1) or argument(user, 6, 1) != 1)):
        return None
    weight = weight.double().flatten(1)
    return weight, weight.new_zeros(len(weight)) if bias is None else bias.double()


def _linear(
    graph: Graph,
    before: fx.Node,
    source: fx.Node,
    weight: Tensor,
    bias: Tensor,
    dtype: torch.dtype,
    *,
    keepdim: bool,
) -> fx.Node:
    """A linear layer's node; its output (N, H), or with `keepdim` (N, H, 1, 1)."""
    constants = [graph.constant(value.to(dtype), before) for value in (weight, bias)]
    node = graph.call(before, aten.linear.default, source, *constants)
    for dim in (2, 3) if keepdim else ():
        node = graph.call(before, aten.unsqueeze.default, node, dim)
    return node


def _pooled(graph: Graph, squeeze: _Squeeze) -> tuple[fx.Node, Tensor]:
    """Sums over the source (N, K), and the matrix (O, K) that makes the averages of them."""
    conv, source = squeeze.conv, squeeze.source

    def call(operator: Any, *args: Any) -> fx.Node:
        return graph.call(conv, operator, *args)

    if squeeze.weight.shape[2:] == (1, 1):
        for dim, step in zip((2, 3), squeeze.stride, strict=True):
            if step > 1:
                source = call(aten.slice.Tensor, source, dim, 0, _END, step)
        return call(aten.mean.dim, source, [2, 3]), squeeze.weight.flatten(1)

    # In each direction the first of the three weights does not see the last row (or column), and
    # the last does not see the first. Inclusion and exclusion: the whole, without the row and the
    # column that are not seen, with the corner that was taken away twice.
    height, width = shape(source)[2:]
    rows = {0: call(aten.select.int, source, 2, -1), 2: call(aten.select.int, source, 2, 0)}
    unseen = {0: -1, 2: 0}
    parts = [call(aten.sum.dim_IntList, source, [2, 3])]
    matrix = [squeeze.weight.sum((2, 3))]
    for index in unseen:
        parts.append(call(aten.sum.dim_IntList, rows[index], [2]))
        matrix.append(-squeeze.weight[:, :, index].sum(2))
        column = call(aten.select.int, source, 3, unseen[index])
        parts.append(call(aten.sum.dim_IntList, column, [2]))
        matrix.append(-squeeze.weight[..., index].sum(2))
    for row in unseen:
        for column_index in unseen:
            parts.append(call(aten.select.int, rows[row], 2, unseen[column_index]))
            matrix.append(squeeze.weight[:, :, row, column_index])
    return call(aten.cat.default, parts, 1), torch.cat(matrix, 1) / (height * width)
