"""``senetzoo compare``."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from senetzoo._utils.checks import Ge, Le, PositiveInt
from senetzoo._utils.environment import launched
from senetzoo._utils.files import write_text
from senetzoo._utils.terminal import columns, counted, cut, say_once
from senetzoo.cli import complete
from senetzoo.cli.options import Json, as_command, command_line, recorded, say
from senetzoo.cli.train import (
    EXITS,
    NoCompile,
    Parallel,
    Quick,
    RunThreads,
    SaveMinutes,
    Settings,
    Workers,
    find,
    options_of,
    recipe_names,
    recorded_data,
    set_threads,
    train_all,
)
from senetzoo.errors import ConfigError, MissingExtraError, SenetzooError, first_line
from senetzoo.runs import is_quick, tested

if TYPE_CHECKING:
    from senetzoo.nn.slots import Site
    from senetzoo.policies.algebra import Gate
    from senetzoo.report.paired import Paired
    from senetzoo.report.run import Run
    from senetzoo.spec import ModelSpec
    from senetzoo.train.experiment import Experiment
    from senetzoo.train.parallel import Asked

PLAIN = "plain"
"""The variant without a policy, the baseline of the comparison."""
RESULT, PLOT = "compare.json", "compare.svg"


@as_command("compare", exits=EXITS)
def command(
    *,
    model: Annotated[
        str,
        complete.networks,
        "A network of senetzoo list, or a folder of one. Your own networks have no sites for "
        "gates.",
        {"metavar": "NAME"},
    ],
    policies: Annotated[
        tuple[str, ...],
        "--policy",
        complete.policies,
        "Gates to compare with the plain network, such as se4@pre; MODULE:NAME for your own gate. "
        "They replace the network's own gates at the same sites. Repeatable.",
        {"metavar": "POLICY"},
    ],
    data: Annotated[
        str | None,
        complete.data,
        "A folder with train and val (or test), a CSV with a split, a folder of train*.parquet and "
        "test*.parquet, a copy of CIFAR or flower_photos, hf-hub:OWNER/NAME, or digits, cifar10 or "
        "cifar100. [digits or CIFAR, as --recipe says; without --recipe, digits for networks of "
        "gray images, cifar10 for others]",
    ] = None,
    recipe: Annotated[
        str | None, recipe_names, "Recipe to train with. [depends on the data]"
    ] = None,
    seeds: Annotated[Annotated[int, Ge(2), Le(1000)], "Runs of each variant."] = 3,
    epochs: Annotated[PositiveInt | None, "Number of epochs. [the recipe's]"] = None,
    settings: Settings = (),
    out: Annotated[Path | None, "Folder of the runs. [runs/compare-NAME]"] = None,
    quick: Quick = False,
    no_compile: NoCompile = False,
    threads: RunThreads = None,
    parallel: Parallel = 1,
    workers: Workers = None,
    save_minutes: SaveMinutes = 15.0,
    as_json: Annotated[Json, "JSON of the table; progress on stderr."] = False,
) -> None:
    """Train a network as it is and with each policy, on the same seeds, and compare.

    The network as it is, called plain in the table, has the gates of its name: none for resnet20.
    Runs with the same seed are paired: they start from the same trunk and see the same batches in
    the same order. The table shows the mean difference from the plain network, with intervals for
    all policies together (Dunnett's test). The folder gets the table as compare.json, a plot as
    compare.svg, and the runs, for senetzoo report. With --quick, the table has no differences, and
    there is no plot.

    Running the same command again resumes an interrupted run and skips finished ones; with more
    --seeds or another --policy, it adds runs.

    \b
    Examples:
      senetzoo compare --model resnet20 --policy se4 --policy eca --data CIFAR10
      senetzoo compare --model lenet5 --policy se4 --data digits --seeds 5 --epochs 20
      senetzoo compare --model resnet20 --policy my_module:MyGate@pre --data photos/
      senetzoo compare --model lenet5 --policy se4 --data digits --quick --json
      senetzoo compare --model resnet20 --policy se4 --data CIFAR10 --parallel 2
    """
    from senetzoo.own import with_names
    from senetzoo.report.figures import differences
    from senetzoo.report.paired import paired
    from senetzoo.report.run import read
    from senetzoo.train.recipe import read_setting

    for library in ("scipy", "matplotlib"):
        if importlib.util.find_spec(library) is None:
            raise MissingExtraError("A comparison", library, "train")
    parallel = min(parallel, (1 + len(policies)) * seeds)
    threads = set_threads(threads, parallel)
    network = with_names(model)
    experiment = compared(network, list(map(with_names, policies)), data, recipe, seeds)
    again = command_line(
        *("senetzoo", "compare"),
        model=model,
        policy=policies,
        data=recorded_data(data, experiment.recipe.data),
        recipe=recipe,
        epochs=epochs,
        seeds=seeds,
        threads=threads,
        set=settings,
        quick=quick,
        no_compile=no_compile,
        out=recorded(out),
    )
    changes = dict(map(read_setting, settings))
    if "model" in changes:
        raise ConfigError(
            "--set model=... can't be used in a comparison.",
            "It compares --model with each --policy.",
            "Type for example: --policy se4",
        )
    if epochs is not None:
        changes["epochs"] = epochs
    if no_compile:
        changes["compile"] = False
    recipes = experiment.recipes(quick=quick, changes=changes)
    # This recipe has the network's own stem, which nobody chose for these images.
    if "stem" not in changes:
        for warning in filter(None, (each.too_small() for each in recipes.values())):
            say_once(warning)
    options = options_of(workers, quick, save_minutes, parallel)
    folder = out or Path("runs", f"compare-{_safe(network)}")
    _check_replaced(folder)
    where = None if data is None or experiment.recipe.data == "digits" else Path(data)
    asked: list[Asked] = []
    for number in experiment.seeds:
        for variant, chosen in recipes.items():
            how = {"data": where, "seed": number, "variant": variant, "options": options}
            each = folder / f"{variant}-{number}"
            asked.append((chosen, each, {**how, "command": again}))
    train_all(asked, parallel, lambda *_: None, as_json=as_json)
    if launched("RANK", 0) == 0:
        runs = [read(path, path.name) for _, path, _ in asked]
        pairs = paired(runs, list(experiment.variants))
        made = table(runs, experiment, pairs)
        made |= {"quick": is_quick(runs[0].header), "command": again, "folder": str(folder)}
        # First, because it shows that the plot is one of a comparison.
        write_text(folder / RESULT, json.dumps(made, indent=1) + "\n")
        for drawn in differences(pairs):
            write_text(folder / PLOT, drawn.inked("#000000"))
        lasted = {len(run.epochs) for run in runs}
        say(as_json, made, _text(made, lasted, runs[0].limited, folder))


def _check_replaced(folder: Path) -> None:
    """Raise `ConfigError` if the table or the plot would replace a file of something else."""
    table, plot = folder / RESULT, folder / PLOT
    try:
        known = json.loads(table.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = None
    ours = isinstance(known, dict) and {"variants", "seeds"} <= known.keys()
    for file in (table, plot):
        if file.exists() and not ours:
            raise ConfigError(
                f"A comparison can't be written to {folder}.",
                f"{file} exists, and isn't known to be one of a comparison.",
                "Give another folder with --out, or move the file away",
            )


def compared(
    model: str, policies: Sequence[str], data: str | None, recipe: str | None, seeds: int
) -> Experiment:
    """The experiment that trains `model` as it is and with each policy.

    Raises:
        ConfigError: There is no such network or recipe, or two variants are the same network.
        PolicyError: A policy can't be parsed or doesn't fit the network.
    """
    import torch

    from senetzoo.own import names_in, paths
    from senetzoo.spec import gates_of
    from senetzoo.train.experiment import Experiment
    from senetzoo.train.recipes import COMPARE
    from senetzoo.zoo import before_policy, config, with_policy

    base = find(recipe) if recipe else _base(model, data)
    if base.variants:
        raise ConfigError(
            f"The recipe {base.name} is already an experiment.",
            f"Its variants are {', '.join(base.variants)}.",
            "Leave --recipe out, or give a recipe of a single run",
        )
    variants = {PLAIN: {"model": model}}
    for policy in policies:
        name = _safe(policy)
        if name in variants:
            raise ConfigError(
                f"--policy {policy} is given twice.", "Each policy is one variant.", "Remove one"
            )
        variants[name] = {"model": with_policy(model, policy)}
    gates: dict[str, dict[Site, Gate]] = {}
    for (name, changed), over in zip(variants.items(), (None, *policies), strict=True):
        spec = config(changed["model"])
        with torch.device("meta"):  # to fail before the first run if a policy doesn't fit
            built = spec.build(seed=0)
        if paths(names_in(spec)):
            _try(spec, name)
        own = gates_of(built)
        if own != config(model).merged(over).policy.resolve(built.sites()):
            raise ConfigError(
                f"--policy {over} can't be put on {model}.",
                "A name can't remove the gates that a network has by default and add others.",
                f"Give the network without +none: --model {before_policy(model)[0]}",
            )
        twin = next((other for other, known in gates.items() if known == own), None)
        if twin is not None:
            raise ConfigError(
                f"The variants {twin} and {name} are the same network.",
                "Each policy is one variant, beside the network as it is named.",
                "Remove one",
            )
        gates[name] = own
    if gates[PLAIN]:
        say_once(f"plain is {model} with its own gates; policies replace them where both apply")
    return Experiment(
        base.recipe.replace(name=COMPARE),
        variants=variants,
        seeds=tuple(range(seeds)),
        quick=base.quick,
    )


def _try(spec: ModelSpec, variant: str) -> None:
    """Run a network with gates of the user's own once, before other variants are trained."""
    import torch

    side = spec.config.input_size
    try:
        spec.build(seed=0)(torch.zeros(2, spec.config.in_chans, side, side))
    except SenetzooError:
        raise
    except Exception as error:  # code of others can raise anything
        raise ConfigError(
            f"The variant {variant} fails on a batch of two images.",
            f"Python says: {type(error).__name__}: {first_line(error)}.",
            "Change the gate's forward, or its options",
        ) from error


def _base(model: str, data: str | None) -> Experiment:
    """The default recipe for the data; without any, for small images that the network takes."""
    from senetzoo.data.sources import CIFAR, Kind, kind_of
    from senetzoo.train.experiment import Experiment
    from senetzoo.zoo import config

    kind: Kind = "digits" if config(model).config.in_chans == 1 else "cifar10"
    if data is not None:
        kind = kind_of(data)
    if kind == "digits":
        return find("digits")
    base = find("cifar_small" if kind in CIFAR else "flowers_small")
    names = {"parquet": "hub", "csv": "folder"}
    recipe = base.recipe.replace(data=names.get(kind, kind))
    if recipe.stem:
        try:
            config(model).replace(stem=recipe.stem)
        except ConfigError:  # nobody asked for this stem
            recipe = recipe.replace(stem="")
    return Experiment(recipe, quick=base.quick)


def _safe(name: str) -> str:
    """`name` as the name of a folder."""
    return re.sub(r"[^\w.@=+~&,-]", "_", name)


def table(runs: Sequence[Run], experiment: Experiment, pairs: Sequence[Paired]) -> dict[str, Any]:
    """The comparison of finished runs as JSON values; accuracies are in percent."""
    rows = []
    for variant, changed in experiment.variants.items():
        own = [run for run in runs if run.header["variant"] == variant]
        values = [100 * run.end["test_accuracy"] for run in own if run.end is not None]
        row = {
            "variant": variant,
            "model": changed["model"],
            "params": own[0].header["model"]["params"],
            "accuracy": round(statistics.mean(values), 4),
            "each": [round(value, 4) for value in values],
        }
        for pair in pairs:
            if pair.name == variant:
                row |= {
                    "difference": round(pair.mean, 4),
                    "interval": None
                    if pair.alike
                    else [round(limit, 4) for limit in pair.interval],
                    "differences": [round(value, 4) for value in pair.differences],
                    "p": round(pair.p, 4),
                    "shown": pair.differs,
                    "verdict": pair.verdict or "difference shown",
                    "could_have_shown": None if pair.alike else round(pair.detectable, 4),
                }
        rows.append(row)
    return {
        "data": runs[0].header["data"]["name"],
        "seeds": list(experiment.seeds),
        "epochs": max(len(run.epochs) for run in runs),
        "test_images": runs[0].end["test_images"] if runs[0].end else 0,
        "part": tested(runs[0].end or {}),
        "variants": rows,
    }


def _text(made: Mapping[str, Any], lasted: Collection[int], limited: str, folder: Path) -> str:
    from senetzoo.report.paired import ALIKE

    detectable = [row["could_have_shown"] for row in made["variants"] if "difference" in row]
    head = ["variant", "parameters", "accuracy"]
    # A quick check has no differences.
    head += ["difference", "95 % interval", "shown"] if detectable else []
    rows = [head]
    for row in made["variants"]:
        cells = [cut(row["variant"], 24), f"{row['params']:,}", f"{row['accuracy']:.2f} %"]
        if "difference" in row:
            limits = row["interval"]
            cells += [
                f"{row['difference']:+.2f}",
                "{:+.2f} to {:+.2f}".format(*limits) if limits else "",
                "yes" if row["shown"] else "no",
            ]
        rows.append([*cells, *[""] * (len(head) - len(cells))])
    seeds, epochs = counted(len(made["seeds"]), "seed"), counted(made["epochs"], "epoch")
    if len(lasted) > 1:
        epochs = f"up to {epochs}"
    images = counted(made["test_images"], f"{made['part']} image")
    lines = [
        f"{made['variants'][0]['model']} on {made['data']}, {seeds}, {epochs}, {images}",
        *columns(rows),
    ]
    if detectable:
        test = f"; intervals: of {'Dunnett' if len(detectable) > 1 else 'Student'}'s test"
        lines.append(
            f"differences from {PLAIN} in points, paired by seed" + test * (None not in detectable)
        )
    if None in detectable:
        lines.append(ALIKE)
    elif detectable:
        lines += [
            f"could have shown: {max(detectable):.2f} points, the smallest true difference that "
            "these seeds",
            "show in four cases of five",
        ]
    return "\n".join(
        [
            *lines,
            *filter(None, [limited]),
            f"table: {folder / RESULT}" + f", plot: {folder / PLOT}" * bool(detectable),
            f"next: senetzoo report {shlex.quote(str(folder))}",
        ]
    )
