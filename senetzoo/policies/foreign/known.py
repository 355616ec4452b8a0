"""What is known of a class of blocks: where gates can sit in them, and how stages are counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from senetzoo.nn.slots import Branch, Layout, Position
from senetzoo.policies.foreign.sitemap import HOOK, Via, When


@dataclass(frozen=True)
class Spot:
    """One place in a block.

    Args:
        when: Before or after the module.
        module: Its path in the block: empty for the block itself; ``"conv.-2"`` counts from the
            end, not up to the first; of ``"se|bn3"``, the first that is there.
        width: Path of the module whose channels count, where `module` has none to read.
        via: What else it takes.
        flat: Whether the map is flattened there, to the block's ``input_resolution``.
        branch: Residual branch that it belongs to, where the block has two.
    """

    when: When
    module: str
    width: str = ""
    via: Via = HOOK
    flat: bool = False
    branch: Branch = ""


Spots: TypeAlias = tuple[Spot, ...]


def before(module: str, width: str = "", *, flat: bool = False, branch: Branch = "") -> Spots:
    """Before a module."""
    return (Spot("before", module, width, flat=flat, branch=branch),)


def after(module: str, width: str = "", *, scale: str = "", branch: Branch = "") -> Spots:
    """After a module."""
    return (Spot("after", module, width, Via(scale=scale), branch=branch),)


def skip(attribute: str, switch: str = "") -> Spots:
    """After the projection under `attribute`, or put there where it is empty."""
    return (Spot("after", attribute, via=Via(replace=attribute, switch=switch)),)


def added(switch: str, drop: str = "") -> Spots:
    """On the input that the block adds where its attribute `switch` is true."""
    return (Spot("after", "", via=Via(add=switch, drop=drop)),)


ONE = "no convolution follows the spatial one and its activation"
INSIDE = "the skip is added inside the block, by no module of its own"
NO_SKIP = "there is no skip in the block"
SEVERAL = "the branch begins in several modules, and the skip takes the block's input too"

UNIT: Mapping[Position, str] = {
    "identity": NO_SKIP,
    "post": "there is no sum in the block, so this is its standard position",
    "inner": ONE,
}
"""What a block without a skip lacks."""


@dataclass(frozen=True)
class KnownBlock:
    """The places of one class of blocks, or of several alike.

    Args:
        classes: The module that they are in, and their names.
        pre: Where the branch's input passes.
        inner: Where the spatial convolution's activation passes.
        standard: Where the branch's output passes.
        identity: Where the skip passes.
        post: Where the block's output passes.
        lacks: Why a position is not there.
        stage: What opens a stage: a pattern to search the block's path with, whose group changes
            then, by default the block's parent; ``"skip"``, a block that does not add its input;
            ``"pool"``, a pooling layer before it; or a block of one of these classes.
        layout: Layout of the maps.
    """

    classes: str
    pre: Spots = ()
    inner: Spots = ()
    standard: Spots = ()
    identity: Spots = ()
    post: Spots = ()
    lacks: Mapping[Position, str] = field(default_factory=dict)
    stage: str | tuple[str, ...] = r"(.*)\."
    layout: Layout = "nchw"

    @property
    def adds(self) -> str:
        """Attribute that says whether the block adds its input: else it is one without a skip."""
        return next((spot.via.add for spot in self.identity), "")


def residual(
    classes: str,
    pre: str | Spots,
    inner: str | Spots,
    standard: str,
    identity: Spots,
    width: str = "",
    **options: Any,
) -> KnownBlock:
    """Blocks with a sum, which run its skip as a module or say by an attribute that they add."""
    return KnownBlock(
        classes,
        before(pre) if isinstance(pre, str) else pre,
        before(inner) if isinstance(inner, str) else inner,
        after(standard, width),
        identity,
        after("", width),
        **{"lacks": {"inner": ONE}, **options},
    )


def whole(
    classes: str, stage: str | tuple[str, ...], lacks: Mapping[Position, str] = UNIT
) -> KnownBlock:
    """Blocks without a skip, whose input and output are all that passes from outside."""
    return KnownBlock(classes, before(""), standard=after(""), lacks=lacks, stage=stage)
