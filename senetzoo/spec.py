"""`ModelSpec`: everything that determines a network except its weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from senetzoo.errors import ConfigError, check_fields
from senetzoo.gates import GATES
from senetzoo.gates.common import GateModule
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.seeds import drawn_seed, seeded
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import NONE, Gate, Policy, no_policy
from senetzoo.policies.attach import attach as attach_gates
from senetzoo.policies.recover import recovered
from senetzoo.policies.text import parse
from senetzoo.registry import ENTRIES, entry

# Fields that don't distinguish the names of networks.
_FREE = {field.name for field in dataclasses.fields(Config)}


@dataclass(frozen=True)
class ModelSpec:
    """Everything that determines a network except its weights.

    Args:
        name: Name in the registry; the family's name if the config isn't registered.
        config: Config of the architecture.
        policy: Which gates sit where.
    """

    name: str
    config: Config
    policy: Policy

    def replace(self, **options: Any) -> ModelSpec:
        """A copy with changed fields of the config, or a changed `policy`.

        Raises:
            ConfigError: A field is unknown or has an invalid value.
            PolicyError: The policy can't be parsed.
        """
        own = {field.name for field in dataclasses.fields(self.config)}
        check_fields(f"The config of {self.name}", options, [*sorted(own), "policy"])
        policy = options.pop("policy", self.policy)
        return ModelSpec(self.name, self.config.replace(**options), as_policy(policy))

    def merged(self, *policies: Policy | str | None) -> ModelSpec:
        """A copy with other policies merged over its own, one after the other.

        Args:
            policies: Policies or their texts; `NONE` removes the previous ones, None is skipped.

        Raises:
            PolicyError: A policy can't be parsed.
        """
        merged = self.policy
        for policy in policies:
            if policy is not None:
                merged = merge(merged, as_policy(policy))
        return self.replace(policy=merged)

    def build(self, seed: int | None = None) -> Classifier:
        """Build the network with random weights.

        Args:
            seed: Seed of the initialization; None draws one from torch's global state. The trunk
                depends on the seed and `num_classes`, each gate on the seed and its site.

        Raises:
            ConfigError: `seed` isn't a valid seed.
            PolicyError: The policy doesn't fit the network.
        """
        if seed is None:
            seed = drawn_seed()
        check_seed(seed)
        # torch 2.6's get_default_device overlooks `with torch.device(...)`.
        device = torch.empty(0).device
        with seeded(seed, device):
            model = self._built()
        if not any(parameter.is_meta for parameter in model.parameters()):
            model.to(device)
        if self.policy != NONE:
            # In messages, the network's name is clearer than its class.
            attach_gates(model, self.policy, seed=seed, name=self.name)
        return model

    def _built(self) -> Classifier:
        if self.config.num_classes:
            return self.config.build()
        # With the usual classifier first, so that the trunk starts from the same weights.
        usual = ENTRIES[self.name].config if self.name in ENTRIES else Config
        model = self.config.replace(num_classes=usual.num_classes).build()
        model.reset_classifier(0)
        return model


def check_seed(seed: object) -> None:
    """Check a seed.

    Raises:
        ConfigError: It isn't an integer from 0 to 2**63 - 1.
    """
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise ConfigError(
            f"seed={seed!r} isn't a seed.",
            "A seed is a whole number from 0 to 2**63 - 1.",
            "Type for example: seed=0",
        )


def policy(text: str) -> Policy:
    """Parse a policy such as ``"se8@pre/s3-4+eca/s1-2"``.

    Raises:
        PolicyError: The text isn't a policy; the message quotes the position of the error.
    """
    return parse(text, GATES) if isinstance(text, str) else as_policy(text)


def as_policy(value: Policy | str) -> Policy:
    """Return a policy unchanged, or parse its text.

    Raises:
        PolicyError: `value` is neither.
    """
    if isinstance(value, str):
        return policy(value)
    if not isinstance(value, Policy):
        raise no_policy(value)
    return value


def merge(own: Policy, other: Policy) -> Policy:
    """Merge `other` over a network's own policy; `NONE` removes that."""
    return other if NONE in (own, other) else own | other


# --- By name -------------------------------------------------------------------------------------


def named(name: str) -> ModelSpec:
    """The spec of a network in the registry, by its name without tag and policy.

    Raises:
        ConfigError: Unknown name.
    """
    found = entry(name)
    return ModelSpec(name, found.config, policy(found.policy) if found.policy else NONE)


def split(name: str) -> tuple[str, str | None, str | None]:
    """Split ``"network.tag+policy"`` into its parts; missing ones are None.

    Raises:
        ConfigError: `name` isn't a str.
    """
    if not isinstance(name, str):
        raise ConfigError(
            f"A network can't be found by a {type(name).__name__}.",
            "It needs a name, which is text, or a folder.",
            'Type for example: "se_resnet50"',
        )
    head, plus, text = name.partition("+")
    base, dot, tag = head.partition(".")
    return base, tag if dot else None, text if plus else None


# --- Of a network --------------------------------------------------------------------------------


def gates_of(model: Classifier) -> dict[Site, Gate]:
    """The gates of a network by site.

    Raises:
        ConfigError: A module isn't a gate of this zoo.
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
                f"Only these gates can be loaded again: {', '.join(GATES)}.",
                "Register your own gate with senetzoo.register, or save its state_dict() yourself",
            )
        found[site] = module.spec
    return found


def same_form(one: Config, other: Config) -> bool:
    """Whether two configs differ only in fields that all networks have: classes, stem, etc."""
    return type(one) is type(other) and all(
        getattr(one, field.name) == getattr(other, field.name)
        for field in dataclasses.fields(one)
        if field.name not in _FREE
    )


def spec_of(model: Classifier) -> ModelSpec:
    """The current spec of a network; `Classifier.spec`.

    Raises:
        ConfigError: A module isn't a gate of this zoo.
    """
    config, gates, sites = model._now(), gates_of(model), model.sites()
    names = [name for name, entry in ENTRIES.items() if same_form(entry.config, config)]
    for name in names:
        own = named(name).policy
        if own.resolve(sites) == gates:
            return ModelSpec(name, config, own)
    return ModelSpec(names[0] if names else config.family, config, recovered(gates, sites))


def name_of(model: Classifier) -> str:
    """A name for `model`: that of its network, or else of its family, followed by its policy.

    `create` accepts ``"resnet20+se16"``. Fields such as classes and stem aren't part of it.
    """
    spec = model.spec
    own = named(spec.name).policy if spec.name in ENTRIES else NONE
    return spec.name if spec.policy == own else f"{spec.name}+{spec.policy}"


# senetzoo.nn can't import this module.
Classifier._spec_of = spec_of
