"""``--set key=value``: a field of a recipe from text."""

from __future__ import annotations

import ast
import dataclasses
import types
import typing
from typing import Any

from senetzoo.errors import ConfigError, check_fields
from senetzoo.train.recipe import Recipe


def read_setting(recipe: Recipe, setting: str) -> tuple[str, Any]:
    """Field and value of ``key=value``.

    Values are written as in Python, text without quotes: ``lr=0.05``, ``flip=false``,
    ``phases=((16, 6), (32, 10))``, ``dropout=none``.

    Args:
        recipe: What messages give as an example.
        setting: The text.

    Raises:
        ConfigError: No such field, or a value of another kind.
    """
    key, equals, text = setting.partition("=")
    if not equals:
        raise ConfigError(
            f"--set got {setting!r}.", "It takes key=value.", "Type for example: --set batch=64"
        )
    check_fields("The recipe", [key], [field.name for field in dataclasses.fields(recipe)])
    hint = typing.get_type_hints(Recipe)[key]
    if _is_text(hint):
        return key, text
    word = text.strip()
    word = word.capitalize() if word.lower() in ("true", "false", "none") else word
    try:
        value = ast.literal_eval(word)
    except (ValueError, SyntaxError):
        value = ...
    value = _fit(value, hint)
    if value is ...:
        old = getattr(recipe, key)
        raise ConfigError(
            f"--set {key}={text} does not fit.",
            f"{key} is of the kind {_kind(hint)}, as in {key}={old}.",
        )
    return key, value


def _is_text(hint: Any) -> bool:
    return hint is str or typing.get_origin(hint) is typing.Literal


def _kind(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("...", "..")


def _fit(value: Any, hint: Any) -> Any:
    """`value` as `hint` wants it; Ellipsis where it is of another kind."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        fits = (_fit(value, choice) for choice in inner)
        return next((fit for fit in fits if fit is not ...), ...)
    if origin is tuple:
        if not isinstance(value, tuple):
            return ...
        kinds = inner[:1] * len(value) if inner[-1] is ... else inner
        if len(kinds) != len(value):
            return ...
        items = tuple(_fit(item, kind) for item, kind in zip(value, kinds, strict=True))
        return ... if ... in items else items
    if hint is float and type(value) is int:
        return float(value)
    return value if type(value) is hint else ...
