"""Policies: which gate sits at which site, as frozen values that can be combined.

On a network, a policy resolves to a mapping from sites to gates. ``p + q`` is the disjoint union
(an overlap is an error), ``p | q`` the union in which the right side wins.
"""

from __future__ import annotations

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from torch import nn
from typing_extensions import Never, Self

from senetzoo._utils.checks import check
from senetzoo._utils.terminal import counted
from senetzoo.errors import PolicyError, check_fields, nearest
from senetzoo.nn.slots import BRANCHES, POSITIONS, Position, Site
from senetzoo.policies.selectors import EVERYWHERE, Selector, check_selector, no_truth, ranges

Operator: TypeAlias = Literal["+", "|"]


class Policy(ABC):
    """Which gate sits where. Changes no network until it is attached.

    A frozen value, whose ``str`` is its text form. A gate such as ``SE(8)`` is a policy, and
    policies are combined with ``+`` (two gates at one site are an error) and ``|`` (the right side
    wins).
    """

    def at(self, position: Position, *more: Never) -> Policy:
        """The same gates at another position of their blocks.

        Raises:
            PolicyError: There is no such position, or several are given.
        """
        if more or isinstance(position, (list, tuple)):
            raise PolicyError(
                f".at({', '.join(map(repr, (position, *more)))}) needs one position.",
                "Gates at several positions are policies joined by +.",
                'Type for example: SE().at("pre") + SE().at("post")',
            )
        if position not in POSITIONS:
            raise PolicyError(
                f"position={position!r} isn't a position in a block.",
                f"Positions are {', '.join(map(repr, POSITIONS))}.",
                nearest(str(position), POSITIONS),
            )
        return self._map(lambda rule: dataclasses.replace(rule, position=position))

    def on(self, selector: Selector, *more: Never) -> Policy:
        """The same policy on these blocks only.

        Raises:
            PolicyError: `selector` isn't a selector, or several are given.
        """
        check_selector(selector, *more)
        return self._map(lambda rule: dataclasses.replace(rule, selector=rule.selector & selector))

    def off(self, selector: Selector, *more: Never) -> Policy:
        """The same policy on all blocks except these.

        Raises:
            PolicyError: `selector` isn't a selector, or several are given.
        """
        check_selector(selector, *more)
        return self.on(~selector)

    def __add__(self, other: Policy) -> Policy:
        return joined("+", (self, other))

    def __or__(self, other: Policy) -> Policy:
        return joined("|", (self, other))

    def __radd__(self, other: object) -> Policy:
        raise no_policy(other)

    __ror__ = __radd__

    def __bool__(self) -> bool:
        raise no_truth(self, "SE() | ECA()")

    @abstractmethod
    def as_tree(self) -> Rule | Joined:
        """The policy as a tree of rules joined by ``+`` and ``|``."""

    def rules(self) -> Iterator[Rule]:
        """Its rules, from left to right."""
        return self.as_tree().rules()

    def resolve(self, sites: Iterable[Site]) -> dict[Site, Gate]:
        """The gate of each selected site.

        Raises:
            PolicyError: ``+`` puts two gates at one site.
        """
        rules = list(self.rules())
        return {site: rules[number].gate for site, number in self.winners(sites).items()}

    def winners(self, sites: Iterable[Site]) -> dict[Site, int]:
        """For each selected site, the index in `rules` of the rule that applies."""
        return self.as_tree().winners(sites)

    def _map(self, change: Callable[[Rule], Rule]) -> Policy:
        return self.as_tree()._map(change)

    def __str__(self) -> str:
        return str(self.as_tree())


@dataclass(frozen=True)
class Rule(Policy):
    """One gate at one position of the selected blocks."""

    gate: Gate
    position: Position = "standard"
    selector: Selector = EVERYWHERE

    def as_tree(self) -> Rule:
        return self

    def rules(self) -> Iterator[Rule]:
        yield self

    def winners(self, sites: Iterable[Site]) -> dict[Site, int]:
        here = (site for site in sites if site.position == self.position)
        return dict.fromkeys(filter(self.selector.matches, here), 0)

    def _map(self, change: Callable[[Rule], Rule]) -> Policy:
        return change(self)

    def __str__(self) -> str:
        where = "" if self.position == "standard" else f"@{self.position}"
        which = "" if self.selector == EVERYWHERE else f"/{self.selector}"
        return f"{self.gate.text()}{where}{which}"


@dataclass(frozen=True)
class Joined(Policy):
    """Policies joined by one operator. Made by `joined`, which flattens nested ones."""

    operator: Operator
    parts: tuple[Rule | Joined, ...]

    def as_tree(self) -> Joined:
        return self

    def rules(self) -> Iterator[Rule]:
        for part in self.parts:
            yield from part.rules()

    def winners(self, sites: Iterable[Site]) -> dict[Site, int]:
        known, first = tuple(sites), 0
        found: dict[Site, int] = {}
        for part in self.parts:
            more = {site: first + number for site, number in part.winners(known).items()}
            overlap = [site for site in found if site in more]
            if overlap and self.operator == "+":
                site, rules = overlap[0], list(self.rules())
                one, other = (rules[numbers[site]].gate.text() for numbers in (found, more))
                raise PolicyError(
                    f"{self} puts two gates at {counted(len(overlap), 'site')}.",
                    f"The {site.position} position of stage {site.stage} block {site.block} would "
                    f"get both {one} and {other}.",
                    "Select different blocks, or type | instead of + to let the right side win",
                )
            found |= more
            first += len(list(part.rules()))
        return found

    def _map(self, change: Callable[[Rule], Rule]) -> Policy:
        return joined(self.operator, (part._map(change) for part in self.parts))

    def __str__(self) -> str:
        texts = (
            f"({part})" if self.operator == "+" and isinstance(part, Joined) else str(part)
            for part in self.parts
        )
        return self.operator.join(texts) or "none"


NONE: Policy = Joined("+", ())
"""The policy without gates, the neutral element of ``+`` and ``|``."""


def joined(operator: Operator, policies: Iterable[Policy]) -> Policy:
    """`policies` joined by ``"+"`` or ``"|"``; `NONE` if there are none."""
    given = tuple(policies)
    for policy in given:
        if not isinstance(policy, Policy):
            raise no_policy(policy)
    if len(given) == 1:
        return given[0]
    parts: list[Rule | Joined] = []
    for tree in (policy.as_tree() for policy in given):
        same = isinstance(tree, Joined) and (tree.operator == operator or not tree.parts)
        parts += tree.parts if same else [tree]  # type: ignore[union-attr]
    if not parts:
        return NONE
    return parts[0] if len(parts) == 1 else Joined(operator, tuple(parts))


def no_policy(value: object) -> PolicyError:
    """The error for a value that isn't a policy."""
    kind = value if isinstance(value, type) else type(value)
    if issubclass(kind, nn.Module):
        return PolicyError(
            f"{kind.__name__} isn't a policy, but a module.",
            "A policy is made from the name of a registered gate.",
            f'Type senetzoo.register({kind.__name__}), then: senetzoo.policy("{own_name(kind)}")',
        )
    remedy = 'Type for example: SE().at("pre").on(stage(3)) + ECA()'
    if isinstance(value, str):
        remedy = f"Type senetzoo.policy({value!r})"
    elif issubclass(kind, Gate):
        remedy = f"Type {kind.__name__}()"
    return PolicyError(
        f"{value!r} isn't a policy.",
        "A policy is a gate such as SE(), a combination of them, or senetzoo.policy(text).",
        remedy,
    )


def own_name(kind: type) -> str:
    """The name of a class that is registered without one: ``channel_scale``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()


class Gate(Policy):
    """Base of gate specs: frozen dataclasses that build a module.

    A gate is also a policy: itself at the ``standard`` position of every block.
    """

    name: ClassVar[str]
    """The gate's name in policy text."""
    number: ClassVar[str] = ""
    """The field that a number after the name sets, as in ``se8``; empty if there is none."""
    no_identity: ClassVar[str] = ""
    """Why the gate has no ``init="identity"``; empty if it has one, or always starts as one."""

    def __new__(cls, *args: Any, **options: Any) -> Self:
        if not isinstance(getattr(cls, "name", None), str):
            raise PolicyError(
                f"The gate {cls.__name__} has no name.",
                "Its name stands for it in the text of a policy.",
                f'Write in its class: name: ClassVar[str] = "{own_name(cls)}"',
            )
        if cls.no_identity and "init" in options:
            raise PolicyError(
                f"{cls.__name__} got init={options['init']!r}.",
                cls.no_identity,
                f"Type {cls.__name__}(), or use a gate that has one: SE(init='identity')",
            )
        # Suggest the nearest option for a misspelled one, unlike a dataclass's TypeError.
        check_fields(cls.__name__, options, [field.name for field in dataclasses.fields(cls)])  # type: ignore[arg-type]
        return super().__new__(cls)

    def __post_init__(self) -> None:
        check(self, PolicyError)

    @abstractmethod
    def build(self, site: Site) -> nn.Module:
        """Build the module for `site`, initialized from torch's global random state.

        It maps a tensor in the site's layout, (N, C, H, W) or (N, H, W, C), to one of the same
        shape.
        """

    def text(self) -> str:
        """The gate's text form, with the fields that differ from their defaults."""
        number, options = "", []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.name == self.number and type(value) is int:
                number = "" if self._implied(field, value) else str(value)
            elif not self._implied(field, value):
                options.append(f"{field.name}={value_text(value)}")
        return f"{self.name}{number}" + (f"({','.join(options)})" if options else "")

    def _implied(self, field: dataclasses.Field[Any], value: object) -> bool:
        """Whether the text can leave out `field`."""
        return bool(value == field.default)

    def as_tree(self) -> Rule:
        return Rule(self)


def value_text(value: object) -> str:
    """The value of a field in the text of a gate."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        # The colon after a tuple of one keeps it from being parsed as a number.
        return ":".join(map(str, value)) + ":" * (len(value) == 1)
    return str(value)


def resolve(policy: Policy, sites: Iterable[Site], network: str) -> Mapping[Site, Gate]:
    """Resolve `policy` on a network with these sites.

    Raises:
        PolicyError: A rule matches none of them, or selects stages or blocks that aren't there; or
            as `Policy.resolve`.
    """
    known = tuple(sites)
    positions = [p for p in POSITIONS if any(site.position == p for site in known)]
    stages = max((site.stages for site in known), default=0)
    blocks = [
        max((site.blocks for site in known if site.stage == n), default=0)
        for n in range(1, stages + 1)
    ]
    has = f"{network} has {stages} stages of {', '.join(map(str, blocks))} blocks."
    for rule in policy.rules():
        if rule.position not in positions:
            raise PolicyError(
                f"{rule} matches nothing in {network}.",
                f"{network} has the positions {', '.join(positions)}, not {rule.position}."
                if positions
                else f"{network} has no sites for gates.",
                f"Type for example: @{positions[0]}" if positions else "",
            )
        for kind, most in (("stage", stages), ("block", max(blocks))):
            absent = [n for n in rule.selector.numbers(kind) if abs(n) > most]
            if absent:
                raise PolicyError(
                    f"{rule} selects {kind} {', '.join(ranges(absent))} of {network}.",
                    has,
                    f"Select a {kind} from 1 to {most}, or {kind}(-1) for the last",
                )
        if rule.resolve(known):
            continue
        # Would it match if the blocks had the branch that it selects?
        if any(rule.resolve(dataclasses.replace(s, branch=b) for s in known) for b in BRANCHES):
            branches = sorted({s.branch for s in known if s.position == rule.position})
            raise PolicyError(
                f"{rule} matches nothing in {network}.",
                f"In {network}, the position {rule.position} is in the branch {branches[-1]} only."
                if branches[-1]
                else f"The blocks of {network} have only one branch, without a name.",
                "" if branches[-1] else "Leave out the branch",
            )
        raise PolicyError(f"{rule} matches nothing in {network}.", has, "Select other blocks")
    return policy.resolve(known)
