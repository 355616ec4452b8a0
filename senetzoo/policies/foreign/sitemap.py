"""Where gates can sit in a network that declares no sites: a `SiteMap`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from senetzoo._utils.checks import NonNegativeInt, PositiveInt, check
from senetzoo.errors import PolicyError
from senetzoo.nn.slots import Branch, Layout, Position, Site
from senetzoo.policies.selectors import Selector

PREFIX = "senetzoo_"
"""What the name of a gate in a network without slots starts with."""

When: TypeAlias = Literal["before", "after"]


@dataclass(frozen=True)
class Via:
    """What more than a hook before or after a module it takes to sit at a place, if anything.

    Args:
        replace: Attribute of the block that is None or absent, and gets a module for the gate: a
            skip that is the block's input as it is.
        switch: Attribute to set to True then, so that the block looks at the first.
        add: Attribute by which the block adds its input: set to False, and the hook adds the gated
            input.
        drop: The block's stochastic depth, which it applies only where it adds.
        scale: Attribute with the factor of the branch in the block's sum: the branch is scaled
            before the gate instead, and by 1 in the sum.
        size: Height and width of a map that is flattened to (N, H * W, C) where the gate sits.
    """

    replace: str = ""
    switch: str = ""
    add: str = ""
    drop: str = ""
    scale: str = ""
    size: tuple[int, ...] = ()


HOOK = Via()
"""A hook is all that it takes."""


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
        branch: Which residual branch of the block, ``"attn"`` or ``"mlp"``, where it has both.

    Raises:
        PolicyError: A value that does not fit.
    """

    module: str
    position: Position = "standard"
    when: When | None = None
    stage: PositiveInt = 1
    block: PositiveInt = 1
    channels: NonNegativeInt = 0
    layout: Layout = "nchw"
    via: Via = HOOK
    branch: Branch = ""

    def __post_init__(self) -> None:
        check(self, PolicyError)

    @property
    def side(self) -> When:
        """Before or after the module."""
        return self.when or ("before" if self.position in ("pre", "inner") else "after")

    @property
    def key(self) -> str:
        """Name of the gate in the module that holds it."""
        return PREFIX + self.position

    @property
    def path(self) -> str:
        """Name that the gate's module has."""
        return ".".join(filter(None, [self.module, self.via.replace, self.key]))


@dataclass(frozen=True)
class Unsupported:
    """A position that a network can't offer.

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
        """Whether a rule for these blocks asks for it, by the number of blocks of each stage."""
        last, blocks = max(sizes, default=1), sizes.get(self.stage, 1)
        here = Site(self.module, self.stage, self.block, last, blocks, position, channels=0)
        return self.position == position and selector.matches(here)

    def __str__(self) -> str:
        return f"{self.module or 'the network'}: {self.position or 'no place'}, {self.reason}"


Block: TypeAlias = tuple[str, tuple[int, ...], dict[Position, Place | str]]
"""A block's name, the size of its map, and at each position its place without numbers, or why
there is none."""


@dataclass(frozen=True)
class SiteMap:
    """The places of a network, and those that it can't offer, with the reason. Print it.

    Made by `site_map` or `propose`, or by hand; ``a + b`` has the places of both.

    Args:
        places: The places, in the order of the forward pass.
        unsupported: The positions that it can't offer.
    """

    places: tuple[Place, ...]
    unsupported: tuple[Unsupported, ...] = ()

    def __add__(self, other: SiteMap) -> SiteMap:
        if not isinstance(other, SiteMap):
            return NotImplemented
        return SiteMap(self.places + other.places, self.unsupported + other.unsupported)

    def sizes(self) -> dict[int, int]:
        """Number of blocks of each stage."""
        sizes: dict[int, int] = {}
        numbers = [(place.stage, place.block) for place in self.places]
        numbers += [(lacking.stage, lacking.block) for lacking in self.unsupported if lacking.stage]
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
                branch=place.branch,
            ): place
            for place in self.places
        }

    def __str__(self) -> str:
        lines = [
            f"stage {place.stage} block {place.block}: {place.position} {place.side} "
            f"{place.path.rpartition('.')[0] or 'the network'}"
            for place in self.places
        ]
        return "\n".join([*lines, *(f"unsupported: {lacking}" for lacking in self.unsupported)])
