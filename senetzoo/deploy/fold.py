"""Fold batch norms and constant factors into the convolution or linear layer before them.

A norm stays if several nodes use its input, or if no such layer computes it (the norms before the
convolutions of DenseNet and the pre-activation ResNet, which follow a concatenation or a sum).
A sum of convolutions and norms of the same map, as in RepVGG, becomes one convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx
from torch.nn import functional as F
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
    """Remove operators without effect (dropout, slices of a whole dimension); count them."""
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
    """Fold batch norms into the layers before them; count those folded and those that stay."""
    folded = kept = 0
    for norm in graph.calls(_NORM):
        (out,) = norm.users  # the other two outputs are for training, and unused
        layer, eps = norm.all_input_nodes[0], argument(norm, 6, None)
        found = _weights(graph, layer, norm)
        if found is not None:
            gamma, beta, mean, variance = (graph.exact(node) for node in norm.args[1:5])
            fused = fuse_conv_bn_weights(*found, mean, variance, eps, gamma, beta)
            graph.set_weights(layer, *fused)
            graph.replace(out, layer)
            folded += 1
        else:
            # The operator with a single output, which every engine supports.
            new = graph.call(norm, aten.batch_norm.default, *norm.args[:5], False, 0.0, eps, False)
            graph.replace(out, new)
            kept += 1
        graph.nodes.erase_node(norm)
    return folded, kept


def fold_branches(graph: Graph) -> tuple[int, int]:
    """Fold convolutions and norms into the convolution of the same map that they are added to.

    A smaller kernel is added to the center of the larger one, and a batch norm is a 1x1 kernel
    (Ding et al. 2021, "RepVGG", Section 3.3). Run `fold_norms` first.

    Returns:
        How many convolutions, and how many batch norms, were folded into another convolution.
    """
    convs = norms = 0
    for total in graph.calls(aten.add.Tensor):
        sides = [side for side in total.all_input_nodes if only_user(side) is total]
        if len(sides) != 2 or total.kwargs:
            continue
        for layer, other in (sides, sides[::-1]):
            own = graph.weights(layer) if is_call(layer, aten.conv2d.default) else None
            if own is None or layer.args[0] is not other.args[0]:
                continue
            added = _as_kernel(graph, other, layer, torch.zeros_like(own[0]))
            if added is None:
                continue
            biases = [bias for bias in (own[1], added[1]) if bias is not None]
            bias = torch.stack(biases).sum(0) if biases else None
            graph.set_weights(layer, own[0] + added[0], bias)
            graph.replace(total, layer)
            convs += is_call(other, aten.conv2d.default)
            norms += is_call(other, aten.batch_norm.default)
            graph.nodes.erase_node(other)
            break
    return convs, norms


def _as_kernel(
    graph: Graph, node: fx.Node, layer: fx.Node, kernel: Tensor
) -> tuple[Tensor, Tensor | None] | None:
    """A weight and bias with which `layer` computes `node`; None if there are none.

    Args:
        graph: The graph.
        node: A convolution or a batch norm of the input of `layer`.
        layer: A convolution.
        kernel: Zeros with the shape of its weight.
    """
    stride, padding, dilation, groups = _settings(layer)
    outputs, inputs, *sides = kernel.shape
    middle = [side // 2 for side in sides]
    if not all(side % 2 for side in sides) or dilation != [1, 1] or padding != middle:
        return None
    if is_call(node, aten.conv2d.default):
        found = graph.weights(node)
        small = [] if found is None else [side // 2 for side in found[0].shape[2:]]
        if (
            found is None
            or _settings(node) != (stride, small, dilation, groups)
            or any(side % 2 == 0 for side in found[0].shape[2:])
            or any(a > b for a, b in zip(small, middle, strict=True))
        ):
            return None
        down, right = (b - a for a, b in zip(small, middle, strict=True))
        return F.pad(found[0], (right, right, down, down)), found[1]
    if is_call(node, aten.batch_norm.default) and stride == [1, 1] and outputs == inputs * groups:
        channels = torch.arange(outputs)
        kernel[channels, channels % inputs, middle[0], middle[1]] = 1.0
        gamma, beta, mean, variance = (graph.exact(value) for value in node.args[1:5])
        eps = argument(node, 7, None)
        return fuse_conv_bn_weights(kernel, None, mean, variance, eps, gamma, beta)
    return None


def _settings(conv: fx.Node) -> tuple[list[int], list[int], list[int], int]:
    """Stride, padding, dilation and groups."""
    stride, padding, dilation = (
        list(argument(conv, index, (default, default)))
        for index, default in ((3, 1), (4, 0), (5, 1))
    )
    return stride, padding, dilation, argument(conv, 6, 1)


def fold_factors(graph: Graph) -> int:
    """Fold multiplications by a number (Inception-ResNet's residual scaling); count them."""
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
    """`Graph.weights` of a layer whose output only `user` uses; otherwise None."""
    alone = is_call(layer, *LAYERS) and only_user(layer) is user
    return graph.weights(layer) if alone else None
