"""A CSV of images: the columns ``path`` and ``label``, perhaps ``split``."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from senetzoo._utils.files import is_text, user_path
from senetzoo._utils.files import write_csv as write_rows
from senetzoo.data.files import LabeledFiles
from senetzoo.data.labels import in_order
from senetzoo.data.sets import Split
from senetzoo.errors import DataError, nearest

# What a split may be called.
SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_COLUMNS = ("path", "label", "split", "absolute")


def read_csv(path: str | Path) -> dict[Split, LabeledFiles]:
    """Read a CSV of images.

    Its first line names the columns: ``path``, from the folder of the CSV, with slashes;
    ``label``, the name of a class; and where the images have a split, ``split``: ``train``,
    ``val`` or ``test``. Of a file that is not there, ``absolute`` may say where it was when the CSV
    was written: so a CSV may move without its images. Other columns are ignored, and so are empty
    lines. Values are separated by commas, semicolons or tabs; the text is UTF-8, with or without a
    mark of byte order.

    Returns:
        The images by split; without splits all of them, as ``"all"``.

    Raises:
        DataError: No such file, another encoding, no such columns, an empty cell, an absolute
            path, a path that is there twice, an unknown split, or none of the images is there.
    """
    path = user_path(path)
    rows = _rows(path)
    if not rows:
        raise DataError(f"{path} lists no images.", "It has no line after that of the columns.")
    lines: dict[str, int] = {}
    files: dict[str, Path] = {}
    for line, (name, label, split, absolute) in rows:
        _check(path, line, name, label)
        file = _normal(name)
        if file in lines:
            raise DataError(
                f"{path} has {name} twice.", f"It is in the lines {lines[file]} and {line}."
            )
        lines[file] = line
        files[file] = path.parent / name
        if absolute and not os.path.lexists(files[file]):
            files[file] = Path(absolute)
        if (split == "") is not (rows[0][1][2] == ""):
            raise DataError(
                f"{path} has no split in line {line if split == '' else rows[0][0]}.",
                "Other lines have one.",
                "Give one in all lines or in none",
            )
        if split and split.lower() not in SPLITS:
            raise DataError(
                f"{path} has the split {split!r} in line {line}.",
                "Splits are train, val and test.",
                nearest(split, SPLITS),
            )
    if not any(os.path.lexists(file) for file in files.values()):
        first = path.parent / next(iter(files))
        raise DataError(
            f"None of the {len(files)} images of {path} is there.",
            f"Looked for {first}{' and others' * (len(files) > 1)}: paths count from the folder "
            "of the CSV.",
            "Put the CSV beside the images, or change its paths",
        )
    classes = tuple(in_order({label for _, (_, label, *_) in rows}))
    number = {name: index for index, name in enumerate(classes)}
    parts: dict[Split, list[tuple[Path, int]]] = {}
    for _, (name, label, split, _) in rows:
        part: Split = SPLITS[split.lower()] if split else "all"
        parts.setdefault(part, []).append((files[_normal(name)], number[label]))
    return {
        part: LabeledFiles(
            tuple(file for file, _ in parts[part]),
            tuple(label for _, label in parts[part]),
            classes,
            str(path) if part == "all" else f"{path} {part}",
            path.parent,
        )
        for part in get_args(Split)
        if part in parts
    }


def write_csv(path: Path, parts: Mapping[Split, LabeledFiles]) -> None:
    """Write images and their splits as `read_csv` reads them, with paths from the CSV's folder.

    Where they lie now is in it too.

    Raises:
        DataError: Images that are no files, on another drive, or whose names are no UTF-8.
    """
    folder, rows = path.parent.resolve(), []
    for split, images in parts.items():
        for index, label in enumerate(images.labels):
            source = images.sources[index]
            if not isinstance(source, Path):
                raise DataError(
                    f"{images.name} can't be written as a CSV.", "Its images are no files."
                )
            # The link itself, not what it leads to.
            file = source.parent.resolve() / source.name
            try:
                name = Path(os.path.relpath(file, folder)).as_posix()
            except ValueError as error:
                raise DataError(f"{path} can't list {file}.", f"{error}.") from None
            if not is_text(name):
                raise DataError(
                    f"{path} can't list {os.fsencode(file)!r}.", "It is no UTF-8.", "Rename it"
                )
            absolute = str(file) if is_text(str(file)) else ""
            values = (name, images.classes[label], "" if split == "all" else split, absolute)
            rows.append(dict(zip(_COLUMNS, values, strict=True)))
    write_rows(path, _COLUMNS, rows)


def _rows(path: Path) -> list[tuple[int, tuple[str, ...]]]:
    """Number of each line that is not empty, and its `_COLUMNS`."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} can't be read.", f"{error.strerror}.") from None
    except UnicodeDecodeError:
        raise DataError(
            f"{path} can't be read.", "Its text is not in UTF-8.", "Save it as CSV in UTF-8"
        ) from None
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{path} can't be read.", f"It is no CSV: {error}.") from None
    header = [cell.strip().lower() for cell in lines[0][1]] if lines else []
    missing = [name for name in _COLUMNS[:2] if header.count(name) != 1]
    if missing:
        there = ", ".join(header) or "none"
        raise DataError(
            f"{path} has no column {missing[0]!r}, or it has it twice.",
            f"Its first line names the columns: {there}.",
            "Name them path,label or path,label,split",
        )
    found = []
    for line, row in lines[1:]:
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        found.append((line, tuple(cells.get(column, "") for column in _COLUMNS)))
    return found


def _normal(name: str) -> str:
    return os.path.normpath(name)


def _check(path: Path, line: int, name: str, label: str) -> None:
    for cell, column in ((name, "path"), (label, "label")):
        if not cell:
            raise DataError(
                f"{path} has no {column} in line {line}.", "Each line has a path and a label."
            )
    # A path of another system is absolute too.
    if Path(name).is_absolute() or name[0] in "/\\" or name[1:3] in (":\\", ":/"):
        raise DataError(
            f"{path} has the absolute path {name} in line {line}.",
            "Paths count from the folder of the CSV, so that both can be moved.",
            "Put the CSV above the images, and leave out the path of its folder",
        )
