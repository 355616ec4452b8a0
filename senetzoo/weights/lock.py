"""The lock file: hashes of files whose publishers state none, from the first download.

It is like the lock file of a package manager; `cache` finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from senetzoo._utils.checks import from_json
from senetzoo._utils.documents import check_schema, json_text, parse_json, reading
from senetzoo._utils.files import write_text
from senetzoo.errors import BrokenError, WeightsError
from senetzoo.weights.manifest import Commit, Sha256

FILE = "senetzoo.lock"
SCHEMA = 1


class Locked(TypedDict):
    """The hash of a file at its first download, and its commit on the Hub, if known."""

    sha256: Sha256
    revision: Commit | None


def read(path: Path) -> dict[str, Locked]:
    """The entries of a lock file, by tag; none if it doesn't exist.

    Raises:
        WeightsError: The file can't be read.
    """
    with reading(path, "Restore it, or delete it to accept the next files", WeightsError):
        if not path.is_file():
            return {}
        raw = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(raw, dict) or not isinstance(raw.get("weights"), dict):
            raise BrokenError("its start", "expected an object with schema and weights")
        check_schema(raw.get("schema"), SCHEMA)
        return {tag: from_json(Locked, value, tag) for tag, value in raw["weights"].items()}


def write(path: Path, weights: Mapping[str, Locked]) -> None:
    """Write a lock file atomically, sorted by tag so that it merges well."""
    whole = {"schema": SCHEMA, "weights": dict(sorted(weights.items()))}
    write_text(path, json_text(whole, indent=1) + "\n")
