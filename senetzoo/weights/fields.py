"""Dataclasses from JSON: every field given, none unknown, each of its type."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, TypeAlias, TypeVar, cast, get_args, get_origin, get_type_hints

from senetzoo.errors import WeightsError, nearest

Scalar: TypeAlias = str | int | float | bool | None
"""A value of JSON that is neither a list nor an object."""

T = TypeVar("T")


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's fields; cached, because there are hundreds of entries."""
    return get_type_hints(kind)


def build(kind: type[T], raw: object, where: str) -> T:
    """A dataclass from a JSON object.

    Args:
        kind: The dataclass.
        raw: The object.
        where: Its place in the manifest, for messages.

    Raises:
        WeightsError: A field is missing, unknown or of another type; the message names it.
    """
    if not isinstance(raw, dict):
        raise broken(where, f"it is {shown(raw)}, not an object")
    hints = _hints(cast("Any", kind))
    for name in raw:
        if name not in hints:
            raise broken(where, f"the field {name!r} is unknown", nearest(name, hints))
    for name in hints:
        if name not in raw:
            raise broken(where, f"the field {name!r} is missing")
    return kind(**{name: _value(hints[name], raw[name], f"{where}.{name}") for name in hints})


# Whole numbers and true are numbers to Python; in a manifest they are what their field says.
_JSON: dict[Any, tuple[tuple[type, ...], str]] = {
    str: ((str,), "text"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    bool: ((bool,), "true or false"),
}


def _value(kind: Any, raw: object, where: str) -> Any:
    """A field's value of type `kind` from JSON."""
    if get_origin(kind) is Mapping:
        return _scalars(raw, where)
    optional = isinstance(kind, UnionType)
    if optional:
        if raw is None:
            return None
        kind = next(part for part in get_args(kind) if part is not type(None))
    if dataclasses.is_dataclass(kind) and isinstance(raw, dict):
        return build(cast("type[Any]", kind), raw, where)
    if dataclasses.is_dataclass(kind):
        fits, what = False, "an object"
    elif get_origin(kind) is tuple:
        fits, what = isinstance(raw, list), "a list"
    elif get_origin(kind) is Literal:
        fits, what = raw in get_args(kind), f"one of {', '.join(map(shown, get_args(kind)))}"
    else:
        kinds, what = _JSON[kind]
        fits = type(raw) in kinds
    if not fits:
        raise broken(where, f"it is {shown(raw)}, not {what}{' or null' * optional}")
    if isinstance(raw, list):
        inner = get_args(kind)[0]
        return tuple(_value(inner, item, f"{where}[{n}]") for n, item in enumerate(raw))
    return float(raw) if kind is float else raw  # type: ignore[arg-type]


def _scalars(raw: object, where: str) -> dict[str, Scalar]:
    """An object whose values are no lists and no objects, from JSON."""
    if not isinstance(raw, dict):
        raise broken(where, f"it is {shown(raw)}, not an object")
    for name, value in raw.items():
        if isinstance(value, (list, dict)):
            what = "text, a number, true, false or null"
            raise broken(f"{where}.{name}", f"it is {shown(value)}, not {what}")
    return raw


def shown(raw: object) -> str:
    """A value of JSON for a message, cut where it is long."""
    text = json.dumps(raw)
    return text if len(text) <= 40 else f"{text[:37]}..."


def broken(where: str, what: str, hint: str = "") -> WeightsError:
    """The error for what is wrong at a place of the manifest."""
    return WeightsError(
        f"The manifest is broken at {where}.", f"{what[0].upper()}{what[1:]}.", hint
    )


def read(text: str) -> object:
    """The JSON that `text` is, which must name nothing twice.

    Raises:
        WeightsError: It is no JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except ValueError as error:
        raise broken("its start", f"it is no JSON ({error})") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object whose names differ: of two equal ones, json would keep the last unsaid."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, _ in pairs if sum(other == name for other, _ in pairs) > 1)
        raise broken(twice, "it is there twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")
