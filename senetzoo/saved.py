"""Networks as folders and as repositories of the Hugging Face Hub: `save` and `load`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import senetzoo
from senetzoo.blueprint import Changes
from senetzoo.describe import blueprint_of, describe, input_of, transforms_of
from senetzoo.errors import BrokenError, ConfigError, WeightsError, checks_options
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.report import Input
from senetzoo.nn.stem import Stem
from senetzoo.policies.algebra import Policy
from senetzoo.weights import folder as folders
from senetzoo.weights import hub
from senetzoo.weights.load import Channels, Weights, check_finite

if TYPE_CHECKING:
    from senetzoo.data.transforms import Transforms


@checks_options
def load(
    source: str | Path,
    *,
    policy: Policy | str | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    channels: Channels | None = None,
    stem: Stem | str | None = None,
    dropout: float | None = None,
    drop_path: float | None = None,
    seed: int | None = None,
) -> Classifier:
    """A network that `save` wrote, or that was pushed to the Hugging Face Hub.

    Nothing in it is executed or unpickled. The options are those of `create`, over what the network
    is.

    Args:
        source: The folder, or a repository: ``"owner/name"``, ``"owner/name@v1"``, where there is
            no folder of that name; with ``hf-hub:`` before it, the repository in any case.
        policy: Which gates sit where, over the network's own; `NONE` strips them.
        num_classes: Outputs; another number than the network's replaces the classifier.
        in_chans: Channels of the input; another number adapts the first convolution.
        channels: How it is adapted.
        stem: Another stem.
        dropout: Dropout before the classifier.
        drop_path: Stochastic depth.
        seed: Seed of what is initialised at random.

    Returns:
        The network in eval mode; ``model.load_report`` says which weights it has.

    Raises:
        ConfigError: An option does not fit.
        PolicyError: A policy that can't be read or does not fit.
        WeightsError: There is no such network, or its files are not as they were written.
    """
    fields = {
        "num_classes": num_classes,
        "in_chans": in_chans,
        "stem": stem,
        "dropout": dropout,
        "drop_path": drop_path,
    }
    return opened(_place(source), Changes((policy,), fields, channels, seed))


def _place(source: str | Path) -> folders.Place:
    if not isinstance(source, (str, Path)):
        raise ConfigError(
            f"load got a {type(source).__name__}.",
            "It takes a folder, or a repository of the Hugging Face Hub.",
            'Type for example: load("my_network") or load("owner/name")',
        )
    if isinstance(source, str) and source.startswith(hub.PREFIX):
        return hub.place(source.removeprefix(hub.PREFIX))
    path = Path(source)
    if isinstance(source, str) and not path.exists() and hub.is_repo(source):
        return hub.place(source)
    return folders.Place.of(path)


def opened(place: folders.Place, changes: Changes) -> Classifier:
    """The network at `place`, with changes.

    Raises:
        SenetzooError: As `load` does.
    """
    description = folders.described(place.config)
    try:
        trained, seen = blueprint_of(description), input_of(description)
    except BrokenError as error:
        raise folders.broken(place.config, error) from None
    model = changes.over_weights(trained).build(seed=changes.seed)
    state, origin = place.tensors(description)
    names, sha256 = description.label_names or (), description.weights.sha256
    about = Weights(place.tag, origin, sha256, trained.arch, names, seen)
    return changes.fill(model, trained, about, state)


@checks_options
def save(
    model: Classifier,
    folder: str | Path,
    *,
    classes: Sequence[str] | None = None,
    transforms: Transforms | None = None,
) -> None:
    """Write a network to a folder, from which `load` makes it again.

    ``model.safetensors`` holds its tensors, each in its own type; ``config.json`` the config, the
    stem, the gates, the classes, the transforms, and the hash of the tensors. Of other files in the
    folder none is touched; a network that senetzoo saved there before is replaced.

    Args:
        model: A network of this zoo, whatever its config, stem and gates.
        folder: The folder, made where it does not exist.
        classes: Names of the classes in the order of the logits; None for those that the load
            report has.
        transforms: What an image goes through before; None for what the weights that it was loaded
            with were trained to see.

    Raises:
        ConfigError: `model` is another network, or was changed by hand; the folder holds another
            library's; or `classes` or `transforms` do not fit.
        WeightsError: Tensors hold values that are not finite, or no values at all.
    """
    _check_network(model)
    report = model.load_report
    if classes is None and report is not None and report.classes:
        classes = report.classes
    grey_or_rgb = model.config.in_chans in (1, 3)
    if transforms is None and report is not None and report.input is not None and grey_or_rgb:
        transforms = transforms_of(model)
    state = model.state_dict()
    _check_types(state, type(model).__name__)
    check_finite(state, f"of the {type(model).__name__}")
    content = folders.content(state, senetzoo.__version__)
    seen = None if transforms is None else _seen(transforms, model.config.in_chans)
    file = folders.File.of(content)
    folders.write(Path(folder), describe(model, file, classes=classes, seen=seen), content)


# What a network of float32 takes without a loss.
_TYPES = {torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool}


def _check_types(state: Mapping[str, Tensor], network: str) -> None:
    for name, value in state.items():
        if value.is_meta:
            raise WeightsError(
                f"Can't save the {network}.",
                f"Its {name} is on the meta device, without values.",
                "Give it values first: load weights, or build it on the CPU",
            )
        if value.dtype not in _TYPES:
            raise WeightsError(
                f"Can't save the {network}.",
                f"Its {name} is {str(value.dtype).removeprefix('torch.')}.",
                "Save networks of float32, or of less: model.float()",
            )


def _seen(transforms: Transforms, channels: int) -> Input:
    """What `transforms` make of an image.

    Raises:
        ConfigError: They do not make `channels` channels.
    """
    if len(transforms.mean) != channels:
        raise ConfigError(
            f"save got transforms for {len(transforms.mean)} channels.",
            f"The network takes {channels}.",
            "Give a mean and a std for each channel",
        )
    return Input(
        channels,
        transforms.size,
        transforms.mean,
        transforms.std,
        transforms.interpolation,
        transforms.crop,
    )


def _check_network(model: object) -> None:
    if isinstance(model, Classifier):
        return
    inner = next(
        (
            name
            for name in ("module", "_orig_mod")
            if isinstance(getattr(model, name, None), Classifier)
        ),
        None,
    )
    raise ConfigError(
        f"save got a {type(model).__name__}.",
        f"It is a wrapper around a {type(getattr(model, inner)).__name__} of this zoo."
        if inner
        else "It is no network of this zoo, and could not be built again from its folder.",
        f"Type save(model.{inner}, folder)"
        if inner
        else "Save its state_dict() yourself, with safetensors.torch.save_file",
    )
