"""What a network is, as a ``config.json`` says it, and the network that one describes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

import senetzoo
from senetzoo._utils.checks import from_json, shown
from senetzoo.blueprint import Blueprint, policy
from senetzoo.data.transforms import CIFAR10, IMAGENET, Transforms
from senetzoo.errors import BrokenError, ConfigError, PolicyError, SenetzooError, nearest
from senetzoo.gates import GATES
from senetzoo.gates.common import GateModule
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.config import Config
from senetzoo.nn.report import Input
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import NONE, Gate, resolve
from senetzoo.policies.recover import recovered
from senetzoo.registry import ENTRIES, FAMILIES
from senetzoo.weights.folder import LIBRARY, SCHEMA, Description, File, Seen

# Fields that are asked for of a network by name; the others tell the names apart.
_FREE = {field.name for field in dataclasses.fields(Config)}

CONFIGS: Mapping[str, type[Config]] = {
    config.family: type(config) for family in FAMILIES for config in family.networks.values()
}
"""Class of each family's config by the family's name in ``config.json``."""


# --- From a network ------------------------------------------------------------------------------


def describe(
    model: Classifier, weights: File, *, classes: Sequence[str] | None, seen: Input | None
) -> Description:
    """What `model` is.

    Args:
        model: A network of this zoo.
        weights: The file of its weights.
        classes: Names of its classes in order; None where they have none.
        seen: What an image goes through before; None where nobody says.

    Raises:
        ConfigError: `classes` are not as many as the network has, or no texts; or the network is
            not what its config and gates build, so that it could not be built again.
    """
    if classes is not None:
        _check_classes(classes, model.config.num_classes)
    gates = gates_of(model)
    text = _text(gates, model)
    config = model.config
    _check_as_built(model, Blueprint(config.family, config, recovered(gates, model.sites())))
    return Description(
        library_name=LIBRARY,
        schema=SCHEMA,
        senetzoo=senetzoo.__version__,
        architecture=_architecture(config),
        family=config.family,
        config={f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)},
        policy=text,
        gates=None if text is not None else {s.path: _fields(gate) for s, gate in gates.items()},
        num_classes=config.num_classes,
        label_names=None if classes is None else tuple(classes),
        pretrained_cfg=None
        if seen is None
        else Seen(
            (seen.channels, seen.size, seen.size),
            seen.mean,
            seen.std,
            seen.interpolation,
            seen.crop,
        ),
        weights=weights,
    )


def name_of(model: Classifier) -> str:
    """A name for `model`: its network's, or its family's where that is none, and its gates.

    ``"resnet20+se16"`` is what `create` takes; classes, stem and the like are not in it.

    Raises:
        ConfigError: There is a module that is no gate of this zoo.
    """
    text = _text(gates_of(model), model)
    name = _architecture(model.config) or model.config.family
    return name if text is None or text == str(NONE) else f"{name}+{text}"


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


def gates_of(model: Classifier) -> dict[Site, Gate]:
    """The gate at each site that has one.

    Raises:
        ConfigError: There is a module that is no gate of this zoo.
    """
    found: dict[Site, Gate] = {}
    for site, slots in model.slots():
        module = slots.get(site.position)
        if module is None:
            continue
        if not isinstance(module, GateModule) or GATES.get(module.spec.name) is not type(
            module.spec
        ):
            raise ConfigError(
                f"Can't save the network with a {type(module).__name__} at {site.path}.",
                f"The gates that can be read back are {', '.join(GATES)}.",
                "Save its state_dict() yourself, with safetensors",
            )
        found[site] = module.spec
    return found


def _text(gates: Mapping[Site, Gate], model: Classifier) -> str | None:
    """The text that means these gates on `model`; None where there is none."""
    sites = model.sites()
    text = str(recovered(gates, sites))
    try:
        return text if policy(text).resolve(sites) == gates else None
    except PolicyError:
        return None


def _architecture(config: Config) -> str | None:
    return next((name for name, entry in ENTRIES.items() if _same(entry.config, config)), None)


def _same(one: Config, other: Config) -> bool:
    """Whether two configs differ at most in fields that every network has."""
    return type(one) is type(other) and all(
        getattr(one, field.name) == getattr(other, field.name)
        for field in dataclasses.fields(one)
        if field.name not in _FREE
    )


def _plain(value: Any) -> Any:
    """A config's value as JSON has it."""
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]


def _fields(gate: Gate) -> dict[str, object]:
    return {"name": gate.name, **dataclasses.asdict(gate)}  # type: ignore[call-overload]


def _check_as_built(model: Classifier, blueprint: Blueprint) -> None:
    """Refuse a network that was changed by hand: what is built from its description differs.

    Raises:
        ConfigError: It was.
    """
    with torch.device("meta"):
        twin = blueprint.build(seed=0)
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


def transforms_of(model: Classifier) -> Transforms:
    """What a grey or RGB image goes through before `model` sees it; see `senetzoo.transforms`."""
    report, channels = model.load_report, model.config.in_chans
    if report is not None and report.input is not None:
        seen = report.input
        known = Transforms(seen.size, seen.mean, seen.std, seen.interpolation, seen.crop)
    else:
        size = model.config.input_size
        known = CIFAR10 if size == 32 else dataclasses.replace(IMAGENET, size=size)
    if len(known.mean) == channels:
        return known
    mean, std = (sum(values) / len(values) for values in (known.mean, known.std))
    return dataclasses.replace(known, mean=(mean,) * channels, std=(std,) * channels)


# --- From a description --------------------------------------------------------------------------


def blueprint_of(description: Description) -> Blueprint:
    """The config and the gates that `description` speaks of.

    Raises:
        BrokenError: A field has no such value; or the fields contradict each other.
    """
    config = _config(description)
    name = description.architecture
    if name is not None and name not in ENTRIES:
        raise BrokenError("architecture", f"there is no network {name!r}", nearest(name, ENTRIES))
    if name is not None and not _same(ENTRIES[name].config, config):
        raise BrokenError("architecture", f"the config is not that of {name}")
    if config.num_classes != description.num_classes:
        what = f"it is {description.num_classes}, and the config says {config.num_classes}"
        raise BrokenError("num_classes", what)
    blueprint = Blueprint(name or config.family, config, NONE)
    if description.policy == str(NONE):
        return blueprint
    with torch.device("meta"):
        sites = blueprint.build(seed=0).sites()
    if description.policy is None:
        return blueprint.replace(
            policy=recovered(dict(_gates(description.gates or {}, sites)), sites)
        )
    try:
        found = policy(description.policy)
        resolve(found, sites, blueprint.name)
    except PolicyError as error:
        raise BrokenError("policy", _sentences(error)) from None
    return blueprint.replace(policy=found)


def _config(description: Description) -> Config:
    kind = CONFIGS.get(description.family)
    if kind is None:
        hint = f"Families are {', '.join(CONFIGS)}"
        raise BrokenError("family", f"there is no family {description.family!r}", hint)
    return from_json(kind, description.config, "config")


def _gates(
    gates: Mapping[str, Mapping[str, object]], sites: Iterable[Site]
) -> Iterator[tuple[Site, Gate]]:
    known = {site.path: site for site in sites}
    for path, raw in gates.items():
        where = f"gates.{path}"
        if path not in known:
            raise BrokenError("gates", f"the network has no site {path!r}", nearest(path, known))
        name = raw.get("name")
        if not isinstance(name, str) or name not in GATES:
            what = f"it is {shown(name)}, not one of {', '.join(map(shown, GATES))}"
            raise BrokenError(f"{where}.name", what)
        fields = {field: value for field, value in raw.items() if field != "name"}
        yield known[path], from_json(GATES[name], fields, where)


def input_of(description: Description) -> Input | None:
    """What the network was trained to see.

    Raises:
        BrokenError: A value does not fit.
    """
    seen = description.pretrained_cfg
    if seen is None:
        return None
    where, channels = "pretrained_cfg", description.config["in_chans"]
    if len(seen.input_size) != 3 or seen.input_size[0] != channels:
        what = f"it is {list(seen.input_size)}, not {channels} channels, height and width"
        raise BrokenError(f"{where}.input_size", what)
    if seen.input_size[1] != seen.input_size[2]:
        raise BrokenError(f"{where}.input_size", f"{list(seen.input_size)} is no square")
    size = seen.input_size[1]
    try:
        Transforms(size, seen.mean, seen.std, seen.interpolation, seen.crop_pct)
    except ConfigError as error:
        raise BrokenError(where, _sentences(error)) from None
    return Input(len(seen.mean), size, seen.mean, seen.std, seen.interpolation, seen.crop_pct)


def _sentences(error: SenetzooError) -> str:
    return " ".join(str(error).splitlines()[:2]).removesuffix(".")
