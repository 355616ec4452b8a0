from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support import commands
from torch import Tensor, nn

import senetzoo
from senetzoo._utils.environment import cpu_flags, processor
from senetzoo.bench import candidates
from senetzoo.bench.candidates import find_names

# The command


run = partial(commands.run, "bench")
QUICK = ("--rounds", "2", "--warmup", "0", "--threads", "1")


def report_of(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_names_and_wildcards() -> None:
    every = find_names(["se_resnet20", "se_resnet?0", "resnet2*a+se8@pre", "resnet20.v1"])
    assert every[0] == "se_resnet20"
    assert every.count("se_resnet20") == 1
    assert {"se_resnet50", "resnet20a+se8@pre", "resnet20.v1"} <= set(every)
    assert all(re.fullmatch(r"se_resnet\d0|resnet20a\+se8@pre|resnet20\.v1", n) for n in every)


def test_json() -> None:
    report = report_of("--model", "se_resnet20", "--batch", "2", "--size", "8", *QUICK)
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


@pytest.mark.parametrize("network", ["resnet20", "se_resnet20"])
def test_a_saved_network_has_the_size_of_its_preprocessing(network: str, tmp_path: Path) -> None:
    senetzoo.save(senetzoo.create(network, seed=0), tmp_path, preprocessing={"size": 24})
    for reference in (str(tmp_path), f"{tmp_path}+eca@pre"):
        (speed,) = report_of("--model", reference, "--batch", "1", *QUICK)["speed"]
        assert speed["results"][0]["image"] == [3, 24, 24]
        assert senetzoo.explain(reference).size == 24
        assert senetzoo.explain(senetzoo.load(reference)).size == 24
        assert senetzoo.explain(reference, size=40).size == 40


def test_several_networks_over_several_settings() -> None:
    arguments = ("--model", "lenet5", "--model", "lenet5+se2", "--batch", "1", "--batch", "3")
    report = report_of(*arguments, "--layout", "nchw", "--layout", "nhwc", *QUICK)
    settings = [(speed["batch"], speed["layout"]) for speed in report["speed"]]
    assert settings == [(1, "nchw"), (1, "nhwc"), (3, "nchw"), (3, "nhwc")]
    for speed in report["speed"]:
        first, second = speed["results"]
        assert (first["model"], second["model"]) == ("lenet5", "lenet5+se2")
        ratio = second["throughput_ratio"]
        assert ratio["to"] == {
            **{"model": "lenet5", "engine": "eager", "dtype": "fp32", "optimized": False},
            "streams": 1,
        }
        pairs = [a / b for a, b in zip(first["round_ms"], second["round_ms"], strict=True)]
        assert ratio["median"] == pytest.approx(sum(pairs) / 2, rel=1e-2)
        # Two rounds have no 95 % interval.
        assert ratio["interval95"] is None
        assert ratio["differs"] is None


def test_engines_and_dtypes_are_rows_of_one_table() -> None:
    arguments = ("--model", "lenet5", "--model", "lenet", "--batch", "2")
    engines = ("--engine", "eager", "--engine", "onnxruntime")
    rounds = ("--rounds", "6", "--warmup", "0", "--threads", "1")
    report = report_of(*arguments, *engines, "--dtype", "fp32", "--dtype", "bf16", *rounds)
    (speed,) = report["speed"]
    rows = [(row["model"], row["engine"], row["dtype"]) for row in speed["results"]]
    backends = [("eager", "fp32"), ("eager", "bf16"), ("onnxruntime", "fp32")]
    assert rows == [(name, *backend) for name in ("lenet5", "lenet") for backend in backends]
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


def test_streams_are_rows_of_one_table_for_peers_too() -> None:
    peer = ("--model", "resnet20", "--compare", "torchvision:resnet18", "--batch", "3")
    report = report_of(*peer, "--streams", "1", "--streams", "2", "--threads", "2", *QUICK[:-2])
    rows = [(row["model"], row["streams"]) for row in report["speed"][0]["results"]]
    assert rows == [(name, n) for name in ("resnet20", "torchvision:resnet18") for n in (1, 2)]


def test_optimized_networks_are_rows_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[nn.Module, tuple[int, ...]]] = []

    def rewritten(model: nn.Module, sample: Tensor) -> tuple[nn.Module, None]:
        given.append((model, tuple(sample.shape)))
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)), None

    monkeypatch.setattr(candidates, "rewritten", rewritten)
    arguments = ("--model", "resnet20", "--compare", "torchvision:resnet18", "--optimized")
    (speed,) = report_of(*arguments, "--batch", "2", *QUICK)["speed"]
    assert [(row["model"], row["optimized"]) for row in speed["results"]] == [
        ("resnet20", False),
        ("resnet20", True),
        ("torchvision:resnet18", False),  # not ours to rewrite
    ]
    ((model, shape),) = given
    assert not model.training
    assert shape[1:] == (3, 32, 32)
    text = run(*arguments, "--batch", "2", *QUICK).stdout.splitlines()
    assert text[3].split()[:3] == ["resnet20", "optimized", "eager"]


def test_table() -> None:
    result = run("--model", "lenet5", "--model", "lenet5+se2", "--batch", "2", *QUICK)
    lines = result.stdout.splitlines()
    assert lines[0] == "batch 2, nchw, cpu, threads 1, rounds 2 after 0 warm-up rounds"
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
        "confidence interval; no difference if that contains 1.",
        "The interval needs at least 6 rounds.",
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnt*"], "error: No network matches 'resnt*'.\n"
         "* matches any characters, ? matches one.\nDid you mean 'resnet56'?\n"),
        (["--model", "lenet", "--size", "0"],
         "error: Can't measure size=0.\nA size is a number of pixels above 0.\n"),
        (["--model", "lenet", "--size", "16", "--rounds", "1"],
         "error: The network got images of 16x16 pixels.\n"
         "This LeNet takes at least 32x32.\n"
         "Enlarge the images, for example with senetzoo.transforms(model)\n"),
        (["--model", "lenet", "--engine", "onnxruntime", "--dtype", "bf16"],
         "error: The engine onnxruntime can't compute in 'bf16'.\n"
         "It computes in fp32 and int8.\n"
         "Give one of these, or another engine: dtype='fp32'\n"),
        (["--model", "lenet", "--profile", "--engine", "onnxruntime"],
         "error: onnxruntime can't be profiled.\n"
         "Profiles exist for eager, inductor, openvino.\n"
         "Type: --profile --engine eager\n"),
        (["--model", "lenet", "--profile", "--rounds", "0"],
         "error: bench got rounds=0.\nrounds is a whole number of at least 1.\n"
         "Type for example: rounds=20\n"),
        ([*("--model", "lenet", "--accuracy", "digits"), *("--engine", "onnxruntime", "--dtype",
         "int8")], "error: Can't measure --accuracy in int8.\n"
         "Evaluation runs in eager mode, in fp32 or bf16.\nType: --dtype fp32\n"),
        (["--model", "lenet", "--accuracy", "digits", "--rounds", "0"],
         "error: bench got rounds=0.\nrounds is a whole number of at least 1.\n"
         "Type for example: rounds=20\n"),
        (["--model", "lenet", "--weights", "x.safetensors"],
         "error: Can't use --weights x.safetensors here.\n"
         "It needs --accuracy and exactly one network; --accuracy is missing.\n"
         "Type for example: --model resnet20 --weights FILE --accuracy DATA\n"),
        (["--model", "lenet", "--device", "tpu"],
         "error: There is no device 'tpu'.\nThe devices are cpu, cuda, mps.\n"),
    ],
)  # fmt: skip
def test_bad_input(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == message


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


def test_processor(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Fast: 9000\nmodel name\t: Slow\n")
    assert processor(cpuinfo) == "Fast: 9000"
    assert processor(tmp_path / "absent")


def test_module_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "senetzoo.bench", "--model", "lenet6"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: There is no network 'lenet6'.\n")
    assert "Traceback" not in done.stderr
