"""What a network is, as ``config.json`` says it, and the network that one describes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

import senetzoo
from senetzoo._utils.checks import from_json, shown
from senetzoo.data.preprocessing import Preprocessing
from senetzoo.errors import BrokenError, ConfigError, PolicyError, SenetzooError, nearest
from senetzoo.gates import GATES
from senetzoo.io.description import LIBRARY, SCHEMA, Description, File, Network
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import NONE, Gate, resolve
from senetzoo.policies.recover import recovered
from senetzoo.registry import ENTRIES, FAMILIES
from senetzoo.spec import ModelSpec, named, policy, same_form

CONFIGS: Mapping[str, type[Config]] = {
    config.family: type(config) for family in FAMILIES for config in family.networks.values()
}
"""Class of each family's config by the family's name in ``config.json``."""


# --- From a network ------------------------------------------------------------------------------


def describe(
    model: Classifier,
    weights: File,
    *,
    classes: Sequence[str] | None,
    preprocessing: Preprocessing | None,
) -> Description:
    """What `model` is.

    Args:
        model: A network of this zoo.
        weights: The file of its weights.
        classes: Names of its classes in order; None where they have none.
        preprocessing: What images go through before; None where nobody says.

    Raises:
        ConfigError: `classes` or `preprocessing` do not fit the network; or the network is not what
            its config and gates build, so that it could not be built again.
    """
    if classes is not None:
        _check_classes(classes, model.num_classes)
    if preprocessing is not None and preprocessing.channels != model.in_chans:
        raise ConfigError(
            f"save got a preprocessing for {preprocessing.channels} channels.",
            f"The network takes {model.in_chans}.",
            "Give a mean and a std for each channel",
        )
    spec = model.spec
    _check_as_built(model, spec)
    config = spec.config
    return Description(
        library_name=LIBRARY,
        schema=SCHEMA,
        senetzoo=senetzoo.__version__,
        network=Network(
            name=spec.name if spec.name in ENTRIES else None,
            family=config.family,
            config={f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)},
            policy=str(spec.policy),
        ),
        preprocessing=preprocessing,
        classes=None if classes is None else tuple(classes),
        weights=weights,
    )


def name_of(model: Classifier) -> str:
    """A name for `model`: its network's, or its family's where that is none, and its gates.

    ``"resnet20+se16"`` is what `create` takes; classes, stem and the like are not in it.

    Raises:
        ConfigError: There is a module that is no gate of this zoo.
    """
    spec = model.spec
    own = named(spec.name).policy if spec.name in ENTRIES else NONE
    return spec.name if spec.policy == own else f"{spec.name}+{spec.policy}"


def _check_classes(classes: Sequence[str], number: int) -> None:
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise ConfigError(
            f"save got classes={classes!r}.",
            "They are names, one for each class.",
            'Type for example: classes=("cat", "dog")',
        )
    if len(classes) != number:
        raise ConfigError(
            f"save got {len(classes)} names of classes.",
            f"The network has {number} classes.",
            "Give one name for each, in the order of the logits",
        )


def _plain(value: Any) -> Any:
    """A config's value as JSON has it."""
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]


def _check_as_built(model: Classifier, spec: ModelSpec) -> None:
    """Refuse a network that was changed by hand: what is built from its description differs.

    Raises:
        ConfigError: It was.
    """
    with torch.device("meta"):
        twin = spec.build(seed=0)
    ours, theirs = _looks(model), _looks(twin)
    for path in ours | theirs:
        if ours.get(path) != theirs.get(path):
            raise ConfigError(
                f"Can't save this {type(model).__name__}: it was changed at {path or 'its top'}.",
                f"There is {ours.get(path, 'nothing')}, and its config and gates make "
                f"{theirs.get(path, 'nothing')}.",
                "Save its state_dict() yourself, with safetensors",
            )


def _looks(model: nn.Module) -> dict[str, str]:
    """Each module's type with its options, and each tensor's shape, by name."""
    looks = {}
    for path, module in model.named_modules():
        # In eval mode, and in one process, they are the same.
        kind = type(module).__name__.replace("SyncBatchNorm", "BatchNorm2d")
        looks[path] = f"{kind}({module.extra_repr()})"
    for path, tensor in model.state_dict().items():
        looks[path] = f"a tensor {tuple(tensor.shape)}"
    return looks


# --- From a description --------------------------------------------------------------------------


def described(description: Description) -> ModelSpec:
    """The spec that `description` speaks of.

    Raises:
        BrokenError: A field has no such value; or the fields contradict each other.
    """
    network = description.network
    config = _config(network)
    name = network.name
    if name is not None and name not in ENTRIES:
        raise BrokenError("network.name", f"there is no network {name!r}", nearest(name, ENTRIES))
    if name is not None and not same_form(ENTRIES[name].config, config):
        raise BrokenError("network.name", f"the config is not that of {name}")
    if description.classes is not None and len(description.classes) != config.num_classes:
        what = f"there are {len(description.classes)} names for {config.num_classes} classes"
        raise BrokenError("classes", what)
    seen = description.preprocessing
    if seen is not None and seen.channels != config.in_chans:
        what = f"it is for {seen.channels} channels, and the network takes {config.in_chans}"
        raise BrokenError("preprocessing", what)
    spec = ModelSpec(name or config.family, config, NONE)
    if network.policy == str(NONE):
        return spec
    with torch.device("meta"):
        sites = spec.build(seed=0).sites()
    if isinstance(network.policy, Mapping):
        return spec.replace(policy=recovered(dict(_gates(network.policy, sites)), sites))
    try:
        found = policy(network.policy)
        resolve(found, sites, spec.name)
    except PolicyError as error:
        raise BrokenError("network.policy", _sentences(error)) from None
    return spec.replace(policy=found)


def _config(network: Network) -> Config:
    kind = CONFIGS.get(network.family)
    if kind is None:
        hint = f"Families are {', '.join(CONFIGS)}"
        raise BrokenError("network.family", f"there is no family {network.family!r}", hint)
    return from_json(kind, network.config, "network.config")


def _gates(gates: Mapping[str, Any], sites: Iterable[Site]) -> Iterator[tuple[Site, Gate]]:
    """The gate at each site, as version 0.1.0 wrote what it had no text for."""
    known = {site.path: site for site in sites}
    for path, raw in gates.items():
        where = f"gates.{path}"
        if path not in known:
            raise BrokenError("gates", f"the network has no site {path!r}", nearest(path, known))
        name = raw.get("name") if isinstance(raw, dict) else None
        if not isinstance(name, str) or name not in GATES:
            what = f"it is {shown(name)}, not one of {', '.join(map(shown, GATES))}"
            raise BrokenError(f"{where}.name", what)
        fields = {field: value for field, value in raw.items() if field != "name"}
        yield known[path], from_json(GATES[name], fields, where)


def _sentences(error: SenetzooError) -> str:
    return " ".join(str(error).splitlines()[:2]).removesuffix(".")
