"""Commands made from the signatures of Python functions, and the options that several share.

A parameter's annotation gives its type, checked as in the package's dataclasses, and how the
command line shows it::

    @as_command("eval")
    def command(network: Network, *, batch: Annotated[PositiveInt, "Images per batch."] = 64): ...

Positional parameters become arguments, keyword-only ones options; those without a default are
required. The type may be followed by help text, the option's name if it differs from the
parameter's (``"--json"``), a completion function, a click type, and a mapping of further arguments
of `click.Option`. If there are several texts or types the last one wins, so that a shared
annotation can be given other help.
"""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeAlias, get_type_hints

import click

from senetzoo._utils.checks import (
    Bound,
    Ge,
    Le,
    PositiveInt,
    alternatives,
    from_text,
    hints,
)
from senetzoo._utils.environment import MOST_THREADS
from senetzoo._utils.files import user_path
from senetzoo._utils.terminal import echo
from senetzoo.cli import complete
from senetzoo.cli.base import OneOf, SenetzooCommand
from senetzoo.errors import ConfigError, SenetzooError
from senetzoo.nn.preprocessing import Preprocessing


class UserPath(click.Path):
    """A path in which ``~`` is expanded: the shell doesn't do so in ``--out=~/runs``."""

    def __init__(self, **kinds: bool) -> None:
        super().__init__(path_type=Path, **kinds)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            path = user_path(value)
        except ConfigError as error:
            self.fail(" ".join(str(error).splitlines()), param, ctx)
        return super().convert(path, param, ctx)


PATH = UserPath()
FILE = UserPath(dir_okay=False)
FOLDER = UserPath(file_okay=False)
DATA = (
    "A folder of class folders, perhaps in test or val; a CSV of path,label[,split]; a parquet "
    "file; a copy of CIFAR or flower_photos; hf-hub:OWNER/NAME; or digits, cifar10 or cifar100."
)

Network: TypeAlias = Annotated[str, complete.networks_and_folders]
Data: TypeAlias = Annotated[str, complete.data, DATA]
WeightsFile: TypeAlias = Annotated[
    Path | None, "A safetensors file with the network's weights.", {"metavar": "FILE"}
]
CsvFile: TypeAlias = Annotated[
    Path | None, FILE, "--csv", "Write a row for each image.", {"metavar": "FILE"}
]
Device: TypeAlias = Annotated[str, complete.devices, "cpu, cuda, cuda:1 or mps."]
Threads: TypeAlias = Annotated[
    Annotated[int, Ge(1), Le(MOST_THREADS)] | None, "CPU threads. Default: torch's choice."
]
Batch: TypeAlias = Annotated[PositiveInt, "Images per batch."]
Stated: TypeAlias = Annotated[dict[str, Any] | None, Preprocessing]
"""The fields of a preprocessing that ``--mean --std --size --crop`` gave."""
Json: TypeAlias = Annotated[bool, "--json", "JSON instead of text."]


def as_command(
    name: str, *, exits: Mapping[int, str] | None = None, registers: bool = True
) -> Callable[[Callable[..., None]], SenetzooCommand]:
    """Make a function a command, with its docstring as the help.

    If it `registers`, it also gets the option ``--register``.
    """

    def made(function: Callable[..., None]) -> SenetzooCommand:
        kinds = get_type_hints(function, include_extras=True)
        params: list[click.Parameter] = []
        for parameter in inspect.signature(function).parameters.values():
            kind = kinds[parameter.name]
            if kind == Stated:
                params += _preprocessing()
            else:
                params.append(_parameter(parameter, kind))
        return SenetzooCommand(
            name,
            params=[*params, *[_registering()] * registers],
            callback=function,
            help=function.__doc__,
            exits=exits,
        )

    return made


def _parameter(parameter: inspect.Parameter, hint: Any) -> click.Parameter:
    flag = f"--{parameter.name.replace('_', '-')}"
    kind = next(one for one in alternatives(hint.__origin__) if one.base is not NoneType)
    several = kind.origin is tuple
    if several:
        (kind,) = alternatives(kind.inner[0])
    marks = (*kind.limits, *hint.__metadata__)
    more: dict[str, Any] = {"type": _click_type(kind.base, marks)}
    for mark in marks:
        if isinstance(mark, Mapping):
            more |= mark
        elif isinstance(mark, click.ParamType):
            more["type"] = mark
        elif callable(mark):
            more["shell_complete"] = _completion(mark)
        elif isinstance(mark, str) and mark.startswith("--"):
            flag = mark
        elif isinstance(mark, str):
            more["help"] = mark
    needed = parameter.default is parameter.empty
    if not needed:
        more["default"] = parameter.default
    if parameter.kind is parameter.KEYWORD_ONLY:
        if kind.base is bool:
            more["is_flag"] = True
        names = [flag, parameter.name]
        return click.Option(
            names, required=needed, multiple=several, **{"show_default": True, **more}
        )
    more.pop("help", None)
    return click.Argument([parameter.name], required=needed, nargs=-1 if several else 1, **more)


def _click_type(base: Any, marks: tuple[Any, ...]) -> Any:
    bounds = {mark.holds.__name__: mark.value for mark in marks if isinstance(mark, Bound)}
    if bounds:
        low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
        ranged: Any = click.IntRange if base is int else click.FloatRange
        return ranged(low, high, min_open="gt" in bounds, max_open="lt" in bounds)
    if getattr(base, "__origin__", None) is Literal:
        return OneOf(base.__args__)
    return PATH if base is Path else base


def _completion(words: Callable[[str], list[Any]]) -> Callable[..., list[Any]]:
    return lambda ctx, param, incomplete: words(incomplete)


_REGISTERED = "senetzoo.register"
"""Key in click's ``meta`` for the values of ``--register``."""


def _registering() -> click.Parameter:
    """``--register``, which is processed before the options that may need what it names."""
    return click.Option(
        ["--register"],
        help="Import and register your own gate or network first. Repeatable.",
        metavar="MODULE:NAME",
        multiple=True,
        is_eager=True,
        expose_value=False,
        callback=_register,
    )


def _register(ctx: click.Context, param: click.Parameter, paths: tuple[str, ...]) -> None:
    if paths and not ctx.resilient_parsing:
        from senetzoo.own import register_path

        ctx.meta[_REGISTERED] = paths
        try:
            tuple(map(register_path, paths))
        except SenetzooError as error:
            raise click.BadParameter(" ".join(str(error).splitlines()), ctx, param) from None


def _preprocessing() -> list[click.Parameter]:
    """``--mean``, ``--std``, ``--size`` and ``--crop``, with help from `Preprocessing`."""
    listed = (inspect.getdoc(Preprocessing) or "").partition("Args:\n")[2].partition("\n\n")[0]
    said = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", listed, re.MULTILINE)
    words = {name: " ".join(text.split()) for name, text in said}
    return [
        click.Option(
            [f"--{name}"],
            help=f"{words[name]} [default: that of the weights if known, or the usual one for the "
            "network]",
            type=click.UNPROCESSED,
            metavar="NUMBER" if name in ("size", "crop") else "NUMBER,...",
            callback=_state,
            expose_value=False,
        )
        for name in ("mean", "std", "size", "crop")
    ]


def _state(ctx: click.Context, param: click.Parameter, text: str | None) -> None:
    """Add an option to the command's ``preprocessing``."""
    stated, name = ctx.params.setdefault("preprocessing", None), str(param.name)
    if text is not None:
        several = alternatives(hints(Preprocessing)[name])[0].origin is tuple
        try:
            value = from_text(Preprocessing, name, f"({text},)" if several else text, "It")
        except ConfigError as error:
            raise click.BadParameter(" ".join(str(error).splitlines()), ctx, param) from None
        ctx.params["preprocessing"] = {**(stated or {}), name: value}


def say(as_json: bool, found: object, text: str) -> None:
    """Print a result: `found` as JSON, or `text`."""
    echo(json.dumps(found) if as_json else text)


def recorded(where: str | Path | None) -> str | None:
    """A path for a recorded command: only its name if it is outside of the current folder.

    Records are published, in the cards of networks for example, and a whole path names the user.
    Relative paths, words and ``hf-hub:OWNER/NAME`` are recorded as they are.
    """
    if where is None:
        return None
    path, here = user_path(where), Path.cwd()
    if not path.is_absolute():
        return str(where)
    return str(path.relative_to(here)) if path.is_relative_to(here) else path.name


def command_line(*words: str, **options: object) -> str:
    """A command line to type again, quoted for a shell.

    An option that is None or False is left out; True is a flag, and a tuple repeats the option.
    Adds the ``--register`` of the current command.
    """
    line = list(words)
    context = click.get_current_context(silent=True)
    registered = () if context is None else context.meta.get(_REGISTERED, ())
    for name, given in {**options, "register": registered}.items():
        for value in given if isinstance(given, tuple) else (given,):
            if value is not None and value is not False:
                line += [f"--{name.replace('_', '-')}", *[str(value)] * (value is not True)]
    return shlex.join(line)
