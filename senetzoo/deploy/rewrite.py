"""Every rewrite, one after another: the same function in fewer operators."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, fx, nn

from senetzoo.deploy.fold import fold_branches, fold_factors, fold_norms, remove_dead
from senetzoo.deploy.graph import Graph, aten, is_call, only_user, traced
from senetzoo.deploy.squeeze import squeeze_through

FRESH = (
    aten.conv2d.default,
    aten.linear.default,
    aten.batch_norm.default,
    aten.add.Tensor,
    aten.mul.Tensor,
)
"""Operators whose result shares no memory with what they get."""


@dataclass(frozen=True)
class Rewrites:
    """What was changed.

    Args:
        removed: Operators that did nothing: dropout, slices of everything.
        folded: Batch norms that went into the layer before them, or into one beside them.
        norms: Batch norms that stay, behind a sum or a concatenation.
        branches: Convolutions that went into the one beside them, whose output theirs is added to.
        factors: Constant factors that went into the layer before them.
        squeezed: Gates that read the input of the convolution before them instead of its output.
        left: Gates that could not, or would not be faster, by name, each with the reason.
    """

    removed: int
    folded: int
    norms: int
    branches: int
    factors: int
    squeezed: tuple[str, ...]
    left: tuple[tuple[str, str], ...]


def rewritten(
    model: nn.Module, sample: Tensor, *, everywhere: bool = False
) -> tuple[fx.GraphModule, Rewrites]:
    """A network as a graph that does the same with fewer operators; `model` is not changed.

    Args:
        model: Takes images (N, C, H, W) and gives logits (N, classes).
        sample: Images (N, C, H, W) of the size that it will get, on the model's device, of its
            dtype.
        everywhere: Squeeze through convolutions even where it reads no less; see
            `senetzoo.deploy.squeeze.squeeze_through`.

    Returns:
        The graph, in eval mode, for any number of images of the sample's size; and what was done.

    Raises:
        ConfigError: torch can't export the network.
    """
    graph = traced(model, sample)
    removed = remove_dead(graph)
    folded, norms = fold_norms(graph)
    branches, beside = fold_branches(graph)
    factors = fold_factors(graph)
    reasons = squeeze_through(graph, everywhere=everywhere)
    _work_in_place(graph)
    done = Rewrites(
        removed,
        folded + beside,
        norms - beside,
        branches,
        factors,
        tuple(path for path, why in reasons.items() if not why),
        tuple((path, why) for path, why in reasons.items() if why),
    )
    return graph.finish(), done


def _work_in_place(graph: Graph) -> None:
    """Activations overwrite what nothing else reads, as in the network itself."""
    for node in graph.calls(aten.relu.default):
        source = node.all_input_nodes[0]
        if is_call(source, *FRESH) and only_user(source) is node:
            node.target = aten.relu_.default
