"""The manifest: every published weight, what it is, and the hash it must have.

`weights_manifest.json` stands at the top of the repository and is shipped in the wheel.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from senetzoo.errors import ConfigError, WeightsError, nearest

SCHEMA = 1
FILE = "weights_manifest.json"
_TAG = re.compile(r"[a-z0-9_]+\.[a-z0-9_]+")


@dataclass(frozen=True)
class Source:
    """Where the file is.

    Args:
        kind: ``"embedded"`` (in the wheel), ``"hub"`` (Hugging Face) or ``"url"``.
        file: File name, in the wheel or in the repository.
        repo: Hub repository.
        revision: Full commit of the Hub repository: a branch could change under a reader.
        url: Address, for ``"url"``.
    """

    kind: Literal["embedded", "hub", "url"]
    file: str
    repo: str | None = None
    revision: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class Input:
    """What the network was trained to see; the fields are those of `Transforms`."""

    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Literal["nearest", "bilinear", "bicubic"]
    crop: float


@dataclass(frozen=True)
class Metric:
    """One measured figure.

    Args:
        name: ``"accuracy"`` (top-1, in per cent).
        data: On which images, and how many.
        images: Number of images.
        value: Mean over `runs`.
        std: Standard deviation over `runs`; null for one run.
        runs: Number of training runs.
        checkpoint: ``"last"``: the weights at the end of training, not the best on test images.
    """

    name: str
    data: str
    images: int
    value: float
    std: float | None
    runs: int
    checkpoint: str


@dataclass(frozen=True)
class Training:
    """How the weights came about.

    Args:
        recipe: Name of the recipe.
        command: What to type to train them again.
        epochs: Epochs.
        seed: Seed.
        revision: Commit of this repository that they were trained with.
        hours: Wall time on the machine named in `machine`.
        machine: Hardware and versions.
    """

    recipe: str
    command: str
    epochs: int
    seed: int
    revision: str
    hours: float
    machine: str


@dataclass(frozen=True)
class Licence:
    """Under which terms: of the code, of the weights, and of the data they were trained on."""

    code: str
    weights: str
    data: str


@dataclass(frozen=True)
class Entry:
    """One published weight.

    Args:
        model: Name in the registry.
        policy: Policy text beyond the name's own; empty for none.
        stem: Name of the stem where it is not the network's own; null else.
        num_classes: Outputs.
        classes: Their names; null where there are too many to list here.
        default: Whether ``pretrained=True`` means this one.
        source: Where the file is.
        sha256: Full hash of the file; null where unknown.
        sha256_prefix: Start of the hash, where the publisher states only that; null else.
        bytes: Size of the file; null where unknown.
        params: Learnable parameters.
        macs: Multiply-accumulates for one image of the input size.
        input: What the network was trained to see.
        dialect: Whose parameter names the file has: ``"senetzoo"``.
        data: What it was trained on.
        metrics: Measured figures.
        training: How it came about; null where it is not ours.
        licence: Terms.
        provenance: Who trained it and where that is documented.
    """

    model: str
    policy: str
    stem: str | None
    num_classes: int
    classes: tuple[str, ...] | None
    default: bool
    source: Source
    sha256: str | None
    sha256_prefix: str | None
    bytes: int | None
    params: int
    macs: int
    input: Input
    dialect: str
    data: str
    metrics: tuple[Metric, ...]
    training: Training | None
    licence: Licence
    provenance: str


T = TypeVar("T")


def _build(kind: type[T], raw: object, where: str) -> T:
    """A dataclass from a JSON object: every field given, none unknown, each of its type."""
    if not isinstance(raw, dict):
        raise _broken(where, f"it is {_shown(raw)}, not an object")
    hints = get_type_hints(kind)
    for name in raw:
        if name not in hints:
            raise _broken(where, f"the field {name!r} is unknown", nearest(name, hints))
    for name in hints:
        if name not in raw:
            raise _broken(where, f"the field {name!r} is missing")
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
    optional = isinstance(kind, UnionType)
    if optional:
        if raw is None:
            return None
        kind = next(part for part in get_args(kind) if part is not type(None))
    if dataclasses.is_dataclass(kind) and isinstance(raw, dict):
        return _build(cast("type[Any]", kind), raw, where)
    if dataclasses.is_dataclass(kind):
        fits, what = False, "an object"
    elif get_origin(kind) is tuple:
        fits, what = isinstance(raw, list), "a list"
    elif get_origin(kind) is Literal:
        fits, what = raw in get_args(kind), f"one of {', '.join(map(_shown, get_args(kind)))}"
    else:
        kinds, what = _JSON[kind]
        fits = type(raw) in kinds
    if not fits:
        raise _broken(where, f"it is {_shown(raw)}, not {what}{' or null' * optional}")
    if isinstance(raw, list):
        inner = get_args(kind)[0]
        return tuple(_value(inner, item, f"{where}[{n}]") for n, item in enumerate(raw))
    return float(raw) if kind is float else raw  # type: ignore[arg-type]


def _shown(raw: object) -> str:
    text = json.dumps(raw)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _broken(where: str, what: str, hint: str = "") -> WeightsError:
    return WeightsError(
        f"The manifest is broken at {where}.", f"{what[0].upper()}{what[1:]}.", hint
    )


def _entry(tag: str, raw: object) -> Entry:
    if not _TAG.fullmatch(tag):
        raise _broken(tag, "a tag is name.version, in lower case, digits and _")
    entry = _build(Entry, raw, tag)
    if tag.split(".")[0] != entry.model:
        raise _broken(tag, f"its model is {entry.model!r}")
    _check(tag, entry)
    return entry


def _check(tag: str, entry: Entry) -> None:
    """What types do not say."""
    full, prefix = entry.sha256, entry.sha256_prefix
    if full is not None and not re.fullmatch(r"[0-9a-f]{64}", full):
        raise _broken(tag, "the sha256 is no hash of 64 lower-case hexadecimal digits")
    if prefix is not None and not re.fullmatch(r"[0-9a-f]{8,64}", prefix):
        raise _broken(tag, "the sha256_prefix is no start of a hash: 8 or more of its digits")
    source = entry.source
    needed = {"embedded": (), "hub": ("repo", "revision"), "url": ("url",)}
    for field in needed[source.kind]:
        if not getattr(source, field):
            raise _broken(f"{tag}.source", f"a source of kind {source.kind!r} needs {field}")
    if source.kind == "hub" and not re.fullmatch(r"[0-9a-f]{40}", source.revision or ""):
        raise _broken(f"{tag}.source", "the revision is no full commit (40 hexadecimal digits)")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", source.file):
        raise _broken(f"{tag}.source", f"the file is {source.file!r}, no plain file name")
    if source.kind == "embedded" and full is None:
        raise _broken(tag, "an embedded file needs its sha256")
    if full is None and prefix is None:
        raise _broken(tag, "it has neither sha256 nor sha256_prefix to check the file by")
    if entry.classes is not None and len(entry.classes) != entry.num_classes:
        raise _broken(tag, f"there are {len(entry.classes)} class names for {entry.num_classes}")
    if not len(entry.input.mean) == len(entry.input.std) == entry.input.channels:
        raise _broken(f"{tag}.input", "the numbers of mean, std and channels disagree")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object whose names differ: of two equal ones, json would keep the last unsaid."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, _ in pairs if sum(other == name for other, _ in pairs) > 1)
        raise _broken(twice, "it is there twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def parse(text: str) -> dict[str, Entry]:
    """The entries of a manifest by tag.

    Raises:
        WeightsError: The text is no manifest; the message names the field.
    """
    try:
        raw = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except ValueError as error:
        raise _broken("its start", f"it is no JSON ({error})") from None
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        found = raw.get("schema") if isinstance(raw, dict) else None
        raise _broken(
            "schema", f"this version of senetzoo reads schema {SCHEMA}, not {_shown(found)}"
        )
    if set(raw) != {"schema", "entries"} or not isinstance(raw["entries"], dict):
        raise _broken("its start", "expected an object of schema and entries")
    entries = {tag: _entry(tag, value) for tag, value in raw["entries"].items()}
    defaults: dict[str, str] = {}
    for tag, entry in entries.items():
        if entry.default and entry.model in defaults:
            raise _broken(tag, f"the default of {entry.model} is {defaults[entry.model]} already")
        if entry.default:
            defaults[entry.model] = tag
    return entries


def text(entries: Mapping[str, Entry]) -> str:
    """The manifest's text, as `parse` reads it: one canonical form."""
    raw = {tag: dataclasses.asdict(entry) for tag, entry in sorted(entries.items())}
    whole = {"schema": SCHEMA, "entries": raw}
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def path() -> Path:
    """The manifest: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).parent.parent
    inside = package / FILE
    return inside if inside.is_file() else package.parent / FILE


@functools.cache
def manifest() -> Mapping[str, Entry]:
    """The shipped manifest's entries by tag."""
    try:
        content = path().read_text(encoding="utf-8")
    except OSError:
        raise WeightsError(
            "The manifest of weights is missing.",
            f"Looked for {path()}.",
            "Install senetzoo again",
        ) from None
    return parse(content)


def tags(model: str) -> list[str]:
    """Tags of the weights of `model`, without the model's name; the default first."""
    found = [(not e.default, t.split(".")[1]) for t, e in manifest().items() if e.model == model]
    return [tag for _, tag in sorted(found)]


def find(model: str, tag: str | None) -> tuple[str, Entry]:
    """The entry ``model.tag``, or the default of `model` where `tag` is None.

    Raises:
        ConfigError: No such weights.
    """
    known = tags(model)
    if tag is None:
        for name in known:
            if manifest()[f"{model}.{name}"].default:
                return f"{model}.{name}", manifest()[f"{model}.{name}"]
    elif tag in known:
        return f"{model}.{tag}", manifest()[f"{model}.{tag}"]
    if not known:
        others = sorted({entry.model for entry in manifest().values()})
        raise ConfigError(
            f"There are no pretrained weights of {model!r}.",
            f"Networks with weights are {', '.join(others)}."
            if others
            else "This version of senetzoo has none at all.",
            f"Type create({model!r}) for random weights, or: senetzoo list --pretrained",
        )
    raise ConfigError(
        f"There are no weights {tag!r} of {model!r}."
        if tag is not None
        else f"{model!r} has no default weights.",
        f"Its tags are {', '.join(known)}.",
        (nearest(tag, known) if tag is not None else "")
        or f"Type for example: create({model!r}, pretrained={known[0]!r})",
    )
