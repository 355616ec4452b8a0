"""Checking values against the annotations of their fields.

An annotation says which values a field may have, and nothing else does::

    reduction: Annotated[int, Ge(1)] | tuple[Annotated[int, Ge(1)], ...] = 16
    act: Literal["relu", "silu"] = "relu"
    drop: Annotated[float, Ge(0), Lt(1)] = 0.0

`check` is for new instances, `from_json` for documents, and `from_text` for the command line.
`words` describes an annotation in English.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import json
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from senetzoo.errors import BrokenError, ConfigError, SenetzooError, nearest, shortened

T = TypeVar("T")

# --- Metadata of annotations ---------------------------------------------------------------------


@dataclass(frozen=True)
class Bound:
    """A bound of a number: ``Ge(1)``, ``Gt(0)``, ``Le(1)`` or ``Lt(1)``."""

    holds: Callable[[Any, Any], bool]
    value: float


Ge = functools.partial(Bound, operator.ge)
Gt = functools.partial(Bound, operator.gt)
Le = functools.partial(Bound, operator.le)
Lt = functools.partial(Bound, operator.lt)


@dataclass(frozen=True)
class Odd:
    """An odd number."""


@dataclass(frozen=True)
class NonEmpty:
    """A tuple with at least one item."""


@dataclass(frozen=True)
class Pattern:
    """Text that matches a pattern.

    Args:
        regex: Regular expression for the whole text.
        words: Description for messages: ``"a commit of 40 hexadecimal digits"``.
    """

    regex: str
    words: str


@dataclass(frozen=True)
class Example:
    """An example value for messages, if the field has no default."""

    value: object


PositiveInt: TypeAlias = Annotated[int, Ge(1)]
NonNegativeInt: TypeAlias = Annotated[int, Ge(0)]
Rate: TypeAlias = Annotated[float, Ge(0), Lt(1)]
NonNegativeFloat: TypeAlias = Annotated[float, Ge(0)]
PositiveFloat: TypeAlias = Annotated[float, Gt(0)]
Depths: TypeAlias = Annotated[tuple[PositiveInt, ...], NonEmpty(), Example((3, 4, 6, 3))]
"""Number of blocks in each stage."""
PerStage: TypeAlias = PositiveInt | Annotated[tuple[PositiveInt, ...], NonEmpty()]
"""One number for all stages, or one per stage."""
Scalar: TypeAlias = str | int | float | bool | None
"""A JSON value that is neither a list nor an object."""

# --- The three readers of annotations ------------------------------------------------------------


def check(instance: object, error: type[SenetzooError] = ConfigError, name: str = "") -> None:
    """Check every field of a new dataclass against its annotation; lists become tuples.

    Raises:
        SenetzooError: The value of a field doesn't match its annotation.
    """
    made: Any = type(instance)  # mypy finds no class hashable
    for field, kind in hints(made).items():
        value = getattr(instance, field)
        try:
            fitted = _fit(kind, value, field)
        except BrokenError:
            remedy = _remedy(made, field, kind, value)
            asked = f"{name or made.__name__} got {field}={value!r}."
            raise error(asked, f"{field} is {words(kind)}.", remedy) from None
        object.__setattr__(instance, field, fitted)  # 3.0 for 3 too


def from_json(kind: type[T], raw: object, where: str, *, partial: bool = False) -> T:
    """Make a dataclass from a JSON object, or check a ``TypedDict``.

    Args:
        kind: The class. A ``TypedDict`` may have further keys, a dataclass may not.
        raw: The object.
        where: Its place in the document.
        partial: Whether fields with a default may be missing.

    Raises:
        BrokenError: A field is missing, unknown, of another type, or rejected by the dataclass.
    """
    if not isinstance(raw, dict):
        raise BrokenError(where, f"it is {shown(raw)}, not an object")
    known: dict[str, Any] = hints(kind)  # type: ignore[arg-type]  # classes are hashable
    needed = set(known)
    if is_typeddict(kind):
        needed = kind.__required_keys__  # type: ignore[attr-defined]
    elif unknown := next((name for name in raw if name not in known), None):
        raise BrokenError(where, f"the field {unknown!r} is unknown", nearest(unknown, known))
    elif partial:
        needed -= {field.name for field in _fields(kind) if field.default is not MISSING}
    for name in known:
        if name in needed and name not in raw:
            raise BrokenError(where, f"the field {name!r} is missing")
    given = {n: _fit(known[n], raw[n], inside(where, n)) for n in known if n in raw}
    if is_typeddict(kind):
        return raw  # type: ignore[return-value]
    try:
        return kind(**given)
    except SenetzooError as error:
        raise BrokenError(where, " ".join(str(error).splitlines()[:2]).removesuffix(".")) from None


def from_text(kind: type, field: str, text: str, name: str) -> Any:
    """Parse the value of a dataclass's field, written as in Python, but words without quotes.

    Args:
        kind: The dataclass.
        field: The field.
        text: The text: ``"0.5"``, ``"none"``, ``"((32, 10),)"``.
        name: Source of the text, for messages.

    Raises:
        ConfigError: The value doesn't match the field's annotation.
    """
    hint = hints(kind)[field]
    values: list[object] = [text]
    if not any(one.base is str for one in alternatives(hint)):
        word = text.strip()
        if word.lower() in ("true", "false", "none"):
            word = word.capitalize()
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            values.append(ast.literal_eval(word))
    for value in values:  # the text itself, or the Python value that it denotes
        with contextlib.suppress(BrokenError):
            return _fit(hint, value, field)
    raise ConfigError(
        f"{name} got {field}={text}.",
        f"{field} is {words(hint)}.",
        _remedy(kind, field, hint, text),
    )


# --- Annotations ---------------------------------------------------------------------------------


@functools.cache
def hints(kind: type) -> dict[str, Any]:
    """The annotation of each field of a dataclass or ``TypedDict``."""
    found = get_type_hints(kind, include_extras=True)
    return found if is_typeddict(kind) else {f.name: found[f.name] for f in _fields(kind)}


def _fields(kind: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind)


class _Kind(NamedTuple):
    """One alternative of an annotation, split into its parts.

    Args:
        whole: The alternative.
        base: The alternative without its metadata: ``tuple[int, ...]``.
        origin: Origin of `base`: tuple, list, Mapping, Literal; None for a plain type.
        inner: Arguments of `base`.
        limits: The metadata.
    """

    whole: Any
    base: Any
    origin: Any
    inner: tuple[Any, ...]
    limits: tuple[Any, ...]

    def looks(self, value: object) -> bool:
        """Whether `value` has the type, ignoring its items."""
        base, origin = self.base, self.origin
        if origin is Literal:
            return any(type(value) is type(one) and value == one for one in self.inner)
        if origin is tuple or origin is list:
            return isinstance(value, (tuple, list))
        if base is float:
            return isinstance(value, float) or type(value) is int
        # bool is a subclass of int in Python, but not here.
        if base is object or type(value) is base:
            return True
        return isinstance(value, dict) and base not in (str, int, bool, NoneType)


@functools.cache
def alternatives(kind: Any) -> tuple[_Kind, ...]:
    # Literal | int is a typing.Union, int | str is a types.UnionType.
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    found = []
    for one in kinds:
        marked = get_origin(one) is Annotated
        base, limits = (one.__origin__, one.__metadata__) if marked else (one, ())
        found.append(_Kind(one, base, get_origin(base), get_args(base), limits))
    return tuple(found)


def _fit(kind: Any, value: Any, where: str) -> Any:
    """Convert `value` to the annotated type: lists to tuples, whole numbers to floats.

    Raises:
        BrokenError: It doesn't match; the message is in terms of JSON.
    """
    for one in alternatives(kind):
        if one.looks(value):
            fitted = _inside(one, value, where)
            if fitted is not ... and all(_holds(limit, fitted) for limit in one.limits):
                return fitted
            kind = one.whole
            break
    raise BrokenError(where, f"it is {shown(value)}, not {words(kind, json=True)}")


def _inside(kind: _Kind, value: Any, where: str) -> Any:
    """Convert the items of a value of the right type; Ellipsis for a wrong length or number."""
    _, base, origin, inner, _ = kind
    if base is float:
        try:
            return float(value) if math.isfinite(value) else ...
        except OverflowError:  # a whole number with hundreds of digits
            return ...
    if origin is tuple or origin is list:
        kinds = inner if origin is tuple and inner[-1] is not ... else inner[:1] * len(value)
        if len(kinds) != len(value):
            return ...
        pairs = enumerate(zip(kinds, value, strict=True))
        return origin(_fit(one, item, f"{where}[{n}]") for n, (one, item) in pairs)
    if origin is Mapping:
        return {name: _fit(inner[1], item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, dict) and base is not object:
        return from_json(base, value, where)
    return value


def _holds(limit: Any, value: Any) -> bool:
    if isinstance(limit, Bound):
        return limit.holds(value, limit.value)
    if isinstance(limit, Pattern):
        return re.fullmatch(limit.regex, value) is not None
    if isinstance(limit, Odd):
        return bool(value % 2)
    return not isinstance(limit, NonEmpty) or bool(value)


# --- Words ---------------------------------------------------------------------------------------

_NOUN = re.compile(r"^(?:an? )?((?:odd )?(?:whole )?(?:number|tuple|list|object|text)\b)")


def words(kind: Any, *, json: bool = False) -> str:
    """Describe what an annotation allows: ``"a number from 0 up to, not including, 1"``.

    Args:
        kind: The annotation.
        json: Use JSON's terms: list, null, true.
    """
    kinds = alternatives(kind)
    known: list[str] = []
    for one in kinds:
        choices = (True, False) if one.base is bool else one.inner if one.origin is Literal else ()
        if choices and len(kinds) > 1:
            known += map(shown if json else repr, choices)
        # "a number" includes whole numbers.
        elif one.whole is not int or float not in [other.whole for other in kinds]:
            known.append(_words(one, json))
    return " or ".join([*([", ".join(known[:-1])] if len(known) > 1 else []), known[-1]])


def _words(kind: _Kind, json: bool) -> str:
    show = shown if json else repr
    _, base, origin, inner, limits = kind
    if given := [limit.words for limit in limits if isinstance(limit, Pattern)]:
        return str(given[0])
    if origin is Literal:
        return f"{'one of ' * (len(inner) > 1)}{', '.join(map(show, inner))}"
    if origin is tuple or origin is list:
        fixed = origin is tuple and inner[-1] is not ...
        some = f"{len(inner)} " if fixed else "one or more " if NonEmpty() in limits else ""
        item = words(inner[0], json=json)
        several, plural = _NOUN.subn(r"\1s", item)
        if not plural or len(alternatives(inner[0])) > 1:
            several = f"values, each {item}"
        return f"a {'list' if json else 'tuple'} of {some}{several}"
    if base in (int, float):
        what = f"{'an odd' if Odd() in limits else 'a'} {'whole ' * (base is int)}number"
        return f"{what}{_limits(limits)}"
    if dataclasses.is_dataclass(base) and not json:
        return f"a {kind.base.__name__}"
    simple = {str: "text", bool: f"{show(True)} or {show(False)}", NoneType: show(None)}
    return simple.get(base, "an object")


def _limits(metadata: tuple[Any, ...]) -> str:
    """The bounds of a number in words."""
    limits = {limit.holds: f"{limit.value:g}" for limit in metadata if isinstance(limit, Bound)}
    low, high = limits.get(operator.ge), limits.get(operator.le, limits.get(operator.lt))
    if low and high:
        return f" from {low} {'to' if operator.le in limits else 'up to, not including,'} {high}"
    names = {"ge": "of at least", "gt": "above", "le": "at most", "lt": "below"}
    texts = [f"{names[holds.__name__]} {value}" for holds, value in limits.items()]
    return f" {' and '.join(texts)}" if texts else ""


def _remedy(kind: type, field: str, hint: Any, value: object) -> str:
    """A suggestion instead of a wrong value."""
    kinds = alternatives(hint)
    choices = [choice for one in kinds if one.origin is Literal for choice in one.inner]
    if isinstance(value, str) and (near := nearest(value, [c for c in choices if c == str(c)])):
        return near
    examples = [limit.value for one in kinds for limit in one.limits if isinstance(limit, Example)]
    defaults = [known.default for known in _fields(kind) if known.name == field]
    example = (examples or defaults)[0]
    return "" if example is MISSING else f"Type for example: {field}={example!r}"


def shown(raw: object) -> str:
    """A JSON value for a message."""
    return shortened(json.dumps(raw, default=repr))


def inside(where: str, name: str) -> str:
    """The place of the field `name` of `where`; an empty place is the whole document."""
    return f"{where}.{name}" if where else name
