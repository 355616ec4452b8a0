"""From a network that declares no sites to its `SiteMap`."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections import Counter
from collections.abc import Callable, Iterable

from torch import nn

from senetzoo.errors import PolicyError, nearest
from senetzoo.nn.slots import Layout, Position
from senetzoo.policies.foreign.hooks import When
from senetzoo.policies.foreign.lookup import known_map, width_of
from senetzoo.policies.foreign.sitemap import Place, SiteMap


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
    """Where gates can sit in a network of torchvision, timm or pytorchcv, or in one's own.

    Args:
        model: The network; it is not changed.
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
                "They say what is at modules that are named; the tables know it of their blocks.",
                'Type for example: site_map(model, "layer?.*.bn2", position="standard")',
            )
        return known_map(model)
    names = dict(model.named_modules())
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
        places.append(
            Place(name, position, when, number, count[number], channels=channels, layout=layout)
        )
    return SiteMap(tuple(places))


def complete(sites: SiteMap, model: nn.Module) -> SiteMap:
    """`sites` with every place at a module that runs itself, and its channels.

    Places at one and the same module, which is in the network under two names, are one.

    Raises:
        PolicyError: A module that is not there, or where no gate can sit.
    """
    names = dict(model.named_modules())
    found: dict[tuple[int, str], Place] = {}
    for place in sites.places:
        try:
            module = model.get_submodule(place.module)
        except AttributeError:
            raise PolicyError(
                f"The SiteMap names the module {place.module!r}.",
                f"{type(model).__name__} has no module of that name.",
                nearest(place.module, names),
            ) from None
        if place.via is None:
            place = _at_leaf(place, module, model)
            module = model.get_submodule(place.module)
        channels = place.channels or _width_near(model, place)
        if not channels:
            raise PolicyError(
                f"The channels at {place.module!r}, a {type(module).__name__}, are not known.",
                "They can be read from convolutions, norms and linear layers only.",
                f"Type for example: Place({place.module!r}, channels=64)",
            )
        key = (id(module), place.path.rpartition(".")[2])
        other = found.setdefault(key, dataclasses.replace(place, channels=channels))
        if (other.side, other.via) != (place.side, place.via):
            raise PolicyError(
                f"The SiteMap has two {place.position} places at {place.module!r}.",
                "A module has one gate for each position.",
                "Give them different positions",
            )
    return dataclasses.replace(sites, places=tuple(found.values()))


def _at_leaf(place: Place, module: nn.Module, model: nn.Module) -> Place:
    """The place at the module that really runs there, for a sequence of modules."""
    path = place.module
    while type(module).forward is nn.Sequential.forward and len(module._modules):
        names = list(module._modules)
        name = names[0 if place.side == "before" else -1]
        path = f"{path}.{name}" if path else name
        module = model.get_submodule(path)
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        # A gate would become one of the children that it walks through.
        raise PolicyError(
            f"The SiteMap puts a gate at {place.module!r}, a {type(module).__name__}.",
            "It runs its children one after the other, and the gate would become one of them.",
            "Name the module inside it where the gate shall sit",
        )
    return dataclasses.replace(place, module=path)


# Modules that leave the channels as they are.
_ELEMENTWISE = ("activation", "dropout", "pooling")


def _width_near(model: nn.Module, place: Place) -> int:
    """Channels at `place`, read from the module or, for an activation, from its neighbors."""
    module = model.get_submodule(place.module)
    width = width_of(module, place.side)
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
        width = width_of(child, place.side)
        if width or type(child).__module__.rpartition(".")[2] not in _ELEMENTWISE:
            return width
    return 0
