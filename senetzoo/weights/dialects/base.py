"""What a dialect is: another library's names of our networks and of their tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor, nn

from senetzoo.nn.classifier import Classifier

Rule: TypeAlias = tuple[str, "str | Callable[[re.Match[str]], str]"]
"""A pattern and what takes its place."""
Rename: TypeAlias = "tuple[Rule, ...] | Callable[[str, Classifier], str | None]"
"""Their name of one of our tensors in a built network: rules, one after the other, or what gives
the name; None where they have none for it.

A name that still has one of our gates in it is none of theirs: `names` refuses it.
"""
Update: TypeAlias = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""A state dict of an older file under the names, and in the shapes, of today."""


@dataclass(frozen=True)
class Counterpart:
    """A network of theirs in our terms.

    ``config(model).replace(**changes)``, with `policy` over the name's own, builds it.

    Args:
        model: Name in our registry.
        changes: Fields of its config that differ.
        policy: Text of the policy over the name's own; empty for none.
        mean: Mean of the images that its weights take, where the library's network does something
            else to an image than the published transforms say; None where they say it all.
        std: Standard deviation, likewise.
    """

    model: str
    changes: Mapping[str, object] = field(default_factory=dict)
    policy: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Dialect:
    """The names that one library gives our networks and their tensors, the latter by our families.

    Args:
        networks: Its networks by its names.
        families: Its names of tensors.
        convolutions: Which weights are convolutions there and linear layers here: a pattern of its
            names, and the side of the kernel.
        mirrored: A pattern of its convolutions that take their input channels in the reverse order.
        vectors: A pattern of its tensors that are vectors there and maps of one pixel here.
        computed: A pattern of tensors that its files do not have: they follow from the shape.
        updates: How files of older versions are brought to today's names.
    """

    networks: Mapping[str, Counterpart]
    families: Mapping[str, Rename]
    convolutions: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    mirrored: Mapping[str, str] = field(default_factory=dict)
    vectors: Mapping[str, str] = field(default_factory=dict)
    computed: Mapping[str, str] = field(default_factory=dict)
    updates: Mapping[str, Update] = field(default_factory=dict)


def rewritten(name: str, *rules: Rule) -> str:
    """`name` after each of the rules in turn."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def is_gate(name: str) -> bool:
    """Whether a tensor of ours is a gate's: those sit in children such as slots and mlp_slots."""
    return any("slots" in part for part in name.split("."))


def has_deep_stem(model: Classifier) -> bool:
    """Whether the stem of a network of the ResNet line is several convolutions."""
    return isinstance(getattr(model, "conv1", None), nn.Sequential)


def dense_layers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """DenseNet files from before torchvision 0.3, which have ``norm.1`` for ``norm1``."""
    rule = (r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2")
    return {rewritten(name, rule): tensor for name, tensor in state.items()}
