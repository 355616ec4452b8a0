"""The manifest: every published weight, what it is, and the hash it must have.

`weights_manifest.json` stands at the top of the repository and is shipped in the wheel.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from senetzoo._utils.checks import Ge, Le, Pattern, Scalar, from_json
from senetzoo._utils.documents import check_schema, parse_json, reading
from senetzoo.errors import BrokenError, ConfigError, WeightsError, nearest
from senetzoo.nn.preprocessing import Preprocessing
from senetzoo.nn.report import Pinned

SCHEMA = 3
FILE = "weights_manifest.json"
FORMATS = (".safetensors", ".pth", ".pt")
"""Endings of the files that can be read; all but the first are pickles of tensors."""
_TAG = re.compile(r"[a-z0-9_]+\.[a-z0-9_]+")

_NAME = Pattern(
    rf"[A-Za-z0-9][A-Za-z0-9._-]*({'|'.join(map(re.escape, FORMATS))})",
    f"a plain file name that ends in one of {', '.join(FORMATS)}",
)
_COMMIT = Pattern(r"[0-9a-f]{40}", "a full commit (40 hexadecimal digits)")
_ADDRESS = Pattern(r"(?s)https://.*", "an address that begins with https://")
_PREFIX = Pattern(r"[0-9a-f]{8,64}", "the first 8 or more digits of a hash")
_HASH = Pattern(r"[0-9a-f]{64}", "a hash of 64 lower-case hexadecimal digits")
_SHA1 = Pattern(r"[0-9a-f]{40}", "a SHA-1 hash of 40 lower-case hexadecimal digits")
Sha256: TypeAlias = Annotated[str, _HASH]
Commit: TypeAlias = Annotated[str, _COMMIT]
Dialect: TypeAlias = Literal[
    "senetzoo",
    "torchvision",
    "timm",
    "timm_legacy",
    "pytorchcv",
    "chenyaofo",
    "kuangliu",
    "weiaicunzai",
]
"""Whose parameter names a published file has."""


@dataclass(frozen=True)
class Source:
    """Where the file is: in the wheel, in a repository of the Hub, or at an address.

    The revision is a full commit; null where it is not known, and then the file of the main branch
    is meant, which can change under a reader. What an address that ends in ``.zip`` has is a zip
    archive of the file alone.
    """

    kind: Literal["embedded", "hub", "url"]
    file: Annotated[str, _NAME]
    repo: str | None = None
    revision: Commit | None = None
    url: Annotated[str, _ADDRESS] | None = None


@dataclass(frozen=True)
class Metric:
    """One measured figure, in per cent: ``"accuracy"`` is top-1, ``"accuracy@5"`` top-5.

    The value is the mean over `runs` trainings, null where the publisher does not say how many; the
    deviation is null for one. ``"last"`` are the weights at the end of training, not the best on
    test images; ``"published"`` those of the file, whichever they are. `source` is who states the
    figure; null where it was measured here.
    """

    name: Literal["accuracy", "accuracy@5"]
    data: str
    images: int
    value: Annotated[float, Ge(0), Le(100)]
    std: float | None
    runs: int | None
    checkpoint: Literal["last", "published"]
    source: str | None


@dataclass(frozen=True)
class Training:
    """One stage of how the weights came about; `command` is what to type to train them again.

    The revision is a commit of this repository, the hours are wall time on the machine. `start` is
    the tag of the weights that it began with, which need not be published any more; null for a
    random initialization.
    """

    recipe: str
    command: str
    epochs: int
    seed: int
    revision: str
    hours: float
    machine: str
    start: str | None


@dataclass(frozen=True)
class License:
    """The terms of code, weights and their data; SPDX identifiers where there are."""

    code: str
    weights: str
    data: str

    @property
    def non_commercial(self) -> bool:
        """Whether the weights' license excludes commercial use: ``CC-BY-NC-4.0``."""
        return "nc" in self.weights.lower().split("-")


@dataclass(frozen=True)
class Entry:
    """One published weight.

    Args:
        model: Name in the registry.
        policy: Policy text beyond the name's own; empty for none.
        stem: The stem as `create` takes it, where it is not the network's own; null else.
        config: Further fields of the architecture's config that are not the name's own, such as
            ``{"pool": "ceil"}``; empty for none.
        num_classes: Outputs.
        classes: Their names; null where there are too many to list here.
        default: Whether ``pretrained=True`` means this one.
        source: Where the file is.
        sha256: Full hash of the file; null where unknown.
        sha256_prefix: Start of the hash, where the publisher states only that; null else.
        sha1: SHA-1 of the file, where the publisher states only that; null else.
        bytes: Size of the file; null where unknown.
        params: Learnable parameters.
        macs: Multiply-accumulates for one image of the input size.
        preprocessing: What images went through in training and testing.
        dialect: Whose parameter names the file has.
        data: What it was trained on.
        metrics: Measured figures.
        training: How it came about, from the first stage to the last; empty where it is not ours.
        license: Terms.
        provenance: Who trained it and where that is documented.
    """

    model: str
    policy: str
    stem: str | None
    config: Mapping[str, Scalar] = field(hash=False)
    num_classes: int
    classes: tuple[str, ...] | None
    default: bool
    source: Source
    sha256: Sha256 | None
    sha256_prefix: Annotated[str, _PREFIX] | None
    sha1: Annotated[str, _SHA1] | None
    bytes: int | None
    params: int
    macs: int
    preprocessing: Preprocessing
    dialect: Dialect
    data: str
    metrics: tuple[Metric, ...]
    training: tuple[Training, ...]
    license: License
    provenance: str

    @property
    def pinned(self) -> Pinned:
        """What the file is checked by at every load; empty for nothing."""
        if self.sha256 is not None:
            return "sha256"
        if self.sha256_prefix is not None:
            return "prefix"
        return "" if self.sha1 is None else "sha1"

    @property
    def digest(self) -> str:
        """The hash, or the start of it, that the file is checked by; empty for none."""
        return self.sha256 or self.sha256_prefix or self.sha1 or ""


def parse(text: str) -> dict[str, Entry]:
    """The entries of a manifest by tag; `WeightsError` names the field that is broken."""
    try:
        return _entries(parse_json(text))
    except BrokenError as error:
        first = f"The manifest is broken at {error.where}."
        raise WeightsError(first, error.what, error.hint) from None


def _entries(raw: object) -> dict[str, Entry]:
    check_schema(raw.get("schema") if isinstance(raw, dict) else None, SCHEMA, SCHEMA)
    if (
        not isinstance(raw, dict)
        or set(raw) != {"schema", "entries"}
        or not isinstance(raw["entries"], dict)
    ):
        raise BrokenError("its start", "expected an object of schema and entries")
    entries = {tag: _entry(tag, value) for tag, value in raw["entries"].items()}
    defaults: dict[str, str] = {}
    for tag, entry in entries.items():
        if entry.default and defaults.setdefault(entry.model, tag) != tag:
            raise BrokenError(
                tag, f"the default of {entry.model} is {defaults[entry.model]} already"
            )
    for tag, entry in entries.items():
        _check_start(tag, entry, entries)
    return entries


def _entry(tag: str, raw: object) -> Entry:
    if not _TAG.fullmatch(tag):
        raise BrokenError(tag, "a tag is name.version, in lower case, digits and _")
    entry = from_json(Entry, raw, tag)
    if fault := next(_faults(tag, entry), None):
        raise BrokenError(f"{tag}{fault[0]}", fault[1])
    return entry


def _faults(tag: str, entry: Entry) -> Iterator[tuple[str, str]]:
    """What types do not say: each place of an entry that is wrong, and what is wrong there."""
    source, ours = entry.source, entry.dialect == "senetzoo"
    if tag.split(".")[0] != entry.model:
        yield "", f"its model is {entry.model!r}"
    if entry.sha256 is not None and entry.sha256_prefix is not None:
        yield "", "a sha256_prefix is for a file whose sha256 is not known"
    if entry.sha1 is not None and (entry.sha256 or entry.sha256_prefix):
        yield "", "a sha1 is for a file of whose sha256 nothing is known"
    needed, allowed = _FIELDS[source.kind]
    if needed and not getattr(source, needed):
        yield ".source", f"a source of kind {source.kind!r} needs {needed}"
    for name in ("repo", "revision", "url"):
        if name not in (needed, allowed) and getattr(source, name) is not None:
            yield ".source", f"a source of kind {source.kind!r} has no {name}"
    if source.kind == "embedded" and entry.sha256 is None:
        yield "", "an embedded file needs its sha256"
    if ours and entry.sha256 is None:
        yield "", "weights of our own need their sha256"
    if ours and not source.file.endswith(".safetensors"):
        yield ".source", "weights of our own are .safetensors files"
    if entry.classes is not None and len(entry.classes) != entry.num_classes:
        yield "", f"there are {len(entry.classes)} class names for {entry.num_classes}"
    for name in sorted({"stem", "num_classes", "in_chans", "policy"} & set(entry.config)):
        yield ".config", f"{name!r} has a field of its own"
    for index, metric in enumerate(entry.metrics):
        if (metric.checkpoint == "published") != (metric.source is not None):
            yield f".metrics[{index}]", "a figure has a source if and only if it is published"
    if entry.default and entry.license.non_commercial:
        what = f"its license {entry.license.weights} excludes commercial use"
        yield "", f"{what}, so it can't be a default"


# The field that a kind of source needs, and one that it may have.
_FIELDS = {"embedded": ("", ""), "hub": ("repo", "revision"), "url": ("url", "")}


def _check_start(tag: str, entry: Entry, entries: Mapping[str, Entry]) -> None:
    """Refuse a training that began with unknown weights, or with what it made."""
    known = {tag}
    for index, stage in enumerate(entry.training):
        where, start, before = f"{tag}.training[{index}].start", stage.start, entry.training[:index]
        if start is None:
            if before:
                raise BrokenError(where, "it is null, but something was before it")
            continue
        if start in known:
            raise BrokenError(where, "it is circular: it leads back to these weights")
        if start not in entries and not before:
            raise BrokenError(where, f"there are no weights {start!r}", nearest(start, entries))
        if start in entries and entries[start].training != before:
            raise BrokenError(where, f"the entry of {start!r} states another training")
        known.add(start)


def path() -> Path:
    """The manifest: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).parent.parent
    inside = package / FILE
    return inside if inside.is_file() else package.parent / FILE


@functools.cache
def manifest() -> Mapping[str, Entry]:
    """The shipped manifest's entries by tag."""
    file, remedy = path(), "Install senetzoo again"
    if not file.is_file():
        raise WeightsError("The manifest of weights is missing.", f"Looked for {file}.", remedy)
    with reading(file, remedy, WeightsError):
        return _entries(parse_json(file.read_text(encoding="utf-8")))


def history(tag: str) -> dict[str, Training]:
    """The trainings that made weights, the first one first, by the tag that each ended with.

    It is empty for those of other publishers. Not every tag of it is still in the manifest.
    """
    stages = manifest()[tag].training
    ends = [*(stage.start or "" for stage in stages[1:]), tag]
    return dict(zip(ends, stages, strict=True)) if stages else {}


def tags(model: str) -> list[str]:
    """Tags of the weights of `model`, without the model's name; the default first."""
    found = [(not e.default, t.split(".")[1]) for t, e in manifest().items() if e.model == model]
    return [tag for _, tag in sorted(found)]


def find(model: str, tag: str | None) -> tuple[str, Entry]:
    """The entry ``model.tag``, or the default of `model` where `tag` is None."""
    known, entries = tags(model), manifest()
    # The default comes first.
    if tag in known or (tag is None and known and entries[f"{model}.{known[0]}"].default):
        full = f"{model}.{tag or known[0]}"
        return full, entries[full]
    if not known:
        others = sorted({entry.model for entry in entries.values()})
        raise ConfigError(
            f"There are no pretrained weights of {model!r}.",
            "This version of senetzoo has none at all."
            if not others
            else f"Networks with weights are {', '.join(others)}."
            if len(others) <= 8
            else f"There are weights of {len(others)} networks.",
            "Those with weights are listed by: senetzoo list --pretrained",
        )
    remedy = nearest(tag, known) if tag else ""
    elsewhere = [e.model for full, e in entries.items() if full.partition(".")[2] == tag]
    if close := difflib.get_close_matches(model, elsewhere, n=1):
        remedy = f"{close[0]!r} has them: {close[0]}.{tag}"
    raise ConfigError(
        f"{model!r} has no default weights."
        if tag is None
        else f"There are no weights {tag!r} of {model!r}.",
        f"Its tags are {', '.join(known)}.",
        remedy or f"Type for example: {model}.{known[0]}",
    )
