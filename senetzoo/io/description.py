"""The content of ``config.json``: what a network is.

Its words are not those of timm's or Transformers' files: a library that does not know the gates
must refuse the network rather than build another one.
"""

from __future__ import annotations

import builtins
import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from senetzoo._utils.checks import from_json, shown
from senetzoo._utils.documents import parse_json
from senetzoo.data.preprocessing import Preprocessing
from senetzoo.errors import BrokenError

SCHEMA = 2
LIBRARY = "senetzoo"


@dataclass(frozen=True)
class File:
    """The file of the weights.

    Args:
        file: Its name.
        sha256: Its hash.
        bytes: Its size.
    """

    file: Literal["model.safetensors"]
    sha256: str
    bytes: int

    @staticmethod
    def of(whole: builtins.bytes) -> File:
        """What a file with `whole` inside is."""
        return File("model.safetensors", hashlib.sha256(whole).hexdigest(), len(whole))


@dataclass(frozen=True)
class Network:
    """A `ModelSpec` in values of JSON.

    Args:
        name: Name in the registry; null where none has this config.
        family: Family of the config: ``"ResNet"``.
        config: Every field of the config.
        policy: Text of the policy. Files of schema 1 may have each gate by the name of its site.
    """

    name: str | None
    family: str
    config: Mapping[str, object]
    policy: str | Mapping[str, object]


@dataclass(frozen=True)
class Description:
    """What ``config.json`` says of a network.

    Args:
        library_name: ``"senetzoo"``.
        schema: Version of these fields.
        senetzoo: Version of senetzoo that wrote it.
        network: What it is built from.
        preprocessing: What images go through before; null where nobody says.
        classes: Names of the classes in the order of the logits; null where they have none.
        weights: The file of the weights.
    """

    library_name: str
    schema: int
    senetzoo: str
    network: Network
    preprocessing: Preprocessing | None
    classes: tuple[str, ...] | None
    weights: File

    def text(self) -> str:
        """The content of ``config.json``."""
        raw = dataclasses.asdict(self)
        return json.dumps(raw, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def parse(text: str) -> Description:
    """The description that a ``config.json`` is.

    Raises:
        BrokenError: It is none, or of another version.
    """
    raw = parse_json(text)
    if not isinstance(raw, dict) or raw.get("library_name") != LIBRARY:
        raise BrokenError("library_name", f"it is not {LIBRARY}'s: it does not name {LIBRARY!r}")
    schema = raw.get("schema")
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        newer = type(schema) is int and schema > SCHEMA
        what = f"it is {shown(schema)}, and this version of {LIBRARY} reads up to {SCHEMA}"
        raise BrokenError("schema", what, f"Install a newer {LIBRARY}" * newer)
    description = from_json(Description, _of_schema_1(raw) if schema == 1 else raw, "")
    if not re.fullmatch(r"[0-9a-f]{64}", description.weights.sha256):
        what = "it is no hash of 64 lower-case hexadecimal digits"
        raise BrokenError("weights.sha256", what)
    return description


@dataclass(frozen=True)
class _Schema1:
    """The fields of version 0.1.0, whose words were timm's."""

    library_name: str
    schema: int
    senetzoo: str
    architecture: str | None
    family: str
    config: Mapping[str, object]
    policy: str | None
    gates: Mapping[str, Mapping[str, object]] | None
    num_classes: int
    label_names: tuple[str, ...] | None
    pretrained_cfg: Mapping[str, object] | None
    weights: Mapping[str, object]


def _of_schema_1(raw: dict[str, object]) -> dict[str, Any]:
    """The fields of today from those of version 0.1.0.

    Raises:
        BrokenError: A field is missing, unknown or of another type, or two contradict each other.
    """
    old = from_json(_Schema1, raw, "")
    if (old.policy is None) == (old.gates is None):
        what = "one of policy and gates says where gates are, the other is null"
        raise BrokenError("policy", what)
    if old.config.get("num_classes") != old.num_classes:
        what = f"it is {old.num_classes}, and the config says {old.config.get('num_classes')}"
        raise BrokenError("num_classes", what)
    preprocessing = None
    if old.pretrained_cfg is not None:
        fields = dict(old.pretrained_cfg)
        shape, crop = fields.pop("input_size", None), fields.pop("crop_pct", None)
        if not isinstance(shape, list) or len(shape) != 3 or shape[1] != shape[2]:
            what = f"it is {shown(shape)}, not channels and two equal sides"
            raise BrokenError("pretrained_cfg.input_size", what)
        preprocessing = {**fields, "size": shape[1], "crop": crop}
    network = {
        "name": old.architecture,
        "family": old.family,
        "config": old.config,
        "policy": old.policy if old.gates is None else old.gates,
    }
    names = None if old.label_names is None else list(old.label_names)
    return {
        "library_name": LIBRARY,
        "schema": SCHEMA,
        "senetzoo": old.senetzoo,
        "network": network,
        "preprocessing": preprocessing,
        "classes": names,
        "weights": old.weights,
    }
