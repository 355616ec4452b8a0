"""The text form of policies: ``se8@pre/s3-4+eca/s1-2``.

::

    policy   = sum { "|" sum }
    sum      = term { "+" term }
    term     = "none" | ( gate [ "@" position ] | "(" policy ")" ) [ "/" select ]
    gate     = name [ number ] [ "(" field "=" value { "," field "=" value } ")" ]
    select   = atom { "&" atom }
    atom     = "~" atom | ("s" | "b") numbers | branch | "*" | "(" select { "|" select } ")"
    numbers  = item { "," item }         item = n | n "-" n | "-" n

A number has at most nine digits, a tuple's are joined by colons (``reduction=4:8:16:16``; one
alone ends in a colon). A text has at most `MAX_RULES` gates and `MAX_NESTING` open brackets, so
that none takes long to read: more than any network of the zoo has sites.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from senetzoo.errors import PolicyError, nearest
from senetzoo.nn.slots import BRANCHES, POSITIONS
from senetzoo.policies.algebra import NONE, Gate, Policy, joined
from senetzoo.policies.selectors import EVERYWHERE, Selector, block, branch, stage, union

MAX_RULES = 5000
MAX_NESTING = 100
# More than the blocks of any stage: what a range may span.
_MAX_NUMBER = 1000

_NUMBERS = re.compile(r"(-[0-9]{1,9}|[0-9]{1,9})(?![0-9])")
_UPTO = re.compile(r"-([0-9]{1,9})(?![0-9])")
_GATE = re.compile(r"([a-z]+(?:_[a-z]+)*)([0-9]+)?")
_WORD = re.compile(r"[a-z]+")
_BRANCH = re.compile(rf"({'|'.join(BRANCHES)})\b")
_FIELD = re.compile(r"([a-z_0-9]+)\s*=\s*([a-zA-Z0-9_.:+-]+)")


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
        self.rules = 0
        self.nesting = 0

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

    def open(self) -> bool:
        """Take an opening bracket, if there is one."""
        if not self.take("("):
            return False
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            raise self.error(f"more than {MAX_NESTING} brackets are open")
        return True

    def close(self) -> None:
        if not self.take(")"):
            raise self.error("expected )")
        self.nesting -= 1

    def policy(self) -> Policy:
        sums = [self.sum()]
        while self.take("|"):
            sums.append(self.sum())
        return joined("|", sums)

    def sum(self) -> Policy:
        terms = [self.term()]
        while self.take("+"):
            terms.append(self.term())
        return joined("+", terms)

    def term(self) -> Policy:
        if self.open():
            policy = self.policy()
            self.close()
        else:
            policy = self.rule()
        if policy == NONE and self.rest().startswith("/"):
            # It would strip every block's gate, not those that the selector names.
            raise self.error("none speaks of the whole network", "Type for example: se16/~s3")
        return policy.on(self.conjunction()) if self.take("/") else policy

    def rule(self) -> Policy:
        start = self.at
        found = self.match(_GATE)
        if not found:
            raise self.error("expected the name of a gate")
        self.rules += 1
        if self.rules > MAX_RULES:
            raise self.error(f"it has more than {MAX_RULES} gates", "Select blocks: se16/s3-4&b1")
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
            if not spec.number:
                self.at = found.start(2)
                raise self.error(f"{name} takes no number", f"Type for example: {name}")
            fields[spec.number] = _value(number)
        if self.take("("):
            self.fields(spec, fields)
        policy: Policy = spec(**fields)
        if self.take("@"):
            position = self.match(_WORD)
            if not position or position[0] not in POSITIONS:
                word = position[0] if position else ""
                self.at -= len(word)
                raise self.error(
                    f"expected a position: {', '.join(POSITIONS)}", nearest(word, POSITIONS)
                )
            policy = policy.at(position[0])
        return policy

    def fields(self, spec: type[Gate], fields: dict[str, object]) -> None:
        known = {field.name: field for field in dataclasses.fields(spec)}  # type: ignore[arg-type]
        while True:
            found = self.match(_FIELD)
            if not found:
                raise self.error("expected field=value")
            name, value = found[1], found[2]
            # Of a gate without an identity, the gate itself says why.
            if name not in known and not (name == "init" and spec.no_identity):
                self.at = found.start()
                raise self.error(
                    f"{spec.name} has the fields {', '.join(known)}", nearest(name, known)
                )
            if name in fields:
                self.at = found.start()
                raise self.error(f"{name} is given twice")
            fields[name] = _value(value)
            if self.take(")"):
                return
            if not self.take(","):
                raise self.error("expected , or )")

    def conjunction(self) -> Selector:
        selector = self.atom()
        while self.take("&"):
            selector = selector & self.atom()
        return selector

    def atom(self) -> Selector:
        negated = False
        while self.take("~"):
            negated = not negated
        if negated:
            return ~self.atom()
        if self.take("*"):
            return EVERYWHERE
        if self.open():
            parts = [self.conjunction()]
            while self.take("|"):
                parts.append(self.conjunction())
            self.close()
            return union(parts)
        if named := self.match(_BRANCH):
            return branch(named[1])  # type: ignore[arg-type]
        for letter, make in (("s", stage), ("b", block)):
            if self.take(letter):
                return make(*self.numbers())
        words = ", ".join(BRANCHES)
        raise self.error(
            f"expected s for stages, b for blocks, or a branch: {words}",
            "Type for example: se16/s3-4",
        )

    def numbers(self) -> list[int]:
        numbers: list[int] = []
        while True:
            found = self.match(_NUMBERS)
            if not found:
                raise self.error("expected a number", "Type for example: se16/s3-4")
            first = last = int(found[1])
            if first >= 0 and (upto := self.match(_UPTO)):
                last = int(upto[1])
            if not 0 <= last - first < _MAX_NUMBER:
                self.at = found.start()
                wrong = "runs backwards" if last < first else f"has over {_MAX_NUMBER} numbers"
                raise self.error(f"the range {first}-{last} {wrong}")
            numbers += range(first, last + 1)
            if not self.take(","):
                return numbers


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
