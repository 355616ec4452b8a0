"""``senetzoo train``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from senetzoo._command import INTERRUPTED, SenetzooCommand
from senetzoo.errors import ConfigError, nearest

if TYPE_CHECKING:
    from senetzoo.train.experiment import Experiment


@click.command(cls=SenetzooCommand)
@click.argument("recipe")
@click.option("--data", type=click.Path(path_type=Path), help="Local copy of the data set.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the run [runs/RECIPE-MODEL-SEED], or of an experiment's runs [runs/RECIPE].",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed. [the recipe's, mostly 0]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change the recipe.")
@click.option("--only", multiple=True, metavar="ARM", help="Only this arm of an experiment.")
@click.option("--quick", is_flag=True, help="One short epoch, to see that everything works.")
@click.option("--no-compile", is_flag=True, help="Do without a C++ compiler.")
@click.option("--threads", type=click.IntRange(min=1), help="Processor threads.")
@click.option(
    "--workers", type=click.IntRange(min=0), help="Processes that read large images. [the cores]"
)
@click.option(
    "--save-minutes",
    type=click.FloatRange(min=0),
    default=15.0,
    show_default=True,
    help="Save the state within an epoch too, so often.",
)
@click.option("--tensorboard", is_flag=True, help="Write a TensorBoard log too.")
@click.pass_context
def train(
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
) -> None:
    """Train a network, or all of an experiment, by RECIPE.

    The same command again resumes an interrupted run and leaves out finished ones.

    \b
    Examples:
      senetzoo train digits
      senetzoo train cifar10_small --data CIFAR10 --set model=se_resnet20
      senetzoo train cifar10_four_nets --data CIFAR10 --only lenet
    """
    import torch

    from senetzoo.train.engine import train as run
    from senetzoo.train.run import Options
    from senetzoo.train.settings import read_setting
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
        for arm, chosen in recipes.items():
            folder = out or Path("runs") / (chosen.name if arm else "")
            if arm:
                folder = folder / f"{arm}-{number}"
            elif out is None:
                folder = folder / f"{chosen.name}-{chosen.model}-{number}"
            parts = ["senetzoo train", recipe]
            parts += ["--only", arm] if arm else []
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
                    arm=arm,
                    command=" ".join(parts),
                    options=options,
                    say=click.echo,
                )
            except Interrupted as stop:
                click.echo(str(stop), err=True)
                ctx.exit(INTERRUPTED)
            if int(os.environ.get("RANK", 0)) == 0:
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


@click.command(cls=SenetzooCommand)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("tag")
@click.option("--data", type=click.Path(path_type=Path), help="Local copy of the data set.")
@click.option("--no-default", is_flag=True, help="Do not make it the network's default.")
def pin(run: Path, tag: str, data: Path | None, no_default: bool) -> None:
    """Embed the weights of a finished RUN as TAG and write their manifest entry.

    \b
    Examples:
      senetzoo weights pin runs/digits-lenet5-0 digits_v1
    """
    from senetzoo.train.pin import pin as embed

    entry = embed(run, tag, data=data, default=not no_default)
    click.echo(f"{entry.model}.{tag}: {entry.metrics[0].value:.2f} % on {entry.metrics[0].data}")
