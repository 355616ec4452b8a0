"""``senetzoo report``."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from senetzoo._utils.files import atomically
from senetzoo._utils.terminal import echo
from senetzoo.cli.options import FILE, FOLDER, PATH, Json, as_command, say
from senetzoo.errors import ConfigError, nearest
from senetzoo.report.markup import MARK, rendered
from senetzoo.runs import SPLIT

if TYPE_CHECKING:
    from senetzoo.report.excitations import ExcitationSection
    from senetzoo.report.page import RunReport
    from senetzoo.report.run import Run


@as_command("report")
def command(
    runs: Annotated[tuple[Path, ...], PATH],
    *,
    out: Annotated[
        Path, FILE, "The page; the Markdown and its pictures are written beside it."
    ] = Path("report.html"),
    excitations: Annotated[
        bool, "Show what the gates of each finished run do with its test images."
    ] = False,
    data: Annotated[
        Path | None,
        "The runs' data set, for --excitations. [not needed for digits, CIFAR and "
        "fine-tuned runs with a split.csv]",
    ] = None,
    title: Annotated[str | None, "Title of the page."] = None,
    baseline: Annotated[
        str | None,
        "The variant that the others are compared with. Default: the recipe's first, or plain, or "
        "that of the first run.",
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
    classes, confusions, mistakes, gradients, time, recipe. Works for runs in progress too, but
    not in their first epoch. A report is replaced, unless it was edited; other files are not.

    \b
    Examples:
      senetzoo report runs/digits-lenet5-0
      senetzoo report runs/cifar10_four_nets --out four_nets.html
      senetzoo report runs/ablation_positions --excitations --data cifar10
      senetzoo report runs/ablation_positions --baseline standard --png figures
      senetzoo report runs --json
    """
    from senetzoo.report.alike import told_apart
    from senetzoo.report.page import RunReport
    from senetzoo.report.paired import compared, in_order
    from senetzoo.report.results import results
    from senetzoo.report.run import by_label, find
    from senetzoo.train.recipe import default_fields
    from senetzoo.train.recipes import varied_by

    if out.suffix not in (".html", ".htm"):
        page_name = f"{out.stem or 'report'}.html"
        raise ConfigError(
            f"A report can't be written to {out}.",
            "It is an HTML page, with a Markdown file of the same name beside it.",
            f"Type for example: --out {out.parent / page_name}",
        )
    found, recipes = told_apart(find(runs), varied_by, default_fields())
    replaced = _replaced([out, out.with_suffix(".md")])
    if recipes:
        echo(recipes, err=True)
    title = title or ", ".join(dict.fromkeys(path.name for path in runs))
    variants = _variants(found, baseline)
    order = in_order(variants)
    # Other variants, such as those of compare, in the order in which they were first run.
    begun = {
        label: min(run.header["environment"].get("time", "") for run in own)
        for label, own in by_label(run for run in found if run.header["variant"]).items()
    }
    found.sort(
        key=lambda run: (
            min(order(run.label), order(run.header["variant"])),
            begun.get(run.label, ""),
        )
    )
    sections = _excitations(found, data) if excitations else ()
    report = RunReport(found, title, compared(found, variants), sections, recipes)
    write(report, out, pngs)
    values = results(report)
    for run in found:
        if not run.epochs:
            echo(f"{run.folder}: nothing to report yet, its first epoch is not finished", err=True)
    if values["no_difference"]:
        echo(values["no_difference"], err=True)
    text = f"report: {out} and {out.with_suffix('.md')}"
    say(as_json, values, text + " (replaced)" * replaced)


def _replaced(files: Iterable[Path]) -> bool:
    """Whether some of the files exist; `ConfigError` if a report can't replace one."""
    there = [file for file in files if file.exists()]
    for file in there:
        if why := _why_kept(file):
            raise ConfigError(
                f"The report can't replace {file}.",
                why,
                "Give other places with --out and --png, or move it away",
            )
    return bool(there)


def _why_kept(file: Path) -> str:
    """Why a new report can't replace `file`; empty if it can."""
    content = file.read_bytes() if file.is_file() else b""
    if MARK.encode() not in content:
        return "It exists, and isn't known to be of a report."
    text, signed, _ = content.rpartition(_SIGNED)
    picture = file.suffix in (".png", ".svg")
    whole = picture or (bool(signed) and content == _with_checksum(text))
    return "" if whole else "It is a report that was edited."


_SIGNED = b"<!-- sha256 of the report: "


def _with_checksum(text: bytes) -> bytes:
    return text + _SIGNED + hashlib.sha256(text).hexdigest().encode() + b" -->\n"


def write(report: RunReport, out: Path, pngs: Path | None = None) -> None:
    """Write the page, the Markdown with its pictures beside it, and plots as PNG.

    Pictures that only the replaced report has are deleted.
    """
    from senetzoo.report import page
    from senetzoo.train.recipe import default_fields

    made = page.make(report, default_fields())
    pictures, beside = out.with_name(f"{out.stem}-figures"), out.with_suffix(".md")
    text, drawn = page.markdown(made, pictures.name)
    files = {pictures / name: content for name, content in drawn.items()}
    if pngs is not None:
        files |= {pngs / f"{plot.name}.png": plot.png() for plot in page.plots(made)}
    for file, written in ((beside, text), (out, rendered("page.html", **made))):
        files[file] = _with_checksum(written.encode())
    _replaced(files)
    before = beside.read_text("utf-8", errors="replace") if beside.exists() else ""
    shown = [f for f in pictures.glob("*") if f"({pictures.name}/{f.name})" in before]
    for folder in {file.parent: None for file in files}:
        folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        with atomically(file) as partial:
            partial.write_bytes(content)
    for file in shown:
        if file not in files and not _why_kept(file):
            file.unlink()


def _variants(runs: Sequence[Run], baseline: str | None) -> Sequence[str]:
    """The variants of the runs' recipe, the baseline first."""
    from senetzoo.train.recipes import variants_of

    labels = list(dict.fromkeys(run.label for run in runs))
    recipe = runs[0].header["recipe"]["name"]
    own = variants_of(recipe)
    if baseline is not None and baseline not in labels:
        raise ConfigError(
            f"There is no variant {baseline!r} in these runs.",
            f"The variants are {', '.join(labels)}.",
            f"Type: senetzoo train {recipe} --only {baseline}"
            if baseline in own
            else nearest(baseline, labels),
        )
    own = own or ("plain",)
    return own if baseline is None else (baseline, *own)


def _excitations(runs: Sequence[Run], path: Path | None) -> list[ExcitationSection]:
    """The excitations of the finished runs with gates, on the test images."""
    import torch

    from senetzoo.gates.common import GateModule
    from senetzoo.inspect.excitations import drift, excitations
    from senetzoo.report.excitations import excitation_section
    from senetzoo.train import evaluate
    from senetzoo.train.data import load_data
    from senetzoo.train.recipe import read_run
    from senetzoo.zoo import load

    sections: list[ExcitationSection] = []
    # Runs that differ in their network share images in memory.
    read = functools.lru_cache(maxsize=1)(load_data)
    for run in runs:
        if run.end is None or run.own_loop:
            continue
        (recipe, summary), model = read_run(run.folder), load(run.folder)
        if any(isinstance(module, GateModule) for module in model.modules()):
            listed = run.folder / SPLIT
            where = path or (listed if listed.is_file() else None)
            alike = recipe.replace(model="", images_per_class=0, stream=False)
            data = read(alike, where)
            batches = evaluate.inputs(
                data.test, data, recipe, recipe.final_size, torch.device("cpu")
            )
            found = excitations(model, batches, classes=len(data.classes))
            initial = recipe.build(model.num_classes, model.in_chans, summary["seed"])
            moved, number = drift(model, initial), len(sections) + 1
            sections.append(
                excitation_section(run.name, found, data.classes, drift=moved, number=number)
            )
    if not sections:
        raise ConfigError(
            "The runs have no excitations to show.",
            "No run of a recipe is finished and has gates; the data of own loops isn't known.",
            "Leave out --excitations",
        )
    return sections
