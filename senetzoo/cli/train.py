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
from senetzoo._utils.terminal import OutputError, echo
from senetzoo.cli.base import INTERRUPTED
from senetzoo.cli.complete import starting
from senetzoo.cli.options import Json, Threads, as_command
from senetzoo.errors import ConfigError, nearest

if TYPE_CHECKING:
    from senetzoo.train.experiment import Experiment
    from senetzoo.train.parallel import Asked


def recipe_names(incomplete: str) -> list[Any]:
    """Names of recipes that start so."""
    from senetzoo.train.recipes import RECIPES

    return starting(RECIPES, incomplete)


def _variants(incomplete: str) -> list[Any]:
    from senetzoo.train.recipes import RECIPES

    # Of all recipes: click does not know the others' values before this one is whole.
    every = (variant for found in RECIPES.values() for variant in found.variants)
    return starting(dict.fromkeys(every), incomplete)


def _settings(incomplete: str) -> list[Any]:
    from senetzoo.train.recipe import Recipe

    return starting([f"{field.name}=" for field in dataclasses.fields(Recipe)], incomplete)


Settings: TypeAlias = Annotated[
    tuple[str, ...], "--set", _settings, "Change the recipe.", {"metavar": "KEY=VALUE"}
]
Workers: TypeAlias = Annotated[
    Annotated[int, Ge(0), Le(1024)] | None, "Processes that read large images. [the cores]"
]
SaveMinutes: TypeAlias = Annotated[
    NonNegativeFloat, "Save the state within an epoch too, so often."
]
Parallel: TypeAlias = Annotated[
    Annotated[int, Ge(1), Le(MOST_THREADS)],
    "Runs at a time, each a process with its share of the cores.",
]
EXITS = {INTERRUPTED: "interrupted (Ctrl-C); the same command resumes the run"}


def options_of(
    workers: int | None, quick: bool, save_minutes: float, parallel: int = 1
) -> dict[str, Any]:
    """What `Options` is made of; without a number of `workers` it is the cores' share of a run."""
    own = min(_share(parallel), 8) * (not quick) if workers is None else workers
    return {"workers": own, "save_minutes": save_minutes}


def set_threads(threads: int | None, parallel: int) -> int | None:
    """Set torch's number of threads, which is `threads` or a run's share of the cores.

    Returns:
        It; None for torch's own choice, where one run has all cores.

    Raises:
        ConfigError: This process is one of several that train a network together.
    """
    import torch

    together = [name for name in ("RANK", "WORLD_SIZE") if os.environ.get(name)]
    if parallel > 1 and together:
        raise ConfigError(
            f"--parallel {parallel} does not fit accelerate launch and torchrun.",
            f"By {' and '.join(together)} this process trains one network together with others.",
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
    """Ctrl-C, once the state is saved, ends the command with a message on how to resume."""
    from senetzoo.train.stop import Interrupted

    try:
        yield
    except Interrupted as stop:
        echo(str(stop), err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None


@as_command("train", exits=EXITS)
def command(
    recipe: Annotated[str, recipe_names],
    *,
    data: Annotated[Path | None, "Local copy of the data set; CIFAR is fetched without."] = None,
    out: Annotated[
        Path | None,
        "Folder of the run [runs/RECIPE-MODEL-SEED], or of an experiment's runs [runs/RECIPE].",
    ] = None,
    seed: Annotated[
        Annotated[int, Ge(0), Le(2**32 - 1)] | None, "Seed. [the recipe's, mostly 0]"
    ] = None,
    settings: Settings = (),
    only: Annotated[
        tuple[str, ...], _variants, "Only this variant of an experiment.", {"metavar": "VARIANT"}
    ] = (),
    quick: Annotated[bool, "One short epoch, to see that everything works."] = False,
    no_compile: Annotated[bool, "Do without a C++ compiler."] = False,
    threads: Threads = None,
    parallel: Parallel = 1,
    workers: Workers = None,
    save_minutes: SaveMinutes = 15.0,
    tensorboard: Annotated[bool, "Write a TensorBoard log too."] = False,
    as_json: Annotated[Json, "JSON Lines: one object per run; progress on stderr."] = False,
) -> None:
    """Train a network, or all of an experiment, by RECIPE.

    The same command again resumes an interrupted run and leaves out finished ones.

    With --json, each run's line comes when it has ended and has "run" (its folder) and the
    figures of its summary.

    With --parallel 2, two runs of an experiment train at once, which is faster than one after the
    other with all cores. What each says is in output.txt of its folder; one that fails ends no
    other.

    \b
    Examples:
      senetzoo train digits
      senetzoo train cifar_small --data CIFAR10 --set model=se_resnet20
      senetzoo train cifar10_four_nets --data CIFAR10 --only lenet
      senetzoo train ablation_gates --data CIFAR10 --parallel 2
      senetzoo train digits --quick --json
    """
    from senetzoo.train.recipe import Options, read_setting

    experiment = find(recipe)
    changes = dict(map(read_setting, settings))
    if no_compile:
        changes["compile"] = False
    recipes = experiment.recipes(only=only, quick=quick, changes=changes)
    seeds = experiment.seeds if seed is None else (seed,)
    parallel = min(parallel, len(recipes) * len(seeds))
    threads = set_threads(threads, parallel)
    given = options_of(workers, quick, save_minutes, parallel)
    options = Options(**given, tensorboard=tensorboard)
    runs: list[Asked] = []
    for number in seeds:
        for variant, chosen in recipes.items():
            folder = out or Path("runs") / (chosen.name if variant else "")
            if variant:
                folder = folder / f"{variant}-{number}"
            elif out is None:
                folder = folder / f"{chosen.name}-{chosen.model}-{number}"
            parts = ["senetzoo", "train", recipe]
            parts += ["--only", variant] if variant else []
            parts += [] if chosen.data == "digits" else ["--data", chosen.data.upper()]
            parts += [word for setting in settings for word in ("--set", setting)]
            parts += ["--seed", str(number), *["--quick"] * quick, *["--no-compile"] * no_compile]
            # Sums are split over the threads, so their number decides a result's last bits.
            parts += ["--threads", str(threads)] if threads is not None else []
            how = {"data": data, "seed": number, "variant": variant, "options": options}
            runs.append((chosen, folder, {**how, "command": shlex.join(parts)}))

    def ended(folder: Path, end: dict[str, Any]) -> None:
        if launched("RANK", 0) > 0:
            return
        if as_json:
            echo(json.dumps({"run": str(folder), **end}))
        elif parallel == 1:
            echo(f"weights and log: {folder}\n{json.dumps(end)}")

    train_all(runs, parallel, ended, as_json=as_json)


def train_all(
    runs: Sequence[Asked],
    parallel: int,
    ended: Callable[[Path, dict[str, Any]], None],
    *,
    as_json: bool,
) -> None:
    """Train, or go on with, one after another or so many at a time, and call `ended` for each."""
    from senetzoo.train.engine import train
    from senetzoo.train.parallel import train_at_once

    say = functools.partial(say_progress, err=as_json)
    with interruptible():
        if parallel > 1:
            train_at_once(runs, parallel, ended, say)
            return
        for number, (recipe, folder, how) in enumerate(runs, 1):
            if len(runs) > 1 and launched("RANK", 0) == 0:
                say(f"run {number} of {len(runs)}: {folder}")
            ended(folder, train(recipe, folder, say=say, **how))


def say_progress(line: str, *, err: bool) -> None:
    """Print how far a run is; the run continues if stdout can not be written."""
    with contextlib.suppress(OutputError):
        echo(line, err=err)


def find(name: str) -> Experiment:
    """The experiment called `name`.

    Raises:
        ConfigError: There is none.
    """
    from senetzoo.train.recipes import RECIPES

    if name not in RECIPES:
        raise ConfigError(
            f"There is no recipe {name!r}.",
            f"Recipes are {', '.join(RECIPES)}.",
            nearest(name, RECIPES),
        )
    return RECIPES[name]
