from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.networks import images, message
from support.weights import RAW, Shelf, report_of
from torch import Tensor

from senetzoo import SE, attach, config, create, load, policy, transforms
from senetzoo.data.files import LabeledFiles
from senetzoo.errors import WeightsError
from senetzoo.eval.accuracy import evaluate
from senetzoo.eval.data import read_images
from senetzoo.eval.predictions import Tally, wilson
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.preprocessing import Preprocessing
from senetzoo.weights import manifest
from senetzoo.weights.load import adapt_channels, load_strictly, read

SHIPPED = manifest.manifest()
TAG = "resnet20.pets_v1"


# --- The embedded weights, measured again ---------------------------------------------------------


def measured(tag: str, where: str, each: int | None = None) -> Tally:
    """Top-1 accuracy on all images, or on the first `each` of each class."""
    entry, model = SHIPPED[tag], create(tag)
    data = read_images(where, entry.classes or (), entry.num_classes)
    if each is not None:
        assert isinstance(data.images, LabeledFiles)
        data = dataclasses.replace(data, images=data.images.first(each))
    return evaluate(model, data, transforms(model), batch=250).top(1)


@pytest.mark.parametrize("tag", [t for t, e in SHIPPED.items() if "digits" in e.data])
def test_digits_accuracy_is_exactly_as_claimed(tag: str) -> None:
    result, (metric,) = measured(tag, "digits"), SHIPPED[tag].metrics
    assert metric.data == "scikit-learn digits test"
    assert result.total == metric.images == 596
    assert 100 * result.right / result.total == pytest.approx(metric.value, abs=0.006)


@pytest.mark.parametrize("each", [20, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "tag", [t for t, e in SHIPPED.items() if "CIFAR-10 " in e.data and e.training]
)
def test_cifar10_accuracy_is_as_claimed(
    tag: str, each: int | None, sample: Callable[[str], Path]
) -> None:
    result = measured(tag, str(sample("cifar10-test-sample.parquet")), each)
    assert result.total == 1000 if each is None else 10 * each
    low, high = wilson(result.right, result.total, 0.999)
    assert low < SHIPPED[tag].metrics[0].value / 100 < high


@pytest.mark.parametrize("tag", [t for t, e in SHIPPED.items() if "flowers5 " in e.data])
def test_flowers_accuracy_is_as_claimed(tag: str, sample: Callable[[str], Path]) -> None:
    """A lower bound, because the sample may overlap with the training images."""
    result = measured(tag, str(sample("flowers5-sample.parquet")))
    assert result.total == 200
    assert SHIPPED[tag].metrics[0].value / 100 < wilson(result.right, result.total, 0.999)[1]


# --- Load ----------------------------------------------------------------------------------------


def _pairs(ours: Classifier, theirs: Classifier) -> list[tuple[Tensor, Tensor]]:
    a, b = ours.state_dict(), theirs.state_dict()
    assert list(a) == list(b)
    return [(a[name], b[name]) for name in a]


def test_pretrained_is_the_network_that_was_stored(shelf: Shelf) -> None:
    trained = shelf.put(TAG)
    model = create("resnet20", pretrained=True, seed=1)
    assert not any(module.training for module in model.modules())
    assert model.num_classes == 3
    assert all(torch.equal(a, b) for a, b in _pairs(model, trained))
    x = images(2, 3, 32, 32).float()
    with torch.inference_mode():
        assert torch.equal(model(x), trained(x))
    report = report_of(model)
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
            "The weights w have values that aren't finite.\n"
            f"There is NaN or infinity in {first}{more}.\n"
            "The training diverged, or the file is damaged: use other weights"
        )
    file = tmp_path / "w.safetensors"
    save_file(other, str(file))
    load_strictly(model, read(file)[0], "w")
    assert all(torch.equal(value, other[k]) for k, value in model.state_dict().items())


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    remedy = "Give a .safetensors file that senetzoo wrote"
    for missing in (tmp_path / "w.pt", tmp_path / "w.safetensors"):
        said = f"Can't read the weights {missing}.\nThe file doesn't exist.\n{remedy}"
        assert message(partial(load, "resnet20", weights=missing), WeightsError) == said
    file = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(100)}, str(file))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(WeightsError) as caught:
        read(file)
    first, second, third = str(caught.value).splitlines()
    assert (first, third) == (f"Can't read the weights {file}.", remedy)
    assert second.startswith("It isn't a complete safetensors file (")


@pytest.mark.parametrize("channels", [1, 2, 4, 6, 7])
def test_other_channels_see_gray_images_alike(shelf: Shelf, channels: int) -> None:
    trained = shelf.put(TAG)
    model = create("resnet20", pretrained=True, in_chans=channels)
    gray = images(2, 1, 32, 32).float()
    with torch.inference_mode():
        ours = model(gray.expand(-1, channels, -1, -1))
        theirs = trained(gray.expand(-1, 3, -1, -1))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    way: Any = "sum" if channels < 3 else "tile"
    same = create("resnet20", pretrained=True, in_chans=channels, channels=way)
    assert all(torch.equal(a, b) for a, b in _pairs(same, model))
    how = "channels summed" if channels < 3 else "channels repeated and divided by the copies"
    report = report_of(model)
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


def test_gray_weights_for_color_images(shelf: Shelf) -> None:
    seen = {**RAW["preprocessing"], "mean": [0.5], "std": [0.25]}
    trained = shelf.put("lenet5.gray_v1", preprocessing=seen)
    model = create("lenet5", pretrained=True, in_chans=3)
    gray = images(2, 1, 32, 32).float()
    with torch.inference_mode():
        torch.testing.assert_close(model(gray.expand(-1, 3, -1, -1)), trained(gray))


def test_more_gates_over_pretrained_weights(shelf: Shelf) -> None:
    trained = shelf.put(TAG)
    model = create("resnet20+se8@pre/s2", pretrained=True)
    for name, value in trained.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    report = report_of(model)
    assert len(report.replaced) == 12
    assert report.adapted == ()
    kept = create("resnet20", pretrained=True, policy=SE(init="identity"))
    x = images(2, 3, 32, 32).float()
    with torch.inference_mode():
        torch.testing.assert_close(kept(x), trained(x))


def test_an_entry_with_a_policy_and_a_stem_of_its_own(shelf: Shelf) -> None:
    trained = shelf.put("resnet20.pre_v1", policy="se8@pre/s3", stem="imagenet")
    model = create("resnet20.pre_v1")
    assert all(torch.equal(a, b) for a, b in _pairs(model, trained))
    assert model.spec.config.stem == config("resnet18").config.stem
    assert create("resnet20.pre_v1", stem="imagenet").load_report is not None
    assert config("resnet20.pre_v1").policy == policy("se8@pre/s3")


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
    assert known == Preprocessing(32, (0.5, 0.25, 0.125), (0.5, 0.25, 1.0), "bilinear", 0.875)
    gray = transforms(create(TAG, in_chans=1))
    assert gray.mean == pytest.approx((0.875 / 3,))
    assert gray.std == pytest.approx((1.75 / 3,))
    assert (gray.size, gray.crop) == (32, 0.875)
