"""``senetzoo train``."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import click

from senetzoo._utils.checks import Ge, Le, NonNegativeFloat
from senetzoo._utils.environment import MOST_THREADS, cores, launched
from senetzoo._utils.terminal import OutputError, clock, counted, echo
from senetzoo.cli import complete
from senetzoo.cli.base import INTERRUPTED
from senetzoo.cli.options import Json, as_command, command_line, recorded
from senetzoo.errors import ConfigError, SenetzooError, nearest

if TYPE_CHECKING:
    from senetzoo.train.experiment import Experiment
    from senetzoo.train.parallel import Asked
    from senetzoo.train.recipe import Options, Recipe


def recipe_names(incomplete: str) -> list[Any]:
    """Recipe names."""
    from senetzoo.train.recipes import RECIPES

    return complete.starting(RECIPES, incomplete)


def _variants(incomplete: str) -> list[Any]:
    from senetzoo.train.recipes import RECIPES

    # Of all recipes, because click hasn't parsed the recipe yet.
    every = (variant for found in RECIPES.values() for variant in found.variants)
    return complete.starting(dict.fromkeys(every), incomplete)


def _settings(incomplete: str) -> list[Any]:
    from senetzoo.train.recipe import Recipe

    return complete.starting([f"{field.name}=" for field in dataclasses.fields(Recipe)], incomplete)


Settings: TypeAlias = Annotated[
    tuple[str, ...], "--set", _settings, "Change a recipe's option.", {"metavar": "KEY=VALUE"}
]
Quick: TypeAlias = Annotated[bool, "One short epoch, to check that everything works."]
NoCompile: TypeAlias = Annotated[bool, "Don't compile, which needs a C++ compiler."]
Workers: TypeAlias = Annotated[
    Annotated[int, Ge(0), Le(1024)] | None,
    "Processes that read large images. [the run's cores, at most 8; none with --quick]",
]
RunThreads: TypeAlias = Annotated[
    Annotated[int, Ge(1), Le(MOST_THREADS)] | None,
    "CPU threads of a run. Default: torch's choice; with --parallel, its share of the cores.",
]
SaveMinutes: TypeAlias = Annotated[NonNegativeFloat, "Minutes between checkpoints within an epoch."]
Parallel: TypeAlias = Annotated[
    Annotated[int, Ge(1), Le(MOST_THREADS)],
    "Runs at a time, each a process with its share of the cores.",
]
EXITS = {INTERRUPTED: "interrupted (Ctrl-C); the same command resumes the run"}


def options_of(
    workers: int | None,
    quick: bool,
    save_minutes: float,
    parallel: int = 1,
    tensorboard: bool = False,
) -> Options:
    """The options of a run; `workers` defaults to its share of the cores."""
    from senetzoo.train.recipe import Options

    own = min(_share(parallel), 8) * (not quick) if workers is None else workers
    return Options(own, save_minutes, tensorboard)


def set_threads(threads: int | None, parallel: int) -> int | None:
    """Set torch's number of threads to `threads`, or to a run's share of the cores.

    Returns:
        The number; None if it was left to torch, since one run has all cores.

    Raises:
        ConfigError: `parallel` in a process of a distributed training.
    """
    import torch

    together = [name for name in ("RANK", "WORLD_SIZE") if os.environ.get(name)]
    if parallel > 1 and together:
        raise ConfigError(
            f"--parallel {parallel} can't be combined with accelerate launch or torchrun.",
            f"{' and '.join(together)} in the environment make this process part of one training.",
            "Start it without them, or leave out --parallel",
        )
    if threads is None and parallel > 1:
        threads = _share(parallel)
    if threads is not None:
        torch.set_num_threads(threads)
    return threads


def _share(parallel: int) -> int:
    return max(1, cores() // parallel)


@contextmanager
def interruptible() -> Iterator[None]:
    """On Ctrl-C or SIGTERM, exit once the state is saved, with a message on how to resume.

    While a run starts there is nothing to save, and a second signal doesn't wait for it.
    """
    from senetzoo.train.stop import Interrupted, signals

    def at_once() -> None:
        raise Interrupted(
            "Interrupted.\n"
            "Finished runs and saved states are kept.\n"
            "Type the same command again to continue"
        )

    try:
        with signals(at_once):
            yield
    except Interrupted as stop:
        echo(str(stop), err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None


@as_command("train", exits=EXITS)
def command(
    recipe: Annotated[str, recipe_names],
    *,
    data: Annotated[
        Path | None,
        complete.data,
        "Local copy of the data set; the word cifar10 or cifar100, which downloads it; with "
        "--set data=hub, hf-hub:OWNER/NAME.",
    ] = None,
    out: Annotated[
        Path | None,
        "Folder of the run [runs/RECIPE-MODEL-SEED], or of an experiment's runs [runs/RECIPE].",
    ] = None,
    seed: Annotated[
        Annotated[int, Ge(0), Le(2**32 - 1)] | None,
        "Seed. [the recipe's: 0, or several of some experiments]",
    ] = None,
    settings: Settings = (),
    only: Annotated[
        tuple[str, ...], _variants, "Only this variant of an experiment.", {"metavar": "VARIANT"}
    ] = (),
    quick: Quick = False,
    no_compile: NoCompile = False,
    threads: RunThreads = None,
    parallel: Parallel = 1,
    workers: Workers = None,
    save_minutes: SaveMinutes = 15.0,
    tensorboard: Annotated[bool, "Also write a TensorBoard log."] = False,
    as_json: Annotated[Json, "JSON Lines: one object per run; progress on stderr."] = False,
) -> None:
    """Train a network, or all networks of an experiment, with RECIPE.

    The recipes are digits, cifar_small, cifar10_resnet, cifar10_four_nets, cifar10_stem,
    cifar10_at_224, cifar10_noisy_train, cifar10_depth, flowers_small, flowers_depth,
    flowers_key_drop, imagenet_rsb_a3, imagenet_se, ablation_positions, ablation_gates,
    ablation_reduction, ablation_stages and cifar100_attention.

    Running the same command again resumes an interrupted run and skips finished ones.

    With --json, each finished run prints a line with "run" (its folder) and its results.

    With --parallel 2, two runs of an experiment train at the same time, which is faster than one
    after the other with all cores. Each run's output is in output.txt in its folder; a run that
    fails doesn't stop the others.

    \b
    Examples:
      senetzoo train digits
      senetzoo train cifar_small --data CIFAR10 --set model=se_resnet20
      senetzoo train cifar10_four_nets --data CIFAR10 --only lenet
      senetzoo train ablation_gates --data CIFAR10 --parallel 2
      senetzoo train digits --quick --json
    """
    from senetzoo.train.recipe import read_setting

    experiment = find(recipe)
    changes = dict(map(read_setting, settings))
    if no_compile:
        changes["compile"] = False
    recipes = experiment.recipes(only=only, quick=quick, changes=changes)
    seeds = experiment.seeds if seed is None else (seed,)
    parallel = min(parallel, len(recipes) * len(seeds))
    threads = set_threads(threads, parallel)
    options = options_of(workers, quick, save_minutes, parallel, tensorboard)
    runs: list[Asked] = []
    for number in seeds:
        for variant, chosen in recipes.items():
            folder = out or Path("runs") / (chosen.name if variant else "")
            if variant:
                folder = folder / f"{variant}-{number}"
            elif out is None:
                folder = folder / f"{chosen.name}-{chosen.model}-{number}"
            again = command_line(
                *("senetzoo", "train", recipe),
                only=variant or None,
                data=recorded_data(data, chosen.data),
                set=settings,
                seed=number,
                quick=quick,
                no_compile=no_compile,
                # The number of threads decides the order of sums, and so a result's last bits.
                threads=threads,
                out=recorded(out),
            )
            how = {"data": data, "seed": number, "variant": variant, "options": options}
            runs.append((chosen, folder, {**how, "command": again}))

    def ended(folder: Path, end: dict[str, Any]) -> None:
        if launched("RANK", 0) > 0:
            return
        if as_json:
            echo(json.dumps({"run": str(folder), **end}))
        elif parallel == 1:
            echo(f"weights and log: {folder}\n{_result(end)}")

    train_all(runs, parallel, ended, as_json=as_json)
    if not as_json and launched("RANK", 0) == 0:
        chosen, last, asked = runs[-1]
        where = [last.parent] if asked["variant"] else _comparable(chosen, last, asked["seed"])
        echo(f"next: senetzoo report {shlex.join(map(str, where))}")


def _comparable(recipe: Recipe, folder: Path, seed: int) -> list[Path]:
    """The finished runs beside `folder`, its own included, that differ only in their network.

    Only `folder` if its name was chosen with ``--out``, or if there are more than five.
    """
    from senetzoo.train.recipe import read_run

    found = []
    for other in sorted(folder.parent.glob(f"{recipe.name}-*-{seed}")):
        with contextlib.suppress(SenetzooError, OSError):
            stored, done = read_run(other)
            if (stored.replace(model=recipe.model), done["seed"]) == (recipe, seed):
                found.append(other)
    return found if folder in found and len(found) <= 5 else [folder]


def recorded_data(data: str | Path | None, kind: str) -> str | None:
    """``--data`` for a recorded command: of CIFAR the word, for which any copy is the same."""
    from senetzoo.data.sources import CIFAR

    return kind if data is not None and kind in CIFAR else recorded(data)


def _result(end: dict[str, Any]) -> str:
    """The result of a run in a line."""
    from senetzoo.runs import tested

    low, high = (100 * limit for limit in end["wilson"])
    length = counted(end["epochs"], "epoch")
    return (
        f"{tested(end)} accuracy {100 * end['test_accuracy']:.2f} % [{low:.1f}, {high:.1f}] of "
        f"{end['test_images']:,} images, {length}, {clock(end['train_seconds'])} of training"
    )


def train_all(
    runs: Sequence[Asked],
    parallel: int,
    ended: Callable[[Path, dict[str, Any]], None],
    *,
    as_json: bool,
) -> None:
    """Train or resume runs, `parallel` at a time, and call `ended` after each."""
    from senetzoo.data.sets import ImageSet
    from senetzoo.train.data import Data, load_data
    from senetzoo.train.engine import train
    from senetzoo.train.parallel import train_at_once

    say = functools.partial(say_progress, err=as_json)
    with interruptible():
        check_folders(runs, data=parallel > 1)
        if parallel > 1:
            train_at_once(runs, parallel, ended, say)
            return
        alike, data = None, None
        for number, (recipe, folder, how) in enumerate(runs, 1):
            if len(runs) > 1 and launched("RANK", 0) == 0:
                say(f"run {number} of {len(runs)}: {folder}")
            wanted = recipe.replace(model=runs[0][0].model)
            # Runs that differ in their network share images in memory. Files are listed anew,
            # because they are read while a run trains: it records those that are there.
            if wanted != alike or not (isinstance(data, Data) and isinstance(data.train, ImageSet)):
                alike, data = wanted, None  # frees the other images first
                data = load_data(recipe, how["data"])
            ended(folder, train(recipe, folder, say=say, **{**how, "data": data}))


def check_folders(runs: Sequence[Asked], *, data: bool) -> None:
    """Check that the runs in these folders have the recipes and the code that are asked for.

    Otherwise new runs would be added to an experiment whose old ones are of other networks.

    Args:
        runs: The runs.
        data: Whether to check the data as well, which is read for that.

    Raises:
        ConfigError: A run has another recipe, other code or data, or a log is broken.
    """
    from senetzoo.runs import LOG, SUMMARY, is_run
    from senetzoo.train.checkpoint import (
        recorded,
        require_same,
        require_same_code,
        require_same_data,
    )
    from senetzoo.train.data import load_data

    asked = {folder: (recipe, how["seed"]) for recipe, folder, how in runs}
    for folder in asked:
        other = folder.parent if is_run(folder.parent) else None
        if not is_run(folder):
            other = next((log.parent for log in folder.glob(f"*/{LOG}")), other)
        if other is not None:
            raise ConfigError(
                f"{folder} can't be the folder of a run.",
                f"{other} is one, and a run can't be inside another.",
                "Give another folder with --out",
            )
    of_variant = {how["variant"]: recipe for recipe, _, how in runs}
    # Runs of these variants with other seeds, too.
    beside = {folder.parent for _, folder, how in runs if how["variant"]}
    known = [path for each in beside if each.is_dir() for path in sorted(each.iterdir())]
    there = {folder: recorded(folder) for folder in dict.fromkeys([*known, *asked])}
    for folder, found in there.items():
        if found is None:
            continue
        variant, recipe, seed, versions = found
        if folder in asked:
            require_same(folder, (recipe, seed), asked[folder])
        elif variant in of_variant:
            require_same(folder, (recipe, seed), (of_variant[variant], seed))
        else:
            continue
        require_same_code(folder, versions)
    begun = [run for run in runs if data and there[run[1]] is not None]
    for recipe, folder, how in begun[:1]:
        sets = load_data(recipe, how["data"])
        require_same_data(folder, sets.identity, (folder / SUMMARY).is_file(), lambda _: None)


def say_progress(line: str, *, err: bool) -> None:
    """Print a run's progress; a stdout that can't be written doesn't stop the run."""
    with contextlib.suppress(OutputError):
        echo(line, err=err)


def find(name: str) -> Experiment:
    """The experiment `name`; `ConfigError` if there is none."""
    from senetzoo.train.recipes import RECIPES

    if name not in RECIPES:
        raise ConfigError(
            f"There is no recipe {name!r}.",
            f"The recipes are {', '.join(RECIPES)}.",
            nearest(name, RECIPES),
        )
    return RECIPES[name]
