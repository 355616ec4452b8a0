"""Who is measured: names and wildcards of ours, peers, each in every form that was asked for."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from senetzoo.bench.device import explained
from senetzoo.bench.peers import Wanted, peer
from senetzoo.bench.timing import Form, Subject, random_images
from senetzoo.counting import Counts, module_macs, parameters
from senetzoo.deploy.engines import Dtype, engine
from senetzoo.deploy.rewrite import rewritten
from senetzoo.errors import ConfigError, nearest
from senetzoo.zoo import create, list_models


@dataclass(frozen=True)
class Contender:
    """A network that is measured.

    Args:
        name: As it was asked for.
        module: It, in eval mode.
        image: Shape (C, H, W) of one image.
        counts: What it costs.
        optimized: The same, rewritten; None where that was not asked for, or is not ours to do.
    """

    name: str
    module: nn.Module
    image: tuple[int, int, int]
    counts: Counts
    optimized: nn.Module | None = None


def find_names(patterns: Sequence[str]) -> list[str]:
    """List the networks that names and wildcards stand for, each once, in their order.

    Args:
        patterns: Names with or without weights' tag and policy; before the policy's ``+`` there
            may be wildcards.

    Raises:
        ConfigError: A wildcard that matches nothing. Names are left for `create` to check.
    """
    names: dict[str, None] = {}
    for pattern in patterns:
        base, plus, policy = pattern.partition("+")
        if not any(letter in base for letter in "*?["):
            names[pattern] = None
            continue
        found = list_models(base)
        if not found:
            stem = base.strip("*?[]")
            raise ConfigError(
                f"No network matches {pattern!r}.",
                "* stands for any letters, ? for one.",
                nearest(stem, list_models()) or "Type: senetzoo list",
            )
        names.update((f"{name}{plus}{policy}", None) for name in found)
    return list(names)


def find_forms(
    engines: Sequence[str], dtypes: Sequence[Dtype]
) -> tuple[tuple[Form, ...], tuple[str, ...]]:
    """Pair every engine with every dtype.

    Returns:
        The forms, and in words the pairs that are left out because there is no such thing.

    Raises:
        ConfigError: There is no form at all, or no such engine.
    """
    pairs = list(dict.fromkeys(itertools.product(engines, dtypes)))
    there = [(name, dtype) for name, dtype in pairs if dtype in engine(name).dtypes]
    if not there:
        Form(*pairs[0])  # says what this engine has
    left_out = tuple(
        f"{name} has no {dtype}" for name, dtype in pairs if (name, dtype) not in there
    )
    return tuple(Form(name, dtype) for name, dtype in there), left_out


def contenders(
    names: Sequence[str], peers: Sequence[str], size: int | None, *, optimized: bool = False
) -> list[Contender]:
    """Build the networks with random weights: ours, then peers like the first of ours.

    Args:
        names: Of our networks.
        peers: As `senetzoo.bench.peers.peer` takes them.
        size: Pixels of a side; None for each network's own, which for a peer is the first's.
        optimized: Rewrite ours, too, as `senetzoo.optimize` does.

    Raises:
        ConfigError: A name that does not exist, or a network that does not take the size.
        MissingExtraError: A peer's library is not installed.
    """
    found = []
    for name in names:
        model = create(name, seed=0).eval()
        side = model.config.input_size if size is None else size
        image = (model.config.in_chans, side, side)
        found.append(Contender(name, model, image, _counts(name, model, image)))
        if optimized:
            found[-1] = dataclasses.replace(found[-1], optimized=_rewritten(model, image))
        if len(found) == 1:
            wanted = Wanted(model.config.num_classes, model.config.in_chans, side)
    for spec in dict.fromkeys(peers):
        image = (wanted.channels, wanted.size, wanted.size)
        theirs = peer(spec, wanted)
        found.append(Contender(spec, theirs, image, _counts(spec, theirs, image)))
    return found


def _counts(name: str, module: nn.Module, image: tuple[int, int, int]) -> Counts:
    with explained(name, image, 1):
        return Counts(parameters(module), module_macs(module, (1, *image)))


def _rewritten(model: nn.Module, image: tuple[int, int, int]) -> nn.Module:
    return rewritten(model, random_images(image, 2, torch.device("cpu")))[0]


def rows(found: Sequence[Contender], forms: Sequence[Form]) -> list[tuple[Subject, Counts]]:
    """A row for each network in each form, and one more for each that was rewritten."""
    made = []
    for contender in found:
        for form in forms:
            for module in filter(None, (contender.module, contender.optimized)):
                own = Form(form.engine, form.dtype, module is contender.optimized)
                subject = Subject(contender.name, module, contender.image, own)
                made.append((subject, contender.counts))
    return made
