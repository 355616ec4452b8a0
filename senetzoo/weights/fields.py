"""Dataclasses from JSON: every field given, none unknown, each of its type."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, TypeAlias, TypeVar, cast, get_args, get_origin, get_type_hints

from senetzoo.errors import SenetzooError, nearest

Scalar: TypeAlias = str | int | float | bool | None
"""A value of JSON that is neither a list nor an object."""

T = TypeVar("T")


class BrokenError(Exception):
    """What is wrong at a place of a document; who reads the document makes it an error.

    Args:
        where: The place: ``"entry.input.size"``.
        what: What is wrong there, without a full stop.
        hint: What may have been meant.
    """

    def __init__(self, where: str, what: str, hint: str = "") -> None:
        super().__init__(where, what, hint)
        self.where = where or "its start"
        self.what = f"{what[0].upper()}{what[1:]}."
        self.hint = hint


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields; cached, because there are hundreds of entries."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def build(kind: type[T], raw: object, where: str) -> T:
    """A dataclass from a JSON object.

    Args:
        kind: The dataclass.
        raw: The object.
        where: Its place in the document.

    Raises:
        BrokenError: A field is missing, unknown, of another type, or refused by the dataclass.
    """
    if not isinstance(raw, dict):
        raise BrokenError(where, f"it is {shown(raw)}, not an object")
    hints = _hints(kind)  # type: ignore[arg-type]  # every class is hashable
    for name in raw:
        if name not in hints:
            raise BrokenError(where, f"the field {name!r} is unknown", nearest(name, hints))
    for name in hints:
        if name not in raw:
            raise BrokenError(where, f"the field {name!r} is missing")
    given = {name: value(hints[name], raw[name], inside(where, name)) for name in hints}
    try:
        return kind(**given)
    except SenetzooError as error:
        raise BrokenError(where, " ".join(str(error).splitlines()[:2]).removesuffix(".")) from None


# Whole numbers and true are numbers to Python; in a document they are what their field says.
_JSON: dict[Any, tuple[tuple[type, ...], str]] = {
    str: ((str,), "text"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    bool: ((bool,), "true or false"),
    type(None): ((type(None),), "null"),
}


def value(kind: Any, raw: object, where: str) -> Any:
    """A field's value of type `kind` from JSON.

    Raises:
        BrokenError: It is of another type.
    """
    kinds = get_args(kind) if isinstance(kind, UnionType) or _is_union(kind) else (kind,)
    for one in kinds:
        if _looks(one, raw):
            return _read(one, raw, where)
    # A number may be a whole one.
    whats = [_what(one) for one in kinds if one is not int or float not in kinds]
    if len(whats) > 1:
        *others, last = whats
        whats = [", ".join(what.replace(" or ", ", ") for what in others), last]
    raise BrokenError(where, f"it is {shown(raw)}, not {' or '.join(whats)}")


def _is_union(kind: Any) -> bool:
    # Literal | int is a Union of typing, not a UnionType.
    return str(get_origin(kind)) == "typing.Union"


def _looks(kind: Any, raw: object) -> bool:
    """Whether `raw` is of the type, but for what is inside it."""
    origin = get_origin(kind)
    if dataclasses.is_dataclass(kind) or origin is Mapping:
        return isinstance(raw, dict)
    if origin is tuple:
        return isinstance(raw, list)
    if origin is Literal:
        return any(raw == item and type(raw) is type(item) for item in get_args(kind))
    return type(raw) in _JSON[kind][0]


def _what(kind: Any) -> str:
    origin = get_origin(kind)
    if dataclasses.is_dataclass(kind) or origin is Mapping:
        return "an object"
    if origin is tuple:
        return "a list"
    if origin is Literal:
        return f"one of {', '.join(map(shown, get_args(kind)))}"
    return _JSON[kind][1]


def _read(kind: Any, raw: Any, where: str) -> Any:
    origin = get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return build(cast("type[Any]", kind), raw, where)
    if origin is Mapping:
        return _mapping(get_args(kind)[1], raw, where)
    if origin is tuple:
        inner = get_args(kind)[0]
        return tuple(value(inner, item, f"{where}[{n}]") for n, item in enumerate(raw))
    return float(raw) if kind is float else raw


def _mapping(inner: Any, raw: dict[str, object], where: str) -> dict[str, Any]:
    """An object whose values are of one type; any for `object`."""
    if inner is object:
        return raw
    return {name: value(inner, item, f"{where}.{name}") for name, item in raw.items()}


def inside(where: str, name: str) -> str:
    """The place of a field of what is at `where`; an empty place is the whole document."""
    return f"{where}.{name}" if where else name


def shown(raw: object) -> str:
    """A value of JSON for a message, cut where it is long."""
    text = json.dumps(raw)
    return text if len(text) <= 40 else f"{text[:37]}..."


def read(text: str) -> object:
    """The JSON that `text` is, which must name nothing twice.

    Raises:
        BrokenError: It is no JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BrokenError("its start", f"it is no JSON ({error})") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object whose names differ: of two equal ones, json would keep the last unsaid."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, _ in pairs if sum(other == name for other, _ in pairs) > 1)
        raise BrokenError(twice, "it is there twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")
