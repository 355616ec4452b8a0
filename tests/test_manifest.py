from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pin_weights
import pytest
import torch
from safetensors.torch import load_file
from support.networks import message
from support.weights import RAW, REVISION, Shelf, changed, open_shelf, text_of

from senetzoo import config
from senetzoo.errors import ConfigError, WeightsError
from senetzoo.nn.counting import count
from senetzoo.nn.preprocessing import Preprocessing
from senetzoo.registry import ENTRIES
from senetzoo.weights import cache, dialects, manifest

SHIPPED = manifest.manifest()
TAG = "resnet20.pets_v1"


def begun(*starts: str | None) -> dict[str, Any]:
    """Weights whose stages of training began with `starts`."""
    stages = [{**RAW["training"][0], "start": start} for start in starts]
    return {**RAW, "training": stages, "default": False}


# --- The shipped manifest, recounted -------------------------------------------------------------


EMBEDDED = [tag for tag, entry in SHIPPED.items() if entry.source.kind == "embedded"]


def _built(entry: manifest.Entry) -> tuple[object, ...]:
    """What decides the counts of an entry."""
    arch = (entry.model, entry.policy, entry.stem, *sorted(entry.config.items()))
    return (*arch, entry.num_classes, entry.preprocessing.channels, entry.preprocessing.size)


@functools.cache
def _groups() -> dict[tuple[object, ...], list[str]]:
    """The tags of each network that is counted once, the smallest first."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for tag, entry in sorted(SHIPPED.items(), key=lambda item: item[1].macs):
        groups.setdefault(_built(entry), []).append(tag)
    return groups


def _counted() -> Iterator[Any]:
    """All groups; of each family and dialect only the smallest is quick."""
    seen = set()
    for tags in _groups().values():
        entry = SHIPPED[tags[0]]
        kind = (ENTRIES[entry.model].family.title, entry.dialect)
        marks = (pytest.mark.slow,) if kind in seen else ()
        seen.add(kind)
        yield pytest.param(tags, marks=marks, id=tags[0])


@pytest.mark.parametrize("tags", list(_counted()))
def test_shipped_entries_recount(tags: list[str]) -> None:
    with torch.device("meta"):
        model = config(tags[0]).build(seed=0)
    counts = count(model, SHIPPED[tags[0]].preprocessing.size)
    for tag in tags:
        assert (SHIPPED[tag].params, SHIPPED[tag].macs) == (counts.params, counts.macs), tag
    assert model.num_classes == SHIPPED[tags[0]].num_classes
    assert model.in_chans == SHIPPED[tags[0]].preprocessing.channels


def test_every_group_is_one_network() -> None:
    for tags in _groups().values():
        assert len({config(tag) for tag in tags}) == 1, tags


def test_shipped_entries_are_sound() -> None:
    for tag, entry in SHIPPED.items():
        assert entry.classes is None or len(set(entry.classes)) == entry.num_classes, tag
        assert all(metric.images > 0 for metric in entry.metrics), tag
        assert len({(metric.name, metric.data) for metric in entry.metrics}) == len(entry.metrics)
        assert entry.data, tag
        assert entry.provenance, tag
        assert all(dataclasses.asdict(entry.license).values()), tag
        assert bool(entry.training) == (entry.provenance == "trained by senetzoo"), tag


@pytest.mark.parametrize("tag", EMBEDDED)
def test_embedded_entry_is_true(tag: str) -> None:
    entry, model = SHIPPED[tag], config(tag).build(seed=0)
    file = cache.EMBEDDED / entry.source.file
    content = file.read_bytes()
    assert len(content) == entry.bytes
    assert hashlib.sha256(content).hexdigest() == entry.sha256
    stored, own = load_file(str(file)), model.state_dict()
    assert {name: value.shape for name, value in stored.items()} == {
        name: value.shape for name, value in own.items()
    }
    for name, value in stored.items():
        statistic = name.endswith(("running_mean", "running_var"))
        expected = torch.float32 if statistic else torch.float16
        assert value.dtype == (expected if own[name].is_floating_point() else own[name].dtype)
        assert bool(torch.isfinite(value).all())
    assert entry.metrics
    assert entry.training
    assert all(re.fullmatch(r"[0-9a-f]{40}", stage.revision) for stage in entry.training)


def test_embedded_files_are_those_of_the_manifest_and_small() -> None:
    files = {path.name: path.stat().st_size for path in cache.EMBEDDED.glob("*")}
    named = {e.source.file for e in SHIPPED.values() if e.source.kind == "embedded"}
    assert set(files) == named
    assert sum(files.values()) < 14 * 2**20


def test_shipped_manifest_is_canonical() -> None:
    text = manifest.path().read_text(encoding="utf-8")
    assert pin_weights.text(manifest.parse(text)) == pin_weights.text(SHIPPED)
    if SHIPPED:
        assert pin_weights.text(SHIPPED) == text


# --- Manifest ------------------------------------------------------------------------------------


def parsed(raw: dict[str, Any], tag: str = TAG) -> manifest.Entry:
    return manifest.parse(text_of({tag: raw}))[tag]


def refusal(text: str) -> str:
    with pytest.raises(WeightsError) as caught:
        manifest.parse(text)
    return str(caught.value)


def test_round_trip() -> None:
    entry = parsed(RAW)
    assert entry.preprocessing == Preprocessing(
        32, (0.5, 0.25, 0.125), (0.5, 0.25, 1.0), "bilinear", 0.875
    )
    assert entry.metrics[0].value == 91.5
    assert json.loads(pin_weights.text({TAG: entry}))["entries"][TAG] == RAW
    other = dataclasses.replace(
        entry,
        model="se_resnet20",
        classes=("Å", "ß", "猫"),
        config={"pool": "ceil", "aux": True, "window": 12, "drop_rate": 0.5, "act": None},
    )
    entries = {"se_resnet20.a": other, TAG: entry}
    text = pin_weights.text(entries)
    assert manifest.parse(text) == entries
    assert pin_weights.text(manifest.parse(text)) == text
    assert list(manifest.parse(text)) == sorted(entries)
    assert hash(other) != hash(entry)


def _fields(raw: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in raw.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _fields(value, f"{prefix}{name}.")
        elif isinstance(value, list) and isinstance(value[0], dict):
            yield from _fields(value[0], f"{prefix}{name}.0.")


@pytest.mark.parametrize("path", list(_fields(RAW)))
def test_every_field_is_needed_and_of_its_type(path: str) -> None:
    parent, _, name = f"{TAG}.{path}".replace(".0.", "[0].").rpartition(".")
    raw = copy.deepcopy(RAW)
    place: Any = raw
    for part in path.split(".")[:-1]:
        place = place[int(part) if part == "0" else part]
    del place[name]
    assert refusal(text_of({TAG: raw})) == (
        f"The manifest is broken at {parent}.\nThe field '{name}' is missing."
    )
    # No field is a list of a list.
    message = refusal(text_of({TAG: changed(path, [[]])}))
    first, second = message.splitlines()
    assert first in (f"The manifest is broken at {parent}.{name}{s}." for s in ("", "[0]"))
    assert second.startswith(("It is [[]], not ", "It is [], not "))


HASH = "a hash of 64 lower-case hexadecimal digits"
FILE = "a plain file name that ends in one of .safetensors, .pth, .pt"


@pytest.mark.parametrize(
    ("path", "value", "where", "what"),
    [
        ("params", None, "params", "It is null, not a whole number."),
        ("config", {"depths": [2, 2]}, "config.depths",
         "It is [2, 2], not text, a number, true, false or null."),
        ("config", {"stem": "deep"}, "config", "'stem' has a field of its own."),
        ("config", {"num_classes": 3}, "config", "'num_classes' has a field of its own."),
        ("dialect", "keras", "dialect",
         'It is "keras", not one of "senetzoo", "torchvision", "timm", "timm_legacy", '
         '"pytorchcv", "chenyaofo", "kuangliu", "weiaicunzai".'),
        ("source.kind", "ftp", "source.kind", 'It is "ftp", not one of "embedded", "hub", "url".'),
        ("metrics", [{**RAW["metrics"][0], "name": "precision"}], "metrics[0].name",
         'It is "precision", not one of "accuracy", "accuracy@5".'),
        ("metrics", [RAW["metrics"][0], {**RAW["metrics"][0], "value": 100.5}], "metrics[1].value",
         "It is 100.5, not a number from 0 to 100."),
        ("metrics", [{**RAW["metrics"][0], "checkpoint": "best"}], "metrics[0].checkpoint",
         'It is "best", not one of "last", "published".'),
        ("metrics", [{**RAW["metrics"][0], "source": "a paper"}], "metrics[0]",
         "A figure has a source if and only if it is published."),
        ("metrics", [{**RAW["metrics"][0], "checkpoint": "published"}], "metrics[0]",
         "A figure has a source if and only if it is published."),
        ("license.weights", "CC-BY-NC-4.0", "",
         "Its license CC-BY-NC-4.0 excludes commercial use, so it can't be a default."),
        ("shah256", "ab", "", "The field 'shah256' is unknown.\nDid you mean 'sha256'?"),
        ("model", "resnet56", "", "Its model is 'resnet56'."),
        ("sha256", "AB" * 32, "sha256", f'It is "{"AB" * 32}", not {HASH}.'),
        ("sha256", "ab", "sha256", f'It is "ab", not {HASH}.'),
        ("sha256", None, "", "An embedded file needs its sha256."),
        ("sha256_prefix", "abc", "sha256_prefix",
         'It is "abc", not the first 8 or more digits of a hash.'),
        ("sha256_prefix", "ab" * 4, "", "A sha256_prefix is for a file whose sha256 is not known."),
        ("sha1", "ab", "sha1",
         'It is "ab", not a SHA-1 hash of 40 lower-case hexadecimal digits.'),
        ("sha1", "ab" * 20, "", "A sha1 is for a file of whose sha256 nothing is known."),
        *(("source.file", name, "source.file", f"It is {json.dumps(name)}, not {FILE}.") for name
         in ("a.zip", "../secret", "/etc/passwd", "..", "a\\b", "")),
        ("source.file", "a.pth", "source", "Weights of our own are .safetensors files."),
        ("source.repo", "a/b", "source", "A source of kind 'embedded' has no repo."),
        ("source.revision", REVISION, "source", "A source of kind 'embedded' has no revision."),
        ("source.url", "https://a.b", "source", "A source of kind 'embedded' has no url."),
        ("source.kind", "hub", "source", "A source of kind 'hub' needs repo."),
        ("source.kind", "url", "source", "A source of kind 'url' needs url."),
        ("classes", ["cat", "dog"], "", "There are 2 class names for 3."),
    ],
)  # fmt: skip
def test_broken_entries(path: str, value: object, where: str, what: str) -> None:
    place = f"{TAG}.{where}" if where else TAG
    assert refusal(text_of({TAG: changed(path, value)})) == (
        f"The manifest is broken at {place}.\n{what}"
    )


def _hub(revision: str | None, **changes: Any) -> dict[str, Any]:
    """An entry of the Hub, of another publisher."""
    source = {"kind": "hub", "file": "a.safetensors", "repo": "a/b", "url": None}
    known = {**source, "revision": revision}
    return {**changed("source", known), "dialect": "timm", **changes}


def _url(url: str, **changes: Any) -> dict[str, Any]:
    """An entry with an address."""
    source = {"kind": "url", "file": "a.pth", "repo": None, "revision": None, "url": url}
    return {**changed("source", source), "dialect": "torchvision", **changes}


FULL = "not a full commit (40 hexadecimal digits)"
BACK = "It is circular: it leads back to these weights."
OLD = "resnet20.pets_v0"
TWO = {**_url("https://a.b"), "source": _hub(REVISION)["source"] | {"url": "https://a.b"}}
FEWER = changed("training.0.epochs", 4)


@pytest.mark.parametrize(
    ("entries", "where", "what"),
    [
        (_hub("main"), ".source.revision", f'It is "main", {FULL}.'),
        (_hub(REVISION[:12]), ".source.revision", f'It is "{REVISION[:12]}", {FULL}.'),
        (_hub(REVISION, sha256=None, dialect="senetzoo"), "",
         "Weights of our own need their sha256."),
        (_url("http://a.b/a.pth"), ".source.url",
         'It is "http://a.b/a.pth", not an address that begins with https://.'),
        (TWO, ".source", "A source of kind 'hub' has no url."),
        (begun(OLD), ".training[0].start",
         f"There are no weights '{OLD}'.\nDid you mean 'resnet20.pets_v1'?"),
        (begun(TAG), ".training[0].start", BACK),
        (begun(None, None), ".training[1].start", "It is null, but something was before it."),
        ({TAG: begun(None, OLD), OLD: FEWER}, f"{TAG}.training[1].start",
         f"The entry of '{OLD}' states another training."),
        (begun(None, OLD, TAG), ".training[2].start", BACK),
        ({TAG: RAW, "resnet20.pets_v2": RAW}, "resnet20.pets_v2",
         "The default of resnet20 is resnet20.pets_v1 already."),
        ({"resnet20": RAW}, "resnet20", "A tag is name.version, in lower case, digits and _."),
        ({TAG: 3}, TAG, "It is 3, not an object."),
        ('{"schema": 4, "entries": {}}', "schema",
         "It is 4, and this version of senetzoo reads 3.\n"
         "A newer senetzoo wrote it: pip install --upgrade senetzoo"),
        ("[]", "schema", "It is null, and this version of senetzoo reads 3."),
        ('{"schema": 3}', "its start", "Expected an object of schema and entries."),
        ('{"schema": 3, "entries": {"a.b": 1, "a.b": 2}}', "a.b", "It occurs twice."),
    ],
)  # fmt: skip
def test_broken_manifests(entries: str | dict[str, Any], where: str, what: str) -> None:
    """Texts, entries by tag, and single entries."""
    if isinstance(entries, dict) and "model" in entries:
        entries, where = {TAG: entries}, TAG + where
    text = entries if isinstance(entries, str) else text_of(entries)
    assert refusal(text) == f"The manifest is broken at {where}.\n{what}"


@pytest.mark.parametrize(
    ("raw", "pinned"),
    [
        (_hub(REVISION), "sha256"),
        (_hub(None), "sha256"),
        (_hub(None, sha256=None, bytes=None), ""),
        (_hub(REVISION, sha256=None, sha256_prefix="0676ba61"), "prefix"),
        (_url("https://a.b/a.pth", sha256=None, sha256_prefix="0676ba61"), "prefix"),
        (_url("https://a.b/a.pth.zip", sha256=None, sha1="ab" * 20), "sha1"),
        (_url("https://a.b/a.pth", sha256=None), ""),
    ],
)
def test_what_a_file_is_checked_by(raw: dict[str, Any], pinned: str) -> None:
    assert parsed(raw).pinned == pinned


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("CC-BY-NC-4.0", True),
        ("cc-by-nc-sa-3.0", True),
        ("Apache-2.0", False),
        ("BSD-3-Clause", False),
        ("CC-BY-4.0", False),
        ("ncsa", False),
        ("not stated", False),
    ],
)
def test_non_commercial_licenses(weights: str, expected: bool) -> None:
    assert manifest.License("MIT", weights, "").non_commercial is expected
    raw = changed("license.weights", weights) | {"default": False}
    assert parsed(raw).license.non_commercial is expected


def test_missing_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shelf in open_shelf(tmp_path, monkeypatch):
        shelf.manifest.unlink()
        assert message(lambda: manifest.manifest(), WeightsError) == (
            "The manifest of weights is missing.\n"
            f"Looked for {shelf.manifest}.\nInstall senetzoo again"
        )


def test_find(shelf: Shelf) -> None:
    shelf.put("resnet20.b", default=False)
    shelf.put("resnet20.a", default=False)
    assert message(lambda: manifest.find("resnet20", None), ConfigError) == (
        "'resnet20' has no default weights.\nIts tags are a, b.\nType for example: resnet20.a"
    )
    shelf.put("resnet20.z")
    assert manifest.tags("resnet20") == ["z", "a", "b"]
    assert manifest.find("resnet20", None)[0] == "resnet20.z"
    assert manifest.find("resnet20", "b")[0] == "resnet20.b"
    assert manifest.tags("resnet50") == []


def test_networks_without_weights_when_many_have_some() -> None:
    networks = {entry.model for entry in SHIPPED.values()}
    assert message(lambda: manifest.find("vgg11_lrn", None), ConfigError) == (
        "There are no pretrained weights of 'vgg11_lrn'.\n"
        f"There are weights of {len(networks)} networks.\n"
        "Those with weights are listed by: senetzoo list --pretrained"
    )


def test_the_dialects_are_those_that_can_be_read() -> None:
    assert get_args(manifest.Dialect) == dialects.DIALECTS


def test_weights_of_ours_become_the_default() -> None:
    ours = parsed(RAW)
    theirs = dataclasses.replace(ours, training=())
    other = dataclasses.replace(theirs, model="se_resnet20")
    before = {"resnet20.theirs": theirs, "se_resnet20.theirs": other}
    after = pin_weights.added(before, TAG, ours)
    assert {tag: entry.default for tag, entry in after.items()} == {
        "resnet20.theirs": False,
        "se_resnet20.theirs": True,
        TAG: True,
    }
    assert manifest.parse(pin_weights.text(after)) == after
    rare = dataclasses.replace(ours, default=False)
    assert pin_weights.added(before, TAG, rare) == {**before, TAG: rare}
    # Newer ones of ours take the place.
    later = pin_weights.added(after, "resnet20.pets_v2", ours)
    assert {tag for tag, entry in later.items() if entry.default} == {
        "se_resnet20.theirs",
        "resnet20.pets_v2",
    }
    assert manifest.parse(pin_weights.text(later)) == later


def test_the_trainings_behind_weights_are_known(shelf: Shelf) -> None:
    epochs = {"resnet20.a": 30, "resnet20.b": 20, "resnet20.c": 10, "resnet20.d": 5}
    starts = {
        "resnet20.a": (None,),
        "resnet20.b": (None, "resnet20.a"),
        "resnet20.c": (None, "resnet20.a", "resnet20.b"),
        "resnet20.d": ("resnet20.theirs",),
        "resnet20.theirs": (),
    }
    for tag, known in starts.items():
        raw = begun(*known)
        for stage, end in zip(raw["training"], [*known[1:], tag], strict=False):
            stage["epochs"] = epochs[end or ""]
        shelf.entries[tag] = raw
    shelf.write()
    of = {tag: [run.epochs for run in manifest.history(tag).values()] for tag in shelf.entries}
    assert of == {
        "resnet20.a": [30],
        "resnet20.b": [30, 20],
        "resnet20.c": [30, 20, 10],
        "resnet20.d": [5],
        "resnet20.theirs": [],
    }
    whole = manifest.history("resnet20.c")
    assert list(whole) == ["resnet20.a", "resnet20.b", "resnet20.c"]

    # In whichever order they go, what the last one has behind it stays.
    shipped = manifest.manifest()
    for gone in itertools.permutations(["resnet20.a", "resnet20.b"]):
        entries = dict(shipped)
        for tag in gone:
            del entries[tag]
            assert manifest.parse(pin_weights.text(entries)) == entries
            shelf.manifest.write_text(pin_weights.text(entries), encoding="utf-8")
            manifest.manifest.cache_clear()
            assert manifest.history("resnet20.c") == whole
        assert set(entries) == {"resnet20.c", "resnet20.d", "resnet20.theirs"}
