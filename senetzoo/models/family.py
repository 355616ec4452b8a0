"""What a family file hands to the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from senetzoo.nn.classifier import Config


@dataclass(frozen=True)
class Family:
    """The networks of one family file.

    Args:
        title: Name of the family in tables.
        networks: Config of each network by name.
        defaults: Policy text of the networks that have gates of their own.
    """

    title: str
    networks: Mapping[str, Config]
    defaults: Mapping[str, str] = field(default_factory=dict)
