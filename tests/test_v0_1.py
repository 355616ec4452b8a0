"""What version 0.1.0 wrote is read by this one; `data/v0_1/README.md` says how it was made."""

from __future__ import annotations

import json
import lzma
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file
from support.weights import report_of
from torch import Tensor, nn

from senetzoo import create, load, transforms
from senetzoo.cli import main
from senetzoo.errors import ConfigError
from senetzoo.nn.classifier import Classifier
from senetzoo.train import checkpoint
from senetzoo.train.engine import train
from senetzoo.train.recipes import RECIPES

HERE = Path(__file__).parent / "data" / "v0_1"
NAMES = ("#¿quoted'?", "10", "9 lives", "naïve, café")
# Of scikit-learn's digits, and of ImageNet.
DIGITS_INPUT = (32, (0.3048,), (0.3757,), "bilinear", 1.0)
FOLDER_INPUT = (40, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear", 0.8)

Unpack = Callable[[str], Path]


@pytest.fixture
def unpacked(tmp_path: Path) -> Unpack:
    """Gives a copy of a folder as version 0.1.0 left it."""

    def copy(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(HERE / name, folder)
        for packed in folder.glob("*.xz"):
            packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
            packed.unlink()
        return folder

    return copy


def close(logits: Tensor, expected: Tensor, part: float = 1e-5) -> None:
    """Logits differ at most by so large a part of the largest: processors round in their ways."""
    torch.testing.assert_close(logits, expected, rtol=0, atol=part * expected.abs().max().item())


@torch.inference_mode()
def logits_of(model: nn.Module, folder: Path) -> tuple[Tensor, Tensor]:
    """A network's logits of the images of `folder`, and those that version 0.1.0 computed."""
    expected = load_file(folder / "expected.safetensors")
    logits: Tensor = model(expected["images"] / 127.5 - 1)
    return logits, expected["logits"]


def loaded(folder: Path) -> Classifier:
    """The network of `folder`, in eval mode, with the logits that it had."""
    model = load(folder)
    assert not any(module.training for module in model.modules())
    close(*logits_of(model, folder))
    return model


def classes_of(model: Classifier) -> tuple[str, ...]:
    report = report_of(model)
    assert (report.replaced, report.adapted) == ((), ())
    return report.classes


def preprocessing_of(model: Classifier) -> tuple[object, ...]:
    found = transforms(model)
    return found.size, found.mean, found.std, found.interpolation, found.crop


def gated(model: nn.Module) -> set[str]:
    """Names of the slots that hold a gate with parameters."""
    names = [name.split(".") for name in model.state_dict()]
    where = [next((k for k, part in enumerate(name) if "slots" in part), None) for name in names]
    return {".".join(name[: k + 2]) for name, k in zip(names, where, strict=True) if k is not None}


# --- Saved networks ------------------------------------------------------------------------------


def test_a_plain_network(unpacked: Unpack) -> None:
    model = loaded(unpacked("saved/plain"))
    assert classes_of(model) == ()
    assert gated(model) == set()


def test_a_network_with_gates_class_names_and_transforms(unpacked: Unpack) -> None:
    model = loaded(unpacked("saved/se"))
    assert classes_of(model) == ("10", "9 lives", "naïve, café", "#¿quoted'?")
    assert gated(model) == {f"layer3.{block}.slots.pre" for block in range(3)}
    assert preprocessing_of(model) == (40, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic", 0.8)


def test_gates_by_the_names_of_their_sites(unpacked: Unpack) -> None:
    folder = unpacked("saved/branches")
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert raw["policy"] is None
    assert list(raw["gates"]) == ["features.1.0.attn_slots.standard"]
    assert gated(loaded(folder)) == {"features.1.0.attn_slots.standard"}


# --- Runs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "slots", "preprocessing"),
    [
        ("digits", set(), DIGITS_INPUT),
        ("start", {"slots1.standard", "slots2.standard"}, DIGITS_INPUT),
        (
            "policy",
            {f"layer1.{block}.slots.post" for block in range(3)}
            | {f"layer3.{block}.slots.pre" for block in range(3)},
            DIGITS_INPUT,
        ),
        ("folder", set(), FOLDER_INPUT),
    ],
)
def test_a_finished_run_is_a_network(
    run: str, slots: set[str], preprocessing: tuple[object, ...], unpacked: Unpack
) -> None:
    model = loaded(unpacked(f"runs/{run}"))
    assert gated(model) == slots
    assert classes_of(model) == (NAMES if run == "folder" else tuple("0123456789"))
    assert preprocessing_of(model) == preprocessing


def test_a_run_sees_a_picture_as_its_test_did(unpacked: Unpack) -> None:
    folder = unpacked("runs/folder")
    model = load(folder)
    x = transforms(model)(Image.open(folder / "picture.png"))
    with torch.inference_mode():
        logits = model(x[None])
    close(logits, load_file(folder / "expected.safetensors")["picture_logits"])


@pytest.fixture
def threads() -> Iterator[None]:
    """Gives back the number of threads that a command sets."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_an_interrupted_run_goes_on_to_the_end_that_it_had(unpacked: Unpack) -> None:
    folder = unpacked("runs/interrupted")
    command = (
        *("train", "digits", "--set", "phases=((32,2),)", "--set", "images_per_class=16"),
        *("--set", "batch=16", "--threads", "1", "--no-compile", "--workers", "0"),
    )
    result = CliRunner().invoke(main, [*command, "--out", str(folder)])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{folder}: resuming after epoch 2, step 4\n")
    model = create("lenet5", seed=0).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    # Six steps of another processor's rounding.
    close(*logits_of(model, folder), part=1e-3)


DIGITS = RECIPES["digits"].recipe.replace(compile=False)


@pytest.mark.parametrize(
    ("run", "changes"),
    [
        ("digits", {"phases": ((32, 1),)}),
        ("interrupted", {"phases": ((32, 2),), "images_per_class": 16, "batch": 16}),
    ],
)
def test_recipes_are_compared_as_values(
    run: str, changes: dict[str, Any], unpacked: Unpack
) -> None:
    """A field that a run does not have is at its default; one that is unknown is an error."""
    recipe = DIGITS.replace(**changes)

    def again(folder: Path) -> dict[str, Any] | None:
        if run == "digits":
            return train(recipe, folder, say=lambda _: None)
        return checkpoint.load(folder, recipe, 0, lambda _: None)

    folder = unpacked(f"runs/{run}")
    name = "summary.json" if run == "digits" else "checkpoint.pt"
    if run == "digits":
        stored = json.loads((folder / name).read_text(encoding="utf-8"))
    else:
        stored = torch.load(folder / name, weights_only=True)
    assert not {"mean", "std"} & stored["recipe"].keys()
    assert again(folder) is not None
    for edit, message in (
        ({"mean": [0.5]}, "has a run with another recipe or seed."),
        ({"meen": [0.5]}, f"{folder / name} is broken at recipe.\nThe field 'meen' is unknown."),
    ):
        other = {**stored, "recipe": {**stored["recipe"], **edit}}
        if run == "digits":
            (folder / name).write_text(json.dumps(other), encoding="utf-8")
        else:
            torch.save(other, folder / name)
        with pytest.raises(ConfigError) as caught:
            again(folder)
        assert message in str(caught.value)
