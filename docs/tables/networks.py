"""The tables of docs/networks.md: what each network costs, and what it was compared with."""

from __future__ import annotations

from collections.abc import Container, Iterable
from functools import cache
from typing import Any

import torch

from senetzoo import attach, config
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.counting import count, parameters
from senetzoo.nn.slots import POSITIONS
from senetzoo.registry import ENTRIES, FAMILIES
from tables.common import lines, table

# Networks that no other library has, with the test that holds each against its paper's layers:
# written out by hand, or layer by layer.
BY_THE_PAPER = {
    "lenet": "test_lenet.py::test_written_out",
    "lenet5": "test_lenet.py::test_written_out",
    **dict.fromkeys(
        ("vgg11_lrn", "vgg16_c", "vgg16_c_bn"),
        "test_parity_vgg.py::test_layers_of_the_papers_table",
    ),
    "googlenet": "test_parity_googlenet.py::test_the_papers_form_written_out",
    "inception_v2": "test_parity_inception_v2.py::test_written_out",
    **{
        f"resnet{depth}a": "test_parity_resnet.py::test_option_a_written_out"
        for depth in (20, 32, 44, 56, 110)
    },
    **{
        f"plain{depth}": "test_parity_plain.py::test_cifar_written_out"
        for depth in (20, 32, 44, 56)
    },
    "densenet264": "test_parity_densenet.py::test_shapes_of_table_1",
    "densenet40_12": "test_parity_densenet.py::test_densenet40_written_out",
}


@cache
def on_meta(name: str) -> Classifier:
    """The network called `name`, without memory."""
    with torch.device("meta"):
        return config(name).build(seed=0)


def parity() -> dict[str, dict[str, Any]]:
    """What each network was compared with: of several references the one with the least error."""
    found: dict[str, dict[str, Any]] = {}
    for record in lines("parity/networks.jsonl"):
        best = found.get(record["network"])
        if best is None or record["error"] < best["error"]:
            found[record["network"]] = record
    return found


def _held_by(name: str) -> str:
    test = BY_THE_PAPER.get(name)
    return f"the paper's layers, in `{test.partition('::')[0]}`" if test else "nothing yet"


def every(names: Iterable[str] = ENTRIES) -> str:
    """Networks, by default all, with their source, cost, and what they were compared with."""
    rows, equals = [], parity()
    for name in names:
        entry = ENTRIES[name]
        if entry.trunk != name:
            continue
        model = on_meta(name)
        counts, arch, paper = count(model), entry.config, entry.family.paper(name)
        twin, gated = f"se_{name}", None
        if twin in ENTRIES:
            with torch.device("meta"):
                gates = attach(model, config(twin).policy, seed=0)
            gated = counts.params + sum(map(parameters, gates.values()))
        record = equals.get(name)
        rows.append(
            [
                f"`{name}`",
                f"[{paper.year}]({paper.link})",
                f"{counts.params:,}",
                f"{gated:,}" if gated is not None else "",
                f"{counts.macs / 1e9:.{3 if counts.macs > 1e6 else 4}f}",
                f"{arch.in_chans}x{arch.input_size}x{arch.input_size}",
                str(arch.num_classes),
                str(len(model.sites())),
                record["reference"] if record else _held_by(name),
                f"{record['error']:.0e}".replace("0e+00", "0") if record else "",
            ]
        )
    head = ["name", "paper", "parameters", "with `se_`", "GMACs", "input", "classes", "sites"]
    return table([*head, "compared with", "relative error"], rows)


def families(names: Container[str] = ENTRIES) -> str:
    """Where gates can sit in each family, as its networks in `names` say; its small variant."""
    rows = []
    for family in FAMILIES:
        positions: set[str] = set()
        for name in (name for name in family.networks if name in names):
            positions |= {site.position for site in on_meta(name).sites()}
        papers = dict.fromkeys(family.paper(name) for name in family.networks)
        rows.append(
            [
                family.title,
                "; ".join(f"[{paper.title}]({paper.link}), {paper.year}" for paper in papers),
                ", ".join(f"`{position}`" for position in POSITIONS if position in positions),
                family.small,
            ]
        )
    head = ["family", "papers", "positions", 'with `stem="cifar"`']
    return table(head, rows).replace("---:", "---")
