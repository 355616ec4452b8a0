"""Where the rooms meet: names, policies and weights become networks."""

from __future__ import annotations

import fnmatch
import functools
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from senetzoo.blueprint import Blueprint as Blueprint
from senetzoo.blueprint import Changes, as_policy, check_seed, merge
from senetzoo.blueprint import policy as policy
from senetzoo.counting import to_meta
from senetzoo.describe import transforms_of
from senetzoo.errors import ConfigError, PolicyError, checks_options, nearest
from senetzoo.names import ModelName
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.slots import Site
from senetzoo.nn.stem import Stem
from senetzoo.policies.algebra import NONE, Policy
from senetzoo.policies.attach import Attached
from senetzoo.policies.attach import attach as attach_gates
from senetzoo.policies.attach import detach as detach_gates
from senetzoo.policies.explain import Explanation, explain_model
from senetzoo.policies.foreign.places import complete, site_map
from senetzoo.policies.foreign.sitemap import SiteMap
from senetzoo.registry import ENTRIES, entry
from senetzoo.saved import opened
from senetzoo.weights import hub
from senetzoo.weights import manifest as weights
from senetzoo.weights.download import search
from senetzoo.weights.load import Channels, Weights, read_entry

if TYPE_CHECKING:
    from senetzoo.data.transforms import Transforms


def config(name: ModelName | str) -> Blueprint:
    """The config of a network by name, to change and build.

    Args:
        name: Name in the registry; a tag of its weights may follow, for the config that they were
            trained with (``"se_resnet20.cifar10_v1"``), and a policy (``"resnet50+se8@pre"``).

    Raises:
        ConfigError: An unknown name or tag.
        PolicyError: A policy that can't be read.
    """
    base, tag, text = split(name)
    found = entry(base)
    blueprint = Blueprint(base, found.config, policy(found.policy) if found.policy else NONE)
    if tag is not None:
        blueprint = _trained(blueprint, weights.find(base, tag)[1])
    if text is not None:
        blueprint = blueprint.replace(policy=merge(blueprint.policy, policy(text)))
    return blueprint


def split(name: str) -> tuple[str, str | None, str | None]:
    """``"network.tag+policy"`` in its parts; None for those that are not there.

    Raises:
        ConfigError: `name` is no text.
    """
    if not isinstance(name, str):
        raise ConfigError(
            f"A network was asked for by a value of type {type(name).__name__}.",
            "It is asked for by its name, which is text.",
            'Type for example: "se_resnet50"',
        )
    head, plus, text = name.partition("+")
    base, dot, tag = head.partition(".")
    return base, tag if dot else None, text if plus else None


@checks_options
def create(
    name: ModelName | str,
    *,
    policy: Policy | str | None = None,
    pretrained: bool | str = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    channels: Channels | None = None,
    stem: Stem | str | None = None,
    dropout: float | None = None,
    drop_path: float | None = None,
    seed: int | None = None,
) -> Classifier:
    """A network by name.

    Args:
        name: Name in the registry (`list_models`); a tag of its weights may follow
            (``"se_resnet20.cifar10_v1"``), and a policy (``"resnet50+se8@pre/s3-4"``). Or a
            repository of the Hugging Face Hub: ``"hf-hub:owner/name"``, ``"hf-hub:owner/name@v1"``.
        policy: Which gates sit where, over the name's own policy; `NONE` strips that.
        pretrained: True for the default weights of the network, or the tag of others.
        num_classes: Outputs; None for the weights' or the network's own. Another number than the
            weights have replaces the classifier.
        in_chans: Channels of the input; another number than the weights have adapts the first
            convolution.
        channels: How it is adapted: ``"sum"`` to fewer channels, ``"tile"`` to more, each of which
            responds to grey images as before, or ``"random"`` for a new one. None for the one of
            the first two that fits.
        stem: ``"imagenet"``, ``"cifar"``, ``"deep"`` or a `Stem`; None for the network's own.
            Another one than the weights have is initialised at random, unless its tensors are the
            same.
        dropout: Dropout before the classifier.
        drop_path: Stochastic depth.
        seed: Seed of the random initialisation; None draws one from torch's global state. The
            same seed gives the same trunk under every policy.

    Returns:
        The network, in training mode as PyTorch modules are; in eval mode with `pretrained` and
        from the Hub. ``model.load_report`` says which weights it has, and what does not come from
        them.

    Raises:
        ConfigError: An unknown name, tag or value.
        PolicyError: A policy that can't be read or does not fit.
        WeightsError: Weights that can't be had or do not fit.
    """
    fields = {
        "num_classes": num_classes,
        "in_chans": in_chans,
        "stem": stem,
        "dropout": dropout,
        "drop_path": drop_path,
    }
    if isinstance(name, str) and name.startswith(hub.PREFIX):
        repo, plus, over = name.partition("+")
        _check_pretrained(pretrained, repo)
        if isinstance(pretrained, str):
            raise ConfigError(
                f"{repo!r} and pretrained={pretrained!r} name different weights.",
                "A repository has one set of weights.",
                "Leave pretrained out",
            )
        changes = Changes((over if plus else None, policy), fields, channels, seed)
        return opened(hub.place(repo.removeprefix(hub.PREFIX)), changes)
    base, tag, text = split(name)
    blueprint = config(base)
    _check_pretrained(pretrained, base)
    if tag is not None and isinstance(pretrained, str) and pretrained != tag:
        raise ConfigError(
            f"{name!r} and pretrained={pretrained!r} name different weights.",
            "A network has one set of weights.",
            "Leave one of them out",
        )
    changes = Changes((text, policy), fields, channels, seed)
    wanted = pretrained if tag is None and isinstance(pretrained, str) else tag
    if wanted is None and not pretrained:
        return changes.build(blueprint)
    return with_weights(base, wanted, changes)


def with_weights(base: str, tag: str | None, changes: Changes) -> Classifier:
    """A network with published weights, in eval mode.

    Args:
        base: Its name in the registry.
        tag: Tag of the weights; None for the default ones.
        changes: What is to be other than the weights have it.

    Raises:
        ConfigError: An unknown name or tag, or a change that can't be.
        PolicyError: A policy that does not fit.
        WeightsError: Weights that can't be had or do not fit.
    """
    full, weight = weights.find(base, tag)
    trained = _trained(config(base), weight)
    blueprint = changes.over_weights(trained)
    if tag is None:
        _say_default(full)
    located = search(full, weight)
    model = blueprint.build(seed=changes.seed)
    # Another publisher's names are those of the network that the weights are of.
    foreign = weight.dialect != "senetzoo" and blueprint != trained
    like = trained.build(seed=0) if foreign else model
    file = located()
    reading = read_entry(weight, file.path, like)
    about = Weights(
        full,
        file.origin,
        file.sha256,
        trained.arch,
        weight.classes or (),
        weight.input,
        file.pinned,
        tuple((weight.source.file, note) for note in reading.notes),
    )
    return changes.fill(model, trained, about, reading.state)


@functools.cache
def _say_default(tag: str) -> None:
    """Say once which weights ``pretrained=True`` stands for."""
    print(f"The default weights of {tag.partition('.')[0]} are {tag}.", file=sys.stderr)


def _check_pretrained(pretrained: object, name: str) -> None:
    if not isinstance(pretrained, (bool, str)):
        raise ConfigError(
            f"pretrained={pretrained!r} names no weights.",
            "pretrained is True, False, or the tag of weights.",
            f"Type for example: create({name!r}, pretrained=True)",
        )


def _trained(blueprint: Blueprint, weight: weights.Entry) -> Blueprint:
    """The blueprint that the weights of a manifest entry were trained with."""
    trained = blueprint.replace(num_classes=weight.num_classes, in_chans=weight.input.channels)
    if weight.policy:
        trained = trained.replace(policy=merge(trained.policy, policy(weight.policy)))
    if weight.stem is not None:
        trained = trained.replace(stem=weight.stem)
    return trained.replace(**weight.config)


@checks_options
def attach(
    model: nn.Module,
    policy: Policy | str,
    *,
    sites: SiteMap | None = None,
    seed: int | None = None,
    sample: Tensor | None = None,
) -> Attached:
    """Put gates into a network that exists, in place; its other weights stay as they are.

    No key of the network is renamed: its own state dict loads into it as before, with
    ``strict=False`` because the gates' keys are missing. Attach before the network is wrapped or
    compiled, and after its modules have been exchanged (``convert_sync_batchnorm``, fusion): a
    gate belongs to the module where it sits.

    Args:
        model: A network of this zoo, of torchvision, timm or pytorchcv, or any other with `sites`.
        policy: Which gates go where, or its text.
        sites: Where gates can sit, for a network whose blocks are not known.
        seed: Seed of the gates' initialisation; None draws one from torch's global state.
        sample: An input for the network; it is run once, in eval mode, to see that every gate
            acts.

    Returns:
        The new gates by site, with groups of parameters for an optimizer (``parameters()``), and
        with what the policy asked for in vain and why (``unsupported``).

    Raises:
        PolicyError: The policy does not fit, or a gate does not act; nothing is changed then.
        ConfigError: `seed` is no seed.
    """
    if seed is not None:
        check_seed(seed)
    if sites is not None and not isinstance(sites, SiteMap):
        raise PolicyError(
            f"attach got sites={sites!r}.",
            "Sites are a SiteMap.",
            "Type for example: sites=propose(model, example_input)",
        )
    return attach_gates(model, as_policy(policy), sites=sites, seed=seed, sample=sample)


ModuleT = TypeVar("ModuleT", bound=nn.Module)


def detach(model: ModuleT) -> ModuleT:
    """Take every gate out of a network, in place.

    What is left is the bare trunk, bit for bit: modules, parameters, buffers, hooks and flags are
    those from before, also where the network has been copied, saved or trained in between.

    Args:
        model: A network that gates have been attached to, or one of this zoo.

    Returns:
        The network.

    Raises:
        PolicyError: It is wrapped; nothing is changed then.
    """
    detach_gates(model)
    return model


def explain(
    network: ModelName | str | Blueprint | nn.Module,
    policy: Policy | str | None = None,
    *,
    sites: SiteMap | None = None,
    size: int | None = None,
) -> Explanation:
    """What sits where in a network, and what it costs. Print it, or take ``as_dict()``.

    Args:
        network: A name, with or without a tag and a policy, or a config, or a network itself,
            which is not changed.
        policy: A policy over the network's own.
        sites: Where gates can sit, for a network whose blocks are not known.
        size: Side of the image in pixels, for a network that does not say it; else 224.

    Raises:
        ConfigError: An unknown name or tag.
        PolicyError: A policy that can't be read or does not fit.
    """
    if isinstance(network, nn.Module):
        return _explain_module(network, policy, sites, size)
    blueprint = network if isinstance(network, Blueprint) else config(network)
    name = blueprint.name if isinstance(network, Blueprint) else network
    if policy is not None:
        blueprint = blueprint.replace(policy=merge(blueprint.policy, as_policy(policy)))
    with torch.device("meta"):
        model = blueprint.build(seed=0)
    return explain_model(model, model.sites(), _image(model, size), name, blueprint.policy)


def _explain_module(
    model: nn.Module, policy: Policy | str | None, sites: SiteMap | None, size: int | None
) -> Explanation:
    twin = to_meta(model)
    policy = NONE if policy is None else as_policy(policy)
    attach_gates(twin, policy, sites=sites, seed=0, name=type(model).__name__)
    if isinstance(twin, Classifier):
        known: Iterable[Site] = twin.sites()
    else:
        known = complete(site_map(twin) if sites is None else sites, twin).sites()
    return explain_model(twin, known, _image(twin, size), type(model).__name__, policy)


def _image(model: nn.Module, size: int | None) -> tuple[int, int, int]:
    """Shape of an image for `model`."""
    if isinstance(model, Classifier):
        side, channels = model.config.input_size, model.config.in_chans
    else:
        side = 224
        channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)
    side = side if size is None else size
    return channels, side, side


def list_models(
    pattern: str = "*", *, pretrained: bool | None = None, family: str | None = None
) -> list[str]:
    """Names of networks.

    Args:
        pattern: Shell-style pattern: ``"se_*"``.
        pretrained: Only networks with (True) or without (False) published weights.
        family: Only networks of this family, by its title in any case: ``"resnet"``.

    Raises:
        ConfigError: No such family.
    """
    titles = sorted({found.family.title for found in ENTRIES.values()})
    if family is not None and family.lower() not in [title.lower() for title in titles]:
        raise ConfigError(
            f"There is no family {family!r}.",
            f"Families are {', '.join(titles)}.",
            nearest(family, map(str.lower, titles)),
        )
    return [
        name
        for name, found in ENTRIES.items()
        if fnmatch.fnmatchcase(name, pattern)
        and (family is None or found.family.title.lower() == family.lower())
        and (pretrained is None or pretrained == bool(weights.tags(name)))
    ]


def transforms(model: Classifier) -> Transforms:
    """What an image goes through before `model` sees it, as a callable value.

    Args:
        model: A network. With trained weights, the transforms are those that they were trained with
            (for other input channels than the weights', the mean and std are averaged); without,
            the usual ones for its size: CIFAR-10's statistics at 32 pixels, else ImageNet's and
            the centre of 224 / 256 of each side.

    Raises:
        ConfigError: `model` is no network of this zoo, or takes neither grey nor RGB images.
    """
    if not isinstance(model, Classifier):
        raise ConfigError(
            f"transforms got a {type(model).__name__}.",
            "It takes networks made by senetzoo.create.",
            'Type for example: transforms(create("resnet50"))',
        )
    channels = model.config.in_chans
    if channels not in (1, 3):
        raise ConfigError(
            f"There are no transforms for images of {channels} channels.",
            "Image files are read as grey (1 channel) or RGB (3 channels).",
            "Stack and normalise the channels yourself: the network takes a plain tensor "
            f"(N, {channels}, H, W)",
        )
    return transforms_of(model)
