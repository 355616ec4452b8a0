"""The command ``senetzoo eval``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import click

from senetzoo._utils.environment import check_device, threads_set
from senetzoo._utils.files import write_csv, write_text
from senetzoo._utils.terminal import columns, counted, echo, progress
from senetzoo.cli.networks import (
    evaluate_file,
    evaluate_networks,
    opened,
    trained,
    used_in_training,
)
from senetzoo.cli.options import (
    FILE,
    FOLDER,
    Batch,
    CsvFile,
    Data,
    Device,
    Json,
    Network,
    Stated,
    Threads,
    WeightsFile,
    as_command,
    say,
)
from senetzoo.data.sets import Split
from senetzoo.errors import ConfigError
from senetzoo.eval.accuracy import Evaluation
from senetzoo.eval.calibration import PRECISION
from senetzoo.eval.robustness import Robustness, robustness
from senetzoo.io import timm
from senetzoo.io.folder import CONFIG
from senetzoo.io.save import save, store_calibration
from senetzoo.nn.modes import TORCH_DTYPES
from senetzoo.runs import SPLIT, chose_epoch
from senetzoo.zoo import is_exported, saved_in

# Fewer images than this are too few to calibrate with.
_FEW = 100


@as_command("eval", exits={0: "done; images that can't be read are left out and counted"})
def command(
    network: Network,
    data: Data,
    *,
    split: Annotated[
        Split | None, "Which split of DATA. [test; if there is none, val, or all of DATA]"
    ] = None,
    weights: WeightsFile = None,
    preprocessing: Stated,
    tta: Annotated[bool, "Average the logits of each image and of its mirror image."] = False,
    calibrate: Annotated[
        bool,
        "Fit the temperature, and the probability for predict --reject auto, to DATA and store "
        "them.",
    ] = False,
    out: Annotated[
        Path | None, FOLDER, "Where --calibrate saves NETWORK if it isn't a folder."
    ] = None,
    csv_file: CsvFile = None,
    corruptions: Annotated[
        bool, "Also test noisy, blurred and compressed images, which takes 30 times as long."
    ] = False,
    plot_file: Annotated[
        Path | None, FILE, "--plot", "Plot --corruptions as SVG.", {"metavar": "FILE"}
    ] = None,
    dtype: Annotated[Literal["fp32", "bf16"], "Type of weights and activations."] = "fp32",
    batch: Batch = 64,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure how well NETWORK classifies DATA.

    NETWORK is a name, with its default weights or those of a tag; a folder that senetzoo.save or a
    training run wrote; hf-hub:OWNER/NAME; or a file that senetzoo export wrote. DATA is a folder of
    class folders, perhaps in train, val and test; a CSV of path,label[,split]; a parquet file; a
    copy of CIFAR or flower_photos; hf-hub:OWNER/NAME; or one of the words digits, cifar10,
    cifar100. Images that can't be read are reported, skipped and counted.

    Prints top-1, top-5 (of more than five classes) and the accuracy of each class, or of the 20
    least accurate ones, with 95 % intervals, balanced accuracy, macro precision and F1, calibration
    error, the confusion matrix of up to ten classes, and the most confident mistakes. --json has
    all of it; --csv has a row for each image: path, label, predicted, probability,
    label_probability, right.

    --calibrate finds the temperature with the lowest loss on DATA, and the smallest probability at
    or above which 99 % of the predictions are right. Both are stored in the folder NETWORK, or with
    the network in --out; from then on predict, eval and export use the temperature, and predict
    --reject auto the probability. DATA must not have been trained on, and must not be what you
    report results on: use the validation split, not the test split.

    \b
    Examples:
      senetzoo eval lenet5 digits
      senetzoo eval se_resnet20 cifar10/ --json
      senetzoo eval runs/photos-resnet20 runs/photos-resnet20/split.csv --csv images.csv
      senetzoo eval runs/photos-resnet20 runs/photos-resnet20/split.csv --calibrate
      senetzoo eval photos.onnx new_photos/ --json
      senetzoo eval se_resnet20 cifar10/ --corruptions --plot robust.svg
      senetzoo eval resnet20 photos/ --weights resnet20.safetensors --mean 0.5 --std 0.5
    """
    stated = {"weights": weights, "preprocessing": preprocessing}
    folder = None
    if calibrate and not is_exported(network):
        folder = _calibrated_in(network, stated, out, tta)
    if out is not None and not calibrate:
        raise click.UsageError("--out requires --calibrate.")
    if corruptions and tta:
        raise click.UsageError("--corruptions can't be combined with --tta, which predict lacks.")
    if plot_file is not None and not corruptions:
        raise click.UsageError("--plot requires --corruptions.")
    if plot_file is not None and plot_file.suffix != ".svg":
        raise click.UsageError(f"--plot writes SVG: --plot {plot_file.with_suffix('.svg')}")
    where = check_device(device, bf16=dtype == "bf16")
    with threads_set(threads):
        if is_exported(network):
            needs = {"tta": tta, "corruptions": corruptions, "calibrate": calibrate}
            other = {"dtype": dtype == "bf16", "device": where.type != "cpu"}
            found = evaluate_file(opened(network, **stated, **needs, **other), data, split, batch)
        else:
            (found,) = evaluate_networks(
                [network],
                data,
                split,
                stated=stated,
                dtypes=[dtype],
                batch=batch,
                tta=tta,
                device=where,
            )
    if csv_file is not None:
        rows = list(found.rows())
        write_csv(csv_file, list(rows[0]), rows)
    used = None if weights else used_in_training(network, found.data.images)
    seen, chose = used or (0, 0)
    more: dict[str, object] = {} if used is None else {"trained_on": seen, "chose_epoch": chose}
    text = [str(found)]
    if seen and split != "train":
        kept = shlex.quote(str(Path(network) / SPLIT))
        echo(
            f"warning: {seen} of these {len(found.data.images)} images are training images of "
            f"{network}: the accuracy is too optimistic.\n"
            f"Type: senetzoo eval {shlex.quote(network)} {kept}, or give new images",
            err=True,
        )
    if chose:
        text.append(chose_epoch(f"{chose} of these images"))
    if corruptions:
        model = trained(network, **stated).to(where, TORCH_DTYPES[dtype])
        total = 31 * len(found.data.images)
        with threads_set(threads), progress(total, "corruptions", "image") as advance:
            robust = robustness(model, found.data, batch=batch, advance=advance)
        more |= {"robustness": robust.as_dict()}
        text.append(str(robust))
        if plot_file is not None:
            _plot(robust, plot_file)
    if folder is not None:
        if (few := len(found.data.images)) < _FEW:
            echo(
                f"warning: {counted(few, 'image')} can't show how likely an error is: the "
                "temperature and the probability for --reject auto are uncertain.\n"
                f"Calibrate with at least {_FEW} images",
                err=True,
            )
        calibration = _calibrate(found)
        temperature, reject_below = calibration["temperature"], calibration["reject_below"]
        if out is None:
            store_calibration(folder, temperature, reject_below)
        else:
            model = trained(network, **stated)
            model.temperature, model.reject_below = temperature, reject_below
            save(model, folder)
        more |= {"calibration": {**calibration, "folder": str(folder)}}
        text.append(_calibration_text(found, calibration, folder))
    say(as_json, found.as_dict() | more, "\n\n".join(text))


def _plot(found: Robustness, file: Path) -> None:
    """Accuracy by severity, a line for each corruption."""
    from senetzoo.report.figures import COLORS, plot

    def draw(axes: Any) -> None:
        axes.axhline(100 * found.clean.accuracy, color="#808080", ls="--", lw=1, label="clean")
        for (name, row), color in zip(found.corrupted.items(), COLORS, strict=False):
            values = [100 * tally.accuracy for tally in row]
            axes.plot(range(1, len(row) + 1), values, ".-", color=color, label=name)
        axes.set_xlabel("severity")
        axes.set_ylabel("accuracy in %")
        axes.legend(frameon=False, fontsize=8)

    write_text(file, plot("corruptions", "Accuracy on corrupted images", draw).inked("#000000"))


def _calibrated_in(network: str, stated: dict[str, Any], out: Path | None, tta: bool) -> Path:
    """The folder that ``--calibrate`` writes to."""
    if tta:
        raise click.UsageError("--calibrate can't be combined with --tta, which predict lacks.")
    if out is not None:
        return out
    folder = saved_in(network)
    other = any(value is not None for value in stated.values())
    if folder is None or other or timm.found_in(folder / CONFIG) is not None:
        raise ConfigError(
            f"There is no folder to store a calibration of {network} in.",
            "It is stored in a folder that senetzoo.save or a training run wrote, not in timm's "
            "format, used without other weights or preprocessing.",
            "Type for example: --out calibrated, which saves the network there",
        )
    return folder


def _calibrate(found: Evaluation) -> dict[str, Any]:
    """The result of ``--calibrate`` as JSON values."""
    calibrated = found.predictions.calibrated()
    scores, reject_below = calibrated.scores(), calibrated.smallest_probability()
    kept = calibrated.confidence >= (1.0 if reject_below is None else reject_below)
    return {
        "temperature": scores.temperature,
        "determined": scores.best_temperature is not None,
        "loss": round(scores.loss, 6),
        "calibration_error": round(scores.calibration_error, 6),
        "reject_below": reject_below,
        "kept": int(kept.sum()),
        "kept_right": int(calibrated.right[kept].sum()),
    }


def _calibration_text(found: Evaluation, made: dict[str, Any], folder: Path) -> str:
    before, total = found.predictions.scores(), len(found.predictions.labels)
    rows = [
        ["loss", f"{before.loss:.4f}", "->", f"{made['loss']:.4f}"],
        [
            "calibration error",
            f"{before.calibration_error:.2%}",
            "->",
            f"{made['calibration_error']:.2%}",
        ],
    ]
    reject = made["reject_below"]
    lines = [
        f"calibrated on these {total} images, and stored in {folder}:",
        f"temperature {made['temperature']:.4g}"
        + ", which these images do not determine" * (not made["determined"]),
        *columns(rows, left=4),
        f"--reject auto: no probability gives {PRECISION:.0%} right, so none is stored"
        if reject is None
        else f"--reject auto: below {reject:.4g}, which keeps {made['kept']} of {total} images, "
        f"{made['kept_right']} of them right",
        "Report results on other images: on these they are too optimistic.",
    ]
    return "\n".join(lines)
