"""How a gate gets into a network that has no slots.

The gate is a child of the module where it sits, under a name that starts with `PREFIX`, and a hook
of that module calls it. The hook knows the name only, so a copied, pickled or shared module finds
its own gate, and no key of the trunk is renamed. What some places need beyond that, `Via` says.
All of it can be undone from the network alone: `remove_all`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from senetzoo.errors import PolicyError
from senetzoo.policies.foreign.sitemap import PREFIX, Place, Via, When


class Skip(nn.Module):
    """Stands under the attribute `name` where a block has no projection, and runs the skip's gate.

    `switch` is the attribute that was set to True for it, if any.
    """

    def __init__(self, name: str, switch: str = "") -> None:
        super().__init__()
        self.name = name
        self.switch = switch
        # Where in the block's __dict__ the None was, so that even its order comes back.
        self.place = -1
        self.registered = False

    def enter(self, block: nn.Module) -> None:
        """Take the place of nothing in `block`."""
        self.registered = self.name in block._modules
        if not self.registered and self.name in block.__dict__:
            self.place = list(block.__dict__).index(self.name)
            del block.__dict__[self.name]
        block._modules[self.name] = self.train(block.training)
        if self.switch:
            setattr(block, self.switch, True)

    def leave(self, block: nn.Module) -> None:
        """Leave `block` as it was."""
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
    """What is registered on a module to run its gate, which it finds by its name `key`.

    `factor` is what the branch was scaled by in the sum, where the hook does that.
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
        """`x` as the gate leaves it."""
        gate = getattr(module, self.key)
        if not isinstance(x, Tensor):
            raise PolicyError(
                f"The gate {self.key!r} at a {type(module).__name__} got a {type(x).__name__}.",
                "A gate takes one tensor, the module's first argument or its output.",
                "Take this module out of the SiteMap",
            )
        if not self.via.size and x.ndim != 4:
            raise PolicyError(
                f"The gate {self.key!r} at a {type(module).__name__} got a tensor "
                f"{tuple(x.shape)}.",
                "A gate takes maps of images, (N, C, H, W) or (N, H, W, C).",
                "Take this module out of the SiteMap",
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
    """The hooks of gates at `module`, each with the dict that it is in and its key there."""
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        for index, hook in list(hooks.items()):
            if isinstance(hook, _Hook):
                yield hooks, index, hook


def _adds(module: nn.Module) -> set[str]:
    """The attributes by which `module` added its input, before a hook did it."""
    return {hook.via.add for _, _, hook in _hooks(module)} - {""}


def adds_its_input(block: nn.Module, switch: str) -> bool:
    """Whether `block` adds its input by its attribute `switch`, or did before a gate does it."""
    return bool(getattr(block, switch, False)) or switch in _adds(block)


def check_free(model: nn.Module, place: Place) -> None:
    """Refuse a place whose gate is there, on the other side of the module or for another size."""
    module = model.get_submodule(place.module)
    for _, _, hook in _hooks(module):
        same = place.via.replace or (hook.when, hook.via) == (place.side, place.via)
        if hook.key == place.key and not same:
            raise PolicyError(
                f"A {type(module).__name__} has a gate {place.key!r} already, {hook.when} it.",
                "The new one would sit elsewhere, or get a map of another size.",
                "Type first: detach(model)",
            )


def put(model: nn.Module, place: Place, gate: nn.Module) -> None:
    """Let `gate` sit at `place`, which may hold another already."""
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
    # Before hooks that are there already: they see what the rest of the network sees.
    module.register_forward_hook(_Hook(key, "after", via, factor), prepend=True)
    if via.scale:
        setattr(block, via.scale, 1.0)
    elif via.add:
        setattr(module, via.add, False)
    elif sums:
        # But after the block's own sum.
        module._forward_hooks.move_to_end(sums[0], last=False)  # type: ignore[attr-defined]


def gates_in(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Every gate that hangs at a module without slots: that module, the gate's name, the gate."""
    for module in model.modules():
        for name, child in module._modules.items():
            if name.startswith(PREFIX) and child is not None:
                yield module, name, child


def trunk_of(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules in `module`, itself first, as ``named_modules()``, but no gates."""
    for name, inner in module.named_modules():
        if f".{PREFIX}" not in f".{name}" and not isinstance(inner, Skip):
            yield name, inner


def remove_all(model: nn.Module, only: nn.Module | None = None) -> None:
    """Take gates out of `model`, all or one, and all that was put in for them."""
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
    """Undo what gates at `child` changed in its parent."""
    if isinstance(child, Skip) and keys == set(child._modules):
        child.leave(parent)
    for _, _, hook in _hooks(child):
        if hook.via.scale and hook.key in keys:
            setattr(parent, hook.via.scale, hook.factor)
