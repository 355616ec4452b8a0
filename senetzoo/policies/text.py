"""The text form of policies: ``se8@pre/s3-4+eca/s1-2``.

::

    policy   = sum { "|" sum }
    sum      = term { "+" term }
    term     = "none" | ( gate [ "@" position ] | "(" policy ")" ) [ "/" select ]
    gate     = name [ number ] [ "(" field "=" value { "," field "=" value } ")" ]
    select   = atom { "&" atom }
    atom     = "~" atom | ("s" | "b") numbers | "*" | "(" select { "|" select } ")"
    numbers  = item { "," item }         item = n | n "-" n | "-" n
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import reduce
from operator import or_

from senetzoo.errors import PolicyError, nearest
from senetzoo.nn.slots import POSITIONS
from senetzoo.policies.algebra import NONE, Gate, Policy
from senetzoo.policies.selectors import EVERYWHERE, Selector, block, stage

_NUMBERS = re.compile(r"(-?\d+)(?:-(\d+))?")
_GATE = re.compile(r"([a-z]+(?:_[a-z]+)*)(\d+)?")


def parse(text: str, gates: Mapping[str, type[Gate]]) -> Policy:
    """The policy that `text` stands for.

    Args:
        text: A policy in text.
        gates: Spec of each gate by name.

    Raises:
        PolicyError: The text is no policy; the message points at the place.

    """
    reader = _Reader(text, gates)
    policy = reader.policy()
    if reader.rest():
        raise reader.error("expected + or | or the end")
    return policy


class _Reader:
    def __init__(self, text: str, gates: Mapping[str, type[Gate]]) -> None:
        self.text = text
        self.at = 0
        self.gates = gates

    def rest(self) -> str:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text[self.at :]

    def take(self, token: str) -> bool:
        if not self.rest().startswith(token):
            return False
        self.at += len(token)
        return True

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        self.rest()
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def error(self, expected: str, remedy: str = "") -> PolicyError:
        return PolicyError(
            f"{self.text!r} is not a policy.",
            f"At {self.rest()[:12]!r}: {expected}." if self.rest() else f"At its end: {expected}.",
            remedy or "Type for example: se16@pre/s3-4+eca/s1-2",
        )

    def policy(self) -> Policy:
        policy = self.sum()
        while self.take("|"):
            policy = policy | self.sum()
        return policy

    def sum(self) -> Policy:
        policy = self.term()
        while self.take("+"):
            policy = policy + self.term()
        return policy

    def term(self) -> Policy:
        if self.take("("):
            policy = self.policy()
            if not self.take(")"):
                raise self.error("expected )")
        else:
            policy = self.rule()
        return policy.on(self.conjunction()) if self.take("/") else policy

    def rule(self) -> Policy:
        start = self.at
        found = self.match(_GATE)
        if not found:
            raise self.error("expected the name of a gate")
        name, number = found[1], found[2]
        if name == "none" and number is None:
            return NONE
        spec = self.gates.get(name)
        if spec is None:
            self.at = start
            raise self.error(
                f"{name!r} is none of the gates {', '.join(self.gates)}", nearest(name, self.gates)
            )
        fields: dict[str, object] = {}
        if number is not None:
            fields[spec.number] = int(number)
        if self.take("("):
            fields.update(self.fields(spec))
        policy: Policy = spec(**fields)
        if self.take("@"):
            position = self.match(re.compile(r"[a-z]+"))
            if not position or position[0] not in POSITIONS:
                word = position[0] if position else ""
                self.at -= len(word)
                raise self.error(
                    f"expected a position: {', '.join(POSITIONS)}", nearest(word, POSITIONS)
                )
            policy = policy.at(position[0])  # type: ignore[arg-type]
        return policy

    def fields(self, spec: type[Gate]) -> dict[str, object]:
        known = {field.name: field for field in dataclasses.fields(spec)}  # type: ignore[arg-type]
        fields: dict[str, object] = {}
        while True:
            found = self.match(re.compile(r"([a-z_0-9]+)\s*=\s*([a-zA-Z0-9_.:-]+)"))
            if not found:
                raise self.error("expected field=value")
            name, value = found[1], found[2]
            if name not in known:
                self.at = found.start()
                raise self.error(
                    f"{spec.name} has the fields {', '.join(known)}", nearest(name, known)
                )
            fields[name] = _value(value)
            if self.take(")"):
                return fields
            if not self.take(","):
                raise self.error("expected , or )")

    def conjunction(self) -> Selector:
        selector = self.atom()
        while self.take("&"):
            selector = selector & self.atom()
        return selector

    def atom(self) -> Selector:
        if self.take("~"):
            return ~self.atom()
        if self.take("*"):
            return EVERYWHERE
        if self.take("("):
            parts = [self.conjunction()]
            while self.take("|"):
                parts.append(self.conjunction())
            if not self.take(")"):
                raise self.error("expected )")
            return reduce(or_, parts)
        for letter, make in (("s", stage), ("b", block)):
            if self.take(letter):
                return make(*self.numbers())
        raise self.error("expected s for stages or b for blocks", "Type for example: se16/s3-4")

    def numbers(self) -> list[int]:
        numbers: list[int] = []
        while True:
            found = self.match(_NUMBERS)
            if not found:
                raise self.error("expected a number", "Type for example: se16/s3-4")
            first = int(found[1])
            last = int(found[2]) if found[2] else first
            if last < first:
                self.at = found.start()
                raise self.error(f"the range {found[0]} runs backwards")
            numbers += range(first, last + 1)
            if not self.take(","):
                return numbers


def _value(text: str) -> object:
    if text in ("true", "false"):
        return text == "true"
    if ":" in text:
        return tuple(_value(part) for part in text.split(":"))
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
