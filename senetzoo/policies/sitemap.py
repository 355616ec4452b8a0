"""Where gates can sit in a network that declares no sites: a `SiteMap`."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from senetzoo.errors import PolicyError, nearest
from senetzoo.nn.slots import POSITIONS, Layout, Position, Site
from senetzoo.policies.hooks import PREFIX, Replace, Via, When
from senetzoo.policies.selectors import Selector

Chosen = str | Iterable[str] | Callable[[str, nn.Module], bool]


@dataclass(frozen=True)
class Place:
    """One place for a gate.

    Args:
        module: Name of a module, as in ``named_modules()``. A plain ``nn.Sequential`` stands for
            its first child where the gate sits before it, else for its last.
        position: What the place is in its block.
        when: ``"before"`` or ``"after"`` the module; None for what goes with the position:
            before it for ``pre`` and ``inner``, after it for the others.
        stage: Stage, from 1.
        block: Block within the stage, from 1.
        channels: Channels there; 0 to read them from the module.
        layout: ``"nchw"`` or ``"nhwc"``.
        via: What else it takes to sit there; the tables of known networks say so.
    """

    module: str
    position: Position = "standard"
    when: When | None = None
    stage: int = 1
    block: int = 1
    channels: int = 0
    layout: Layout = "nchw"
    via: Via | None = None

    def __post_init__(self) -> None:
        if self.position not in POSITIONS:
            raise PolicyError(
                f"position={self.position!r} is not a place in a block.",
                f"Positions are {', '.join(map(repr, POSITIONS))}.",
                nearest(str(self.position), POSITIONS),
            )
        if self.when not in ("before", "after", None):
            raise PolicyError(f"when={self.when!r} is no time.", "It is 'before' or 'after'.")
        if self.layout not in ("nchw", "nhwc"):
            raise PolicyError(f"layout={self.layout!r} is none.", "It is 'nchw' or 'nhwc'.")
        for field, least in (("stage", 1), ("block", 1), ("channels", 0)):
            value = getattr(self, field)
            if type(value) is not int or value < least:
                raise PolicyError(
                    f"{field}={value!r} does not number a place.",
                    f"{field} is a whole number of at least {least}.",
                )

    @property
    def side(self) -> When:
        """Before or after the module."""
        return self.when or ("before" if self.position in ("pre", "inner") else "after")

    @property
    def path(self) -> str:
        """Name that the gate's module has."""
        attribute = self.via.attribute if isinstance(self.via, Replace) else ""
        return ".".join(filter(None, [self.module, attribute, PREFIX + self.position]))


@dataclass(frozen=True)
class Refusal:
    """A position that can't be honoured.

    Args:
        module: Name of the block.
        position: The position; empty where the block as a whole found no place.
        reason: Why, in words.
        stage: Stage, from 1; 0 where it is not known.
        block: Block within the stage, from 1; 0 where it is not known.
    """

    module: str
    position: Position | str
    reason: str
    stage: int = 0
    block: int = 0

    def asked(self, position: Position, selector: Selector, sizes: dict[int, int]) -> bool:
        """Whether a rule asks for it.

        Args:
            position: The rule's position.
            selector: The rule's blocks.
            sizes: Number of blocks of each stage.
        """
        if self.position != position:
            return False
        here = Site(
            path=self.module,
            stage=self.stage,
            block=self.block,
            stages=max(sizes, default=1),
            blocks=sizes.get(self.stage, 1),
            position=position,
            channels=0,
        )
        return selector.matches(here)

    def __str__(self) -> str:
        return f"{self.module or 'the network'}: {self.position or 'no place'}, {self.reason}"


@dataclass(frozen=True)
class SiteMap:
    """The places of a network, and those that it can't offer, with the reason.

    Args:
        places: The places, in the order of the forward pass.
        refused: What can't be honoured.
    """

    places: tuple[Place, ...]
    refused: tuple[Refusal, ...] = ()

    @classmethod
    def of(cls, model: nn.Module) -> SiteMap:
        """The map of a network of torchvision, timm or pytorchcv that the tables know.

        Raises:
            PolicyError: None of its blocks is known.
        """
        from senetzoo.policies.foreign.lookup import site_map

        return site_map(model)

    @classmethod
    def where(
        cls,
        model: nn.Module,
        modules: Chosen,
        position: Position = "standard",
        *,
        when: When | None = None,
        stage: Callable[[str], int] | None = None,
        channels: int = 0,
        layout: Layout = "nchw",
    ) -> SiteMap:
        """The places at modules by their names, or by a predicate.

        Args:
            model: The network.
            modules: A shell-style pattern of names (``"layers.*.act"``), several, or a function
                of a module's name and the module.
            position: What the places are in their blocks.
            when: Before or after the modules; None for what goes with the position.
            stage: Stage by a module's name; None for one stage. Blocks are counted in each.
            channels: Channels there; 0 to read them from the modules.
            layout: ``"nchw"`` or ``"nhwc"``.

        Raises:
            PolicyError: No module is meant.
        """
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
        return cls(tuple(places))

    @classmethod
    def propose(cls, model: nn.Module, example_input: Tensor) -> SiteMap:
        """A map found by tracing with ``torch.fx``: residual sums, else convolutions.

        Args:
            model: The network; it is not changed.
            example_input: What it takes; only the shape counts.

        Returns:
            The map; ``refused`` says what could not be placed, with the reason. Print it.
        """
        from senetzoo.policies.propose import propose

        return propose(model, example_input)

    def __add__(self, other: SiteMap) -> SiteMap:
        if not isinstance(other, SiteMap):
            return NotImplemented
        return SiteMap(self.places + other.places, self.refused + other.refused)

    def on(self, model: nn.Module) -> SiteMap:
        """The same with every place at a module that runs itself, and its channels.

        Places at one and the same module, which is in the network under two names, are one.

        Raises:
            PolicyError: A module that is not there, or where no gate can sit.
        """
        names = dict(model.named_modules())
        seen: dict[tuple[int, str], Place] = {}
        for place in self.places:
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
            other = seen.setdefault(key, dataclasses.replace(place, channels=channels))
            if (other.side, other.via) != (place.side, place.via):
                raise PolicyError(
                    f"The SiteMap has two {place.position} places at {place.module!r}.",
                    "A module has one gate for each position.",
                    "Give them different positions",
                )
        return dataclasses.replace(self, places=tuple(seen.values()))

    def sizes(self) -> dict[int, int]:
        """Number of blocks of each stage."""
        sizes: dict[int, int] = {}
        numbers = [(place.stage, place.block) for place in self.places]
        numbers += [(refusal.stage, refusal.block) for refusal in self.refused if refusal.stage]
        for stage, block in numbers:
            sizes[stage] = max(sizes.get(stage, 0), block)
        return sizes

    def sites(self) -> dict[Site, Place]:
        """The places as sites."""
        sizes = self.sizes()
        return {
            Site(
                path=place.path,
                stage=place.stage,
                block=place.block,
                stages=max(sizes),
                blocks=sizes[place.stage],
                position=place.position,
                channels=place.channels,
                layout=place.layout,
            ): place
            for place in self.places
        }

    def __str__(self) -> str:
        lines = [
            f"stage {place.stage} block {place.block}: {place.position} {place.side} "
            f"{place.path.rpartition('.')[0] or 'the network'}"
            for place in self.places
        ]
        return "\n".join([*lines, *(f"refused: {refusal}" for refusal in self.refused)])


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
    """Channels at `place`, read from the module or, for an activation, from its neighbours."""
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
