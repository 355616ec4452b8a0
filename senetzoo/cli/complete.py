"""What a shell offers at Tab for arguments that name something of the zoo.

Each function has the arguments of click's ``shell_complete``: context, parameter, and the word so
far.
"""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem

from senetzoo._utils.environment import DEVICES
from senetzoo.gates import GATES
from senetzoo.nn.slots import POSITIONS
from senetzoo.registry import ENTRIES, FAMILIES
from senetzoo.weights import manifest


def starting(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Those of `words` that start with the word so far."""
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def networks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names; after a ``.`` the tags of the weights, after a ``+`` a policy."""
    base, plus, policy = incomplete.rpartition("+")
    if plus:
        return [CompletionItem(f"{base}+{text}") for text in _gates(policy)]
    if "." in incomplete:
        return tags(ctx, param, incomplete)
    return starting(ENTRIES, incomplete)


def tags(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Tags of weights."""
    return starting(manifest.manifest(), incomplete)


def policies(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of gates; after an ``@`` the positions."""
    base, plus, last = incomplete.rpartition("+")
    return [CompletionItem(f"{base}{plus}{text}") for text in _gates(last)]


def networks_and_folders(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names as of `networks`, and folders that `senetzoo.save` may have written."""
    return [*networks(ctx, param, incomplete), CompletionItem(incomplete, type="dir")]


def data(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Images with labels: the digits that are always there, files and folders."""
    return [*starting(["digits"], incomplete), CompletionItem(incomplete, type="file")]


def devices(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Types of devices that networks are run on."""
    return starting(DEVICES, incomplete)


def families(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Titles of families."""
    return starting(sorted(family.title for family in FAMILIES), incomplete)


def _gates(incomplete: str) -> list[str]:
    gate, at, position = incomplete.partition("@")
    if at:
        return [f"{gate}@{name}" for name in POSITIONS if name.startswith(position)]
    return [name for name in GATES if name.startswith(incomplete)]
