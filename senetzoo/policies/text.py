"""The text form of policies: ``se8@pre/s3-4+eca/s1-2``.

::

    policy   = sum { "|" sum }
    sum      = term { "+" term }
    term     = "none" | ( gate [ "@" position ] | "(" policy ")" ) [ "/" select ]
    gate     = name [ number ] [ "(" field "=" value { "," field "=" value } ")" ]
    select   = atom { "&" atom }
    atom     = "~" atom | ("s" | "b") numbers | branch | "*" | "(" select { "|" select } ")"
    numbers  = item { "," item }         item = n | n "-" n | "-" n

A number has at most nine digits. Numbers of a tuple are joined by colons (``reduction=4:8:16:16``;
a tuple of one ends in a colon). A text has at most `MAX_RULES` gates, more than any network of the
zoo has sites, and `MAX_NESTING` open parentheses, so that parsing is always fast.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from senetzoo.errors import PolicyError, nearest, shortened
from senetzoo.nn.slots import BRANCHES, POSITIONS
from senetzoo.policies.algebra import NONE, Gate, Policy, joined, value_text
from senetzoo.policies.selectors import EVERYWHERE, Selector, block, branch, combined, stage

MAX_RULES = 5000
MAX_NESTING = 100
# Longest range of blocks; longer than any stage.
_MAX_NUMBER = 1000

_NUMBERS = re.compile(r"(-[0-9]{1,9}|[0-9]{1,9})(?![0-9])")
_UPTO = re.compile(r"-([0-9]{1,9})(?![0-9])")
_GATE = re.compile(r"([a-z]+(?:_[a-z]+)*)([0-9]+)?")
PATH = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")
"""A class of one's own: module and name, as in ``my_module:MyGate``."""
_WORD = re.compile(r"[a-z]+")
_BRANCH = re.compile(rf"({'|'.join(BRANCHES)})\b")
_FIELD = re.compile(r"([a-z_0-9]+)\s*=\s*([a-zA-Z0-9_.:+-]+)")

T = TypeVar("T")


def parse(text: str, gates: Mapping[str, type[Gate]]) -> Policy:
    """Parse a policy.

    Raises:
        PolicyError: The text isn't a policy; the message quotes the position of the error.
    """
    reader = _Reader(text, gates)
    policy = reader.policy()
    reader.skip()
    if reader.at < len(text):
        raise reader.error("expected + or | or the end")
    return policy


class _Reader:
    def __init__(self, text: str, gates: Mapping[str, type[Gate]]) -> None:
        self.text = text
        self.gates = gates
        self.at = self.rules = self.nesting = 0

    def skip(self) -> None:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1

    def take(self, token: str) -> bool:
        self.skip()
        there = self.text.startswith(token, self.at)
        self.at += len(token) * there
        return there

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        self.skip()
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def error(self, expected: str, remedy: str = "", at: int | None = None) -> PolicyError:
        """An error that says what was expected at `at`, by default at the current position."""
        if at is not None:
            self.at = at
        self.skip()
        rest = self.text[self.at :]
        return PolicyError(
            f"{shortened(repr(self.text))} isn't a policy.",
            f"At {shortened(repr(rest))}: {expected}." if rest else f"At its end: {expected}.",
            remedy or "Type for example: se16@pre/s3-4+eca/s1-2",
        )

    def several(self, one: Callable[[], T], separator: str) -> list[T]:
        found = [one()]
        while self.take(separator):
            found.append(one())
        return found

    def bracketed(self, one: Callable[[], T]) -> T | None:
        """Parse parentheses around `one`; None if there are none."""
        if not self.take("("):
            return None
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            raise self.error(f"more than {MAX_NESTING} parentheses are open")
        found = one()
        if not self.take(")"):
            raise self.error("expected )")
        self.nesting -= 1
        return found

    def policy(self) -> Policy:
        return joined("|", self.several(self.sum, "|"))

    def sum(self) -> Policy:
        return joined("+", self.several(self.term, "+"))

    def term(self) -> Policy:
        inner = self.bracketed(self.policy)
        policy = self.rule() if inner is None else inner
        at = self.at
        if not self.take("/"):
            return policy
        if policy == NONE:
            # It would remove the gates of all blocks, not of the selected ones.
            raise self.error(
                "none applies to the whole network", "Type for example: se16/~s3", at=at
            )
        return policy.on(self.conjunction())

    def rule(self) -> Policy:
        if path := self.match(PATH):
            raise self.error(
                "a text names gates, and imports no classes",
                f"Type --register {path[0]}, or senetzoo.register, and in the policy the name",
                at=path.start(),
            )
        found = self.match(_GATE)
        if not found:
            raise self.error("expected the name of a gate")
        self.rules += 1
        if self.rules > MAX_RULES:
            raise self.error(f"it has more than {MAX_RULES} gates", "Select blocks: se16/s3-4&b1")
        name, number, start = found[1], found[2], found.start()
        if name == "none" and number is None:
            return NONE
        if name not in self.gates:
            near = nearest(name, self.gates)
            known = "a gate" if near else f"one of the gates {', '.join(self.gates)}"
            own = "For your own gate: senetzoo.register, or --register MODULE:NAME"
            raise self.error(f"{name!r} isn't {known}", f"{near} {own}".strip(), at=start)
        spec = self.gates[name]
        fields: dict[str, object] = {}
        if number is not None:
            if not spec.number:
                remedy = f"Type for example: {_example(spec)}"
                raise self.error(f"{name} takes no number", remedy, at=found.start(2))
            fields[spec.number] = _value(number)
        if self.take("("):
            self.several(lambda: self.field(spec, fields), ",")
            if not self.take(")"):
                raise self.error("expected , or )")
        policy: Policy = spec(**fields)
        gate = self.text[start : self.at].strip()
        if self.take("@"):
            found = self.match(_WORD)
            position = found[0] if found else ""
            if position not in POSITIONS:
                expected = f"expected a position: {', '.join(POSITIONS)}"
                raise self.error(expected, nearest(position, POSITIONS), self.at - len(position))
            policy = policy.at(position)
            at = self.at
            if self.take(","):
                second = self.match(_WORD)
                other = second[0] if second and second[0] in POSITIONS else "POSITION"
                two = f"Type: {gate}@{position}+{gate}@{other}"
                raise self.error("a gate has one position", two, at)
        return policy

    def field(self, spec: type[Gate], fields: dict[str, object]) -> None:
        """Read one field of `spec` into `fields`."""
        known = [field.name for field in dataclasses.fields(spec)]  # type: ignore[arg-type]
        found = self.match(_FIELD)
        if not found:
            raise self.error("expected field=value")
        name = found[1]
        # A gate without an identity raises its own error.
        if name not in known and not (name == "init" and spec.no_identity):
            expected = f"{spec.name} has the fields {', '.join(known)}"
            raise self.error(expected, nearest(name, known), at=found.start())
        if name in fields:
            raise self.error(f"{name} is given twice", at=found.start())
        fields[name] = _value(found[2])

    def conjunction(self) -> Selector:
        return combined("&", self.several(self.atom, "&"))

    def atom(self) -> Selector:
        negated = False
        while self.take("~"):
            negated = not negated
        if negated:
            return ~self.atom()
        if self.take("*"):
            return EVERYWHERE
        if union := self.bracketed(lambda: self.several(self.conjunction, "|")):
            return combined("|", union)
        if named := self.match(_BRANCH):
            return branch(named[1])  # type: ignore[arg-type]
        for letter, make in (("s", stage), ("b", block)):
            if self.take(letter):
                return make(*(n for numbers in self.several(self.numbers, ",") for n in numbers))
        raise self.error(
            f"expected s for stages, b for blocks, or a branch: {', '.join(BRANCHES)}",
            "Type for example: se16/s3-4",
        )

    def numbers(self) -> range:
        found = self.match(_NUMBERS)
        if not found:
            raise self.error("expected a number", "Type for example: se16/s3-4")
        first = last = int(found[1])
        if first >= 0 and (upto := self.match(_UPTO)):
            last = int(upto[1])
        if not 0 <= last - first < _MAX_NUMBER:
            wrong = "runs backwards" if last < first else f"has over {_MAX_NUMBER} numbers"
            raise self.error(f"the range {first}-{last} {wrong}", at=found.start())
        return range(first, last + 1)


def _example(spec: type[Gate]) -> str:
    """A text of a gate, with an option if it has one."""
    fields = dataclasses.fields(spec)  # type: ignore[arg-type]
    numbers = [field for field in fields if type(field.default) is int]
    found = next(iter((*numbers, *fields)), None)
    return spec.name if found is None else f"{spec.name}({found.name}={value_text(found.default)})"


def _value(text: str) -> object:
    if text in ("true", "false"):
        return text == "true"
    if ":" in text:
        return tuple(_value(part) for part in text.removesuffix(":").split(":"))
    if re.fullmatch(r"[+-]?[0-9]{1,9}", text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text
