"""What a policy does to a network: site by site, with its cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from senetzoo.counting import parameters
from senetzoo.nn.slots import Position, Site
from senetzoo.policies.algebra import Gate


@dataclass(frozen=True)
class Row:
    """One site.

    Args:
        stage: Stage, from 1.
        block: Block within the stage, from 1.
        position: Position within the block.
        path: Name of the gate's module.
        channels: Channels here.
        gate: The gate's text; empty for an empty slot.
        params: Learnable parameters of the gate.
        macs: Multiply-accumulates of the gate for one image.
    """

    stage: int
    block: int
    position: Position
    path: str
    channels: int
    gate: str
    params: int
    macs: int


@dataclass(frozen=True)
class Explanation:
    """Every site of a network; prints as a table of those that have a gate.

    Args:
        network: What was explained.
        rows: Every site.
        params: Learnable parameters of the whole network.
        macs: Multiply-accumulates of the whole network for one image.
        size: Side of that image in pixels.
    """

    network: str
    rows: tuple[Row, ...]
    params: int
    macs: int
    size: int

    def __str__(self) -> str:
        gated = [row for row in self.rows if row.gate]
        lines: list[tuple[str, ...]] = [
            ("stage", "block", "position", "channels", "gate", "+params", "+MACs")
        ]
        lines += [
            (
                str(row.stage),
                str(row.block),
                row.position,
                str(row.channels),
                row.gate or "-",
                f"{row.params:,}",
                f"{row.macs:,}",
            )
            for row in gated or self.rows
        ]
        added, cost = sum(row.params for row in gated), sum(row.macs for row in gated)
        widths = [max(len(line[column]) for line in lines) for column in range(7)]
        table = [
            "  ".join(
                cell.ljust(width) if column in (2, 4) else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join(
            [
                f"{self.network}: {self.params:,} parameters, {self.macs:,} MACs "
                f"at {self.size}x{self.size}",
                *table,
                f"{len(gated)} of {len(self.rows)} sites have a gate: "
                f"{added:,} parameters ({added / self.params:.2%}), "
                f"{cost:,} MACs ({cost / self.macs:.2%})",
            ]
        )

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON, empty sites too."""
        return {
            "network": self.network,
            "params": self.params,
            "macs": self.macs,
            "size": self.size,
            "sites": [vars(row) for row in self.rows],
        }


def explain_model(
    model: nn.Module,
    sites: Iterable[Site],
    shape: tuple[int, ...],
    name: str,
    texts: Mapping[str, str] | None = None,
) -> Explanation:
    """Explain `model`, which is on the meta device.

    Args:
        model: A network on the meta device, with its gates.
        sites: Its sites.
        shape: Shape of its input, (C, H, W).
        name: What to call it.
        texts: Text of the gate at each site's path, where it is known.
    """
    modules = dict(model.named_modules())
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), counter, torch.no_grad():
        model.eval()(torch.empty(1, *shape))
    root = type(model).__name__
    flops = {path: sum(ops.values()) for path, ops in counter.get_flop_counts().items()}
    rows = []
    for site in sites:
        gate = modules.get(site.path)
        rows.append(
            Row(
                stage=site.stage,
                block=site.block,
                position=site.position,
                path=site.path,
                channels=site.channels,
                gate="" if gate is None else (texts or {}).get(site.path) or _text(gate),
                params=parameters(gate) if gate is not None else 0,
                macs=flops.get(f"{root}.{site.path}", 0) // 2,
            )
        )
    return Explanation(
        name, tuple(rows), parameters(model), int(counter.get_total_flops()) // 2, shape[-1]
    )


def _text(gate: nn.Module) -> str:
    """The gate in text: its spec's, which the modules of this zoo carry, else its class."""
    spec = getattr(gate, "spec", None)
    return spec.text() if isinstance(spec, Gate) else type(gate).__name__
