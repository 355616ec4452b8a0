"""Files of JSON that may be broken, truncated, or of another form."""

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
    """`raw` as JSON in UTF-8, with escapes for names of files that are no text."""
    text = json.dumps(raw, indent=indent, ensure_ascii=False, allow_nan=False)
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")


def parse_json(text: str, nan: Callable[[str], object] = _no_number) -> object:
    """The JSON that `text` is, which must name nothing twice.

    Args:
        text: The text.
        nan: What NaN and infinities become; an error by default.

    Raises:
        BrokenError: It is no JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=nan)
    except (ValueError, RecursionError) as error:
        if isinstance(error, BrokenError):
            raise
        raise BrokenError("its start", f"it is no JSON ({error})") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object whose names differ: of two equal ones, json would keep the last unsaid."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, _ in pairs if sum(other == name for other, _ in pairs) > 1)
        raise BrokenError(twice, "it is there twice")
    return found


@contextmanager
def reading(path: Path, remedy: str, error: type[SenetzooError] = ConfigError) -> Iterator[None]:
    """What is wrong with the file that is read inside becomes an `error` that names it.

    Args:
        path: The file.
        remedy: What to type or do about a broken one.
        error: What to raise.
    """
    try:
        yield
    except BrokenError as broken:
        hint = broken.hint or remedy
        raise error(f"{path} is broken at {broken.where}.", broken.what, hint) from None
    except UnicodeDecodeError:
        raise error(f"{path} is broken at its start.", "It is no text in UTF-8.", remedy) from None
    except OSError as failed:
        raise error(f"{path} can't be read.", f"{failed.strerror}.", remedy) from None


def check_schema(found: object, newest: int, first: int = 1) -> None:
    """Refuse a document of a schema that this version does not read.

    Args:
        found: What the document says.
        newest: The newest schema that is read.
        first: The first one.

    Raises:
        BrokenError: It is another one.
    """
    if type(found) is int and first <= found <= newest:
        return
    newer = type(found) is int and found > newest
    known = f"{first} to {newest}" if first < newest else newest
    raise BrokenError(
        "schema",
        f"it is {shown(found)}, and this version of senetzoo reads {known}",
        "A newer senetzoo made it: pip install --upgrade senetzoo" * newer,
    )


def read_json(
    kind: type[T],
    path: Path,
    remedy: str,
    error: type[SenetzooError] = ConfigError,
    *,
    newest: int = 1,
) -> T:
    """A dataclass or ``TypedDict`` from a file with a JSON object.

    Args:
        kind: The class.
        path: The file.
        remedy: What to type or do about a broken one.
        error: What to raise.
        newest: The newest ``schema`` that is read; a file need not say which it has.

    Raises:
        SenetzooError: The file is not there, or does not hold such an object.
    """
    with reading(path, remedy, error):
        raw = parse_json(path.read_text(encoding="utf-8"))
        if isinstance(raw, dict) and "schema" in raw:
            check_schema(raw["schema"], newest)
        return from_json(kind, raw, "")


def read_jsonl(
    kinds: Mapping[str, type],
    path: Path,
    remedy: str,
    error: type[SenetzooError] = ConfigError,
    *,
    newest: int = 1,
) -> list[dict[str, Any]]:
    """The lines of a file with a JSON object a line, each of the ``TypedDict`` of its ``kind``.

    A last line without an end, which a killed writer leaves, is left out. NaN becomes None.

    Args:
        kinds: The ``TypedDict`` by the value of the key ``kind``.
        path: The file.
        remedy: What to type or do about a broken one.
        error: What to raise.
        newest: The newest ``schema`` that is read; a line need not say which it has.

    Raises:
        SenetzooError: The file is not there, or has another line.
    """
    found: list[dict[str, Any]] = []
    with reading(path, remedy, error):
        *lines, last = path.read_bytes().split(b"\n")
        for number, line in enumerate([*lines, *filter(None, [last])], 1):
            where = f"line {number}"
            try:
                raw = parse_json(line.decode("utf-8"), nan=lambda _: None)
            except (BrokenError, UnicodeDecodeError):
                if number > len(lines):
                    break
                raise BrokenError(where, "it is no JSON") from None
            if isinstance(raw, dict) and "schema" in raw:
                check_schema(raw["schema"], newest)
            kind = raw.get("kind") if isinstance(raw, dict) else None
            if not isinstance(kind, str) or kind not in kinds:
                what = f"it is {shown(raw)}, not an object whose kind is {', '.join(kinds)}"
                raise BrokenError(where, what)
            found.append(from_json(kinds[kind], raw, where))
    return found
