"""What a family file defines for the registry."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from senetzoo.nn.classifier import Config


class Paper(NamedTuple):
    """The paper of an architecture: its title, the year of its first version, and a link."""

    title: str
    year: int
    link: str


def arxiv(title: str, number: str) -> Paper:
    """The paper of this number on arXiv, which begins with the year of its first version."""
    return Paper(title, 2000 + int(number[:2]), f"https://arxiv.org/abs/{number}")


# Papers of several families.
HE_2015 = arxiv("Deep Residual Learning for Image Recognition", "1512.03385")
HE_2016 = arxiv("Identity Mappings in Deep Residual Networks", "1603.05027")
ZAGORUYKO_2016 = arxiv("Wide Residual Networks", "1605.07146")
SZEGEDY_2015 = arxiv("Rethinking the Inception Architecture for Computer Vision", "1512.00567")
SZEGEDY_2016 = arxiv(
    "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning",
    "1602.07261",
)


@dataclass(frozen=True)
class Family:
    """The networks of one family file.

    Args:
        title: Name of the family in tables.
        networks: Config of each network by name.
        papers: The paper of each network, by a shell-style pattern of names; the first match
            counts.
        small: What ``stem="cifar"`` changes, in a sentence for the docs.
        defaults: Default policy, as text, of the networks that have one; each of the others gets a
            twin with SE gates, whose name starts with ``se_``.
    """

    title: str
    networks: Mapping[str, Config]
    papers: Mapping[str, Paper]
    small: str
    defaults: Mapping[str, str] = field(default_factory=dict)

    def paper(self, name: str) -> Paper:
        """The paper of the network called `name`."""
        return next(p for pattern, p in self.papers.items() if fnmatch.fnmatch(name, pattern))
