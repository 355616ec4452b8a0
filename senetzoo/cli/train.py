"""``senetzoo train``."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from senetzoo.cli.base import INTERRUPTED, SenetzooCommand
from senetzoo.cli.complete import starting
from senetzoo.errors import ConfigError, nearest

if TYPE_CHECKING:
    from senetzoo.train.experiment import Experiment


def _complete_recipes(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from senetzoo.train.recipes import RECIPES

    return starting(RECIPES, incomplete)


def _complete_variants(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from senetzoo.train.recipes import RECIPES

    # Of all recipes: click does not know the others' values before this one is whole.
    return starting(
        dict.fromkeys(variant for found in RECIPES.values() for variant in found.variants),
        incomplete,
    )


def _complete_settings(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from senetzoo.train.recipe import Recipe

    return starting([f"{field.name}=" for field in dataclasses.fields(Recipe)], incomplete)


@click.command(
    "train",
    cls=SenetzooCommand,
    exits={INTERRUPTED: "interrupted (Ctrl-C); the same command goes on where it stopped"},
)
@click.argument("recipe", shell_complete=_complete_recipes)
@click.option("--data", type=click.Path(path_type=Path), help="Local copy of the data set.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the run [runs/RECIPE-MODEL-SEED], or of an experiment's runs [runs/RECIPE].",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed. [the recipe's, mostly 0]")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the recipe.",
    shell_complete=_complete_settings,
)
@click.option(
    "--only",
    multiple=True,
    metavar="VARIANT",
    help="Only this variant of an experiment.",
    shell_complete=_complete_variants,
)
@click.option("--quick", is_flag=True, help="One short epoch, to see that everything works.")
@click.option("--no-compile", is_flag=True, help="Do without a C++ compiler.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Processor threads.")
@click.option(
    "--workers", type=click.IntRange(0, 1024), help="Processes that read large images. [the cores]"
)
@click.option(
    "--save-minutes",
    type=click.FloatRange(min=0),
    default=15.0,
    show_default=True,
    help="Save the state within an epoch too, so often.",
)
@click.option("--tensorboard", is_flag=True, help="Write a TensorBoard log too.")
@click.option(
    "--json", "as_json", is_flag=True, help="JSON Lines: one object per run; progress on stderr."
)
@click.pass_context
def command(
    ctx: click.Context,
    recipe: str,
    data: Path | None,
    out: Path | None,
    seed: int | None,
    settings: tuple[str, ...],
    only: tuple[str, ...],
    quick: bool,
    no_compile: bool,
    threads: int | None,
    workers: int | None,
    save_minutes: float,
    tensorboard: bool,
    as_json: bool,
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

    from senetzoo.train.engine import train as run
    from senetzoo.train.recipe import read_setting
    from senetzoo.train.run import Options
    from senetzoo.train.stop import Interrupted

    experiment = find(recipe)
    changes = dict(read_setting(experiment.recipe, setting) for setting in settings)
    if no_compile:
        changes["compile"] = False
    recipes = experiment.recipes(only=only, quick=quick, changes=changes)
    if threads is not None:
        torch.set_num_threads(threads)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    options = Options(
        workers=min(cores or 1, 8) * (not quick) if workers is None else workers,
        save_minutes=save_minutes,
        tensorboard=tensorboard,
    )
    for number in experiment.seeds if seed is None else (seed,):
        for variant, chosen in recipes.items():
            folder = out or Path("runs") / (chosen.name if variant else "")
            if variant:
                folder = folder / f"{variant}-{number}"
            elif out is None:
                folder = folder / f"{chosen.name}-{chosen.model}-{number}"
            parts = ["senetzoo train", recipe]
            parts += ["--only", variant] if variant else []
            parts += [] if chosen.data == "digits" else ["--data", chosen.data.upper()]
            parts += [f"--set '{s}'" if "(" in s else f"--set {s}" for s in settings]
            parts += ["--seed", str(number), *["--quick"] * quick, *["--no-compile"] * no_compile]
            # Sums are split over the threads, so their number decides a result's last bits.
            parts += ["--threads", str(threads)] if threads is not None else []
            try:
                end = run(
                    chosen,
                    folder,
                    data=data,
                    seed=number,
                    variant=variant,
                    command=" ".join(parts),
                    options=options,
                    say=functools.partial(click.echo, err=as_json),
                )
            except Interrupted as stop:
                click.echo(str(stop), err=True)
                ctx.exit(INTERRUPTED)
            if int(os.environ.get("RANK", 0)) == 0:
                if as_json:
                    click.echo(json.dumps({"run": str(folder), **end}))
                else:
                    click.echo(f"weights and log: {folder}\n{json.dumps(end)}")


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
