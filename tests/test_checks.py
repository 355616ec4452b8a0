"""Checking fields against their annotations, and reading JSON files."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import numpy as np
import pytest
from support.runs import write_run

from senetzoo._utils.checks import (
    Example,
    Ge,
    Gt,
    Le,
    Lt,
    NonEmpty,
    Odd,
    Pattern,
    PerStage,
    PositiveInt,
    Rate,
    Scalar,
    check,
    from_json,
    from_text,
    hints,
    words,
)
from senetzoo._utils.documents import parse_json, read_json
from senetzoo.errors import BrokenError, ConfigError, PolicyError
from senetzoo.gates import GATES
from senetzoo.registry import FAMILIES
from senetzoo.runs import read_summary, reading_recipe
from senetzoo.train.recipe import Recipe


@dataclass(frozen=True)
class Part:
    side: PositiveInt


@dataclass(frozen=True)
class Everything:
    sizes: Annotated[tuple[PositiveInt, ...], NonEmpty(), Example((3, 4))]
    rate: Rate = 0.5
    width: Literal["floor", "round8"] | PositiveInt = "floor"
    act: Literal["relu", "silu"] = "relu"
    flag: bool = True
    pair: tuple[float, float] = (0.0, 1.0)
    kernel: Literal[0] | Annotated[int, Ge(1), Odd()] = 0
    inner: Part | None = None
    tag: Annotated[str, Pattern("[a-z]+", "a lower-case word")] = "tag"

    def __post_init__(self) -> None:
        check(self, PolicyError, "It")


ROWS: list[tuple[str, list[Any], list[Any], str]] = [
    ("sizes", [(1,), [3, 4]], [(), 3, (0,), (True,), (1.0,), "34", None, {3}],
     "a tuple of one or more whole numbers of at least 1"),
    ("rate", [0, 0.0, 0.999, np.float64(0.5)],
     [1, -0.1, math.nan, math.inf, True, "0.5", None, np.float32(0.5), 10**400],
     "a number from 0 up to, not including, 1"),
    ("width", ["floor", 1, 64], [0, "ceil", 1.0, True, np.int64(3), None],
     "'floor', 'round8' or a whole number of at least 1"),
    ("act", ["silu"], ["gelu", 1, None, ["relu"], np.array(["relu"] * 2)], "one of 'relu', 'silu'"),
    ("flag", [True, False], [1, 0, "yes", None, np.bool_(True)], "True or False"),
    ("pair", [(1, 2.5), [0.0, -1.0]], [(1,), (1, 2, 3), 1.0, (1, math.inf), (1, "2")],
     "a tuple of 2 numbers"),
    ("kernel", [0, 1, 3], [2, -1, False, 3.0, np.array([1, 2])],
     "0 or an odd whole number of at least 1"),
    ("inner", [None, Part(3)], [3, "3", Everything], "a Part or None"),
    ("tag", ["tags"], ["Tag", "", 3], "a lower-case word"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "right", "wrong", "said"), ROWS, ids=[row[0] for row in ROWS])
def test_values_and_words(field: str, right: list[Any], wrong: list[Any], said: str) -> None:
    base = {"sizes": (1,)}
    for value in right:
        made = getattr(Everything(**{**base, field: value}), field)
        assert made == (tuple(value) if isinstance(value, list) else value)
    for value in wrong:
        with pytest.raises(PolicyError) as caught:
            Everything(**{**base, field: value})
        asked, true, *_ = str(caught.value).splitlines()
        assert (asked, true) == (f"It got {field}={value!r}.", f"{field} is {said}.")


def test_what_to_type() -> None:
    for value, remedy in [
        ({"sizes": ()}, "Type for example: sizes=(3, 4)"),
        ({"sizes": (1,), "rate": 2}, "Type for example: rate=0.5"),
        ({"sizes": (1,), "act": "relo"}, "Did you mean 'relu'?"),
    ]:
        with pytest.raises(PolicyError) as caught:
            Everything(**value)  # type: ignore[arg-type]
        assert str(caught.value).splitlines()[2] == remedy


@pytest.mark.parametrize(
    ("kind", "python", "document"),
    [
        (int | float, "a number", "a number"),
        (Annotated[int, Ge(0), Le(30)], "a whole number from 0 to 30", None),
        (Annotated[float, Gt(0), Le(8)], "a number above 0 and at most 8", None),
        (Annotated[float, Lt(3)], "a number below 3", None),
        (tuple[tuple[int, int], ...], "a tuple of tuples of 2 whole numbers",
         "a list of lists of 2 whole numbers"),
        (PerStage, "a whole number of at least 1 or a tuple of one or more whole numbers of at "
         "least 1", None),
        (list[Literal["a", "b"]], "a tuple of values, each one of 'a', 'b'",
         'a list of values, each one of "a", "b"'),
        (Scalar, "text, a number, True, False or None", "text, a number, true, false or null"),
        (Mapping[str, int], "an object", "an object"),
    ],
)  # fmt: skip
def test_words(kind: Any, python: str, document: str | None) -> None:
    assert words(kind) == python
    if document is not None:
        assert words(kind, json=True) == document


def test_every_default_is_what_its_annotation_allows() -> None:
    """A family that overrides a default repeats the annotation."""
    for gate in GATES.values():
        gate()
    for family in FAMILIES:
        for config in family.networks.values():
            assert dataclasses.replace(config) == config
            for field in ("dropout", "drop_path"):
                for value in (1.0, -0.1, True, math.nan, "0"):
                    with pytest.raises(ConfigError):
                        config.replace(**{field: value})
            for field, wrong in (("num_classes", -1), ("in_chans", 0)):
                with pytest.raises(ConfigError):
                    config.replace(**{field: wrong})


class Line(TypedDict):
    name: str
    rates: list[Rate]


def test_documents() -> None:
    whole = {"sizes": [1, 2], "inner": {"side": 3}, "rate": 0}
    made = from_json(Everything, whole, "it", partial=True)
    assert made == Everything((1, 2), inner=Part(3), rate=0.0)
    assert type(made.rate) is float
    for raw, where, what in [
        ([], "it", "It is [], not an object."),
        ({**whole, "sizs": 3}, "it", "The field 'sizs' is unknown."),
        ({"rate": 0.5}, "it", "The field 'sizes' is missing."),
        ({**whole, "sizes": [1, "2"]}, "it.sizes[1]",
         'It is "2", not a whole number of at least 1.'),
        ({**whole, "inner": {"side": 0}}, "it.inner.side",
         "It is 0, not a whole number of at least 1."),
        ({**whole, "inner": {}}, "it.inner", "The field 'side' is missing."),
        ({**whole, "flag": None}, "it.flag", "It is null, not true or false."),
    ]:  # fmt: skip
        with pytest.raises(BrokenError) as caught:
            from_json(Everything, raw, "it", partial=True)
        assert (caught.value.where, caught.value.what) == (where, what)
    with pytest.raises(BrokenError, match="field 'width' is missing"):
        from_json(Everything, whole, "it")
    line = {"name": "x", "rates": [0, 0.5], "more": {}}
    assert from_json(Line, line, "") == line
    with pytest.raises(BrokenError, match=r"rates\[0\]"):
        from_json(Line, {**line, "rates": [1]}, "")


def test_text() -> None:
    for field, text, value in [
        ("rate", "0.25", 0.25),
        ("rate", "0", 0.0),
        ("sizes", "(1, 2)", (1, 2)),
        ("sizes", "[1]", (1,)),
        ("flag", "false", False),
        ("inner", "none", None),
        ("act", "silu", "silu"),
        ("tag", "none", "none"),
    ]:
        assert from_text(Everything, field, text, "--set") == value
    for field, text in [("rate", "1"), ("rate", "x"), ("flag", "1"), ("sizes", "("), ("act", "no")]:
        with pytest.raises(ConfigError) as caught:
            from_text(Everything, field, text, "--set")
        assert str(caught.value).startswith(
            f"--set got {field}={text}.\n{field} is {words(hints(Everything)[field])}."
        )


def test_a_recipe_of_an_older_version() -> None:
    raw = {"name": "old", "model": "lenet5", "data": "digits", "phases": [[32, 3], [16, 1]]}
    assert Recipe.from_json(raw).phases == ((32, 3), (16, 1))
    for wrong in ({"phases": [[32]]}, {"lr": "0.1"}, {"batch": True}, {"spam": 1}, {"warmup": 1}):
        with pytest.raises(BrokenError, match="recipe"):
            Recipe.from_json({**raw, **wrong})


# --- Broken files --------------------------------------------------------------------------------

SUMMARY = {
    "recipe": dataclasses.asdict(
        Recipe(name="made_up", model="lenet5", data="digits", phases=((32, 8),))
    ),
    "seed": 0,
    "command": "senetzoo train made_up",
    "revision": None,
    "machine": "a machine",
    "epochs": 8,
    "train_seconds": 160.0,
    "test_accuracy": 0.9,
    "test_images": 30,
    "test_correct": 27,
    "wilson": [0.7, 1.0],
}


def edits(raw: Any) -> list[Any]:
    """The object with one value of the wrong type, at any depth."""
    found = []
    for key in list(raw) if isinstance(raw, dict) else range(min(len(raw), 2)):
        others: list[Any] = [None, "text", [], {}, -1, [[1]], 1e400]
        for other in others:
            copy = json.loads(json.dumps(raw))
            copy[key] = other
            found.append(copy)
        if isinstance(raw[key], (dict, list)):
            for inner in edits(raw[key]):
                copy = json.loads(json.dumps(raw))
                copy[key] = inner
                found.append(copy)
    return found


def summary_of(folder: Path) -> dict[str, Any]:
    """A summary with a valid recipe."""
    summary = read_summary(folder)
    with reading_recipe(folder):
        Recipe.from_json(summary["recipe"])
    return summary


def test_summaries_that_are_broken(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    content = json.dumps(SUMMARY, indent=1).encode()
    path.write_bytes(content)
    assert json.loads(json.dumps(summary_of(tmp_path))) == json.loads(content)
    path.write_text(json.dumps({**SUMMARY, "later": [1]}), encoding="utf-8")
    assert summary_of(tmp_path)["later"] == [1]
    for other in edits(SUMMARY):
        path.write_text(json.dumps(other), encoding="utf-8")
        try:
            summary_of(tmp_path)
        except ConfigError as error:
            assert str(error).startswith(str(path))  # noqa: PT017


def test_log_lines_of_another_form(tmp_path: Path) -> None:
    from senetzoo.report.run import find

    folder = write_run(tmp_path / "run", epochs=2)
    path = folder / "log.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for number, line in enumerate(lines):
        for other in [*edits(line), {**line, "later": 1}]:
            whole = [*lines[:number], other, *lines[number + 1 :]]
            path.write_text("".join(json.dumps(one) + "\n" for one in whole), encoding="utf-8")
            try:
                (run,) = find([folder])
            except ConfigError as error:
                assert str(folder) in str(error)  # noqa: PT017
            else:
                assert run.series("test_accuracy") is not None
                assert len(run.classes) >= 1


@pytest.mark.parametrize("make", [lambda path: path, lambda path: path / "missing"])
def test_files_that_can_not_be_read(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(ConfigError) as caught:
        read_json(Part, path, "Make it anew")
    first, _, remedy = str(caught.value).splitlines()
    assert (first, remedy) == (f"{path} can't be read.", "Make it anew")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "It isn't valid JSON"),
        ('{"a": NaN}', "NaN isn't a JSON number"),
        ('{"a": 1, "a": 2}', "It occurs twice."),
        ("[" * 100000, "It isn't valid JSON"),
        ("9" * 5000, "It isn't valid JSON"),
    ],
)
def test_no_json(text: str, what: str) -> None:
    with pytest.raises(BrokenError) as caught:
        parse_json(text)
    assert what in caught.value.what
