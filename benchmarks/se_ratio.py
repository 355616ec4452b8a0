"""Networks with channel attention beside those without: every ratio in one table.

    python benchmarks/se_ratio.py
    python benchmarks/se_ratio.py --only bf16 --rounds 11
    python benchmarks/se_ratio.py --quick        (small images, to try it)
    python benchmarks/se_ratio.py --device cuda  (after the tests of its kernels)

The cases of a row are timed in turn in one process, by `senetzoo.bench.timing`; a ratio is of
images a second, the median over rounds with its 95 % interval. Both sides have every exact rewrite
and run in the same engine and mode, unless the row says otherwise. A row that can't be measured
here says why. One JSON line a row is appended to
benchmarks/records/speed/ratios/se.jsonl.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from training_speed import measure as training
from training_speed import random_set

import senetzoo
from senetzoo._utils.environment import (
    check_device,
    cores,
    cpu_flags,
    environment,
    machine,
)
from senetzoo.bench.peers import peer
from senetzoo.bench.timing import BenchmarkCase, Settings, Timing, measure, random_images
from senetzoo.deploy.engines import ENGINES, Dtype, Runner
from senetzoo.deploy.optimize import Mode
from senetzoo.errors import SenetzooError

RECORD = Path(__file__).parent / "records" / "speed" / "ratios" / "se.jsonl"
KERNELS = Path(__file__).parents[1] / "tests" / "test_tail_gpu.py"
# Both compute in bf16 and fp32; the others are tried where the fastest of all is asked for.
COMPILED = ("inductor", "openvino")
QUICK = {"openvino": "openvino"}
AS_BUILT = {
    "se_resnext50_32x4d": "timm:seresnext50_32x4d",
    "senet154": "timm:legacy_senet154",
    "efficientnet_b0": "timm:efficientnet_b0",
    "mobilenet_v3_large": "timm:mobilenetv3_large_100",
}


@dataclass(frozen=True)
class Way:
    """A network as it runs.

    Args:
        name: Of ours, which is optimized, or of a peer, which stays as its library built it.
        dtype: Type of weights and activations.
        engine: A name, or ``"auto"`` for the fastest.
        mode: As `senetzoo.optimize` takes it.
    """

    name: str
    dtype: Dtype
    engine: str = "auto"
    mode: Mode = "latency"

    def __str__(self) -> str:
        return f"{self.name}, {self.engine}, {self.mode}"


@dataclass(frozen=True)
class Row:
    """A ratio to be measured.

    Args:
        group: For --only.
        ways: Those compared, numerator first; of several on a side the fastest counts.
        beside: The denominator's.
        aim: What is to be reached.
        batch: Images in a batch.
        fastest: Whether the ratio to the fastest of the denominator in any engine is printed too.
    """

    group: str
    ways: tuple[Way, ...]
    beside: tuple[Way, ...]
    aim: float
    batch: int
    fastest: bool = False


class Running(nn.Module):
    """A network in its engine as a module, which `measure` can time like any other."""

    def __init__(self, run: Runner, how: str) -> None:
        super().__init__()
        self._run = run
        self.how = how

    def forward(self, images: Tensor) -> Tensor:
        return self._run(images)


def rows(batch: int, device: torch.device) -> Iterator[Row]:
    """The whole table; `batch` is the larger one."""
    best: Dtype = "fp32" if ENGINES["eager"].caveat(device, "bf16") else "bf16"
    dtypes: tuple[Dtype, ...] = ("bf16", "fp32")
    settings: tuple[tuple[int, Mode], ...] = (
        (1, "latency"), (batch, "latency"), (batch, "throughput"),
    )  # fmt: skip
    for dtype in dtypes:
        for number, mode in settings:
            for engine in COMPILED:
                ways = [(Way(name, dtype, engine, mode),) for name in ("se_resnet50", "resnet50")]
                aim = 0.97 if dtype == "bf16" else 0.98
                yield Row(dtype, ways[0], ways[1], aim, number, fastest=True)
    modes: tuple[Mode, ...] = ("latency", "throughput")
    both = [
        tuple(Way(name, "bf16", engine, mode) for engine in engines for mode in modes)
        for name, engines in (("se_resnet50", ("auto",)), ("timm:seresnet50", tuple(ENGINES)))
    ]
    yield Row("timm", both[0], both[1], 1.30, batch)
    for name in ("resnet50", "se_resnet50"):
        fast, usual = (Way(name, best, "auto", mode) for mode in ("throughput", "latency"))
        yield Row("throughput", (fast,), (usual,), 1.20, batch)
    for name, theirs in AS_BUILT.items():
        built = tuple(Way(theirs, "fp32", engine) for engine in ENGINES)
        yield Row("built", (Way(name, "fp32"),), built, 1.15, batch)
    for gate in ("eca", "cbam"):
        ways = [(Way(name, best),) for name in (f"resnet50+{gate}", "resnet50")]
        yield Row("gates", ways[0], ways[1], 0.95, batch)


@functools.lru_cache(maxsize=8)
def ready(way: Way, batch: int, size: int, device: torch.device) -> Running | str:
    """The network ready to run, or why it can't run in this way here."""
    why = ENGINES["eager"].caveat(device, way.dtype)
    if why:
        return why
    try:
        return running(way, batch, size, device)
    except SenetzooError as error:
        return " ".join(str(error).splitlines())


def running(way: Way, batch: int, size: int, device: torch.device) -> Running:
    """The network in its engine."""
    image = (3, size, size)
    sample = random_images(image, batch, device)
    if ":" in way.name:
        engine = ENGINES[way.engine]
        engine.check(device, way.dtype)
        split = way.mode == "throughput" and device.type == "cpu"
        streams = min(torch.get_num_threads(), batch) if split else 1
        module = peer(way.name, 1000, image)
        layout = engine.layouts[-1]
        run = engine.load(module, sample, way.dtype, layout=layout, streams=streams)
        return Running(run, f"{way.engine}, {layout}, as built")
    fast = senetzoo.optimize(
        senetzoo.create(way.name, seed=0).eval().to(device),
        sample,
        engine=way.engine,
        dtype=way.dtype,
        mode=way.mode,
        compare=False,
    )
    refused = [
        f"{tried.engine}{tried.how}: {tried.why}" for tried in fast.report.tried if tried.why
    ]
    return Running(fast, "; ".join([str(fast.report).splitlines()[0], *refused]))


def quickly(row: Row) -> Row:
    """The row in engines that need no compiler."""
    ways, beside = (
        tuple({dataclasses.replace(way, engine=QUICK.get(way.engine, "eager")) for way in side})
        for side in (row.ways, row.beside)
    )
    return dataclasses.replace(row, ways=ways, beside=beside, fastest=False)


def measured(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """The row's ratio, or why there is none."""
    groups = [row.ways, row.beside]
    if row.fastest:
        groups.append(tuple(dataclasses.replace(row.beside[0], engine=name) for name in ENGINES))
    tries = [
        {way: ready(way, row.batch, options.size, options.device) for way in group}
        for group in groups
    ]
    found = [
        {way: run for way, run in group.items() if isinstance(run, Running)} for group in tries
    ]
    if not all(found):
        reasons = [run for group in tries for run in group.values() if isinstance(run, str)]
        return {"why": "; ".join(dict.fromkeys(reasons))}
    ways = list({way: run for group in found for way, run in group.items()}.items())
    image = (3, options.size, options.size)
    timings = measure(
        [BenchmarkCase(str(way), run, image) for way, run in ways],
        Settings(
            row.batch, device=str(options.device), rounds=options.rounds, threads=options.threads
        ),
    )
    by_way = dict(zip((way for way, _ in ways), timings, strict=True))
    ours, theirs, *fastest = (min((by_way[way] for way in group), key=_median) for group in found)
    return {
        "ratio": dataclasses.asdict(ours.ratio(theirs)),
        "to_fastest": dataclasses.asdict(ours.ratio(fastest[0])) if fastest else None,
        "text": str(ours.ratio(theirs)) + (f"; {ours.ratio(fastest[0])}" if fastest else ""),
        "images_per_second": {str(way): by_way[way].images_per_second for way in by_way},
        "how": {str(way): run.how for way, run in ways},
        "chosen": [timing.case.name for timing in (ours, theirs, *fastest)],
    }


def _median(timing: Timing) -> float:
    return timing.latency.median


def trained(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Images a second of our training loop to those of a plain one, with the least and the most."""
    precision = "fp32" if ENGINES["eager"].caveat(options.device, "bf16") else "bf16"
    settings = argparse.Namespace(
        device=str(options.device),
        batch=16 if options.quick else 128,
        rounds=min(options.rounds, 7),
        steps=2 if options.quick else 10,
        workers=0,
        precision=precision,
        no_compile=False,
    )
    record = training(name, random_set(8 * settings.batch), settings)
    ratio, rates = record["ratio"], record["images_per_second"]
    text = f"{ratio['median']:.2f} in {precision}, {ratio['min']:.2f} to {ratio['max']:.2f}"
    return {"ratio": ratio, "text": text, "images_per_second": rates}


def table(options: argparse.Namespace) -> Iterator[tuple[str, str, int, float, dict[str, Any]]]:
    """Group, names, batch, aim and what was measured, of each row that is asked for."""
    every = rows(options.batch, options.device)
    for row in map(quickly, every) if options.quick else every:
        if options.only in (None, row.group):
            names = " / ".join(
                str(side[0]) if len(side) == 1 else f"{side[0].name} at its best"
                for side in (row.ways, row.beside)
            )
            yield row.group, names, row.batch, row.aim, measured(row, options)
    for name in ("resnet20", "se_resnet20") if options.only in (None, "training") else ():
        yield "training", f"{name}, our loop / a plain one", 128, 3.5, trained(name, options)


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=cores(), help="of every engine")
    groups = (*dict.fromkeys(row.group for row in rows(16, torch.device("cpu"))), "training")
    parser.add_argument("--only", choices=groups, help="these rows")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument(
        "--quick", action="store_true", help="small images in eager and openvino, nothing recorded"
    )
    options = parser.parse_args()
    options.size, options.batch = (64, 4) if options.quick else (224, 16)
    if options.quick:
        options.rounds = min(options.rounds, 6)
    torch.set_num_threads(options.threads)
    options.device = check_device(options.device)
    if options.device.type == "cuda":
        subprocess.run([sys.executable, "-m", "pytest", "-q", str(KERNELS)], check=True)
    packages = ("openvino", "onnxruntime", "timm", "triton")
    where = environment(options.device, options.threads, packages)
    on = f"{where['gpu']}, " if where["gpu"] else ""
    print(f"{on}{machine()} ({', '.join(cpu_flags())}), {options.rounds} rounds\n")
    print("| ratio | batch | measured [95 %]; to the fastest plain one | aim |\n|---|---|---|---|")
    for group, names, batch, aim, found in table(options):
        said = found.get("text") or f"not measured: {found['why']}"
        print(f"| {group}: {names} | {batch} | {said} | {aim} |", flush=True)
        if not options.quick:
            line = {"row": names, "group": group, "batch": batch, "aim": aim, **found}
            line |= {"rounds": options.rounds, "size": options.size, "environment": where}
            RECORD.parent.mkdir(parents=True, exist_ok=True)
            with RECORD.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
