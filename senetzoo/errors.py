"""Messages have up to three lines: what was asked, what is true, what to type."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class SenetzooError(Exception):
    """Base of the errors about what was given, missing packages, and runs that can't continue."""

    def __init__(self, asked: str, true: str = "", remedy: str = "") -> None:
        super().__init__("\n".join(line for line in (asked, true, remedy) if line))


class ConfigError(SenetzooError, ValueError):
    """An unknown name or option, or an invalid value."""


class BrokenError(ConfigError):
    """An error in a document, such as a JSON file; its reader adds the document's name.

    Args:
        where: Path of the error: ``"entry.input.size"``.
        what: What is wrong, without a period.
        hint: A suggestion.
    """

    def __init__(self, where: str, what: str, hint: str = "") -> None:
        self.where = where or "its start"
        self.what = f"{what[0].upper()}{what[1:]}."
        self.hint = hint
        super().__init__(f"The document is broken at {self.where}.", self.what, hint)


class PolicyError(SenetzooError, ValueError):
    """A policy that can't be parsed or doesn't fit the network."""


class WeightsError(SenetzooError, RuntimeError):
    """Weights that can't be found, verified or loaded."""


class DataError(SenetzooError, RuntimeError):
    """Images or data sets that can't be found or read."""


class TrainingError(SenetzooError, RuntimeError):
    """A training run that can't continue."""


class MissingExtraError(SenetzooError, ImportError):
    """A missing optional dependency."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the package {package!r}.",
            "It is not installed.",
            f"Type: pip install 'senetzoo[{extra}]'",
        )


def shortened(text: str) -> str:
    """A text to quote in a message, cut if it is long."""
    return text if len(text) <= 80 else f"{text[:77]}..."


def first_line(error: BaseException) -> str:
    """First line of another library's error message; its class if the message is empty.

    Lines that end in a colon are left out: OpenVINO's name places in its source.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = (line for line in lines if not line.endswith(":"))
    return next(said, next(iter(lines), type(error).__name__))


def sentences(error: BaseException) -> str:
    """An error's message in one line that ends like a sentence, to be followed by others."""
    lines = filter(None, map(str.strip, str(error).splitlines()))
    return " ".join(line if line[-1] in ".?!" else f"{line}." for line in lines)


@contextlib.contextmanager
def explained(asked: str, who: str, remedy: str) -> Iterator[None]:
    """Turn another library's error into a `ConfigError` that quotes its message."""
    try:
        yield
    except SenetzooError:
        raise
    except Exception as error:  # libraries raise anything, even an AssertionError
        raise ConfigError(asked, f"{who} says: {first_line(error)}", remedy) from error


def nearest(word: str, known: Iterable[str]) -> str:
    """``"Did you mean 'x'?"`` for the known word most similar to `word`; empty if there is none."""
    lower = {each.lower(): each for each in known}
    close = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    return f"Did you mean {lower[close[0]]!r}?" if close else ""


_ELSEWHERE = {
    **dict.fromkeys(
        ("features_only", "out_indices", "output_stride"),
        "Type for example: Backbone(create(name), out_indices=(1, 2, 3))",
    ),
    "checkpoint_path": "Type for example: weights='file.safetensors'",
}
"""What to type instead of options of other libraries."""


def check_fields(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise `ConfigError` for the first name in `given` that isn't in `known`."""
    names = list(known)
    for name in given:
        if name not in names:
            raise ConfigError(
                f"{what} has no option {name!r}.",
                _ELSEWHERE.get(name)
                or nearest(name, names)
                or f"Its options are {', '.join(names)}.",
            )


def checks_options(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: an unknown keyword raises a `ConfigError` that suggests a similar one."""
    options = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        check_fields(f"{function.__name__}()", kwargs, options)
        return function(*args, **kwargs)

    return checked
