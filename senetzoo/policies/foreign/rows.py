"""What a row of the tables says: the places that one class of blocks has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from senetzoo.nn.slots import Branch, Layout, Position
from senetzoo.policies.foreign.hooks import Replace, Scale, Sum, When


@dataclass(frozen=True)
class Spot:
    """One place in a block.

    Args:
        when: Before or after the module.
        module: Its path in the block: empty for the block itself; ``"conv.-2"`` counts from the
            end; of ``"se|bn3"``, the first that is there.
        width: Path of the module whose channels count, where `module` has none to read.
        via: What else it takes.
        flat: Whether the map is flattened there, to the block's ``input_resolution``.
        branch: Residual branch that it belongs to, where the block has two.
    """

    when: When
    module: str
    width: str = ""
    via: Replace | Sum | Scale | None = None
    flat: bool = False
    branch: Branch = ""


Spots = tuple[Spot, ...]


def before(module: str, width: str = "", *, flat: bool = False, branch: Branch = "") -> Spots:
    """Before a module."""
    return (Spot("before", module, width, flat=flat, branch=branch),)


def after(module: str, width: str = "", *, scale: str = "", branch: Branch = "") -> Spots:
    """After a module; `scale` is the block's attribute with the branch's factor."""
    return (Spot("after", module, width, Scale(scale) if scale else None, branch=branch),)


def skip(attribute: str, switch: str = "") -> Spots:
    """After the projection under `attribute`, or put there where it is empty."""
    return (Spot("after", attribute, via=Replace(attribute, switch)),)


def added(switch: str, drop: str = "") -> Spots:
    """On the input that the block adds where its attribute `switch` is true."""
    return (Spot("after", "", via=Sum(switch, drop)),)


NO_SKIP = "there is no skip in the block"
ONE_CONVOLUTION = "no convolution follows the spatial one and its activation"
INSIDE = "the skip is added inside the block, by no module of its own"
SAME = "there is no sum in the block, so this is its standard position"

UNIT: Mapping[Position, str] = {"identity": NO_SKIP, "post": SAME, "inner": ONE_CONVOLUTION}


@dataclass(frozen=True)
class Row:
    """The places of one class of blocks.

    Args:
        names: Full names of the classes.
        pre: Where the branch's input passes.
        inner: Where the spatial convolution's activation passes.
        standard: Where the branch's output passes.
        identity: Where the skip passes.
        post: Where the block's output passes.
        lacks: Why a position is not there.
        adds: Attribute that says whether the block adds its input; where it does not, it is a
            unit without `identity` and `post`.
        inner_needs: A sequence that must have two children for `inner`.
        stage: What opens a stage: ``"parent"``, another parent than the last block's; ``"skip"``,
            a block that does not add its input; ``"pool"``, a pooling layer before it; ``"opens"``,
            a block of one of `opens`; or a pattern whose group changes with the stage, to search
            the block's path with.
        opens: Names of the classes that open a stage, without their module, for ``"opens"``.
        layout: Layout of the maps.
    """

    names: tuple[str, ...]
    pre: Spots = ()
    inner: Spots = ()
    standard: Spots = ()
    identity: Spots = ()
    post: Spots = ()
    lacks: Mapping[Position, str] = field(default_factory=dict)
    adds: str = ""
    inner_needs: str = ""
    stage: str = "parent"
    opens: tuple[str, ...] = ()
    layout: Layout = "nchw"

    def spots(self, position: Position) -> Spots:
        """The places at `position`."""
        spots: Spots = getattr(self, position)
        return spots


def whole(names: tuple[str, ...], stage: str, opens: tuple[str, ...] = ()) -> Row:
    """A row of blocks without a skip, whose input and output are all that passes from outside."""
    return Row(names, pre=before(""), standard=after(""), lacks=UNIT, stage=stage, opens=opens)


@dataclass(frozen=True)
class Plain:
    """A network whose convolutions stand in one sequence.

    Args:
        names: Full names of the network's class.
        sequence: Path of the sequence.
    """

    names: tuple[str, ...]
    sequence: str
