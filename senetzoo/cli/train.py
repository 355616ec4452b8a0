"""``senetzoo train``."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import click

from senetzoo._utils.checks import Ge, Le, NonNegativeFloat
from senetzoo._utils.environment import cores, launched
from senetzoo._utils.terminal import OutputError, echo
from senetzoo.cli.base import INTERRUPTED
from senetzoo.cli.complete import starting
from senetzoo.cli.options import Json, Threads, as_command
from senetzoo.errors import ConfigError, nearest

if TYPE_CHECKING:
    from senetzoo.train.experiment import Experiment
    from senetzoo.train.recipe import Recipe


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
EXITS = {INTERRUPTED: "interrupted (Ctrl-C); the same command resumes the run"}


def options_of(workers: int | None, quick: bool, save_minutes: float) -> dict[str, Any]:
    """What `Options` is made of; without a number of `workers` it is the cores'."""
    own = min(cores(), 8) * (not quick) if workers is None else workers
    return {"workers": own, "save_minutes": save_minutes}


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
    workers: Workers = None,
    save_minutes: SaveMinutes = 15.0,
    tensorboard: Annotated[bool, "Write a TensorBoard log too."] = False,
    as_json: Annotated[Json, "JSON Lines: one object per run; progress on stderr."] = False,
) -> None:
    """Train a network, or all of an experiment, by RECIPE.

    The same command again resumes an interrupted run and leaves out finished ones.

    With --json, each run's line comes when it has ended and has "run" (its folder) and the
    figures of its summary.

    \b
    Examples:
      senetzoo train digits
      senetzoo train cifar10_small --data CIFAR10 --set model=se_resnet20
      senetzoo train cifar10_four_nets --data CIFAR10 --only lenet
      senetzoo train digits --quick --json
    """
    import torch

    from senetzoo.train.recipe import Options, read_setting

    experiment = find(recipe)
    changes = dict(map(read_setting, settings))
    if no_compile:
        changes["compile"] = False
    recipes = experiment.recipes(only=only, quick=quick, changes=changes)
    if threads is not None:
        torch.set_num_threads(threads)
    options = Options(**options_of(workers, quick, save_minutes), tensorboard=tensorboard)
    seeds = experiment.seeds if seed is None else (seed,)
    numbers = itertools.count(1)
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
            end = run(
                chosen,
                folder,
                (next(numbers), len(recipes) * len(seeds)),
                data=data,
                seed=number,
                variant=variant,
                command=shlex.join(parts),
                options=options,
                as_json=as_json,
            )
            if launched("RANK", 0) == 0:
                if as_json:
                    echo(json.dumps({"run": str(folder), **end}))
                else:
                    echo(f"weights and log: {folder}\n{json.dumps(end)}")


def run(
    recipe: Recipe, folder: Path, place: tuple[int, int], *, as_json: bool, **how: Any
) -> dict[str, Any]:
    """Train, or go on: run number so of so many. `how` is what `senetzoo.train` takes besides."""
    from senetzoo.train.engine import train

    say = functools.partial(say_progress, err=as_json)
    if place[1] > 1 and launched("RANK", 0) == 0:
        say(f"run {place[0]} of {place[1]}: {folder}")
    with interruptible():
        return train(recipe, folder, say=say, **how)


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
