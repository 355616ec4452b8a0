"""The classes of commands and groups: errors become messages, and rooms are imported when asked."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
from collections.abc import Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from senetzoo._utils.terminal import OutputError, echo
from senetzoo.errors import SenetzooError, nearest

# What a shell expects: 2 for bad input (as click's own usage errors), 128 + SIGINT for Ctrl-C.
UNWRITTEN, BAD_INPUT, INTERRUPTED = 1, 2, 130
EXITS: Mapping[int, str] = {
    0: "done",
    UNWRITTEN: "the output can't be written, or its reader stopped reading",
    BAD_INPUT: "wrong input; stderr says what is wrong",
    INTERRUPTED: "interrupted (Ctrl-C)",
}


class OneOf(click.Choice):  # type: ignore[type-arg]  # older versions have no generic one
    """A choice that names the nearest one for a misspelled one."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        message = super().get_invalid_choice_message(value, ctx)
        return f"{message} {nearest(str(value), self.choices)}".rstrip()


class _Program(click.Command):
    """A command or group that ends with a line where its output can't be written."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            # The help, too, is output. click has dealt with a reader that stopped reading.
            if not kwargs.get("standalone_mode", True):
                raise
            echo(f"error: Can't write the output: {error.strerror or error}.", err=True)
            sys.exit(UNWRITTEN)


class SenetzooCommand(_Program):
    """A command that prints a `SenetzooError` as ``error: ...`` on stderr and exits with 2.

    An `OSError`, such as of a folder that can't be written, is treated alike.

    Ctrl-C exits with 130 and without a word; output that can't be written with 1 and a line, or
    in silence where its reader stopped reading (``| head``).

    Args:
        args: Those of `click.Command`.
        exits: What exit codes mean where that is not what `EXITS` says; the help lists all.
        kwargs: Those of `click.Command`.
    """

    def __init__(self, *args: Any, exits: Mapping[int, str] | None = None, **kwargs: Any) -> None:
        # Whoever calls a command by itself, not through `senetzoo`, gets -h too.
        names = {"help_option_names": ["-h", "--help"]}
        kwargs["context_settings"] = names | (kwargs.get("context_settings") or {})
        super().__init__(*args, **kwargs)
        self.exits = {**EXITS, **(exits or {})}

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        _write_exits(self.exits, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SenetzooError as error:
            echo(f"error: {error}", err=True)
            ctx.exit(BAD_INPUT)
        except OutputError:
            raise
        except OSError as error:
            # A folder that can't be written, a full disk: the user's to clear.
            what = f"use {error.filename}" if error.filename else "go on"
            echo(f"error: Can't {what}.\n{error.strerror or error}.", err=True)
            ctx.exit(BAD_INPUT)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


class LazyGroup(_Program, click.Group):
    """A group that names the nearest command for an unknown one.

    Args:
        elsewhere: Commands in rooms that are imported when they are asked for: ``senetzoo list``
            must not load a trainer. ``"module:function"`` by command. To list them takes no import:
            their docstrings are read from the files.
        args: Those of `click.Group`.
        kwargs: Those of `click.Group`.
    """

    def __init__(
        self, *args: Any, elsewhere: Mapping[str, str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._elsewhere = dict(elsewhere or {})

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # while a room was imported
            ctx.exit(INTERRUPTED)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        _write_exits(EXITS, formatter)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self._elsewhere])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._elsewhere:
            module, name = self._elsewhere[cmd_name].split(":")
            command = getattr(importlib.import_module(module), name)
            return command if isinstance(command, click.Command) else None
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self._listed().format_commands(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        listed = self._listed()
        own = click.Context(listed, ctx.parent, ctx.info_name, **self.context_settings)
        return listed.shell_complete(own, incomplete)

    def _listed(self) -> click.Group:
        """What a list of the commands needs: their names and help, and the group's options."""
        known = {
            name: click.Command(name, help=_docstring(self._elsewhere[name]))
            for name in self._elsewhere
        }
        return click.Group(self.name, commands={**self.commands, **known}, params=self.params)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            raise click.UsageError(
                f"There is no command {args[0]!r}. "
                + (nearest(args[0], known) or f"Commands are {', '.join(known)}."),
                ctx,
            )
        return super().resolve_command(ctx, args)


def _docstring(where: str) -> str | None:
    """That of ``module:function``, without importing the module."""
    module, _, name = where.partition(":")
    package, _, file = module.rpartition(".")
    body = ast.parse(pkgutil.get_data(package, f"{file}.py") or b"").body
    functions = (node for node in body if isinstance(node, ast.FunctionDef))
    return next((ast.get_docstring(node) for node in functions if node.name == name), None)


def _write_exits(exits: Mapping[int, str], formatter: click.HelpFormatter) -> None:
    with formatter.section("Exit codes"):
        formatter.write_dl([(str(code), meaning) for code, meaning in exits.items()])
