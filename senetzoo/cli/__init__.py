"""The command ``senetzoo``."""

from __future__ import annotations

import click

import senetzoo
from senetzoo._utils.terminal import echo
from senetzoo.cli.base import EXITS, UNWRITTEN, LazyGroup

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
Tab completion of commands, options, networks, tags and recipes:
  bash, in ~/.bashrc:  eval "$(_SENETZOO_COMPLETE=bash_source senetzoo)"
  zsh, in ~/.zshrc:    eval "$(_SENETZOO_COMPLETE=zsh_source senetzoo)"
  fish, in ~/.config/fish/completions/senetzoo.fish:
    _SENETZOO_COMPLETE=fish_source senetzoo | source
"""

_GREETING = f"""\
senetzoo {senetzoo.__version__}: image classifiers in which you choose where channel attention goes.

  senetzoo predict photo.jpg            Classify an image; the weights are in the package.
  senetzoo explain resnet50+se16@pre    Show where the gates are and what they cost.
  senetzoo train digits                 Train a LeNet-5 in a minute or two, offline.
  senetzoo finetune photos/             Train on your own images, one folder per class.
  senetzoo export runs/photos-resnet20 --to onnx    Export the result to another runtime.

`senetzoo --help` lists all commands, `senetzoo COMMAND --help` describes one.
README.md and docs/index.md in the repository link to the tutorials and the reference."""


@click.group(
    cls=LazyGroup,
    elsewhere={name: f"senetzoo.cli.{name}:command" for name in _COMMANDS},
    name="senetzoo",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_COMPLETION,
    exits={
        UNWRITTEN: f"predict: an image could not be read, or a folder has none; any command: "
        f"{EXITS[UNWRITTEN]}"
    },
    invoke_without_command=True,
)
@click.version_option(senetzoo.__version__, prog_name="senetzoo")
@click.pass_context
def main(context: click.Context) -> None:
    """Image classifiers in which you choose where channel attention goes.

    With --json, a command prints only its result, as JSON, to standard output, and the progress of
    a training to stderr. Warnings and errors go to stderr, except that a training's progress has
    those about one of its runs or images; progress bars appear only on a terminal.

    \b
    Examples:
      senetzoo predict photo.jpg
      senetzoo list 'se_*' --pretrained
      senetzoo explain resnet50+se16@pre
      senetzoo bench --model resnet20 --model se_resnet20
    """
    if context.invoked_subcommand is None:
        echo(_GREETING)
