"""The command ``senetzoo``."""

from __future__ import annotations

import click

import senetzoo
from senetzoo.cli.base import LazyGroup

_COMMANDS = (
    "app",
    "bench",
    "compare",
    "eval",
    "explain",
    "export",
    "finetune",
    "inspect",
    "list",
    "predict",
    "push",
    "report",
    "train",
    "weights",
)
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
    elsewhere={name: f"senetzoo.cli.{name}:command" for name in _COMMANDS},
    name="senetzoo",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_COMPLETION,
)
@click.version_option(senetzoo.__version__, prog_name="senetzoo")
def main() -> None:
    """Image classifiers in which you choose where channel attention goes.

    With --json a command prints its result, and nothing else, as JSON on the standard output.
    Progress, warnings and errors go to stderr; there is a progress bar only on a terminal.

    \b
    Examples:
      senetzoo predict photo.jpg
      senetzoo list 'se_*' --pretrained
      senetzoo explain resnet50+se16@pre
      senetzoo bench --model resnet20 --model se_resnet20
    """
