"""From a verified file to a network: strict, with every exception named."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from senetzoo._utils.checks import from_json
from senetzoo._utils.documents import parse_json
from senetzoo.data.preprocessing import Preprocessing
from senetzoo.errors import BrokenError, ConfigError, WeightsError
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.report import LoadReport
from senetzoo.nn.seeds import seeded
from senetzoo.policies.algebra import resolve
from senetzoo.spec import ModelSpec, named, split
from senetzoo.weights import dialects
from senetzoo.weights.manifest import Entry, find
from senetzoo.weights.unpack import load, unpack

Channels: TypeAlias = Literal["sum", "tile", "random"]
"""How the first convolution takes another number of input channels."""


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, floating point ones as float32.

    Raises:
        WeightsError: No such file, or it is no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from None
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def load_file_into(model: Classifier, path: Path) -> None:
    """Load a safetensors file of the same network, strictly.

    Raises:
        WeightsError: Missing, unexpected or differently shaped tensors, or values that are not
            finite; nothing is changed then.
    """
    load_strictly(model, read(path), str(path))


def load_strictly(model: Classifier, state: Mapping[str, Tensor], name: str) -> None:
    """Load `state` (the names and shapes of `model`, no more and no less).

    Raises:
        WeightsError: It differs, or holds values that are not finite; nothing is changed then.
    """
    own = model.state_dict()
    wrong = [f"{key} is missing" for key in own if key not in state]
    wrong += [f"{key} is not in the network" for key in state if key not in own]
    wrong += [
        f"{key} is {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise WeightsError(
            f"The weights {name} do not fit the network.",
            "; ".join(wrong[:3]) + more + ".",
            "Build the network with the policy, stem and num_classes the weights were made with",
        )
    check_finite(state, name)
    model.load_state_dict(dict(state), strict=True)


def check_finite(state: Mapping[str, Tensor], name: str) -> None:
    """Refuse tensors with values that are not finite.

    Raises:
        WeightsError: There are some; `name` is what the message calls the weights.
    """
    broken = [key for key, value in state.items() if not bool(torch.isfinite(value).all())]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise WeightsError(
            f"The weights {name} hold values that are not finite.",
            f"There is NaN or infinity in {broken[0]}{more}.",
            "They come from a training that diverged, or the file was damaged: get another",
        )


def read_entry(entry: Entry, path: Path, like: Classifier) -> dialects.Reading:
    """The tensors of a manifest entry's file by our names, whoever published it.

    Args:
        entry: The entry.
        path: Its file.
        like: A network with the entry's own config and policy; it is not changed.

    Returns:
        The tensors, and what was tolerated.

    Raises:
        WeightsError: The file can't be read, or is not of such a network.
    """
    if entry.dialect == "senetzoo":
        return dialects.Reading(read(path), ())
    unpacked = unpack(load(path.read_bytes(), path), path)
    state = {k: v.float() if v.is_floating_point() else v for k, v in unpacked.state.items()}
    reading = dialects.reading(state, entry.dialect, like)
    return dialects.Reading(reading.state, unpacked.notes + reading.notes)


def spec_of(name: str) -> ModelSpec:
    """The spec of a network by name.

    Args:
        name: Name in the registry; a tag of its weights may follow, for the spec that they were
            trained with (``"se_resnet20.cifar10_v1"``), and a policy (``"resnet50+se8@pre"``).

    Raises:
        ConfigError: An unknown name or tag.
        PolicyError: A policy that can't be read.
    """
    base, tag, text = split(name)
    spec = named(base)
    if tag is not None:
        spec = as_trained(spec, find(base, tag)[1])
    return spec.merged(text)


def as_trained(spec: ModelSpec, weight: Entry) -> ModelSpec:
    """The spec that the weights of a manifest entry were trained with, from the network's own."""
    trained = spec.replace(num_classes=weight.num_classes, in_chans=weight.preprocessing.channels)
    if weight.policy:
        trained = trained.merged(weight.policy)
    if weight.stem is not None:
        trained = trained.replace(stem=weight.stem)
    return trained.replace(**weight.config)


@dataclass(frozen=True)
class Trained:
    """Trained weights that are about to be loaded.

    Args:
        spec: The network that they are of.
        read: Gives their tensors by our names, and what is known of them; called once, with a
            network of `spec` where one is built already.
    """

    spec: ModelSpec
    read: Callable[[Classifier | None], tuple[Mapping[str, Tensor], LoadReport]]


def read_file(path: Path, candidates: Sequence[ModelSpec]) -> Trained:
    """Weights in a safetensors file of our names.

    The file's metadata says what network they are of, where `senetzoo weights convert` wrote it.
    Else they are of the first candidate whose tensors are those of the file, but for the numbers of
    classes and of input channels, which are the file's; or of the last.

    Args:
        path: The file.
        candidates: Forms of one network that the weights may be of.

    Raises:
        WeightsError: No such file, or it is no safetensors file, or of another network.
    """
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        raise WeightsError(
            f"Can't read the weights {path}.",
            "Weights are read from .safetensors files with the names of senetzoo.",
            f"Type: senetzoo weights convert {path} --to {candidates[0].name}",
        )
    try:
        with safe_open(str(path), "pt") as file:
            about = file.metadata() or {}
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from None
    spec = _spec_of_file(path, about, shapes, candidates)
    preprocessing = _stated(path, about)

    def read_state(_: Classifier | None) -> tuple[dict[str, Tensor], LoadReport]:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return read(path), LoadReport(
            path.name, "file", digest, pinned="", preprocessing=preprocessing
        )

    return Trained(spec, read_state)


def _spec_of_file(
    path: Path,
    about: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    candidates: Sequence[ModelSpec],
) -> ModelSpec:
    name = candidates[0].name
    if "model" in about and "config" in about:
        base = split(about["model"])[0]
        if base != name:
            raise WeightsError(
                f"The weights {path} are not of {name}.",
                f"They are of {base}.",
                f"Type for example: {base} in place of {name}",
            )
        spec = spec_of(about["model"]).replace(**json.loads(about["config"]))
        # A policy in the network's name has the last word, as in the conversion.
        over = "" if "+" in about["model"] else about.get("policy", "")
        return spec.merged(over) if over else spec
    for spec in candidates:
        with torch.device("meta"):
            model = spec.build(seed=0)
            head = shapes.get(f"{model.classifiers()[0]}.weight", ())
            first = shapes.get(model.input_parameter(), ())
            sizes = {"num_classes": head[:1], "in_chans": first[1:2]}
            spec = spec.replace(**{field: size[0] for field, size in sizes.items() if size})
            model = spec.build(seed=0)
        if {key: tuple(value.shape) for key, value in model.state_dict().items()} == shapes:
            break
    return spec


def _stated(path: Path, about: Mapping[str, str]) -> Preprocessing | None:
    """The preprocessing that a file's metadata states."""
    text = about.get("preprocessing")
    if text is None:
        return None
    try:
        return from_json(Preprocessing, parse_json(text), "preprocessing")
    except BrokenError as error:
        raise WeightsError(
            f"The metadata of {path} is broken at {error.where}.",
            error.what,
            error.hint or "Convert the weights again: senetzoo weights convert",
        ) from None


def _unreadable(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"Can't read the weights {path}.",
        f"It is no whole safetensors file ({error})."
        if path.is_file()
        else "There is no such file.",
        "Give a .safetensors file that senetzoo wrote",
    )


@dataclass
class _Changes:
    """The tensors on their way into a network, and what became of them."""

    state: dict[str, Tensor]
    own: Mapping[str, Tensor]
    replaced: dict[str, str] = field(default_factory=dict)
    adapted: list[tuple[str, str]] = field(default_factory=list)

    def leave_out(self, name: str, why: str) -> None:
        """What the weights have and the network does not."""
        if self.state.pop(name, None) is not None:
            self.adapted.append((name, f"left out: {why}"))

    def keep_own(self, name: str, why: str) -> None:
        """What the network keeps of its initialization, whatever the weights have."""
        self.state[name] = self.own[name]
        self.replaced[name] = why


def load_weights(
    model: Classifier, spec: ModelSpec, trained: Trained, *, channels: Channels | None = None
) -> LoadReport:
    """Load weights, adapting gates, stem, input channels and classifier.

    Args:
        model: The network.
        spec: What it was built from: the weights' own spec, but for `num_classes`, `in_chans`,
            `stem`, the rates of dropout, and gates.
        trained: The weights.
        channels: How the first convolution takes another number of channels (`adapt_channels`), or
            ``"random"`` for a new one.

    Returns:
        What was loaded, replaced and adapted; also stored as ``model.load_report``.

    Raises:
        ConfigError: `channels` does not fit.
        WeightsError: The weights can't be had, or anything else differs; nothing is changed then.
    """
    old, new = trained.spec.config, spec.config
    state, report = trained.read(model if spec == trained.spec else None)
    changes = _Changes(dict(state), model.state_dict(), adapted=list(report.adapted))
    _gates(changes, model, trained.spec, spec)
    if new.stem != old.stem:
        _stem(changes, model, old)
    if new.num_classes != old.num_classes:
        for name in model.classifier_parameters():
            changes.keep_own(name, f"{new.num_classes} classes instead of {old.num_classes}")
    first = model.input_parameter()
    if new.in_chans != old.in_chans and first in changes.state and first not in changes.replaced:
        if channels == "random":
            changes.keep_own(first, f"{new.in_chans} channels instead of {old.in_chans}")
        else:
            adapted, how = adapt_channels(changes.state[first], new.in_chans, channels)
            changes.state[first] = adapted
            changes.adapted.append((first, f"{how}, {old.in_chans} to {new.in_chans}"))
    load_strictly(model, changes.state, report.tag)
    preprocessing = report.preprocessing
    if preprocessing is not None and new.small != old.small:
        # Of whole small images nothing is cut off.
        crop = 1.0 if new.small else preprocessing.crop
        preprocessing = dataclasses.replace(preprocessing, size=new.input_size, crop=crop)
    model.load_report = dataclasses.replace(
        report,
        classes=report.classes if new.num_classes == old.num_classes else (),
        replaced=tuple(changes.replaced.items()),
        adapted=tuple(changes.adapted),
        preprocessing=preprocessing,
    )
    return model.load_report


def _gates(changes: _Changes, model: Classifier, trained: ModelSpec, wanted: ModelSpec) -> None:
    """Leave out the gates that the network does not have, and keep those that the weights lack."""
    sites = model.sites()
    before, after = (resolve(spec.policy, sites, spec.name) for spec in (trained, wanted))
    for site in sites:
        if before.get(site) == after.get(site):
            continue
        prefix = f"{site.path}."
        for name in [name for name in changes.state if name.startswith(prefix)]:
            changes.leave_out(name, "another gate or none is asked for here")
        for name in [name for name in changes.own if name.startswith(prefix)]:
            changes.keep_own(name, "a gate that the weights do not have")


def _stem(changes: _Changes, model: Classifier, old: Config) -> None:
    """A new stem where its tensors are others; the trained one where it differs in strides only."""
    with seeded(0, torch.device("meta")):
        # The number of channels is another question.
        theirs = old.replace(in_chans=model.in_chans).build()
    shapes = [
        {name: tensors[name].shape for name in network.stem_tensors()}
        for network, tensors in ((theirs, theirs.state_dict()), (model, changes.own))
    ]
    if shapes[0] == shapes[1]:
        changes.adapted.append(
            ("stem", "of another form: strides or pooling differ, no tensor does")
        )
        return
    for name in [name for name in shapes[0] if name not in shapes[1]]:
        changes.leave_out(name, "another stem is asked for")
    for name in shapes[1]:
        changes.keep_own(name, "another stem than the weights have")


def adapt_channels(
    weight: Tensor, channels: int, how: Literal["sum", "tile"] | None = None
) -> tuple[Tensor, str]:
    """The first convolution's weight for another number of input channels.

    Args:
        weight: (C_out, C_in, k, k).
        channels: The new C_in.
        how: ``"sum"`` for fewer channels than before, each of which gets the sum of every
            ``channels``-th old one; ``"tile"`` for more, which repeat the old ones, divided by the
            number of copies. None for the one of both that fits.

    Returns:
        The new weight, which responds to an image with equal channels (gray) as the old one does,
        and what was done.

    Raises:
        ConfigError: `how` does not fit.
    """
    old = weight.shape[1]
    fits = "sum" if channels < old else "tile"
    if how not in (None, fits):
        raise ConfigError(
            f"channels={how!r} does not go from {old} to {channels} channels.",
            "'sum' makes fewer channels, 'tile' makes more, 'random' either.",
            f"Leave channels out, or type channels={fits!r}",
        )
    if fits == "sum":
        parts = [weight[:, start::channels].sum(1) for start in range(channels)]
        return torch.stack(parts, 1), "channels summed"
    index = torch.arange(channels) % old
    copies = index.bincount(minlength=old)[index].to(weight.dtype)
    return weight[:, index] / copies[:, None, None], "channels repeated and divided by the copies"
