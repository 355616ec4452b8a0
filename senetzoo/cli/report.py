"""``senetzoo report``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from senetzoo._utils.files import atomically, write_text
from senetzoo._utils.terminal import echo
from senetzoo.cli.options import FILE, FOLDER, PATH, Json, as_command, say
from senetzoo.errors import ConfigError, nearest

if TYPE_CHECKING:
    from senetzoo.report.excitations import ExcitationSection
    from senetzoo.report.run import Run

# Both the page and its Markdown contain it; files without it are not replaced.
_MARK = "<!-- written by senetzoo report -->"


@as_command("report")
def command(
    runs: Annotated[tuple[Path, ...], PATH],
    *,
    out: Annotated[
        Path, FILE, "The page; the Markdown and its pictures are written beside it."
    ] = Path("report.html"),
    excitations: Annotated[
        bool, "Show what the gates of each finished run do with the test images of --data."
    ] = False,
    data: Annotated[Path | None, "The runs' data set, for --excitations."] = None,
    title: Annotated[str | None, "Title of the page."] = None,
    baseline: Annotated[
        str | None,
        "The variant that the others are compared with. Default: the recipe's first, or plain.",
    ] = None,
    pngs: Annotated[
        Path | None,
        "--png",
        FOLDER,
        "Also write the plots to FOLDER as PNG.",
        {"metavar": "FOLDER"},
    ] = None,
    as_json: Annotated[Json, "JSON of everything on the page."] = False,
) -> None:
    """Report on RUNS: folders of training runs, or folders that contain them.

    Writes a self-contained HTML page, and the same as Markdown: curves, accuracy with intervals,
    classes, confusions, mistakes, gradients, time, recipe. Works for runs in progress too; those
    in their first epoch are named. Reports that exist are replaced; other files are not.

    \b
    Examples:
      senetzoo report runs/digits-lenet5-0
      senetzoo report runs/cifar10_four_nets --out four_nets.html
      senetzoo report runs/ablation_positions --excitations --data cifar10
      senetzoo report runs/ablation_positions --baseline standard --png figures
      senetzoo report runs --json
    """
    from senetzoo.report.alike import told_apart
    from senetzoo.report.paired import in_order
    from senetzoo.report.results import results
    from senetzoo.report.run import find
    from senetzoo.train.recipe import default_fields
    from senetzoo.train.recipes import varied_by

    if out.suffix not in (".html", ".htm"):
        page_name = f"{out.stem or 'report'}.html"
        raise ConfigError(
            f"A report can't be written to {out}.",
            "It is an HTML page, with a Markdown file of the same name beside it.",
            f"Type for example: --out {out.parent / page_name}",
        )
    replaced = _replaced(out)
    found, recipes = told_apart(find(runs), varied_by, default_fields())
    if recipes:
        echo(recipes, err=True)
    title = title or ", ".join(dict.fromkeys(path.name for path in runs))
    variants = _variants(found, baseline)
    order = in_order(variants)
    found.sort(key=lambda run: min(order(run.label), order(run.header["variant"])))
    sections = _excitations(found, data) if excitations else ()
    write(found, out, title, sections, variants=variants, recipes=recipes, pngs=pngs)
    values = results(found, title, variants=variants, excitations=sections, recipes=recipes)
    for run in found:
        if not run.epochs:
            echo(f"{run.folder}: nothing to report yet, its first epoch is not finished", err=True)
    if values["no_difference"]:
        echo(values["no_difference"], err=True)
    text = f"report: {out} and {out.with_suffix('.md')}"
    say(as_json, values, text + " (replaced)" * replaced)


def _replaced(out: Path) -> bool:
    """Whether there is a report already; `ConfigError` for a file that isn't one."""
    there = [file for file in (out, out.with_suffix(".md")) if file.is_file()]
    for file in there:
        if _MARK not in file.read_text(encoding="utf-8", errors="replace"):
            raise ConfigError(
                f"A report can't be written to {out}.",
                f"{file} exists, and isn't a report of this version.",
                "Give another page with --out, or move the file away",
            )
    return bool(there)


def write(
    runs: Sequence[Run],
    out: Path,
    title: str,
    excitations: Sequence[ExcitationSection] = (),
    *,
    variants: Sequence[str] = (),
    recipes: str = "",
    pngs: Path | None = None,
) -> None:
    """Write the page about `runs`, the Markdown with its pictures beside it, and plots as PNG."""
    from senetzoo.report import page
    from senetzoo.report.figures import PNG_MARK

    made = page.make(runs, title, variants=variants, excitations=excitations, recipes=recipes)
    drawn = {}
    if pngs is not None:
        pngs.mkdir(parents=True, exist_ok=True)
        drawn = {pngs / f"{plot.name}.png": plot.png() for plot in page.plots(made)}
    for file in filter(Path.is_file, drawn):
        if PNG_MARK.encode() not in file.read_bytes():
            raise ConfigError(
                f"The plots can't be written to {pngs}.",
                f"{file} exists, and isn't known to be a plot of a report.",
                "Give another folder with --png, or move the file away",
            )
    pictures = out.with_name(f"{out.stem}-figures")
    text, files = page.markdown(made, pictures.name)
    whole = page.html(made)
    pictures.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (pictures / name).write_bytes(content)
    for file, content in drawn.items():
        with atomically(file) as partial:
            partial.write_bytes(content)
    write_text(out.with_suffix(".md"), text)
    write_text(out, whole)


def _variants(runs: Sequence[Run], baseline: str | None) -> Sequence[str]:
    """The variants of the runs' recipe, the baseline first."""
    from senetzoo.train.recipes import variants_of

    labels = list(dict.fromkeys(run.label for run in runs))
    if baseline is not None and baseline not in labels:
        raise ConfigError(
            f"There is no variant {baseline!r} in these runs.",
            f"The variants are {', '.join(labels)}.",
            nearest(baseline, labels),
        )
    own = variants_of(runs[0].header["recipe"]["name"]) or ("plain",)
    return own if baseline is None else (baseline, *own)


def _excitations(runs: Sequence[Run], path: Path | None) -> list[ExcitationSection]:
    """The excitations of the finished runs with gates, on the test images."""
    import torch

    from senetzoo.gates.common import GateModule
    from senetzoo.inspect.excitations import drift, excitations
    from senetzoo.report.excitations import excitation_section
    from senetzoo.train import evaluate
    from senetzoo.train.data import load_data
    from senetzoo.train.recipe import Recipe, networks_of

    sections: list[ExcitationSection] = []
    data = None
    for run in runs:
        if run.end is None:
            continue
        recipe = Recipe.from_json(run.header["recipe"])
        if data is None:
            data = load_data(recipe.replace(images_per_class=0, stream=False), path)
        model, initial = networks_of(run.folder)
        if any(isinstance(module, GateModule) for module in model.modules()):
            batches = evaluate.inputs(
                data.test, data, recipe, recipe.final_size, torch.device("cpu")
            )
            found = excitations(model, batches, classes=len(data.classes))
            moved, number = drift(model, initial), len(sections) + 1
            sections.append(
                excitation_section(run.name, found, data.classes, drift=moved, number=number)
            )
    if not sections:
        raise ConfigError(
            "The runs have no excitations to show.",
            "No run of a network with gates is finished.",
            "Leave out --excitations",
        )
    return sections
