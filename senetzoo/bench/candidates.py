"""Choose what to measure: our networks by name or wildcard, and peers, in every backend."""

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
    """Expand wildcards (before the policy's ``+``) to names; each name is listed once.

    Raises:
        ConfigError: A wildcard matches nothing. Names without wildcards are not checked here.
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
                "* matches any characters, ? matches one.",
                nearest(stem, list_models()) or "Type: senetzoo list",
            )
        names.update((f"{name}{plus}{policy}", None) for name in found)
    return list(names)


def find_backends(
    engines: Sequence[str], dtypes: Sequence[Dtype], streams: Sequence[int] = (1,)
) -> tuple[tuple[Backend, ...], tuple[str, ...]]:
    """Combine engines, dtypes and numbers of streams; also describe the unsupported pairs.

    Raises:
        ConfigError: No pair is supported, or there is no such engine.
    """
    pairs = list(dict.fromkeys(itertools.product(engines, dtypes)))
    there = [pair for pair in pairs if pair[1] in engine(pair[0]).dtypes]
    left_out = tuple(f"{pair[0]} has no {pair[1]}" for pair in pairs if pair not in there)
    # If no pair is supported, the first one raises an error with the dtypes of its engine.
    numbers = dict.fromkeys(streams)
    return tuple(
        Backend(*pair, number) for pair in there or pairs[:1] for number in numbers
    ), left_out


def candidates(
    names: Sequence[str],
    peers: Sequence[str],
    size: int | None,
    backends: Sequence[Backend],
    *,
    optimized: bool = False,
) -> list[BenchmarkCase]:
    """Build cases with random weights in each backend: our networks, then peers.

    Peers have the classes and the image shape of our first network.

    Args:
        names: Names of our networks.
        peers: Names of peers, as for `senetzoo.bench.peers.peer`.
        size: Image size in pixels; None for each network's own, and for peers the first network's.
        backends: Backends to run each of them in.
        optimized: Whether to also measure our networks as rewritten by `senetzoo.optimize`.
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
