"""Networks on the Hub: pushed and read by its real client, with a mock server on loopback."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from huggingface_hub import ModelCard
from support.hub import Fault, HubServer, running
from support.networks import message, randomize, same_tensors, tiny
from support.weights import blocked, report_of
from torch import Tensor, nn

import senetzoo
from senetzoo import SE, attach, create, load, save, transforms
from senetzoo.cli import main
from senetzoo.errors import ConfigError, WeightsError
from senetzoo.io.card import card
from senetzoo.io.folder import read_description
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.counting import Counts
from senetzoo.weights import manifest

TAG = "se_resnet20.cifar10_v1"
FILES = ("README.md", "config.json", "model.safetensors")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    yield from running(tmp_path / "home", monkeypatch)


def network(seed: int = 0) -> Classifier:
    model = attach(tiny(), SE(4), seed=seed).model
    assert isinstance(model, Classifier)
    randomize(model, seed)
    return model


def put(hub: HubServer, folder: Path, model: Classifier, repo: str = "owner/pets") -> str:
    """Save a network and serve it; returns the commit."""
    save(model, folder, classes=list("abcde"))
    return hub.put(repo, {name: (folder / name).read_bytes() for name in FILES[1:]})


def pushed(*args: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["push", *args])
    return result.exit_code, result.stdout, result.stderr


# --- Reading -------------------------------------------------------------------------------------


def test_create_and_load(hub: HubServer, tmp_path: Path) -> None:
    model = network()
    old = put(hub, tmp_path / "a", model)
    new = put(hub, tmp_path / "b", network(1))
    sha256 = hashlib.sha256((tmp_path / "a" / "model.safetensors").read_bytes()).hexdigest()
    for make in (create, load):
        again = make(f"hf-hub:owner/pets@{old}")
        assert same_tensors(again, model)
        assert not again.training
        report = report_of(again)
        assert (report.tag, report.sha256) == (f"hf-hub:owner/pets@{old}", sha256)
        assert report.origin == ("hub" if make is create else "cache")
        assert report.classes == tuple("abcde")
        assert (report.replaced, report.adapted, report.pinned) == ((), (), "sha256")
    latest = load("hf-hub:owner/pets")
    assert report_of(latest).tag == f"hf-hub:owner/pets@{new}"
    assert same_tensors(latest, network(1))
    assert same_tensors(create("hf-hub:owner/pets", pretrained=True), latest)
    assert same_tensors(create(report_of(latest).tag), latest)


def test_changes(hub: HubServer, tmp_path: Path) -> None:
    put(hub, tmp_path / "a", network())
    model = create("hf-hub:owner/pets+eca@pre/s1", num_classes=9, in_chans=1, policy="none", seed=0)
    assert (model.num_classes, model.in_chans) == (9, 1)
    assert not [name for name in model.state_dict() if ".slots." in name]
    other = create("hf-hub:owner/pets+eca@pre/s1")
    assert "layer1.0.slots.pre.conv.weight" in other.state_dict()
    assert "layer1.0.slots.standard.fc1.weight" in other.state_dict()
    assert message(lambda: create("hf-hub:owner/pets", pretrained="v1"), ConfigError) == (
        "'hf-hub:owner/pets' and pretrained='v1' name different weights.\n"
        "A folder or repository has only one set of weights.\nLeave out pretrained"
    )


def test_a_commit_that_is_cached_asks_nobody(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = put(hub, tmp_path / "a", network())
    first = create(f"hf-hub:owner/pets@{commit}")
    blocked(monkeypatch)
    again = create(f"hf-hub:owner/pets@{commit}")
    assert same_tensors(again, first)
    # A cached branch may be outdated.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert message(lambda: load("hf-hub:owner/pets"), WeightsError) == (
        "owner/pets is not in the cache, and HF_HUB_OFFLINE forbids downloads.\n"
        "It needs the files config.json and model.safetensors; config.json is missing.\n"
        "With a network, type: hf download owner/pets config.json model.safetensors --local-dir "
        "FOLDER; copy FOLDER here and load it"
    )


def test_offline(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = put(hub, tmp_path / "a", network())
    load("hf-hub:owner/pets")
    asked = len(hub.asked())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = load("hf-hub:owner/pets")
    assert report_of(found).tag == f"hf-hub:owner/pets@{commit}"
    assert len(hub.asked()) == asked
    revision = "0" * 40
    assert message(lambda: load(f"hf-hub:owner/pets@{revision}"), WeightsError) == (
        f"owner/pets at {revision} is not in the cache, and HF_HUB_OFFLINE forbids downloads.\n"
        "It needs the files config.json and model.safetensors; config.json is missing.\n"
        "With a network, type: hf download owner/pets config.json model.safetensors --revision "
        f"{revision} --local-dir FOLDER; copy FOLDER here and load it"
    )
    code, _, stderr = pushed(TAG, "--repo", "owner/pets")
    assert (code, stderr) == (
        2,
        "error: Nothing was pushed to owner/pets.\nHF_HUB_OFFLINE forbids network access.\n"
        "Unset HF_HUB_OFFLINE, or write the files with --dry-run --folder FOLDER\n",
    )
    assert len(hub.asked()) == asked


@pytest.mark.parametrize(
    ("source", "file", "true", "remedy"),
    [
        ("hf-hub:owner/cats", "config.json of owner/cats", "there is no such repository, or it is "
        "private and this token, or no token, has no access (404).",
         "Check the name at {page}; for a private repository type: hf auth login"),
        ("hf-hub:owner/pets@v9", "config.json of owner/pets at v9",
         "there is no such branch, tag or full commit (404).",
         "Give one that senetzoo push or timm made; hf-hub:owner/pets is its latest commit"),
        ("hf-hub:owner/empty", "config.json of owner/empty", "there is no such file (404).",
         "Give one that senetzoo push or timm made; hf-hub:owner/empty is its latest commit"),
        ("hf-hub:owner/half", "model.safetensors of owner/half at {commit}",
         "there is no such file (404).",
         "Give one that senetzoo push or timm made; hf-hub:owner/half is its latest commit"),
    ],
)  # fmt: skip
def test_what_is_not_there(
    source: str, file: str, true: str, remedy: str, hub: HubServer, tmp_path: Path
) -> None:
    put(hub, tmp_path / "a", network())
    hub.put("owner/empty", {"README.md": b"nothing"})
    commit = hub.put("owner/half", {"config.json": (tmp_path / "a" / "config.json").read_bytes()})
    repo = source.removeprefix("hf-hub:").partition("@")[0]
    assert message(lambda: load(source), WeightsError) == (
        f"{file} could not be fetched.\n{{page}}: {true}\n{remedy}"
    ).replace("{commit}", commit).replace("{page}", f"{hub.url}/{repo}")


@pytest.mark.parametrize(
    "source", ["hf-hub:pets", "hf-hub:a/b/c", "hf-hub:", "hf-hub:owner/pe--ts", "hf-hub:../x"]
)
def test_names_of_no_repository(source: str) -> None:
    assert message(lambda: create(source), ConfigError) == (
        f"{source.removeprefix('hf-hub:')!r} isn't the name of a repository on the Hugging Face "
        "Hub.\n"
        "It is owner/name, both made of letters, digits, and single ., - and _ between them.\n"
        "Type for example: hf-hub:owner/name, or hf-hub:owner/name@v1 for a revision"
    )


@pytest.mark.parametrize("words", [("inspect", "--data", "digits"), ("export", "--to", "pt2")])
def test_without_its_prefix_the_hub_is_not_asked(hub: HubServer, words: tuple[str, ...]) -> None:
    hub.put("runs/typo", {})
    for reference in ("runs/typo", "runs/typo+se4"):
        result = CliRunner().invoke(main, [words[0], reference, *words[1:]])
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == (
            "error: There is no network in runs/typo.\nThe folder doesn't exist.\n"
            "Give a folder that senetzoo.save or a training run wrote, or hf-hub:OWNER/NAME for a "
            "repository\n"
        )
    assert not hub.asked()


def test_refusals(hub: HubServer, tmp_path: Path) -> None:
    put(hub, tmp_path / "a", network())
    hub.fail("config.json", Fault("gated"))
    assert message(lambda: load("hf-hub:owner/pets"), WeightsError) == (
        "config.json of owner/pets could not be fetched.\n"
        f"{hub.url}/owner/pets: access to the repository is restricted, and this token, or "
        "no token, has none (403).\n"
        f"Request access at {hub.url}/owner/pets, and type: hf auth login"
    )
    hub.faults.clear()
    load("hf-hub:owner/pets")


@pytest.mark.parametrize("kind", ["wrong", "swapped"])
def test_wrong_bytes(kind: Any, hub: HubServer, tmp_path: Path) -> None:
    model = network()
    put(hub, tmp_path / "a", model)
    right = hashlib.sha256((tmp_path / "a" / "model.safetensors").read_bytes()).hexdigest()
    hub.fail("model.safetensors", Fault(kind))
    text = message(lambda: load("hf-hub:owner/pets"), WeightsError).splitlines()
    assert text[0].endswith("are not those of its config.json.")
    assert text[1].startswith("model.safetensors has the sha256 ")
    assert text[1].endswith(f", config.json has {right}.")
    # Damaged files in the cache are downloaded again.
    hub.faults.clear()
    again = load("hf-hub:owner/pets")
    assert same_tensors(again, model)
    assert report_of(again).origin == "hub"
    third = load("hf-hub:owner/pets")
    assert report_of(third).origin == "cache"


@pytest.mark.parametrize("kind", ["truncated", "dropped"])
def test_broken_bodies(kind: Any, hub: HubServer, tmp_path: Path) -> None:
    model = network()
    put(hub, tmp_path / "a", model)
    hub.fail("model.safetensors", Fault(kind, times=1))
    assert same_tensors(load("hf-hub:owner/pets"), model)


def test_a_server_that_fails(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits between its tries
    commit = put(hub, tmp_path / "a", network())
    hub.fail("model.safetensors", Fault("error"))
    first, second, third = message(lambda: load("hf-hub:owner/pets"), WeightsError).splitlines()
    assert first.endswith(f"model.safetensors of owner/pets at {commit} could not be fetched.")
    assert second.endswith(": the server answered with 500.")
    assert third == "Try again later"


def test_a_config_with_code(hub: HubServer, tmp_path: Path) -> None:
    put(hub, tmp_path / "a", network())
    raw = json.loads((tmp_path / "a" / "config.json").read_text())
    raw["auto_map"] = {"AutoModel": "evil.Model"}
    hub.put("owner/pets", {"config.json": json.dumps(raw).encode(), "evil.py": b"1/0"})
    first, second, _ = message(lambda: load("hf-hub:owner/pets"), WeightsError).splitlines()
    assert first.endswith("config.json is broken at its start.")
    assert second == "The field 'auto_map' is unknown."
    assert not hub.asked("model.safetensors")


# --- Pushing -------------------------------------------------------------------------------------


def test_push_of_published_weights(hub: HubServer, tmp_path: Path) -> None:
    code, stdout, stderr = pushed(TAG, "--repo", "someone/pets", "--folder", str(tmp_path / "out"))
    assert code == 0, stderr
    commit, files = hub.repos["someone/pets"].commits[-1]
    sizes = [f"{name}  {len(files[name]):,} bytes" for name in FILES]
    assert stdout.splitlines() == [
        *sizes,
        f"Pushed to someone/pets, commit {commit}.",
        f'Type: senetzoo.load("hf-hub:someone/pets@{commit}")',
    ]
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == files[name]
    model, own = create("hf-hub:someone/pets"), create(TAG)
    assert same_tensors(model, own)
    assert transforms(model) == transforms(own)
    assert (model.load_report is None) is (own.load_report is None) is False
    assert report_of(model).classes == report_of(own).classes
    # Pushing again gives the same files.
    assert pushed(TAG, "--repo", "hf-hub:someone/pets")[0] == 0
    assert hub.repos["someone/pets"].commits[-1][1] == files


def test_the_card_is_valid_and_true(hub: HubServer, tmp_path: Path) -> None:
    entry = manifest.manifest()[TAG]
    code, stdout, _ = pushed(
        TAG, "--repo", "someone/pets", "--dry-run", "--folder", str(tmp_path / "out")
    )
    assert code == 0
    assert not hub.asked()
    assert stdout.endswith("\nNothing was pushed to someone/pets.\n")
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert text in stdout
    known = ModelCard(text)
    known.validate()  # by the server, as the Hub does
    data: Any = known.data
    assert (data.library_name, data.license, data.pipeline_tag) == (
        "senetzoo",
        "apache-2.0",
        "image-classification",
    )
    (result,) = data.eval_results
    assert (result.dataset_type, result.dataset_name, result.metric_type) == (
        "cifar10",
        "CIFAR-10 test",
        "accuracy",
    )
    assert 100 * result.metric_value == pytest.approx(entry.metrics[0].value)
    raw = json.loads(text.split("```json\n")[1].split("\n```")[0])
    assert manifest.parse(json.dumps({"schema": manifest.SCHEMA, "entries": raw})) == {TAG: entry}
    sha256 = hashlib.sha256((tmp_path / "out" / "model.safetensors").read_bytes()).hexdigest()
    (training,) = entry.training
    for part in (sha256, training.command, training.revision, entry.license.data, "## Use"):
        assert part in text
    names: dict[str, object] = {}
    hub.put("someone/pets", {n: (tmp_path / "out" / n).read_bytes() for n in FILES})
    exec(text.split("```python\n")[1].split("```")[0], names)
    assert isinstance(names["model"], Classifier)


def test_a_card_for_every_entry(tmp_path: Path) -> None:
    save(tiny(), tmp_path)
    description = read_description(tmp_path / "config.json")
    for tag, entry in manifest.manifest().items():
        # An accuracy is that of one preprocessing.
        other = card("a/b", description, Counts(1, 2), tag, entry)
        unmeasured: Any = ModelCard(other).data
        assert not unmeasured.eval_results
        assert ("measured with another preprocessing" in other) == bool(entry.metrics)
        measured = dataclasses.replace(description, preprocessing=entry.preprocessing)
        text = card("a/b", measured, Counts(1, 2), tag, entry)
        data: Any = ModelCard(text).data
        assert len(data.eval_results or []) == len(entry.metrics)
        assert ("No accuracy of these weights is published." in text) == (not entry.metrics)
        assert data.license is not None
        assert ("ILSVRC/imagenet-1k" in (data.datasets or [])) == ("ImageNet-1k" in entry.data)
        assert ("Commercial use is not allowed." in text) == entry.license.non_commercial
        for stage in entry.training[-1:]:
            assert f"\n{stage.command}\n" in text
            assert (f"from the weights `{stage.start}`" in text) == (stage.start is not None)


class Half(nn.Module):
    """A gate of one's own."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x / 2


@pytest.mark.parametrize("options", [{"in_chans": 4}, {"num_classes": 0}, {"policy": "own_half"}])
def test_the_code_of_a_card_runs(hub: HubServer, tmp_path: Path, options: dict[str, Any]) -> None:
    senetzoo.register(Half, name="own_half")
    save(create("resnet20", seed=0, **options), tmp_path)
    description = read_description(tmp_path / "config.json")
    text = card("a/b", description, Counts(1, 2), "", None)
    files = {name: (tmp_path / name).read_bytes() for name in FILES if name != "README.md"}
    hub.put("a/b", {**files, "README.md": text.encode()})
    code = text.split("```python\n")[1].split("```")[0]
    assert ('senetzoo.register(Half, name="own_half")' in code) == ("policy" in options)
    own: dict[str, object] = {"Half": Half}
    exec(code, own)
    assert isinstance(own["model"], Classifier)
    assert ("transform" in own) == ("in_chans" not in options)
    classifies = options.get("num_classes") != 0
    assert ("an image classifier" in text) == classifies
    found: Any = ModelCard(text).data
    assert (found.pipeline_tag == "image-classification") == classifies


def test_push_of_a_folder(hub: HubServer, tmp_path: Path) -> None:
    model = network()
    save(model, tmp_path / "mine", classes=["a|b", "c\nd", "e", "f", "g"])
    (tmp_path / "mine" / "secret.txt").write_text("mine")
    code, _, stderr = pushed(str(tmp_path / "mine"), "--repo", "someone/pets", "--private")
    assert code == 0, stderr
    assert hub.repos["someone/pets"].private
    files = hub.repos["someone/pets"].commits[-1][1]
    assert set(files) - {".gitattributes"} == set(FILES)
    assert same_tensors(load("hf-hub:someone/pets"), model)
    text = files["README.md"].decode()
    data: Any = ModelCard(text).data
    assert data.license is None
    assert "| classes | 5: a\\|b, c d, e, f, g |" in text
    # The user's own card is uploaded unchanged.
    own = "---\nlicense: mit\n---\n\n# Mine\n"
    (tmp_path / "mine" / "README.md").write_text(own)
    assert pushed(str(tmp_path / "mine"), "--repo", "someone/pets")[0] == 0
    assert hub.repos["someone/pets"].commits[-1][1]["README.md"].decode() == own


def _broken_card(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: [mit\n---\n")


def _not_finite(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(str(folder / "model.safetensors"))
    state["fc.bias"][0] = float("inf")
    save_file(state, str(folder / "model.safetensors"))
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    raw = json.loads((folder / "config.json").read_text())
    raw["weights"]["sha256"] = digest
    (folder / "config.json").write_text(json.dumps(raw))


def _foreign(folder: Path) -> None:
    (folder / "config.json").write_text('{"architectures": ["BertModel"]}')


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (_broken_card, "The card {}/README.md can't be read.\n"
         "ParserError: while parsing a flow sequence\n"
         "Correct the metadata between its two lines of ---"),
        (_not_finite, "The weights {} have values that aren't finite.\n"
         "There is NaN or infinity in fc.bias.\n"
         "The training diverged, or the file is damaged: use other weights"),
        (_foreign, "{}/config.json is broken at library_name.\n"
         "It isn't 'senetzoo'.\n"
         "Save the network again with senetzoo.save, or get its files again"),
    ],
)  # fmt: skip
def test_what_is_not_pushed(
    spoil: Callable[[Path], None], text: str, hub: HubServer, tmp_path: Path
) -> None:
    save(network(), tmp_path / "mine")
    spoil(tmp_path / "mine")
    code, _, stderr = pushed(str(tmp_path / "mine"), "--repo", "someone/pets")
    assert (code, stderr) == (2, f"error: {text.format(tmp_path / 'mine')}\n")
    assert not hub.asked()


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((TAG, "--repo", "pets"), "'pets' isn't the name of a repository on the Hugging Face Hub.\n"
         "It is owner/name, both made of letters, digits, and single ., - and _ between them.\n"
         "Type for example: hf-hub:owner/name, or hf-hub:owner/name@v1 for a revision"),
        ((TAG, "--repo", "someone/pets@v1"), "someone/pets@v1 has a revision.\n"
         "Pushing makes a new commit on the main branch.\nType: someone/pets"),
        (("se_resnet20.v9", "--repo", "someone/pets"),
         "There are no weights 'v9' of 'se_resnet20'.\nIts tags are cifar10_v2, cifar100_v1, "
         "cifar10_v1, pytorchcv_cifar10, pytorchcv_cifar100, pytorchcv_svhn.\n"
         "Type for example: se_resnet20.cifar10_v2"),
        (("my_network", "--repo", "someone/pets"),
         "There is no network 'my_network'.\nNo name is similar.\nType: senetzoo list; "
     "for your own network: --register MODULE:NAME"),
    ],
)  # fmt: skip
def test_wrong_arguments(args: tuple[str, ...], text: str, hub: HubServer) -> None:
    assert pushed(*args) == (2, "", f"error: {text}\n")
    assert not hub.asked()


def test_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(network(), tmp_path / "mine")
    for hub in running(tmp_path / "home", monkeypatch, token=None):
        code, _, stderr = pushed(str(tmp_path / "mine"), "--repo", "someone/pets")
        assert (code, stderr) == (
            2,
            "error: Nothing was pushed to someone/pets.\n"
            "Uploading needs a token, and there is none.\n"
            "Type: hf auth login, or set HF_TOKEN\n",
        )
        assert not hub.asked()


@pytest.mark.parametrize(
    ("kind", "ending", "text"),
    [
        ("unauthorised", "/create",
         "The Hub rejected the token (401).\nType: hf auth login, or set HF_TOKEN"),
        ("gated", "/create", "The token has no write access to someone/pets (403).\n"
         "Use a token with write access, or your own repository"),
        ("missing", "/create", "The Hub has no such repository, and can't create it (404).\n"
         "Check the owner's name, or create the repository on the Hub's website"),
        ("gated", "/commit/main", "The token has no write access to someone/pets (403).\n"
         "Use a token with write access, or your own repository"),
    ],
)  # fmt: skip
def test_refused_pushes(kind: Any, ending: str, text: str, hub: HubServer, tmp_path: Path) -> None:
    save(network(), tmp_path / "mine")
    hub.fail(ending, Fault(kind))
    code, _, stderr = pushed(str(tmp_path / "mine"), "--repo", "someone/pets")
    assert code == 2
    # The client may have printed its progress first.
    assert stderr.endswith(f"error: Nothing was pushed to someone/pets.\n{text}\n")
    # Incomplete uploads leave nothing.
    commits = hub.repos["someone/pets"].commits if "someone/pets" in hub.repos else []
    assert not [name for _, files in commits for name in files if name in FILES]


def test_private_is_not_pushed_where_everybody_reads(hub: HubServer, tmp_path: Path) -> None:
    save(network(), tmp_path / "mine")
    hub.put("someone/pets", {"a": b""})
    code, _, stderr = pushed(str(tmp_path / "mine"), "--repo", "someone/pets", "--private")
    assert (code, stderr) == (
        2,
        "error: Nothing was pushed to someone/pets.\n"
        "It exists and is public; --private doesn't change that.\n"
        "Give another name, make it private in its settings, or leave out --private\n",
    )
