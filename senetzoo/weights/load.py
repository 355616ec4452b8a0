"""From a verified file to a network: strict, with every exception named."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from senetzoo.errors import ConfigError, WeightsError
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.config import Config
from senetzoo.nn.report import Input, LoadReport
from senetzoo.nn.seeds import seeded
from senetzoo.weights import dialects
from senetzoo.weights.manifest import Entry
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
        raise WeightsError(
            f"Can't read the weights {path}.",
            f"It is no whole safetensors file ({error})."
            if path.is_file()
            else "There is no such file.",
            "Give a .safetensors file that senetzoo wrote",
        ) from None
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


@dataclass(frozen=True)
class Weights:
    """What weights are, apart from their tensors.

    Args:
        tag: Which, as `LoadReport.tag` says it.
        origin: Where the file came from, as `LoadReport.origin` says it.
        sha256: Hash of the file.
        arch: Config of the network that they are of.
        classes: Class names; empty where there are none.
        input: What they were trained to see; None where nobody says.
        pinned: What the file was checked by, as `LoadReport.pinned` says it.
        notes: What was tolerated in the file, for `LoadReport.adapted`.
    """

    tag: str
    origin: str
    sha256: str
    arch: Config
    classes: tuple[str, ...]
    input: Input | None
    pinned: Literal["sha256", "prefix", ""] = "sha256"
    notes: tuple[tuple[str, str], ...] = ()


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
        """What the network keeps of its initialisation, whatever the weights have."""
        self.state[name] = self.own[name]
        self.replaced[name] = why


def load_weights(
    model: Classifier,
    weights: Weights,
    state: Mapping[str, Tensor],
    *,
    keep: Container[str],
    channels: Channels | None = None,
) -> LoadReport:
    """Load weights, adapting gates, stem, input channels and classifier.

    Args:
        model: The network; of `weights.arch`, but for `num_classes`, `in_chans`, `stem`, the rates
            of dropout, and gates.
        weights: What the weights are.
        state: Their tensors.
        keep: Paths of the sites whose gate is the same in the network and in the weights.
        channels: How the first convolution takes another number of channels (`adapt_channels`), or
            ``"random"`` for a new one.

    Returns:
        What was loaded, replaced and adapted; also stored as ``model.load_report``.

    Raises:
        ConfigError: `channels` does not fit.
        WeightsError: Anything else differs; nothing is changed then.
    """
    old, new = weights.arch, model.config
    changes = _Changes(dict(state), model.state_dict(), adapted=list(weights.notes))
    _gates(changes, model, keep)
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
    load_strictly(model, changes.state, weights.tag)
    seen = weights.input
    if seen is not None and new.small != old.small:
        # Of whole small images nothing is cut off.
        crop = 1.0 if new.small else seen.crop
        seen = dataclasses.replace(seen, size=new.input_size, crop=crop)
    model.load_report = LoadReport(
        tag=weights.tag,
        origin=weights.origin,
        sha256=weights.sha256,
        classes=weights.classes if new.num_classes == old.num_classes else (),
        replaced=tuple(changes.replaced.items()),
        adapted=tuple(changes.adapted),
        pinned=weights.pinned,
        input=seen,
    )
    return model.load_report


def _gates(changes: _Changes, model: Classifier, keep: Container[str]) -> None:
    for site in model.sites():
        prefix = f"{site.path}."
        if site.path in keep:
            continue
        for name in [name for name in changes.state if name.startswith(prefix)]:
            changes.leave_out(name, "another gate or none is asked for here")
        for name in [name for name in changes.own if name.startswith(prefix)]:
            changes.keep_own(name, "a gate that the weights do not have")


def _stem(changes: _Changes, model: Classifier, old: Config) -> None:
    """A new stem where its tensors are others; the trained one where it differs in strides only."""
    with seeded(0, torch.device("meta")):
        # The number of channels is another question.
        theirs = old.replace(in_chans=model.config.in_chans).build()
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
        The new weight, which responds to an image with equal channels (grey) as the old one does,
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
