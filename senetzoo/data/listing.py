"""A CSV of images, with the columns ``path``, ``label`` and optionally ``split``."""

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
from senetzoo.data.sets import SPLITS, Split
from senetzoo.errors import DataError, nearest

_COLUMNS = ("path", "label", "split", "absolute")


def read_csv(path: str | Path) -> dict[Split, LabeledFiles]:
    """Read a CSV of images.

    The first line names the columns: ``path``, relative to the folder of the CSV, with slashes;
    ``label``, the name of a class; and optionally ``split``: ``train``, ``val`` or ``test``. The
    column ``absolute`` may have the absolute path for files that aren't found at ``path``, so that
    a CSV can be moved without its images. Other columns and empty lines are ignored. The separator
    is a comma, semicolon or tab; the text is UTF-8, with or without a byte order mark.

    Returns:
        The images by split; all of them as ``"all"`` if there is no split.

    Raises:
        DataError: The file is missing, isn't UTF-8, or lacks a column; a cell is empty; a path is
            absolute or occurs twice; a split is unknown; or none of the images exists.
    """
    path = user_path(path)
    rows = _rows(path)
    if not rows:
        raise DataError(f"{path} lists no images.", "It has no lines below the column names.")
    lines: dict[str, int] = {}
    files: dict[str, Path] = {}
    # Through a link, ``folder/..`` isn't the folder above.
    real, shown = path.parent.resolve(), os.path.abspath if path.is_absolute() else os.path.relpath
    for line, (name, label, split, absolute) in rows:
        _check(path, line, name, label)
        file = os.path.normpath(name)
        if file in lines:
            raise DataError(
                f"{path} has {name} twice.", f"It is in lines {lines[file]} and {line}."
            )
        lines[file] = line
        outside = file.startswith(os.pardir)
        files[file] = Path(shown(real / file)) if outside else path.parent / file
        if absolute and not os.path.lexists(files[file]):
            files[file] = Path(absolute)
        if (split == "") is not (rows[0][1][2] == ""):
            raise DataError(
                f"{path} has no split in line {line if split == '' else rows[0][0]}.",
                "Other lines have one.",
                "Give a split in all lines or in none",
            )
        if split and split.lower() not in SPLITS:
            raise DataError(
                f"{path} has the split {split!r} in line {line}.",
                "The splits are train, val and test.",
                nearest(split, SPLITS),
            )
    if not any(os.path.lexists(file) for file in files.values()):
        folder = os.path.commonpath({file.parent.resolve() for file in files.values()})
        raise DataError(
            f"None of the {len(files)} images of {path} exists.",
            f"Looked for them in {folder}: paths are relative to the folder of the CSV.",
            "Move the images there, or change the paths in the CSV",
        )
    classes = tuple(in_order({label for _, (_, label, *_) in rows}))
    number = {name: index for index, name in enumerate(classes)}
    parts: dict[Split, list[tuple[Path, int]]] = {}
    for _, (name, label, split, _) in rows:
        part: Split = SPLITS[split.lower()] if split else "all"
        parts.setdefault(part, []).append((files[os.path.normpath(name)], number[label]))
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
    """Write images and their splits as a CSV that `read_csv` reads.

    Paths are relative to the CSV's folder; absolute ones are written too.

    Raises:
        DataError: Images aren't files, are on another drive, or have names that aren't UTF-8.
    """
    folder, rows = path.parent.resolve(), []
    for split, images in parts.items():
        for index, label in enumerate(images.labels):
            source = images.sources[index]
            if not isinstance(source, Path):
                raise DataError(
                    f"{images.name} can't be written as a CSV.", "Its images aren't files."
                )
            # Of a link itself, not of its target.
            file = source.parent.resolve() / source.name
            try:
                name = Path(os.path.relpath(file, folder)).as_posix()
            except ValueError as error:
                raise DataError(f"{path} can't list {file}.", f"{error}.") from None
            if not is_text(name):
                raise DataError(
                    f"{path} can't list {os.fsencode(file)!r}.", "It isn't UTF-8.", "Rename it"
                )
            absolute = str(file) if is_text(str(file)) else ""
            values = (name, images.classes[label], "" if split == "all" else split, absolute)
            rows.append(dict(zip(_COLUMNS, values, strict=True)))
    write_rows(path, _COLUMNS, rows)


def _rows(path: Path) -> list[tuple[int, tuple[str, ...]]]:
    """The line number and the `_COLUMNS` of each line that isn't empty."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} can't be read.", f"{error.strerror}.") from None
    except UnicodeDecodeError:
        raise DataError(
            f"{path} can't be read.", "It isn't UTF-8 text.", "Save it as a CSV in UTF-8"
        ) from None
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{path} can't be read.", f"It isn't a valid CSV: {error}.") from None
    header = [cell.strip().lower() for cell in lines[0][1]] if lines else []
    missing = [name for name in _COLUMNS[:2] if header.count(name) != 1]
    if missing:
        there = ", ".join(header) or "none"
        raise DataError(
            f"{path} has no column {missing[0]!r}, or has it twice.",
            f"The columns in its first line are {there}.",
            "Name them path,label or path,label,split",
        )
    found = []
    for line, row in lines[1:]:
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        found.append((line, tuple(cells.get(column, "") for column in _COLUMNS)))
    return found


def _check(path: Path, line: int, name: str, label: str) -> None:
    for cell, column in ((name, "path"), (label, "label")):
        if not cell:
            raise DataError(
                f"{path} has no {column} in line {line}.", "Each line has a path and a label."
            )
    # Paths that are absolute on another operating system too.
    if Path(name).is_absolute() or name[0] in "/\\" or name[1:3] in (":\\", ":/"):
        raise DataError(
            f"{path} has the absolute path {name} in line {line}.",
            "Paths are relative to the folder of the CSV, so that it can be moved with its images.",
            "Put the CSV above the images, and leave out the path of its folder",
        )
