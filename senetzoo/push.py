"""The command ``senetzoo weights push``: a network to the Hugging Face Hub."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from senetzoo import _complete
from senetzoo._command import SenetzooCommand


@click.command("push", cls=SenetzooCommand)
@click.argument(
    "source", metavar="NETWORK.TAG|FOLDER", shell_complete=_complete.networks_and_folders
)
@click.option("--repo", required=True, metavar="OWNER/NAME", help="The repository.")
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
    source: str, repo: str, private: bool, dry_run: bool, out: Path | None, as_json: bool
) -> None:
    """Push weights with their card to the Hugging Face Hub.

    NETWORK.TAG are weights of the manifest, FOLDER a network that senetzoo.save wrote; a README.md
    in it is sent as it is, else one is written.

    \b
    Examples:
      senetzoo weights push se_resnet20.cifar10_v1 --repo owner/se_resnet20 --dry-run
      senetzoo weights push my_network --repo owner/my_network --private
      senetzoo weights push my_network --repo owner/my_network --dry-run --json
    """
    from senetzoo.weights import hub
    from senetzoo.weights.folder import CONFIG, WEIGHTS

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if out is None else out
        name, title = stage(source, repo, folder)
        sizes = {file: (folder / file).stat().st_size for file in (hub.CARD, CONFIG, WEIGHTS)}
        card = (folder / hub.CARD).read_text(encoding="utf-8")
        if not as_json:
            click.echo("\n".join(f"{file}  {size:,} bytes" for file, size in sizes.items()))
        commit = None if dry_run else hub.push(folder, name, private=private, message=title)
    if as_json:
        click.echo(json.dumps({"repo": name, "commit": commit, "files": sizes, "card": card}))
    elif commit is None:
        click.echo(f"\n{card}")
        click.echo(f"Nothing was pushed to {name}.")
    else:
        click.echo(f"Pushed to {name}, commit {commit}.")
        click.echo(f'Type: senetzoo.create("{hub.PREFIX}{name}@{commit}")')


def stage(source: str, repo: str, folder: Path) -> tuple[str, str]:
    """Write what is pushed: card, ``config.json`` and weights.

    Args:
        source: Tag of the manifest, or folder.
        repo: The repository.
        folder: Where to write.

    Returns:
        The repository, and a title.

    Raises:
        ConfigError: `repo` or `source` names nothing.
        WeightsError: The weights can't be had, or are no whole network.
    """
    import senetzoo
    from senetzoo.counting import count
    from senetzoo.errors import ConfigError
    from senetzoo.registry import ENTRIES
    from senetzoo.weights import hub, manifest
    from senetzoo.weights.card import card, check_card
    from senetzoo.weights.folder import CONFIG, described

    name, revision = hub.parsed(repo.removeprefix(hub.PREFIX))
    if revision is not None:
        raise ConfigError(
            f"--repo {repo} names a revision.",
            "A push is a new commit of the main branch.",
            f"Type: --repo {name}",
        )
    tag, entry, own = "", None, Path(source) / hub.CARD
    if Path(source).is_dir():
        # All of it is read and checked: what does not load is not pushed.
        model = senetzoo.load(Path(source))
        title = f"senetzoo {senetzoo.__version__}"
    else:
        network, _, version = source.partition(".")
        if network not in ENTRIES:
            raise ConfigError(
                f"There is no network {network!r}, and no such folder.",
                "What is pushed are weights of the manifest, or a folder that senetzoo.save wrote.",
                f"Type for example: senetzoo weights push se_resnet20.cifar10_v1 --repo {name}",
            )
        tag, entry = manifest.find(network, version or None)
        model = senetzoo.create(tag)
        title = f"{tag}, by senetzoo {senetzoo.__version__}"
    senetzoo.save(model, folder)
    description = described(folder / CONFIG)
    if entry is None and own.is_file():
        text = own.read_text(encoding="utf-8")
        check_card(text, str(own))
    else:
        text = card(name, description, count(model), tag, entry)
    (folder / hub.CARD).write_text(text, encoding="utf-8")
    return name, title
