"""The command ``senetzoo bench``, also ``python -m senetzoo.bench``."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import torch
from click.shell_completion import CompletionItem

from senetzoo import _complete
from senetzoo._command import OneOf, SenetzooCommand
from senetzoo.bench import memory, records
from senetzoo.bench.accuracy import LabelledImages, accuracy, read_images
from senetzoo.bench.contenders import contenders, find_forms, find_names, rows
from senetzoo.bench.device import DEVICES, check_device, explained, threads_set
from senetzoo.bench.peers import LIBRARIES
from senetzoo.bench.profile import Profile, check_engines, profile
from senetzoo.bench.report import Evaluation, Speed, accuracy_json, profile_json, speed_json
from senetzoo.bench.text import accuracy_text, profile_text, scaling_text, speed_text
from senetzoo.bench.timing import Form, Settings, Subject, measure
from senetzoo.counting import Counts
from senetzoo.deploy.engines import DTYPES, ENGINES, LAYOUTS, Dtype, Layout, engine
from senetzoo.deploy.engines.common import TORCH_DTYPES
from senetzoo.errors import ConfigError, WeightsError
from senetzoo.nn.classifier import Classifier
from senetzoo.weights.load import load_file_into
from senetzoo.zoo import create, transforms


def _complete_peers(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    return _complete.starting([f"{library}:" for library in LIBRARIES], incomplete)


def _complete_devices(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    return _complete.starting(DEVICES, incomplete)


@click.command(
    cls=SenetzooCommand,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.option(
    "--model",
    "patterns",
    multiple=True,
    required=True,
    metavar="NAME",
    shell_complete=_complete.networks,
    help="Name, wildcard or policy: resnet18, 'se_resnet*', resnet50+se8@pre/s3-4. Repeatable; "
    "the first is what the others are compared with.",
)
@click.option(
    "--vs",
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
    "--device", default="cpu", shell_complete=_complete_devices, help="cpu, cuda, cuda:1 or mps."
)
@click.option("--threads", type=int, help="On the CPU, of every engine. Default: torch's choice.")
@click.option("--rounds", type=int, default=20, help="Timed batches of each; 0: no timing.")
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
    shell_complete=_complete.data,
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
def bench(
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
      senetzoo bench --model se_resnet50 --vs timm:seresnet50 --engine inductor --batch 16
      senetzoo bench --model 'se_resnet*' --engine eager --engine inductor --dtype bf16 --json
      senetzoo bench --model resnet50 --model se_resnet50 --profile
      senetzoo bench --model se_resnet20 --accuracy cifar10/ --rounds 0
    """
    names = find_names(patterns)
    every = [
        Settings(
            batch=images,
            layout=form,
            device=device,
            threads=threads,
            # No timing has no rounds; what else the settings say must hold all the same.
            rounds=1 if rounds == 0 else rounds,
            warmup=warmup,
        )
        for images, form in itertools.product(dict.fromkeys(batch), dict.fromkeys(layouts))
    ]
    forms, left_out = find_forms(engines, dtypes)
    for size in sizes:
        if size < 1:
            raise ConfigError(f"size={size} can't be measured.", "size is a number of pixels, > 0.")
    _check_purpose(rounds, profiled, data, weights, names)
    place = check_device(device, bf16="bf16" in dtypes)
    for form in forms:
        engine(form.engine).check(place, form.dtype)
    if profiled:
        check_engines(forms)

    with threads_set(threads):
        where = records.environment(
            place, torch.get_num_threads(), [*engines, *(peer.partition(":")[0] for peer in peers)]
        )
        # Evaluation comes first: data or weights that are not there show before the long part.
        evaluations = [] if data is None else _evaluate(names, every[0], dtypes, data, weights)
        speeds: list[Speed] = []
        profiles: list[Profile] = []
        if rounds:
            built = [
                rows(contenders(names, peers, size, optimized=optimized), forms)
                for size in dict.fromkeys(sizes or [None])
            ]
            speeds, profiles = _time(built, every, profiled=profiled)
    report = {
        "environment": dataclasses.asdict(where),
        "options": {
            "model": list(patterns),
            "vs": list(peers),
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
        "memory": memory.MEASURED,
        "notes": [*left_out, *_caveats(forms, place)],
        "speed": [speed_json(speed) for speed in speeds],
        "profile": [profile_json(profile) for profile in profiles],
        "accuracy": [accuracy_json(evaluation) for evaluation in evaluations],
    }
    if as_json:
        click.echo(json.dumps(report))
    else:
        parts = [speed_text(speed) for speed in speeds]
        parts += filter(None, [scaling_text(speeds)])
        parts += [profile_text(profile) for profile in profiles]
        parts += [accuracy_text(evaluation) for evaluation in evaluations]
        click.echo("\n\n".join(parts))
        for note in [*(f"left out: {pair}." for pair in left_out), *_caveats(forms, place)]:
            click.echo(note)
    if record:
        path = records.append(report, where, records_dir)
        click.echo(f"recorded in {path}", err=True)


def _check_purpose(
    rounds: int, profiled: bool, data: str | None, weights: Path | None, names: Sequence[str]
) -> None:
    """Refuse options that together mean nothing."""
    if rounds == 0 and data is None:
        raise ConfigError(
            "rounds=0 without --accuracy leaves nothing to measure.",
            "0 rounds mean no timing.",
            "Type for example: --rounds 20",
        )
    if rounds == 0 and profiled:
        raise ConfigError(
            "rounds=0 with --profile leaves nothing to profile.",
            "A profile is the median of its rounds.",
            "Type for example: --rounds 20",
        )
    if weights is not None and (data is None or len(names) > 1):
        raise ConfigError(
            f"--weights {weights} can't be used here.",
            "It is for the accuracy of one network; "
            + ("--accuracy is missing." if data is None else f"there are {len(names)}."),
            "Type for example: --model resnet20 --weights FILE --accuracy DATA",
        )


def _caveats(forms: Sequence[Form], place: torch.device) -> list[str]:
    """What the engines want known of their dtypes on this device, each once."""
    said = (engine(form.engine).caveat(place, form.dtype) for form in forms)
    return list(dict.fromkeys(filter(None, said)))


def _time(
    built: Sequence[Sequence[tuple[Subject, Counts]]], every: Sequence[Settings], *, profiled: bool
) -> tuple[list[Speed], list[Profile]]:
    """Measure, and profile where that was asked for, in every setting and size."""
    speeds, profiles = [], []
    table = list(itertools.product(every, built))
    total = sum((settings.rounds + settings.warmup) * len(made) for settings, made in table)
    with _bar(total, "timing", "batch") as advance:
        for settings, made in table:
            subjects = [subject for subject, _ in made]
            timings = measure(subjects, settings, advance=lambda: advance(1))
            speeds.append(Speed(settings, tuple(timings), tuple(counts for _, counts in made)))
    if profiled:
        total = sum(len(made) for _, made in table)
        with _bar(total, "profile", "network") as advance:
            for settings, made in table:
                for subject, _ in made:
                    profiles.append(profile(subject, settings))
                    advance(1)
    return speeds, profiles


def _evaluate(
    names: Sequence[str],
    settings: Settings,
    dtypes: Sequence[Dtype],
    data: str,
    weights: Path | None,
) -> list[Evaluation]:
    chosen = [dtype for dtype in dict.fromkeys(dtypes) if dtype in TORCH_DTYPES]
    if not chosen:
        raise ConfigError(
            f"--accuracy can't be measured in {dtypes[0]}.",
            f"Evaluation runs eagerly, in {' or '.join(TORCH_DTYPES)}.",
            "Type: --dtype fp32",
        )
    models: list[tuple[str, Classifier, str, LabelledImages]] = []
    for name in names:
        model, origin = _trained(name, weights)
        report = model.load_report
        classes = report.classes if report is not None else ()
        models.append((name, model, origin, read_images(data, classes, model.config.num_classes)))
    done: list[Evaluation] = []
    total = len(chosen) * sum(len(images.images) for *_, images in models)
    with _bar(total, "accuracy", "image") as advance:
        for dtype in chosen:
            for name, model, origin, images in models:
                see = transforms(model)
                ready = copy.deepcopy(model).eval().to(settings.device, TORCH_DTYPES[dtype])
                side = (model.config.in_chans, see.size, see.size)
                with explained(name, side, settings.batch):
                    result = accuracy(ready, images, see, batch=settings.batch, advance=advance)
                done.append(Evaluation(name, origin, dtype, result))
    return done


def _trained(name: str, weights: Path | None) -> tuple[Classifier, str]:
    """Make a network with weights; also says where they are from."""
    if weights is not None:
        model = create(name)
        load_file_into(model, weights)
        return model, str(weights)
    model = create(name, pretrained=True)
    report = model.load_report
    if report is not None and report.replaced:
        parameter, why = report.replaced[0]
        raise WeightsError(
            f"{name} has no trained weights to evaluate.",
            f"{report.tag} lacks {parameter} ({why}).",
            "Give weights of this very network: --weights FILE",
        )
    return model, report.tag if report is not None else ""


@contextlib.contextmanager
def _bar(total: int, title: str, unit: str) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr where that is a terminal and tqdm is there."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda steps: None
        return
    with tqdm(
        total=total, desc=title, unit=unit, leave=False, disable=not sys.stderr.isatty()
    ) as bar:
        yield lambda steps: bar.update(steps) and None
