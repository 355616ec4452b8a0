"""Where the rooms meet: names, policies and weights become networks."""

from __future__ import annotations

from typing import Any

import torch

from senetzoo.gates import GATES
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.stem import Stem
from senetzoo.policies.algebra import Policy
from senetzoo.policies.attach import attach
from senetzoo.policies.text import parse
from senetzoo.registry import entry


def create(
    name: str,
    *,
    policy: Policy | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    stem: Stem | str | None = None,
    dropout: float | None = None,
    drop_path: float | None = None,
    seed: int | None = None,
) -> Classifier:
    """A network by name."""
    base, _, text = name.partition("+")
    found = entry(base)
    asked: dict[str, Any] = {
        "num_classes": num_classes,
        "in_chans": in_chans,
        "stem": stem,
        "dropout": dropout,
        "drop_path": drop_path,
    }
    config = found.config.replace(**{k: v for k, v in asked.items() if v is not None})
    parts = [parse(found.policy, GATES)] if found.policy else []
    if text:
        parts.append(parse(text, GATES))
    if policy is not None:
        parts.append(policy)
    if seed is None:
        seed = int(torch.randint(2**62, ()).item())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = config.build()
    whole: Policy | None = None
    for part in parts:
        whole = part if whole is None else whole | part
    if whole is not None:
        attach(model, whole, seed=seed)
    return model
