"""Every gate at every position of every network: it runs, once, learns, and changes the output.

SENETZOO_RECORDS=FOLDER keeps what was tried, in combinations.jsonl.
"""

from __future__ import annotations

from collections import Counter
from functools import reduce
from operator import or_

import pytest
import torch
from support.networks import EVERY_GATE, SMALL, calibrate_on_next_batch, keep_record, reduced
from torch import nn

from senetzoo import (
    NONE,
    ShuffleAttention,
    attach,
    block,
    config,
    stage,
)
from senetzoo.errors import PolicyError
from senetzoo.gates import GATES
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.slots import POSITIONS
from senetzoo.registry import ENTRIES

# Three that cover both layouts, units and residuals, and all positions; the others take an hour.
QUICK = ("lenet", "resnet20", "swin_t")
# Two stages show of Swin what four do, in a fifth of the time.
NARROW = {"swin_t": {"depths": (2, 2), "heads": (1, 2), "embed_dim": 32}}


@torch.no_grad()
def wake(gate: nn.Module) -> None:
    """Weights at random, the biases such that no hidden unit sits below its ReLU for good."""
    for parameter in gate.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
        else:
            parameter.uniform_(0.5, 1.5)


def learns(gate: nn.Module) -> bool:
    """Whether it has gradients, and not all of them are zero; of one without parameters, yes."""
    gradients = [parameter.grad for parameter in gate.parameters()]
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients), gate
    return not gradients or any(bool(g.any()) for g in gradients if g is not None)


def clear(model: Classifier) -> None:
    """Leave every slot empty."""
    for site, slots in list(model.slots()):
        slots.clear(site.position)


def test_every_gate_is_tried() -> None:
    assert {type(gate) for gate in EVERY_GATE} == set(GATES.values())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name, entry in ENTRIES.items()
        if entry.trunk == name
    ],
)
def test_every_gate_at_every_position(name: str) -> None:
    torch.manual_seed(0)
    arch = reduced(name) if name in SMALL.values() else config(name)
    arch = arch.replace(stem="cifar", num_classes=7, dropout=0.0, drop_path=0.0, policy=NONE)
    arch = arch.replace(**NARROW.get(name, {}))
    # Gates that double the map, fifty times in a row, leave the range of fp32.
    model = arch.build(seed=0).double()
    side = max(16, model.min_size)
    x = torch.randn(2, model.in_chans, side, side).double()
    calibrate_on_next_batch(model)
    with torch.no_grad():
        model(x)
        plain = model.eval().requires_grad_(False)(x)
    sites = Counter(site.position for site in model.sites())
    for position in (p for p in POSITIONS if p in sites):
        for gate in EVERY_GATE:
            channels = [site.channels for site in model.sites() if site.position == position]
            if isinstance(gate, ShuffleAttention) and any(n % 2 for n in channels):
                with pytest.raises(PolicyError, match="where the number of channels is even"):
                    attach(model, gate.at(position), seed=0)
                continue
            attached = attach(model, gate.at(position), seed=0)
            assert {site.position for site in attached} == {position}
            runs: Counter[str] = Counter()
            for site, module in attached.items():
                wake(module)
                module.register_forward_hook(
                    lambda *_, path=site.path, runs=runs: runs.update([path])
                )
            y = model(x)
            where = f"{gate}@{position}"
            assert runs == {site.path: 1 for site in attached}, where
            assert (y - plain).abs().max() > 1e-6 * plain.abs().max(), where
            if any(True for module in attached.values() for _ in module.parameters()):
                (y * torch.randn_like(y)).sum().backward()
            silent = [site for site, module in attached.items() if not learns(module)]
            clear(model)
            # Among all of them the map may grow until a sigmoid is flat: again with a few,
            # far from each other, and at last alone.
            few = -(-len(silent) // 8)
            groups = [silent[first::few] for first in range(few)]
            for group in groups:
                where = f"{gate}@{position} at {[site.path for site in group]}"
                chosen = reduce(or_, (stage(site.stage) & block(site.block) for site in group))
                modules = attach(model, gate.at(position).on(chosen), seed=0)
                for module in modules.values():
                    wake(module)
                y = model(x)
                (y * torch.randn_like(y)).sum().backward()
                still = [site for site in group if not learns(modules[site])]
                assert not still or len(group) > 1, where
                groups += [[site] for site in still]
                clear(model)
    with torch.no_grad():
        assert torch.equal(model(x), plain)
    keep_record("combinations", {"network": name, "sites": sites, "gates": len(EVERY_GATE)})
