"""Gates that do the same whatever the image, taken out: their constants go into the weights.

What a gate multiplies by a constant c in each channel, the layer before it can multiply instead:
the rows of a convolution or of a linear layer, or a norm's scale and shift, also through a ReLU, a
pooling or a concatenation in between; or the layers after it by their columns. That is exact. What
is lost is only what the gate did not do the same for every image: `Excitation.variation`.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from senetzoo.deploy.fold import remove_dead
from senetzoo.deploy.graph import Graph, argument, aten, is_call, only_user, operator_name, traced
from senetzoo.deploy.graph import shape as shape_of
from senetzoo.errors import ConfigError
from senetzoo.gates.common import GateModule
from senetzoo.inspect.excitations import Excitation
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.slots import Layout

_NORM = aten._native_batch_norm_legit_no_training.default
_WEIGHTED = (aten.conv2d.default, aten.conv2d.padding, aten.linear.default)
# A positive factor passes these unchanged: f(c x) = c f(x) in each channel.
_HOMOGENEOUS = (aten.relu.default, aten.max_pool2d.default)
# And these any factor.
_LINEAR = (aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default, aten.dropout.default)


@dataclass(frozen=True)
class Pruned:
    """What became of one gate.

    Args:
        path: Its name in the network.
        gate: It, as text.
        variation: How much of it depended on the image, from 0 to 1.
        params: Its parameters.
        why: Why it stays; empty where it was folded.
    """

    path: str
    gate: str
    variation: float
    params: int
    why: str = ""


def prune_gates(
    model: Classifier, found: Mapping[str, Excitation], *, tolerance: float = 0.05
) -> tuple[Classifier, tuple[Pruned, ...]]:
    """Take gates that are nearly constant out of a network, by folding them into its weights.

    Args:
        model: A network of this zoo, on the CPU; it is not changed.
        found: What `excitations` says of it; take training images for it, not those that the
            accuracy is told of.
        tolerance: The largest `Excitation.variation` of a gate that is taken out.

    Returns:
        A copy in eval mode without those gates, which `save` takes as any other; and what became
        of every gate of `found`, in the network's order.

    Raises:
        ConfigError: `model` is no network of this zoo, `found` is of another, or `tolerance` is
            no number from 0 to 1.
    """
    _check(model, found, tolerance)
    modules = dict(model.named_modules())
    constants: dict[str, Tensor] = {}
    told: dict[str, str] = {}
    for path, excitation in found.items():
        told[path] = _why_not(modules[path], excitation, tolerance)
        if not told[path]:
            constants[path] = excitation.mean
    factors: dict[str, Tensor] = {}
    if constants:
        graph = traced(with_constants(model, constants), _sample(model))
        remove_dead(graph)
        for path, node, constant in _marked(graph, constants):
            layout = modules[path].layout
            edits = _edits(graph, node, constant, "nhwc" if layout == "nhwc" else "nchw")
            if isinstance(edits, str):
                told[path] = edits
                continue
            for key, factor in edits.items():
                factors[key] = factors[key] * factor if key in factors else factor
    twin = copy.deepcopy(model).eval()
    tensors = twin.state_dict(keep_vars=True)
    with torch.no_grad():
        for key, factor in factors.items():
            tensors[key].copy_(tensors[key].double() * factor)
    gone = {path for path, why in told.items() if not why}
    for site, slots in list(twin.slots()):
        if site.path in gone:
            slots.clear(site.position)
    return twin, tuple(
        Pruned(
            path,
            excitation.gate,
            excitation.variation,
            sum(p.numel() for p in modules[path].parameters()),
            told[path],
        )
        for path, excitation in found.items()
    )


class Constant(nn.Module):
    """Stands in a gate's place: the same factor for every image.

    Args:
        scale: (C,).
        layout: Layout of the maps.
    """

    def __init__(self, scale: Tensor, layout: Layout) -> None:
        super().__init__()
        self.register_buffer("scale", scale[:, None, None] if layout == "nchw" else scale)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.get_buffer("scale")


def with_constants(model: Classifier, constants: Mapping[str, Tensor]) -> Classifier:
    """A copy of `model` in eval mode with constants (C,) in the place of gates, by their names."""
    twin = copy.deepcopy(model).eval()
    like = next(twin.parameters())
    for site, slots in list(twin.slots()):
        if site.path in constants:
            slots.put(site.position, Constant(constants[site.path].to(like), site.layout))
    return twin


def _check(model: Classifier, found: Mapping[str, Excitation], tolerance: float) -> None:
    if not isinstance(model, Classifier):
        raise ConfigError(
            f"prune_gates got a {type(model).__name__}.",
            "It takes networks made by senetzoo.create.",
            'Type for example: create("se_resnet20", pretrained=True)',
        )
    if isinstance(tolerance, bool) or not 0.0 <= tolerance <= 1.0:
        raise ConfigError(
            f"prune_gates can't have tolerance={tolerance!r}.", "It is a number from 0 to 1."
        )
    gates = {name for name, module in model.named_modules() if isinstance(module, GateModule)}
    unknown = [path for path in found if path not in gates]
    if unknown:
        raise ConfigError(
            f"The network has no gate {unknown[0]}.",
            "The excitations are of another network.",
            "Measure them again: excitations(model, batches, classes=...)",
        )


def _why_not(gate: nn.Module, excitation: Excitation, tolerance: float) -> str:
    """Why a gate can't be a constant; empty where it can."""
    if not hasattr(gate, "excitation"):
        return "its values differ from pixel to pixel"
    if excitation.variation > tolerance:
        return "it depends on the image"
    if bool((excitation.mean == 0).any()):
        return "it closes a channel altogether"
    return ""


def _sample(model: Classifier) -> Tensor:
    config, like = model.config, next(model.parameters())
    return like.new_zeros(2, config.in_chans, config.input_size, config.input_size)


def _marked(graph: Graph, constants: Mapping[str, Tensor]) -> Iterator[tuple[str, fx.Node, Tensor]]:
    """The multiplications by the constants, with the gates' names."""
    for node in graph.calls(aten.mul.Tensor):
        for arg in node.args:
            if isinstance(arg, fx.Node) and arg.op == "get_attr":
                path = str(arg.target).removesuffix(".scale")
                if path in constants:
                    yield path, node, constants[path].double()


def _edits(
    graph: Graph, node: fx.Node, constant: Tensor, layout: Layout
) -> dict[str, Tensor] | str:
    """Factors on the network's tensors that do what `node` does; or why there are none."""
    source = node.args[0]
    if not isinstance(source, fx.Node):
        raise TypeError(node.args)
    try:
        return _Folding(graph, layout).before(source, node, constant)
    except _CannotError as before:
        try:
            return _Folding(graph, layout).after(node, constant)
        except _CannotError as after:
            return f"its map comes from {before}, and goes to {after}"


class _CannotError(Exception):
    """A factor can't go further; the text is the operator where it stops."""


class _Folding:
    """Where a factor of the channels can go.

    Args:
        graph: The network.
        layout: Of the maps that the factor is of.
    """

    def __init__(self, graph: Graph, layout: Layout) -> None:
        self.graph, self.layout = graph, layout

    def before(self, node: fx.Node, user: fx.Node, c: Tensor) -> dict[str, Tensor]:
        """Factors by which `node` gives c times what it gave, for `user` alone."""
        if only_user(node) is not user:
            raise _CannotError("a map that others read too")
        if node.target is operator.getitem and is_call(node.args[0], _NORM):
            norm = node.all_input_nodes[0]
            return {self._key(norm, index): c for index in (1, 2)}
        if is_call(node, aten.layer_norm.default) and self.layout == "nhwc":
            return {self._key(node, index): c for index in (2, 3)}
        if is_call(node, *_WEIGHTED) and self._lies_as(node):
            weight = self.graph.needed(node.args[1])
            edits = {self._key(node, 1): c.reshape(-1, *[1] * (weight.ndim - 1))}
            if argument(node, 2, None) is not None:
                edits[self._key(node, 2)] = c
            return edits
        if self._passes(node, c):
            return self.before(node.all_input_nodes[0], node, c)
        if is_call(node, aten.cat.default) and self.layout == "nchw" and argument(node, 1, 0) == 1:
            edits, first = {}, 0
            for part in node.all_input_nodes:
                last = first + int(shape_of(part)[1])
                edits |= self.before(part, node, c[first:last])
                first = last
            return edits
        raise _CannotError(_called(node))

    def after(self, node: fx.Node, c: Tensor) -> dict[str, Tensor]:
        """Factors by which all that read `node` give what they would of c times it."""
        edits: dict[str, Tensor] = {}
        for user in node.users:
            if is_call(user, *_WEIGHTED) and user.args[0] is node and self._lies_as(user):
                edits |= {self._key(user, 1): self._columns(user, c)}
            elif is_call(user, _NORM):
                # (c x - m) w / s = (x - m / c) (c w) / s
                edits |= {self._key(user, 3): 1.0 / c, self._key(user, 1): c}
            elif self._passes(user, c):
                edits |= self.after(user, c)
            elif self._flattens(user):
                pixels = int(shape_of(user)[1]) // len(c)
                edits |= self.after(user, c.repeat_interleave(pixels))
            else:
                raise _CannotError(_called(user))
        return edits

    def _lies_as(self, node: fx.Node) -> bool:
        """Whether a layer has its channels where the map has them."""
        rows = len(shape_of(node.all_input_nodes[0])) == 2
        return is_call(node, aten.linear.default) == (self.layout == "nhwc" or rows)

    def _passes(self, node: fx.Node, c: Tensor) -> bool:
        if self.layout == "nhwc":
            return is_call(node, aten.dropout.default)
        if is_call(node, aten.mul.Tensor, aten.div.Tensor):
            return not isinstance(node.args[1], fx.Node)  # by a number
        if is_call(node, aten.mean.dim):
            return {dim % 4 for dim in argument(node, 1, None) or ()} == {2, 3}
        return is_call(node, *_LINEAR) or (is_call(node, *_HOMOGENEOUS) and bool((c > 0).all()))

    def _flattens(self, node: fx.Node) -> bool:
        """Whether a map becomes rows (N, C * H * W)."""
        if self.layout == "nhwc" or not is_call(
            node, aten.reshape.default, aten.flatten.using_ints
        ):
            return False
        given = shape_of(node.all_input_nodes[0])
        return len(given) == 4 and len(shape_of(node)) == 2

    def _columns(self, layer: fx.Node, c: Tensor) -> Tensor:
        """The factors of a layer's weights that read channels with the factors `c`."""
        weight = self.graph.needed(layer.args[1])
        if is_call(layer, aten.linear.default):
            return c[None, :]
        groups = argument(layer, 6, 1)
        rows = c.reshape(groups, 1, -1).expand(-1, len(weight) // groups, -1).flatten(0, 1)
        return rows[:, :, None, None]

    def _key(self, layer: fx.Node, index: int) -> str:
        """The name of a layer's tensor, which is of this layer alone."""
        node = layer.args[index]
        if not isinstance(node, fx.Node) or self.graph.tensor(node) is None:
            raise _CannotError(f"{operator_name(layer)} without weights")
        same = [n for n in self.graph.nodes if n.op == "get_attr" and n.target == node.target]
        if sum(len(each.users) for each in same) > 1:
            raise _CannotError(f"{operator_name(layer)} with weights that others use too")
        return str(node.target)


def _called(node: fx.Node) -> str:
    return operator_name(node) if node.op == "call_function" else node.op
