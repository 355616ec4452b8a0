"""Where gates can sit in a network that declares no sites: a `SiteMap`."""

from __future__ import annotations

from dataclasses import dataclass

from senetzoo.errors import PolicyError
from senetzoo.nn.slots import BRANCHES, Branch, Layout, Position, Site
from senetzoo.policies.algebra import check_position
from senetzoo.policies.foreign.hooks import PREFIX, Replace, Via, When
from senetzoo.policies.selectors import Selector


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
    stage: int = 1
    block: int = 1
    channels: int = 0
    layout: Layout = "nchw"
    via: Via | None = None
    branch: Branch = ""

    def __post_init__(self) -> None:
        check_position(self.position)
        if self.when not in ("before", "after", None):
            raise PolicyError(f"when={self.when!r} is no time.", "It is 'before' or 'after'.")
        if self.layout not in ("nchw", "nhwc"):
            raise PolicyError(f"layout={self.layout!r} is none.", "It is 'nchw' or 'nhwc'.")
        if self.branch not in ("", *BRANCHES):
            raise PolicyError(
                f"branch={self.branch!r} is none.", f"It is {' or '.join(map(repr, BRANCHES))}."
            )
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
