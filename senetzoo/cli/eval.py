"""The command ``senetzoo eval``."""

from __future__ import annotations

import json
from typing import Any

import click

from senetzoo._utils.environment import MOST_THREADS, TORCH_DTYPES, check_device, threads_set
from senetzoo.cli import complete
from senetzoo.cli.base import OneOf, SenetzooCommand
from senetzoo.cli.options import network_options
from senetzoo.eval.accuracy import evaluate_networks


@click.command("eval", cls=SenetzooCommand, context_settings={"show_default": True})
@click.argument("network", shell_complete=complete.networks_and_folders)
@click.argument("data", shell_complete=complete.data)
@network_options
@click.option(
    "--dtype", type=OneOf(list(TORCH_DTYPES)), default="fp32", help="Of weights and activations."
)
@click.option("--batch", type=click.IntRange(min=1), default=64, help="Images at a time.")
@click.option(
    "--device", default="cpu", shell_complete=complete.devices, help="cpu, cuda, cuda:1 or mps."
)
@click.option(
    "--threads",
    type=click.IntRange(1, MOST_THREADS),
    help="On the CPU. Default: torch's choice.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def command(
    network: str,
    data: str,
    stated: dict[str, Any],
    dtype: str,
    batch: int,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure the accuracy of NETWORK on DATA.

    NETWORK is a name, with its default weights or those of a tag; a folder that senetzoo.save or a
    training run wrote; or hf-hub:OWNER/NAME.

    Top-1 of all images and of each class, and top-5, each with its 95 % interval. DATA is a
    folder of class folders, a copy of CIFAR-10 or flower_photos (its test split), a parquet file,
    or the word digits.

    \b
    Examples:
      senetzoo eval lenet5 digits
      senetzoo eval se_resnet20 cifar10/ --json
      senetzoo eval runs/photos-resnet20-0 photos/
      senetzoo eval resnet20 photos/ --weights resnet20.safetensors --mean 0.5 --std 0.5
    """
    where = check_device(device, bf16=dtype == "bf16")
    with threads_set(threads):
        (found,) = evaluate_networks(
            [network], data, stated=stated, dtypes=[dtype], batch=batch, device=where
        )
    click.echo(json.dumps(found.as_dict()) if as_json else str(found))
