"""Gates in networks without slots.

A gate is a child of the module it is attached to, with a name that starts with `PREFIX`, and a hook
of that module calls it. The hook only stores the name, so copied, pickled or shared modules find
their own gates, and keys of the trunk don't change. `Via` describes what some places need besides.
`remove_all` undoes all of it, from the network alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from senetzoo.errors import PolicyError
from senetzoo.policies.foreign.sitemap import PREFIX, Place, SiteMap, Via, When

_SITES = PREFIX + "sites"
"""Attribute of a network: the `SiteMap` by which its gates were attached."""


class Skip(nn.Module):
    """Runs the gate of a skip connection; replaces the missing projection at a block's attribute.

    Args:
        name: The attribute.
        switch: Attribute of the block that is set to True meanwhile, if any.
    """

    def __init__(self, name: str, switch: str = "") -> None:
        super().__init__()
        self.name = name
        self.switch = switch
        # Index of the None in the block's __dict__, to restore the order.
        self.place = -1
        self.registered = False

    def enter(self, block: nn.Module) -> None:
        """Replace the missing projection of `block`."""
        self.registered = self.name in block._modules
        if not self.registered and self.name in block.__dict__:
            self.place = list(block.__dict__).index(self.name)
            del block.__dict__[self.name]
        block._modules[self.name] = self.train(block.training)
        if self.switch:
            setattr(block, self.switch, True)

    def leave(self, block: nn.Module) -> None:
        """Restore `block`."""
        if self.registered:
            block._modules[self.name] = None
        else:
            del block._modules[self.name]
        if self.place >= 0:
            items = list(block.__dict__.items())
            items.insert(self.place, (self.name, None))
            block.__dict__.clear()
            block.__dict__.update(items)
        if self.switch:
            setattr(block, self.switch, False)

    def forward(self, x: Tensor) -> Tensor:
        for gate in self._modules.values():
            if gate is not None:
                x = gate(x)
        return x


@dataclass(frozen=True)
class _Hook:
    """Hook that runs the gate named `key` of its module.

    `factor` is the original scale of the branch, if the hook does the scaling.
    """

    key: str
    when: When
    via: Via
    factor: float = 1.0

    def __call__(self, module: nn.Module, args: tuple[Any, ...], *output: Any) -> Any:
        if self.when == "before":
            return (self.gated(module, args[0] if args else None), *args[1:])
        (x,) = output
        if self.via.add:
            x = getattr(module, self.via.drop)(x) if self.via.drop else x
            return x + self.gated(module, args[0])
        return self.gated(module, x * self.factor if self.via.scale else x)

    def gated(self, module: nn.Module, x: object) -> Tensor:
        """Apply the gate to `x`."""
        gate = getattr(module, self.key)
        if not isinstance(x, Tensor):
            raise PolicyError(
                f"The gate {self.key!r} at a {type(module).__name__} got a {type(x).__name__}.",
                "A gate takes one tensor, the module's first argument or its output.",
                "Remove this module from the SiteMap",
            )
        if not self.via.size and x.ndim != 4:
            raise PolicyError(
                f"The gate {self.key!r} at a {type(module).__name__} got a tensor "
                f"{tuple(x.shape)}.",
                "A gate takes feature maps, (N, C, H, W) or (N, H, W, C).",
                "Remove this module from the SiteMap",
            )
        if not self.via.size:
            return gate(x)  # type: ignore[no-any-return]
        height, width = self.via.size
        if x.ndim != 3 or x.shape[1] != height * width:
            raise PolicyError(
                f"A gate for maps of {height}x{width} got a tensor of {tuple(x.shape)}.",
                "The size of the flattened map is read from the network when the gate is attached.",
                "Set the size of the images first, then detach and attach again",
            )
        return gate(x.reshape(len(x), height, width, -1)).flatten(1, 2)  # type: ignore[no-any-return]


def _hooks(module: nn.Module) -> Iterator[tuple[dict[int, Any], int, _Hook]]:
    """The hooks of gates at `module`, each with its dict and its key there."""
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        for index, hook in list(hooks.items()):
            if isinstance(hook, _Hook):
                yield hooks, index, hook


def _adds(module: nn.Module) -> set[str]:
    """The attributes that made `module` add its input before a hook took over."""
    return {hook.via.add for _, _, hook in _hooks(module)} - {""}


def adds_its_input(block: nn.Module, switch: str) -> bool:
    """Whether `block` adds its input, controlled by `switch`, itself or by a gate's hook."""
    return bool(getattr(block, switch, False)) or switch in _adds(block)


def check_free(model: nn.Module, place: Place) -> None:
    """Raise if `place` has a gate on the other side of the module or for another size."""
    module = model.get_submodule(place.module)
    for _, _, hook in _hooks(module):
        same = place.via.replace or (hook.when, hook.via) == (place.side, place.via)
        if hook.key == place.key and not same:
            raise PolicyError(
                f"A {type(module).__name__} already has a gate {place.key!r}, {hook.when} it.",
                "The new one would sit elsewhere, or get a map of another size.",
                "Type first: detach(model)",
            )


def put(model: nn.Module, place: Place, gate: nn.Module) -> None:
    """Put `gate` at `place`, replacing a previous gate."""
    module, key, via = model.get_submodule(place.module), place.key, place.via
    if via.replace:
        skip = module._modules.get(via.replace)
        if not isinstance(skip, Skip):
            skip = Skip(via.replace, via.switch)
            skip.enter(module)
        skip._modules[key] = gate
        return
    module._modules[key] = gate
    if any(hook.key == key for _, _, hook in _hooks(module)):
        return
    if place.side == "before":
        module.register_forward_pre_hook(_Hook(key, "before", via))
        return
    block = model.get_submodule(place.module.rpartition(".")[0])
    sums = [index for _, index, hook in _hooks(module) if hook.via.add]
    factor = getattr(block, via.scale) if via.scale else 1.0
    # Run before existing hooks, which should see what the rest of the network sees.
    module.register_forward_hook(_Hook(key, "after", via, factor), prepend=True)
    if via.scale:
        setattr(block, via.scale, 1.0)
    elif via.add:
        setattr(module, via.add, False)
    elif sums:
        # But after the block's own sum.
        module._forward_hooks.move_to_end(sums[0], last=False)  # type: ignore[attr-defined]


def gates_in(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """All gates in modules without slots: the module, the gate's name, and the gate."""
    for module in model.modules():
        for name, child in module._modules.items():
            if name.startswith(PREFIX) and child is not None:
                yield module, name, child


def trunk_of(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """``module.named_modules()`` without gates."""
    for name, inner in module.named_modules():
        if f".{PREFIX}" not in f".{name}" and not isinstance(inner, Skip):
            yield name, inner


def remember(model: nn.Module, sites: SiteMap) -> None:
    """Keep the places by which gates were attached, also for copies of `model`."""
    before: SiteMap = getattr(model, _SITES, SiteMap(()))
    places = {place.path: place for place in (*before.places, *sites.places)}
    lacking = dict.fromkeys((*before.unsupported, *sites.unsupported))
    setattr(model, _SITES, SiteMap(tuple(places.values()), tuple(lacking)))


def remembered(model: nn.Module) -> SiteMap | None:
    """The places by which the gates of `model` were attached.

    None if there are none, or if modules were moved or renamed since.
    """
    found: SiteMap | None = getattr(model, _SITES, None)
    names = dict(model.named_modules(remove_duplicate=False))
    if found is None or any(place.module not in names for place in found.places):
        return None
    return None if elsewhere(model, (place.path for place in found.places)) else found


def elsewhere(model: nn.Module, paths: Iterable[str]) -> str:
    """Name of a gate in a module without slots that has none of these names; empty if none."""
    modules = dict(model.named_modules(remove_duplicate=False))
    known = {id(modules.get(path)) for path in paths}
    lost = {id(gate) for _, _, gate in gates_in(model)} - known
    return next((name for name, module in modules.items() if id(module) in lost), "")


def remove_all(model: nn.Module, only: nn.Module | None = None) -> None:
    """Remove all gates, or only one, from `model`, with everything that was added for them."""
    if only is None:
        model.__dict__.pop(_SITES, None)
    wanted: dict[int, set[str]] = {}
    for holder, key, gate in gates_in(model):
        if only in (None, gate):
            wanted.setdefault(id(holder), set()).add(key)
    for module in list(model.modules()):
        for child in list(module._modules.values()):
            if child is not None and id(child) in wanted:
                _restore(module, child, wanted[id(child)])
        keys = wanted.get(id(module), set())
        for key in keys:
            module._modules.pop(key, None)
        for hooks, index, hook in _hooks(module):
            if hook.key in keys:
                del hooks[index]
                if hook.via.add:
                    setattr(module, hook.via.add, True)


def _restore(parent: nn.Module, child: nn.Module, keys: set[str]) -> None:
    """Undo the changes to `parent` made for gates at `child`."""
    if isinstance(child, Skip) and keys == set(child._modules):
        child.leave(parent)
    for _, _, hook in _hooks(child):
        if hook.via.scale and hook.key in keys:
            setattr(parent, hook.via.scale, hook.factor)
