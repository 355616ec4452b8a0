"""The command ``senetzoo bench``, also ``python -m senetzoo.bench``."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import click
import torch
from click.shell_completion import CompletionItem

from senetzoo._utils.environment import TORCH_DTYPES, check_device, environment, threads_set
from senetzoo._utils.terminal import progress
from senetzoo.bench import report
from senetzoo.bench.candidates import candidates, find_backends, find_names
from senetzoo.bench.peers import LIBRARIES
from senetzoo.bench.profile import Profile, check_engines, profile
from senetzoo.bench.timing import MEMORY, BenchmarkCase, Settings, Timing, measure
from senetzoo.cli import complete
from senetzoo.cli.base import OneOf, SenetzooCommand
from senetzoo.deploy.engines import DTYPES, ENGINES, LAYOUTS, Dtype, Layout, engine
from senetzoo.errors import ConfigError
from senetzoo.eval.accuracy import evaluate_networks


def _complete_peers(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    return complete.starting([f"{library}:" for library in LIBRARIES], incomplete)


@click.command("bench", cls=SenetzooCommand, context_settings={"show_default": True})
@click.option(
    "--model",
    "patterns",
    multiple=True,
    required=True,
    metavar="NAME",
    shell_complete=complete.networks,
    help="Name, wildcard or policy: resnet18, 'se_resnet*', resnet50+se8@pre/s3-4. Repeatable; "
    "the first is what the others are compared with.",
)
@click.option(
    "--compare",
    "peers",
    multiple=True,
    metavar="LIBRARY:NETWORK",
    shell_complete=_complete_peers,
    help="A network of timm, torchvision or pytorchcv, with the classes and the size of the first "
    "--model: timm:seresnet50. Repeatable.",
)
@click.option("--batch", multiple=True, type=int, default=(32,), help="Images. Repeatable.")
@click.option(
    "--size", "sizes", multiple=True, type=int,
    help="Pixels of a side. Repeatable. Default: the network's own.",
)  # fmt: skip
@click.option(
    "--engine",
    "engines",
    multiple=True,
    type=OneOf(list(ENGINES)),
    default=("eager",),
    help="What runs the networks. Repeatable; all are measured in turn.",
)
@click.option(
    "--dtype",
    "dtypes",
    multiple=True,
    type=OneOf(DTYPES),
    default=("fp32",),
    help="Of weights and activations. Repeatable; all are measured in turn.",
)
@click.option(
    "--optimized",
    is_flag=True,
    help="Measure each of our networks also as senetzoo.optimize rewrites it.",
)
@click.option(
    "--layout",
    "layouts",
    multiple=True,
    type=OneOf(LAYOUTS),
    default=("nchw",),
    help="nhwc is torch's channels_last. Repeatable.",
)
@click.option(
    "--device", default="cpu", shell_complete=complete.devices, help="cpu, cuda, cuda:1 or mps."
)
@click.option("--threads", type=int, help="On the CPU, of every engine. Default: torch's choice.")
@click.option("--rounds", type=int, default=20, help="Timed batches of each.")
@click.option("--warmup", type=int, default=3, help="Batches of each before them.")
@click.option(
    "--profile",
    "profiled",
    is_flag=True,
    help="Also show where the time goes, by layer and kind of operation; eager and inductor.",
)
@click.option(
    "--accuracy",
    "data",
    metavar="DATA",
    shell_complete=complete.data,
    help="Evaluate on: a folder of class folders, a copy of CIFAR-10 or flower_photos (its test "
    "split), a parquet file, or the word digits.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Evaluate this safetensors file instead of the published weights.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout instead of the table.")
@click.option("--record", is_flag=True, help="Append the JSON as a line to the records.")
@click.option(
    "--records-dir",
    type=click.Path(path_type=Path),
    default=Path("benchmarks/records/speed"),
    help="Where they are.",
)
def command(
    patterns: tuple[str, ...],
    peers: tuple[str, ...],
    batch: tuple[int, ...],
    sizes: tuple[int, ...],
    engines: tuple[str, ...],
    dtypes: tuple[Dtype, ...],
    optimized: bool,
    layouts: tuple[Layout, ...],
    device: str,
    threads: int | None,
    rounds: int,
    warmup: int,
    profiled: bool,
    data: str | None,
    weights: Path | None,
    as_json: bool,
    record: bool,
    records_dir: Path,
) -> None:
    """Measure size, speed, memory and accuracy of networks.

    Networks are timed in one process, one batch of each in turn, in every engine and dtype, so
    that other load meets all of them. Evaluation runs eagerly, on weights that are published or
    given.

    \b
    Examples:
      senetzoo bench --model resnet20 --model se_resnet20 --batch 1 --batch 64
      senetzoo bench --model se_resnet50 --compare timm:seresnet50 --engine inductor --batch 16
      senetzoo bench --model 'se_resnet*' --engine eager --engine inductor --dtype bf16 --json
      senetzoo bench --model resnet50 --model se_resnet50 --profile
      senetzoo bench --model se_resnet20 --accuracy cifar10/
    """
    names = find_names(patterns)
    every = [
        Settings(images, order, device, threads, rounds, warmup)
        for images, order in itertools.product(dict.fromkeys(batch), dict.fromkeys(layouts))
    ]
    backends, left_out = find_backends(engines, dtypes)
    for size in sizes:
        if size < 1:
            raise ConfigError(f"size={size} can't be measured.", "size is a number of pixels, > 0.")
    if weights is not None and (data is None or len(names) > 1):
        raise ConfigError(
            f"--weights {weights} can't be used here.",
            "It is for the accuracy of one network; "
            + ("--accuracy is missing." if data is None else f"there are {len(names)}."),
            "Type for example: --model resnet20 --weights FILE --accuracy DATA",
        )
    evaluated = [dtype for dtype in dict.fromkeys(dtypes) if dtype in TORCH_DTYPES]
    if data is not None and not evaluated:
        raise ConfigError(
            f"--accuracy can't be measured in {dtypes[0]}.",
            f"Evaluation runs eagerly, in {' or '.join(TORCH_DTYPES)}.",
            "Type: --dtype fp32",
        )
    target = check_device(device, bf16="bf16" in dtypes)
    for backend in backends:
        engine(backend.engine).check(target, backend.dtype)
    if profiled:
        check_engines(backends)

    with threads_set(threads):
        where = environment(
            target, torch.get_num_threads(), [*engines, *(peer.partition(":")[0] for peer in peers)]
        )
        # Evaluation comes first: data or weights that are not there show before the long part.
        evaluations = (
            []
            if data is None
            else evaluate_networks(
                names,
                data,
                stated={"weights": weights},
                dtypes=evaluated,
                batch=batch[0],
                device=target,
            )
        )
        built = [
            candidates(names, peers, size, backends, optimized=optimized)
            for size in dict.fromkeys(sizes or [None])
        ]
        speeds, profiles = _time(built, every, profiled=profiled)
    caveats = (engine(backend.engine).caveat(target, backend.dtype) for backend in backends)
    notes = list(dict.fromkeys(filter(None, caveats)))
    found = {
        "environment": where,
        "options": {
            "model": list(patterns),
            "compare": list(peers),
            "batch": list(batch),
            "size": list(sizes),
            "engine": list(engines),
            "dtype": list(dtypes),
            "optimized": optimized,
            "layout": list(layouts),
            "device": device,
            "threads": threads,
            "rounds": rounds,
            "warmup": warmup,
            "profile": profiled,
            "accuracy": data,
            "weights": None if weights is None else str(weights),
        },
        "memory": MEMORY,
        "notes": [*left_out, *notes],
        "speed": [report.speed_json(timings) for timings in speeds],
        "profile": [report.profile_json(profile) for profile in profiles],
        "accuracy": [evaluation.as_dict() for evaluation in evaluations],
    }
    if as_json:
        click.echo(json.dumps(found))
    else:
        parts = [report.speed_text(timings, evaluations) for timings in speeds]
        parts += filter(None, [report.scaling_text(speeds)])
        parts += [report.profile_text(profile) for profile in profiles]
        parts += map(str, evaluations)
        click.echo("\n\n".join(parts))
        for note in [*(f"left out: {pair}." for pair in left_out), *notes]:
            click.echo(note)
    if record:
        path = report.append(found, records_dir)
        click.echo(f"recorded in {path}", err=True)


def _time(
    built: Sequence[Sequence[BenchmarkCase]], every: Sequence[Settings], *, profiled: bool
) -> tuple[list[list[Timing]], list[Profile]]:
    """Measure, and profile where that was asked for, in every setting and size."""
    speeds, profiles = [], []
    table = list(itertools.product(every, built))
    total = sum((settings.rounds + settings.warmup) * len(cases) for settings, cases in table)
    with progress(total, "timing", "batch") as advance:
        for settings, cases in table:
            speeds.append(measure(cases, settings, advance=lambda: advance(1)))
    if profiled:
        with progress(sum(len(cases) for _, cases in table), "profile", "network") as advance:
            for settings, cases in table:
                for case in cases:
                    profiles.append(profile(case, settings))
                    advance(1)
    return speeds, profiles
