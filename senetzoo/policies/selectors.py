"""Selectors: which blocks of a network a rule speaks of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from senetzoo.errors import PolicyError
from senetzoo.nn.slots import Site


class Selector(ABC):
    """A set of blocks, closed under ``&``, ``|`` and ``~``. Its ``str`` is its text form."""

    @abstractmethod
    def matches(self, site: Site) -> bool:
        """Whether `site` is in the set."""

    def __and__(self, other: Selector) -> Selector:
        if not isinstance(other, Selector):
            return NotImplemented
        if isinstance(self, _All):
            return other
        return self if isinstance(other, _All) else _Both(self, other)

    def __or__(self, other: Selector) -> Selector:
        if not isinstance(other, Selector):
            return NotImplemented
        return _Either(self, other)

    def __invert__(self) -> Selector:
        return self.inner if isinstance(self, _Not) else _Not(self)


@dataclass(frozen=True)
class _All(Selector):
    def matches(self, site: Site) -> bool:
        return True

    def __str__(self) -> str:
        return "*"


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
class _Not(Selector):
    inner: Selector

    def matches(self, site: Site) -> bool:
        return not self.inner.matches(site)

    def __str__(self) -> str:
        return f"~{_wrapped(self.inner)}"


@dataclass(frozen=True)
class _Both(Selector):
    left: Selector
    right: Selector

    def matches(self, site: Site) -> bool:
        return self.left.matches(site) and self.right.matches(site)

    def __str__(self) -> str:
        return f"{_wrapped(self.left)}&{_wrapped(self.right)}"


@dataclass(frozen=True)
class _Either(Selector):
    left: Selector
    right: Selector

    def matches(self, site: Site) -> bool:
        return self.left.matches(site) or self.right.matches(site)

    def __str__(self) -> str:
        # In a policy's text `|` also joins rules, so a union always has its own brackets.
        return f"({_wrapped(self.left)}|{_wrapped(self.right)})"


def _wrapped(selector: Selector) -> str:
    return f"({selector})" if isinstance(selector, _Both) else str(selector)


EVERYWHERE: Selector = _All()


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
    """The blocks of these stages: from 1 (torchvision's ``layer1``), or from -1 for the last."""
    return _numbers("stage", numbers)


def block(*numbers: int) -> Selector:
    """These blocks of every stage: from 1, or from -1 for the last."""
    return _numbers("block", numbers)
