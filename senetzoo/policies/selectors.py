"""Selectors: which blocks of a network, or which branches of its blocks, a rule speaks of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from senetzoo.errors import PolicyError, nearest
from senetzoo.nn.slots import BRANCHES, Branch, Site


class Selector(ABC):
    """A set of sites, closed under ``&``, ``|`` and ``~``. Its ``str`` is its text form.

    Made by `stage`, `block` and `branch`.
    """

    @abstractmethod
    def matches(self, site: Site) -> bool:
        """Whether `site` is in the set."""

    def __and__(self, other: Selector) -> Selector:
        if not isinstance(other, Selector):
            return NotImplemented
        return _joined("&", (self, other))

    def __or__(self, other: Selector) -> Selector:
        if not isinstance(other, Selector):
            return NotImplemented
        return union((self, other))

    def __invert__(self) -> Selector:
        return self.inner if isinstance(self, _Not) else _Not(self)


@dataclass(frozen=True)
class _Numbers(Selector):
    """Stages or blocks by number; from 1, or from -1 for the last."""

    kind: Literal["stage", "block"]
    numbers: tuple[int, ...]

    def matches(self, site: Site) -> bool:
        number, count = (
            (site.stage, site.stages) if self.kind == "stage" else (site.block, site.blocks)
        )
        return number in self.numbers or number - count - 1 in self.numbers

    def __str__(self) -> str:
        runs: list[list[int]] = []
        for number in self.numbers:
            if runs and number > 0 and number == runs[-1][-1] + 1:
                runs[-1].append(number)
            else:
                runs.append([number])
        parts = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
        return self.kind[0] + ",".join(parts)


@dataclass(frozen=True)
class _Branch(Selector):
    name: Branch

    def matches(self, site: Site) -> bool:
        return site.branch == self.name

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class _Not(Selector):
    inner: Selector

    def matches(self, site: Site) -> bool:
        return not self.inner.matches(site)

    def __str__(self) -> str:
        return f"~{_bracketed(self.inner)}"


@dataclass(frozen=True)
class _Joined(Selector):
    """An intersection or a union; the intersection of nothing is everything."""

    operator: Literal["&", "|"]
    parts: tuple[Selector, ...]

    def matches(self, site: Site) -> bool:
        found = (part.matches(site) for part in self.parts)
        return all(found) if self.operator == "&" else any(found)

    def __str__(self) -> str:
        if self.operator == "&":
            return "&".join(map(str, self.parts)) or "*"
        # In a policy's text `|` also joins rules, so a union always has its own brackets.
        return f"({'|'.join(map(_bracketed, self.parts))})"


EVERYWHERE: Selector = _Joined("&", ())


def _joined(operator: Literal["&", "|"], selectors: Iterable[Selector]) -> Selector:
    parts: list[Selector] = []
    for selector in selectors:
        if isinstance(selector, _Joined) and selector.operator == operator:
            parts += selector.parts
        else:
            parts.append(selector)
    return parts[0] if len(parts) == 1 else _Joined(operator, tuple(parts))


def union(selectors: Iterable[Selector]) -> Selector:
    """The union of one selector or more."""
    return _joined("|", selectors)


def _bracketed(selector: Selector) -> str:
    several = isinstance(selector, _Joined) and selector.operator == "&" and selector.parts
    return f"({selector})" if several else str(selector)


def _numbers(kind: Literal["stage", "block"], numbers: tuple[int, ...]) -> Selector:
    wrong = [n for n in numbers if isinstance(n, bool) or not isinstance(n, int) or n == 0]
    if wrong or not numbers:
        raise PolicyError(
            f"{kind}({', '.join(map(repr, numbers))}) selects nothing.",
            f"A {kind} is a whole number from 1, or from -1 for the last.",
            f"Type for example: {kind}(1, 2) or {kind}(-1)",
        )
    return _Numbers(kind, tuple(sorted(set(numbers), key=lambda n: (n < 0, n))))


def stage(*numbers: int) -> Selector:
    """The blocks of these stages: from 1 (torchvision's ``layer1``), or from -1 for the last.

    Raises:
        PolicyError: No number, or one that is no whole number or 0.
    """
    return _numbers("stage", numbers)


def block(*numbers: int) -> Selector:
    """These blocks of every stage: from 1, or from -1 for the last.

    Raises:
        PolicyError: No number, or one that is no whole number or 0.
    """
    return _numbers("block", numbers)


def branch(name: Branch) -> Selector:
    """One of the two residual branches of every block: ``"attn"`` or ``"mlp"`` of a Swin block.

    Raises:
        PolicyError: No branch has that name.
    """
    if name not in BRANCHES:
        raise PolicyError(
            f"branch({name!r}) selects nothing.",
            f"Branches are {', '.join(map(repr, BRANCHES))}.",
            nearest(str(name), BRANCHES),
        )
    return _Branch(name)
