"""Batch norms and constant factors go into the convolution or linear layer before them.

What stays: a norm whose input several nodes use, or which no such layer computes (the norms in
front of DenseNet's and the pre-activation ResNet's convolutions, behind a concatenation or a sum).
"""

from __future__ import annotations

from torch import Tensor, fx
from torch.nn.utils.fusion import fuse_conv_bn_weights

from senetzoo.deploy.graph import END, Graph, argument, aten, is_call, only_user

LAYERS = (
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.linear.default,
)
_NORM = aten._native_batch_norm_legit_no_training.default


def remove_dead(graph: Graph) -> int:
    """Take out operators that give what they get (dropout, slices of everything); count them."""
    removed = 0
    for node in graph.calls(aten.dropout.default, aten.slice.Tensor):
        if is_call(node, aten.dropout.default):
            dead = not argument(node, 2, True)
        else:
            first, last, step = (argument(node, n, d) for n, d in ((2, 0), (3, None), (4, 1)))
            dead = first in (0, None) and last in (END, None) and step == 1
        if dead:
            graph.replace(node, node.all_input_nodes[0])
            removed += 1
    return removed


def fold_norms(graph: Graph) -> tuple[int, int]:
    """Fold batch norms into the layers before them: how many were folded, and how many stay."""
    folded = kept = 0
    for norm in graph.calls(_NORM):
        (out,) = norm.users  # of three outputs the two that are for training have none
        layer, eps = norm.all_input_nodes[0], argument(norm, 6, None)
        found = _weights(graph, layer, norm)
        if found is not None:
            gamma, beta, mean, variance = (graph.exact(node) for node in norm.args[1:5])
            fused = fuse_conv_bn_weights(*found, mean, variance, eps, gamma, beta)
            graph.set_weights(layer, *fused)
            graph.replace(out, layer)
            folded += 1
        else:
            # The operator that every engine knows, without its second and third output.
            new = graph.call(norm, aten.batch_norm.default, *norm.args[:5], False, 0.0, eps, False)
            graph.replace(out, new)
            kept += 1
        graph.nodes.erase_node(norm)
    return folded, kept


def fold_factors(graph: Graph) -> int:
    """Fold and count multiplications by a number (Inception-ResNet's residual scaling)."""
    folded = 0
    for node in graph.calls(aten.mul.Tensor):
        layer, factor = node.all_input_nodes[0], argument(node, 1, None)
        found = None if isinstance(factor, fx.Node) else _weights(graph, layer, node)
        if found is not None:
            weight, bias = found
            graph.set_weights(layer, weight * factor, None if bias is None else bias * factor)
            graph.replace(node, layer)
            folded += 1
    return folded


def _weights(graph: Graph, layer: fx.Node, user: fx.Node) -> tuple[Tensor, Tensor | None] | None:
    """As `Graph.weights` has them, of a layer whose output only `user` uses."""
    alone = is_call(layer, *LAYERS) and only_user(layer) is user
    return graph.weights(layer) if alone else None
