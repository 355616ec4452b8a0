"""Which runs were trained alike, so that they can be pooled and compared."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from senetzoo._utils.terminal import counted
from senetzoo.report.run import Run, by_label

# They change a result only by rounding, if at all.
_SAME = {"name", "compile", "channels_last", "deterministic"}


def told_apart(
    runs: Sequence[Run], varied_by: Callable[[str], Collection[str]], defaults: Mapping[str, object]
) -> tuple[list[Run], str]:
    """Number the recipes of runs that can't be pooled or compared, as part of their labels.

    Runs with one label should differ only in their seed. Variants of an experiment differ in what
    the experiment varies, too; those of other training loops in anything. Runs with other code of
    their own classes are another variant.

    Args:
        runs: The runs.
        varied_by: Returns what the experiment of this name varies; nothing if it is unknown.
        defaults: Values of recipes that older versions didn't record.

    Returns:
        The runs, and what is said of their experiments and recipes; empty if they are alike.
    """
    runs = _versions(runs)
    settings = {run.folder: _settings(run, defaults) for run in runs}
    planned = [run for run in runs if varied_by(run.header["recipe"]["name"])]
    varied = {name for run in planned for name in varied_by(run.header["recipe"]["name"])}
    designed = _differ([settings[run.folder] for run in planned]) - varied
    own: dict[Path, set[str]] = {}
    for alike in by_label(runs).values():
        names = _differ([settings[run.folder] for run in alike])
        own |= {run.folder: names for run in alike}
    everywhere = designed.union(*own.values()) - varied
    recipes: list[dict[str, str]] = []
    found = []
    for run in runs:
        # What an experiment varies only tells runs of one variant apart.
        names = everywhere | own[run.folder]
        recipe = {name: v for name, v in settings[run.folder].items() if name in names}
        if recipe not in recipes:
            recipes.append(recipe)
        found.append(dataclasses.replace(run, recipe=recipes.index(recipe) + 1))
    said = _mixture(runs)
    if len(recipes) < 2:
        made = [settings[r.folder] for r in runs if not r.own_loop]
        if more := ", ".join(sorted(_differ(made) - varied - {"model"})):
            said += f"The runs differ in more than their networks: {more}."
        return list(runs), said.rstrip()
    said += "The runs have different recipes, which are not pooled or compared. "
    return found, said + _listed(found, recipes)


def _listed(runs: Sequence[Run], recipes: Sequence[Mapping[str, str]]) -> str:
    """Sentences with the runs of each recipe, and its values that most recipes don't share."""
    counts = Counter(field for recipe in recipes for field in recipe.items())
    most = {name: v for (name, v), count in counts.items() if 2 * count > len(recipes)}
    listed = []
    for number, recipe in enumerate(recipes, 1):
        names = [run.name for run in runs if run.recipe == number]
        own = {name: v for name, v in recipe.items() if most.get(name) != v}
        own |= {name: "not recorded" for name in most if name not in recipe}
        text = _text(own) or ("as most" if recipe else "as the default")
        listed.append(
            f"recipe {number} ({', '.join(names[:3])}{', ...' * (len(names) > 3)}): {text}"
        )
    shared = f"Most have {_text(most)}. " if most else ""
    return f"{shared}{'; '.join(listed)}."


def _text(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _mixture(runs: Sequence[Run]) -> str:
    """A sentence that names the experiments, if there are several."""
    names = Counter(run.header["recipe"]["name"] for run in runs)
    listed = ", ".join(f"{name} ({counted(count, 'run')})" for name, count in names.items())
    return f"The runs are of several experiments: {listed}. " if len(names) > 1 else ""


def _versions(runs: Sequence[Run]) -> list[Run]:
    """The runs, those of a variant with several versions of its own classes marked by theirs."""
    found = {}
    for alike in by_label(runs).values():
        codes = {run.folder: run.header.get("own", {}) for run in alike}
        names = sorted(_differ([*codes.values()]))
        for run in alike:
            own = [codes[run.folder][name][:6] for name in names if name in codes[run.folder]]
            name = f"{run.name} (code {' '.join(own)})" if own else run.name
            found[run.folder] = dataclasses.replace(run, code=" ".join(own), name=name)
    return [found[run.folder] for run in runs]


def _settings(run: Run, defaults: Mapping[str, object]) -> dict[str, str]:
    """The recipe and the data of a run, as text."""
    recipe = run.header["recipe"]
    names = dict.fromkeys((*defaults, *recipe))
    found = {
        name: json.dumps(recipe.get(name, defaults.get(name)))
        for name in names
        if name not in _SAME
    }
    data = run.header["data"]
    return found | {f"data {name}": json.dumps(data[name]) for name in data if name != "classes"}


def _differ(several: Sequence[Mapping[str, str]]) -> set[str]:
    """The settings in which runs differ; older versions recorded less about the data."""
    values: dict[str, set[str]] = {}
    for settings in several:
        for name, value in settings.items():
            values.setdefault(name, set()).add(value)
    return {name for name, found in values.items() if len(found) > 1}
