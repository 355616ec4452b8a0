"""From a network to its places, by the tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from senetzoo.errors import PolicyError
from senetzoo.nn.modes import to_meta
from senetzoo.nn.slots import POSITIONS, Position
from senetzoo.policies.foreign import pytorchcv, timm, torchvision
from senetzoo.policies.foreign.hooks import (
    Flat,
    Replace,
    Skip,
    Sum,
    Via,
    When,
    adds_its_input,
    remove_all,
    trunk_of,
)
from senetzoo.policies.foreign.rows import NO_SKIP, SAME, UNIT, Plain, Row, Spot
from senetzoo.policies.foreign.sitemap import Place, SiteMap, Unsupported

_LIBRARIES = (torchvision, timm, pytorchcv)
_ROWS = {name: row for library in _LIBRARIES for row in library.ROWS for name in row.names}
_PLAIN = {name: row for library in _LIBRARIES for row in library.PLAIN for name in row.names}
# Side of the map that a block is tried on, to count what comes out of it.
_TRIED = 16


@dataclass(frozen=True)
class _Found:
    """One block that the tables know."""

    path: str
    block: nn.Module
    row: Row


def class_name(module: nn.Module, known: dict[str, Row] | dict[str, Plain]) -> str:
    """The known class that `module` is of, or empty.

    A subclass is known as long as it has the forward of its parent.
    """
    for cls in type(module).__mro__:
        name = f"{cls.__module__}.{cls.__qualname__}"
        if name in known:
            return name
        if "forward" in cls.__dict__:
            break
    return ""


def known_map(model: nn.Module) -> SiteMap:
    """The map of a network whose blocks the tables know.

    Raises:
        PolicyError: None of them is known.
    """
    found: list[Place | Unsupported] = []
    for path, module in trunk_of(model):
        if name := class_name(module, _PLAIN):
            found += _plain(module, path, _PLAIN[name])
    if not found:
        for known, stage, block in _numbered(model):
            found += _of_block(known, stage, block)
    places = tuple(entry for entry in found if isinstance(entry, Place))
    if not places:
        raise PolicyError(
            f"attach got a {type(model).__name__}.",
            "None of its blocks is known: they are those of torchvision's, timm's and pytorchcv's "
            "counterparts of the networks of the zoo.",
            "Say where gates can sit: attach(model, policy, sites=propose(model, example_input))",
        )
    return SiteMap(places, tuple(entry for entry in found if isinstance(entry, Unsupported)))


def _blocks(model: nn.Module) -> Iterator[_Found | None]:
    """The known blocks in order, and None for a pooling layer."""
    inside: set[int] = set()
    for path, module in trunk_of(model):
        if id(module) in inside:
            continue
        name = class_name(module, _ROWS)
        if name:
            inside.update(map(id, module.modules()))
            yield _Found(path, module, _ROWS[name])
        elif isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
            yield None


def _numbered(model: nn.Module) -> Iterator[tuple[_Found, int, int]]:
    """The known blocks with stage and block."""
    stage, block, last, pooled = 0, 0, "", False
    for found in _blocks(model):
        if found is None:
            pooled = True
            continue
        row, parent = found.row, found.path.rpartition(".")[0]
        if row.stage == "parent":
            opens, last = parent != last or not stage, parent
        elif row.stage == "skip":
            opens = not adds_its_input(found.block, row.adds)
        elif row.stage == "pool":
            opens = pooled
        elif row.stage == "opens":
            opens = type(found.block).__name__ in row.opens
        else:
            match = re.search(row.stage, found.path)
            group = match[1] if match else ""
            opens, last = group != last, group
        if opens or not stage:
            stage, block = stage + 1, 0
        block, pooled = block + 1, False
        yield found, stage, block


def _of_block(found: _Found, stage: int, number: int) -> Iterator[Place | Unsupported]:
    row, block = found.row, found.block
    adds = not row.adds or adds_its_input(block, row.adds)
    for position in POSITIONS:
        reason = row.lacks.get(position, "")
        spots = row.spots(position)
        if not adds and position in ("identity", "post"):
            spots, reason = (), NO_SKIP if position == "identity" else SAME
        if position == "inner" and row.inner_needs:
            sequence = block.get_submodule(row.inner_needs)
            if len(sequence._modules) < 2:
                spots, reason = (), UNIT["inner"]
        here = [place for spot in spots for place in _place(found, position, spot, stage, number)]
        yield from here
        if not here:
            yield Unsupported(found.path, position, reason, stage, number)


def _place(
    found: _Found, position: Position, spot: Spot, stage: int, number: int
) -> Iterator[Place]:
    block, via = found.block, spot.via
    chosen: Via | None = via
    if isinstance(via, Replace):
        held = getattr(block, via.attribute, None)
        empty = held is None or isinstance(held, Skip)
        name, chosen = ("", via) if empty else (via.attribute, None)
    else:
        existing = _existing(block, spot.module)
        if existing is None:
            return
        name = existing
    if spot.flat:
        height, width = block.input_resolution  # type: ignore[misc]
        chosen = Flat(int(height), int(width))
    channels = _channels(found, position, spot, name)
    path = ".".join(filter(None, [found.path, name]))
    yield Place(
        path, position, spot.when, stage, number, channels, found.row.layout, chosen, spot.branch
    )


def _existing(block: nn.Module, paths: str) -> str | None:
    """The first of `paths` at which `block` has a module, with negative numbers made positive."""
    for path in paths.split("|"):
        module: nn.Module | None = block
        parts = []
        for part in filter(None, path.split(".")):
            children: dict[str, nn.Module | None] = {} if module is None else module._modules
            if part.startswith("-") and len(children) >= -int(part):
                part = list(children)[int(part)]
            module = children.get(part)
            parts.append(part)
        if module is not None:
            return ".".join(parts)
    return None


def _channels(found: _Found, position: Position, spot: Spot, name: str) -> int:
    """Channels at a place."""
    block, row = found.block, found.row
    if spot.width:
        path = _existing(block, spot.width)
        if path is not None:
            return _edge(block.get_submodule(path), spot.when)
    if name:
        return _edge(block.get_submodule(name), spot.when)
    if spot.when == "before" or (isinstance(spot.via, Sum)):
        return _inputs(block)
    if position != "standard":
        # What comes out of the block is as wide as its branch.
        standard = row.standard[0]
        return _channels(found, "standard", standard, _existing(block, standard.module) or "")
    twin = to_meta(block)
    remove_all(twin)
    with torch.device("meta"), torch.no_grad():
        return int(twin(torch.empty(1, _inputs(block), _TRIED, _TRIED)).shape[1])


def _inputs(block: nn.Module) -> int:
    """Channels that go into a block: those of its first convolution."""
    return next(m.in_channels for _, m in trunk_of(block) if isinstance(m, nn.Conv2d))


def _edge(module: nn.Module, side: When) -> int:
    """Channels of the first module in `module` that says so, or of the last."""
    modules = [inner for _, inner in trunk_of(module)]
    if side == "after":
        # The module itself, then from the last on.
        modules = [module, *reversed(modules)]
    return next((width for m in modules if (width := width_of(m, side))), 0)


def _plain(model: nn.Module, path: str, plain: Plain) -> Iterator[Place | Unsupported]:
    """The convolutions of a sequence, each with what follows it up to the next or to a pooling."""
    base = ".".join(filter(None, [path, plain.sequence]))
    units: list[list[str]] = []
    numbers: list[tuple[int, int]] = []
    stage, block, pooled = 1, 0, False
    for name, module in model.get_submodule(plain.sequence).named_children():
        if isinstance(module, nn.Conv2d):
            stage, block = (stage + 1, 1) if pooled else (stage, block + 1)
            pooled = False
            units.append([f"{base}.{name}"] * 2)
            numbers.append((stage, block))
        elif isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
            pooled = True
        elif units and not pooled:
            units[-1][1] = f"{base}.{name}"
    for (conv, last), at in zip(units, numbers, strict=True):
        inner = model.get_submodule(conv.removeprefix(path).removeprefix("."))
        yield Place(conv, "pre", "before", *at, width_of(inner, "before"))
        yield Place(last, "standard", "after", *at, width_of(inner, "after"))
        for position, reason in UNIT.items():
            yield Unsupported(conv, position, reason, *at)


def width_of(module: nn.Module, side: When) -> int:
    """Channels that go into or come out of `module`, read from it; 0 if it does not say."""
    names = ["in_channels", "in_features"] if side == "before" else ["out_channels", "out_features"]
    for name in [*names, "num_features", "num_channels"]:
        value = getattr(module, name, None)
        if type(value) is int:
            return value
    shape = getattr(module, "normalized_shape", None)
    if isinstance(shape, (tuple, list)) and shape:
        return int(shape[-1])
    weight = getattr(module, "weight", None)
    return len(weight) if isinstance(weight, Tensor) and weight.ndim == 1 else 0
