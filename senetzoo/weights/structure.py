"""Matching of a state dict whose names say nothing: by order and shape."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from senetzoo.errors import WeightsError
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.modes import to_meta

# What the last part of a name says that a tensor is, in PyTorch's and in TensorFlow's words; a
# kernel of the latter has its dimensions in another order.
_KINDS = {
    "weight": "weight",
    "gamma": "weight",
    "kernel": "kernel",
    "bias": "bias",
    "beta": "bias",
    "running_mean": "mean",
    "moving_mean": "mean",
    "running_var": "variance",
    "moving_variance": "variance",
}
# Follow from the network's shape or count batches: not weights.
_COMPUTED = ("num_batches_tracked", "relative_position_index", "attn_mask")


def match(state: Mapping[str, Tensor], model: Classifier) -> dict[str, str]:
    """Their name of each of our tensors, if as many have the same shapes in the same order.

    Two orders of ours are tried: that of the state dict, and that in which the modules run, where
    a gate comes before the shortcut. Dimensions of 1 at the end of a shape, as of a 1x1
    convolution for a linear layer, do not count.

    Args:
        state: Their tensors in their order.
        model: The network.

    Raises:
        WeightsError: Neither order fits, or both do and say different things.
    """
    theirs = {
        name: tensor
        for name, tensor in state.items()
        if not name.endswith(_COMPUTED) and (tensor.ndim > 0 or tensor.is_floating_point())
    }
    own = {
        name: tensor for name, tensor in model.state_dict().items() if not name.endswith(_COMPUTED)
    }
    orders = [list(own), _running_order(model, own)]
    fitting = []
    for order in orders:
        mapping = dict(zip(order, theirs, strict=False))
        if _difference(order, own, theirs) is None and mapping not in fitting:
            fitting.append(mapping)
    if not fitting:
        raise WeightsError(
            "The tensors do not have the network's order and shapes.",
            _difference(orders[0], own, theirs) or "",
            "Give the network that they are of, with its policy: --to resnet50+se16",
        )
    if len(fitting) > 1:
        name = next(name for name in own if fitting[0][name] != fitting[1][name])
        raise WeightsError(
            "The tensors fit the network in two ways.",
            f"{name} could be {fitting[0][name]} or {fitting[1][name]}.",
            "Rename them to the names of a library that senetzoo knows",
        )
    return fitting[0]


def _difference(
    order: list[str], own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]
) -> str | None:
    """The first tensor that does not fit; None where all do."""
    for number, (name, (other, tensor)) in enumerate(zip(order, theirs.items(), strict=False), 1):
        if _core(tensor) != _core(own[name]):
            return (
                f"Number {number} is {other} {tuple(tensor.shape)} there and {name} "
                f"{tuple(own[name].shape)} here."
            )
        kinds = [_KINDS.get(text.rpartition(".")[2]) for text in (other, name)]
        if None not in kinds and kinds[0] != kinds[1]:
            return f"Number {number} is {other} there and {name} here: a {kinds[0]}, a {kinds[1]}."
    if len(theirs) != len(order):
        return f"There are {len(theirs)} of them, and the network has {len(order)}."
    return None


def _core(tensor: Tensor) -> tuple[int, ...]:
    shape = tuple(tensor.shape)
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _running_order(model: Classifier, own: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors in the order in which their modules first run; the others at the end."""
    twin = to_meta(model).eval()
    ran: dict[str, None] = {}
    for path, module in twin.named_modules():
        module.register_forward_pre_hook(lambda _module, _inputs, path=path: ran.setdefault(path))
    size = model.input_size
    with torch.no_grad():
        twin(torch.empty(1, model.in_chans, size, size, device="meta"))
    places = {path: place for place, path in enumerate(ran)}
    # Sorting is stable: those of one module stay in its own order.
    return sorted(own, key=lambda name: places.get(name.rpartition(".")[0], len(places)))
