"""The command ``senetzoo push``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click

from senetzoo.cli import complete
from senetzoo.cli.base import SenetzooCommand
from senetzoo.cli.options import network_options


@click.command("push", cls=SenetzooCommand)
@click.argument("network", shell_complete=complete.networks_and_folders)
@click.option("--repo", required=True, metavar="OWNER/NAME", help="The repository.")
@network_options
@click.option("--private", is_flag=True, help="Make it a private one, where it does not exist.")
@click.option("--dry-run", is_flag=True, help="Show the files, and send nothing.")
@click.option(
    "--folder",
    "out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the files to this folder as well.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of lines.")
def command(
    network: str,
    repo: str,
    stated: dict[str, Any],
    private: bool,
    dry_run: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Push a NETWORK with its weights and a card to the Hugging Face Hub.

    NETWORK is a name, with or without a tag of its weights; or a folder that senetzoo.save or a
    training run wrote: a README.md in it is sent as it is, else one is written.

    \b
    Examples:
      senetzoo push se_resnet20.cifar10_v1 --repo owner/se_resnet20 --dry-run
      senetzoo push runs/photos-resnet20-0 --repo owner/photos --private
      senetzoo push my_network --repo owner/my_network --dry-run --json
    """
    from senetzoo.io import hub
    from senetzoo.io.folder import CONFIG, WEIGHTS
    from senetzoo.zoo import load

    name = hub.branchless(repo)  # before the long part
    model = load(network, **stated)
    own = Path(network) / hub.CARD
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if out is None else out
        title = hub.stage(model, name, folder, own if own.is_file() else None)
        sizes = {file: (folder / file).stat().st_size for file in (hub.CARD, CONFIG, WEIGHTS)}
        card = (folder / hub.CARD).read_text(encoding="utf-8")
        if not as_json:
            click.echo("\n".join(f"{file}  {size:,} bytes" for file, size in sizes.items()))
        commit = None if dry_run else hub.upload(folder, name, private=private, message=title)
    if as_json:
        click.echo(json.dumps({"repo": name, "commit": commit, "files": sizes, "card": card}))
    elif commit is None:
        click.echo(f"\n{card}")
        click.echo(f"Nothing was pushed to {name}.")
    else:
        click.echo(f"Pushed to {name}, commit {commit}.")
        click.echo(f'Type: senetzoo.load("{hub.PREFIX}{name}@{commit}")')
