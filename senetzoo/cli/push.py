"""The command ``senetzoo push``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from senetzoo._utils.files import user_path
from senetzoo._utils.terminal import echo
from senetzoo.cli.options import FOLDER, Json, Network, Stated, WeightsFile, as_command


@as_command("push")
def command(
    network: Network,
    *,
    repo: Annotated[str, "The repository.", {"metavar": "OWNER/NAME"}],
    weights: WeightsFile = None,
    preprocessing: Stated,
    format: Annotated[
        Literal["senetzoo", "timm"], "Library whose config and tensor names are used."
    ] = "senetzoo",
    private: Annotated[bool, "If the repository doesn't exist, create it as private."] = False,
    dry_run: Annotated[bool, "Show the files without uploading them."] = False,
    out: Annotated[Path | None, FOLDER, "--folder", "Also write the files to this folder."] = None,
    as_json: Json = False,
) -> None:
    """Push NETWORK with its weights and a model card to the Hugging Face Hub.

    NETWORK is a name, with or without a tag of its weights; or a folder that senetzoo.save or a
    training run wrote. A README.md in the folder is used as the card; otherwise one is generated,
    for a training run with its accuracy.
    With --format timm, timm and Transformers can read it too, if timm has the network.

    \b
    Examples:
      senetzoo push se_resnet20.cifar10_v1 --repo owner/se_resnet20 --dry-run
      senetzoo push runs/photos-resnet20 --repo owner/photos --private
      senetzoo push runs/photos-resnet18 --repo owner/photos --format timm
      senetzoo push my_network --repo owner/my_network --dry-run --json
    """
    from senetzoo.io import hub
    from senetzoo.io.folder import CONFIG, WEIGHTS
    from senetzoo.runs import SUMMARY, is_run, read_result
    from senetzoo.zoo import load, saved_in

    name = hub.branchless(repo)  # fails before the long part
    model = load(network, weights=weights, preprocessing=preprocessing)
    own, run = user_path(network) / hub.CARD, saved_in(network)
    finished = run is not None and is_run(run) and (run / SUMMARY).is_file()
    generated = weights is None and preprocessing is None and not own.is_file()
    result = read_result(run) if run is not None and finished and generated else None
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if out is None else out
        title = hub.stage(model, name, folder, own if own.is_file() else None, format, result)
        sizes = {file: (folder / file).stat().st_size for file in (hub.CARD, CONFIG, WEIGHTS)}
        card = (folder / hub.CARD).read_text(encoding="utf-8")
        if not as_json:
            echo("\n".join(f"{file}  {size:,} bytes" for file, size in sizes.items()))
        commit = None if dry_run else hub.upload(folder, name, private=private, message=title)
    if as_json:
        echo(json.dumps({"repo": name, "commit": commit, "files": sizes, "card": card}))
    elif commit is None:
        echo(f"\n{card}")
        echo(f"Nothing was pushed to {name}.")
    else:
        echo(f"Pushed to {name}, commit {commit}.")
        call = "timm.create_model" if format == "timm" else "senetzoo.load"
        more = ", pretrained=True" if format == "timm" else ""
        echo(f'Type: {call}("{hub.PREFIX}{name}@{commit}"{more})')
