"""The page of the command line, docs/commands.md, from what the commands say of themselves."""

from __future__ import annotations

from collections.abc import Iterator

import click

from senetzoo.cli import main

# As wide as a terminal that nobody has resized.
_COLUMNS = 80


def _contexts(context: click.Context) -> Iterator[click.Context]:
    """The command of `context` and those within it, from the outside in."""
    yield context
    group = context.command
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if command is not None and not command.hidden:
                inner = click.Context(
                    command, context, name, terminal_width=_COLUMNS, max_content_width=_COLUMNS
                )
                yield from _contexts(inner)


def every() -> str:
    """The help of every command under a heading of its own."""
    top = click.Context(
        main,
        info_name="senetzoo",
        terminal_width=_COLUMNS,
        max_content_width=_COLUMNS,
        **main.context_settings,
    )
    parts, seen = [], dict[int, str]()
    for context in _contexts(top):
        path = context.command_path
        first = seen.setdefault(id(context.command), path)
        # The same command under another name, or in another group, too.
        text = (
            f"The same as [`{first}`](#{first.replace(' ', '-')})."
            if first != path
            else f"```text\n{context.get_help()}\n```"
        )
        parts.append(f"{'#' * min(2 + path.count(' '), 4)} {path}\n\n{text}\n")
    return "\n".join(parts)
