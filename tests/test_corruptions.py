"""Corruptions of images against scikit-image and against their distributions."""

from __future__ import annotations

import dataclasses
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from support import commands
from support.networks import message
from torch import Tensor

import senetzoo
from senetzoo.data import digits
from senetzoo.data.cifar import CIFAR10
from senetzoo.data.corruptions import CORRUPTIONS, SEVERITIES, Corruption, corrupt
from senetzoo.errors import ConfigError
from senetzoo.eval.accuracy import evaluate
from senetzoo.eval.data import LabeledImages
from senetzoo.eval.robustness import robustness
from senetzoo.nn.transforms import transforms

ROOT = Path(__file__).resolve().parent.parent


def flat(value: int, count: int = 8, channels: int = 3) -> Tensor:
    return torch.full((count, 32, 32, channels), value, dtype=torch.uint8)


def drawn(count: int = 4, channels: int = 3) -> Tensor:
    """Smooth images, like photographs."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(count, channels, 5, 5, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, 32, mode="bicubic").clamp(0, 1)
    return (fine * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


# By severity, as released with CIFAR-10-C.
SIGMAS = (0.04, 0.06, 0.08, 0.09, 0.10)
PHOTONS = (500, 250, 100, 75, 50)
PARTS = (0.01, 0.02, 0.03, 0.05, 0.07)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_the_moments_of_its_distribution(severity: int) -> None:
    count, gray = 40, 128
    values = count * 32 * 32 * 3
    # Rounding down subtracts 1/2 level from the mean, and adds 1/12 to the variance.
    gaussian = corrupt(flat(gray, count), "gaussian_noise", severity).double() + 0.5
    deviation = SIGMAS[severity - 1] * 255
    assert gaussian.mean() == pytest.approx(gray, abs=5 * deviation / values**0.5)
    assert gaussian.std() == pytest.approx((deviation**2 + 1 / 12) ** 0.5, rel=0.02)
    shot = corrupt(flat(gray, count), "shot_noise", severity).double() + 0.5
    variance = (gray / 255) / PHOTONS[severity - 1] * 255**2
    assert shot.std() == pytest.approx(variance**0.5, rel=0.03)
    # Values of a Poisson variable are whole numbers of photons: few levels.
    assert len(set(shot.flatten().tolist())) <= PHOTONS[severity - 1]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulses_are_single_values(severity: int) -> None:
    noisy = corrupt(flat(100, 40), "impulse_noise", severity)
    part, count = PARTS[severity - 1], noisy.numel()
    error = 5 * (part / count) ** 0.5
    assert set(noisy.flatten().tolist()) == {0, 100, 255}
    for value in (0, 255):
        assert (noisy == value).double().mean() == pytest.approx(part / 2, abs=error)
    whole = (noisy != 100).all(3).double().mean()
    assert whole == pytest.approx(part**3, abs=5 * (part**3 / count) ** 0.5)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_blur_is_that_of_scikit_image(severity: int) -> None:
    from skimage.filters import gaussian

    images = drawn()
    sigma = (0.4, 0.6, 0.7, 0.8, 1.0)[severity - 1]
    found = corrupt(images, "gaussian_blur", severity).numpy()
    for image, one in zip(images.numpy(), found, strict=True):
        expected = gaussian(image / 255.0, sigma=sigma, channel_axis=-1) * 255  # type: ignore[no-untyped-call]
        assert np.abs(np.floor(expected) - one).max() <= 1  # the last bit before rounding down
        assert (np.floor(expected) != one).mean() < 0.01


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_by_hand(severity: int) -> None:
    images = drawn()
    factor = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    found = corrupt(images, "contrast", severity)
    for n in range(len(images)):
        for c in range(3):
            x = images[n, :, :, c].double()
            y = (x - x.mean()) * factor + x.mean()
            assert (found[n, :, :, c].double() - y).abs().max() <= 1.0


def test_jpeg_loses_more_at_lower_quality() -> None:
    images = drawn()
    losses = [
        (corrupt(images, "jpeg", severity).double() - images.double()).square().mean().item()
        for severity in SEVERITIES
    ]
    assert losses == sorted(losses)
    assert 0 < losses[0] < losses[-1] < 200
    assert (corrupt(flat(77), "jpeg", 5).int() - 77).abs().max() <= 1


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_is_repeatable_and_leaves_its_input(corruption: Corruption, channels: int) -> None:
    images = drawn(channels=channels)
    before = images.clone()
    first = corrupt(images, corruption, 3, seed=7)
    assert first.shape == images.shape
    assert first.dtype == torch.uint8
    assert torch.equal(first, corrupt(images, corruption, 3, seed=7))
    assert torch.equal(images, before)
    assert not torch.equal(first, images)
    random = corruption.endswith("noise")
    assert torch.equal(first, corrupt(images, corruption, 3, seed=8)) != random
    if random:
        same = corrupt(flat(90, 2, channels), corruption, 5)
        assert not torch.equal(same[0], same[1])


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((flat(0), "fog", 1), "There is no corruption 'fog'.\n"
         "The corruptions are gaussian_noise, shot_noise, impulse_noise, gaussian_blur, jpeg, "
         "contrast."),
        ((flat(0), "jpeg", 6),
         "There is no severity 6.\nA severity is a whole number from 1 to 5."),
        ((torch.zeros(1, 3, 32, 32), "jpeg", 1),
         "Images of shape (1, 3, 32, 32) and torch.float32 can't be corrupted.\n"
         "Expected at least one image, (N, H, W, C), uint8, with one channel or three."),
    ],
)  # fmt: skip
def test_bad_input(given: tuple[Any, ...], text: str) -> None:
    assert message(lambda: corrupt(*given), ConfigError) == text


def test_accuracy_on_corrupted_images_is_that_of_the_corrupted_data() -> None:
    model = senetzoo.load("lenet5")
    given, preprocessing = digits.load("test").first(2), transforms(model)
    pixels = [preprocessing.pixels(preprocessing(x)) for x in given.images.permute(0, 3, 1, 2)]
    # As large as the network's input, so that corrupting before and in it are the same.
    images = dataclasses.replace(given, images=torch.stack(pixels).permute(0, 2, 3, 1))
    data = LabeledImages(images, tuple(range(10)))
    found = robustness(model, data, batch=7)
    assert found == robustness(model, data, batch=20)
    for name, severity in (("shot_noise", 2), ("contrast", 5), ("jpeg", 5)):
        changed = torch.cat(
            [
                corrupt(images.images[n : n + 1], name, severity, seed=n)  # type: ignore[arg-type]
                for n in range(20)
            ]
        )
        made = LabeledImages(dataclasses.replace(images, images=changed), data.outputs)
        expected = evaluate(model, made).top(1).right
        assert found.corrupted[name][severity - 1].right == expected  # type: ignore[index]
    assert found.clean.right == evaluate(model, data).top(1).right
    rights = [tally.right for row in found.corrupted.values() for tally in row]
    assert len(rights) == 30
    assert found.mean == pytest.approx(sum(rights) / 30 / 20)


def test_the_benchmark_of_noise_pairs_networks_by_image(
    sample: Callable[[str], Path], tmp_path: Path
) -> None:
    names = ("lenet.cifar10_v1", "resnet20.cifar10_v2")
    file, out = sample("cifar10-test-sample.parquet"), tmp_path / "noise.jsonl"
    main = runpy.run_path(str(ROOT / "benchmarks" / "noise.py"))["main"]
    command = [*names, "--data", str(file), "--out", str(out), "--per-class", "2"]
    for _ in range(2):  # the second time all is recorded
        CliRunner().invoke(main, command, catch_exceptions=False)
    found = {line["corruption"]: line for line in map(json.loads, out.read_text().splitlines())}
    assert list(found) == ["none", *CORRUPTIONS]
    assert len(out.read_text().splitlines()) == 7
    test = CIFAR10.load(file, "test").first(2)
    noisy = [corrupt(test.images, "gaussian_noise", severity) for severity in SEVERITIES]
    right = []
    for name in names:
        model = senetzoo.load(name)
        inputs = [torch.stack([*map(transforms(model), x.permute(0, 3, 1, 2))]) for x in noisy]
        right.append(torch.stack([model(x).argmax(1) == test.labels for x in inputs]).int())
    line = found["gaussian_noise"]
    assert line["networks"] == list(names)
    assert line["test_correct"] == [each.sum(1).tolist() for each in right]
    assert line["squares"] == int((right[1].sum(0) - right[0].sum(0)).square().sum())


def test_eval_with_corruptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = digits.load
    monkeypatch.setattr(digits, "load", lambda split: whole(split).first(1))
    plot = tmp_path / "robust.svg"
    result = commands.run("eval", "lenet5", "digits", "--corruptions", "--plot", plot, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["robustness"]
    assert list(found["corruptions"]) == list(CORRUPTIONS)
    assert all(len(row) == len(SEVERITIES) for row in found["corruptions"].values())
    assert found["clean"]["images"] == 10
    text = plot.read_text("utf-8")
    assert all(name in text for name in (*CORRUPTIONS, "clean"))
    shown = commands.run("eval", "lenet5", "digits", "--corruptions")
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "severities 1 to 5" in shown.stdout


@pytest.mark.parametrize(
    "options",
    [("--plot", "x.svg"), ("--corruptions", "--plot", "x.png"), ("--corruptions", "--tta")],
)
def test_options_that_do_not_fit_corruptions(options: tuple[str, ...]) -> None:
    assert commands.run("eval", "lenet5", "digits", *options).exit_code == 2
