"""The command ``senetzoo bench``, also ``python -m senetzoo.bench``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import click
import torch

from senetzoo._utils.environment import check_device, environment, threads_set
from senetzoo._utils.terminal import echo, progress
from senetzoo.bench import report
from senetzoo.bench.candidates import candidates, find_backends, find_names
from senetzoo.bench.peers import LIBRARIES
from senetzoo.bench.profile import Profile, check_engines, profile
from senetzoo.bench.timing import MEMORY, BenchmarkCase, Settings, Timing, measure
from senetzoo.cli import complete
from senetzoo.cli.base import OneOf
from senetzoo.cli.networks import evaluate_networks
from senetzoo.cli.options import DATA, Data, Device, Json, WeightsFile, as_command, say
from senetzoo.deploy.engines import ENGINES, Dtype, Layout, engine
from senetzoo.errors import ConfigError
from senetzoo.nn.modes import TORCH_DTYPES
from senetzoo.zoo import is_exported


def _peers(incomplete: str) -> list[Any]:
    return complete.starting([f"{library}:" for library in LIBRARIES], incomplete)


@as_command("bench")
def command(
    *,
    patterns: Annotated[
        tuple[str, ...],
        "--model",
        complete.networks,
        "Name, wildcard, policy or folder: resnet18, 'se_resnet*', resnet50+se8@pre/s3-4. "
        "Repeatable; the others are compared with the first.",
        {"metavar": "NAME"},
    ],
    peers: Annotated[
        tuple[str, ...],
        "--compare",
        _peers,
        "A network of timm, torchvision or pytorchcv, such as timm:seresnet50, with the number of "
        "classes and the image size of the first --model. Repeatable.",
        {"metavar": "LIBRARY:NETWORK"},
    ] = (),
    batch: Annotated[tuple[int, ...], "Images per batch. Repeatable."] = (32,),
    sizes: Annotated[
        tuple[int, ...],
        "--size",
        "Image side in pixels. Repeatable. Default: the network's own.",
    ] = (),
    engines: Annotated[
        tuple[str, ...],
        "--engine",
        OneOf(list(ENGINES)),
        "Runtime for the networks. Repeatable; all are measured in turn.",
    ] = ("eager",),
    dtypes: Annotated[
        tuple[Dtype, ...],
        "--dtype",
        "Type of weights and activations. Repeatable; all are measured in turn.",
    ] = ("fp32",),
    streams: Annotated[
        tuple[int, ...],
        "Parts of a batch that run in parallel, each on its share of the threads. Repeatable; all "
        "are measured in turn.",
    ] = (1,),
    optimized: Annotated[
        bool, "Also measure each senetzoo network after senetzoo.optimize's rewriting."
    ] = False,
    layouts: Annotated[
        tuple[Layout, ...], "--layout", "nhwc is torch's channels_last. Repeatable."
    ] = ("nchw",),
    device: Device = "cpu",
    threads: Annotated[int | None, "CPU threads of every engine. Default: torch's choice."] = None,
    rounds: Annotated[int, "Timed batches of each network."] = 20,
    warmup: Annotated[int, "Untimed batches of each network first."] = 3,
    profiled: Annotated[
        bool,
        "--profile",
        "Also show where the time goes, by kind of operation and in eager by layer: eager, "
        "inductor, openvino.",
    ] = False,
    data: Annotated[
        Data | None, "--accuracy", f"Also evaluate. {DATA}", {"metavar": "DATA"}
    ] = None,
    weights: Annotated[
        WeightsFile, "Evaluate this safetensors file instead of the published weights."
    ] = None,
    as_json: Json = False,
    record: Annotated[bool, "Append the JSON as a line to the records."] = False,
    records_dir: Annotated[Path, "Folder of the records."] = Path("benchmarks/records/speed"),
) -> None:
    """Measure size, speed, memory and accuracy of networks.

    Networks are timed in one process, one batch of each in turn, in every engine and dtype, so
    that other load on the machine affects all of them alike. Accuracy is measured in eager mode,
    with its published or saved weights or those of --weights.

    \b
    Examples:
      senetzoo bench --model resnet20 --model se_resnet20 --batch 1 --batch 64
      senetzoo bench --model se_resnet50 --compare timm:seresnet50 --engine inductor --batch 16
      senetzoo bench --model 'se_resnet*' --engine eager --engine inductor --dtype bf16 --json
      senetzoo bench --model resnet50 --model se_resnet50 --profile
      senetzoo bench --model se_resnet50 --compare timm:seresnet50 --streams 1 --streams 2
      senetzoo bench --model se_resnet20 --accuracy cifar10/
    """
    names = find_names(patterns)
    if (file := next(filter(is_exported, names), None)) is not None:
        raise ConfigError(
            f"{file} is an exported file, which bench can't measure.",
            "It measures networks, and converts them for each engine itself.",
            "Give the network that the file was exported from, such as the folder of its run, and "
            "the file's engine: --engine onnxruntime, openvino or eager",
        )
    every = [
        Settings(images, order, device, threads, rounds, warmup)
        for images, order in itertools.product(dict.fromkeys(batch), dict.fromkeys(layouts))
    ]
    backends, left_out = find_backends(engines, dtypes, streams)
    for size in sizes:
        if size < 1:
            raise ConfigError(
                f"Can't measure size={size}.", "A size is a number of pixels above 0."
            )
    if weights is not None and (data is None or len(names) > 1):
        raise ConfigError(
            f"Can't use --weights {weights} here.",
            "It needs --accuracy and exactly one network; "
            + ("--accuracy is missing." if data is None else f"there are {len(names)} networks."),
            "Type for example: --model resnet20 --weights FILE --accuracy DATA",
        )
    evaluated = [dtype for dtype in dict.fromkeys(dtypes) if dtype in TORCH_DTYPES]
    if data is not None and not evaluated:
        raise ConfigError(
            f"Can't measure --accuracy in {dtypes[0]}.",
            f"Evaluation runs in eager mode, in {' or '.join(TORCH_DTYPES)}.",
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
        # Evaluate first, so that missing data or weights fail before the long part.
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
        "options": _options(),
        "memory": MEMORY,
        "notes": [*left_out, *notes],
        "speed": [report.speed_json(timings) for timings in speeds],
        "profile": [report.profile_json(profile) for profile in profiles],
        "accuracy": [evaluation.as_dict() for evaluation in evaluations],
    }
    parts = [report.speed_text(timings, evaluations) for timings in speeds]
    parts += filter(None, [report.scaling_text(speeds)])
    parts += [report.profile_text(profile) for profile in profiles]
    parts += map(str, evaluations)
    notes = [*(f"left out: {pair}." for pair in left_out), *notes]
    if record:  # before the output, which may fail
        path = report.append(found, records_dir)
        echo(f"recorded in {path}", err=True)
    say(as_json, found, "\n".join(["\n\n".join(parts), *notes]))


def _options() -> dict[str, Any]:
    """The command's options, by name."""
    ctx = click.get_current_context()
    params = (param for param in ctx.command.params if param.name in ctx.params)
    given = {param.opts[0][2:]: ctx.params[str(param.name)] for param in params}
    for name in ("json", "record", "records-dir"):
        del given[name]
    return {**given, "weights": given["weights"] and str(given["weights"])}


def _time(
    built: Sequence[Sequence[BenchmarkCase]], every: Sequence[Settings], *, profiled: bool
) -> tuple[list[list[Timing]], list[Profile]]:
    """Measure, and profile if asked to, in every setting and size."""
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
