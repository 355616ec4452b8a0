"""Policies: which gate sits at which site, as frozen values that can be combined.

A policy means what it resolves to on a network: a mapping from sites to gates. Two policies are
equal on a network when those mappings are. ``p + q`` is the disjoint union (an overlap is an
error), ``p | q`` the union in which the right side wins.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn
from typing_extensions import Self

from senetzoo.errors import PolicyError, check_fields, nearest
from senetzoo.nn.slots import POSITIONS, Position, Site
from senetzoo.policies.selectors import EVERYWHERE, Selector


class Policy(ABC):
    """Which gate sits where. Nothing touches a network until it is attached."""

    def at(self, position: Position) -> Policy:
        """The same gates at another position of their blocks."""
        if position not in POSITIONS:
            raise PolicyError(
                f"position {position!r} is not a place in a block.",
                f"Positions are {', '.join(map(repr, POSITIONS))}.",
                nearest(str(position), POSITIONS),
            )
        return self._map(lambda rule: dataclasses.replace(rule, position=position))

    def on(self, selector: Selector) -> Policy:
        """The same policy on these blocks only."""
        _check_selector("on", selector)
        return self._map(lambda rule: dataclasses.replace(rule, selector=rule.selector & selector))

    def off(self, selector: Selector) -> Policy:
        """The same policy on all blocks but these."""
        _check_selector("off", selector)
        return self.on(~selector)

    def __add__(self, other: Policy) -> Policy:
        if not isinstance(other, Policy):
            return NotImplemented
        return _Sum(self.as_tree(), other.as_tree())

    def __or__(self, other: Policy) -> Policy:
        if not isinstance(other, Policy):
            return NotImplemented
        return _Override(self.as_tree(), other.as_tree())

    def as_tree(self) -> Policy:
        """The policy as rules joined by ``+`` and ``|``."""
        return self

    @abstractmethod
    def rules(self) -> Iterator[Rule]:
        """The rules in it, from left to right."""

    @abstractmethod
    def resolve(self, sites: Iterable[Site]) -> dict[Site, Gate]:
        """The gate at each site it speaks of; other sites are left out."""

    @abstractmethod
    def wins(self, sites: Iterable[Site]) -> list[tuple[Rule, set[Site]]]:
        """Each rule, from left to right, with the sites at which its gate is the one that sits."""

    @abstractmethod
    def _map(self, change: Any) -> Policy: ...


@dataclass(frozen=True)
class Nothing(Policy):
    """The policy without gates: the unit of ``+`` and ``|``."""

    def rules(self) -> Iterator[Rule]:
        return iter(())

    def resolve(self, sites: Iterable[Site]) -> dict[Site, Gate]:
        return {}

    def wins(self, sites: Iterable[Site]) -> list[tuple[Rule, set[Site]]]:
        return []

    def _map(self, change: Any) -> Policy:
        return self

    def __str__(self) -> str:
        return "none"


NONE: Policy = Nothing()


@dataclass(frozen=True)
class Rule(Policy):
    """One gate at one position of the selected blocks."""

    gate: Gate
    position: Position = "standard"
    selector: Selector = EVERYWHERE

    def rules(self) -> Iterator[Rule]:
        yield self

    def resolve(self, sites: Iterable[Site]) -> dict[Site, Gate]:
        return {
            site: self.gate
            for site in sites
            if site.position == self.position and self.selector.matches(site)
        }

    def wins(self, sites: Iterable[Site]) -> list[tuple[Rule, set[Site]]]:
        return [(self, set(self.resolve(sites)))]

    def _map(self, change: Any) -> Policy:
        changed: Policy = change(self)
        return changed

    def __str__(self) -> str:
        where = "" if self.position == "standard" else f"@{self.position}"
        which = "" if self.selector == EVERYWHERE else f"/{self.selector}"
        return f"{self.gate.text()}{where}{which}"


@dataclass(frozen=True)
class _Sum(Policy):
    left: Policy
    right: Policy

    def rules(self) -> Iterator[Rule]:
        yield from self.left.rules()
        yield from self.right.rules()

    def resolve(self, sites: Iterable[Site]) -> dict[Site, Gate]:
        known = tuple(sites)
        left, right = self.left.resolve(known), self.right.resolve(known)
        overlap = [site for site in left if site in right]
        if overlap:
            site = overlap[0]
            raise PolicyError(
                f"{self} puts two gates at {len(overlap)} site{'s' * (len(overlap) > 1)}.",
                f"At the {site.position} position of stage {site.stage} block {site.block} both "
                f"{left[site].text()} and {right[site].text()} would sit.",
                "Let them select different blocks, or type | instead of + to let the right one win",
            )
        return {**left, **right}

    def wins(self, sites: Iterable[Site]) -> list[tuple[Rule, set[Site]]]:
        known = tuple(sites)
        return self.left.wins(known) + self.right.wins(known)

    def _map(self, change: Any) -> Policy:
        return _Sum(self.left._map(change), self.right._map(change))

    def __str__(self) -> str:
        return f"{_bracketed(self.left, _Override)}+{_bracketed(self.right, _Override, _Sum)}"


@dataclass(frozen=True)
class _Override(Policy):
    left: Policy
    right: Policy

    def rules(self) -> Iterator[Rule]:
        yield from self.left.rules()
        yield from self.right.rules()

    def resolve(self, sites: Iterable[Site]) -> dict[Site, Gate]:
        known = tuple(sites)
        return {**self.left.resolve(known), **self.right.resolve(known)}

    def wins(self, sites: Iterable[Site]) -> list[tuple[Rule, set[Site]]]:
        known = tuple(sites)
        right = self.right.wins(known)
        taken = set().union(*(won for _, won in right))
        return [(rule, won - taken) for rule, won in self.left.wins(known)] + right

    def _map(self, change: Any) -> Policy:
        return _Override(self.left._map(change), self.right._map(change))

    def __str__(self) -> str:
        return f"{self.left}|{_bracketed(self.right, _Override)}"


def _check_selector(method: str, selector: object) -> None:
    if not isinstance(selector, Selector):
        raise PolicyError(
            f".{method}({selector!r}) got no selector.",
            "Blocks are selected by stage(...) and block(...), joined with & | ~.",
            f"Type for example: SE().{method}(stage(3, 4))",
        )


def _bracketed(policy: Policy, *kinds: type[Policy]) -> str:
    return f"({policy})" if isinstance(policy, kinds) else str(policy)


class Gate(Policy):
    """Interface of a gate's spec: a frozen dataclass that builds a module of the same shape.

    A gate is a policy of itself: at the ``standard`` position of every block.
    """

    name: ClassVar[str]
    """The gate's name in text."""
    number: ClassVar[str] = ""
    """The field that a bare number after the name sets: ``se8``; empty where none does."""
    no_identity: ClassVar[str] = ""
    """Why the gate has no ``init="identity"``, where it has none."""

    def __new__(cls, *args: Any, **options: Any) -> Self:
        if cls.no_identity and "init" in options:
            raise PolicyError(
                f"{cls.__name__} got init={options['init']!r}.",
                cls.no_identity,
                f"Type {cls.__name__}(), or take a gate that has one: SE(init='identity')",
            )
        # A misspelt option gets the nearest right one, which a dataclass's TypeError has not.
        check_fields(cls.__name__, options, [field.name for field in dataclasses.fields(cls)])  # type: ignore[arg-type]
        return super().__new__(cls)

    @abstractmethod
    def build(self, site: Site) -> nn.Module:
        """The module for `site`, initialised from torch's global random state.

        It maps a tensor of the site's layout, (N, C, H, W) or (N, H, W, C), to one of the same
        shape.
        """

    def text(self) -> str:
        """The gate in the text form: only what differs from the defaults."""
        number, options = "", []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.name == self.number and type(value) is int:
                number = "" if self._implied(field, value) else str(value)
            elif not self._implied(field, value):
                options.append(f"{field.name}={_value_text(value)}")
        return f"{self.name}{number}" + (f"({','.join(options)})" if options else "")

    def _implied(self, field: dataclasses.Field[Any], value: object) -> bool:
        """Whether leaving `field` out of the text gives the same value."""
        return bool(value == field.default)

    def as_tree(self) -> Policy:
        return Rule(self)

    def rules(self) -> Iterator[Rule]:
        yield Rule(self)

    def resolve(self, sites: Iterable[Site]) -> dict[Site, Gate]:
        return Rule(self).resolve(sites)

    def wins(self, sites: Iterable[Site]) -> list[tuple[Rule, set[Site]]]:
        return Rule(self).wins(sites)

    def _map(self, change: Any) -> Policy:
        changed: Policy = change(Rule(self))
        return changed

    def __str__(self) -> str:
        return str(Rule(self))


def _value_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        # A tuple of one ends in a colon, so that it is not read back as a number.
        return ":".join(map(str, value)) + ":" * (len(value) == 1)
    return str(value)


def is_number(value: object) -> bool:
    """Whether `value` is a finite number; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def resolve(policy: Policy, sites: Iterable[Site], network: str) -> Mapping[Site, Gate]:
    """What `policy` means on a network with these sites.

    Raises:
        PolicyError: A rule that matches no site, or an overlap under ``+``.
    """
    known = tuple(sites)
    for rule in policy.rules():
        if rule.resolve(known):
            continue
        positions = [p for p in POSITIONS if any(site.position == p for site in known)]
        if rule.position not in positions:
            raise PolicyError(
                f"{rule} matches nothing in {network}.",
                f"{network} has the positions {', '.join(positions)}, not {rule.position}.",
                f"Type for example: @{positions[0]}" if positions else "",
            )
        stages = max(site.stages for site in known)
        blocks = [
            max((s.block for s in known if s.stage == n), default=0) for n in range(1, stages + 1)
        ]
        raise PolicyError(
            f"{rule} matches nothing in {network}.",
            f"{network} has {stages} stages of {', '.join(map(str, blocks))} blocks.",
            f"Select a stage from 1 to {stages}, or stage(-1) for the last",
        )
    return policy.resolve(known)
