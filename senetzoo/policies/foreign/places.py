"""From a network that declares no sites to its `SiteMap`: by the tables, or by names."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from senetzoo.errors import PolicyError, nearest
from senetzoo.nn.modes import to_meta
from senetzoo.nn.slots import POSITIONS, Layout, Position
from senetzoo.policies.foreign.hooks import Skip, adds_its_input, remove_all, trunk_of
from senetzoo.policies.foreign.known import UNIT, KnownBlock, Spot
from senetzoo.policies.foreign.sitemap import HOOK, Place, SiteMap, Unsupported, Via, When
from senetzoo.policies.foreign.tables import KNOWN, PLAIN

# Side of the map that a block is tried on, to count what comes out of it.
_TRIED = 16
_OTHERS = (nn.Conv1d, nn.Conv3d)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d)


def site_map(
    model: nn.Module,
    modules: str | Iterable[str] | Callable[[str, nn.Module], bool] | None = None,
    position: Position = "standard",
    *,
    when: When | None = None,
    stage: Callable[[str], int] | None = None,
    channels: int = 0,
    layout: Layout = "nchw",
) -> SiteMap:
    """Where gates can sit in a network of a library that is known, or in one's own.

    Args:
        model: The network, of torchvision, timm, pytorchcv, transformers or ultralytics where
            `modules` is None; it is not changed.
        modules: A shell-style pattern of the names of modules (``"layers.*.act"``), several, or a
            function of a module's name and the module. None, without other arguments, for what
            the tables know of the network's blocks.
        position: What the places are in their blocks.
        when: Before or after the modules; None for what goes with the position.
        stage: Stage by a module's name; None for one stage. Blocks are counted in each.
        channels: Channels there; 0 to read them from the modules.
        layout: ``"nchw"`` or ``"nhwc"``.

    Raises:
        PolicyError: None of the network's blocks is known, or no module is meant.
    """
    if modules is None:
        if (position, when, stage, channels, layout) != ("standard", None, None, 0, "nchw"):
            raise PolicyError(
                "site_map got options without modules.",
                "They describe modules that you name; known blocks need no options.",
                'Type for example: site_map(model, "layer?.*.bn2", position="standard")',
            )
        return known_map(model)
    names = dict(trunk_of(model))
    if callable(modules):
        chosen = [name for name, module in names.items() if modules(name, module)]
    else:
        patterns = [modules] if isinstance(modules, str) else list(modules)
        chosen = [n for n in names if any(fnmatch.fnmatchcase(n, p) for p in patterns)]
    if not chosen:
        asked = "The function" if callable(modules) else repr(modules)
        raise PolicyError(
            f"{asked} names no module of {type(model).__name__}.",
            f"It has {len(names)} modules, from {list(names)[min(1, len(names) - 1)]!r} to "
            f"{list(names)[-1]!r}.",
            nearest(modules, names) if isinstance(modules, str) else "",
        )
    count: Counter[int] = Counter()
    places = []
    for name in chosen:
        number = 1 if stage is None else stage(name)
        count[number] += 1
        places.append(Place(name, position, when, number, count[number], channels, layout))
    return SiteMap(tuple(places))


# --- By the tables -------------------------------------------------------------------------------


def known_map(model: nn.Module, verb: str = "attach") -> SiteMap:
    """The places that the tables know; `verb` is the function that is named in errors."""
    found: list[Place | Unsupported] = []
    for path, module in trunk_of(model):
        if _known_class(module, PLAIN):
            found += _plain(path, module)
    if not found:
        for path, block, row, stage, number in _blocks(model):
            found += _of_block(path, block, row, stage, number)
    places = tuple(entry for entry in found if isinstance(entry, Place))
    if not places:
        _check_maps(model, verb)
        policy = ", policy" if verb == "attach" else ""
        raise PolicyError(
            f"{verb} got a {type(model).__name__}.",
            "None of its blocks is known. Known are those of many networks of torchvision, timm, "
            "pytorchcv, transformers and ultralytics.",
            f"Say where gates can sit: {verb}(model{policy}, sites=propose(model, example_input))",
        )
    return SiteMap(places, tuple(entry for entry in found if isinstance(entry, Unsupported)))


def _known_class(module: nn.Module, known: Container[str]) -> str:
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


def _blocks(model: nn.Module) -> Iterator[tuple[str, nn.Module, KnownBlock, int, int]]:
    """The known blocks in order, each with its path, row, stage and number."""
    inside: set[int] = set()
    stage, number, last, pooled = 0, 0, "", False
    for path, block in trunk_of(model):
        if id(block) in inside:
            continue
        name = _known_class(block, KNOWN)
        if not name:
            pooled = pooled or isinstance(block, _POOLS)
            continue
        inside.update(map(id, block.modules()))
        row = KNOWN[name]
        if row.stage == "skip":
            opens = not adds_its_input(block, row.adds)
        elif row.stage == "pool":
            opens = pooled
        elif isinstance(row.stage, tuple):
            opens = type(block).__name__ in row.stage
        else:
            match = re.search(row.stage, path)
            group = match[1] if match else ""
            opens, last = group != last, group
        if opens or not stage:
            stage, number = stage + 1, 0
        number, pooled = number + 1, False
        yield path, block, row, stage, number


def _of_block(
    path: str, block: nn.Module, row: KnownBlock, stage: int, number: int
) -> Iterator[Place | Unsupported]:
    adds = not row.adds or adds_its_input(block, row.adds)
    for position in POSITIONS:
        spots, reason = getattr(row, position), row.lacks.get(position, "")
        if not adds and position in ("identity", "post"):
            spots, reason = (), UNIT[position]
        lacks = True
        for spot in spots:
            name, via = _existing(block, spot.module), spot.via
            if via.replace and (name is None or isinstance(block.get_submodule(name), Skip)):
                name = ""
            elif via.replace:
                via = HOOK
            if name is None:
                continue
            if spot.flat:
                via = Via(size=tuple(map(int, block.input_resolution)))  # type: ignore[arg-type]
            lacks = False
            yield Place(
                ".".join(filter(None, [path, name])),
                position,
                spot.when,
                stage,
                number,
                _channels(block, row, position, spot, name),
                row.layout,
                via,
                spot.branch,
            )
        if lacks:
            yield Unsupported(path, position, reason, stage, number)


def _existing(block: nn.Module, paths: str) -> str | None:
    """The first of `paths` at which `block` has a module, with negative numbers made positive."""
    for path in paths.split("|"):
        module: nn.Module | None = block
        parts = []
        for part in filter(None, path.split(".")):
            children = {} if module is None else module._modules
            if part.startswith("-") and len(children) > -int(part):
                part = list(children)[int(part)]
            module = children.get(part)
            parts.append(part)
        if module is not None:
            return ".".join(parts)
    return None


def _channels(block: nn.Module, row: KnownBlock, position: Position, spot: Spot, name: str) -> int:
    """Channels at a place."""
    path = _existing(block, spot.width) if spot.width else None
    if path is not None or name:
        return _edge(block.get_submodule(name if path is None else path), spot.when)
    # Those that go into the block: of its first convolution.
    inputs = next(m.in_channels for _, m in trunk_of(block) if isinstance(m, nn.Conv2d))
    if spot.when == "before" or spot.via.add:
        return inputs
    if position != "standard":
        # What comes out of the block is as wide as its branch.
        standard = row.standard[0]
        name = _existing(block, standard.module) or ""
        return _channels(block, row, "standard", standard, name)
    twin = to_meta(block)
    remove_all(twin)
    with torch.device("meta"), torch.no_grad():
        return int(twin(torch.empty(1, inputs, _TRIED, _TRIED)).shape[1])


def _edge(module: nn.Module, side: When) -> int:
    """Channels of the first module in `module` that says so, or of the last."""
    modules = [inner for _, inner in trunk_of(module)]
    if side == "after":
        # The module itself, then from the last on.
        modules = [module, *reversed(modules)]
    return next((width for m in modules if (width := _width(m, side))), 0)


def _plain(path: str, network: nn.Module) -> Iterator[Place | Unsupported]:
    """The convolutions of a sequence, each with what follows it up to the next or to a pooling."""
    units: list[tuple[int, int, list[str]]] = []
    stage, block, pooled = 1, 0, False
    sequence = network.get_submodule("features")
    for name, module in sequence.named_children():
        if isinstance(module, nn.Conv2d):
            stage, block = (stage + 1, 1) if pooled else (stage, block + 1)
            pooled = False
            units.append((stage, block, [name]))
        elif isinstance(module, _POOLS):
            pooled = True
        elif units and not pooled:
            units[-1][2].append(name)
    base = ".".join(filter(None, [path, "features"]))
    for stage, block, names in units:
        conv, last = (f"{base}.{name}" for name in (names[0], names[-1]))
        inner = sequence.get_submodule(names[0])
        yield Place(conv, "pre", "before", stage, block, _width(inner, "before"))
        yield Place(last, "standard", "after", stage, block, _width(inner, "after"))
        for position, reason in UNIT.items():
            yield Unsupported(conv, position, reason, stage, block)


def _width(module: nn.Module, side: When) -> int:
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


# --- To where gates sit --------------------------------------------------------------------------


def _check_maps(model: nn.Module, verb: str) -> None:
    """Refuse a network whose convolutions are all of signals or of volumes."""
    convs = [m for _, m in trunk_of(model) if isinstance(m, (*_OTHERS, nn.Conv2d))]
    if convs and not any(isinstance(conv, nn.Conv2d) for conv in convs):
        raise PolicyError(
            f"{verb} got a {type(model).__name__} of {type(convs[0]).__name__}s.",
            "Gates take the maps of images, (N, C, H, W): no signals, volumes or videos.",
            "",
        )


def complete(sites: SiteMap, model: nn.Module, verb: str = "attach") -> SiteMap:
    """`sites` with every place at a module that runs itself, and its channels.

    Places at one and the same module, which is in the network under two names, are one.

    Raises:
        PolicyError: A module that is not there, or where no gate can sit.
    """
    names = dict(model.named_modules(remove_duplicate=False))
    _check_maps(model, verb)
    found: dict[tuple[int, str], Place] = {}
    for place in sites.places:
        if place.module not in names:
            raise PolicyError(
                f"The SiteMap names the module {place.module!r}.",
                f"{type(model).__name__} has no module of that name.",
                nearest(place.module, names),
            )
        if place.via == HOOK:
            place = _at_leaf(place, names)
        module = names[place.module]
        if fused_away(model, place.module):
            around = place.module.rpartition(".")[0]
            while fused_away(model, around):
                around = around.rpartition(".")[0]
            width = place.channels or _width(module, place.side)
            raise PolicyError(
                f"The SiteMap puts a gate at {place.module!r}, a {type(module).__name__}.",
                f"It is {FUSED}.",
                f"Type for example: Place({around!r}, channels={width})",
            )
        channels = place.channels or _width_near(model, place)
        if not channels:
            raise PolicyError(
                f"The channels at {place.module!r}, a {type(module).__name__}, are not known.",
                "They can be read from convolutions, norms and linear layers only.",
                f"Type for example: Place({place.module!r}, channels=64)",
            )
        key = (id(module), place.key)
        other = found.setdefault(key, dataclasses.replace(place, channels=channels))
        if (other.side, other.via) != (place.side, place.via):
            raise PolicyError(
                f"The SiteMap has two {place.position} places at {place.module!r}.",
                "A module has one gate for each position.",
                "Give them different positions",
            )
    return dataclasses.replace(sites, places=tuple(found.values()))


FUSED = "taken out by the network's fuse(), and a gate with it, without a word"


def fused_away(model: nn.Module, path: str) -> bool:
    """Whether the module at `path` goes when the network's ``fuse()`` merges its convolutions.

    Modules that ``fuse()`` gives another forward pass (``forward_fuse``, as in ultralytics) stay,
    with gates of their own; the convolutions and norms in them do not.
    """
    around = model
    for name in filter(None, path.split(".")):
        module = around.get_submodule(name)
        if hasattr(around, "forward_fuse") and module.state_dict():
            return True
        around = module
    return False


def _at_leaf(place: Place, names: Mapping[str, nn.Module]) -> Place:
    """The place at the module that really runs there, for a sequence of modules."""
    path = place.module
    while type(module := names[path]).forward is nn.Sequential.forward and module._modules:
        name = list(module._modules)[0 if place.side == "before" else -1]
        path = f"{path}.{name}" if path else name
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        # A gate would become one of the children that it walks through.
        raise PolicyError(
            f"The SiteMap puts a gate at {place.module!r}, a {type(module).__name__}.",
            "It runs its children one after the other, and the gate would become one of them.",
            "Name the module inside it where the gate should be",
        )
    return dataclasses.replace(place, module=path)


# Modules that leave the channels as they are.
_ELEMENTWISE = ("activation", "dropout", "pooling")


def _width_near(model: nn.Module, place: Place) -> int:
    """Channels at `place`, read from the module or, for an activation, from its neighbors."""
    module = model.get_submodule(place.module)
    width = _width(module, place.side)
    parent, _, name = place.module.rpartition(".")
    around = model.get_submodule(parent)
    if width or type(around).forward is not nn.Sequential.forward:
        return width
    children = list(around._modules.items())
    if place.side == "after":
        children.reverse()
    at = [key for key, _ in children].index(name)
    for _, child in children[at:]:
        if child is None:
            continue
        width = _width(child, place.side)
        if width or type(child).__module__.rpartition(".")[2] not in _ELEMENTWISE:
            return width
    return 0
