"""What a family file hands to the registry."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field

from senetzoo.nn.classifier import Config


@dataclass(frozen=True)
class Paper:
    """Where an architecture comes from.

    Args:
        title: Title.
        year: Year of its first public version.
        link: Where to read it.
    """

    title: str
    year: int
    link: str


@dataclass(frozen=True)
class Family:
    """The networks of one family file.

    Args:
        title: Name of the family in tables.
        networks: Config of each network by name.
        papers: The paper of each network, by a shell-style pattern of names; the first that
            matches counts.
        small: What ``stem="cifar"`` changes, in a sentence for the docs.
        defaults: Policy text of the networks that have gates of their own; all others get a twin
            with ``se_`` before its name.
    """

    title: str
    networks: Mapping[str, Config]
    papers: Mapping[str, Paper]
    small: str
    defaults: Mapping[str, str] = field(default_factory=dict)

    def paper(self, name: str) -> Paper:
        """The paper of the network called `name`."""
        return next(p for pattern, p in self.papers.items() if fnmatch.fnmatch(name, pattern))
