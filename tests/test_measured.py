"""The generated tables and plot of docs/benchmarks.md, and the records that they are made of."""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from tables import benchmarks, common

from senetzoo.cli.bench import command as bench

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder of records."""
    (tmp_path / "speed").mkdir()
    monkeypatch.setattr(common, "RECORDS", tmp_path)
    monkeypatch.setattr(benchmarks, "RECORDS", tmp_path)


def result(
    model: str, speed: float, ratio: dict[str, Any] | None, **backend: Any
) -> dict[str, Any]:
    return {
        "model": model,
        **{"engine": "inductor", "dtype": "bf16", "optimized": False, "image": [3, 224, 224]},
        **backend,
        "images_per_second": speed,
        "throughput_ratio": ratio,
    }


def ratio(median: float, low: float, high: float) -> dict[str, Any]:
    return {"median": median, "p10": low, "p90": high, "interval95": [low, high]}


RECORD = {
    "environment": {
        **{"cpu": "Fast 9000", "cpu_flags": ["avx2", "amx_tile"], "gpu": None, "threads": 2},
        **{"torch": "2.13.0", "packages": {"timm": "1.0.31"}, "commit": "0123456789abcdef"},
    },
    "options": {"rounds": 25},
    "speed": [
        {
            "batch": 16,
            "layout": "nchw",
            "results": [
                result("resnet50", 41.26, None),
                result("se_resnet50", 1234.5, ratio(0.93, 0.9, 0.96)),
                result("se_resnet50", 40.0, ratio(0.98, 0.95, 1.01), optimized=True),
                result("timm:seresnet50", 30.0, ratio(0.8, 0.7, 0.9), engine="eager", dtype="fp32"),
            ],
        }
    ],
}


def write(folder: Path, *records: dict[str, Any]) -> None:
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "speed" / "fast.jsonl").write_text(text, encoding="utf-8")


def test_summary(tmp_path: Path) -> None:
    """Median of the ratios of rounds, which is not the ratio of the medians."""
    record: dict[str, Any] = json.loads(json.dumps(RECORD))
    results = record["speed"][0]["results"]
    results[3] |= {"engine": "inductor", "dtype": "bf16"}
    results.append(result("resnet50", 43.0, None, optimized=True))
    times = [[10, 20, 31], [20, 50, 31], [11, 22, 34], [20, 10, 10], [11, 11, 17]]
    for row, milliseconds in zip(results, times, strict=True):
        row["round_ms"] = milliseconds * 3
    write(tmp_path, record)
    (line,) = [line for line in benchmarks.summary().splitlines() if "se_resnet50" in line]
    assert line == (
        "| `se_resnet50`, 224 px | inductor, bf16 | 16 | 43.00 "
        "| 0.50 [0.40, 1.00]<br>no difference | 0.50 [0.50, 1.00]<br>no difference "
        "| 0.45 [0.29, 1.82]<br>no difference |"
    )


def test_profile(tmp_path: Path) -> None:
    def one(model: str, optimized: bool, *kinds: tuple[str, float, int]) -> dict[str, Any]:
        return {
            **{"model": model, "engine": "eager", "dtype": "fp32", "optimized": optimized},
            "batch": 16,
            "operations_ms": sum(ms for _, ms, _ in kinds),
            "kinds": [{"kind": kind, "ms": ms, "calls": calls} for kind, ms, calls in kinds],
        }

    assert benchmarks.profile() == "Nothing is recorded yet.\n"
    found = [
        one("resnet50", False, ("convolution", 80.25, 53), ("pointwise", 5.0, 66)),
        one("se_resnet50", True, ("convolution", 81.0, 53), ("gate", 4.04, 160)),
    ]
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "fast.jsonl").write_text(json.dumps({**RECORD, "profile": found}))
    assert benchmarks.profile() == (
        "| batch 16 | `resnet50`, eager, fp32, ms (calls) "
        "| `se_resnet50`, optimized, eager, fp32, ms (calls) |\n"
        "| --- | ---: | ---: |\n"
        "| convolution | 80.2 (53) | 81.0 (53) |\n"
        "| pointwise | 5.0 (66) |  |\n"
        "| gate |  | 4.0 (160) |\n"
        "| all | 85.2 | 85.0 |\n"
        "\nFast 9000 (avx2, amx_tile), 2 threads, torch 2.13.0, timm 1.0.31, 25 rounds, "
        "commit `0123456789ab`.\n"
    )


def test_speed_table(tmp_path: Path) -> None:
    write(tmp_path, RECORD)
    assert benchmarks.speed() == (
        "| network | backend | pixels | batch | images a second | ratio [95 %] | to |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | --- |\n"
        "| `resnet50` | inductor, bf16, nchw | 224 | 16 | 41.26 | 1 |  |\n"
        "| `se_resnet50` | inductor, bf16, nchw | 224 | 16 | 1,234 | 0.93 [0.90, 0.96] | "
        "`resnet50` |\n"
        "| `se_resnet50` | inductor, bf16, nchw, optimized | 224 | 16 | 40.00 | "
        "0.98 [0.95, 1.01] no difference | `resnet50`, inductor, bf16, nchw |\n"
        "| `timm:seresnet50` | eager, fp32, nchw | 224 | 16 | 30.00 | 0.80 [0.70, 0.90] | "
        "`resnet50`, inductor, bf16, nchw |\n"
        "\n"
        "Fast 9000 (avx2, amx_tile), 2 threads, torch 2.13.0, timm 1.0.31, 25 rounds, "
        "commit `0123456789ab`.\n"
    )


def test_one_table_for_each_machine(tmp_path: Path) -> None:
    other = {**RECORD, "environment": {**RECORD["environment"], "threads": 1}}  # type: ignore[dict-item]
    write(tmp_path, RECORD, other, RECORD)
    text = benchmarks.speed()
    assert text.count("| network |") == 2
    assert text.count("`resnet50` | inductor, bf16, nchw | 224 | 16 | 41.26") == 3


def test_a_machine_is_named_once_with_its_commits() -> None:
    where: dict[str, Any] = RECORD["environment"]  # type: ignore[assignment]
    commits = ("0123456789abcdef", "0123456789abcdef-dirty", None, "0123456789abcdef")
    records = [{**RECORD, "environment": {**where, "commit": commit}} for commit in commits]
    other = {**RECORD, "options": {"rounds": 7}}
    assert benchmarks.machine(*records, other, packages=False) == (
        "Fast 9000 (avx2, amx_tile), 2 threads, torch 2.13.0, 25 rounds, commits `0123456789ab`, "
        "`0123456789ab` with changes, not recorded. "
        "Fast 9000 (avx2, amx_tile), 2 threads, torch 2.13.0, 7 rounds, commit `0123456789ab`."
    )


def test_plot(tmp_path: Path) -> None:
    write(tmp_path, RECORD)
    svg = benchmarks.plot() or ""
    assert benchmarks.plot() == svg  # to the byte
    assert "matplotlib" not in svg.split("<g ", 1)[0].replace("w3.org", "")
    assert not re.search(r"\d{4}-\d\d-\d\dT", svg)  # no date
    root = ElementTree.fromstring(svg)
    words = [
        "".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")
    ]
    assert words.count("224 px, batch 16, to resnet50, inductor, bf16, nchw") == 1
    rows = ["se_resnet50", "se_resnet50, optimized", "timm:seresnet50, eager, fp32"]
    assert [word for word in words if "se" in word and "a second" not in word] == rows
    assert "<title>Speed ratios" in svg
    # An interval and a median each; the one that covers 1 is hollow and gray.
    assert svg.count("stroke: #0072b2; stroke-width: 1.6") == 2
    assert svg.count("stroke: #767676; stroke-width: 1.6") == 1
    assert svg.count("fill: #ffffff; stroke: #767676") >= 1
    write(tmp_path, {**RECORD, "options": {"rounds": 26}})
    assert benchmarks.plot() == svg
    changed = json.loads(json.dumps(RECORD))
    changed["speed"][0]["results"][1]["throughput_ratio"]["interval95"][0] = 0.91
    write(tmp_path, changed)
    assert benchmarks.plot() != svg
    assert benchmarks.picture().endswith("(benchmarks.svg)\n")


def test_without_records() -> None:
    nothing = "Nothing is recorded yet.\n"
    assert (benchmarks.speed(), benchmarks.picture(), benchmarks.startup()) == (nothing,) * 3
    assert benchmarks.plot() is None


def test_what_the_command_records_is_what_the_tables_read(tmp_path: Path) -> None:
    arguments = ["--model", "lenet5", "--model", "lenet5+se2", "--batch", "1", "--threads", "1"]
    arguments += ["--rounds", "6", "--warmup", "0", "--record", "--records-dir"]
    done = CliRunner().invoke(bench, [*arguments, str(tmp_path / "speed")])
    assert done.exit_code == 0, done.output
    printed = re.search(r"^lenet5\+se2 .*?(\d+\.\d+ \[.*)$", done.stdout, re.MULTILINE)
    assert printed is not None
    assert f"| {printed[1]} | `lenet5` |" in benchmarks.speed()
    assert "32 px, batch 1, to lenet5, eager, fp32, nchw" in (benchmarks.plot() or "")
    assert "lenet5+se2" in (benchmarks.plot() or "")


# Start-up


@pytest.fixture
def startup(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import startup

    yield startup
    sys.modules.pop("startup", None)


def test_startup_rows(startup: Any, tmp_path: Path) -> None:
    times = {
        # torch, the library, a network; in each of six rounds
        "senetzoo": [(2.0, 0.5, 0.25 * k) for k in (1, 2, 3, 4, 5, 6)],
        "timm": [(2.0, 3.0, 0.5 * k) for k in (1, 2, 3, 4, 5, 6)],
    }
    rows = startup.summary(times, {"senetzoo --help": [0.25] * 6})
    assert [(row["statement"], row["seconds"]["median"]) for row in rows] == [
        ("import senetzoo", 2.5),
        ("import timm", 5.0),
        ("after torch: import senetzoo; senetzoo.create('se_resnet50')", 1.375),
        ("after torch: import timm; timm.create_model('seresnet50')", 4.75),
        ("after torch: import senetzoo", 0.5),
        ("senetzoo --help", 0.25),
    ]
    ratios = [row["ratio"] and row["ratio"]["median"] for row in rows[:4]]
    of_rounds = (3.5 / 0.75, 4 / 1, 4.5 / 1.25, 5 / 1.5, 5.5 / 1.75, 6 / 2)
    assert ratios == [None, 2, None, pytest.approx(statistics.median(of_rounds))]
    assert not any("ratio" in row for row in rows[4:])
    record = {
        "environment": {"cpu": "Fast", "torch": "2", "packages": {"timm": "1"}, "commit": "0" * 40},
        "rounds": 6,
        "results": rows,
    }
    (tmp_path / "startup.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    text = benchmarks.startup().splitlines()
    assert text[2] == "| `import senetzoo` | 2.500 | 2.500 to 2.500 | 1 |"
    assert text[3] == ("| `import timm` | 5.000 | 5.000 to 5.000 | 2.0000 [2.0000, 2.0000] |")
    assert text[7] == "| `senetzoo --help` | 0.250 | 0.250 to 0.250 |  |"
    assert text[-1] == (
        "Fast, torch 2, timm 1, commit `000000000000`; 6 rounds, each in new processes in "
        "random order."
    )


def test_a_process_is_timed_from_inside(startup: Any) -> None:
    """Its steps are told apart: the second sleeps, and what is declared before is not timed."""
    declare = "time.sleep(0.5)"
    torch, library, network = startup.seconds("time.sleep(0.2)", "pass", declare)
    assert torch > 0
    assert library >= 0.2
    assert network >= 0
    assert startup.waited(startup.COMMAND, *startup.PROMPTS["senetzoo --help"]) > 0
    assert not startup.loads("import no_such_library")
    assert startup.loads("import json")
