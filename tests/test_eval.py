from __future__ import annotations

import csv
import json
import math
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support import commands
from support.images import write_parquet
from support.networks import message
from torch import Tensor, nn

import senetzoo
from senetzoo import create
from senetzoo.data import digits, flowers5
from senetzoo.data.cifar import CIFAR10
from senetzoo.data.files import LabeledFiles
from senetzoo.data.sets import ImageSet
from senetzoo.errors import ConfigError, DataError
from senetzoo.eval.accuracy import Evaluation, calibrate, evaluate
from senetzoo.eval.calibration import best_temperature, calibration_error, smallest_probability
from senetzoo.eval.data import LabeledImages, read_images
from senetzoo.eval.predictions import Predictions, wilson
from senetzoo.inspect.pictures import png
from senetzoo.nn.preprocessing import Preprocessing
from senetzoo.nn.transforms import transforms
from senetzoo.weights import cache, manifest

PLAIN = Preprocessing(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


# Intervals


@pytest.mark.parametrize(
    ("right", "total"), [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (598, 610), (9134, 10_000)]
)
def test_wilson_solves_the_score_equation(right: int, total: int) -> None:
    """The limits are where |p^ - p| is 1.96 standard errors *of p*: found by bisection."""
    z, p_hat = 1.959963984540054, right / total

    def inside(p: float) -> bool:
        return (p_hat - p) ** 2 * total <= z * z * p * (1 - p)

    def edge(out: float, within: float) -> float:
        for _ in range(200):
            middle = (out + within) / 2
            out, within = (out, middle) if inside(middle) else (middle, within)
        return within

    # p^ itself is inside, except that at 0 and 1 the standard error vanishes with it.
    start = min(max(p_hat, 1e-12), 1 - 1e-12)
    low = 0.0 if right == 0 else edge(0.0, start)
    high = 1.0 if right == total else edge(1.0, start)
    assert wilson(right, total) == pytest.approx((low, high), abs=1e-9)


def test_wilson_without_trials_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


# Accuracy


def evaluated(
    model: nn.Module, data: LabeledImages, see: Preprocessing, **options: Any
) -> Evaluation:
    return Evaluation("net", "", "fp32", data, evaluate(model, data, see, **options))


def tallies(result: Evaluation) -> list[tuple[str, int, int]]:
    return [(t.name, t.right, t.total) for t in (score.tally for score in result.classes())]


class Brightest(nn.Module):
    """Logits are the mean of each channel: red, green, blue."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def _png(path: Path, color: str, side: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), color).save(path)


def _cells(*colors: str) -> list[bytes]:
    return [png(Image.new("RGB", (8, 8), color)) for color in colors]


@pytest.fixture
def colors(tmp_path: Path) -> Path:
    """Five red images of which one is blue, three blue of which two are green; two sizes."""
    for index, color in enumerate(["red", "red", "blue", "red", "red"]):
        _png(tmp_path / "colors" / "red" / f"{index}.png", color, 8 + index)
    for index, color in enumerate(["lime", "blue", "lime"]):
        _png(tmp_path / "colors" / "blue" / f"{index}.png", color)
    return tmp_path / "colors"


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_accuracy_of_a_known_answer(colors: Path, batch: int) -> None:
    data = read_images(str(colors), ("red", "green", "blue"), 3)
    counts: list[int] = []
    model = Brightest()
    result = evaluated(model, data, PLAIN, batch=batch, advance=counts.append)
    whole = result.predictions.top(1)
    assert (whole.right, whole.total) == (5, 8)
    assert result.data.images.name == str(colors)
    assert tallies(result) == [("blue", 1, 3), ("red", 4, 5)]
    assert whole.accuracy == result.predictions.accuracy == 0.625
    assert whole.interval == wilson(5, 8)
    assert sum(counts) == 8
    assert model.training  # put back as it was


def test_a_class_may_have_no_images_unless_for_training(colors: Path, published: str) -> None:
    (colors / "green").mkdir()
    found = json.loads(run(published, colors, "--json").stdout)
    sizes = {row["name"]: row["images"] for row in found["classes"]}
    assert (found["images"], sizes) == (8, {"red": 5, "green": 0, "blue": 3})
    recalls = [row["right"] / row["images"] for row in found["classes"] if row["images"]]
    assert found["balanced_accuracy"] == pytest.approx(sum(recalls) / 2, abs=1e-6)
    assert run(published, colors).exit_code == 0
    for opened in (senetzoo.data.open, senetzoo.data.open_splits):
        with pytest.raises(DataError, match=r"The class 'green' of .* has no images"):
            opened(colors)
    shutil.rmtree(colors / "red")
    shutil.rmtree(colors / "blue")
    assert run(published, colors).stderr.startswith(f"error: {colors} has no images.\n")


def test_class_folders_may_lie_under_test(colors: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    colors.rename(root / "test")
    data = read_images(str(root), ("red", "green", "blue"), 3)
    assert evaluate(Brightest(), data, PLAIN).top(1).right == 5


def test_without_names_folders_count_in_their_order(colors: Path) -> None:
    assert read_images(str(colors), (), 2).outputs == (0, 1)
    assert message(lambda: read_images(str(colors), (), 3), DataError) == (
        f"{colors} has 2 classes.\n"
        "The network has 3, without names to match them by.\n"
        "Give data with the same number of classes"
    )


def test_class_that_the_network_does_not_have(colors: Path) -> None:
    for other, remedy in (
        ("azure", "Give data with these classes, in folders named after them"),
        ("Blue", "Did you mean 'Blue'?"),
    ):
        classes = ("red", "green", other)
        assert message(lambda: read_images(str(colors), classes, 3), DataError) == (  # noqa: B023
            f"{colors} has the class 'blue', which the network does not have.\n"
            f"The classes of the network are red, green, {other}.\n{remedy}"
        )


def test_same_number_of_other_classes_is_no_match() -> None:
    with pytest.raises(DataError, match="has the class '0', which the network does not have"):
        read_images("digits", CIFAR10.classes, 10)


def test_no_data() -> None:
    assert message(lambda: read_images("/no/such/place", (), 2), DataError) == (
        "There is no data at /no/such/place.\n"
        "Data is a folder of class folders, a CSV or parquet file, a copy of CIFAR-10, CIFAR-100 "
        "or flower_photos, a data set on the Hub, or one of the words digits, cifar10, "
        "cifar100.\n"
        "Check the path, or give hf-hub:OWNER/NAME for a data set on the Hub"
    )


def test_cifar10_folder_is_its_test_split(tmp_path: Path) -> None:
    for index, name in enumerate(CIFAR10.classes):
        _png(tmp_path / "test" / name / "0.png", f"rgb({index}, 0, 0)", 32)
        _png(tmp_path / "train" / name / "0.png", "white", 32)
    reversed_names = CIFAR10.classes[::-1]
    data = read_images(str(tmp_path), reversed_names, 10)
    assert data.images.name == "CIFAR-10 test"
    assert [reversed_names[k] for k in data.outputs] == list(CIFAR10.classes)


def test_flower_photos_are_its_held_out_tenth(tmp_path: Path) -> None:
    photos = tmp_path / "flower_photos"
    for label, name in enumerate(flowers5.CLASSES):
        for index in range(10 + label):
            _png(photos / name / f"{index}.png", f"rgb({label}, {index}, 0)", 32)
    held_out = flowers5.load(tmp_path, "test")
    assert len(held_out) == 5
    for where in (photos, tmp_path):
        data = read_images(str(where), flowers5.CLASSES[::-1], 5)
        assert data.images.name == "flowers5 test"
        assert data.outputs == (4, 3, 2, 1, 0)
        pixels = [image.getpixel((0, 0)) for image, _ in data.images]  # type: ignore[union-attr]
        assert pixels == [image.getpixel((0, 0)) for image, _ in held_out]
    # In any other folder, the same classes are the user's own data, and all images count.
    photos.rename(tmp_path / "mine")
    assert len(read_images(str(tmp_path / "mine"), flowers5.CLASSES, 5).images) == 60


@pytest.mark.parametrize("give_file", [True, False])
def test_cifar10_archive_is_checked(tmp_path: Path, give_file: bool) -> None:
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        read_images(str(archive if give_file else tmp_path), (), 10)
    assert str(caught.value).splitlines()[0] == f"CIFAR-10 at {archive} can't be used."


def test_parquet_labels_are_numbers_without_names(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "colors.parquet", [0, 1, 0], _cells("red", "lime", "lime"))
    data = read_images(str(path), ("a", "b", "c"), 3)
    result = evaluated(Brightest(), data, PLAIN)
    assert tallies(result) == [("a", 1, 2), ("b", 1, 1), ("c", 0, 0)]
    with pytest.raises(DataError, match="has 2 classes"):
        read_images(str(path), ("a",), 1)


def test_parquet_names_go_before_numbers(tmp_path: Path) -> None:
    names = ("blue", "red")
    path = write_parquet(tmp_path / "colors.parquet", [0, 1], _cells(*names), classes=names)
    data = read_images(str(path), ("red", "green", "blue"), 3)
    assert evaluate(Brightest(), data, PLAIN).top(1).right == 2


def test_digits_against_one_image_at_a_time() -> None:
    model = create("lenet5", seed=3, num_classes=10).eval()
    see = transforms(model)
    result = evaluated(model, read_images("digits", (), 10), see, batch=50)
    held_out = digits.load("test")
    right = [0] * 10
    with torch.no_grad():
        for image, label in zip(held_out.images, held_out.labels.tolist(), strict=True):
            right[label] += int(model(see(image.permute(2, 0, 1))[None]).argmax()) == label
    assert [score.tally.right for score in result.classes()] == right
    assert result.predictions.top(1).total == len(held_out)


def test_predictions_against_the_definitions() -> None:
    """Top-k by ranks, the loss by its sum; one of the outputs has no images."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 7, generator=draw)
    labels = torch.randint(0, 6, (200,), generator=draw)  # the last output has no images
    found = Predictions(logits, labels)
    rows = list(zip(logits.tolist(), labels.tolist(), strict=True))
    ranks = [sum(value > row[label] for value in row) for row, label in rows]
    for k in (1, 2, 5, 7):
        tally = found.top(k)
        assert (tally.right, tally.total) == (sum(rank < k for rank in ranks), 200)
    assert found.top(7).accuracy == 1
    exact = [-math.log(math.exp(row[label]) / sum(map(math.exp, row))) for row, label in rows]
    assert found.loss == pytest.approx(sum(exact) / 200, rel=1e-5)
    pairs = [(label, rank == 0) for (_, label), rank in zip(rows, ranks, strict=True)]
    assert found.by_class() == [
        [pairs.count((k, True)), pairs.count((k, True)) + pairs.count((k, False))] for k in range(7)
    ]
    mistakes = found.worst(32)
    wrong = [index for index, rank in enumerate(ranks) if rank]
    confidence = [max(row) - math.log(sum(map(math.exp, row))) for row, _ in rows]
    assert mistakes == sorted(wrong, key=lambda index: -confidence[index])[:32]
    assert found.worst(3) == mistakes[:3]


def test_five_outputs_have_no_top_5() -> None:
    pixels, labels = torch.zeros(2, 1, 1, 3, dtype=torch.uint8), torch.tensor([0, 1])
    data = LabeledImages(ImageSet(pixels, labels, ("a", "b"), ""), (0, 1))
    for outputs, right in ((5, None), (6, 2)):
        found = Evaluation("", "", "fp32", data, Predictions(torch.eye(2, outputs), labels))
        assert (found.top5 and found.top5.right) == right
        assert ("top-5" in str(found)) == (right is not None)


def test_no_images() -> None:
    images = ImageSet(torch.zeros(0, 1, 1, 3, dtype=torch.uint8), torch.zeros(0).long(), (), "none")
    with pytest.raises(DataError, match="none has no images"):
        evaluate(Brightest(), LabeledImages(images, ()), PLAIN)


def test_a_network_knows_its_classes_and_its_preprocessing(tmp_path: Path) -> None:
    model = create("lenet5", seed=1)
    images = read_images("digits", (), 10)
    expected = evaluate(model, images, transforms(model))
    found = senetzoo.evaluate(model, "digits")
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.labels, expected.labels)
    # The classes of the weights, in their order, are those of the labels.
    names = tuple("9876543210")
    senetzoo.save(model, tmp_path / "saved", classes=names)
    found = senetzoo.evaluate(senetzoo.load(tmp_path / "saved"), "digits", transforms(model))
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.labels, 9 - expected.labels)


@pytest.mark.parametrize("give", [{}, {"preprocessing": PLAIN}])
def test_of_another_network_neither_is_known(give: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="evaluate got a Brightest"):
        senetzoo.evaluate(Brightest(), "digits", **give)
    with pytest.raises(ConfigError, match="evaluate got a Brightest"):
        senetzoo.evaluate(Brightest(), read_images("digits", (), 10))


# Scores against other libraries and brute force


@pytest.fixture(scope="module")
def drawn() -> Predictions:
    """Overconfident predictions; one output has no images, one is never predicted."""
    draw = torch.Generator().manual_seed(5)
    labels = torch.randint(0, 5, (400,), generator=draw)
    logits = torch.randn(400, 7, generator=draw) + 1.5 * torch.eye(7)[labels]
    logits[:, 3] -= 8
    return Predictions(3 * logits, labels)


def test_scores_are_those_of_scikit_learn(drawn: Predictions) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    labels, guesses, found = drawn.labels.numpy(), drawn.guesses.numpy(), drawn.scores()
    assert {3} == {*labels.tolist()} - {*guesses.tolist()}
    assert {5, 6} == {*guesses.tolist()} - {*labels.tolist()}
    options: dict[str, Any] = {"labels": range(7), "zero_division": 0}
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(labels, guesses, **options)
    classes = drawn.class_scores()
    assert [score.precision for score in classes] == pytest.approx(precision)
    assert [score.tally.accuracy for score in classes] == pytest.approx(recall)
    assert [score.f1 for score in classes] == pytest.approx(f1)
    with_images = {"labels": range(5), "zero_division": 0, "average": "macro"}
    assert found.balanced_accuracy == pytest.approx(recall[:5].mean())
    assert found.macro_precision == pytest.approx(
        metrics.precision_score(labels, guesses, **with_images)
    )
    assert found.macro_f1 == pytest.approx(metrics.f1_score(labels, guesses, **with_images))
    assert found.loss == pytest.approx(
        metrics.log_loss(labels, drawn.probabilities.double().numpy(), labels=range(7)), rel=1e-5
    )
    matrix = metrics.confusion_matrix(labels, guesses, labels=range(7))
    assert drawn.confusion().tolist() == matrix.tolist()


def test_calibration_error_is_the_sum_over_15_bins(drawn: Predictions) -> None:
    pairs = list(zip(drawn.confidence.tolist(), drawn.right.tolist(), strict=True))
    total = 0.0
    for k in range(15):
        inside = [(p, ok) for p, ok in pairs if k / 15 < p <= (k + 1) / 15]
        if inside:
            gap = sum(p for p, _ in inside) - sum(ok for _, ok in inside)
            total += abs(gap) / len(pairs)
    assert total > 0.05
    assert drawn.scores().calibration_error == pytest.approx(total)
    assert calibration_error(torch.ones(4), torch.tensor([1, 1, 1, 0]).bool()) == 0.25


@pytest.mark.parametrize("scale", [0.2, 1.0, 10.0])
def test_the_best_temperature_is_where_a_search_finds_it(drawn: Predictions, scale: float) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    logits = drawn.logits.clone()
    logits[:, 3] += 24  # a class like the others
    logits *= scale

    def loss(logarithm: float) -> float:
        return float(
            nn.functional.cross_entropy(logits.double() / math.exp(logarithm), drawn.labels)
        )

    expected = math.exp(
        optimize.minimize_scalar(loss, bounds=(-4, 5), method="bounded", options={"xatol": 1e-9}).x
    )
    found = best_temperature(logits, drawn.labels)
    assert found == pytest.approx(expected, rel=1e-4), (found, expected)
    calibrated = Predictions(logits, drawn.labels).calibrated()
    assert calibrated.scores().temperature == found
    assert calibrated.scores().best_temperature == found  # of the logits, whatever is used now
    assert calibrated.loss == pytest.approx(loss(math.log(found)), rel=1e-5)
    assert calibrated.scores().calibration_error < 0.08
    assert torch.equal(calibrated.guesses, Predictions(logits, drawn.labels).guesses)


def test_where_all_are_right_no_temperature_is_best(drawn: Predictions) -> None:
    assert best_temperature(torch.eye(3), torch.arange(3)) is None
    assert best_temperature(torch.eye(3), torch.tensor([1, 2, 0])) is None
    assert Predictions(torch.eye(3), torch.arange(3), 2.0).calibrated().temperature == 1.0


def test_the_smallest_probability_of_a_precision(drawn: Predictions) -> None:
    pairs = list(zip(drawn.confidence.tolist(), drawn.right.tolist(), strict=True))
    for precision in (0.5, 0.7, 0.9):
        fits = []
        for least, _ in pairs:
            kept = [ok for p, ok in pairs if p >= least]
            fits += [least] if sum(kept) >= precision * len(kept) else []
        found = drawn.smallest_probability(precision)
        assert found is not None
        assert min(fits) - 1e-5 <= found <= min(fits)
    # Ties are kept together: 3 of 4 are right, not 1 of 1.
    same, right = torch.tensor([0.75, 0.75, 0.75, 0.75, 0.5]), torch.tensor([1, 0, 1, 1, 0]).bool()
    assert smallest_probability(same, right, 0.75) == 0.75
    assert smallest_probability(same, right, 0.8) is None


def test_mirror_images_are_averaged(colors: Path) -> None:
    class Left(nn.Module):
        """Logits are the left half's mean."""

        def forward(self, x: Tensor) -> Tensor:
            return x[..., : x.shape[3] // 2].mean((2, 3))

    half = Image.new("RGB", (8, 8), "red")
    half.paste((0, 0, 255), (4, 0, 8, 8))
    half.save(colors / "red" / "half.png")
    data = read_images(str(colors), ("red", "green", "blue"), 3)
    plain, both = (evaluate(Left(), data, PLAIN, tta=tta) for tta in (False, True))
    index = [data.images.source_name(k) for k in range(9)].index(str(colors / "red" / "half.png"))
    assert plain.logits[index].tolist() == [1, 0, 0]
    assert both.logits[index].tolist() == [0.5, 0, 0.5]


# The command


run = partial(commands.run, "eval")


def test_weights_of_a_file(tmp_path: Path) -> None:
    model = create("lenet5", seed=1).eval()
    save_file(model.state_dict(), str(tmp_path / "own.safetensors"))
    arguments = ("lenet5", "digits", "--threads", "1")
    result = run(*arguments, "--weights", str(tmp_path / "own.safetensors"), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    predictions = evaluate(model, read_images("digits", (), 10), transforms(model))
    expected, best = predictions.top(1), predictions.top(5)
    assert found["weights"] == "own.safetensors"
    assert (found["right"], found["images"]) == (expected.right, expected.total)
    assert found["wilson95"] == list(wilson(expected.right, expected.total))
    assert (found["top5"]["right"], found["top5"]["images"]) == (best.right, best.total)
    assert found["top5"]["wilson95"] == list(wilson(best.right, best.total))
    assert [row["name"] for row in found["classes"]] == list("0123456789")


def test_a_device_that_is_not_there() -> None:
    result = run("lenet5", "digits", "--device", "tpu")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "error: There is no device 'tpu'.\nThe devices are cpu, cuda, mps.\n" in result.stderr


def test_dtype_and_batch_change_the_numbers_only_by_rounding() -> None:
    plain = json.loads(run("lenet5", "digits", "--json").stdout)
    other = json.loads(run("lenet5", "digits", "--json", "--batch", "7").stdout)
    for one, two in zip(plain.pop("mistakes"), other.pop("mistakes"), strict=True):
        assert one.pop("probability") == pytest.approx(two.pop("probability"), abs=2e-5)
        assert one == two
    assert plain == other
    low = json.loads(run("lenet5", "digits", "--json", "--dtype", "bf16").stdout)
    assert (plain["dtype"], low["dtype"]) == ("fp32", "bf16")
    assert abs(plain["right"] - low["right"]) <= 6


def test_bench_has_speed_and_accuracy_in_one_table() -> None:
    arguments = ["--model", "lenet5", "--accuracy", "digits", "--batch", "2", "--dtype", "fp32"]
    arguments += ["--dtype", "bf16", "--optimized", "--rounds", "1", "--warmup", "0"]
    alone = json.loads(run("lenet5", "digits", "--json", "--batch", "2").stdout)
    report = json.loads(commands.run("bench", *arguments, "--json").stdout)
    assert report["accuracy"][0] == alone
    assert [found["dtype"] for found in report["accuracy"]] == ["fp32", "bf16"]
    text = commands.run("bench", *arguments).stdout
    lines = text.splitlines()
    column = lines[1].index("top-1 [95 %]") + len("top-1 [95 %]")
    percent = f"{alone['accuracy']:.2%} [{alone['wilson95'][0]:.2%}, {alone['wilson95'][1]:.2%}]"
    cells = {tuple(line[:column].split()[:3]): line[:column] for line in lines[2:6]}
    assert cells["lenet5", "eager", "fp32"].endswith(f"  {percent}")
    assert cells["lenet5", "optimized", "eager"].endswith("  -")
    assert run("lenet5", "digits", "--batch", "2").stdout.rstrip() in text


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A manifest with one entry, a small network that recognizes red, green and blue."""
    model = create("resnet20", seed=1, num_classes=3)
    path = tmp_path / "fake.safetensors"
    save_file(model.state_dict(), str(path))
    entry = manifest.Entry(
        model="resnet20",
        policy="",
        stem=None,
        config={},
        num_classes=3,
        classes=("red", "green", "blue"),
        default=True,
        source=manifest.Source("embedded", path.name),
        sha256=cache.sha256(path),
        sha256_prefix=None,
        sha1=None,
        bytes=path.stat().st_size,
        params=0,
        macs=0,
        preprocessing=Preprocessing(8, PLAIN.mean, PLAIN.std),
        dialect="senetzoo",
        data="colors",
        metrics=(),
        training=(),
        license=manifest.License("", "", ""),
        provenance="",
    )
    monkeypatch.setattr(cache, "EMBEDDED", tmp_path)
    monkeypatch.setattr(manifest, "manifest", lambda: {"resnet20.fake": entry})
    return "resnet20.fake"


@pytest.mark.parametrize("name", ["resnet20", "resnet20.fake"])
def test_published_weights(published: str, colors: Path, name: str) -> None:
    result = run(name, str(colors))
    assert result.exit_code == 0, result.output
    model = create(published)
    data = read_images(str(colors), ("red", "green", "blue"), 3)
    expected = evaluate(model, data, PLAIN).top(1)
    lines = result.stdout.splitlines()
    title = "resnet20 (resnet20.fake)" if name == "resnet20" else "resnet20.fake"
    assert lines[0] == f"{title} on {colors}, fp32"
    low, high = expected.interval
    percent = f"{expected.right / 8:.2%}"
    assert lines[1].split()[:5] == ["top-1", percent, f"[{low:.2%},", f"{high:.2%}]", "of"]
    table = [line.split()[0] for line in lines[lines.index("") :] if line]
    assert table[0] == "class"
    assert {*table[1:3]} == {"blue", "red"}


def test_untrained_gates_are_not_evaluated(published: str, colors: Path) -> None:
    result = run("resnet20.fake+se8", str(colors))
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert lines[0] == "error: resnet20.fake+se8 has parameters without trained weights."
    assert lines[1].startswith("resnet20.fake lacks layer1.0.slots.standard.")
    assert lines[2] == "Train it first, or give weights of exactly this network: --weights FILE"


def test_missing_data_and_bad_weights(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"conv1.weight": torch.zeros(2)}, str(file))
    result = run("lenet5", "digits", "--weights", str(file))
    assert result.exit_code == 2
    first = result.stderr.splitlines()[0]
    assert first == f"error: The weights {file.name} do not fit the network."
    save_file(create("lenet5").state_dict(), str(file))
    result = run("lenet5", "/no/such/place", "--weights", str(file))
    assert result.exit_code == 2
    # After the note on the preprocessing, which the file doesn't have.
    assert "error: There is no data at /no/such/place." in result.stderr.splitlines()
    result = run("lenet5", "digits", "--weights", str(tmp_path / "absent"))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: Can't read the weights {tmp_path / 'absent'}.")


def test_an_unreadable_image_is_named_left_out_and_counted(published: str, colors: Path) -> None:
    whole = json.loads(run(published, colors, "--json").stdout)
    (colors / "red" / "0.png").write_bytes(b"")
    (colors / "blue" / "1.png").write_bytes(b"no image")
    result = run(published, colors)
    assert result.exit_code == 0
    assert set(result.stderr.splitlines()) == {
        "left out: red/0.png: it has no bytes",
        "left out: blue/1.png: it isn't an image, or it is too damaged to be recognized",
    }
    assert re.search(r"^left out +2 +can't be read$", result.stdout, re.MULTILINE)
    found = json.loads(run(published, colors, "--json").stdout)
    assert found["images"] == whole["images"] - 2
    assert [problem["file"] for problem in found["left_out"]] == ["blue/1.png", "red/0.png"]
    # Whatever is wrong with the others is as before, under the same names.
    gone = {str(colors / "red" / "0.png"), str(colors / "blue" / "1.png")}
    assert found["mistakes"] == [m for m in whole["mistakes"] if m["path"] not in gone]
    for file in colors.glob("*/*.png"):
        file.write_bytes(b"")
    result = run(published, colors)
    assert (result.exit_code, result.stderr.splitlines()[-2]) == (
        2,
        f"error: {colors} has no images.",
    )


def test_a_part_of_the_data_by_name(published: str, tmp_path: Path) -> None:
    for split, many in (("train", 3), ("val", 2), ("test", 1)):
        for name in ("red", "blue"):
            for number in range(many):
                _png(tmp_path / split / name / f"{number}.png", name)

    def count(*words: str) -> int:
        done = run(published, tmp_path, *words, "--json")
        assert done.exit_code == 0, done.stderr
        return int(json.loads(done.stdout)["images"])

    assert [count(), *(count("--split", s) for s in ("train", "val", "test"))] == [2, 6, 4, 2]
    assert run(published, tmp_path, "--split", "all").stderr.splitlines()[1:] == [
        "It has train, val, test.",
        "Ask for one of these",
    ]


def test_wrong_files_are_named_with_how_sure(published: str, colors: Path, tmp_path: Path) -> None:
    data = read_images(str(colors), ("red", "green", "blue"), 3)
    found = evaluate(create(published), data, PLAIN)
    names = ("red", "green", "blue")
    table = tmp_path / "images.csv"
    result = run(published, colors, "--csv", table, "--json")
    assert result.exit_code == 0, result.output
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    probabilities = (found.logits).softmax(1)
    assert [row["path"] for row in rows] == [data.images.source_name(k) for k in range(8)]
    for k, row in enumerate(rows):
        guess, label = int(found.guesses[k]), int(found.labels[k])
        assert (row["label"], row["predicted"]) == (names[label], names[guess])
        assert float(row["probability"]) == pytest.approx(float(probabilities[k, guess]), abs=1e-5)
        assert float(row["label_probability"]) == pytest.approx(
            float(probabilities[k, label]), abs=1e-5
        )
        assert row["right"] == str(int(guess == label))
    wrong = json.loads(result.stdout)["mistakes"]
    assert 0 < len(wrong) < 8
    assert {m["path"] for m in wrong} == {row["path"] for row in rows if row["right"] == "0"}
    sure = [m["probability"] for m in wrong]
    assert sure == sorted(sure, reverse=True)
    text = run(published, colors).stdout
    assert f"misclassified: {len(wrong)} of 8 images, the most confident first" in text
    assert "no images are misclassified" not in text


def test_what_is_printed_fits_80_columns(tmp_path: Path) -> None:
    """Long names, and more classes and mistakes than are printed."""
    names = tuple(f"the class with a very long name, number {k}" for k in range(25))
    sources = tuple(tmp_path / ("x" * 200) / f"{k}.jpg" for k in range(100))
    labels = tuple(k % 25 for k in range(100))
    files = LabeledFiles(sources, labels, names, "photos")
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(100, 25, generator=draw)
    predictions = Predictions(logits, torch.tensor(labels))
    found = Evaluation("net", "", "fp32", LabeledImages(files, tuple(range(25))), predictions)
    # Paths are whole, and end their lines.
    text, paths = str(found), [mistake.path for mistake in found.mistakes()[:10]]
    assert all(f"  {path}\n" in text for path in paths)
    lines = [line for line in text.splitlines() if not line.endswith(tuple(paths))]
    assert max(map(len, lines)) <= 80
    assert "... 5 more classes with as much or more: --json" in lines
    wrong = 100 - predictions.top(1).right
    assert f"... {wrong - 10} more images: senetzoo eval --csv FILE" in lines
    assert len(lines) < 50
    few = Predictions(logits[:, :10], torch.tensor(labels) % 10)
    files = LabeledFiles(sources, tuple(k % 10 for k in labels), names[:10], "photos")
    found = Evaluation("net", "", "fp32", LabeledImages(files, tuple(range(10))), few)
    heads = [*"ABCDEFGHIJ"]
    assert ["class", "\\", "predicted", *heads] in map(str.split, str(found).splitlines())
    files = LabeledFiles(sources, files.labels, tuple("0123456789"), "digits")
    found = Evaluation("net", "", "fp32", LabeledImages(files, tuple(range(10))), few)
    rows = [line.split() for line in str(found).splitlines()]
    assert ["class", "\\", "predicted", *"0123456789"] in rows
    assert ["3", *map(str, few.confusion()[3].tolist())] in rows


# Calibration


def _digits_folder(folder: Path) -> Path:
    """An overconfident network for digits."""
    model = create("lenet5", pretrained=True)
    with torch.no_grad():
        model.get_submodule(model.head_name).weight.mul_(8)  # type: ignore[operator]
    senetzoo.save(model, folder)
    return folder


def test_a_calibration_is_stored_and_used(tmp_path: Path) -> None:
    folder = _digits_folder(tmp_path / "net")
    before = json.loads(run(folder, "digits", "--json").stdout)
    weights = (folder / "model.safetensors").read_bytes()
    result = run(folder, "digits", "--calibrate", "--json")
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)["calibration"]
    model = senetzoo.load(folder)
    assert model.temperature == made["temperature"] == before["best_temperature"] > 2
    assert model.reject_below == made["reject_below"]
    assert (folder / "model.safetensors").read_bytes() == weights
    after = json.loads(run(folder, "digits", "--json").stdout)
    assert after["right"] == before["right"]
    assert (after["temperature"], after["loss"]) == (made["temperature"], made["loss"])
    assert after["loss"] < before["loss"]
    assert after["calibration_error"] < before["calibration_error"]
    # 99 % of the kept images are right, by counting.
    kept = evaluate(model, read_images("digits", (), 10), transforms(model))
    assert model.reject_below is not None
    sure = kept.confidence >= model.reject_below
    assert (int(sure.sum()), int(kept.right[sure].sum())) == (made["kept"], made["kept_right"])
    assert made["kept_right"] / made["kept"] >= 0.99 > kept.accuracy
    text = run(folder, "digits", "--calibrate").stdout
    assert "Report results on other images" in text
    # The same in Python.
    again = senetzoo.load(_digits_folder(tmp_path / "other"))
    calibrate(again, senetzoo.evaluate(again, "digits"))
    assert (again.temperature, again.reject_below) == (model.temperature, model.reject_below)


@pytest.mark.parametrize("count", [99, 100])
def test_a_calibration_on_few_images_is_stored_with_a_warning(tmp_path: Path, count: int) -> None:
    test = digits.load("test")
    for number in range(count):
        file = tmp_path / "photos" / str(int(test.labels[number])) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(test.images[number].squeeze(2).numpy()).save(file)
    result = run("lenet5", tmp_path / "photos", "--calibrate", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out").is_dir()
    assert ("warning: 99 images can't show" in result.stderr) is (count < 100)


def test_where_a_calibration_goes(tmp_path: Path) -> None:
    result = run("lenet5", "digits", "--calibrate")
    assert result.exit_code == 2
    assert "There is no folder to store a calibration of lenet5 in." in result.stderr
    assert "--out calibrated" in result.stderr
    out = tmp_path / "out"
    result = run("lenet5", "digits", "--calibrate", "--out", out)
    assert result.exit_code == 0, result.output
    assert 0 < senetzoo.load(out).temperature != 1
    result = run(out, "digits", "--calibrate", "--mean", "0.5", "--std", "0.5")
    assert "There is no folder to store" in result.stderr
    senetzoo.save(senetzoo.create("resnet18", num_classes=2), tmp_path / "timm", format="timm")
    result = run(tmp_path / "timm", "digits", "--calibrate")
    assert "There is no folder to store" in result.stderr
    assert "not in timm's format" in result.stderr
    assert run("lenet5", "digits", "--out", out).exit_code == 2
    assert run(out, "digits", "--calibrate", "--tta").exit_code == 2
    broken = out / "config.json"
    broken.write_text(broken.read_text()[:100])
    assert run(out, "digits", "--calibrate").exit_code == 2
    assert len(broken.read_text()) == 100
