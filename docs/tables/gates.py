"""The tables and sections of docs/gates.md, from the gates' specs and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from typing import Any

import torch
from griffe import Docstring, DocstringSectionKind

from senetzoo import attach, config, detach
from senetzoo.gates import GATES
from senetzoo.nn.counting import count, parameters
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate
from tables.common import table

# Of the sites that parameters are counted at: maps of ResNet-20, and of ResNet-50.
CHANNELS = (16, 64, 256, 2048)
NETWORK = "resnet50"


def _site(channels: int) -> Site:
    return Site("a.b", 1, 1, 1, 1, "standard", channels)


def _code(text: str) -> str:
    """A docstring's text on one line, with its code in Markdown's."""
    return re.sub(r"``(.+?)``|`(\w+)`", r"`\1\2`", " ".join(text.split()))


def _sections(gate: type[Gate]) -> tuple[list[str], dict[str, str]]:
    """The paragraphs of a gate's docstring, and what it says of each option."""
    paragraphs: list[str] = []
    options: dict[str, str] = {}
    for section in Docstring(inspect.getdoc(gate) or "").parse("google", warnings=False):
        if section.kind is DocstringSectionKind.text:
            paragraphs += section.value.split("\n\n")
        elif section.kind is DocstringSectionKind.parameters:
            options |= {found.name: found.description for found in section.value}
    return [_code(paragraph) for paragraph in paragraphs], {k: _code(v) for k, v in options.items()}


def paper(gate: type[Gate]) -> str:
    """Where a gate comes from, as its file says, with links to arXiv."""
    text = inspect.getdoc(sys.modules[gate.__module__]) or ""
    source = _code(text.partition("\n\n")[2])
    return re.sub(r"arXiv:(\d{4}\.\d{5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", source)


def _value(value: object) -> str:
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def _fields(gate: type[Gate]) -> list[dataclasses.Field[Any]]:
    return list(dataclasses.fields(gate))  # type: ignore[arg-type]


def costs() -> str:
    """What each gate adds with its defaults, at one site and to a whole network."""
    with torch.device("meta"):
        trunk = config(NETWORK).build(seed=0)
    plain = count(trunk)
    rows = []
    for gate in GATES.values():
        with torch.device("meta"):
            added = [parameters(gate().build(_site(channels))) for channels in CHANNELS]
            attach(trunk, gate(), seed=0)
        gated = count(trunk)
        detach(trunk)
        rows.append(
            [
                f"[`{gate.__name__}`](#{gate.__name__.lower()})",
                f"`{gate().text()}`",
                *(f"{number:,}" for number in added),
                f"{100 * (gated.params / plain.params - 1):.2f} %",
                f"{100 * (gated.macs / plain.macs - 1):.2f} %",
            ]
        )
    head = ["gate", "text", *(f"at {channels} channels" for channels in CHANNELS)]
    return table([*head, f"to `{NETWORK}`", "MACs"], rows)


def sections() -> str:
    """A section for each gate: formula, paper, options."""
    parts = []
    for name, gate in GATES.items():
        paragraphs, described = _sections(gate)
        rows = []
        for field in _fields(gate):
            shown = f"`{field.name}`"
            if field.name == gate.number:
                shown = f"**{shown}**"
            rows.append([shown, _value(field.default), described[field.name]])
        text = "\n\n".join(paragraphs)
        options = table(["option", "default", "what it is"], rows).replace("---:", "---")
        bare = f", with `{gate.number}` as a bare number" if gate.number else ""
        text += f"\n\nIn text `{name}`{bare}. {paper(gate)}"
        parts.append(f"### {gate.__name__}\n\n{text}\n\n{options}")
    return "\n".join(parts)
