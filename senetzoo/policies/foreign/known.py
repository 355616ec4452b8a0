"""Description of a class of blocks: where gates can sit in it, and how its stages are counted."""

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
            end, but not back to the first; ``"se|bn3"`` is the first that exists.
        width: Path of the module to read the channels from, if `module` has none.
        via: What it takes besides a hook.
        flat: Whether the map is flattened there, from the block's ``input_resolution``.
        branch: Residual branch, if the block has two.
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
    """After the projection at `attribute`, or in its place if there is none."""
    return (Spot("after", attribute, via=Via(replace=attribute, switch=switch)),)


def added(switch: str, drop: str = "") -> Spots:
    """On the input that the block adds if its attribute `switch` is true."""
    return (Spot("after", "", via=Via(add=switch, drop=drop)),)


ONE = "no convolution follows the spatial one and its activation"
INSIDE = "the skip is added inside the block, without a module of its own"
NO_SKIP = "there is no skip in the block"
SEVERAL = "the branch starts at several modules, and the skip uses the block's input, too"

UNIT: Mapping[Position, str] = {
    "identity": NO_SKIP,
    "post": "there is no sum in the block, so this is its standard position",
    "inner": ONE,
}
"""Positions that a block without a skip doesn't have."""


@dataclass(frozen=True)
class KnownBlock:
    """The places in one or more similar classes of blocks.

    Args:
        classes: Their module, followed by their names.
        pre: Input of the branch.
        inner: Activation after the spatial convolution.
        standard: Output of the branch.
        identity: Output of the skip.
        post: Output of the block.
        lacks: Reasons for positions that don't exist.
        stage: What starts a new stage: a change of the group in a pattern that is searched in the
            block's path, by default its parent; ``"skip"``, a block that doesn't add its input;
            ``"pool"``, a pooling layer before the block; or a block of one of these classes.
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
        """Attribute that says whether the block adds its input; otherwise it has no skip."""
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
    """Blocks with a sum whose skip is a module, or that have an attribute for adding the input."""
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
    """Blocks without a skip, with places only at their input and output."""
    return KnownBlock(classes, before(""), standard=after(""), lacks=lacks, stage=stage)
