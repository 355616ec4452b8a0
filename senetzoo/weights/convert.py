"""From a file of anybody's to a state dict of a network here, by names or by structure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from senetzoo._utils.files import atomically
from senetzoo.errors import WeightsError, nearest
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.modes import to_meta
from senetzoo.nn.preprocessing import Preprocessing
from senetzoo.weights import dialects
from senetzoo.weights.dialects import OURS, Counterpart
from senetzoo.weights.load import check_finite, stored

Build = Callable[[Mapping[str, object], str], Classifier]
"""Builds the network asked for, with fields of its config changed and a policy over its own."""


@dataclass(frozen=True)
class Candidate:
    """A network that a file could be of: the one asked for, as a library has it.

    The library's name is empty where it has none of its own; `changes` are fields of the config
    that differ there, or that the file's shapes say; the policy comes over the network's own.
    """

    dialect: str
    name: str
    changes: Mapping[str, object]
    policy: str

    def __str__(self) -> str:
        return f"{self.name} of {self.dialect}" if self.name else f"names of {self.dialect}"


@dataclass(frozen=True)
class Conversion:
    """A state dict of ours, in the types that the file has, and how it came about.

    The model is the network it is for, with random weights. All candidates compute the same. Where
    tensors were matched by structure, `mapping` has their name and ours of each.
    """

    model: Classifier
    state: dict[str, Tensor]
    candidates: tuple[Candidate, ...]
    mapping: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def by_names(
    state: Mapping[str, Tensor], base: str, build: Build, *, called: str | None = None
) -> Conversion | None:
    """Read a state dict for the network `base`, whose names are those of a library.

    None where no library has such names. `called` is the library's name of the network, where
    several would fit. `WeightsError`: the names fit and the tensors do not, or several networks do.
    """
    fitting: dict[str, list[Candidate]] = {}
    nearly: tuple[float, Candidate, str] | None = None
    for candidate in _candidates(base, called):
        try:
            found, model, share = _sized(candidate, state, build)
        except WeightsError:  # the library has no such family, or has no place for its gates
            continue
        try:
            dialects.read(state, found.dialect, model)
        except WeightsError as error:
            if share >= 0.5 and (nearly is None or share > nearly[0]):
                nearly = (share, found, str(error).split("\n")[1])
            continue
        function = json.dumps([sorted(found.changes.items()), found.policy], default=str)
        fitting.setdefault(function, []).append(found)
    if len(fitting) > 1:
        raise _ambiguous([group[0] for group in fitting.values()])
    if fitting:
        (group,) = fitting.values()
        candidates = _reported(group)
        # Built again: buffers of a network on the meta device have no values.
        model = build(group[0].changes, group[0].policy)
        ours, notes = dialects.reading(state, group[0].dialect, model)
        return Conversion(model, ours, candidates, (), (*notes, *_notes_of_images(candidates)))
    if nearly is not None:
        raise WeightsError(
            f"The tensors do not fit {base} ({nearly[1]}).",
            nearly[2],
            "Give their network with --to",
        )
    return None


def _candidates(base: str, called: str | None) -> Iterator[Candidate]:
    """What a file may be; a library's plain names where it has no network of the kind."""
    known: list[str] = []
    for dialect in dialects.DIALECTS:
        networks: Mapping[str, Counterpart] = {}
        if dialect != OURS:
            networks = dialects.counterparts(dialect)
        mine = {name: other for name, other in networks.items() if other.model == base}
        known += mine
        for name, other in mine.items():
            if called in (None, name):
                # Classes are read off the file.
                changes = {k: v for k, v in other.changes.items() if k != "num_classes"}
                yield Candidate(dialect, name, changes, other.policy)
        if not mine and called is None:
            yield Candidate(dialect, "", {}, "")
    if called is not None and called not in known:
        raise WeightsError(
            f"No library has a network called {called!r} that is like {base}.",
            f"They call it {', '.join(dict.fromkeys(known))}." if known else "None has its own.",
            nearest(called, known) or "Leave out --as",
        )


def _sized(
    candidate: Candidate, state: Mapping[str, Tensor], build: Build
) -> tuple[Candidate, Classifier, float]:
    """`candidate` with the classes and channels of the file; its network; and how sure it is.

    The network is without memory; how sure is the share of its names that the file has.
    """
    with torch.device("meta"):
        model = build(candidate.changes, candidate.policy)
    known = dialects.names(candidate.dialect, model)
    state = dialects.updated(state, candidate.dialect, model)
    sizes = {}
    for field, parameter, dim, least in (
        ("num_classes", f"{model.classifiers()[0]}.weight", 0, 2),
        ("in_chans", model.input_parameter(), 1, 4),
    ):
        tensor = state.get(known[parameter][0])
        if tensor is not None and tensor.ndim >= least:
            sizes[field] = tensor.shape[dim]
    first = state.get(known[model.input_parameter()][0])
    # A file without unknown names has no classifier under another name.
    if "num_classes" not in sizes and set(state) <= {theirs for theirs, _ in known.values()}:
        sizes["num_classes"] = 0
    forms = _forms(model, None if first is None else first.shape)
    skips = [theirs for ours, (theirs, _) in known.items() if ".downsample." in ours]
    if "shortcut" in _fields(model) and not any(name in state for name in skips):
        forms["shortcut"] = "pad"  # without parameters
    changes = {**candidate.changes, **_changes(model, sizes), **forms}
    if changes != candidate.changes:
        with torch.device("meta"):
            model = build(changes, candidate.policy)
    share = sum(theirs in state for theirs, _ in known.values()) / len(known)
    return dataclasses.replace(candidate, changes=changes), model, share


# Kernels of the stems that a ResNet's first convolution tells apart.
_STEMS = {3: "cifar", 7: "imagenet"}


def _forms(model: Classifier, first: torch.Size | None) -> dict[str, str]:
    """The stem that the file has and the network has not, by the shape of the first convolution."""
    own = model.state_dict()[model.input_parameter()].shape
    if model.family != "ResNet" or first is None or len(first) != 4 or first[2:] == own[2:]:
        return {}
    known = first[2] == first[3] and own[2] in _STEMS
    return {"stem": _STEMS[first[2]]} if known and first[2] in _STEMS else {}


def _fields(model: Classifier) -> set[str]:
    return {field.name for field in dataclasses.fields(model.spec.config)}


def _changes(model: Classifier, sizes: Mapping[str, int]) -> dict[str, int]:
    return {k: v for k, v in sizes.items() if v != getattr(model.spec.config, k)}


def _ambiguous(candidates: Sequence[Candidate]) -> WeightsError:
    fields = [
        field
        for field in dict.fromkeys(field for candidate in candidates for field in candidate.changes)
        if len({repr(candidate.changes.get(field)) for candidate in candidates}) > 1
    ]
    return WeightsError(
        f"The tensors could be {' or '.join(map(str, candidates))}.",
        f"They differ in {', '.join(fields) or 'their gates'}, which names and shapes do not show.",
        f"Type for example: --as {candidates[0].name}",
    )


def _reported(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Of candidates that compute the same: ours, and each library's by its own name.

    Of several names of one library, the first with as many classes as the file.
    """

    def published(one: Candidate) -> bool:
        other = dialects.counterparts(one.dialect)[one.name]
        return other.changes.get("num_classes") == one.changes.get("num_classes")

    reported: dict[str, Candidate] = {}
    for one in candidates:
        if one.dialect == OURS:
            reported[OURS] = one
        elif one.name and (one.dialect not in reported or not published(reported[one.dialect])):
            reported[one.dialect] = one
    return tuple(reported.values()) or (candidates[0],)


def _notes_of_images(candidates: Sequence[Candidate]) -> Iterator[str]:
    for one in candidates:
        other = dialects.counterpart(one.dialect, one.name) if one.name else None
        if other is not None and other.mean is not None:
            yield (
                f"If the file is {one.dialect}'s, {other.model} takes images of mean {other.mean} "
                f"and std {other.std}."
            )


def by_structure(state: Mapping[str, Tensor], build: Build) -> Conversion:
    """Match tensors of unknown names, in the order of the file, by their order and shapes."""
    with torch.device("meta"):
        model = build({}, "")
    tensors = [tensor for tensor in state.values() if tensor.ndim > 0]
    sizes: dict[str, int] = {}
    if tensors and list(dict(model.named_parameters()))[-1] == f"{model.classifiers()[0]}.bias":
        sizes["num_classes"] = len(tensors[-1])
    if first := next((tensor.shape for tensor in tensors if tensor.ndim == 4), None):
        sizes["in_chans"] = first[1]
    changes: dict[str, object] = {**_changes(model, sizes), **_forms(model, first)}
    model = build(changes, "")
    try:
        mapping = _matched(state, model)
    except WeightsError as error:
        if "shortcut" not in _fields(model):
            raise
        # A shortcut without parameters leaves no trace but that they are missing.
        changes |= {"shortcut": "pad"}
        model = build(changes, "")
        try:
            mapping = _matched(state, model)
        except WeightsError:
            raise error from None
    result = {}
    for name, tensor in model.state_dict().items():
        if name in mapping:
            result[name] = state[mapping[name]].reshape(tensor.shape)
        else:
            result[name] = torch.zeros_like(tensor) if tensor.ndim == 0 else tensor
    pairs = tuple((mapping[name], name) for name in result if name in mapping)
    return Conversion(model, result, (Candidate("structure", "", changes, ""),), pairs, ())


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


def _matched(state: Mapping[str, Tensor], model: Classifier) -> dict[str, str]:
    """Their name of each of our tensors, if as many have the same shapes in the same order.

    Two orders of ours are tried: that of the state dict, and that in which the modules run, where
    a gate comes before the shortcut. Dimensions of 1 at the end of a shape, as of a 1x1
    convolution for a linear layer, do not count. `WeightsError`: neither order fits, or both do and
    say different things.
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
            "Give their network, with its policy: --to resnet50+se16",
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


def check_values(conversion: Conversion) -> None:
    """Refuse values that no trained network has."""
    check_finite(conversion.state, "tensors")
    for name, tensor in conversion.state.items():
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise WeightsError(
                f"{name} has negative values.",
                "It is a variance: the tensors are in another order than the network's.",
                "Rename them to the names of a library that senetzoo knows",
            )


def save(
    conversion: Conversion,
    network: str,
    sha256: str,
    out: Path,
    preprocessing: Preprocessing | None = None,
) -> None:
    """Write the tensors as safetensors, with metadata that says where they are from.

    `network` is text that names the network; `sha256` the hash of the file that they are from.
    """
    check_free(out)
    candidate = conversion.candidates[0]
    about = {
        "format": "pt",
        "model": network,
        "config": json.dumps(candidate.changes),
        "policy": candidate.policy,
        "dialect": ", ".join(candidate.dialect for candidate in conversion.candidates),
        "source_sha256": sha256,
    }
    if preprocessing is not None:
        about["preprocessing"] = json.dumps(dataclasses.asdict(preprocessing))
    with atomically(out) as partial:
        partial.write_bytes(stored(conversion.state, about))


def check_free(out: Path) -> None:
    """Refuse a name that can't be written to."""
    if out.suffix != ".safetensors":
        raise WeightsError(
            f"Can't write {out}.",
            "Weights are written as safetensors.",
            f"Type for example: --out {out.with_suffix('.safetensors').name}",
        )
    if out.exists():
        raise WeightsError(
            f"{out} exists already.", "Nothing is overwritten.", "Give another name with --out"
        )
