"""The command ``senetzoo export``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import click

from senetzoo import _complete
from senetzoo._command import OneOf, SenetzooCommand
from senetzoo.deploy.export import FORMATS, SUFFIXES, Export, Format, check
from senetzoo.deploy.export import export as write
from senetzoo.errors import ConfigError
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.report import LoadReport
from senetzoo.weights.load import load_file_into
from senetzoo.zoo import create


@click.command(cls=SenetzooCommand)
@click.argument("network", metavar="NAME", shell_complete=_complete.networks)
@click.option("--to", "form", type=OneOf(FORMATS), required=True, help="Format.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="The file; OpenVINO writes two, .xml and .bin. Default: NAME in this folder.",
)
@click.option("--pretrained", is_flag=True, help="With the network's default weights.")
@click.option(
    "--weights", type=click.Path(path_type=Path), help="With those of this safetensors file."
)
@click.option(
    "--num-classes",
    type=click.IntRange(1, 1_000_000),
    help="Outputs. Default: the weights' or the network's.",
)
@click.option(
    "--size",
    type=click.IntRange(1, 16_384),
    help="Pixels of a side. Default: what the weights saw.",
)
@click.option(
    "--optimized",
    is_flag=True,
    help="Norms folded, and gates computed before the convolution whose output they scale.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of lines.")
def export(
    network: str,
    form: Format,
    output: Path | None,
    pretrained: bool,
    weights: Path | None,
    num_classes: int | None,
    size: int | None,
    optimized: bool,
    as_json: bool,
) -> None:
    """Write the network NAME to a file for another runtime.

    NAME may carry a tag of weights and a policy. The file takes any number of images, is compared
    with the network before it gets its name, and has the transforms and the classes in its
    metadata.

    \b
    Examples:
      senetzoo export se_resnet20 --pretrained --to onnx
      senetzoo export se_resnet20.cifar10_v1 --to openvino --optimized --output deploy/net.xml
      senetzoo export resnet50+eca --weights model.safetensors --num-classes 10 --to pt2
      senetzoo export se_resnet20 --pretrained --to pt2 --json
    """
    suffix = SUFFIXES[form]
    if output is None:
        output = Path(network.removeprefix("hf-hub:").replace("/", "-") + suffix)
    elif output.suffix != suffix:
        raise ConfigError(
            f"--to {form} can't write {output}.",
            f"Its files end in {suffix}.",
            f"Type: --output {output.with_suffix(suffix)}",
        )
    check(form)
    model = _network(network, pretrained, weights, num_classes)
    done = write(model, output, name=network, size=size, optimized=optimized)
    click.echo(json.dumps(_report(done, model)) if as_json else _text(done, model))


def _network(
    network: str, pretrained: bool, weights: Path | None, num_classes: int | None
) -> Classifier:
    if weights is None:
        return create(network, pretrained=pretrained, num_classes=num_classes)
    if pretrained or "." in network.partition("+")[0]:
        raise ConfigError(
            f"--weights {weights} can't be used here.",
            f"{network}{' --pretrained' * pretrained} names weights too.",
            "Leave one of them out",
        )
    model = create(network, num_classes=num_classes)
    load_file_into(model, weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    model.load_report = LoadReport(weights.name, "folder", digest, pinned="")
    return model


def _report(done: Export, model: Classifier) -> dict[str, object]:
    side, channels = done.metadata["size"], model.config.in_chans
    report = model.load_report
    return {
        "files": [{"path": str(file), "bytes": file.stat().st_size} for file in done.files],
        "images": ["batch", channels, side, side],
        "logits": ["batch", model.config.num_classes],
        "weights": None if report is None else dataclasses.asdict(report),
        "errors": {str(images): error for images, error in done.errors.items()},
        "metadata": done.metadata,
    }


def _text(done: Export, model: Classifier) -> str:
    report = model.load_report
    kept = "weights drawn at random" if report is None else f"weights {report.tag}"
    side, channels = done.metadata["size"], model.config.in_chans
    errors = ", ".join(f"{error:.1e} with {n}" for n, error in done.errors.items())
    return "\n".join(
        [
            f"Written to {' and '.join(map(str, done.files))}, "
            f"{sum(file.stat().st_size for file in done.files):,} bytes.",
            f"  {done.metadata['model']}, {kept}",
            f"  images (batch, {channels}, {side}, {side}) -> "
            f"logits (batch, {model.config.num_classes}), float32",
            f"  largest error of the logits, over the largest of them: {errors} random images",
        ]
    )
