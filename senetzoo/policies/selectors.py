"""Selectors: the blocks of a network, or the branches of its blocks, that a rule applies to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from senetzoo.errors import PolicyError, nearest
from senetzoo.nn.slots import BRANCHES, Branch, Site


def no_truth(value: object, example: str) -> PolicyError:
    """The error for `and`, `or` and `not`, of which Python would return one side unchanged."""
    return PolicyError(
        f"{value} is neither true nor false.",
        "Python's and, or and not can't combine selectors or policies.",
        f"Type & | ~ for selectors and + | for policies, for example: {example}; to ask whether "
        "there is one: is None, or == NONE",
    )


@dataclass(frozen=True)
class Selector:
    """A set of sites, which can be combined with ``&``, ``|`` and ``~``. ``str`` is its text form.

    Made by `stage`, `block` and `branch`.

    Args:
        kind: What it selects by, or the operator that combines other selectors.
        parts: Numbers of stages or blocks, names of branches, or other selectors. The intersection
            of no selectors is everything.
    """

    kind: Literal["stage", "block", "branch", "~", "&", "|"]
    parts: tuple[Any, ...]

    def matches(self, site: Site) -> bool:
        """Whether `site` is in the set."""
        if self.kind == "branch":
            return site.branch in self.parts
        if self.kind in ("stage", "block"):
            number, count = getattr(site, self.kind), getattr(site, self.kind + "s")
            return number in self.parts or number - count - 1 in self.parts
        found = (part.matches(site) for part in self.parts)
        # `~` has one part, so that "any" is right for it, too.
        return all(found) if self.kind == "&" else any(found) != (self.kind == "~")

    def numbers(self, kind: str) -> list[int]:
        """The numbers of stages or of blocks in it."""
        if self.kind == kind:
            return list(self.parts)
        parts = (part for part in self.parts if isinstance(part, Selector))
        return [number for part in parts for number in part.numbers(kind)]

    def __and__(self, other: Selector) -> Selector:
        return combined("&", (self, other))

    def __or__(self, other: Selector) -> Selector:
        return combined("|", (self, other))

    def __rand__(self, other: object) -> Selector:
        check_selector(other)
        return NotImplemented

    __ror__ = __rand__

    def __invert__(self) -> Selector:
        inner: Selector = self.parts[0] if self.kind == "~" else Selector("~", (self,))
        return inner

    def __bool__(self) -> bool:
        raise no_truth(self, "stage(1) | block(-1)")

    def __str__(self) -> str:
        if self.kind in ("stage", "block"):
            return self.kind[0] + ",".join(ranges(self.parts))
        if self.kind == "&":
            return "&".join(map(str, self.parts)) or "*"
        if self.kind == "branch":
            return ",".join(self.parts)
        text = "|".join(
            f"({part})" if part.kind == "&" and part.parts else str(part) for part in self.parts
        )
        # `|` also joins rules in the text of a policy, so a union always has parentheses.
        return f"({text})" if self.kind == "|" else f"~{text}"


EVERYWHERE = Selector("&", ())


def check_selector(*given: object) -> None:
    """Raise `PolicyError` for anything but one selector."""
    if len(given) != 1 or not isinstance(given[0], Selector):
        shown = f"{given[0]!r} isn't a selector." if len(given) == 1 else "Got several selectors."
        raise PolicyError(
            shown,
            "Select blocks with stage(...), block(...) and branch(...), combined by & | ~.",
            "Type for example: SE().on(stage(3, 4) & block(-1))",
        )


def ranges(numbers: Iterable[int]) -> list[str]:
    """Turn ``1, 2, 3, 5, -1`` into ``1-3``, ``5`` and ``-1``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number > 0 and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]


def combined(kind: Literal["&", "|"], selectors: Iterable[Selector]) -> Selector:
    """The intersection or union of one or more selectors."""
    parts: list[Selector] = []
    for selector in selectors:
        check_selector(selector)
        parts += selector.parts if selector.kind == kind else [selector]
    return parts[0] if len(parts) == 1 else Selector(kind, tuple(parts))


def _numbers(kind: Literal["stage", "block"], numbers: tuple[int, ...]) -> Selector:
    if not numbers or not all(type(n) is int and n for n in numbers):
        raise PolicyError(
            f"{kind}({', '.join(map(repr, numbers))}) selects nothing.",
            f"A {kind} is a whole number: 1 is the first, -1 the last.",
            f"Type for example: {kind}(1, 2) or {kind}(-1)",
        )
    return Selector(kind, tuple(sorted(set(numbers), key=lambda n: (n < 0, n))))


def stage(*numbers: int) -> Selector:
    """The blocks of these stages: 1 is the first (torchvision's ``layer1``), -1 the last.

    Raises:
        PolicyError: No number, or one that is 0 or not an integer.
    """
    return _numbers("stage", numbers)


def block(*numbers: int) -> Selector:
    """These blocks of every stage: 1 is the first, -1 the last.

    Raises:
        PolicyError: No number, or one that is 0 or not an integer.
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
    return Selector("branch", (name,))
