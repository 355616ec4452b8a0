"""From a verified file to a network: strict, with every exception named."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path

import torch
from torch import Tensor

from senetzoo.errors import WeightsError
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.report import LoadReport
from senetzoo.weights import dialects
from senetzoo.weights.fetch import Located
from senetzoo.weights.manifest import Entry
from senetzoo.weights.unpack import load, unpack


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
    broken = [key for key, value in state.items() if not bool(torch.isfinite(value).all())]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise WeightsError(
            f"The weights {name} hold values that are not finite.",
            f"There is NaN or infinity in {broken[0]}{more}.",
            "They come from a training that diverged, or the file was damaged: get another",
        )
    model.load_state_dict(dict(state), strict=True)


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


def load_entry(
    model: Classifier,
    tag: str,
    entry: Entry,
    located: Located,
    *,
    keep: Container[str],
    like: Classifier,
) -> LoadReport:
    """Load the weights of a manifest entry, adapting the classifier and the input channels.

    Args:
        model: The network, with the entry's stem; its `num_classes`, `in_chans` and gates may
            differ.
        tag: Manifest entry.
        entry: Its content.
        located: Its file.
        keep: Paths of the sites whose gate is the same in the network and in the weights.
        like: A network with the entry's own config and policy; it may be `model`.

    Returns:
        What was loaded, replaced and adapted; also stored as ``model.load_report``.

    Raises:
        WeightsError: Anything else differs; nothing is changed then.
    """
    reading = read_entry(entry, located.path, like)
    state, own = reading.state, model.state_dict()
    replaced: list[tuple[str, str]] = []
    adapted = [(entry.source.file, note) for note in reading.notes]
    for site in model.sites():
        prefix = f"{site.path}."
        if site.path in keep:
            continue
        for name in [name for name in state if name.startswith(prefix)]:
            del state[name]
            adapted.append((name, "left out: another gate or none is asked for here"))
        for name in [name for name in own if name.startswith(prefix)]:
            state[name] = own[name]
            replaced.append((name, "a gate that the weights do not have"))
    classes = entry.classes or ()
    if model.config.num_classes != entry.num_classes:
        why = f"{model.config.num_classes} classes instead of {entry.num_classes}"
        for name in model.classifier_parameters():
            state[name] = own[name]
            replaced.append((name, why))
        classes = ()
    first = model.input_parameter()
    if model.config.in_chans != entry.input.channels and first in state:
        state[first], how = adapt_channels(state[first], model.config.in_chans)
        adapted.append((first, f"{how}, {entry.input.channels} to {model.config.in_chans}"))
    load_strictly(model, state, tag)
    report = LoadReport(
        tag, located.origin, located.sha256, classes, tuple(replaced), tuple(adapted)
    )
    model.load_report = report
    return report


def adapt_channels(weight: Tensor, channels: int) -> tuple[Tensor, str]:
    """The first convolution's weight for another number of input channels.

    Args:
        weight: (C_out, C_in, k, k).
        channels: The new C_in.

    Returns:
        The new weight, which responds to an image with equal channels (grey) as the old one does,
        and what was done.
    """
    old = weight.shape[1]
    if channels < old:
        parts = [weight[:, start::channels].sum(1) for start in range(channels)]
        return torch.stack(parts, 1), "channels summed"
    index = torch.arange(channels) % old
    copies = index.bincount(minlength=old)[index].to(weight.dtype)
    return weight[:, index] / copies[:, None, None], "channels repeated and divided by the copies"
