"""What a policy adds to a network, site by site, with its cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from senetzoo._utils.terminal import columns, counted
from senetzoo.nn.counting import macs_by_name, parameters
from senetzoo.nn.layers import Layer, layers, table
from senetzoo.nn.slots import Branch, Position, Site
from senetzoo.policies.algebra import NONE, Gate, Policy


@dataclass(frozen=True)
class Row:
    """One site.

    Args:
        stage: Stage, from 1.
        block: Block within the stage, from 1.
        position: Position within the block.
        path: Name of the gate's module.
        channels: Channels at the site.
        gate: The gate's text; empty for an empty slot.
        params: Learnable parameters of the gate.
        macs: Multiply-accumulates of the gate for one image.
        params_share: Fraction of the network's parameters, from 0 to 1.
        macs_share: Fraction of the network's multiply-accumulates.
        branch: Residual branch if the block has two; otherwise empty.
    """

    stage: int
    block: int
    position: Position
    path: str
    channels: int
    gate: str
    params: int
    macs: int
    params_share: float
    macs_share: float
    branch: Branch = ""


_OF_SITE = ("stage", "block", "position", "path", "channels", "branch")


@dataclass(frozen=True)
class Shadowed:
    """A rule without effect, because later rules win at all of its sites.

    Args:
        rule: The rule's text.
        by: Texts of the rules that win.
        sites: Number of its sites.
    """

    rule: str
    by: tuple[str, ...]
    sites: int

    def __str__(self) -> str:
        return (
            f"{self.rule} has no effect: {', '.join(self.by)} win{'s' * (len(self.by) == 1)} "
            f"at all of its {counted(self.sites, 'site')}"
        )


@dataclass(frozen=True)
class Explanation:
    """The sites of a network; prints a table of those with a gate.

    Args:
        network: Name of the network.
        rows: All sites.
        params: Learnable parameters of the whole network, including gates.
        macs: Multiply-accumulates of the whole network for one image, including gates.
        size: Size of that image in pixels.
        shadowed: Rules of the policy that have no effect.
        layers: All layers, if requested; these are printed instead of the sites.
    """

    network: str
    rows: tuple[Row, ...]
    params: int
    macs: int
    size: int
    shadowed: tuple[Shadowed, ...] = ()
    layers: tuple[Layer, ...] = ()

    def __str__(self) -> str:
        title = (
            f"{self.network}: {self.params:,} parameters, {self.macs:,} MACs "
            f"at {self.size}x{self.size}"
        )
        if self.layers:
            title = f"{self.network} at {self.size}x{self.size}"
            return "\n".join([title, *table(self.layers, self.params, self.macs)])
        gated = [row for row in self.rows if row.gate]
        head = ["stage", "block", "position", "channels", "gate"]
        head += ["+params", "share", "+MACs", "share"]
        cells = [
            [
                str(row.stage),
                str(row.block),
                row.position + (f" ({row.branch})" if row.branch else ""),
                str(row.channels),
                row.gate or "-",
                f"{row.params:,}",
                f"{row.params_share:.2%}",
                f"{row.macs:,}",
                f"{row.macs_share:.2%}",
            ]
            for row in gated or self.rows
        ]
        added, cost = sum(row.params for row in gated), sum(row.macs for row in gated)
        return "\n".join(
            [
                title,
                *columns([head, *cells], left=(2, 4)),
                f"{len(gated)} of {len(self.rows)} sites have a gate: "
                f"{added:,} parameters ({added / self.params:.2%}), "
                f"{cost:,} MACs ({cost / self.macs:.2%})",
                *map(str, self.shadowed),
            ]
        )

    def as_dict(self) -> dict[str, Any]:
        """As a dict for JSON, including sites without gates."""
        return {
            "network": self.network,
            "params": self.params,
            "macs": self.macs,
            "size": self.size,
            "sites": [vars(row) for row in self.rows],
            "shadowed": [{**vars(found), "by": list(found.by)} for found in self.shadowed],
            **({"layers": [vars(layer) for layer in self.layers]} if self.layers else {}),
        }


def shadowed(policy: Policy, sites: tuple[Site, ...]) -> tuple[Shadowed, ...]:
    """The rules of `policy` that select some of these sites but win at none."""
    rules, winners = list(policy.rules()), policy.winners(sites)
    won = set(winners.values())
    lost = []
    for number, rule in enumerate(rules):
        spoken = rule.winners(sites) if number not in won else {}
        if spoken:
            # A dict keeps the order.
            by = dict.fromkeys(str(rules[winners[site]]) for site in spoken)
            lost.append(Shadowed(str(rule), tuple(by), len(spoken)))
    return tuple(lost)


def explain_model(
    model: nn.Module,
    sites: Iterable[Site],
    shape: tuple[int, ...],
    name: str,
    policy: Policy = NONE,
    *,
    by_layer: bool = False,
) -> Explanation:
    """Explain `model`, a network with its gates on the meta device."""
    model.eval()
    found, costs = layers(model, shape) if by_layer else ((), macs_by_name(model, (1, *shape)))
    params, macs = parameters(model), costs[""]
    modules, sites = dict(model.named_modules()), tuple(sites)
    rows = []
    for site in sites:
        gate = modules.get(site.path)
        added = 0 if gate is None else parameters(gate)
        cost = costs.get(site.path, 0)
        rows.append(
            Row(
                **{key: getattr(site, key) for key in _OF_SITE},
                gate="" if gate is None else _text(gate),
                params=added,
                macs=cost,
                params_share=added / params,
                macs_share=cost / macs,
            )
        )
    lost = shadowed(policy, sites)
    return Explanation(name, tuple(rows), params, macs, shape[-1], lost, found)


def _text(gate: nn.Module) -> str:
    """Text of the gate's spec; the class name if it has none."""
    spec = getattr(gate, "spec", None)
    return spec.text() if isinstance(spec, Gate) else type(gate).__name__
