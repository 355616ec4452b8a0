"""The options by which commands say more of a network than its reference does."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

REFERENCE_HELP = """A network is a name of the registry, with or without a tag of its weights and a
    policy; a folder that senetzoo.save or a training run wrote; or hf-hub:OWNER/NAME."""


if TYPE_CHECKING:
    _Base = click.ParamType[tuple[float, ...]]
else:  # older versions of click have no generic one
    _Base = click.ParamType


class _Numbers(_Base):
    """A number for each channel: ``0.5``, or ``0.485,0.456,0.406``."""

    name = "numbers"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a number for each channel, such as 0.5,0.5,0.5.")


def preprocessing_options(function: FunctionT) -> FunctionT:
    """Add ``--mean``, ``--std``, ``--size`` and ``--crop``.

    The command gets those that were given as ``preprocessing``, a dictionary; None without any.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        fields = {name: options.pop(name) for name in ("mean", "std", "size", "crop")}
        given = {name: value for name, value in fields.items() if value is not None}
        return function(*args, preprocessing=given or None, **options)

    for option in (
        click.option("--crop", type=float, help="Kept part of the resized shorter side, up to 1."),
        click.option("--size", type=int, help="Pixels of a side. [what the weights saw]"),
        click.option("--std", type=_Numbers(), help="Standard deviation of each channel."),
        click.option(
            "--mean",
            type=_Numbers(),
            help="Mean of each channel, of values from 0 to 1: what images went through in "
            "training, where the weights do not say it, or in place of what they say.",
        ),
    ):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


def network_options(function: FunctionT) -> FunctionT:
    """Add ``--weights`` and the options of the preprocessing.

    The command gets ``stated``, a dictionary to pass on to `senetzoo.load`.
    """

    @preprocessing_options
    @functools.wraps(function)
    def wrapped(
        *args: Any, weights: Path | None, preprocessing: dict[str, Any] | None, **options: Any
    ) -> Any:
        stated = {"weights": weights, "preprocessing": preprocessing}
        return function(*args, stated=stated, **options)

    option = click.option(
        "--weights",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A safetensors file of the network's weights.",
    )
    return option(wrapped)  # type: ignore[return-value]
