"""The command ``senetzoo explain``."""

from __future__ import annotations

import json

import click

import senetzoo
from senetzoo.cli import complete
from senetzoo.cli.base import SenetzooCommand


@click.command("explain", cls=SenetzooCommand)
@click.argument("network", shell_complete=complete.networks_and_folders)
@click.option(
    "--policy",
    help="A policy over the network's own, such as se8@pre/s3-4.",
    shell_complete=complete.policies,
)
@click.option("--json", "as_json", is_flag=True, help="JSON, with empty sites.")
def command(network: str, policy: str | None, as_json: bool) -> None:
    """Explain NETWORK: size, cost, and which gate sits where.

    NETWORK is a name, with or without a tag and a policy; a folder that senetzoo.save or a training
    run wrote; or hf-hub:OWNER/NAME.

    \b
    Examples:
      senetzoo explain se_resnet50
      senetzoo explain resnet50+se8@pre/s3-4+eca/s1-2
      senetzoo explain resnet20 --policy eca --json
    """
    explanation = senetzoo.explain(network, policy)
    click.echo(json.dumps(explanation.as_dict()) if as_json else str(explanation))
