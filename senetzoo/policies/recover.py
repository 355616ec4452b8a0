"""From the gates in a network back to a policy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add, or_

from senetzoo.nn.slots import Position, Site
from senetzoo.policies.algebra import NONE, Gate, Policy, Rule
from senetzoo.policies.selectors import EVERYWHERE, Selector, block, stage


@dataclass(frozen=True)
class _Paths(Selector):
    """Sites by name: for what stages and blocks can't say. It has no text form."""

    paths: frozenset[str]

    def matches(self, site: Site) -> bool:
        return site.path in self.paths

    def __str__(self) -> str:
        return f"<{len(self.paths)} site{'s' * (len(self.paths) > 1)}>"


def exactly(gates: Mapping[Site, Gate]) -> Policy:
    """The policy that puts these gates at these sites, by name. It has no text form."""
    return _joined(
        Rule(gate, position, _Paths(frozenset(site.path for site in sites)))
        for (gate, position), sites in _grouped(gates).items()
    )


def recovered(gates: Mapping[Site, Gate], sites: Iterable[Site]) -> Policy:
    """A short policy that puts these gates at these sites and nothing elsewhere.

    Args:
        gates: The gates.
        sites: All sites of the network.

    Returns:
        The policy; it has no text form where stages and blocks don't tell the sites apart.
    """
    known = tuple(sites)
    return _joined(
        Rule(
            gate, position, _selector([s for s in known if s.position == position], frozenset(here))
        )
        for (gate, position), here in _grouped(gates).items()
    )


def _grouped(gates: Mapping[Site, Gate]) -> dict[tuple[Gate, Position], list[Site]]:
    groups: dict[tuple[Gate, Position], list[Site]] = {}
    for site, gate in gates.items():
        groups.setdefault((gate, site.position), []).append(site)
    return groups


def _joined(rules: Iterable[Policy]) -> Policy:
    several = list(rules)
    return reduce(add, several) if several else NONE


def _selector(sites: list[Site], wanted: frozenset[Site]) -> Selector:
    """What selects `wanted` of `sites`, which have one position."""
    for selector in _candidates(wanted):
        if frozenset(filter(selector.matches, sites)) == wanted:
            return selector
    return _Paths(frozenset(site.path for site in wanted))


def _candidates(wanted: frozenset[Site]) -> Iterator[Selector]:
    """From the shortest to the most exact."""
    yield EVERYWHERE
    blocks: dict[int, set[int]] = {}
    for site in wanted:
        blocks.setdefault(site.stage, set()).add(site.block)
    yield stage(*blocks)
    # Blocks of each stage; stages with the same ones are spoken of together.
    alike: dict[tuple[int, ...], list[int]] = {}
    for number in sorted(blocks):
        alike.setdefault(tuple(sorted(blocks[number])), []).append(number)
    if len(alike) == 1:
        yield block(*next(iter(alike)))
    yield reduce(or_, (stage(*stages) & block(*numbers) for numbers, stages in alike.items()))
