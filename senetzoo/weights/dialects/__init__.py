"""State dicts of other libraries: their names and shapes to ours and back, tensor for tensor.

`counterpart` says which network of ours one of theirs is; `read` and `write` are inverse to each
other for a built network. ``"timm_legacy"`` is the dialect of Cadene's ports of the Caffe networks
too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from senetzoo.errors import WeightsError, nearest
from senetzoo.nn.classifier import Classifier
from senetzoo.weights.dialects import pytorchcv, timm, torchvision
from senetzoo.weights.dialects.base import Counterpart, Dialect, is_gate
from senetzoo.weights.unpack import Reading

__all__ = [
    "DIALECTS",
    "OURS",
    "Counterpart",
    "Reading",
    "counterpart",
    "counterparts",
    "names",
    "read",
    "reading",
    "updated",
    "write",
]

OURS = "senetzoo"
_FOREIGN: Mapping[str, Dialect] = {
    "torchvision": torchvision.DIALECT,
    "timm": timm.DIALECT,
    "timm_legacy": timm.LEGACY,
    "pytorchcv": pytorchcv.DIALECT,
    "chenyaofo": torchvision.CHENYAOFO,
}
DIALECTS = (OURS, *_FOREIGN)

# Auxiliary heads, which files have and networks may leave out.
_AUXILIARY = r"(AuxLogits|aux1|aux2)\."
# Buffers that are computed from the network's shape. Old files have them, new ones need not.
_INDEX, _MASK = "relative_position_index", "attn_mask"


def _dialect(name: str) -> Dialect:
    if name not in _FOREIGN:
        raise WeightsError(
            f"There is no dialect {name!r}." if name != OURS else "senetzoo's names are our own.",
            f"Dialects are {', '.join(_FOREIGN)}.",
            nearest(name, _FOREIGN),
        )
    return _FOREIGN[name]


def counterparts(dialect: str) -> Mapping[str, Counterpart]:
    """The networks of a library that are ours too, by its names.

    Raises:
        WeightsError: No such dialect.
    """
    return _dialect(dialect).networks


def counterpart(dialect: str, name: str) -> Counterpart:
    """The network of ours that is the one called `name` by a library.

    Args:
        dialect: ``"torchvision"``, ``"timm"``, ``"timm_legacy"``, ``"pytorchcv"`` or
            ``"chenyaofo"``.
        name: Their name, without a tag: ``"seresnet50"``.

    Raises:
        WeightsError: No such dialect, or no network of ours is that one.
    """
    networks = counterparts(dialect)
    if name not in networks:
        raise WeightsError(
            f"No network here is the {name!r} of {dialect}.",
            f"There are counterparts of {len(networks)} of its networks.",
            nearest(name, networks)
            or f"Type for example: counterpart({dialect!r}, {next(iter(networks))!r})",
        )
    return networks[name]


def names(dialect: str, model: Classifier) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Their name and shape of each tensor of a built network, by our name.

    Raises:
        WeightsError: The library has no such family, or no name for a tensor, such as of a gate
            where it has none.
    """
    own = model.state_dict()
    if dialect == OURS:
        return {name: (name, tuple(tensor.shape)) for name, tensor in own.items()}
    found = _dialect(dialect)
    family = model.family
    if family not in found.families:
        raise WeightsError(
            f"{dialect} has no names for a {family}.",
            f"It has them for {', '.join(found.families)}.",
            "Choose another dialect",
        )
    rename = found.families[family]
    result: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, tensor in own.items():
        theirs = rename(name, model)
        if theirs is None or is_gate(theirs):
            raise WeightsError(
                f"{dialect} has no name for {name}.",
                f"Its {family} has no such tensor.",
                "Choose another dialect, or build the network without it",
            )
        result[name] = (theirs, _their_shape(found, family, theirs, tuple(tensor.shape)))
    return result


def _their_shape(
    dialect: Dialect, family: str, theirs: str, shape: tuple[int, ...]
) -> tuple[int, ...]:
    for pattern, side in dialect.convolutions.get(family, ()):
        if len(shape) == 2 and re.search(pattern, theirs) and shape[1] % side**2 == 0:
            return (shape[0], shape[1] // side**2, side, side)
    return shape


def write(state: Mapping[str, Tensor], dialect: str, model: Classifier) -> dict[str, Tensor]:
    """`state` under their names and in their shapes, in our order.

    Args:
        state: A state dict of `model`: its names, no more and no less.
        dialect: Whose names.
        model: The network that it belongs to.

    Raises:
        WeightsError: A tensor is missing, left over, or has no name there.
    """
    known = names(dialect, model)
    own = {name: (name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()}
    _check_fit(dict(state), own, OURS)
    computed = None if dialect == OURS else _dialect(dialect).computed.get(model.family)
    return {
        theirs: state[name].reshape(shape)
        for name, (theirs, shape) in known.items()
        if computed is None or not re.search(computed, theirs)
    }


def read(state: Mapping[str, Tensor], dialect: str, model: Classifier) -> dict[str, Tensor]:
    """Their state dict under our names and in our shapes, in our order.

    Args:
        state: Their state dict.
        dialect: Whose it is.
        model: The network that it is for, with the config and policy of its `counterpart`.

    Raises:
        WeightsError: A tensor is missing, left over or of another shape.
    """
    return reading(state, dialect, model).state


def reading(state: Mapping[str, Tensor], dialect: str, model: Classifier) -> Reading:
    """As `read`, with what was tolerated: that is in no way up to the weights.

    - Names of older files: ``norm.1`` in DenseNets, merging at the end of a stage in Swin.
    - ``num_batches_tracked`` that is missing, as in files from before PyTorch 0.4.1.
    - Auxiliary heads that the network was built without.
    - Swin's index and masks of windows, which follow from its shape; an index that is there has to
      be the network's own.

    Raises:
        WeightsError: A tensor is missing, left over or of another shape.
    """
    known = names(dialect, model)
    own = model.state_dict()
    theirs, notes = updated(state, dialect, model), list[str]()
    # Updating keeps their order.
    if renamed := sum(old != new for old, new in zip(state, theirs, strict=True)):
        notes.append(f"{renamed} names are those of an older version.")

    expected = {name for name, _ in known.values()}
    extra = [name for name in theirs if name not in expected]
    heads = [name for name in extra if re.match(_AUXILIARY, name)]
    masks = [name for name in extra if name.endswith(_MASK) and model.family == "Swin"]
    for name in (*heads, *masks):
        del theirs[name]
    if heads:
        notes.append(f"{len(heads)} tensors of auxiliary heads are left out.")
    if masks:
        notes.append(f"{len(masks)} masks of windows are left out: they follow from the image.")

    filled: dict[str, int] = {"num_batches_tracked": 0, _INDEX: 0}
    for name, (their, shape) in known.items():
        kind = name.rpartition(".")[2]
        if their not in theirs and kind in filled:
            filled[kind] += 1
            counter = torch.zeros(shape, dtype=own[name].dtype)
            theirs[their] = own[name] if kind == _INDEX else counter
        elif kind == _INDEX and their in theirs:
            _check_index(their, theirs, own[name])
    if filled["num_batches_tracked"]:
        notes.append(f"{filled['num_batches_tracked']} missing num_batches_tracked are 0.")
    if filled[_INDEX]:
        notes.append(f"{filled[_INDEX]} missing {_INDEX} follow from the network.")
    _check_fit(theirs, known, dialect)
    result = {name: theirs[their].reshape(own[name].shape) for name, (their, _) in known.items()}
    return Reading(result, tuple(notes))


def updated(state: Mapping[str, Tensor], dialect: str, model: Classifier) -> dict[str, Tensor]:
    """Their state dict under the names, and in the shapes, that the library has today."""
    update = _FOREIGN[dialect].updates.get(model.family) if dialect != OURS else None
    return dict(state) if update is None else update(dict(state))


def _check_index(name: str, state: dict[str, Tensor], own: Tensor) -> None:
    """Flatten an index of relative positions, which timm has as a square."""
    flat = state[name].flatten()
    known = not flat.is_meta and not own.is_meta
    if flat.shape != own.shape or (known and not torch.equal(flat, own)):
        raise WeightsError(
            f"The windows of {name} are not the network's.",
            f"It has {flat.numel()} relative positions, in an order of its own.",
            "Build the network with the window of the weights",
        )
    state[name] = flat


def _check_fit(
    state: dict[str, Tensor], known: Mapping[str, tuple[str, tuple[int, ...]]], dialect: str
) -> None:
    """Refuse tensors that are missing, left over or of another shape."""
    shapes = dict(known.values())
    wrong = [f"{name} is missing" for name in shapes if name not in state]
    wrong += [f"{name} is left over" for name in state if name not in shapes]
    wrong += [
        f"{name} is {tuple(state[name].shape)}, not {shape}"
        for name, shape in shapes.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise WeightsError(
            f"The tensors are not those of the network by the names of {dialect}.",
            "; ".join(wrong[:3]) + more + ".",
            "Build the network with the config, policy and num_classes of the weights",
        )
