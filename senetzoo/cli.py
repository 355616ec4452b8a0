"""The command ``senetzoo``."""

from __future__ import annotations

import json

import click

import senetzoo
from senetzoo import _complete
from senetzoo._command import LazyGroup, SenetzooCommand

_ELSEWHERE = {
    "bench": "senetzoo.bench.command:bench",
    "eval": "senetzoo.eval.command:command",
    "app": "senetzoo.app.command:command",
    "export": "senetzoo.deploy.export_command:export",
    "inspect": "senetzoo.report.inspect_command:command",
    "predict": "senetzoo.predict:command",
    "push": "senetzoo.push:command",
    "report": "senetzoo.report.command:report",
    "train": "senetzoo.train.command:train",
    "weights": "senetzoo.weights.command:weights",
}
_COMPLETION = """
\b
Completion with the Tab key, of commands, options, networks, tags and recipes:
  bash, in ~/.bashrc:  eval "$(_SENETZOO_COMPLETE=bash_source senetzoo)"
  zsh, in ~/.zshrc:    eval "$(_SENETZOO_COMPLETE=zsh_source senetzoo)"
  fish, in ~/.config/fish/completions/senetzoo.fish:
    _SENETZOO_COMPLETE=fish_source senetzoo | source
"""


@click.group(
    cls=LazyGroup,
    elsewhere=_ELSEWHERE,
    name="senetzoo",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_COMPLETION,
)
@click.version_option(senetzoo.__version__, prog_name="senetzoo")
def main() -> None:
    """Image classifiers in which where channel attention goes is a value you pass.

    With --json a command prints its result, and nothing else, as JSON on the standard output.
    Progress, warnings and errors go to stderr; there is a progress bar only on a terminal.

    \b
    Examples:
      senetzoo predict photo.jpg
      senetzoo list 'se_*' --pretrained
      senetzoo explain resnet50+se16@pre
      senetzoo bench --model resnet20 --model se_resnet20
    """


@main.command("list", cls=SenetzooCommand)
@click.argument("pattern", default="*", shell_complete=_complete.networks)
@click.option("--pretrained", is_flag=True, help="Only networks with published weights.")
@click.option("--family", help="Only this family.", shell_complete=_complete.families)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of lines.")
def list_command(pattern: str, pretrained: bool, family: str | None, as_json: bool) -> None:
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


@main.command(cls=SenetzooCommand)
@click.argument("network", shell_complete=_complete.networks)
@click.option(
    "--policy",
    help="A policy over the network's own, such as se8@pre/s3-4.",
    shell_complete=_complete.policies,
)
@click.option("--json", "as_json", is_flag=True, help="JSON, with empty sites.")
def explain(network: str, policy: str | None, as_json: bool) -> None:
    """Explain NETWORK: size, cost, and which gate sits where.

    \b
    Examples:
      senetzoo explain se_resnet50
      senetzoo explain resnet50+se8@pre/s3-4+eca/s1-2
      senetzoo explain resnet20 --policy eca --json
    """
    explanation = senetzoo.explain(network, policy)
    click.echo(json.dumps(explanation.as_dict()) if as_json else str(explanation))


if __name__ == "__main__":
    main()
