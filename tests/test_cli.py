from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from support.commands import run
from support.weights import Shelf

import senetzoo
from senetzoo.registry import ENTRIES


def test_version() -> None:
    assert run("--version").output == f"senetzoo, version {senetzoo.__version__}\n"


def test_list(shelf: Shelf) -> None:
    shelf.put("resnet20.pets_v1")
    shelf.put("resnet20.a_v2", default=False)
    lines = run("list").output.splitlines()
    assert [line.split()[0] for line in lines] == list(ENTRIES)
    both = "resnet20  pets_v1 (in the package), a_v2 (in the package)"
    assert both in lines
    assert run("list", "*resnet20", "--pretrained").output == f"{both}\n"
    assert run("list", "--family", "lenet").output == "lenet\nlenet5\nse_lenet\nse_lenet5\n"
    found = json.loads(run("list", "resnet20*", "--json").output)
    assert found == [
        {"name": "resnet20", "weights": ["pets_v1", "a_v2"], "embedded": ["pets_v1", "a_v2"]},
        {"name": "resnet20a", "weights": [], "embedded": []},
    ]


def test_list_marks_the_weights_in_the_package() -> None:
    assert run("list", "lenet5").output == "lenet5  digits_v1 (in the package)\n"
    (found,) = json.loads(run("list", "lenet5", "--json").output)
    assert found["embedded"] == found["weights"] == ["digits_v1"]
    assert "in the package" not in run("list", "resnet50").output


def test_explain() -> None:
    text = str(senetzoo.explain("resnet20", "se8@pre/s3"))
    assert run("explain", "resnet20", "--policy", "se8@pre/s3").output == f"{text}\n"
    assert run("explain", "resnet20+se8@pre/s3").output.splitlines()[1:] == text.splitlines()[1:]
    found = json.loads(run("explain", "se_resnet20", "--json").output)
    assert found == senetzoo.explain("se_resnet20").as_dict()


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (("train", "digits", "--set", "model=se_lenet6"), "se_lenet"),
        (("predict", "photo.jpg", "--model", "se_lenet6"), "se_lenet"),
        (("eval", "se_lenet6", "digits"), "se_lenet"),
        (("eval", "se_resnet20.v9", "digits"), "se_resnet20.cifar10_v2"),
    ],
)
def test_a_suggestion_can_be_typed(words: tuple[str, ...], suggestion: str, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.jpg")
    words = tuple(str(tmp_path / word) if word == "photo.jpg" else word for word in words)
    result = run(*words)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == f"Type for example: {suggestion}"
    result = run("eval", "plain56", "digits")
    last = result.stderr.splitlines()[-1]
    assert last == "Those with weights are listed by: senetzoo list --pretrained"
