"""The class of every command of the command line: errors become messages, never tracebacks."""

from __future__ import annotations

from typing import Any

import click

from senetzoo.errors import SenetzooError

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
