"""The command ``senetzoo list``."""

from __future__ import annotations

import json

import click

import senetzoo
from senetzoo.cli import complete
from senetzoo.cli.base import SenetzooCommand


@click.command("list", cls=SenetzooCommand)
@click.argument("pattern", default="*", shell_complete=complete.networks)
@click.option("--pretrained", is_flag=True, help="Only networks with published weights.")
@click.option("--family", help="Only this family.", shell_complete=complete.families)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of lines.")
def command(pattern: str, pretrained: bool, family: str | None, as_json: bool) -> None:
    """List networks whose name matches PATTERN, with the tags of their weights.

    \b
    Examples:
      senetzoo list
      senetzoo list 'se_*' --pretrained
      senetzoo list --family resnet --json
    """
    from senetzoo.errors import ConfigError, nearest
    from senetzoo.weights.manifest import tags

    names = senetzoo.list_models(pattern, pretrained=pretrained or None, family=family)
    if not names:
        raise ConfigError(
            f"No network matches {pattern!r}" + (" with these options." if pretrained else "."),
            "* stands for any letters.",
            (nearest(pattern, senetzoo.list_models()) if not (pretrained or family) else "")
            or "Type for example: senetzoo list '*resnet*'",
        )
    if as_json:
        click.echo(json.dumps([{"name": name, "weights": tags(name)} for name in names]))
        return
    for name in names:
        click.echo(f"{name}  {', '.join(tags(name))}".rstrip())
