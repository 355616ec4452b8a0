"""What is measured: names and wildcards of ours, and peers, each in every backend."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from senetzoo.bench.peers import peer
from senetzoo.bench.timing import Backend, BenchmarkCase, random_images
from senetzoo.deploy.engines import Dtype, engine
from senetzoo.deploy.rewrite import rewritten
from senetzoo.errors import ConfigError, nearest
from senetzoo.eval.accuracy import failures_explained
from senetzoo.nn.counting import Counts, module_macs, parameters
from senetzoo.zoo import create, list_models


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


def find_backends(
    engines: Sequence[str], dtypes: Sequence[Dtype]
) -> tuple[tuple[Backend, ...], tuple[str, ...]]:
    """Pair every engine with every dtype.

    Returns:
        The backends, and in words the pairs that are left out because there is no such thing.

    Raises:
        ConfigError: There is no backend at all, or no such engine.
    """
    pairs = list(dict.fromkeys(itertools.product(engines, dtypes)))
    there = [(name, dtype) for name, dtype in pairs if dtype in engine(name).dtypes]
    if not there:
        Backend(*pairs[0])  # says what this engine has
    left_out = tuple(
        f"{name} has no {dtype}" for name, dtype in pairs if (name, dtype) not in there
    )
    return tuple(Backend(name, dtype) for name, dtype in there), left_out


def candidates(
    names: Sequence[str],
    peers: Sequence[str],
    size: int | None,
    backends: Sequence[Backend],
    *,
    optimized: bool = False,
) -> list[BenchmarkCase]:
    """Build the networks with random weights: ours, then peers like the first of ours.

    Args:
        names: Of our networks.
        peers: As `senetzoo.bench.peers.peer` takes them.
        size: Pixels of a side; None for each network's own, which for a peer is the first's.
        backends: What runs each of them.
        optimized: Rewrite ours, too, as `senetzoo.optimize` does.

    Returns:
        A case for each network in each backend, and one more for each that was rewritten.

    Raises:
        ConfigError: A name that does not exist, or a network that does not take the size.
        MissingExtraError: A peer's library is not installed.
    """
    models = [create(name, seed=0).eval() for name in names]
    cases = []
    for name, model in zip(names, models, strict=True):
        side = model.input_size if size is None else size
        image = (model.in_chans, side, side)
        cases += _cases(name, model, image, backends, optimized=optimized)
    for spec in dict.fromkeys(peers):
        image = cases[0].image
        module = peer(spec, models[0].num_classes, image)
        cases += _cases(spec, module, image, backends)
    return cases


def _cases(
    name: str,
    module: nn.Module,
    image: tuple[int, int, int],
    backends: Sequence[Backend],
    *,
    optimized: bool = False,
) -> list[BenchmarkCase]:
    with failures_explained(name, image, 1):
        counts = Counts(parameters(module), module_macs(module, (1, *image)))
    modules = {False: module}
    if optimized:
        modules[True] = rewritten(module, random_images(image, 2, torch.device("cpu")))[0]
    return [
        BenchmarkCase(name, found, image, backend, is_rewritten, counts)
        for backend in backends
        for is_rewritten, found in modules.items()
    ]
