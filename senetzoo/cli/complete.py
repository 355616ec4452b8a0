"""What a shell offers at Tab for arguments that name something of the zoo.

Each function gets the word so far.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from click.shell_completion import CompletionItem

from senetzoo._utils.environment import DEVICES
from senetzoo.models.names import ModelName


def starting(words: Iterable[str], incomplete: str) -> list[Any]:
    """Those of `words` that start with the word so far."""
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def networks(incomplete: str) -> list[Any]:
    """Names; after a ``.`` the tags of the weights, after a ``+`` a policy."""
    if "+" in incomplete:
        return policies(incomplete)
    return tags(incomplete) if "." in incomplete else starting(get_args(ModelName), incomplete)


def tags(incomplete: str) -> list[Any]:
    """Tags of weights."""
    from senetzoo.weights.manifest import manifest

    return starting(manifest(), incomplete)


def policies(incomplete: str) -> list[Any]:
    """Names of gates; after an ``@`` the positions."""
    from senetzoo.gates import GATES
    from senetzoo.nn.slots import POSITIONS

    base, plus, last = incomplete.rpartition("+")
    gate, at, _ = last.partition("@")
    known = [f"{gate}@{position}" for position in POSITIONS] if at else GATES
    return starting([f"{base}{plus}{text}" for text in known], incomplete)


def networks_and_folders(incomplete: str) -> list[Any]:
    """Names as of `networks`, and folders that `senetzoo.save` may have written."""
    return [*networks(incomplete), CompletionItem(incomplete, type="dir")]


def data(incomplete: str) -> list[Any]:
    """Images with labels: what needs no file here, files and folders."""
    return [
        *starting(["digits", "cifar10", "cifar100"], incomplete),
        CompletionItem(incomplete, type="file"),
    ]


def devices(incomplete: str) -> list[Any]:
    """Types of devices that networks are run on."""
    return starting(DEVICES, incomplete)


def families(incomplete: str) -> list[Any]:
    """Titles of families."""
    from senetzoo.registry import FAMILIES

    return starting(sorted(family.title for family in FAMILIES), incomplete)
