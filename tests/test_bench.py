from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from senetzoo import create
from senetzoo._command import SenetzooCommand
from senetzoo.bench import contenders
from senetzoo.bench.accuracy import accuracy, read_images, wilson
from senetzoo.bench.command import bench
from senetzoo.bench.contenders import find_names
from senetzoo.bench.records import cpu_flags
from senetzoo.data import cifar10, digits, flowers5
from senetzoo.data.preprocessing import Preprocessing
from senetzoo.errors import DataError, WeightsError
from senetzoo.weights import cache, manifest
from senetzoo.zoo import transforms

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


class Brightest(nn.Module):
    """Logits are the mean of each channel: red, green, blue."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def _png(path: Path, colour: str, side: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), colour).save(path)


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Five red images of which one is blue, three blue of which two are green; two sizes."""
    for index, colour in enumerate(["red", "red", "blue", "red", "red"]):
        _png(tmp_path / "colours" / "red" / f"{index}.png", colour, 8 + index)
    for index, colour in enumerate(["lime", "blue", "lime"]):
        _png(tmp_path / "colours" / "blue" / f"{index}.png", colour)
    return tmp_path / "colours"


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_accuracy_of_a_known_answer(colours: Path, batch: int) -> None:
    data = read_images(str(colours), ("red", "green", "blue"), 3)
    counts: list[int] = []
    model = Brightest()
    result = accuracy(model, data, PLAIN, batch=batch, advance=counts.append)
    assert (result.whole.right, result.whole.total) == (5, 8)
    assert result.whole.name == str(colours)
    assert [(t.name, t.right, t.total) for t in result.classes] == [("blue", 1, 3), ("red", 4, 5)]
    assert result.whole.accuracy == 0.625
    assert result.whole.interval == wilson(5, 8)
    assert sum(counts) == 8
    assert model.training  # put back as it was


def test_class_folders_may_lie_under_test(colours: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    colours.rename(root / "test")
    data = read_images(str(root), ("red", "green", "blue"), 3)
    assert accuracy(Brightest(), data, PLAIN).whole.right == 5


def test_without_names_folders_count_in_their_order(colours: Path) -> None:
    assert read_images(str(colours), (), 2).outputs == (0, 1)
    with pytest.raises(DataError) as caught:
        read_images(str(colours), (), 3)
    assert str(caught.value) == (
        f"{colours} has 2 classes.\n"
        "The network has 3, and no names to match them by.\n"
        "Give data with as many classes"
    )


def test_class_that_the_network_does_not_have(colours: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_images(str(colours), ("red", "green", "azure"), 3)
    assert str(caught.value) == (
        f"{colours} has the class 'blue', which the network does not have.\n"
        "The network's classes are red, green, azure.\n"
        "Give data of these classes, with folders named after them"
    )


def test_same_number_of_other_classes_is_no_match() -> None:
    with pytest.raises(DataError, match="has the class '0', which the network does not have"):
        read_images("digits", cifar10.CLASSES, 10)


def test_no_data() -> None:
    with pytest.raises(DataError) as caught:
        read_images("/no/such/place", (), 2)
    assert str(caught.value) == (
        "No data at /no/such/place.\n"
        "Data is a folder of class folders, a copy of CIFAR-10 or flower_photos, a parquet file, "
        "or the word digits.\n"
        "Type for example: --accuracy digits"
    )


def test_cifar10_folder_is_its_test_split(tmp_path: Path) -> None:
    for index, name in enumerate(cifar10.CLASSES):
        _png(tmp_path / "test" / name / "0.png", f"rgb({index}, 0, 0)", 32)
        _png(tmp_path / "train" / name / "0.png", "white", 32)
    reversed_names = cifar10.CLASSES[::-1]
    data = read_images(str(tmp_path), reversed_names, 10)
    assert data.name == "CIFAR-10 test"
    assert [reversed_names[k] for k in data.outputs] == list(cifar10.CLASSES)


def test_flower_photos_are_its_held_out_tenth(tmp_path: Path) -> None:
    photos = tmp_path / "flower_photos"
    for label, name in enumerate(flowers5.CLASSES):
        for index in range(10 + label):
            _png(photos / name / f"{index}.png", f"rgb({label}, {index}, 0)", 32)
    held_out = flowers5.load(tmp_path, "test")
    assert len(held_out) == 5
    for where in (photos, tmp_path):
        data = read_images(str(where), flowers5.CLASSES[::-1], 5)
        assert data.name == "flowers5 test"
        assert data.outputs == (4, 3, 2, 1, 0)
        pixels = [image.getpixel((0, 0)) for image, _ in data.images]  # type: ignore[union-attr]
        assert pixels == [image.getpixel((0, 0)) for image, _ in held_out]
    # The same classes in any other folder are somebody's own: all of them count.
    photos.rename(tmp_path / "mine")
    assert len(read_images(str(tmp_path / "mine"), flowers5.CLASSES, 5).images) == 60


@pytest.mark.parametrize("give_file", [True, False])
def test_cifar10_archive_is_checked(tmp_path: Path, give_file: bool) -> None:
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        read_images(str(archive if give_file else tmp_path), (), 10)
    assert str(caught.value).splitlines()[0] == f"CIFAR-10 at {archive} can't be used."


def _parquet(
    path: Path, colours: Sequence[str], labels: Sequence[int], names: Sequence[str]
) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    cells = []
    for colour in colours:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    table = pa.table({"image": cells, "label": list(labels)})
    if names:
        features = {"label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    parquet.write_table(table, path)


def test_parquet_labels_are_numbers_without_names(tmp_path: Path) -> None:
    path = tmp_path / "colours.parquet"
    _parquet(path, ["red", "lime", "lime"], [0, 1, 0], ())
    data = read_images(str(path), ("a", "b", "c"), 3)
    result = accuracy(Brightest(), data, PLAIN)
    assert [(t.name, t.right, t.total) for t in result.classes] == [
        ("a", 1, 2),
        ("b", 1, 1),
        ("c", 0, 0),
    ]
    with pytest.raises(DataError, match="has 2 classes"):
        read_images(str(path), ("a",), 1)


def test_parquet_names_go_before_numbers(tmp_path: Path) -> None:
    path = tmp_path / "colours.parquet"
    _parquet(path, ["blue", "red"], [0, 1], ("blue", "red"))
    data = read_images(str(path), ("red", "green", "blue"), 3)
    assert accuracy(Brightest(), data, PLAIN).whole.right == 2


def test_digits_against_one_image_at_a_time() -> None:
    model = create("lenet5", seed=3, num_classes=10).eval()
    see = transforms(model)
    result = accuracy(model, read_images("digits", (), 10), see, batch=50)
    held_out = digits.load("test")
    right = [0] * 10
    with torch.no_grad():
        for image, label in zip(held_out.images, held_out.labels.tolist(), strict=True):
            right[label] += int(model(see(image.permute(2, 0, 1))[None]).argmax()) == label
    assert [tally.right for tally in result.classes] == right
    assert result.whole.total == len(held_out)


# The command


def run(*arguments: str) -> Result:
    return CliRunner().invoke(bench, arguments, prog_name="senetzoo bench")


QUICK = ("--rounds", "2", "--warmup", "0", "--threads", "1")


def test_names_and_wildcards() -> None:
    every = find_names(["se_resnet20", "se_resnet?0", "resnet2*a+se8@pre", "resnet20.v1"])
    assert every[0] == "se_resnet20"
    assert every.count("se_resnet20") == 1
    assert {"se_resnet50", "resnet20a+se8@pre", "resnet20.v1"} <= set(every)
    assert all(re.fullmatch(r"se_resnet\d0|resnet20a\+se8@pre|resnet20\.v1", n) for n in every)


def test_json() -> None:
    result = run("--model", "se_resnet20", "--batch", "2", "--size", "8", "--json", *QUICK)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert list(report) == [
        *("environment", "options", "memory", "notes", "speed", "profile", "accuracy")
    ]
    assert report["environment"]["torch"] == torch.__version__
    assert report["environment"]["threads"] == 1
    assert report["options"]["model"] == ["se_resnet20"]
    assert report["accuracy"] == []
    (speed,) = report["speed"]
    assert (speed["batch"], speed["layout"]) == (2, "nchw")
    (row,) = speed["results"]
    assert (row["engine"], row["dtype"], row["optimized"]) == ("eager", "fp32", False)
    assert row["params"] == 274_847  # projection shortcuts, r = 16, 10 classes
    assert row["image"] == [3, 8, 8]
    assert row["throughput_ratio"] is None
    milliseconds = row["round_ms"]
    assert len(milliseconds) == 2
    assert row["latency_ms"]["median"] == pytest.approx(sum(milliseconds) / 2, abs=1e-3)
    assert row["images_per_second"] == pytest.approx(2000 / row["latency_ms"]["median"])
    assert row["peak_memory_bytes"] > 4 * 274_847


def test_several_networks_over_several_settings() -> None:
    arguments = ("--model", "lenet5", "--model", "lenet5+se2", "--batch", "1", "--batch", "3")
    result = run(*arguments, "--layout", "nchw", "--layout", "nhwc", "--json", *QUICK)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    settings = [(speed["batch"], speed["layout"]) for speed in report["speed"]]
    assert settings == [(1, "nchw"), (1, "nhwc"), (3, "nchw"), (3, "nhwc")]
    for speed in report["speed"]:
        first, second = speed["results"]
        assert (first["model"], second["model"]) == ("lenet5", "lenet5+se2")
        ratio = second["throughput_ratio"]
        assert ratio["to"] == {
            **{"model": "lenet5", "engine": "eager", "dtype": "fp32", "optimized": False}
        }
        pairs = [a / b for a, b in zip(first["round_ms"], second["round_ms"], strict=True)]
        assert ratio["median"] == pytest.approx(sum(pairs) / 2, rel=1e-2)
        # Two rounds have no 95 % interval.
        assert ratio["interval95"] is None
        assert ratio["differs"] is None


def test_engines_and_dtypes_are_rows_of_one_table() -> None:
    arguments = ("--model", "lenet5", "--model", "lenet", "--batch", "2", "--json")
    engines = ("--engine", "eager", "--engine", "onnxruntime")
    rounds = ("--rounds", "6", "--warmup", "0", "--threads", "1")
    result = run(*arguments, *engines, "--dtype", "fp32", "--dtype", "bf16", *rounds)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    (speed,) = report["speed"]
    rows = [(row["model"], row["engine"], row["dtype"]) for row in speed["results"]]
    forms = [("eager", "fp32"), ("eager", "bf16"), ("onnxruntime", "fp32")]
    assert rows == [(name, *form) for name in ("lenet5", "lenet") for form in forms]
    assert report["notes"][0] == "onnxruntime has no bf16"
    assert list(report["environment"]["packages"]) == ["onnxruntime"]
    peaks = [row["peak_memory_bytes"] for row in speed["results"]]
    assert [peak is None for peak in peaks] == [False, False, True] * 2
    for row in speed["results"][1:]:
        ratio = row["throughput_ratio"]
        pairs = zip(speed["results"][0]["round_ms"], row["round_ms"], strict=True)
        ratios = [first / own for first, own in pairs]
        # Of six the lowest and the highest.
        assert ratio["interval95"] == pytest.approx([min(ratios), max(ratios)], rel=1e-2)
        assert ratio["differs"] == (not ratio["interval95"][0] <= 1 <= ratio["interval95"][1])


def test_optimized_networks_are_rows_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[nn.Module, tuple[int, ...]]] = []

    def rewritten(model: nn.Module, sample: Tensor) -> tuple[nn.Module, None]:
        seen.append((model, tuple(sample.shape)))
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)), None

    monkeypatch.setattr(contenders, "rewritten", rewritten)
    arguments = ("--model", "resnet20", "--vs", "torchvision:resnet18", "--optimized")
    result = run(*arguments, "--batch", "2", "--json", *QUICK)
    assert result.exit_code == 0, result.output
    (speed,) = json.loads(result.stdout)["speed"]
    assert [(row["model"], row["optimized"]) for row in speed["results"]] == [
        ("resnet20", False),
        ("resnet20", True),
        ("torchvision:resnet18", False),  # not ours to rewrite
    ]
    ((model, shape),) = seen
    assert not model.training
    assert shape[1:] == (3, 32, 32)
    text = run(*arguments, "--batch", "2", *QUICK).stdout.splitlines()
    assert text[3].split()[:3] == ["resnet20", "optimized", "eager"]


def test_table() -> None:
    result = run("--model", "lenet5", "--model", "lenet5+se2", "--batch", "2", *QUICK)
    lines = result.stdout.splitlines()
    assert lines[0] == "batch 2, nchw, cpu, threads 1, rounds 2 after 0 of warm-up"
    assert re.split(r"\s{2,}", lines[1]) == [
        *("model", "engine", "dtype", "size", "params", "GMACs", "images/s", "ms/batch", "p90"),
        *("spread", "peak MiB", "speed ratio [95 %]"),
    ]
    # 61,706 is LeNet-5 with full C3; its convolutions and products take 416,520 MACs.
    assert lines[2].split()[:6] == ["lenet5", "eager", "fp32", "32", "61,706", "0.0004165"]
    assert lines[2].split()[-1] == "1"
    assert lines[3].split()[0] == "lenet5+se2"
    assert lines[-2:] == [
        "speed ratio: to lenet5 (eager, fp32), median of the rounds' ratios with its 95 % "
        "confidence interval; no difference where that covers 1.",
        "There is no such interval of fewer than 6 rounds.",
    ]
    assert result.stderr == ""  # no progress bar where there is no terminal


def test_scaling_over_batch_and_size() -> None:
    sizes = ("--size", "32", "--size", "40", "--batch", "1", "--batch", "2")
    result = run("--model", "resnet20", "--model", "se_resnet20", *sizes, *QUICK)
    assert result.exit_code == 0, result.output
    *tables, scaling = result.stdout.strip().split("\n\n")
    assert len(tables) == 4
    title, head, *rows = scaling.splitlines()
    assert title == "images/s by batch and size, nchw"
    assert re.split(r"\s{2,}", head.strip()) == ["batch 1", "batch 2"]
    names = ["resnet20", "se_resnet20"]
    cells = [re.split(r"\s{2,}", row) for row in rows]
    assert [row[0] for row in cells] == [
        f"{name}, eager, fp32, {size} px" for name in names for size in (32, 40)
    ]
    for table in tables:
        batch = re.match(r"batch (\d)", table)
        assert batch is not None
        for line in table.splitlines()[2:4]:
            model, _, _, size, _, _, speed = line.split()[:7]
            row = cells[2 * names.index(model) + (size == "40")]
            assert row[int(batch[1])] == speed


def test_weights_of_a_file(tmp_path: Path) -> None:
    model = create("lenet5", seed=1).eval()
    save_file(model.state_dict(), str(tmp_path / "own.safetensors"))
    arguments = ("--model", "lenet5", "--accuracy", "digits", "--rounds", "0", "--threads", "1")
    result = run(*arguments, "--weights", str(tmp_path / "own.safetensors"), "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["speed"] == []
    (found,) = report["accuracy"]
    expected = accuracy(model, read_images("digits", (), 10), transforms(model)).whole
    assert (found["right"], found["images"]) == (expected.right, expected.total)
    assert found["wilson95"] == list(wilson(expected.right, expected.total))
    assert [row["name"] for row in found["classes"]] == list("0123456789")


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A manifest whose only entry is a small network that knows red, green and blue."""
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
        bytes=path.stat().st_size,
        params=0,
        macs=0,
        preprocessing=Preprocessing(8, PLAIN.mean, PLAIN.std),
        dialect="senetzoo",
        data="colours",
        metrics=(),
        training=(),
        license=manifest.License("", "", ""),
        provenance="",
    )
    monkeypatch.setattr(cache, "EMBEDDED", tmp_path)
    monkeypatch.setattr(manifest, "manifest", lambda: {"resnet20.fake": entry})
    return "resnet20.fake"


@pytest.mark.parametrize("name", ["resnet20", "resnet20.fake"])
def test_published_weights(published: str, colours: Path, name: str) -> None:
    result = run("--model", name, "--accuracy", str(colours), "--rounds", "0")
    assert result.exit_code == 0, result.output
    model = create(published)
    expected = accuracy(model, read_images(str(colours), ("red", "green", "blue"), 3), PLAIN)
    lines = result.stdout.splitlines()
    assert lines[0] == f"{name} (resnet20.fake) on {colours}, fp32"
    assert lines[1].split() == ["class", "images", "accuracy", "[95", "%", "interval,", "Wilson]"]
    low, high = expected.whole.interval
    percent = f"{expected.whole.right / 8:.2%}"
    assert lines[2].split() == ["all", "8", percent, f"[{low:.2%},", f"{high:.2%}]"]
    assert [line.split()[:2] for line in lines[3:]] == [["blue", "3"], ["red", "5"]]


def test_untrained_gates_are_not_evaluated(published: str, colours: Path) -> None:
    result = run("--model", "resnet20+se8", "--accuracy", str(colours), "--rounds", "0")
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert lines[0] == "error: resnet20+se8 has no trained weights to evaluate."
    assert lines[1].startswith("resnet20.fake lacks layer1.0.slots.standard.")
    assert lines[2] == "Give weights of this very network: --weights FILE"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--model", "se_resnet19"],
            "error: There is no network 'se_resnet19'.\n"
            "The nearest names are se_resnet18, se_resnet164, se_resnet152.\n"
            "Type for example: create('se_resnet18')\n",
        ),
        (
            ["--model", "resnt*"],
            "error: No network matches 'resnt*'.\n"
            "* stands for any letters, ? for one.\n"
            "Did you mean 'resnet56'?\n",
        ),
        (
            ["--model", "lenet", "--batch", "0"],
            "error: batch=0 can't be measured.\nbatch is a whole number of at least 1.\n",
        ),
        (
            ["--model", "lenet", "--size", "0"],
            "error: size=0 can't be measured.\nsize is a number of pixels, > 0.\n",
        ),
        (
            ["--model", "lenet", "--size", "16", "--rounds", "1"],
            "error: The network got images of 16x16 pixels.\n"
            "This form of LeNet takes at least 32x32.\n"
            "Enlarge the images, for example with senetzoo.transforms(model)\n",
        ),
        (
            ["--model", "lenet", "--size", "32", "--size", "-1"],
            "error: size=-1 can't be measured.\nsize is a number of pixels, > 0.\n",
        ),
        (
            ["--model", "lenet", "--engine", "onnxruntime", "--dtype", "bf16"],
            "error: onnxruntime can't be measured in bf16.\n"
            "It computes in fp32 and int8.\n"
            "Type: --dtype fp32\n",
        ),
        (
            ["--model", "lenet", "--profile", "--engine", "onnxruntime"],
            "error: onnxruntime can't be profiled.\n"
            "torch's profiler sees into eager and inductor only.\n"
            "Type: --profile --engine eager\n",
        ),
        (
            ["--model", "lenet", "--profile", "--rounds", "0", "--accuracy", "digits"],
            "error: rounds=0 with --profile leaves nothing to profile.\n"
            "A profile is the median of its rounds.\n"
            "Type for example: --rounds 20\n",
        ),
        (
            [
                *("--model", "lenet", "--accuracy", "digits"),
                *("--engine", "onnxruntime", "--dtype", "int8"),
            ],
            "error: --accuracy can't be measured in int8.\n"
            "Evaluation runs eagerly, in fp32 or bf16.\n"
            "Type: --dtype fp32\n",
        ),
        (
            ["--model", "lenet", "--rounds", "0"],
            "error: rounds=0 without --accuracy leaves nothing to measure.\n"
            "0 rounds mean no timing.\n"
            "Type for example: --rounds 20\n",
        ),
        (
            ["--model", "lenet", "--weights", "x.safetensors"],
            "error: --weights x.safetensors can't be used here.\n"
            "It is for the accuracy of one network; --accuracy is missing.\n"
            "Type for example: --model resnet20 --weights FILE --accuracy DATA\n",
        ),
        (
            ["--model", "lenet", "--device", "tpu"],
            "error: There is no device 'tpu'.\nDevices are cpu, cuda, mps.\n",
        ),
    ],
)
def test_bad_input(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == message


def test_missing_data_and_bad_weights(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"conv1.weight": torch.zeros(2)}, str(file))
    base = ("--model", "lenet5", "--rounds", "0")
    result = run(*base, "--weights", str(file), "--accuracy", "digits")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[0] == f"error: The weights {file} do not fit the network."
    save_file(create("lenet5").state_dict(), str(file))
    result = run(*base, "--weights", str(file), "--accuracy", "/no/such/place")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[0] == "error: No data at /no/such/place."
    result = run(*base, "--weights", str(tmp_path / "absent"), "--accuracy", "digits")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: Can't read the weights {tmp_path / 'absent'}.")


def test_unreadable_image(published: str, colours: Path) -> None:
    broken = colours / "red" / "0.png"
    broken.write_bytes(b"")
    result = run("--model", published, "--accuracy", str(colours), "--rounds", "0")
    assert result.exit_code == 2
    assert result.stderr == f"error: Can't read {broken}.\nThe file is empty.\n"


def test_records_are_appended(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "records"
    arguments = ("--model", "lenet5", "--batch", "1", "--record", "--records-dir", str(folder))
    reports = []
    for _ in range(2):
        result = run(*arguments, "--json", *QUICK)
        assert result.exit_code == 0, result.output
        reports.append(json.loads(result.stdout))
        (path,) = folder.iterdir()
        assert result.stderr == f"recorded in {path}\n"
    assert re.fullmatch(r"[a-z0-9-]+-\d+c-\d{4}-\d\d-\d\d\.jsonl", path.name)
    assert [json.loads(line) for line in path.read_text().splitlines()] == reports


def test_records_that_can_not_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    arguments = ("--model", "lenet5", "--batch", "1", "--record", "--records-dir", str(blocked))
    result = run(*arguments, *QUICK)
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"error: The record {blocked}/")
    assert lines[1:] == ["File exists.", "Give another folder: --records-dir FOLDER"]


def test_cpu_flags(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512f amx_tile sse\n\nflags : none\n")
    assert cpu_flags(cpuinfo) == ("avx2", "avx512f", "amx_tile")
    assert cpu_flags(tmp_path / "absent") == ()


def test_interrupt_is_silent() -> None:
    @click.command(cls=SenetzooCommand)
    def endless() -> None:
        raise KeyboardInterrupt

    result = CliRunner().invoke(endless)
    assert (result.exit_code, result.output) == (130, "")


def test_error_in_a_command() -> None:
    @click.command(cls=SenetzooCommand)
    def failing() -> None:
        raise WeightsError("Asked.", "True.", "Type.")

    result = CliRunner().invoke(failing)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: Asked.\nTrue.\nType.\n"


def test_module_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "senetzoo.bench", "--model", "lenet6"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: There is no network 'lenet6'.\n")
    assert "Traceback" not in done.stderr
