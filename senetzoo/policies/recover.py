"""Recover a policy from the gates in a network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from senetzoo.errors import PolicyError
from senetzoo.nn.slots import Position, Site
from senetzoo.policies.algebra import Gate, Policy, Rule, joined
from senetzoo.policies.selectors import EVERYWHERE, Selector, block, branch, combined, stage


def recovered(gates: Mapping[Site, Gate], sites: Iterable[Site]) -> Policy:
    """A short policy that resolves to `gates` on a network with these `sites`.

    Raises:
        PolicyError: Two sites have the same stage, block, position and branch, but only one of
            them has the gate. No network of the zoo has such sites.
    """
    known = tuple(sites)
    groups: dict[tuple[Gate, Position], set[Site]] = {}
    for site, gate in gates.items():
        groups.setdefault((gate, site.position), set()).add(site)
    return joined(
        "+",
        (
            Rule(gate, position, _selector({s for s in known if s.position == position}, here))
            for (gate, position), here in groups.items()
        ),
    )


def _selector(sites: set[Site], wanted: set[Site]) -> Selector:
    """A selector of `wanted` among `sites`, which all have one position."""
    for selector in _candidates(wanted):
        if set(filter(selector.matches, sites)) == wanted:
            return selector
    if len({site.branch for site in sites}) == 1:
        raise PolicyError(
            f"No policy selects only the gates at {', '.join(sorted(s.path for s in wanted))}.",
            "Other sites have the same stage, block and position.",
        )
    chosen = sorted({site.branch for site in wanted})
    return combined(
        "|",
        [
            branch(name)
            & _selector(
                {s for s in sites if s.branch == name}, {s for s in wanted if s.branch == name}
            )
            for name in chosen
        ],
    )


def _candidates(wanted: set[Site]) -> Iterator[Selector]:
    """Selectors to try, from the shortest to the most exact."""
    yield EVERYWHERE
    blocks: dict[int, set[int]] = {}
    for site in wanted:
        blocks.setdefault(site.stage, set()).add(site.block)
    yield stage(*blocks)
    # Stages by their blocks, so that stages with the same blocks share a selector.
    alike: dict[tuple[int, ...], list[int]] = {}
    for number in sorted(blocks):
        alike.setdefault(tuple(sorted(blocks[number])), []).append(number)
    if len(alike) == 1:
        yield block(*next(iter(alike)))
    yield combined("|", [stage(*stages) & block(*numbers) for numbers, stages in alike.items()])
