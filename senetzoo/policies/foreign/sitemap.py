"""`SiteMap`: where gates can sit in a network that declares no sites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from senetzoo._utils.checks import NonNegativeInt, PositiveInt, check
from senetzoo.errors import PolicyError
from senetzoo.nn.slots import Branch, Layout, Position, Site
from senetzoo.policies.selectors import Selector

PREFIX = "senetzoo_"
"""Prefix of the names of gates in networks without slots."""

When: TypeAlias = Literal["before", "after"]


@dataclass(frozen=True)
class Via:
    """What a gate at a place needs besides a hook before or after a module.

    Args:
        replace: Attribute of the block for the skip's projection, which is None or missing; it
            gets a module with the gate.
        switch: Attribute that is set to True so that the block uses `replace`.
        add: Attribute that makes the block add its input; it is set to False, and the hook adds
            the gated input.
        drop: The block's stochastic depth, which it applies only if it adds its input.
        scale: Attribute with the factor of the branch in the sum; it is set to 1, and the hook
            scales the branch before the gate.
        size: Height and width of the map if it is flattened to (N, H * W, C) at the gate.
    """

    replace: str = ""
    switch: str = ""
    add: str = ""
    drop: str = ""
    scale: str = ""
    size: tuple[int, ...] = ()


HOOK = Via()
"""Nothing besides a hook."""


@dataclass(frozen=True)
class Place:
    """One place for a gate.

    Args:
        module: Name of a module in ``named_modules()``. For a plain ``nn.Sequential``, its first
            child is used if the gate sits before it, otherwise its last child.
        position: Position within the block.
        when: ``"before"`` or ``"after"`` the module; None is ``"before"`` for ``pre`` and
            ``inner``, and ``"after"`` for the others.
        stage: Stage, from 1.
        block: Block within the stage, from 1.
        channels: Channels of the map; 0 to read them from the module.
        layout: ``"nchw"`` or ``"nhwc"``.
        via: What the gate needs besides a hook; used by the tables of known networks.
        branch: Residual branch, ``"attn"`` or ``"mlp"``, if the block has both.

    Raises:
        PolicyError: A field has an invalid value.
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
        """Name of the gate in its parent module."""
        return PREFIX + self.position

    @property
    def path(self) -> str:
        """Full name of the gate's module."""
        return ".".join(filter(None, [self.module, self.via.replace, self.key]))


@dataclass(frozen=True)
class Unsupported:
    """A position that a network doesn't support.

    Args:
        module: Name of the block.
        position: The position; empty if the block has no places at all.
        reason: Why it isn't supported.
        stage: Stage, from 1; 0 if unknown.
        block: Block within the stage, from 1; 0 if unknown.
    """

    module: str
    position: Position | str
    reason: str
    stage: int = 0
    block: int = 0

    def asked(self, position: Position, selector: Selector, sizes: dict[int, int]) -> bool:
        """Whether a rule asks for it; `sizes` are the numbers of blocks of each stage."""
        last, blocks = max(sizes, default=1), sizes.get(self.stage, 1)
        here = Site(self.module, self.stage, self.block, last, blocks, position, channels=0)
        return self.position == position and selector.matches(here)

    def __str__(self) -> str:
        return f"{self.module or 'the network'}: {self.position or 'no place'}, {self.reason}"


Block: TypeAlias = tuple[str, tuple[int, ...], dict[Position, Place | str]]
"""A block's name, the size of its map, and for each position a place (without stage and block), or
the reason why there is none."""


@dataclass(frozen=True)
class SiteMap:
    """The places for gates in a network, and the positions that it doesn't support. Print it.

    Made by `site_map`, `propose` or by hand; ``a + b`` has the places of both.

    Args:
        places: The places, in the order of the forward pass.
        unsupported: The positions that aren't supported.
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
