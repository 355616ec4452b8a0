"""Batch norms and constant factors go into the convolution or linear layer before them.

What stays: a norm whose input several nodes use, or which no such layer computes (the norms in
front of DenseNet's and the pre-activation ResNet's convolutions, behind a concatenation or a sum).
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor, fx

from senetzoo.deploy.graph import Graph, argument, aten, is_call, only_user

LAYERS = (
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.linear.default,
)
_NORM = aten._native_batch_norm_legit_no_training.default
_NOTHING_LEFT_OUT = 2**63 - 1


def remove_dead(graph: Graph) -> int:
    """Take out operators that give what they get: dropout, and slices of everything.

    Returns:
        How many there were.
    """
    removed = 0
    for node in graph.calls(aten.dropout.default, aten.slice.Tensor):
        if is_call(node, aten.slice.Tensor):
            first, last, step = (argument(node, n, d) for n, d in ((2, 0), (3, None), (4, 1)))
            if first not in (0, None) or last not in (_NOTHING_LEFT_OUT, None) or step != 1:
                continue
        elif argument(node, 2, True):
            continue
        source = node.args[0]
        if isinstance(source, fx.Node):
            graph.replace(node, source)
            removed += 1
    return removed


def fold_norms(graph: Graph) -> tuple[int, int]:
    """Fold batch norms into the layers before them.

    Returns:
        How many were folded, and how many stay.
    """
    folded = kept = 0
    for norm in graph.calls(_NORM):
        source, mean, variance, eps = norm.args[0], norm.args[3], norm.args[4], norm.args[6]
        if not isinstance(source, fx.Node) or not isinstance(eps, float):
            raise TypeError(norm.args)
        out = _normalized(norm)
        running_mean = graph.needed(mean).double()
        running_variance = graph.needed(variance).double()
        factor = (running_variance + eps).rsqrt()
        weight = graph.tensor(norm.args[1])
        if weight is not None:
            factor = factor * weight.double()
        shift = -running_mean * factor
        bias = graph.tensor(norm.args[2])
        if bias is not None:
            shift = shift + bias.double()
        if _alone(graph, source, norm):
            _scale(graph, source, factor, shift)
            graph.replace(out, source)
            graph.module.graph.erase_node(norm)
            folded += 1
        else:
            # The operator that every engine knows, without its second and third output.
            new = graph.call(norm, aten.batch_norm.default, *norm.args[:5], False, 0.0, eps, False)
            graph.replace(out, new)
            graph.module.graph.erase_node(norm)
            kept += 1
    return folded, kept


def fold_factors(graph: Graph) -> int:
    """Fold multiplications by a number (Inception-ResNet's residual scaling) into the layer before.

    Returns:
        How many.
    """
    folded = 0
    for node in graph.calls(aten.mul.Tensor):
        source, factor = node.args
        if isinstance(factor, fx.Node) or not isinstance(source, fx.Node):
            continue
        if _alone(graph, source, node):
            _scale(graph, source, torch.tensor(float(str(factor)), dtype=torch.float64), None)
            graph.replace(node, source)
            folded += 1
    return folded


def _scale(graph: Graph, layer: fx.Node, factor: Tensor, shift: Tensor | None) -> None:
    """Make a layer give ``factor * y + shift`` where it gave y; computed in fp64."""
    old = graph.needed(layer.args[1])
    bias = graph.tensor(argument(layer, 2, None))
    new_bias = None if bias is None else bias.double() * factor
    if shift is not None:
        new_bias = shift if new_bias is None else new_bias + shift
    weight = old.double() * factor.reshape(-1, *[1] * (old.ndim - 1))
    rest = layer.args[3:]
    node = graph.constant(weight.to(old.dtype), layer)
    bias_node = None if new_bias is None else graph.constant(new_bias.to(old.dtype), layer)
    layer.args = (layer.args[0], node, bias_node, *rest)


def _alone(graph: Graph, layer: fx.Node, user: fx.Node) -> bool:
    """Whether `layer` is one with constant weights whose output only `user` uses."""
    return (
        is_call(layer, *LAYERS)
        and only_user(layer) is user
        and graph.tensor(layer.args[1]) is not None
    )


def _normalized(norm: fx.Node) -> fx.Node:
    """The node that takes the normalized map out of the norm's three outputs."""
    users = [user for user in norm.users if user.target is operator.getitem and user.args[1] == 0]
    if len(users) != 1 or len(norm.users) != 1:
        raise TypeError(norm.users)
    return users[0]
