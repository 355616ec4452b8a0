"""The lock file: the hashes of files that no publisher states one of, as they first came.

It is to weights what the lock file of a package manager is to packages. Where it is: `cache`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from senetzoo._utils.checks import from_json
from senetzoo._utils.documents import check_schema, json_text, parse_json, reading
from senetzoo._utils.files import atomically
from senetzoo.errors import BrokenError, WeightsError
from senetzoo.weights.manifest import Commit, Sha256

FILE = "senetzoo.lock"
SCHEMA = 1


class Locked(TypedDict):
    """A file as it first came, and the Hub's commit that it is of; None where that is unknown."""

    sha256: Sha256
    revision: Commit | None


def read(path: Path) -> dict[str, Locked]:
    """What a lock file has, by tag; nothing where there is none.

    Raises:
        WeightsError: It can't be read.
    """
    with reading(path, "Restore it, or delete it to accept what comes next", WeightsError):
        if not path.is_file():
            return {}
        raw = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(raw, dict) or not isinstance(raw.get("weights"), dict):
            raise BrokenError("its start", "expected an object of schema and weights")
        check_schema(raw.get("schema"), SCHEMA)
        return {tag: from_json(Locked, value, tag) for tag, value in raw["weights"].items()}


def write(path: Path, weights: Mapping[str, Locked]) -> None:
    """Write a lock file, whole or not at all; its lines are in an order that merges well."""
    whole = {"schema": SCHEMA, "weights": dict(sorted(weights.items()))}
    with atomically(path) as partial:
        partial.write_text(json_text(whole, indent=1) + "\n", encoding="utf-8")
