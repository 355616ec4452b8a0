"""A check of every image before training: which files can't be used, and statistics of the rest."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch

from senetzoo._utils.environment import cores
from senetzoo._utils.files import is_text, read_regular, write_csv
from senetzoo._utils.terminal import columns, counted, progress
from senetzoo.data.files import LabeledFiles
from senetzoo.data.images import check_image
from senetzoo.data.labels import check_classes
from senetzoo.data.sets import ImageSet, Split
from senetzoo.data.sources import open_splits, with_val
from senetzoo.data.split import Images
from senetzoo.errors import DataError, first_line

ProblemKind: TypeAlias = Literal[
    "empty", "unreadable", "broken", "unsupported", "duplicate", "two labels", "two splits"
]
_SAYS: dict[ProblemKind, str] = {
    "empty": "empty files",
    "unreadable": "can't be opened",
    "broken": "broken images",
    "unsupported": "not named like an image, with an unusable name, or not in a class folder",
    "duplicate": "copies of another image of the class",
    "two labels": "the same image under two labels",
    "two splits": "the same image in two splits",
}
_CHUNK = 64


@dataclass(frozen=True)
class Problem:
    """A file that is left out.

    Args:
        kind: ``"empty"``; ``"unreadable"`` (no such file, or no permission); ``"broken"``;
            ``"unsupported"`` (not named like an image, not in a class folder, or a name that isn't
            UTF-8); ``"duplicate"`` (same bytes as another image of its class, which is kept);
            ``"two labels"`` (same bytes as an image of another class; neither is kept); ``"two
            splits"`` (same bytes as an image of ``val`` or ``test``, which is kept there).
        file: Path relative to the folder of the data, with slashes; or a name of the image.
        split: The file's split; empty for unsupported files, but for names that aren't UTF-8.
        label: Name of its class; empty where the split is.
        detail: What is wrong, or the file that it is a copy of.
    """

    kind: ProblemKind
    file: str
    split: Split | Literal[""]
    label: str
    detail: str


@dataclass(frozen=True)
class Scan:
    """The result of `scan`: the images that can be used, and the files that can't.

    Its ``str`` is a table for a terminal.

    Args:
        name: Name of the data.
        parts: The usable images of each split.
        problems: The files that are left out, sorted by kind and name.
        size: Median width and height of the images, in pixels.
    """

    name: str
    parts: Mapping[Split, Images]
    problems: tuple[Problem, ...]
    size: tuple[int, int]

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each class."""
        return next(iter(self.parts.values())).classes

    @property
    def counts(self) -> dict[Split, dict[str, int]]:
        """Number of images of each class in each split."""
        found: dict[Split, dict[str, int]] = {}
        for split, images in self.parts.items():
            number = Counter(torch.as_tensor(images.labels).tolist())
            found[split] = {name: number[index] for index, name in enumerate(images.classes)}
        return found

    @property
    def imbalance(self) -> float:
        """Size of the largest class relative to the smallest, in the training split."""
        counts = self.counts
        of = counts.get("train") or counts.get("all") or next(iter(counts.values()))
        return max(of.values()) / max(min(of.values()), 1)

    def lines(self, longest: int | None = 20) -> list[str]:
        """Lines of a table: sizes of classes and splits, then the files that are left out.

        Args:
            longest: Maximum number of classes, and of files of each kind, to list; None for all.
        """
        counts, classes = self.counts, self.classes
        shown = classes if longest is None or len(classes) <= longest else classes[: longest - 1]
        rows = [["class", *counts]]
        rows += [[name, *(str(of[name]) for of in counts.values())] for name in shown]
        if rest := classes[len(shown) :]:
            sums = (str(sum(of[name] for name in rest)) for of in counts.values())
            rows.append([f"{len(rest)} more", *sums])
        rows.append(["all", *(str(sum(of.values())) for of in counts.values())])
        found = columns(rows)
        width, height = self.size
        found.append(
            f"median image {width}x{height} pixels, largest class {self.imbalance:.3g} times the "
            "smallest"
        )
        if not self.problems:
            return [*found, "no files are left out"]
        number = len(self.problems)
        found.append(f"{number} file{'s are' if number > 1 else ' is'} left out:")
        for kind, says in _SAYS.items():
            some = [problem for problem in self.problems if problem.kind == kind]
            if some:
                found.append(f"  {says}: {len(some)}")
            cut = some if longest is None or len(some) <= longest else some[: longest - 1]
            found += [f"    {problem.file}: {problem.detail}" for problem in cut]
            if len(cut) < len(some):
                found.append(f"    and {len(some) - len(cut)} more")
        return found

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def record(self) -> dict[str, Any]:
        """JSON values, without the images."""
        return {
            "data": self.name,
            "classes": list(self.classes),
            "counts": self.counts,
            "imbalance": round(self.imbalance, 3),
            "median_size": list(self.size),
            "problems": [dataclasses.asdict(problem) for problem in self.problems],
        }

    def write_csv(self, path: Path) -> None:
        """Write the files that are left out to a CSV: ``kind,file,split,label,detail``."""
        columns = [field.name for field in dataclasses.fields(Problem)]
        write_csv(path, columns, map(dataclasses.asdict, self.problems))


class _Look(NamedTuple):
    """The result of reading an image: hash and size of a good one, or what is wrong."""

    digest: str
    size: tuple[int, int]
    kind: ProblemKind | None = None
    detail: str = ""


def scan(
    where: str | Path | Mapping[Split, Images],
    *,
    held_out: float = 0.0,
    seed: int = 0,
    threads: int | None = None,
) -> Scan:
    """Read every image once, and leave out those that can't be trained on.

    Left out are broken, empty and unsupported files, all but one copy of an image within a class,
    images with two labels, training images that are also in ``val`` or ``test``, and images of
    ``val`` that are also in ``test``. A progress bar is shown. Images in memory (`ImageSet`) are
    only counted, since published data sets are used as they are.

    Args:
        where: As in `senetzoo.data.open`, or the result of `open_splits`.
        held_out: Fraction of the good training images, or of all, that becomes ``"val"`` if there
            is none; 0 for none.
        seed: Seed of the held-out images.
        threads: Number of threads; None for the number of cores.

    Raises:
        DataError: The data is missing; it has fewer than two classes; class names differ only in
            case or Unicode encoding; or a class has fewer than two usable images, or none to train
            on.
    """
    parts = where if isinstance(where, Mapping) else open_splits(where)
    name = next(iter(parts.values())).name if isinstance(where, Mapping) else str(where)
    classes = next(iter(parts.values())).classes
    check_classes(name, classes)
    if odd := [label for label in classes if not is_text(label)]:
        raise DataError(
            f"{name} has a class named {os.fsencode(odd[0])!r}.",
            "It isn't UTF-8, which the list of images needs.",
            "Rename the folder",
        )
    looks = _looks(parts, threads)
    base = _base(parts)
    problems = _left_out(parts, base)
    bad = _bad(parts, looks, base) | _copies(parts, looks, base)
    good = {
        split: [index for index in range(len(images)) if (split, index) not in bad]
        for split, images in parts.items()
    }
    kept: dict[Split, Images] = {split: images.keep(good[split]) for split, images in parts.items()}
    problems += bad.values()
    order = list(_SAYS)
    problems.sort(key=lambda problem: (order.index(problem.kind), problem.file))
    _check_counts(name, kept, problems)
    if held_out:
        # Images in memory weren't hashed.
        digests = {
            split: [looks[split][index].digest for index in good[split]]
            for split, images in parts.items()
            if isinstance(images, LabeledFiles)
        }
        kept = with_val(kept, held_out, seed, digests)
    sizes = [looks[split][index].size for split, numbers in good.items() for index in numbers]
    size = (_median([width for width, _ in sizes]), _median([height for _, height in sizes]))
    return Scan(name, kept, tuple(problems), size)


def readable(images: Images) -> tuple[Images, tuple[Problem, ...]]:
    """The images that can be read, and the files that can't."""
    parts: dict[Split, Images] = {"all": images}
    bad = _bad(parts, _looks(parts, None), _base(parts))
    if not bad:
        return images, ()
    good = [index for index in range(len(images)) if ("all", index) not in bad]
    return images.keep(good), tuple(bad.values())


def _bad(
    parts: Mapping[Split, Images], looks: Mapping[Split, list[_Look]], base: Path | None
) -> dict[tuple[Split, int], Problem]:
    return {
        (split, index): Problem(
            look.kind, _file(images, index, base), split, _label(images, index), look.detail
        )
        for split, images in parts.items()
        for index, look in enumerate(looks[split])
        if look.kind is not None
    }


def _median(values: Sequence[int]) -> int:
    return int(statistics.median(values))


def _label(images: Images, index: int) -> str:
    return images.classes[int(images.labels[index])]


def _looks(parts: Mapping[Split, Images], threads: int | None) -> dict[Split, list[_Look]]:
    total = sum(map(len, parts.values()))
    found: dict[Split, list[_Look]] = {}
    with progress(total, "scan", "image") as advance:
        for split, images in parts.items():
            if isinstance(images, ImageSet):
                height, width = images.images.shape[1:3]
                found[split] = [_Look("", (width, height))] * len(images)
                advance(len(images))
                continue
            found[split] = []
            chunks = [range(n, min(n + _CHUNK, len(images))) for n in range(0, len(images), _CHUNK)]
            # Pillow releases the GIL while it decodes.
            with ThreadPoolExecutor(threads or cores()) as pool:
                for looks in pool.map(functools.partial(_look_at, images), chunks):
                    found[split] += looks
                    advance(len(looks))
    return found


def _look_at(images: LabeledFiles, chunk: range) -> list[_Look]:
    return [_look(images, index) for index in chunk]


def _look(images: LabeledFiles, index: int) -> _Look:
    try:
        source = images.sources[index]
        if isinstance(source, Path) and not is_text(images.file_name(index)):
            return _Look("", (0, 0), "unsupported", "its name isn't UTF-8")
        data = source if isinstance(source, bytes) else read_regular(source)
    except (OSError, ValueError, DataError) as error:  # a null byte in a path is a ValueError
        why = getattr(error, "strerror", None) or first_line(error)
        return _Look("", (0, 0), "unreadable", why)
    if not data:
        return _Look("", (0, 0), "empty", "it has no bytes")
    try:
        size = check_image(data, "it")
    except DataError as error:
        return _Look("", (0, 0), "broken", _sentence(error))
    return _Look(hashlib.sha256(data).hexdigest(), size)


def _sentence(error: DataError) -> str:
    """The part of an image's error message that says what is wrong."""
    _, what, *_ = [*str(error).splitlines(), ""]
    return what[:1].lower() + what[1:].rstrip(".")


def _copies(
    parts: Mapping[Split, Images], looks: Mapping[Split, list[_Look]], base: Path | None
) -> dict[tuple[Split, int], Problem]:
    """The images that are left out because others have the same bytes."""
    same: dict[str, list[tuple[Split, int]]] = defaultdict(list)
    # The test images are kept first.
    for split in ("test", "val", "train", "all"):
        for index, look in enumerate(looks.get(split, ())):
            if look.digest:
                same[look.digest].append((split, index))
    found: dict[tuple[Split, int], Problem] = {}
    for places in same.values():
        if len(places) == 1:
            continue
        named = [
            (split, index, _file(parts[split], index, base), _label(parts[split], index))
            for split, index in places
        ]
        first_split, _, first, _ = named[0]
        two_labels = len({label for *_, label in named}) > 1
        for position, (split, index, file, label) in enumerate(named):
            if two_labels:
                others = ", ".join(other for _, _, other, theirs in named if theirs != label)
                problem = Problem("two labels", file, split, label, f"the same as {others}")
            elif position == 0:
                continue
            else:
                kind: ProblemKind = "duplicate" if split == first_split else "two splits"
                problem = Problem(kind, file, split, label, f"the same as {first}")
            found[split, index] = problem
    return found


def _base(parts: Mapping[Split, Images]) -> Path | None:
    """The folder that contains all files."""
    roots = [p.root for p in parts.values() if isinstance(p, LabeledFiles) and p.root is not None]
    return Path(os.path.commonpath([root.absolute() for root in roots])) if roots else None


def _file(images: Images, index: int, base: Path | None) -> str:
    name = images.source_name(index)
    known = isinstance(images, LabeledFiles) and images.root is not None
    return _inside(Path(name), base) if known else name


def _inside(path: Path, base: Path | None) -> str:
    path = path.absolute()
    return (path.relative_to(base) if base and path.is_relative_to(base) else path).as_posix()


def _left_out(parts: Mapping[Split, Images], base: Path | None) -> list[Problem]:
    """The files that aren't named like images, or aren't in a class folder."""
    found = []
    for images in parts.values():
        if not isinstance(images, LabeledFiles):
            continue
        for path in images.left_out:
            if path.is_dir():
                why = "a folder without images"
            elif path.parent == images.root:
                why = "not in a class folder"
            else:
                why = f"files named {path.suffix or 'without a suffix'} are not read"
            found.append(Problem("unsupported", _inside(path, base), "", "", why))
    return found


def _check_counts(name: str, parts: Mapping[Split, Images], problems: Sequence[Problem]) -> None:
    total: Counter[int] = Counter()
    for images in parts.values():
        total.update(torch.as_tensor(images.labels).tolist())
    classes = next(iter(parts.values())).classes
    training = parts.get("train", parts.get("all"))
    trained = Counter(torch.as_tensor(training.labels).tolist()) if training is not None else total
    for index, word in enumerate(classes):
        if total[index] >= 2 and trained[index]:
            continue
        bad = [f"{p.file} ({p.kind})" for p in problems if p.label == word]
        few = counted(total[index], "image") if total[index] < 2 else "no training images"
        raise DataError(
            f"The class {word!r} of {name} has {few} that can be used.",
            (f"Left out: {', '.join(bad[:5])}{', ...' * (len(bad) > 5)}. " if bad else "")
            + "Each class needs two, one of them to train on.",
            "Add images to it, or remove the class",
        )
