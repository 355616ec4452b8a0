"""What decides a network before its weights, as a value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from senetzoo.errors import ConfigError, PolicyError, check_fields
from senetzoo.gates import GATES
from senetzoo.gates.common import GateModule
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.seeds import drawn_seed, seeded
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import NONE, Gate, Policy
from senetzoo.policies.attach import attach as attach_gates
from senetzoo.policies.recover import recovered
from senetzoo.policies.text import parse
from senetzoo.registry import ENTRIES, entry

# Fields that are asked for of a network by name; the others tell the names apart.
_FREE = {field.name for field in dataclasses.fields(Config)}


@dataclass(frozen=True)
class ModelSpec:
    """Everything that decides a network before its weights.

    Args:
        name: Name in the registry; the family's name for a config that has none.
        config: Config of the architecture.
        policy: Which gates sit where.
    """

    name: str
    config: Config
    policy: Policy

    def replace(self, **options: Any) -> ModelSpec:
        """A copy with fields of the config, or `policy`, changed.

        Raises:
            ConfigError: A field that the config does not have, or a value that does not fit.
            PolicyError: A policy that can't be read.
        """
        own = {field.name for field in dataclasses.fields(self.config)}
        check_fields(f"The config of {self.name}", options, [*sorted(own), "policy"])
        policy = options.pop("policy", self.policy)
        return ModelSpec(self.name, self.config.replace(**options), as_policy(policy))

    def merged(self, *policies: Policy | str | None) -> ModelSpec:
        """A copy with other policies over its own, one after the other.

        Args:
            policies: Policies or their texts; `NONE` strips what is there, None leaves it.

        Raises:
            PolicyError: A policy that can't be read.
        """
        merged = self.policy
        for policy in policies:
            if policy is not None:
                merged = merge(merged, as_policy(policy))
        return self.replace(policy=merged)

    def build(self, seed: int | None = None) -> Classifier:
        """The network, randomly initialized.

        Args:
            seed: Seed of the initialization; None draws one from torch's global state. The trunk
                depends on the seed alone, each gate on the seed and its site.

        Raises:
            ConfigError: `seed` is no seed.
            PolicyError: The policy does not fit the network.
        """
        if seed is None:
            seed = drawn_seed()
        check_seed(seed)
        # torch 2.6's get_default_device overlooks `with torch.device(...)`.
        device = torch.empty(0).device
        with seeded(seed, device):
            model = self.config.build()
        if not any(parameter.is_meta for parameter in model.parameters()):
            model.to(device)
        if self.policy != NONE:
            # Said of the network's name, not of its class, which is shared by many.
            attach_gates(model, self.policy, seed=seed, name=self.name)
        return model


def check_seed(seed: object) -> None:
    """Refuse what is no seed.

    Raises:
        ConfigError: It is none.
    """
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise ConfigError(
            f"seed={seed!r} is no seed.",
            "A seed is a whole number from 0 up to, not including, 2**63.",
            "Type for example: seed=0",
        )


def policy(text: str) -> Policy:
    """The policy that a text such as ``"se8@pre/s3-4+eca/s1-2"`` stands for.

    Raises:
        PolicyError: It is none; the message points at the place.
    """
    return parse(text, GATES)


def as_policy(value: Policy | str) -> Policy:
    """A policy, or the one that a text stands for.

    Raises:
        PolicyError: It is none.
    """
    if isinstance(value, str):
        return policy(value)
    if not isinstance(value, Policy):
        raise PolicyError(
            f"policy={value!r} is no policy.",
            "A policy is a gate such as SE(), a combination of them, or its text.",
            'Type for example: policy=SE().at("pre")',
        )
    return value


def merge(own: Policy, other: Policy) -> Policy:
    """`other` over a network's own policy; `NONE` strips it."""
    return other if NONE in (own, other) else own | other


# --- By name -------------------------------------------------------------------------------------


def named(name: str) -> ModelSpec:
    """The spec of a network by its name in the registry, without a tag and a policy.

    Raises:
        ConfigError: An unknown name.
    """
    found = entry(name)
    return ModelSpec(name, found.config, policy(found.policy) if found.policy else NONE)


def split(name: str) -> tuple[str, str | None, str | None]:
    """``"network.tag+policy"`` in its parts; None for those that are not there.

    Raises:
        ConfigError: `name` is no text.
    """
    if not isinstance(name, str):
        raise ConfigError(
            f"A network was asked for by a value of type {type(name).__name__}.",
            "It is asked for by its name, which is text, or by its folder.",
            'Type for example: "se_resnet50"',
        )
    head, plus, text = name.partition("+")
    base, dot, tag = head.partition(".")
    return base, tag if dot else None, text if plus else None


# --- Of a network --------------------------------------------------------------------------------


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
                "Register your own gate with senetzoo.register, or save its state_dict() yourself",
            )
        found[site] = module.spec
    return found


def same_form(one: Config, other: Config) -> bool:
    """Whether two configs differ at most in fields that every network has: classes, stem ..."""
    return type(one) is type(other) and all(
        getattr(one, field.name) == getattr(other, field.name)
        for field in dataclasses.fields(one)
        if field.name not in _FREE
    )


def spec_of(model: Classifier) -> ModelSpec:
    """The spec of a network as it is now; `Classifier.spec`.

    Raises:
        ConfigError: There is a module that is no gate of this zoo.
    """
    config, gates, sites = model._now(), gates_of(model), model.sites()
    names = [name for name, entry in ENTRIES.items() if same_form(entry.config, config)]
    for name in names:
        own = named(name).policy
        if own.resolve(sites) == gates:
            return ModelSpec(name, config, own)
    return ModelSpec(names[0] if names else config.family, config, recovered(gates, sites))


def name_of(model: Classifier) -> str:
    """A name for `model`: its network's, or its family's where that is none, and its gates.

    ``"resnet20+se16"`` is what `create` takes; classes, stem and the like are not in it.
    """
    spec = model.spec
    own = named(spec.name).policy if spec.name in ENTRIES else NONE
    return spec.name if spec.policy == own else f"{spec.name}+{spec.policy}"


# A network says what it is, and its own room knows neither names nor policies.
Classifier._spec_of = spec_of
