"""Command and group classes: errors become messages, and modules are imported on first use."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
import warnings
from collections.abc import Iterable, Mapping
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
    BAD_INPUT: "bad input, or another error; stderr says what is wrong",
    INTERRUPTED: "interrupted (Ctrl-C)",
}


class OneOf(click.Choice):  # type: ignore[type-arg]  # not generic in older versions of click
    """A choice whose error suggests the nearest valid value."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        message = super().get_invalid_choice_message(value, ctx)
        return f"{message} {nearest(str(value), self.choices)}".rstrip()


class _Formatter(click.HelpFormatter):
    """A formatter that breaks no line inside ``hf-hub:OWNER/NAME``."""

    # Lines are broken at hyphens, but not at this stand-in for one.
    def write_text(self, text: str) -> None:
        super().write_text(text.replace("hf-hub:", "hf\0hub:"))

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        kept = [(first, second.replace("hf-hub:", "hf\0hub:")) for first, second in rows]
        super().write_dl(kept, col_max, col_spacing)

    def getvalue(self) -> str:
        return super().getvalue().replace("\0", "-")


class _Context(click.Context):
    formatter_class = _Formatter


class _Program(click.Command):
    """A command or group that lists its exit codes and exits with 130, silently, on Ctrl-C.

    If its output can't be written, it exits with 1 and a one-line error. `exits` has the meanings
    of exit codes that differ from `EXITS`.
    """

    context_class = _Context

    def __init__(self, *args: Any, exits: Mapping[int, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.exits = {**EXITS, **(exits or {})}

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            # Help text is output too. click handles a reader that stopped reading.
            if not kwargs.get("standalone_mode", True):
                raise
            echo(f"error: Can't write the output: {error.strerror or error}.", err=True)
            sys.exit(UNWRITTEN)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in self.exits.items()])


class SenetzooCommand(_Program):
    """A command that prints a `SenetzooError` as ``error: ...`` on stderr and exits with 2.

    An `OSError`, such as a folder that isn't writable, is handled the same way. Warnings are
    printed as ``warning: ...``, without the source line.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # So that a command that is called on its own, not through `senetzoo`, has -h too.
        names = {"help_option_names": ["-h", "--help"]}
        kwargs["context_settings"] = names | (kwargs.get("context_settings") or {})
        super().__init__(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if not any("--set" in param.opts for param in self.params):
                raise
            from senetzoo.train.recipe import Recipe

            name = error.option_name.lstrip("-").replace("-", "_")
            # Commands have their own options for these.
            if name not in Recipe.__dataclass_fields__ or name in ("name", "data", "model"):
                raise
            text = f"No such option {error.option_name!r}. Type --set {name}=VALUE"
            raise click.UsageError(text, ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():
                # Pillow's, of an image that gets an error of ours.
                warnings.filterwarnings("ignore", "Image size .* decompression bomb")
                warnings.showwarning = lambda text, *_, **__: echo(f"warning: {text}", err=True)
                return super().invoke(ctx)
        except SenetzooError as error:
            echo(f"error: {error}", err=True)
            ctx.exit(BAD_INPUT)
        except OutputError:
            raise
        except OSError as error:
            # A read-only folder or a full disk: the user has to fix it.
            what = f"use {error.filename}" if error.filename else "continue"
            echo(f"error: Can't {what}.\n{error.strerror or error}.", err=True)
            ctx.exit(BAD_INPUT)


class LazyGroup(_Program, click.Group):
    """A group that imports its commands on first use and suggests the nearest for an unknown one.

    Args:
        elsewhere: ``"module:function"`` of each command, so that ``senetzoo list`` doesn't import
            the trainer. Listing the commands imports nothing: their docstrings are read from
            source.
        args: Passed to `click.Group`.
        kwargs: Passed to `click.Group`.
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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self._listed().format_commands(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        listed = self._listed()
        own = click.Context(listed, ctx.parent, ctx.info_name, **self.context_settings)
        return listed.shell_complete(own, incomplete)

    def _listed(self) -> click.Group:
        """A group with the names and help of the commands, and this group's options."""
        known = {
            # Without a short help, click cuts the sentence to one line.
            name: click.Command(name, short_help=(_docstring(where) or "").partition("\n")[0])
            for name, where in self._elsewhere.items()
        }
        return click.Group(self.name, commands={**self.commands, **known}, params=self.params)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            raise click.UsageError(
                f"There is no command {args[0]!r}. "
                + (nearest(args[0], known) or f"The commands are {', '.join(known)}."),
                ctx,
            )
        return super().resolve_command(ctx, args)


def _docstring(where: str) -> str | None:
    """The docstring of ``module:function``, without importing the module."""
    module, _, name = where.partition(":")
    package, _, file = module.rpartition(".")
    body = ast.parse(pkgutil.get_data(package, f"{file}.py") or b"").body
    functions = (node for node in body if isinstance(node, ast.FunctionDef))
    return next((ast.get_docstring(node) for node in functions if node.name == name), None)
