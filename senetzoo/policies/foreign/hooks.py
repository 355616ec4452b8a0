"""How a gate gets into a network that has no slots.

The gate is a child of the module where it sits, under a name that starts with `PREFIX`, and a hook
of that module calls it. The hook knows the name only, so a copied, pickled or shared module finds
its own gate, and no key of the trunk is renamed. Three places need more than a hook before or
after a module; each is a value too:

- `Replace`: a skip that is the block's input as it is has no module, so one is put under the empty
  attribute where the block would have its projection;
- `Sum`: a block that adds its input itself, where an attribute says so, has that attribute set to
  False, and the hook adds the gated input;
- `Scale`: a branch that is scaled in the sum is scaled before the gate instead, and by 1 in the
  sum.

All of it can be undone from the network alone: `remove_all`.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from senetzoo.errors import PolicyError

PREFIX = "senetzoo_"

When: TypeAlias = Literal["before", "after"]


@dataclass(frozen=True)
class Replace:
    """A module under an attribute of the block that is empty.

    Args:
        attribute: The attribute, which is None or absent.
        switch: Attribute to set to True, so that the block looks at the first.
    """

    attribute: str
    switch: str = ""


@dataclass(frozen=True)
class Sum:
    """The block's own sum with its input, made by the hook.

    Args:
        switch: Attribute that says whether the block adds its input.
        drop: The block's stochastic depth, which it applies only where it adds.
    """

    switch: str
    drop: str = ""


@dataclass(frozen=True)
class Scale:
    """A factor on the branch that the block applies in its sum.

    Args:
        attribute: The block's attribute with the factor.
    """

    attribute: str


@dataclass(frozen=True)
class Flat:
    """A map that is flattened to (N, H * W, C) where the gate sits.

    Args:
        height: H.
        width: W.
    """

    height: int
    width: int


Via: TypeAlias = Replace | Sum | Scale | Flat


class Skip(nn.Module):
    """Stands where a block has no projection, and lets the gate at the skip pass.

    Args:
        name: The attribute that it is put under.
        switch: The attribute that was set to True for it; none if empty.
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
        if self.name in block._modules:
            self.registered = True
        elif self.name in block.__dict__:
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
            _insert(block.__dict__, self.place, self.name, None)
        if self.switch:
            setattr(block, self.switch, False)

    def forward(self, x: Tensor) -> Tensor:
        for gate in self._modules.values():
            if gate is not None:
                x = gate(x)
        return x


def _insert(mapping: MutableMapping[str, Any], index: int, key: str, value: object) -> None:
    items = list(mapping.items())
    items.insert(index, (key, value))
    mapping.clear()
    mapping.update(items)


@dataclass(frozen=True)
class _Hook:
    """What is registered on a module to run its gate, which it finds by name.

    Args:
        key: The gate's name.
        when: Before or after the module.
        via: What else it takes.
        factor: What a `Scale` scaled the branch by in the sum.
    """

    key: str
    when: When
    via: Via | None
    factor: float = 1.0

    def __call__(self, module: nn.Module, args: tuple[Any, ...], *output: Any) -> Any:
        if self.when == "before":
            return (self.gated(module, args[0] if args else None), *args[1:])
        (x,) = output
        if isinstance(self.via, Sum):
            x = getattr(module, self.via.drop)(x) if self.via.drop else x
            return x + self.gated(module, args[0])
        return self.gated(module, x * self.factor if isinstance(self.via, Scale) else x)

    def gated(self, module: nn.Module, x: object) -> Tensor:
        """`x` as the gate leaves it."""
        gate = getattr(module, self.key)
        if not isinstance(x, Tensor):
            raise PolicyError(
                f"The gate {self.key!r} at a {type(module).__name__} got a {type(x).__name__}.",
                "A gate takes one tensor, the module's first argument or its output.",
                "Take this module out of the SiteMap",
            )
        if not isinstance(self.via, Flat):
            return gate(x)  # type: ignore[no-any-return]
        height, width = self.via.height, self.via.width
        if x.ndim != 3 or x.shape[1] != height * width:
            raise PolicyError(
                f"A gate for maps of {height}x{width} got a tensor of {tuple(x.shape)}.",
                "The size of the flattened map is read from the network when the gate is attached.",
                "Set the size of the images first, then detach and attach again",
            )
        return gate(x.reshape(len(x), height, width, -1)).flatten(1, 2)  # type: ignore[no-any-return]


def _found(module: nn.Module, key: str) -> _Hook | None:
    """The hook that runs the gate `key` of `module`."""
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        for hook in hooks.values():
            if isinstance(hook, _Hook) and hook.key == key:
                return hook
    return None


def check_free(module: nn.Module, key: str, when: When, via: Via | None) -> None:
    """Refuse a place whose gate is run in another way.

    Raises:
        PolicyError: It is there already, on the other side of the module or for another size.
    """
    hook = None if isinstance(via, Replace) else _found(module, key)
    if hook is None or (hook.when, hook.via) == (when, via):
        return
    raise PolicyError(
        f"A {type(module).__name__} has a gate {key!r} already, {hook.when} it.",
        "The new one would sit elsewhere, or get a map of another size.",
        "Type first: detach(model)",
    )


def put(
    block: nn.Module, name: str, key: str, when: When, via: Via | None, gate: nn.Module
) -> None:
    """Let `gate` sit before or after the child `name` of `block`; it may hold another already.

    Args:
        block: The block, the module's parent.
        name: Name of the module in the block; empty for the block itself.
        key: Name of the gate, from `PREFIX` on.
        when: Before or after the module.
        via: What else it takes.
        gate: The gate.
    """
    module = block.get_submodule(name)
    if isinstance(via, Replace):
        skip = module._modules.get(via.attribute)
        if not isinstance(skip, Skip):
            skip = Skip(via.attribute, via.switch)
            skip.enter(module)
        skip._modules[key] = gate
        return
    module._modules[key] = gate
    if _found(module, key) is not None:
        return
    if when == "before":
        module.register_forward_pre_hook(_Hook(key, when, via))
        return
    factor = getattr(block, via.attribute) if isinstance(via, Scale) else 1.0
    # Before hooks that are there already: they see what the rest of the network sees.
    handle = module.register_forward_hook(_Hook(key, when, via, factor), prepend=True)
    if isinstance(via, Scale):
        setattr(block, via.attribute, 1.0)
    elif isinstance(via, Sum):
        setattr(module, via.switch, False)
    else:
        # But after the block's own sum.
        for index, other in module._forward_hooks.items():
            if _sums(other) and index != handle.id:
                module._forward_hooks.move_to_end(index, last=False)  # type: ignore[attr-defined]
                break


def _sums(hook: object, switch: str = "") -> bool:
    """Whether `hook` makes a block's own sum, by `switch` if it is given."""
    via = hook.via if isinstance(hook, _Hook) else None
    return isinstance(via, Sum) and switch in ("", via.switch)


def adds_its_input(block: nn.Module, switch: str) -> bool:
    """Whether `block` adds its input by its attribute `switch`, or did before a gate does it."""
    return bool(getattr(block, switch, False)) or any(
        _sums(hook, switch) for hook in block._forward_hooks.values()
    )


def gates_in(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Every gate that hangs at a module without slots: that module, the gate's name, the gate."""
    for module in model.modules():
        for name, child in module._modules.items():
            if name.startswith(PREFIX) and child is not None:
                yield module, name, child


def trunk_of(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Names and modules in `module`, itself first, as ``named_modules()``, but no gates."""
    walked: set[int] = set()

    def walk(name: str, inner: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        if id(inner) in walked:
            return
        walked.add(id(inner))
        yield name, inner
        for key, child in inner._modules.items():
            if child is not None and not key.startswith(PREFIX) and not isinstance(child, Skip):
                yield from walk(f"{name}.{key}" if name else key, child)

    return walk(path, module)


def remove_all(model: nn.Module, keys: dict[int, set[str]] | None = None) -> None:
    """Take gates out of `model`, and all that was put in for them.

    Args:
        model: The network.
        keys: Names of the gates to take out, by ``id`` of the module that holds them; None for all.
    """
    wanted: dict[int, set[str]] = {}
    for holder, key, _ in gates_in(model):
        if keys is None or key in keys.get(id(holder), ()):
            wanted.setdefault(id(holder), set()).add(key)
    for module in list(model.modules()):
        for child in list(module._modules.values()):
            if child is not None and id(child) in wanted:
                _restore(module, child, wanted[id(child)])
        for key in wanted.get(id(module), ()):
            _remove(module, key)


def _restore(parent: nn.Module, child: nn.Module, keys: set[str]) -> None:
    """Undo what gates at `child` changed in its parent."""
    if isinstance(child, Skip) and keys == set(child._modules):
        child.leave(parent)
    for hook in child._forward_hooks.values():
        if isinstance(hook, _Hook) and isinstance(hook.via, Scale) and hook.key in keys:
            setattr(parent, hook.via.attribute, hook.factor)


def _remove(module: nn.Module, key: str) -> None:
    module._modules.pop(key, None)
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        for index, hook in list(hooks.items()):
            if isinstance(hook, _Hook) and hook.key == key:
                del hooks[index]
                if isinstance(hook.via, Sum):
                    setattr(module, hook.via.switch, True)
