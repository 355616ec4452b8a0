"""Labels of any type as class numbers."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from senetzoo.errors import DataError, nearest, shortened


class HiddenLabelsError(DataError):
    """A split without labels, such as the test split of a competition."""


def same(name: str) -> str:
    """A class name in one Unicode form: macOS writes é as two characters."""
    return unicodedata.normalize("NFC", name)


def indices(classes: Iterable[str]) -> dict[str, int]:
    """Number of each class, by its name as `same` returns it."""
    return {same(name): number for number, name in enumerate(classes)}


def require_same(own: Sequence[str], classes: Sequence[str], name: str) -> None:
    """Raise `DataError` unless the data called `name` has these `classes`, in this order."""
    if [*map(same, own)] != [*map(same, classes)]:
        raise DataError(
            f"{name} has the classes {listed(own)}.",
            f"Expected {listed(classes)}, in this order.",
            "Give data with these classes",
        )


def positions(own: Sequence[str], classes: Sequence[str], name: str, whose: str) -> tuple[int, ...]:
    """The number in `classes` of each class of the data called `name`.

    Raises:
        DataError: A class isn't one of `classes`, which belong to `whose`.
    """
    known = indices(classes)
    if unknown := [word for word in own if same(word) not in known]:
        raise DataError(
            f"{name} has the class {unknown[0]!r}, which {whose} does not have.",
            f"The classes of {whose} are {listed(classes)}.",
            nearest(unknown[0], classes)
            or "Give data with these classes, in folders named after them",
        )
    return tuple(known[same(word)] for word in own)


def check_classes(name: str, classes: Sequence[str]) -> None:
    """Raise `DataError` for fewer than two classes, or classes whose names look alike.

    `name` is the name of the data, for messages.
    """
    if len(classes) < 2:
        raise DataError(
            f"{name} has {'one class: ' + classes[0] if classes else 'no classes'}.",
            "A classifier needs at least two classes.",
            "Make one folder of images per class",
        )
    alike: dict[str, str] = {}
    for word in classes:
        other = alike.setdefault(same(word).casefold(), word)
        if other != word:
            what = "their Unicode encoding" if same(other) == same(word) else "case"
            raise DataError(
                f"{name} has the classes {other!r} and {word!r}.",
                f"They differ only in {what}.",
                "Merge them, or rename one",
            )


def in_order(names: Iterable[str]) -> list[str]:
    """Sort class names, numerically if all are numbers: 10 comes after 9."""
    found = list(names)
    return sorted(found, key=int if all(name.isdecimal() for name in found) else None)


def numbered(
    labels: Sequence[object],
    own: Sequence[str] | None,
    classes: Sequence[str] | None,
    name: str,
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The class numbers of labels, and the names of the classes.

    Whole numbers, also as floats or text, are class numbers; other text is a class name; booleans
    are the classes False and True. Names are sorted unless `own` or `classes` gives an order.

    Args:
        labels: The labels in a file.
        own: The file's own class names; None if it has none.
        classes: The expected class names, in order; None for any.
        name: Name of the data, for messages.

    Raises:
        DataError: Labels are missing, of another type, several per image, or none of the classes;
            or the class names differ from the expected ones.
    """
    if hidden(labels):
        raise HiddenLabelsError(
            f"{name} hides its labels: all are {'-1' if labels[0] == -1 else 'missing'}.",
            "Many test splits of competitions do.",
            "Give another split, such as validation",
        )
    gone = sum(map(_is_missing, labels))
    if gone:
        raise DataError(
            f"{name} has no label in {gone} of {len(labels)} rows.",
            "Each image needs a class.",
            "Leave out these rows",
        )
    odd = next((label for label in labels if not _is_label(label)), None)
    if odd is not None:
        several = isinstance(odd, (list, tuple))
        kind = "lists of labels" if several else f"labels such as {shortened(repr(odd))}"
        raise DataError(
            f"{name} has {kind}.",
            "Each image needs exactly one class; these have several, or none."
            if several
            else "A label is the number of a class, from 0, or its name.",
            "Write a column label with one class per image",
        )
    if own is not None and classes is not None:
        require_same(own, classes, name)
    known = classes if classes is not None else own
    if known is None:
        known = _names(labels)
    by_name = indices(known)
    numbers = tuple(number(label, by_name) for label in labels)
    if None in numbers:
        raise _unknown(labels, numbers, known, name)
    return tuple(n for n in numbers if n is not None), tuple(known)


def number(label: object, classes: Mapping[str, int]) -> int | None:
    """The class number of a label, by `indices`; None if it is none of the classes."""
    if isinstance(label, (str, bool)):
        word = same(str(label))
        if word in classes or not word.isdecimal():
            return classes.get(word)
        label = int(word)
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return label if isinstance(label, int) and 0 <= label < len(classes) else None


def hidden(labels: Sequence[object]) -> bool:
    """Whether a split hides its labels: all are -1, or missing."""
    return bool(labels) and (all(label == -1 for label in labels) or all(map(_is_missing, labels)))


def _is_missing(label: object) -> bool:
    return label is None or label != label  # NaN


def _is_label(label: object) -> bool:
    whole = isinstance(label, float) and label.is_integer()
    return whole or isinstance(label, (str, int))


def _names(labels: Sequence[object]) -> Sequence[str]:
    """Class names, derived from the labels."""
    if labels and isinstance(labels[0], bool):
        return ("False", "True")
    words = {same(label): label for label in labels if isinstance(label, str)}
    if not all(map(str.isdecimal, words)):
        return sorted(words.values())
    whole = [int(label) for label in labels if isinstance(label, (int, float, str))]
    return tuple(map(str, range(max(whole, default=-1) + 1)))


def _unknown(
    labels: Sequence[object], numbers: Sequence[int | None], classes: Sequence[str], name: str
) -> DataError:
    first = labels[numbers.index(None)]
    if isinstance(first, (str, bool)):
        return DataError(
            f"{name} has the label {shortened(repr(first))}.",
            f"The classes are {listed(classes)}.",
            nearest(str(first), classes),
        )
    whole = [int(label) for label in labels if isinstance(label, (int, float))]
    known = f"There are {len(classes)} classes, from 0 to {len(classes) - 1}."
    return DataError(
        f"{name} has labels from {min(whole)} to {max(whole)}.",
        known if classes else "Labels are counted from 0.",
    )


def listed(names: Sequence[str]) -> str:
    """The first names, for a message."""
    return ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
