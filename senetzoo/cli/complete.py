"""Tab completion of arguments that name something in the zoo.

Each function takes the incomplete word.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from click.shell_completion import CompletionItem

from senetzoo._utils.environment import DEVICES
from senetzoo.models.names import ModelName


def starting(words: Iterable[str], incomplete: str) -> list[Any]:
    """The `words` that start with the incomplete word."""
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def networks(incomplete: str) -> list[Any]:
    """Network names; after a ``.`` weight tags, after a ``+`` policies."""
    if "+" in incomplete:
        return policies(incomplete)
    return tags(incomplete) if "." in incomplete else starting(get_args(ModelName), incomplete)


def tags(incomplete: str) -> list[Any]:
    """Weight tags."""
    from senetzoo.weights.manifest import manifest

    return starting(manifest(), incomplete)


def policies(incomplete: str) -> list[Any]:
    """Gate names; after an ``@`` positions."""
    from senetzoo.gates import GATES
    from senetzoo.nn.slots import POSITIONS

    base, plus, last = incomplete.rpartition("+")
    gate, at, _ = last.partition("@")
    known = [f"{gate}@{position}" for position in POSITIONS] if at else GATES
    return starting([f"{base}{plus}{text}" for text in known], incomplete)


def networks_and_folders(incomplete: str) -> list[Any]:
    """What `networks` completes, and folders."""
    return [*networks(incomplete), CompletionItem(incomplete, type="dir")]


def data(incomplete: str) -> list[Any]:
    """Data sets by name, files and folders."""
    from senetzoo.data.sources import WORDS

    return [
        *starting(WORDS, incomplete),
        CompletionItem(incomplete, type="file"),
    ]


def devices(incomplete: str) -> list[Any]:
    """Device types."""
    return starting(DEVICES, incomplete)


def families(incomplete: str) -> list[Any]:
    """Titles of network families."""
    from senetzoo.registry import FAMILIES

    return starting(sorted(family.title for family in FAMILIES), incomplete)
