"""What decides a network before its weights, as a value, and what is asked for beyond it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from senetzoo.errors import ConfigError, PolicyError, check_fields, nearest
from senetzoo.gates import GATES
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.config import Config
from senetzoo.nn.seeds import drawn_seed, seeded
from senetzoo.policies.algebra import NONE, Policy, resolve
from senetzoo.policies.attach import attach as attach_gates
from senetzoo.policies.text import parse
from senetzoo.weights.load import Channels, Weights, load_weights


@dataclass(frozen=True)
class Blueprint:
    """Everything that decides a network before its weights.

    Args:
        name: Name in the registry.
        arch: Config of the architecture.
        policy: Which gates sit where.
    """

    name: str
    arch: Config
    policy: Policy

    def replace(self, **changes: Any) -> Blueprint:
        """A copy with fields of the architecture's config, or `policy`, changed.

        Raises:
            ConfigError: A field that the architecture does not have.
        """
        own = {field.name for field in dataclasses.fields(self.arch)}
        check_fields(f"The config of {self.name}", changes, [*sorted(own), "policy"])
        policy = changes.pop("policy", self.policy)
        return Blueprint(self.name, self.arch.replace(**changes), as_policy(policy))

    def build(self, *, seed: int | None = None) -> Classifier:
        """The network, randomly initialised.

        Args:
            seed: Seed of the initialisation; None draws one from torch's global state. The trunk
                depends on the seed alone, each gate on the seed and its site.
        """
        if seed is None:
            seed = drawn_seed()
        check_seed(seed)
        # torch 2.6's get_default_device overlooks `with torch.device(...)`.
        device = torch.empty(0).device
        with seeded(seed, device):
            model = self.arch.build()
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
    if other == NONE or own == NONE:
        return other
    return own | other


@dataclass(frozen=True)
class Changes:
    """What is asked for other than a blueprint has it.

    Args:
        policies: Policies over its own, one after another.
        fields: Fields of the config by name; those that are None stay as they are.
        channels: How weights take another number of input channels.
        seed: Seed of the initialisation.
    """

    policies: tuple[Policy | str | None, ...]
    fields: Mapping[str, Any]
    channels: Channels | None
    seed: int | None

    def over(self, blueprint: Blueprint) -> Blueprint:
        """`blueprint` with the changes."""
        for other in self.policies:
            if other is not None:
                blueprint = blueprint.replace(policy=merge(blueprint.policy, as_policy(other)))
        given = {name: value for name, value in self.fields.items() if value is not None}
        return blueprint.replace(**given)

    def build(self, blueprint: Blueprint) -> Classifier:
        """`blueprint` with the changes, built without weights.

        Raises:
            ConfigError: `channels` is given, and there are no weights that it could speak of.
        """
        if self.channels is not None:
            raise ConfigError(
                f"channels={self.channels!r} was given without weights.",
                "It says how the first convolution of trained weights takes in_chans channels.",
                "Leave channels out, or type pretrained=True",
            )
        return self.over(blueprint).build(seed=self.seed)

    def over_weights(self, trained: Blueprint) -> Blueprint:
        """`trained` with the changes, for `fill`.

        Raises:
            ConfigError: `channels` is no way to take channels, or `in_chans` is not given.
        """
        if self.channels is not None:
            self._check_channels()
        return self.over(trained)

    def fill(
        self, model: Classifier, trained: Blueprint, weights: Weights, state: Mapping[str, Tensor]
    ) -> Classifier:
        """Load weights.

        Args:
            model: The network, of the blueprint that `over_weights` gives.
            trained: What the weights were trained with.
            weights: What they are.
            state: Their tensors.

        Returns:
            `model`, in eval mode.

        Raises:
            WeightsError: The weights do not fit.
        """
        # Of one network's sites: the trunk of both is the same.
        sites, wanted = model.sites(), self.over(trained)
        before, after = (resolve(b.policy, sites, b.name) for b in (trained, wanted))
        keep = {site.path for site, gate in before.items() if after.get(site) == gate}
        load_weights(model, weights, state, keep=keep, channels=self.channels)
        return model.eval()

    def _check_channels(self) -> None:
        known = get_args(Channels)
        if self.channels not in known:
            raise ConfigError(
                f"channels={self.channels!r} is no way to take other channels.",
                f"The ways are {', '.join(map(repr, known))}.",
                nearest(str(self.channels), known),
            )
        if self.fields.get("in_chans") is None:
            raise ConfigError(
                f"channels={self.channels!r} was given without in_chans.",
                "It says how the first convolution of trained weights takes in_chans channels.",
                f"Type for example: in_chans=1, channels={self.channels!r}",
            )
