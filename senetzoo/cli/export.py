"""The command ``senetzoo export``."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated

import click

from senetzoo._utils.files import user_path
from senetzoo._utils.terminal import echo
from senetzoo.cli import complete
from senetzoo.cli.networks import trained, used_in_training
from senetzoo.cli.options import DATA, Json, Network, Stated, WeightsFile, as_command, say
from senetzoo.deploy.beside import Beside, divided
from senetzoo.deploy.export import Export, check
from senetzoo.deploy.export import export as write
from senetzoo.deploy.writers import SUFFIXES, FileDtype, Format
from senetzoo.errors import ConfigError
from senetzoo.eval.data import images_for
from senetzoo.nn.classifier import Classifier
from senetzoo.runs import SPLIT, chose_epoch
from senetzoo.zoo import create, saved_in


@as_command("export")
def command(
    network: Network,
    *,
    form: Annotated[Format, "--to", "Format."],
    output: Annotated[
        Path | None,
        "The file to write; OpenVINO writes two, .xml and .bin. Default: NETWORK in this folder.",
    ] = None,
    dtype: Annotated[
        FileDtype,
        "Type of the weights, and in onnx and with int8 of the maps. int8 (onnx and openvino "
        "only) requires --data.",
    ] = "fp32",
    with_preprocessing: Annotated[
        bool,
        "Include the preprocessing: the file takes uint8 images (batch, height, width, channels) "
        "of any size and returns probabilities.",
    ] = False,
    data: Annotated[
        str | None,
        complete.data,
        "Labeled images on which the file and NETWORK are evaluated: the test split; if there is "
        f"none, val, or all. {DATA}",
    ] = None,
    weights: WeightsFile = None,
    preprocessing: Stated,
    random: Annotated[bool, "Use random weights, to try out the format."] = False,
    optimized: Annotated[
        bool,
        "Fold norms, and compute gates before the convolution whose output they scale.",
    ] = False,
    as_json: Json = False,
) -> None:
    """Export NETWORK with its weights to a file for another runtime.

    NETWORK is a name, with or without a tag of its weights and a policy; a folder that
    senetzoo.save or a training run wrote; or hf-hub:OWNER/NAME. The file takes any batch size, has
    the preprocessing (or else the usual one) and the classes, if they are known, in its metadata,
    and is checked against the network before it replaces an existing file.

    int8 is calibrated on up to 300 of the same split's images, at most half of them, and evaluated
    on the others.

    \b
    Examples:
      senetzoo export se_resnet20 --to onnx
      senetzoo export runs/photos --to onnx --with-preprocessing --data runs/photos/split.csv
      senetzoo export runs/photos --to openvino --dtype int8 --data runs/photos/split.csv
      senetzoo export runs/digits-lenet5-0 --to onnx --output digits.onnx
      senetzoo export se_resnet20.cifar10_v1 --to openvino --optimized --output deploy/net.xml
      senetzoo export resnet50+eca --weights model.safetensors --to pt2 --json
    """
    suffix = SUFFIXES[form]
    if output is None:
        named = network.removeprefix("hf-hub:").rstrip("/")
        folder = user_path(named)
        stem = folder.resolve().name if folder.is_dir() else named.replace("/", "-")
        output = Path(stem + suffix)
    elif output.suffix != suffix:
        raise ConfigError(
            f"--to {form} can't write {output}.",
            f"Files of this format end in {suffix}.",
            f"Type: --output {output.with_suffix(suffix)}",
        )
    run = saved_in(network)
    listed = run is not None and (run / SPLIT).is_file()
    images = shlex.quote(str(Path(network) / SPLIT)) if listed else "FOLDER"
    check(form, dtype, has_data=data is not None, images=images)
    if random and (weights or preprocessing):
        raise click.UsageError(
            "--random can't be combined with --weights, --mean, --std, --size or --crop."
        )
    if random:
        model = create(network)
    else:
        model = trained(network, weights=weights, preprocessing=preprocessing)
    labeled = None if data is None else images_for(model, data)
    used = None
    if labeled is not None and not weights:
        evaluated = divided(labeled)[1] if dtype == "int8" else labeled
        used = used_in_training(network, evaluated.images)
    done = write(
        model,
        output,
        dtype=dtype,
        with_preprocessing=with_preprocessing,
        data=labeled,
        name=network,
        optimized=optimized,
    )
    trained_on, chose = used or (0, 0)
    if trained_on:
        echo(
            f"warning: {trained_on} images of {data} are training images of {network}: the "
            "accuracies are too optimistic.",
            err=True,
        )
    text = _text(done, model)
    if chose:
        text += f"\n  {chose_epoch(f'{chose} of these images')}"
    say(as_json, _report(done, model), text)


def _report(done: Export, model: Classifier) -> dict[str, object]:
    taken, given = _shapes(done, model)
    report = model.load_report
    return {
        "files": [{"path": str(file), "bytes": file.stat().st_size} for file in done.files],
        "images": taken,
        given: ["batch", _outputs(model)],
        "weights": None if report is None else dataclasses.asdict(report),
        "errors": {str(images): error for images, error in done.errors.items()},
        "beside": None if done.beside is None else done.beside.as_dict(),
        "metadata": done.metadata,
    }


def _shapes(done: Export, model: Classifier) -> tuple[list[object], str]:
    """The shape of the file's input, and the name of its output."""
    side, channels = done.metadata["size"], model.in_chans
    if done.inside:
        return ["batch", "height", "width", channels], "probabilities"
    return ["batch", channels, side, side], "logits" if model.num_classes else "features"


def _outputs(model: Classifier) -> int:
    return model.num_classes or getattr(model.get_classifier(), "in_features", model.num_features)


def _text(done: Export, model: Classifier) -> str:
    report = model.load_report
    name = str(done.metadata["model"])
    kept = ", random weights" if report is None else f", weights {report.tag}"
    if report is not None and report.tag in (name, Path(name).name):
        kept = ""
    taken, given = _shapes(done, model)
    shape = ", ".join(map(str, taken))
    of = given if done.inside else f"{given}, relative to the largest"
    int8 = done.metadata["dtype"] == "int8"
    kind = "calibration" if int8 and not done.inside else "random"
    most, images = max(done.errors.values()), " and ".join(map(str, done.errors))
    return "\n".join(
        [
            f"Written to {' and '.join(map(str, done.files))}, "
            f"{sum(file.stat().st_size for file in done.files):,} bytes.",
            f"  {name}{kept}",
            f"  images ({shape}), {'uint8' if done.inside else 'float32'} -> "
            f"{given} (batch, {_outputs(model)}), float32",
            f"  {done.computes}",
            f"  largest error of the {of}: {most:.2g}, on batches of {images} {kind} images",
            *([f"  {done.beside}"] if done.beside else []),
            *([f"  {_calibrated(done, done.beside)}"] if done.beside and int8 else []),
        ]
    )


def _calibrated(done: Export, beside: Beside) -> str:
    """How much worse an int8 file may be; few images calibrate badly and show little."""
    (low, _), count = beside.interval, len(beside.file.labels)
    return (
        f"calibrated on {done.metadata['calibration']}, and evaluated on the {count} others; as "
        f"far as these show, the file may be up to {max(-low, 0.0):.1f} points worse (95 %)"
    )
