"""All commands of ``senetzoo``, and a function that runs one in this process."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

import click
from click.testing import CliRunner, Result

from senetzoo.cli import main


def leaves(
    group: click.Group = main, *names: str
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands that aren't groups, with the words that call them."""
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, *names, name)
        else:
            yield (*names, name), command


COMMANDS = dict(leaves())


def run(*arguments: object, stdin: str | bytes | None = None) -> Result:
    """Run a command; any exception except an exit is a failure with its traceback."""
    args = [str(argument) for argument in arguments]
    result = CliRunner().invoke(main, args, input=stdin, prog_name="senetzoo")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        trace = "".join(traceback.format_exception(result.exception))
        raise AssertionError(f"senetzoo {args!r}\n{trace}") from None
    return result
