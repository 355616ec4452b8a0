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
from senetzoo.data.preprocessing import Preprocessing
from senetzoo.errors import WeightsError, nearest
from senetzoo.nn.classifier import Classifier
from senetzoo.weights import dialects
from senetzoo.weights.dialects import OURS, Counterpart
from senetzoo.weights.stored import stored
from senetzoo.weights.structure import match

Build = Callable[[Mapping[str, object], str], Classifier]
"""Builds the network asked for, with fields of its config changed and a policy over its own."""


@dataclass(frozen=True)
class Candidate:
    """A network that a file could be of: the one asked for, as a library has it.

    Args:
        dialect: Whose names.
        name: The library's name of it; empty where it has none of its own.
        changes: Fields of its config that differ there, or that the file's shapes say.
        policy: Text of the policy over its own.
    """

    dialect: str
    name: str
    changes: Mapping[str, object]
    policy: str

    def __str__(self) -> str:
        return f"{self.name} of {self.dialect}" if self.name else f"names of {self.dialect}"


@dataclass(frozen=True)
class Conversion:
    """A state dict of ours and how it came about.

    Args:
        model: The network it is for, built; its own weights are random.
        state: The tensors, in the types that the file has.
        candidates: What the file is by each library whose names it has, which all compute the same;
            or ``"structure"`` alone.
        mapping: Their name and ours of each tensor, where it was matched by structure; else empty.
        notes: What was tolerated, in sentences.
    """

    model: Classifier
    state: dict[str, Tensor]
    candidates: tuple[Candidate, ...]
    mapping: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def by_names(
    state: Mapping[str, Tensor], base: str, build: Build, *, called: str | None = None
) -> Conversion | None:
    """Read a state dict whose names are those of a library.

    Args:
        state: Their tensors.
        base: Name in our registry of the network that they are for.
        build: Builds it.
        called: The library's name of the network, where several would fit.

    Returns:
        None where no library has such names.

    Raises:
        WeightsError: The names are those of a library, but the tensors do not fit, or several
            networks do that compute something else.
    """
    fitting: dict[str, list[tuple[Candidate, dialects.Reading]]] = {}
    nearly: tuple[float, Candidate, str] | None = None
    for candidate in _candidates(base, called):
        try:
            found, model, share = _sized(candidate, state, build)
        except WeightsError:  # the library has no such family, or has no place for its gates
            continue
        try:
            reading = dialects.reading(state, found.dialect, model)
        except WeightsError as error:
            if share >= 0.5 and (nearly is None or share > nearly[0]):
                nearly = (share, found, str(error))
            continue
        function = json.dumps([sorted(found.changes.items()), found.policy], default=str)
        fitting.setdefault(function, []).append((found, reading))
    if len(fitting) > 1:
        raise _ambiguous(fitting)
    if fitting:
        (group,) = fitting.values()
        candidates = _reported([candidate for candidate, _ in group])
        candidate = group[0][0]
        # Built anew: buffers of a network on the meta device have no values.
        model = build(candidate.changes, candidate.policy)
        reading = dialects.reading(state, candidate.dialect, model)
        notes = (*reading.notes, *_notes_of_images(base, candidates))
        return Conversion(model, reading.state, candidates, (), notes)
    if nearly is not None:
        _, candidate, message = nearly
        _, true, _ = message.split("\n")
        raise WeightsError(
            f"The tensors do not fit {base} ({candidate}).",
            true,
            "Give the network that they are of, with --to",
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
            f"No library calls a network like {base} {called!r}.",
            f"They call it {', '.join(dict.fromkeys(known))}." if known else "None has its own.",
            nearest(called, known) or "Leave out --as",
        )


def _sized(
    candidate: Candidate, state: Mapping[str, Tensor], build: Build
) -> tuple[Candidate, Classifier, float]:
    """`candidate` with the classes and input channels of the file, built without memory.

    Returns:
        The candidate, its network, and the share of its names that the file has.
    """
    changes = dict(candidate.changes)
    with torch.device("meta"):
        model = build(changes, candidate.policy)
    known = dialects.names(candidate.dialect, model)
    state = dialects.updated(state, candidate.dialect, model)

    def size(parameter: str, dim: int, least: int) -> int | None:
        tensor = state.get(known[parameter][0])
        return tensor.shape[dim] if tensor is not None and tensor.ndim >= least else None

    sizes = {
        "num_classes": size(f"{model.classifiers()[0]}.weight", 0, 2),
        "in_chans": size(model.input_parameter(), 1, 4),
    }
    changes |= {
        field: value
        for field, value in sizes.items()
        if value not in (None, getattr(model.spec.config, field))
    }
    if changes != candidate.changes:
        with torch.device("meta"):
            model = build(changes, candidate.policy)
    share = sum(theirs in state for theirs, _ in known.values()) / len(known)
    return Candidate(candidate.dialect, candidate.name, changes, candidate.policy), model, share


def _ambiguous(fitting: Mapping[str, list[tuple[Candidate, dialects.Reading]]]) -> WeightsError:
    candidates = [group[0][0] for group in fitting.values()]
    fields = [
        field
        for field in dict.fromkeys(field for candidate in candidates for field in candidate.changes)
        if len({repr(candidate.changes.get(field)) for candidate in candidates}) > 1
    ]
    return WeightsError(
        f"The tensors could be {' or '.join(map(str, candidates))}.",
        f"They differ in {', '.join(fields) or 'their gates'}, which names and shapes do not tell.",
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


def _notes_of_images(base: str, candidates: Sequence[Candidate]) -> list[str]:
    notes = []
    for one in candidates:
        other = dialects.counterparts(one.dialect).get(one.name) if one.name else None
        if other is not None and other.mean is not None:
            notes.append(
                f"If the file is {one.dialect}'s, {base} takes images of mean {other.mean} and "
                f"std {other.std}."
            )
    return notes


def by_structure(state: Mapping[str, Tensor], build: Build) -> Conversion:
    """Match tensors of unknown names by their order and shapes.

    Args:
        state: Their tensors, in the order of the file.
        build: Builds the network that they are for.

    Raises:
        WeightsError: Count, order or shapes differ.
    """
    with torch.device("meta"):
        model = build({}, "")
    tensors = [tensor for tensor in state.values() if tensor.ndim > 0]
    changes: dict[str, object] = {}
    if tensors and list(dict(model.named_parameters()))[-1] == f"{model.classifiers()[0]}.bias":
        changes["num_classes"] = len(tensors[-1])
    first = next((tensor for tensor in tensors if tensor.ndim == 4), None)
    if first is not None:
        changes["in_chans"] = first.shape[1]
    changes = {k: v for k, v in changes.items() if v != getattr(model.spec.config, k)}
    model = build(changes, "")
    mapping = match(state, model)
    own = model.state_dict()
    result = {}
    for name, tensor in own.items():
        if name in mapping:
            result[name] = state[mapping[name]].reshape(tensor.shape)
        else:
            result[name] = torch.zeros_like(tensor) if tensor.ndim == 0 else tensor
    pairs = tuple((mapping[name], name) for name in own if name in mapping)
    return Conversion(model, result, (Candidate("structure", "", changes, ""),), pairs, ())


def check_values(conversion: Conversion) -> None:
    """Refuse values that no trained network has.

    Raises:
        WeightsError: A value is not finite, or a variance is negative.
    """
    for name, tensor in conversion.state.items():
        if not tensor.is_floating_point():
            continue
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsError(
                "The tensors hold values that are not finite.",
                f"There is NaN or infinity in {name}.",
                "They come from a training that diverged, or the file was damaged: get another",
            )
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

    Args:
        conversion: What to write.
        network: Text that names the network: ``"se_resnet50"``.
        sha256: Hash of the file that they are from.
        out: The file to write.
        preprocessing: What images go through before; None where nobody says.

    Raises:
        WeightsError: `out` exists.
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
    # Each with its own memory: safetensors takes no others.
    own = {
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in conversion.state.items()
    }
    with atomically(out) as partial:
        partial.write_bytes(stored(own, about))


def check_free(out: Path) -> None:
    """Refuse a name that can't be written to.

    Raises:
        WeightsError: There is such a file, or it is no ``.safetensors``.
    """
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
