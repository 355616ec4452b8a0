"""The manifest: every published weight, what it is, and the hash it must have.

`weights_manifest.json` stands at the top of the repository and is shipped in the wheel.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from senetzoo._utils.checks import Ge, Le, Pattern, Scalar, from_json, shown
from senetzoo._utils.documents import parse_json
from senetzoo.data.preprocessing import Preprocessing
from senetzoo.errors import BrokenError, ConfigError, WeightsError, nearest

SCHEMA = 2
FILE = "weights_manifest.json"
FORMATS = (".safetensors", ".pth", ".pt")
"""Endings of the files that can be read; all but the first are pickles of tensors."""
_TAG = re.compile(r"[a-z0-9_]+\.[a-z0-9_]+")

FileName: TypeAlias = Annotated[
    str,
    Pattern(
        rf"[A-Za-z0-9][A-Za-z0-9._-]*({'|'.join(map(re.escape, FORMATS))})",
        f"a plain file name that ends in one of {', '.join(FORMATS)}",
    ),
]
Commit: TypeAlias = Annotated[
    str, Pattern(r"[0-9a-f]{40}", "a full commit (40 hexadecimal digits)")
]
Sha256: TypeAlias = Annotated[
    str, Pattern(r"[0-9a-f]{64}", "a hash of 64 lower-case hexadecimal digits")
]
Sha256Prefix: TypeAlias = Annotated[
    str, Pattern(r"[0-9a-f]{8,64}", "the first 8 or more digits of a hash")
]
Address: TypeAlias = Annotated[
    str, Pattern(r"(?s)https://.*", "an address that begins with https://")
]
Dialect: TypeAlias = Literal[
    "senetzoo", "torchvision", "timm", "timm_legacy", "pytorchcv", "chenyaofo"
]
"""Whose parameter names a published file has."""


@dataclass(frozen=True)
class Source:
    """Where the file is.

    Args:
        kind: ``"embedded"`` (in the wheel), ``"hub"`` (Hugging Face) or ``"url"``.
        file: File name, in the wheel or in the repository.
        repo: Hub repository.
        revision: Full commit of the Hub repository; null where it is not known, and then the file
            of the main branch is meant, which can change under a reader.
        url: Address, for ``"url"``.
    """

    kind: Literal["embedded", "hub", "url"]
    file: FileName
    repo: str | None = None
    revision: Commit | None = None
    url: Address | None = None


@dataclass(frozen=True)
class Metric:
    """One measured figure.

    Args:
        name: ``"accuracy"`` (top-1) or ``"accuracy@5"`` (top-5), in per cent.
        data: On which images, and how many.
        images: Number of images.
        value: Mean over `runs`.
        std: Standard deviation over `runs`; null for one run.
        runs: Number of training runs; null where the publisher does not say.
        checkpoint: ``"last"``: the weights at the end of training, not the best on test images.
            ``"published"``: the weights of the file, whichever they are.
        source: Who states the figure; null where it was measured here.
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
    """One stage of how the weights came about.

    Args:
        recipe: Name of the recipe.
        command: What to type to train them again.
        epochs: Epochs.
        seed: Seed.
        revision: Commit of this repository that they were trained with.
        hours: Wall time on the machine named in `machine`.
        machine: Hardware and versions.
        start: Tag of the weights that it began with, which need not be published any more; null
            for a random initialization.
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
    """Under which terms; SPDX identifiers where there is one.

    Args:
        code: Of the code that the weights were published with.
        weights: Of the weights.
        data: Of the data they were trained on.
    """

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
        stem: Name of the stem where it is not the network's own; null else.
        config: Further fields of the architecture's config that are not the name's own, such as
            ``{"pool": "ceil"}``; empty for none.
        num_classes: Outputs.
        classes: Their names; null where there are too many to list here.
        default: Whether ``pretrained=True`` means this one.
        source: Where the file is.
        sha256: Full hash of the file; null where unknown.
        sha256_prefix: Start of the hash, where the publisher states only that; null else.
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
    sha256_prefix: Sha256Prefix | None
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
    def pinned(self) -> Literal["sha256", "prefix", ""]:
        """What the file is checked by at every load; empty for nothing."""
        if self.sha256 is not None:
            return "sha256"
        return "" if self.sha256_prefix is None else "prefix"


def _entry(tag: str, raw: object) -> Entry:
    if not _TAG.fullmatch(tag):
        raise BrokenError(tag, "a tag is name.version, in lower case, digits and _")
    entry = from_json(Entry, raw, tag)
    if tag.split(".")[0] != entry.model:
        raise BrokenError(tag, f"its model is {entry.model!r}")
    _check(tag, entry)
    return entry


def _check(tag: str, entry: Entry) -> None:
    """What types do not say."""
    _check_file(tag, entry)
    if entry.classes is not None and len(entry.classes) != entry.num_classes:
        raise BrokenError(
            tag, f"there are {len(entry.classes)} class names for {entry.num_classes}"
        )
    for name in entry.config:
        if name in ("stem", "num_classes", "in_chans", "policy"):
            raise BrokenError(f"{tag}.config", f"{name!r} has a field of its own")
    for index, metric in enumerate(entry.metrics):
        if (metric.checkpoint == "published") != (metric.source is not None):
            raise BrokenError(
                f"{tag}.metrics[{index}]", "a figure has a source if and only if it is published"
            )
    if entry.default and entry.license.non_commercial:
        what = f"its license {entry.license.weights} excludes commercial use"
        raise BrokenError(tag, f"{what}, so it can't be a default")


def _check_file(tag: str, entry: Entry) -> None:
    """Where the file is, and what it is checked by."""
    full, prefix, source = entry.sha256, entry.sha256_prefix, entry.source
    where = f"{tag}.source"
    if full is not None and prefix is not None:
        raise BrokenError(tag, "a sha256_prefix is for a file whose sha256 is not known")
    needed = {"embedded": (), "hub": ("repo",), "url": ("url",)}
    for name in needed[source.kind]:
        if not getattr(source, name):
            raise BrokenError(where, f"a source of kind {source.kind!r} needs {name}")
    for name in ("repo", "revision", "url"):
        known = (*needed[source.kind], "revision") if source.kind == "hub" else needed[source.kind]
        if name not in known and getattr(source, name) is not None:
            raise BrokenError(where, f"a source of kind {source.kind!r} has no {name}")
    if source.kind == "embedded" and full is None:
        raise BrokenError(tag, "an embedded file needs its sha256")
    if entry.dialect == "senetzoo" and entry.pinned != "sha256":
        raise BrokenError(tag, "weights of our own need their sha256")
    if entry.dialect == "senetzoo" and not source.file.endswith(".safetensors"):
        raise BrokenError(where, "weights of our own are .safetensors files")


def parse(text: str) -> dict[str, Entry]:
    """The entries of a manifest by tag.

    Raises:
        WeightsError: The text is no manifest; the message names the field.
    """
    try:
        return _entries(parse_json(text))
    except BrokenError as error:
        first = f"The manifest is broken at {error.where}."
        raise WeightsError(first, error.what, error.hint) from None


def _entries(raw: object) -> dict[str, Entry]:
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        found = raw.get("schema") if isinstance(raw, dict) else None
        raise BrokenError(
            "schema", f"this version of senetzoo reads schema {SCHEMA}, not {shown(found)}"
        )
    if set(raw) != {"schema", "entries"} or not isinstance(raw["entries"], dict):
        raise BrokenError("its start", "expected an object of schema and entries")
    entries = {tag: _entry(tag, value) for tag, value in raw["entries"].items()}
    defaults: dict[str, str] = {}
    for tag, entry in entries.items():
        if entry.default and entry.model in defaults:
            raise BrokenError(
                tag, f"the default of {entry.model} is {defaults[entry.model]} already"
            )
        if entry.default:
            defaults[entry.model] = tag
    for tag, entry in entries.items():
        _check_start(tag, entry, entries)
    return entries


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
            raise BrokenError(where, "it leads back to the weights themselves")
        if start not in entries and not before:
            raise BrokenError(where, f"there are no weights {start!r}", nearest(start, entries))
        if start in entries and entries[start].training != before:
            raise BrokenError(where, f"the training of {start!r} is another one in its own entry")
        known.add(start)


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


def history(tag: str) -> dict[str, Training]:
    """The trainings that made weights, the first one first, by the tag that each ended with.

    Those of other publishers are not known: it is empty for theirs. Not every tag of it is still
    in the manifest.
    """
    stages = manifest()[tag].training
    ends = [*(stage.start or "" for stage in stages[1:]), tag]
    return dict(zip(ends, stages, strict=True)) if stages else {}


def last_stages(training: tuple[Training, ...]) -> tuple[Training, ...]:
    """Those of a training that no other entry has: since published or random weights."""
    first = len(training) - 1
    while first > 0 and training[first].start not in manifest():
        first -= 1
    return training[first:]


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
            "This version of senetzoo has none at all."
            if not others
            else f"Networks with weights are {', '.join(others)}."
            if len(others) <= 8
            else f"There are weights of {len(others)} networks.",
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
