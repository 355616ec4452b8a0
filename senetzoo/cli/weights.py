"""The commands ``senetzoo weights``."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Annotated, Any

import click

from senetzoo._utils.terminal import columns, echo
from senetzoo.cli import complete
from senetzoo.cli.base import BAD_INPUT, LazyGroup
from senetzoo.cli.options import FOLDER, Json, as_command, say
from senetzoo.errors import ConfigError, SenetzooError, WeightsError, nearest
from senetzoo.weights import cache, download, lock
from senetzoo.weights.manifest import Entry, find, manifest

_PINNED = {"sha256": "sha256", "prefix": "start of sha256", "sha1": "sha1", "": "not pinned"}
_SOME_FAILED = {BAD_INPUT: "bad input, or weights that are missing or wrong; stderr names them"}


@click.group(
    "weights",
    cls=LazyGroup,
    elsewhere={
        "convert": "senetzoo.cli.convert:command",
        **{
            name: f"senetzoo.cli.weights:{name}_command"
            for name in ("list", "show", "get", "verify")
        },
    },
)
def command() -> None:
    """List, describe, fetch, check and convert weights.

    \b
    Files are looked up in this order:
      the package itself (embedded)
      SENETZOO_CACHE and the Hub's cache
      the folders of SENETZOO_WEIGHTS, then its http(s) addresses
      the Hub (HF_ENDPOINT) or the publisher's address
    HF_HUB_OFFLINE=1 forbids downloads.

    \b
    Examples:
      senetzoo weights list 'resnet50.*'
      senetzoo weights show se_resnet20
      senetzoo weights get resnet50 --to weights
    """


@as_command("list", registers=False)
def list_command(pattern: Annotated[str, complete.tags] = "*", *, as_json: Json = False) -> None:
    """List the weights whose tags match PATTERN.

    \b
    Examples:
      senetzoo weights list
      senetzoo weights list 'se_resnet*'
      senetzoo weights list '*.cifar10*' --json
    """
    entries, locks = _matching(pattern), cache.locks()
    rows = [
        (
            tag + " (default)" * entry.default,
            entry.source.kind,
            _held_by(tag, entry, locks),
            "non-commercial" if entry.license.non_commercial else "",
            ", ".join(_figures(entry)),
        )
        for tag, entry in entries.items()
    ]
    # Leave out empty columns.
    filled = [column for column in zip(*rows, strict=True) if any(column)]
    lines = columns(list(zip(*filled, strict=True)), left=len(filled))
    known = {
        tag: {**dataclasses.asdict(entry), "locked": locks.get(tag)}
        for tag, entry in entries.items()
    }
    say(as_json, known, "\n".join(lines))


@as_command("show", registers=False)
def show_command(tag: Annotated[str, complete.tags], *, as_json: Json = False) -> None:
    """Show what is known about the weights TAG; a network's name means its default weights.

    \b
    Examples:
      senetzoo weights show se_resnet20.cifar10_v1
      senetzoo weights show se_resnet20 --json
    """
    full, stated = _chosen(tag)
    entry = cache.completed(full, stated)
    path, _ = next(cache.candidates(full, entry), (None, ""))
    license, images = entry.license, entry.preprocessing
    lines = {
        "weights": full + " (the default)" * entry.default,
        "network": " ".join(
            [entry.model, *filter(None, [entry.policy and f"+{entry.policy}", entry.stem])]
        ),
        "accuracy": ", ".join(_figures(entry)) or "unknown",
        "trained on": entry.data,
        "recipe": "".join(f"{run.recipe}: {run.command}" for run in entry.training[-1:]),
        "continued from": "".join(run.start or "" for run in entry.training[-1:]),
        "classes": str(entry.num_classes),
        "input": f"{images.channels} x {images.size} x {images.size}, {images.interpolation}, "
        f"crop {images.crop:g}, mean {_numbers(images.mean)}, std {_numbers(images.std)}",
        "size": f"{entry.params:,} parameters, {entry.macs:,} MACs"
        + (f", {entry.bytes:,} bytes" if entry.bytes is not None else ""),
        "source": "embedded" if entry.source.kind == "embedded" else download.address(entry),
        cache.kind_of(entry): (entry.digest or "unknown: not pinned")
        + "..." * (entry.pinned == "prefix")
        + f" ({cache.lock_path()})" * cache.is_locked(full, entry),
        "license": f"weights {license.weights}, code {license.code}, data {license.data}"
        + " (non-commercial)" * entry.license.non_commercial,
        "provenance": entry.provenance,
        "file": str(path) if path else "not on this machine",
    }
    known = {
        "tag": full,
        **dataclasses.asdict(stated),
        "locked": cache.locks().get(full),
        "file": str(path) if path else None,
    }
    say(as_json, known, "\n".join(f"{name:16}{text}" for name, text in lines.items() if text))


@as_command("get", exits=_SOME_FAILED, registers=False)
def get_command(
    tags: Annotated[tuple[str, ...], complete.tags],
    *,
    folder: Annotated[
        Path | None,
        FOLDER,
        "--to",
        "Copy the files to this folder, for SENETZOO_WEIGHTS on a machine without a network.",
    ] = None,
    lock_here: Annotated[
        bool,
        "--lock",
        "Create senetzoo.lock in this folder, for the hashes of files whose publisher states none.",
    ] = False,
    update: Annotated[
        bool,
        "--update",
        "Accept the publisher's current file in place of the one in senetzoo.lock.",
    ] = False,
    as_json: Json = False,
) -> None:
    """Download the files of TAGS (or patterns of tags) and check them.

    The same command again fetches what is missing. An interrupted download of a publisher's address
    resumes where it stopped, if the file's hash is known; so does one of the Hub with --to. Without
    --to, files go to the cache, and those of the package stay there. If the publisher states no
    hash, that of the first file is written to senetzoo.lock, and later files have to match it.

    \b
    Examples:
      senetzoo weights get resnet50
      senetzoo weights get 'se_resnet*' --to weights
      senetzoo weights get swin_t.ms_in1k --lock
      senetzoo weights get swin_t.ms_in1k --update
      senetzoo weights get se_resnet20 --json
    """
    chosen: dict[str, Entry] = {}
    for tag in tags:
        chosen |= _matching(tag) if set(tag) & set("*?[") else dict([_chosen(tag)])

    here = Path(lock.FILE)
    if begun := lock_here and not here.is_file():
        lock.write(here, {})

    def one(tag: str, entry: Entry) -> cache.VerifiedFile:
        if update and not entry.pinned:
            download.update(tag, entry)
        if folder is None:
            return download.locate(tag, entry)
        return download.copy_to(folder, tag, entry)

    try:
        _each(list(chosen), lambda tag: (tag, one(tag, chosen[tag])), as_json)
    finally:
        if begun and not cache.locks():
            here.unlink()  # an empty lock file would still take effect


@as_command("verify", exits=_SOME_FAILED, registers=False)
def verify_command(
    tags: Annotated[tuple[str, ...], complete.tags] = (), *, as_json: Json = False
) -> None:
    """Check files against the manifest: the weights TAGS, or all weights on this machine.

    Nothing is downloaded.

    \b
    Examples:
      senetzoo weights verify
      senetzoo weights verify se_resnet20.cifar10_v1
      senetzoo weights verify --json
    """

    def one(tag: str) -> tuple[str, cache.VerifiedFile]:
        full, entry = _chosen(tag)
        file = cache.check(full, entry)
        if file is None:
            raise WeightsError(
                f"The weights {full} are not on this machine.",
                "There is nothing to check.",
                f"Type: senetzoo weights get {full}",
            )
        return full, file

    chosen = tags or [
        tag
        for tag, entry in manifest().items()
        if entry.source.kind == "embedded"
        or any(cache.candidates(tag, cache.completed(tag, entry)))
    ]
    _each(chosen, one, as_json)


def _each(
    tags: Sequence[str],
    one: Callable[[str], tuple[str, cache.VerifiedFile]],
    as_json: bool,
) -> None:
    """Print the result of `one` for each tag; an error doesn't stop the others."""
    found: list[dict[str, Any]] = []
    failed = False
    for tag in tags:
        try:
            full, file = one(tag)
        except SenetzooError as error:
            echo(f"error: {error}", err=True)
            found.append({"tag": tag, "ok": False, "error": str(error)})
            failed = True
            continue
        known = {**dataclasses.asdict(file), "path": str(file.path)}
        found.append({"tag": full, "ok": True, **known})
        if not as_json:
            by = _held_by(full, manifest()[full], cache.locks())
            state = "" if by == "sha256" else f" ({by})"
            echo(f"{full}  ok  {file.origin}  sha256 {file.sha256}{state}")
    if as_json:
        echo(json.dumps(found))
    if failed:
        raise click.exceptions.Exit(BAD_INPUT)


def _chosen(tag: str) -> tuple[str, Entry]:
    """The entry of ``model.tag``, or the default of ``model``."""
    model, _, name = tag.partition(".")
    from senetzoo.registry import entry

    entry(model)  # an unknown network is another error than one without weights
    return find(model, name or None)


def _matching(pattern: str) -> dict[str, Entry]:
    found = {tag: e for tag, e in manifest().items() if fnmatch.fnmatchcase(tag, pattern)}
    if not found:
        raise ConfigError(
            f"No weights match {pattern!r}.",
            "* matches any characters; a tag is network.version.",
            nearest(pattern, manifest())
            or "Type for example: senetzoo weights list 'se_resnet20.*'",
        )
    return found


def _held_by(tag: str, entry: Entry, locks: Container[str]) -> str:
    """What a file is checked against: the published hash, else the lock file."""
    return lock.FILE if not entry.pinned and tag in locks else _PINNED[entry.pinned]


def _figures(entry: Entry) -> list[str]:
    return [f"{m.value:.2f} % on {m.data}" for m in entry.metrics if m.name == "accuracy"]


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
