"""The command ``senetzoo eval``."""

from __future__ import annotations

from typing import Annotated, Literal

from senetzoo._utils.environment import check_device, threads_set
from senetzoo.cli.networks import evaluate_networks
from senetzoo.cli.options import (
    Batch,
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


@as_command("eval")
def command(
    network: Network,
    data: Data,
    *,
    weights: WeightsFile = None,
    preprocessing: Stated,
    dtype: Annotated[Literal["fp32", "bf16"], "Of weights and activations."] = "fp32",
    batch: Batch = 64,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: Json = False,
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
    stated = {"weights": weights, "preprocessing": preprocessing}
    where = check_device(device, bf16=dtype == "bf16")
    with threads_set(threads):
        (found,) = evaluate_networks(
            [network], data, stated=stated, dtypes=[dtype], batch=batch, device=where
        )
    say(as_json, found.as_dict(), str(found))
