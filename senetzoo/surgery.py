"""Attach gates to existing networks, and explain networks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from senetzoo.errors import PolicyError, checks_options, explained
from senetzoo.models.names import ModelName
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.modes import to_meta
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import NONE, Policy
from senetzoo.policies.attach import (
    Attached,
    check_no_gate_elsewhere,
    check_unwrapped,
    places,
)
from senetzoo.policies.attach import attach as attach_gates
from senetzoo.policies.explain import Explanation, explain_model
from senetzoo.policies.foreign.hooks import remembered
from senetzoo.policies.foreign.sitemap import SiteMap
from senetzoo.spec import ModelSpec, as_policy, check_seed
from senetzoo.zoo import described


@checks_options
def attach(
    model: nn.Module,
    policy: Policy | str,
    *,
    sites: SiteMap | None = None,
    seed: int | None = None,
    sample: Tensor | None = None,
) -> Attached:
    """Attach gates to an existing network, in place; its other weights don't change.

    No key of the network is renamed: its own state dict still loads, with ``strict=False`` because
    the gates' keys are missing. Attach gates before the network is wrapped or compiled, and after
    its modules have been replaced (``convert_sync_batchnorm``, fusion), because a gate belongs to
    one module. No other thread may use the network at the same time; threads may use copies.

    A gate at a place that has one replaces it, with new weights; other gates stay.

    Args:
        model: A network of this zoo, of torchvision, timm, pytorchcv, transformers or
            ultralytics, or any other with `sites`.
        policy: Which gates sit where, or its text.
        sites: Where gates can sit, for a network with unknown blocks; None for where gates were
            attached before.
        seed: Seed of the gates' initialization; None draws one from torch's global state.
        sample: An input for the network, which is run once, in eval mode, to check that every gate
            runs.

    Returns:
        The new gates by site, with parameter groups for an optimizer (``parameters()``), and with
        what the policy asked for but the network doesn't support (``unsupported``).

    Raises:
        PolicyError: The policy doesn't fit, or a gate doesn't run; the network isn't changed.
        ConfigError: `seed` isn't a valid seed.
    """
    if seed is not None:
        check_seed(seed)
    if sites is not None and not isinstance(sites, SiteMap):
        raise PolicyError(
            f"attach got sites={sites!r}.",
            "It takes a SiteMap.",
            "Type for example: sites=propose(model, example_input)",
        )
    return attach_gates(model, as_policy(policy), sites=sites, seed=seed, sample=sample)


def explain(
    network: ModelName | str | Path | ModelSpec | nn.Module,
    policy: Policy | str | None = None,
    *,
    sites: SiteMap | None = None,
    size: int | None = None,
    layers: bool = False,
) -> Explanation:
    """Explain which gates a network has and what they cost. Print it, or use ``as_dict()``.

    Args:
        network: A reference, as in `create`, a spec, or a network, which isn't changed.
        policy: A policy to merge over the network's own.
        sites: Where gates can sit, for a network with unknown blocks; None for where its gates
            were attached.
        size: Image size in pixels; None for the network's own, or 224 if it has none.
        layers: List all layers instead: name, kind, output shape, parameters, MACs.

    Raises:
        ConfigError: Unknown name or tag.
        PolicyError: The policy can't be parsed or doesn't fit the network.
    """
    if isinstance(network, nn.Module):
        return _explain_module(network, policy, sites, size, layers)
    spec, known = (network, None) if isinstance(network, ModelSpec) else described(network)
    name = spec.name if isinstance(network, ModelSpec) else str(network)
    spec = spec.merged(policy)
    with torch.device("meta"):
        model = spec.build(seed=0)
    image = _image(model, known.size if size is None and known is not None else size)
    return explain_model(model, model.sites(), image, name, spec.policy, by_layer=layers)


def _explain_module(
    model: nn.Module,
    policy: Policy | str | None,
    sites: SiteMap | None,
    size: int | None,
    layers: bool,
) -> Explanation:
    check_unwrapped(model, "explain")
    policy = NONE if policy is None else as_policy(policy)
    twin, name = to_meta(model), type(model).__name__
    attach_gates(twin, policy, sites=sites, seed=0, verb="explain")
    known: Iterable[Site]
    if isinstance(twin, Classifier):
        known = twin.sites()
    else:
        known = places(twin, sites or remembered(twin), name, "explain").sites()
        check_no_gate_elsewhere(twin, (site.path for site in known), "explain")
    image = _image(twin, size)
    with explained(
        f"Can't count the multiply-accumulates of a {name}.",
        "Without memory, on an image of {}x{}x{}, it".format(*image),
        "Explain the classifier that its backbone comes from, or print what attach returns",
    ):
        return explain_model(twin, known, image, name, policy, by_layer=layers)


def _image(model: nn.Module, size: int | None) -> tuple[int, int, int]:
    """Shape of an image for `model`."""
    if isinstance(model, Classifier):
        side, channels = model.input_size, model.in_chans
    else:
        side = 224
        channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)
    side = side if size is None else size
    return channels, side, side
