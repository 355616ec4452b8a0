"""How long it takes to import senetzoo and to build a network, beside timm and torchvision.

And how long a user waits at the prompt, for help and for Tab; and a service for its first logits,
from `senetzoo.optimize` and from a file that `senetzoo export` wrote once.

    python benchmarks/startup.py

Each round starts a new interpreter for each library and each prompt, in an order of its own, so
that other load meets all of them. Those of libraries import torch, then the library, then build a
network without trained weights; each step is timed inside the process, and the rest from outside.
Modules that a library loads when they are needed count with what is built. A round before them is
not recorded: it compiles what was never imported and fills the disk's cache. One JSON line for a
run.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from senetzoo._utils.environment import environment
from senetzoo.eval.spread import Spread

ROOT = Path(__file__).resolve().parent.parent
# The statement that imports a library, and the one that builds a network; the first library is
# what the others are compared with.
LIBRARIES = {
    "senetzoo": ("import senetzoo", "senetzoo.create('se_resnet50')"),
    "timm": ("import timm", "timm.create_model('seresnet50')"),
    "torchvision": ("import torchvision", "torchvision.models.resnet50()"),
}
# Where torchvision's compiled operators do not load, its import fails: what it lacks is declared
# before, outside of what is timed.
DECLARE = """
library = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):
    library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
PROGRAM = """
import time
start = time.perf_counter()
import torch
torch_there = time.perf_counter()
{declare}
declared = time.perf_counter()
{load}
loaded = time.perf_counter()
{build}
built = time.perf_counter()
print(torch_there - start, loaded - declared, built - loaded)
"""
# How a service starts, on one image with all cores.
SERVICES = {
    "senetzoo.optimize(..., engine='openvino')": """
import torch, senetzoo
model = senetzoo.create("se_resnet50", seed=0)
senetzoo.optimize(model, torch.zeros(1, 3, 224, 224), engine="openvino", compare=False)
""",
    "openvino.Core().compile_model('se_resnet50.xml')": """
import sys, numpy, openvino
network = openvino.Core().compile_model(sys.argv[1], "CPU")
network([numpy.zeros((1, 3, 224, 224), "float32")])
""",
}
FILE = ["export", "se_resnet50", "--random", "--to", "openvino", "--optimized", "--output"]
# What is typed, and the variables by which bash asks for completions.
COMMAND = "from senetzoo.cli import main; main(prog_name='senetzoo')"
_TAB = {"_SENETZOO_COMPLETE": "bash_complete"}
PROMPTS: Mapping[str, tuple[list[str], dict[str, str]]] = {
    "senetzoo --help": (["--help"], {}),
    "senetzoo <Tab>": ([], {**_TAB, "COMP_WORDS": "senetzoo ", "COMP_CWORD": "1"}),
    "senetzoo explain se_res<Tab>": (
        [],
        {**_TAB, "COMP_WORDS": "senetzoo explain se_res", "COMP_CWORD": "2"},
    ),
}


def seconds(load: str, build: str, declare: str) -> tuple[float, float, float]:
    """Of importing torch, of importing the library after it, and of building, in a new process."""
    program = PROGRAM.format(load=load, build=build, declare=declare)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    in_torch, in_library, in_build = map(float, done.stdout.split())
    return in_torch, in_library, in_build


def waited(program: str, arguments: Sequence[str] = (), variables: Mapping[str, str] = {}) -> float:
    """Seconds until a program has ended, in a new process."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, **variables},
    )
    return time.perf_counter() - start


def loads(statement: str) -> bool:
    """Whether a new process can do it."""
    done = subprocess.run([sys.executable, "-c", statement], capture_output=True, cwd=ROOT)
    return done.returncode == 0


def summary(
    measured: Mapping[str, Sequence[tuple[float, float, float]]],
    waits: Mapping[str, Sequence[float]],
) -> list[dict[str, Any]]:
    """The rows of the record: import with torch, and import and building after it, by library.

    Then the rows of what is waited for, which nothing is compared with.
    """
    names = list(measured)
    # Which of the three times of a process count.
    steps = {"{load}": (0, 1), "after torch: {load}; {build}": (1, 2)}
    rows = []
    for title, parts in steps.items():
        first = [sum(own[part] for part in parts) for own in measured[names[0]]]
        for name in names:
            load, build = LIBRARIES[name]
            values = [sum(own[part] for part in parts) for own in measured[name]]
            ratio = Spread.of([own / other for own, other in zip(values, first, strict=True)])
            rows.append(
                {
                    **_taken(title.format(load=load, build=build), name, values),
                    "ratio": None
                    if name == names[0]
                    else {
                        "to": names[0],
                        **{"median": ratio.median, "p10": ratio.p10, "p90": ratio.p90},
                        "interval95": ratio.interval,
                        "differs": ratio.differs,
                    },
                }
            )
    alone = "after torch: " + LIBRARIES[names[0]][0]
    waits = {alone: [own[1] for own in measured[names[0]]], **waits}
    return rows + [_taken(what, names[0], values) for what, values in waits.items()]


def _taken(statement: str, library: str, values: Sequence[float]) -> dict[str, Any]:
    took = Spread.of(values)
    return {
        "statement": statement,
        "library": library,
        "seconds": {"median": took.median, "p10": took.p10, "p90": took.p90},
        "round_seconds": [round(value, 4) for value in values],
    }


@click.command()
@click.option("--rounds", default=15, show_default=True, type=click.IntRange(min=1))
@click.option("--record/--no-record", default=True, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path(__file__).parent / "records" / "startup.jsonl",
)
def main(rounds: int, record: bool, out: Path) -> None:
    """Measure, print, and append to the record."""
    where = environment(torch.device("cpu"), torch.get_num_threads(), list(LIBRARIES)[1:])
    declare = "" if loads("import torchvision") else DECLARE
    measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in LIBRARIES}
    services = SERVICES if loads("import openvino") else {}
    waits: dict[str, list[float]] = {name: [] for name in (*PROMPTS, *services)}
    order, draw = [*LIBRARIES, *waits], random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "se_resnet50.xml")
        if services:
            waited(COMMAND, [*FILE, file])
        for number in range(rounds + 1):
            draw.shuffle(order)
            for name in order:
                if name in LIBRARIES:
                    steps = seconds(*LIBRARIES[name], declare)
                    if number:
                        measured[name].append(steps)
                    continue
                if name in services:
                    took = waited(services[name], [file])
                else:
                    took = waited(COMMAND, *PROMPTS[name])
                if number:
                    waits[name].append(took)
    results = summary(measured, waits)
    for row in results:
        ratio = f"{row['ratio']['median']:.2f} times" if row.get("ratio") else ""
        click.echo(f"{row['statement']:75} {row['seconds']['median']:7.3f} s  {ratio}")
    line = {
        "environment": where,
        "rounds": rounds,
        "operators_declared": bool(declare),
        "results": results,
    }
    if record:
        with out.open("a", encoding="utf-8") as records:
            records.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
