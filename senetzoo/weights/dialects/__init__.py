"""State dicts of other libraries: their names and shapes to ours and back, tensor for tensor.

`counterpart` says which network of ours one of theirs is; `read` and `write` are inverse to each
other for a built network. ``"timm_legacy"`` is the dialect of Cadene's ports of the Caffe networks
too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor

from senetzoo.errors import WeightsError, nearest
from senetzoo.nn.classifier import Classifier
from senetzoo.weights.dialects import pytorchcv, repositories, timm, torchvision
from senetzoo.weights.dialects.base import Counterpart, Dialect, is_gate, rewritten

__all__ = [
    "DIALECTS",
    "OURS",
    "Counterpart",
    "counterpart",
    "counterparts",
    "misfit",
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
    "kuangliu": repositories.KUANGLIU,
    "weiaicunzai": repositories.WEIAICUNZAI,
}
DIALECTS = (OURS, *_FOREIGN)

# Auxiliary heads, which files have and networks may leave out.
_AUXILIARY = r"(AuxLogits|aux1|aux2)\."
# Buffers that are computed from the network's shape. Old files have them, new ones need not.
_INDEX, _MASK, _BATCHES = "relative_position_index", "attn_mask", "num_batches_tracked"


def _dialect(name: str) -> Dialect:
    if name not in _FOREIGN:
        raise WeightsError(
            f"There is no dialect {name!r}." if name != OURS else "senetzoo's names are our own.",
            f"Dialects are {', '.join(_FOREIGN)}.",
            nearest(name, _FOREIGN),
        )
    return _FOREIGN[name]


def counterparts(dialect: str) -> Mapping[str, Counterpart]:
    """The networks of a library that are ours too, by its names."""
    return _dialect(dialect).networks


def counterpart(dialect: str, name: str) -> Counterpart:
    """The network of ours that is the one called `name` by a library.

    Args:
        dialect: ``"torchvision"``, ``"timm"``, ``"timm_legacy"``, ``"pytorchcv"``,
            ``"chenyaofo"``, or one without networks of its own.
        name: Their name, without a tag: ``"seresnet50"``.

    Raises:
        WeightsError: No such dialect, or no network of ours is that one.
    """
    networks = counterparts(dialect)
    if name not in networks:
        such = f", such as {next(iter(networks))}" if networks else ""
        raise WeightsError(
            f"No network of senetzoo is {dialect}'s {name!r}.",
            f"There are counterparts of {len(networks)} of its networks{such}.",
            nearest(name, networks),
        )
    return networks[name]


def names(dialect: str, model: Classifier) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Their name and shape of each tensor of a built network, by our name.

    Raises:
        WeightsError: The library has no such family, or no name for a tensor, such as of a gate
            where it has none.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if dialect == OURS:
        return {name: (name, shape) for name, shape in shapes.items()}
    found, family = _dialect(dialect), model.family
    if family not in found.families:
        raise WeightsError(
            f"{dialect} has no names for a {family}.",
            f"It has them for {', '.join(found.families)}.",
            "Choose another dialect",
        )
    rename = found.families[family]
    result: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        theirs = rename(name, model) if callable(rename) else rewritten(name, *rename)
        if theirs is None or is_gate(theirs):
            raise WeightsError(
                f"{dialect} has no name for {name}.",
                f"Its {family} has no such tensor.",
                "Choose another dialect, or build the network without it",
            )
        for pattern, side in found.convolutions.get(family, ()):
            if len(shape) == 2 and re.search(pattern, theirs) and shape[1] % side**2 == 0:
                shape = (shape[0], shape[1] // side**2, side, side)
        if (vector := found.vectors.get(family)) and re.search(vector, theirs):
            shape = shape[:1]
        result[name] = (theirs, shape)
    return result


def write(state: Mapping[str, Tensor], dialect: str, model: Classifier) -> dict[str, Tensor]:
    """`state` under their names and in their shapes, in our order.

    Raises:
        WeightsError: A tensor is missing, left over, or has no name there.
    """
    known = names(dialect, model)
    _check_fit(state, dict(names(OURS, model).values()), OURS)
    computed = None if dialect == OURS else _dialect(dialect).computed.get(model.family)
    return {
        theirs: _turned(theirs, state[name], dialect, model).reshape(shape)
        for name, (theirs, shape) in known.items()
        if computed is None or not re.search(computed, theirs)
    }


def read(state: Mapping[str, Tensor], dialect: str, model: Classifier) -> dict[str, Tensor]:
    """Their state dict under our names and in our shapes, in our order.

    `model` is built with the config and policy of its `counterpart`.

    Raises:
        WeightsError: A tensor is missing, left over or of another shape.
    """
    return reading(state, dialect, model)[0]


def reading(
    state: Mapping[str, Tensor], dialect: str, model: Classifier
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """As `read`, with what was tolerated, in sentences: that is in no way up to the weights.

    - Names of older files: ``norm.1`` in DenseNets, merging at the end of a stage in Swin.
    - ``num_batches_tracked`` that is missing, as in files from before PyTorch 0.4.1.
    - Auxiliary heads that the network was built without.
    - Swin's index and masks of windows, which follow from its shape; an index that is there has to
      be the network's own.

    Raises:
        WeightsError: A tensor is missing, left over or of another shape.
    """
    known, own = names(dialect, model), model.state_dict()
    theirs = updated(state, dialect, model)
    shapes = dict(known.values())
    extra = [name for name in theirs if name not in shapes]
    heads = [name for name in extra if re.match(_AUXILIARY, name)]
    masks = [name for name in extra if name.endswith(_MASK) and model.family == "Swin"]
    # Updating keeps their order.
    renamed = sum(old != new for old, new in zip(state, theirs, strict=True))
    for name in (*heads, *masks):
        del theirs[name]
    filled = Counter[str]()
    for name, (their, shape) in known.items():
        kind = name.rpartition(".")[2]
        if their in theirs:
            if kind == _INDEX:
                _check_index(their, theirs, own[name])
        elif kind in (_BATCHES, _INDEX):
            filled[kind] += 1
            counter = torch.zeros(shape, dtype=own[name].dtype)
            theirs[their] = own[name] if kind == _INDEX else counter
    _check_fit(theirs, shapes, dialect)
    notes = (
        (renamed, "names are those of an older version."),
        (len(heads), "tensors of auxiliary heads are left out."),
        (len(masks), "masks of windows are left out: they follow from the image."),
        (filled[_BATCHES], f"missing {_BATCHES} are 0."),
        (filled[_INDEX], f"missing {_INDEX} follow from the network."),
    )
    result = {
        name: _turned(their, theirs[their], dialect, model).reshape(own[name].shape)
        for name, (their, _) in known.items()
    }
    return result, tuple(f"{count} {text}" for count, text in notes if count)


def _turned(name: str, tensor: Tensor, dialect: str, model: Classifier) -> Tensor:
    """`tensor`, called `name` there, with its input channels in the order of the other side."""
    mirrored = None if dialect == OURS else _FOREIGN[dialect].mirrored.get(model.family)
    return tensor.flip(1) if mirrored and re.search(mirrored, name) else tensor


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
            f"It has {flat.numel()} relative positions, in another order.",
            "Build the network with the window of the weights",
        )
    state[name] = flat


def misfit(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Which tensors of a network are not in `state` or of another shape; empty where all fit."""
    wrong = [f"{name} is missing" for name in shapes if name not in state]
    wrong += [f"{name} is not in the network" for name in state if name not in shapes]
    wrong += [
        f"{name} is {tuple(state[name].shape)}, not {shape}"
        for name, shape in shapes.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
    return f"{'; '.join(wrong[:3])}{more}." if wrong else ""


def _check_fit(
    state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], dialect: str
) -> None:
    if wrong := misfit(state, shapes):
        raise WeightsError(
            f"The tensors are not those of the network by the names of {dialect}.",
            wrong,
            "Build the network with the config, policy and num_classes of the weights",
        )
