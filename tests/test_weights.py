from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from shelf import RAW, REVISION, Shelf, changed, open_shelf, text_of
from torch import Tensor

from senetzoo import ECA, NONE, SE, attach, config, create, policy, stage, transforms
from senetzoo.bench.accuracy import accuracy, read_images, wilson
from senetzoo.counting import count
from senetzoo.data.transforms import Transforms
from senetzoo.errors import ConfigError, WeightsError
from senetzoo.nn.classifier import Classifier
from senetzoo.weights import fetch, manifest
from senetzoo.weights.load import adapt_channels, load_file_into, load_strictly, read

SHIPPED = manifest.manifest()
TAG = "resnet20.pets_v1"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    yield from open_shelf(tmp_path, monkeypatch)


# --- The shipped manifest, recounted -------------------------------------------------------------


@pytest.mark.parametrize("tag", SHIPPED)
def test_shipped_entry_is_true(tag: str) -> None:
    entry = SHIPPED[tag]
    policy(entry.policy or "none")
    model = config(tag).build(seed=0)
    counts = count(model, entry.input.size)
    assert (counts.params, counts.macs) == (entry.params, entry.macs)
    assert model.config.num_classes == entry.num_classes
    assert entry.classes is None or len(set(entry.classes)) == entry.num_classes
    Transforms(**{k: v for k, v in dataclasses.asdict(entry.input).items() if k != "channels"})
    assert entry.metrics
    assert all(0 < metric.value <= 100 and metric.images > 0 for metric in entry.metrics)
    if entry.source.kind != "embedded":
        return
    file = fetch.EMBEDDED / entry.source.file
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
    assert entry.training is not None
    assert re.fullmatch(r"[0-9a-f]{40}", entry.training.revision or "")


def test_embedded_files_are_those_of_the_manifest_and_small() -> None:
    files = {path.name: path.stat().st_size for path in fetch.EMBEDDED.glob("*")}
    named = {e.source.file for e in SHIPPED.values() if e.source.kind == "embedded"}
    assert set(files) == named
    assert sum(files.values()) < 14 * 2**20


def test_shipped_manifest_is_canonical() -> None:
    text = manifest.path().read_text(encoding="utf-8")
    assert manifest.text(manifest.parse(text)) == manifest.text(SHIPPED)
    if SHIPPED:
        assert manifest.text(SHIPPED) == text


@pytest.mark.parametrize("tag", [t for t, e in SHIPPED.items() if "digits" in e.data])
def test_digits_accuracy_is_exactly_as_claimed(tag: str) -> None:
    entry, model = SHIPPED[tag], create(tag)
    data = read_images("digits", entry.classes or (), entry.num_classes)
    result = accuracy(model, data, transforms(model), batch=256).whole
    (metric,) = entry.metrics
    assert metric.data == "scikit-learn digits test"
    assert result.total == metric.images == 596
    assert 100 * result.right / result.total == pytest.approx(metric.value, abs=0.006)


@pytest.mark.parametrize("tag", [t for t, e in SHIPPED.items() if "CIFAR-10 " in e.data])
def test_cifar10_accuracy_is_as_claimed(tag: str, sample: Callable[[str], Path]) -> None:
    entry, model = SHIPPED[tag], create(tag)
    where = str(sample("cifar10-test-sample.parquet"))
    data = read_images(where, entry.classes or (), entry.num_classes)
    result = accuracy(model, data, transforms(model), batch=250).whole
    assert result.total == 1000
    low, high = wilson(result.right, result.total, 0.999)
    assert low < entry.metrics[0].value / 100 < high


# --- Manifest ------------------------------------------------------------------------------------


def parsed(raw: dict[str, Any], tag: str = TAG) -> manifest.Entry:
    return manifest.parse(text_of({tag: raw}))[tag]


def refusal(text: str) -> str:
    with pytest.raises(WeightsError) as caught:
        manifest.parse(text)
    return str(caught.value)


def test_round_trip() -> None:
    entry = parsed(RAW)
    assert entry.input == manifest.Input(
        3, 32, (0.5, 0.25, 0.125), (0.5, 0.25, 1.0), "bilinear", 0.875
    )
    assert entry.metrics[0].value == 91.5
    assert json.loads(manifest.text({TAG: entry}))["entries"][TAG] == RAW
    other = dataclasses.replace(entry, model="se_resnet20", classes=("Å", "ß", "猫"))
    entries = {"se_resnet20.a": other, TAG: entry}
    text = manifest.text(entries)
    assert manifest.parse(text) == entries
    assert manifest.text(manifest.parse(text)) == text
    assert list(manifest.parse(text)) == sorted(entries)
    assert hash(other) != hash(entry)


def _fields(raw: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in raw.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _fields(value, f"{prefix}{name}.")


@pytest.mark.parametrize("path", list(_fields(RAW)))
def test_every_field_is_needed_and_of_its_type(path: str) -> None:
    parent, _, name = f"{TAG}.{path}".rpartition(".")
    raw = copy.deepcopy(RAW)
    place = raw
    for part in path.split(".")[:-1]:
        place = place[part]
    del place[name]
    assert refusal(text_of({TAG: raw})) == (
        f"The manifest is broken at {parent}.\nThe field '{name}' is missing."
    )
    # No field is a list of a list.
    message = refusal(text_of({TAG: changed(path, [[]])}))
    first, second = message.splitlines()
    assert first in (f"The manifest is broken at {parent}.{name}{s}." for s in ("", "[0]"))
    assert second.startswith(("It is [[]], not ", "It is [], not "))


@pytest.mark.parametrize(
    ("path", "value", "where", "what"),
    [
        ("bytes", "many", "bytes", 'It is "many", not a whole number or null.'),
        ("bytes", 1.5, "bytes", "It is 1.5, not a whole number or null."),
        ("bytes", True, "bytes", "It is true, not a whole number or null."),
        ("params", None, "params", "It is null, not a whole number."),
        ("default", "yes", "default", 'It is "yes", not true or false.'),
        ("default", 1, "default", "It is 1, not true or false."),
        ("policy", None, "policy", "It is null, not text."),
        ("stem", 3, "stem", "It is 3, not text or null."),
        ("classes", "cat", "classes", 'It is "cat", not a list or null.'),
        ("classes", ["cat", 2, "bird"], "classes[1]", "It is 2, not text."),
        ("source", "here", "source", 'It is "here", not an object.'),
        ("source.kind", "ftp", "source.kind", 'It is "ftp", not one of "embedded", "hub", "url".'),
        ("input.mean", 0.5, "input.mean", "It is 0.5, not a list."),
        ("input.std", [1, "2", 3], "input.std[1]", 'It is "2", not a number.'),
        (
            "input.interpolation",
            "cubic",
            "input.interpolation",
            'It is "cubic", not one of "nearest", "bilinear", "bicubic".',
        ),
        ("metrics", {}, "metrics", "It is {}, not a list."),
        ("metrics", [3], "metrics[0]", "It is 3, not an object."),
        (
            "metrics",
            [{"nam": 3}],
            "metrics[0]",
            "The field 'nam' is unknown.\nDid you mean 'name'?",
        ),
        ("training", [], "training", "It is [], not an object or null."),
        ("training.hours", "long", "training.hours", 'It is "long", not a number.'),
        ("licence", None, "licence", "It is null, not an object."),
        ("shah256", "ab", "", "The field 'shah256' is unknown.\nDid you mean 'sha256'?"),
        (
            "source.revison",
            "x",
            "source",
            "The field 'revison' is unknown.\nDid you mean 'revision'?",
        ),
        ("model", "resnet56", "", "Its model is 'resnet56'."),
        ("sha256", "AB" * 32, "", "The sha256 is no hash of 64 lower-case hexadecimal digits."),
        ("sha256", "ab", "", "The sha256 is no hash of 64 lower-case hexadecimal digits."),
        ("sha256", None, "", "An embedded file needs its sha256."),
        (
            "sha256_prefix",
            "abc",
            "",
            "The sha256_prefix is no start of a hash: 8 or more of its digits.",
        ),
        ("source.file", "../secret", "source", "The file is '../secret', no plain file name."),
        ("source.file", "/etc/passwd", "source", "The file is '/etc/passwd', no plain file name."),
        ("source.file", "..", "source", "The file is '..', no plain file name."),
        ("source.file", "a\\b", "source", "The file is 'a\\\\b', no plain file name."),
        ("source.file", "", "source", "The file is '', no plain file name."),
        ("source.kind", "hub", "source", "A source of kind 'hub' needs repo."),
        ("source.kind", "url", "source", "A source of kind 'url' needs url."),
        ("classes", ["cat", "dog"], "", "There are 2 class names for 3."),
        ("input.channels", 1, "input", "The numbers of mean, std and channels disagree."),
    ],
)
def test_broken_entries(path: str, value: object, where: str, what: str) -> None:
    place = f"{TAG}.{where}" if where else TAG
    assert refusal(text_of({TAG: changed(path, value)})) == (
        f"The manifest is broken at {place}.\n{what}"
    )


def _hub(revision: str | None, **changes: Any) -> dict[str, Any]:
    source = {
        "kind": "hub",
        "file": "a.safetensors",
        "repo": "a/b",
        "revision": revision,
        "url": None,
    }
    return {**changed("source", source), **changes}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            text_of({TAG: _hub("main")}),
            f"The manifest is broken at {TAG}.source.\n"
            "The revision is no full commit (40 hexadecimal digits).",
        ),
        (
            text_of({TAG: _hub(REVISION[:12])}),
            f"The manifest is broken at {TAG}.source.\n"
            "The revision is no full commit (40 hexadecimal digits).",
        ),
        (
            text_of({TAG: _hub(REVISION, sha256=None)}),
            f"The manifest is broken at {TAG}.\n"
            "It has neither sha256 nor sha256_prefix to check the file by.",
        ),
        (
            text_of({TAG: RAW, "resnet20.pets_v2": RAW}),
            "The manifest is broken at resnet20.pets_v2.\n"
            "The default of resnet20 is resnet20.pets_v1 already.",
        ),
        (
            text_of({"resnet20": RAW}),
            "The manifest is broken at resnet20.\n"
            "A tag is name.version, in lower case, digits and _.",
        ),
        (text_of({TAG: 3}), f"The manifest is broken at {TAG}.\nIt is 3, not an object."),
        (
            '{"schema": 2, "entries": {}}',
            "The manifest is broken at schema.\nThis version of senetzoo reads schema 1, not 2.",
        ),
        (
            "[]",
            "The manifest is broken at schema.\nThis version of senetzoo reads schema 1, not null.",
        ),
        (
            '{"schema": 1}',
            "The manifest is broken at its start.\nExpected an object of schema and entries.",
        ),
        (
            "{",
            "The manifest is broken at its start.\nIt is no JSON (Expecting property name enclosed "
            "in double quotes: line 1 column 2 (char 1)).",
        ),
        (
            '{"schema": 1, "entries": {"a.b": 1, "a.b": 2}}',
            "The manifest is broken at a.b.\nIt is there twice.",
        ),
        (
            '{"schema": 1, "entries": {"a.b": NaN}}',
            "The manifest is broken at its start.\nIt is no JSON (NaN is no JSON number).",
        ),
    ],
)
def test_broken_manifests(text: str, message: str) -> None:
    assert refusal(text) == message


def test_a_hash_by_its_prefix_is_enough_for_the_hub() -> None:
    entry = parsed(_hub(REVISION, sha256=None, sha256_prefix="0676ba61", bytes=None))
    assert (entry.sha256_prefix, entry.bytes) == ("0676ba61", None)


def test_missing_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shelf in open_shelf(tmp_path, monkeypatch):
        shelf.manifest.unlink()
        with pytest.raises(WeightsError) as caught:
            manifest.manifest()
        assert str(caught.value) == (
            "The manifest of weights is missing.\n"
            f"Looked for {shelf.manifest}.\nInstall senetzoo again"
        )


def test_find(shelf: Shelf) -> None:
    shelf.put("resnet20.b", default=False)
    shelf.put("resnet20.a", default=False)
    with pytest.raises(ConfigError) as caught:
        manifest.find("resnet20", None)
    assert str(caught.value) == (
        "'resnet20' has no default weights.\nIts tags are a, b.\n"
        "Type for example: create('resnet20', pretrained='a')"
    )
    shelf.put("resnet20.z")
    assert manifest.tags("resnet20") == ["z", "a", "b"]
    assert manifest.find("resnet20", None)[0] == "resnet20.z"
    assert manifest.find("resnet20", "b")[0] == "resnet20.b"
    assert manifest.tags("resnet50") == []


# --- Fetch ---------------------------------------------------------------------------------------


def test_embedded(shelf: Shelf) -> None:
    shelf.put(TAG)
    located = fetch.locate(*manifest.find("resnet20", None))
    assert located.path == shelf.embedded / f"{TAG}.safetensors"
    assert located.origin == "embedded"
    assert located.sha256 == hashlib.sha256(located.path.read_bytes()).hexdigest()


@pytest.mark.parametrize("place", [0, -1])
def test_a_flipped_bit_is_noticed(shelf: Shelf, place: int) -> None:
    shelf.put(TAG)
    file = shelf.embedded / f"{TAG}.safetensors"
    right = fetch.sha256(file)
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    wrong = hashlib.sha256(content).hexdigest()
    with pytest.raises(WeightsError) as caught:
        create("resnet20", pretrained=True)
    assert str(caught.value) == (
        f"The weights {TAG} are not the published ones.\n"
        f"{TAG}.safetensors has the sha256 {wrong}, the manifest has {right}.\n"
        "Install senetzoo again"
    )


def test_a_missing_embedded_file(shelf: Shelf) -> None:
    shelf.put(TAG)
    (shelf.embedded / f"{TAG}.safetensors").unlink()
    with pytest.raises(WeightsError) as caught:
        create("resnet20", pretrained=True)
    assert str(caught.value) == (
        f"The weights {TAG} are missing from this installation.\n"
        f"Looked for {shelf.embedded / TAG}.safetensors.\nInstall senetzoo again"
    )


def test_a_source_of_another_time(shelf: Shelf) -> None:
    entry = dataclasses.replace(
        parsed(RAW), source=manifest.Source("url", "a.pth", url="https://example.org/a.pth")
    )
    with pytest.raises(WeightsError) as caught:
        fetch.locate(TAG, entry)
    assert str(caught.value) == (
        f"The weights {TAG} are at https://example.org/a.pth.\n"
        "This version reads embedded weights and the Hugging Face Hub only.\n"
        "Choose others: senetzoo weights list"
    )


class FakeHub:
    """Stands for huggingface_hub: what is in the cache, and what was asked for."""

    def __init__(self, file: Path, cached: bool, error: Exception | None = None) -> None:
        self.file, self.cached, self.error = file, cached, error
        self.downloads: list[tuple[str, str, str | None]] = []
        self.looked: list[tuple[str, str, str | None]] = []

    def look(self, repo: str, file: str, *, revision: str | None = None) -> str | None:
        self.looked.append((repo, file, revision))
        return str(self.file) if self.cached else None

    def download(self, repo: str, file: str, *, revision: str | None = None) -> str:
        self.downloads.append((repo, file, revision))
        if self.error is not None:
            raise self.error
        return str(self.file)


def _fake(monkeypatch: pytest.MonkeyPatch, hub: FakeHub) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", hub.look)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)


@pytest.mark.parametrize("cached", [True, False])
def test_hub(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, cached: bool) -> None:
    trained = shelf.put(TAG, kind="hub")
    file = (shelf.embedded / f"{TAG}.safetensors").rename(shelf.folder / "blob")
    hub = FakeHub(file, cached)
    _fake(monkeypatch, hub)
    model = create("resnet20", pretrained=True)
    asked = ("someone/pets", f"{TAG}.safetensors", REVISION)
    assert hub.looked == [asked]
    assert hub.downloads == ([] if cached else [asked])
    assert model.load_report is not None
    assert model.load_report.origin == ("cache" if cached else "hub")
    assert all(torch.equal(a, b) for a, b in _pairs(model, trained))


def test_hub_file_with_another_hash(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.put(TAG, kind="hub")
    right = shelf.entries[TAG]["sha256"]
    blob = shelf.folder / "blob"
    blob.write_bytes(b"something else")
    link = shelf.folder / "link.safetensors"
    link.symlink_to(blob)
    _fake(monkeypatch, FakeHub(link, cached=True))
    with pytest.raises(WeightsError) as caught:
        create("resnet20", pretrained=True)
    wrong = hashlib.sha256(b"something else").hexdigest()
    assert str(caught.value) == (
        f"The weights {TAG} are not the published ones.\n"
        f"link.safetensors has the sha256 {wrong}, the manifest has {right}.\n"
        f"Delete {blob.resolve()} and try again"
    )


def test_hub_out_of_reach(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.put(TAG, kind="hub")
    _fake(monkeypatch, FakeHub(shelf.folder, False, OSError("no route\nlong story")))
    with pytest.raises(WeightsError) as caught:
        create("resnet20", pretrained=True)
    assert str(caught.value) == (
        f"The weights {TAG} could not be fetched.\n"
        f"someone/pets at {REVISION[:12]}, file {TAG}.safetensors: OSError: no route\n"
        "Check the network, or fetch the file on another machine into the Hugging Face cache"
    )


def test_embedded_weights_open_no_socket(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.put(TAG)

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert create("resnet20", pretrained=True).load_report is not None


# --- Load ----------------------------------------------------------------------------------------


def _pairs(ours: Classifier, theirs: Classifier) -> list[tuple[Tensor, Tensor]]:
    a, b = ours.state_dict(), theirs.state_dict()
    assert list(a) == list(b)
    return [(a[name], b[name]) for name in a]


def _images(channels: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, 32, 32, generator=generator)


def test_pretrained_is_the_network_that_was_stored(shelf: Shelf) -> None:
    trained = shelf.put(TAG)
    model = create("resnet20", pretrained=True, seed=1)
    assert not any(module.training for module in model.modules())
    assert model.config.num_classes == 3
    assert all(torch.equal(a, b) for a, b in _pairs(model, trained))
    x = _images(3)
    with torch.inference_mode():
        assert torch.equal(model(x), trained(x))
    report = model.load_report
    assert report is not None
    assert (report.tag, report.origin, report.classes) == (TAG, "embedded", ("cat", "dog", "bird"))
    assert (report.replaced, report.adapted) == ((), ())
    assert str(report) == f"weights {TAG} (embedded, sha256 {report.sha256[:12]})"
    assert create("resnet20").load_report is None
    assert create("resnet20").training


def test_ways_to_ask_for_weights(shelf: Shelf) -> None:
    first = shelf.put(TAG, seed=1)
    second = shelf.put("resnet20.pets_v2", seed=2, default=False)
    for model, expected in [
        (create("resnet20", pretrained=True), first),
        (create(TAG), first),
        (create(TAG, pretrained=True), first),
        (create("resnet20", pretrained="pets_v2"), second),
        (create("resnet20.pets_v2"), second),
        (create("resnet20.pets_v2", pretrained="pets_v2"), second),
        (create("resnet20.pets_v2+none"), second),
    ]:
        assert all(torch.equal(a, b) for a, b in _pairs(model, expected))


def test_strict_loading_changes_nothing_on_failure(tmp_path: Path) -> None:
    model = create("resnet20", seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = create("resnet20", seed=1).state_dict()
    remedy = "Build the network with the policy, stem and num_classes the weights were made with"

    def refused(state: dict[str, Tensor]) -> str:
        with pytest.raises(WeightsError) as caught:
            load_strictly(model, state, "w")
        assert all(torch.equal(value, before[k]) for k, value in model.state_dict().items())
        return str(caught.value)

    assert refused({k: v for k, v in other.items() if k != "fc.bias"}) == (
        f"The weights w do not fit the network.\nfc.bias is missing.\n{remedy}"
    )
    assert refused({**other, "head": other["fc.bias"]}) == (
        f"The weights w do not fit the network.\nhead is not in the network.\n{remedy}"
    )
    assert refused({**other, "fc.bias": torch.zeros(7)}) == (
        f"The weights w do not fit the network.\nfc.bias is (7,), not (10,).\n{remedy}"
    )
    wrong = {k: v for k, v in other.items() if not k.startswith("bn1")}
    assert refused(wrong) == (
        "The weights w do not fit the network.\nbn1.weight is missing; bn1.bias is missing; "
        f"bn1.running_mean is missing (and 2 more).\n{remedy}"
    )
    for value, keys in ((float("nan"), 1), (float("inf"), 2)):
        bad = {k: v.clone() for k, v in other.items()}
        for key in ("fc.bias", "bn1.weight")[:keys]:
            bad[key][3] = value
        first, more = ("fc.bias", "") if keys == 1 else ("bn1.weight", " and 1 more")
        assert refused(bad) == (
            "The weights w hold values that are not finite.\n"
            f"There is NaN or infinity in {first}{more}.\n"
            "They come from a training that diverged, or the file was damaged: get another"
        )
    file = tmp_path / "w.safetensors"
    save_file(other, str(file))
    load_file_into(model, file)
    assert all(torch.equal(value, other[k]) for k, value in model.state_dict().items())


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    remedy = "Give a .safetensors file that senetzoo wrote"
    file = tmp_path / "w.safetensors"
    with pytest.raises(WeightsError) as caught:
        read(file)
    assert str(caught.value) == f"Can't read the weights {file}.\nThere is no such file.\n{remedy}"
    save_file({"a": torch.zeros(100)}, str(file))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(WeightsError) as caught:
        read(file)
    first, second, third = str(caught.value).splitlines()
    assert (first, third) == (f"Can't read the weights {file}.", remedy)
    assert second.startswith("It is no whole safetensors file (")


def test_another_number_of_classes_replaces_the_head(shelf: Shelf) -> None:
    trained = shelf.put(TAG)
    model = create("resnet20", pretrained=True, num_classes=7, seed=5)
    fresh = create("resnet20", num_classes=7, seed=5)
    for name, value in model.state_dict().items():
        source = fresh if name.startswith("fc.") else trained
        assert torch.equal(value, source.state_dict()[name])
    report = model.load_report
    assert report is not None
    assert report.classes == ()
    assert str(report) == (
        f"weights {TAG} (embedded, sha256 {report.sha256[:12]})\n"
        "  not loaded: fc.weight (7 classes instead of 3)\n"
        "  not loaded: fc.bias (7 classes instead of 3)"
    )


@pytest.mark.parametrize("channels", [1, 2, 4, 6, 7])
def test_other_channels_see_grey_images_alike(shelf: Shelf, channels: int) -> None:
    trained = shelf.put(TAG)
    model = create("resnet20", pretrained=True, in_chans=channels)
    grey = _images(1)
    with torch.inference_mode():
        ours = model(grey.expand(-1, channels, -1, -1))
        theirs = trained(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    how = "channels summed" if channels < 3 else "channels repeated and divided by the copies"
    report = model.load_report
    assert report is not None
    assert report.adapted == (("conv1.weight", f"{how}, 3 to {channels}"),)
    assert report.replaced == ()
    assert report.classes == ("cat", "dog", "bird")


def test_channels_by_hand() -> None:
    weight = torch.tensor([1.0, 10.0, 100.0]).reshape(1, 3, 1, 1)
    assert adapt_channels(weight, 1)[0].flatten().tolist() == [111]
    assert adapt_channels(weight, 2)[0].flatten().tolist() == [101, 10]
    assert adapt_channels(weight, 4)[0].flatten().tolist() == [0.5, 10, 100, 0.5]
    assert adapt_channels(weight, 6)[0].flatten().tolist() == [0.5, 5, 50, 0.5, 5, 50]
    assert adapt_channels(weight[:, :1], 2)[0].flatten().tolist() == [0.5, 0.5]


def test_grey_weights_for_colour_images(shelf: Shelf) -> None:
    seen = {**RAW["input"], "channels": 1, "mean": [0.5], "std": [0.25]}
    trained = shelf.put("lenet5.grey_v1", input=seen)
    model = create("lenet5", pretrained=True, in_chans=3)
    grey = _images(1)
    with torch.inference_mode():
        torch.testing.assert_close(model(grey.expand(-1, 3, -1, -1)), trained(grey))


def test_a_policy_over_pretrained_weights(shelf: Shelf) -> None:
    trained = shelf.put("se_resnet20.pets_v1")
    state = trained.state_dict()
    model = create("se_resnet20", pretrained=True, policy=ECA().on(stage(3)), seed=4)
    fresh = create("se_resnet20", policy=ECA().on(stage(3)), num_classes=3, seed=4).state_dict()
    gates = [name for name in model.state_dict() if name.startswith("layer3") and "slots" in name]
    assert gates == [f"layer3.{n}.slots.standard.conv.weight" for n in range(3)]
    for name, value in model.state_dict().items():
        assert torch.equal(value, (fresh if name in gates else state)[name])
    report = model.load_report
    assert report is not None
    assert report.replaced == tuple((name, "a gate that the weights do not have") for name in gates)
    left_out = [name for name in state if name.startswith("layer3") and "slots" in name]
    assert len(left_out) == 12
    assert sorted(report.adapted) == sorted(
        (name, "left out: another gate or none is asked for here") for name in left_out
    )


def test_more_gates_over_pretrained_weights(shelf: Shelf) -> None:
    trained = shelf.put(TAG)
    model = create("resnet20+se8@pre/s2", pretrained=True)
    for name, value in trained.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    report = model.load_report
    assert report is not None
    assert len(report.replaced) == 12
    assert report.adapted == ()
    kept = create("resnet20", pretrained=True, policy=SE(init="identity"))
    x = _images(3)
    with torch.inference_mode():
        torch.testing.assert_close(kept(x), trained(x))


def test_no_gates_over_pretrained_weights(shelf: Shelf) -> None:
    trained = shelf.put("se_resnet20.pets_v1").state_dict()
    model = create("se_resnet20", pretrained=True, policy=NONE)
    assert list(model.state_dict()) == list(create("resnet20").state_dict())
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())
    report = model.load_report
    assert report is not None
    assert report.replaced == ()
    assert {name for name, _ in report.adapted} == {name for name in trained if ".slots." in name}


def test_an_entry_with_a_policy_and_a_stem_of_its_own(shelf: Shelf) -> None:
    trained = shelf.put("resnet20.pre_v1", policy="se8@pre/s3", stem="imagenet")
    model = create("resnet20.pre_v1")
    assert all(torch.equal(a, b) for a, b in _pairs(model, trained))
    assert model.config.stem == config("resnet18").arch.stem
    assert create("resnet20.pre_v1", stem="imagenet").load_report is not None
    assert config("resnet20.pre_v1").policy == policy("se8@pre/s3")
    with pytest.raises(ConfigError) as caught:
        create("resnet20.pre_v1", stem="cifar")
    assert str(caught.value) == (
        "stem='cifar' does not go with the weights resnet20.pre_v1.\n"
        "They were trained with another stem.\nLeave out stem, or leave out pretrained"
    )


def test_weights_of_another_network_are_refused(shelf: Shelf) -> None:
    shelf.put(TAG)
    shelf.put("resnet32.pets_v1")
    for field in ("source", "sha256"):
        shelf.entries["resnet32.pets_v1"][field] = shelf.entries[TAG][field]
    shelf.write()
    with pytest.raises(
        WeightsError, match=r"^The weights resnet32\.pets_v1 do not fit the network"
    ):
        create("resnet32", pretrained=True)


def test_gates_attached_to_a_pretrained_network(shelf: Shelf) -> None:
    trained = shelf.put(TAG)
    model = create(TAG)
    attach(model, "eca/s1", seed=0)
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(model.state_dict()[k], v) for k, v in trained.state_dict().items())


def test_transforms_are_those_of_the_entry(shelf: Shelf) -> None:
    shelf.put(TAG)
    known = transforms(create(TAG))
    assert known == Transforms(32, (0.5, 0.25, 0.125), (0.5, 0.25, 1.0), "bilinear", 0.875)
    grey = transforms(create(TAG, in_chans=1))
    assert grey.mean == pytest.approx((0.875 / 3,))
    assert grey.std == pytest.approx((1.75 / 3,))
    assert (grey.size, grey.crop) == (32, 0.875)
