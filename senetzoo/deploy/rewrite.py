"""Apply all rewrites of a network's graph: the same function with fewer operators."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

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
"""Operators whose result shares no memory with their inputs."""


@dataclass(frozen=True)
class Rewrites:
    """What was changed.

    Args:
        removed: Operators without effect: dropout, slices of a whole dimension.
        folded: Batch norms folded into the layer before them, or into a parallel one.
        norms: Batch norms that stay, for example after a sum or a concatenation.
        branches: Convolutions folded into a parallel one that they are added to.
        factors: Constant factors folded into the layer before them.
        squeezed: Gates that read the input of the convolution before them instead of its output.
        left: Gates that can't do so, or would not be faster: names and reasons.
    """

    removed: int
    folded: int
    norms: int
    branches: int
    factors: int
    squeezed: tuple[str, ...]
    left: tuple[tuple[str, str], ...]

    def also_squeezed(self, paths: Collection[str]) -> Rewrites:
        """The same, but for gates in `paths`, which read the convolution's input, too."""
        more = tuple(path for path, _ in self.left if path in paths)
        left = tuple(item for item in self.left if item[0] not in more)
        return replace(self, squeezed=self.squeezed + more, left=left)


def rewritten(
    model: nn.Module, sample: Tensor, *, everywhere: bool = False
) -> tuple[fx.GraphModule, Rewrites]:
    """Rewrite a network as a graph with fewer operators; `model` is not changed.

    Args:
        model: Network from images (N, C, H, W) to logits (N, classes).
        sample: Images (N, C, H, W) of the size to run with, on the model's device and in its
            dtype.
        everywhere: Whether to squeeze through convolutions even if that doesn't read less; see
            `senetzoo.deploy.squeeze.squeeze_through`.

    Returns:
        The graph, in eval mode, for any number of images of the sample's size; and the changes.

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
    """Make activations in place if nothing else reads their input, as in the network itself."""
    for node in graph.calls(aten.relu.default):
        source = node.all_input_nodes[0]
        if is_call(source, *FRESH) and only_user(source) is node:
            node.target = aten.relu_.default
