"""``senetzoo train``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from senetzoo._command import SenetzooCommand
from senetzoo.errors import ConfigError, check_fields, nearest
from senetzoo.train.recipe import Recipe


@click.command(cls=SenetzooCommand)
@click.argument("recipe")
@click.option("--data", type=click.Path(path_type=Path), help="Local copy of the data set.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the run. [runs/RECIPE-MODEL-SEED]"
)
@click.option("--seed", default=0, show_default=True, help="Seed of weights and batches.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change the recipe.")
@click.option("--quick", is_flag=True, help="One short epoch, to see that everything works.")
@click.option("--no-compile", is_flag=True, help="Do without a C++ compiler.")
@click.option("--threads", type=click.IntRange(min=1), help="Processor threads.")
def train(
    recipe: str,
    data: Path | None,
    out: Path | None,
    seed: int,
    settings: tuple[str, ...],
    quick: bool,
    no_compile: bool,
    threads: int | None,
) -> None:
    """Train a network by RECIPE; the same command again resumes an interrupted run.

    \b
    Examples:
      senetzoo train digits
      senetzoo train cifar10_small --data CIFAR10 --set model=se_resnet20
    """
    import torch

    from senetzoo.train.engine import train as run

    chosen = find(recipe)
    for setting in settings:
        chosen = apply_setting(chosen, setting)
    if quick:
        chosen = chosen.quick()
    if no_compile:
        chosen = chosen.replace(compile=False)
    if threads is not None:
        torch.set_num_threads(threads)
    folder = out or Path("runs") / f"{chosen.name}-{chosen.model}-{seed}"
    try:
        record = run(
            chosen,
            folder,
            data=data,
            seed=seed,
            limit=64 if quick else None,
            command=_command(recipe, settings, seed, quick, no_compile, threads, chosen.data),
            say=click.echo,
        )
    except KeyboardInterrupt:
        raise ConfigError(
            f"The run in {folder} was interrupted.",
            "All epochs before this one are saved.",
            "Type the same command again to go on",
        ) from None
    click.echo(f"weights and log: {folder}\n{json.dumps(record)}")


def _command(
    recipe: str,
    settings: tuple[str, ...],
    seed: int,
    quick: bool,
    no_compile: bool,
    threads: int | None,
    data: str,
) -> str:
    """What to type to do the same again, without the paths of this machine."""
    parts = ["senetzoo train", recipe]
    parts += [] if data == "digits" else ["--data", data.upper()]
    parts += [f"--set '{s}'" if "(" in s else f"--set {s}" for s in settings]
    parts += ["--seed", str(seed), *["--quick"] * quick, *["--no-compile"] * no_compile]
    # Sums are split over the threads, so their number decides the last bits of a result.
    parts += ["--threads", str(threads)] if threads is not None else []
    return " ".join(parts)


def find(name: str) -> Recipe:
    """The recipe called `name`.

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


def apply_setting(recipe: Recipe, setting: str) -> Recipe:
    """`recipe` with one field changed by ``key=value``.

    Raises:
        ConfigError: No such field, or a value of another kind.
    """
    import ast

    key, equals, text = setting.partition("=")
    if not equals:
        raise ConfigError(
            f"--set got {setting!r}.", "It takes key=value.", "Type for example: --set batch=64"
        )
    check_fields("The recipe", [key], [field.name for field in dataclasses.fields(recipe)])
    old = getattr(recipe, key)
    if isinstance(old, str):
        return recipe.replace(**{key: text})
    try:
        value = ast.literal_eval(text.capitalize() if isinstance(old, bool) else text)
    except (ValueError, SyntaxError):
        value = None
    if isinstance(old, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(old):
        raise ConfigError(
            f"--set {key}={text} does not fit.",
            f"{key} is of the kind {type(old).__name__}, as in {key}={old}.",
        )
    return recipe.replace(**{key: value})


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
