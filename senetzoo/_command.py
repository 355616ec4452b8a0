"""The classes of commands and groups: errors become messages, and rooms are imported when asked."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from senetzoo.errors import SenetzooError, nearest

# What a shell expects: 2 for bad input (as click's own usage errors), 128 + SIGINT for Ctrl-C.
BAD_INPUT, INTERRUPTED = 2, 130


class SenetzooCommand(click.Command):
    """A command that prints a `SenetzooError` as ``error: ...`` on stderr and exits with 2.

    An `OSError`, such as of a folder that can't be written, is treated alike.

    Ctrl-C exits with 130 and without a word; a reader that stops reading (``| head``) is handled
    by click, which exits with 1 in silence.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SenetzooError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(BAD_INPUT)
        except BrokenPipeError:
            raise
        except OSError as error:
            # A folder that can't be written, a full disk: the user's to mend, not ours.
            where = f" {error.filename}" if error.filename else ""
            click.echo(f"error: Can't use{where}.\n{error.strerror or error}.", err=True)
            ctx.exit(BAD_INPUT)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


class LazyGroup(click.Group):
    """A group that names the nearest command for an unknown one.

    Args:
        elsewhere: Commands in rooms that are imported when they are asked for: ``senetzoo list``
            must not load a trainer. ``"module:name"`` by command.
        args: Those of `click.Group`.
        kwargs: Those of `click.Group`.
    """

    def __init__(
        self, *args: Any, elsewhere: Mapping[str, str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._elsewhere = dict(elsewhere or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self._elsewhere])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._elsewhere:
            module, name = self._elsewhere[cmd_name].split(":")
            command = getattr(importlib.import_module(module), name)
            return command if isinstance(command, click.Command) else None
        return super().get_command(ctx, cmd_name)

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
