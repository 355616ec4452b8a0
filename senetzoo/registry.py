"""All networks by name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from senetzoo.errors import ConfigError
from senetzoo.models import (
    alexnet,
    bn_inception,
    convnext,
    densenet,
    efficientnet,
    ghostnet,
    googlenet,
    inception_resnet,
    inception_v2,
    inception_v3,
    inception_v4,
    lenet,
    mnasnet,
    mobilenet,
    mobilenet_v2,
    mobilenet_v3,
    plain,
    preresnet,
    regnet,
    repvgg,
    resnest,
    resnet,
    senet,
    shufflenet_v2,
    sknet,
    squeezenet,
    swin,
    vgg,
    xception,
)
from senetzoo.models.family import Family
from senetzoo.nn.classifier import Config

FAMILIES: tuple[Family, ...] = (
    lenet.FAMILY,
    alexnet.FAMILY,
    vgg.FAMILY,
    repvgg.FAMILY,
    googlenet.FAMILY,
    bn_inception.FAMILY,
    inception_v2.FAMILY,
    inception_v3.FAMILY,
    inception_v4.FAMILY,
    inception_resnet.FAMILY,
    xception.FAMILY,
    resnet.FAMILY,
    plain.FAMILY,
    preresnet.FAMILY,
    senet.FAMILY,
    sknet.FAMILY,
    resnest.FAMILY,
    densenet.FAMILY,
    squeezenet.FAMILY,
    mobilenet.FAMILY,
    mobilenet_v2.FAMILY,
    shufflenet_v2.FAMILY,
    mnasnet.FAMILY,
    mobilenet_v3.FAMILY,
    ghostnet.FAMILY,
    efficientnet.FAMILY,
    regnet.FAMILY,
    swin.FAMILY,
    convnext.FAMILY,
)

# r = 16 everywhere, as in the SE paper (Section 6.1).
SE_POLICY = "se16"


@dataclass(frozen=True)
class RegistryEntry:
    """A network of the registry.

    Args:
        name: Its name.
        trunk: Name of the same network without the ``se_`` policy.
        family: Its family.
        config: Config of the network without gates.
        policy: Text of its default policy; empty if there is none.
    """

    name: str
    trunk: str
    family: Family
    config: Config
    policy: str


ENTRIES: dict[str, RegistryEntry] = {}
CONFIGS: dict[str, type[Config]] = {}
"""Config class of each family, by the family's name in ``config.json``."""


def add_family(family: Family) -> None:
    """Register the networks of a family, replacing previous ones of the same name."""
    for name, config in family.networks.items():
        own = family.defaults.get(name, "")
        ENTRIES[name] = RegistryEntry(name, name, family, config, own)
        CONFIGS[config.family] = type(config)
    for name, config in family.networks.items():
        if name not in family.defaults:
            ENTRIES[f"se_{name}"] = RegistryEntry(f"se_{name}", name, family, config, SE_POLICY)


for _family in FAMILIES:
    add_family(_family)


def entry(name: str, asked: str = "") -> RegistryEntry:
    """Look up a network.

    Args:
        name: Its name.
        asked: What the error says there is not; empty for a network of this name.

    Raises:
        ConfigError: Unknown name; the message suggests similar ones.
    """
    found = ENTRIES.get(name)
    if found is not None:
        return found
    typed, alike = name.lower().replace("-", "_"), str.maketrans("ol", "01")
    same = [each for each in ENTRIES if each.translate(alike) == typed.translate(alike)]
    near = difflib.get_close_matches(typed, ENTRIES, n=3, cutoff=0.6)
    close = list(dict.fromkeys(same + near))[:3]
    raise ConfigError(
        f"There is no {asked or f'network {name!r}'}.",
        f"The nearest names are {', '.join(close)}." if close else "No name is similar.",
        f"Type for example: {close[0]}"
        if close
        else "Type: senetzoo list; for your own network: --register MODULE:NAME",
    )
