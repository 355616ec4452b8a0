"""Reading JSON files that may be broken, truncated, or have another schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from senetzoo._utils.checks import from_json, shown
from senetzoo.errors import BrokenError, ConfigError, SenetzooError

T = TypeVar("T")


def json_text(raw: object, indent: int | None = None) -> str:
    """`raw` as JSON text, with escapes for file names that can't be encoded as UTF-8."""
    text = json.dumps(raw, indent=indent, ensure_ascii=False, allow_nan=False)
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _no_number(text: str) -> None:
    raise ValueError(f"{text} isn't a JSON number")


def parse_json(text: str, nan: Callable[[str], object] = _no_number) -> object:
    """Parse JSON, without duplicate names in objects.

    Args:
        text: The text.
        nan: Converts NaN and infinities; raises an error by default.

    Raises:
        BrokenError: It isn't valid JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=nan)
    except (ValueError, RecursionError) as error:
        if isinstance(error, BrokenError):
            raise
        raise BrokenError("its start", f"it isn't valid JSON ({error})") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; `BrokenError` for duplicate names, of which json would keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, _ in pairs if sum(other == name for other, _ in pairs) > 1)
        raise BrokenError(twice, "it occurs twice")
    return found


@contextmanager
def reading(path: Path, remedy: str, error: type[SenetzooError] = ConfigError) -> Iterator[None]:
    """Turn errors from reading a file into an `error` that names the file."""
    try:
        yield
    except BrokenError as broken:
        hint = broken.hint or remedy
        raise error(f"{path} is broken at {broken.where}.", broken.what, hint) from None
    except UnicodeDecodeError:
        raise error(f"{path} is broken at its start.", "It isn't UTF-8 text.", remedy) from None
    except OSError as failed:
        raise error(f"{path} can't be read.", f"{failed.strerror}.", remedy) from None


def check_schema(found: object, newest: int, first: int = 1) -> None:
    """Raise `BrokenError` for a document with a schema that this version doesn't support."""
    if type(found) is int and first <= found <= newest:
        return
    newer = type(found) is int and found > newest
    known = f"{first} to {newest}" if first < newest else newest
    raise BrokenError(
        "schema",
        f"it is {shown(found)}, and this version of senetzoo reads {known}",
        "A newer senetzoo wrote it: pip install --upgrade senetzoo" * newer,
    )


def read_json(kind: type[T], path: Path, remedy: str, *, newest: int = 1) -> T:
    """Read a dataclass or ``TypedDict`` from a file with a JSON object.

    `newest` is the newest supported ``schema``; the file need not have one.

    Raises:
        ConfigError: The file is missing or broken.
    """
    with reading(path, remedy):
        raw = parse_json(path.read_text(encoding="utf-8"))
        if isinstance(raw, dict) and "schema" in raw:
            check_schema(raw["schema"], newest)
        return from_json(kind, raw, "")


def read_jsonl(
    kinds: Mapping[str, type], path: Path, remedy: str, *, newest: int
) -> list[dict[str, Any]]:
    """Read a file with one JSON object per line, each of the ``TypedDict`` for its ``kind``.

    `newest` is the newest supported ``schema``; lines need not have one.

    An unfinished last line, which a killed process leaves, is ignored. NaN becomes None.

    Raises:
        ConfigError: The file is missing or broken.
    """
    found: list[dict[str, Any]] = []
    with reading(path, remedy):
        *lines, last = path.read_bytes().split(b"\n")
        for number, line in enumerate([*lines, *filter(None, [last])], 1):
            where = f"line {number}"
            try:
                raw = parse_json(line.decode("utf-8"), nan=lambda _: None)
            except (BrokenError, UnicodeDecodeError):
                if number > len(lines):
                    break
                raise BrokenError(where, "it isn't valid JSON") from None
            if isinstance(raw, dict) and "schema" in raw:
                check_schema(raw["schema"], newest)
            kind = raw.get("kind") if isinstance(raw, dict) else None
            if not isinstance(kind, str) or kind not in kinds:
                what = f"it is {shown(raw)}, not an object whose kind is {', '.join(kinds)}"
                raise BrokenError(where, what)
            found.append(from_json(kinds[kind], raw, where))
    return found
