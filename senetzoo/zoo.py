"""Where the rooms meet: names, policies and weights become networks."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch
from torch import Tensor, nn

from senetzoo.data.preprocessing import Preprocessing, usual
from senetzoo.errors import ConfigError, PolicyError, checks_options, nearest
from senetzoo.io import folder, hub
from senetzoo.names import ModelName
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.modes import to_meta
from senetzoo.nn.report import LoadReport
from senetzoo.nn.slots import Site
from senetzoo.nn.stem import Stem
from senetzoo.policies.algebra import NONE, Policy
from senetzoo.policies.attach import Attached
from senetzoo.policies.attach import attach as attach_gates
from senetzoo.policies.attach import detach as detach_gates
from senetzoo.policies.explain import Explanation, explain_model
from senetzoo.policies.foreign.places import complete, site_map
from senetzoo.policies.foreign.sitemap import SiteMap
from senetzoo.registry import ENTRIES
from senetzoo.spec import ModelSpec, as_policy, check_seed, merge, named, split
from senetzoo.weights import manifest
from senetzoo.weights.download import search
from senetzoo.weights.load import (
    Channels,
    Trained,
    as_trained,
    load_weights,
    read_entry,
    read_file,
    spec_of,
)
from senetzoo.weights.manifest import FORMATS


def config(reference: ModelName | str | Path) -> ModelSpec:
    """The spec of a network, to change and build.

    Args:
        reference: As of `create`. A tag after a name gives the spec that the weights were trained
            with.

    Raises:
        ConfigError: An unknown name or tag.
        PolicyError: A policy that can't be read.
        WeightsError: There is no such folder or repository.
    """
    return find(reference)[0] if _is_saved(reference) else spec_of(reference)  # type: ignore[arg-type]


@checks_options
def create(
    reference: ModelName | str | Path,
    *,
    policy: Policy | str | None = None,
    pretrained: bool | str = False,
    weights: str | Path | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    channels: Channels | None = None,
    stem: Stem | str | None = None,
    dropout: float | None = None,
    drop_path: float | None = None,
    seed: int | None = None,
) -> Classifier:
    """A network by name, from a folder, or from the Hugging Face Hub.

    Args:
        reference: Which network:

            - a name in the registry (`list_models`); a tag of its weights may follow
              (``"se_resnet20.cifar10_v1"``), and a policy (``"resnet50+se8@pre/s3-4"``);
            - a folder that `save` or a training run wrote;
            - a repository: ``"hf-hub:owner/name"``, ``"hf-hub:owner/name@v1"``.
        policy: Which gates sit where, over the network's own; `NONE` strips that.
        pretrained: True for the default weights of a name, or the tag of others. A folder and a
            repository have their own.
        weights: A safetensors file of the network that the other arguments describe, or of the
            network that `reference` names.
        preprocessing: What images go through before, for weights that don't say it, or in place of
            what they say; or some of its fields by name, ``{"mean": (0.5,), "std": (0.5,)}``.
        num_classes: Outputs; None for the weights' or the network's own. Another number than the
            weights have replaces the classifier.
        in_chans: Channels of the input; another number than the weights have adapts the first
            convolution.
        channels: How it is adapted: ``"sum"`` to fewer channels, ``"tile"`` to more, each of which
            responds to gray images as before, or ``"random"`` for a new one. None for the one of
            the first two that fits.
        stem: ``"imagenet"``, ``"cifar"``, ``"deep"`` or a `Stem`; None for the network's own.
            Another one than the weights have is initialized at random, unless its tensors are the
            same.
        dropout: Dropout before the classifier.
        drop_path: Stochastic depth.
        seed: Seed of the random initialization; None draws one from torch's global state. The
            same seed gives the same trunk under every policy.

    Returns:
        The network, in training mode as PyTorch modules are; in eval mode where it has weights.
        ``model.load_report`` says which weights it has, and what does not come from them.

    Raises:
        ConfigError: An unknown name, tag or value.
        PolicyError: A policy that can't be read or does not fit.
        WeightsError: Weights that can't be had or do not fit.
    """
    spec, trained = find(
        reference,
        pretrained,
        weights,
        policy=policy,
        num_classes=num_classes,
        in_chans=in_chans,
        stem=stem,
        dropout=dropout,
        drop_path=drop_path,
    )
    _check_channels(channels, in_chans, trained is not None)
    model = build(spec, trained, channels=channels, seed=seed)
    if preprocessing is not None:
        _state(model, preprocessing)
    return model


@checks_options
def load(
    reference: ModelName | str | Path,
    *,
    policy: Policy | str | None = None,
    weights: str | Path | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    channels: Channels | None = None,
    stem: Stem | str | None = None,
    dropout: float | None = None,
    drop_path: float | None = None,
    seed: int | None = None,
) -> Classifier:
    """A network with its weights, ready to use: `create` for what is trained.

    Nothing that is read is executed or unpickled. The arguments are those of `create`; a name
    without a tag and without `weights` stands for its default weights.

    Args:
        reference: A name, a folder that `save` or a training run wrote, or a repository.
        policy: Which gates sit where, over the network's own; `NONE` strips them.
        weights: A safetensors file of the network.
        preprocessing: What images go through before.
        num_classes: Outputs; another number than the network's replaces the classifier.
        in_chans: Channels of the input; another number adapts the first convolution.
        channels: How it is adapted.
        stem: Another stem.
        dropout: Dropout before the classifier.
        drop_path: Stochastic depth.
        seed: Seed of what is initialized at random.

    Returns:
        The network in eval mode; ``model.load_report`` says which weights it has.

    Raises:
        ConfigError: An option does not fit.
        PolicyError: A policy that can't be read or does not fit.
        WeightsError: There is no such network, or its files are not as they were written.
    """
    default = weights is None and not _is_saved(reference) and split(str(reference))[1] is None
    return create(
        reference,
        policy=policy,
        pretrained=default,
        weights=weights,
        preprocessing=preprocessing,
        num_classes=num_classes,
        in_chans=in_chans,
        channels=channels,
        stem=stem,
        dropout=dropout,
        drop_path=drop_path,
        seed=seed,
    )


def find(
    reference: str | Path,
    pretrained: bool | str = False,
    weights: str | Path | None = None,
    *,
    policy: Policy | str | None = None,
    **options: Any,
) -> tuple[ModelSpec, Trained | None]:
    """The network that is asked for, and the weights that it begins with.

    This is the one place where a reference is read: every command and function goes through it.
    Neither tensors nor any code is read.

    Args:
        reference: As of `create`.
        pretrained: As of `create`.
        weights: As of `create`.
        policy: As of `create`.
        options: Fields of the config; those that are None stay as they are.

    Raises:
        ConfigError: An unknown name, tag or option.
        PolicyError: A policy that can't be read.
        WeightsError: There is no such folder, repository or file.
    """
    if not isinstance(pretrained, (bool, str)):
        raise ConfigError(
            f"pretrained={pretrained!r} names no weights.",
            "pretrained is True, False, or the tag of weights.",
            f"Type for example: create({str(reference)!r}, pretrained=True)",
        )
    look = _find_saved if _is_saved(reference) else _find_named
    spec, trained, own = look(reference, pretrained)
    given = {name: value for name, value in options.items() if value is not None}

    def asked(spec: ModelSpec) -> ModelSpec:
        for over in (own, policy):
            if over is not None:
                spec = spec.replace(policy=merge(spec.policy, as_policy(over)))
        return spec.replace(**given)

    wanted = asked(spec)
    if weights is not None:
        if trained is not None:
            raise ConfigError(
                f"{str(reference)!r} and weights={str(weights)!r} name different weights.",
                "A network has one set of weights.",
                "Leave one of them out",
            )
        # Of what is asked for, of what is named, or of the name alone.
        plain = spec if own is None else spec.replace(policy=merge(spec.policy, as_policy(own)))
        trained = read_file(Path(weights), list(dict.fromkeys([wanted, plain, spec])))
        if trained.spec != wanted:
            wanted = asked(trained.spec)
    return wanted, trained


def _find_named(
    name: str | Path, pretrained: bool | str
) -> tuple[ModelSpec, Trained | None, str | None]:
    """A network of the registry, its weights if there are to be any, and the policy after it."""
    base, tag, policy = split(name)  # type: ignore[arg-type]
    spec = named(base)
    if tag is not None and isinstance(pretrained, str) and pretrained != tag:
        raise ConfigError(
            f"{name!r} and pretrained={pretrained!r} name different weights.",
            "A network has one set of weights.",
            "Leave one of them out",
        )
    if tag is None and not pretrained:
        return spec, None, policy
    trained = _published(spec, pretrained if isinstance(pretrained, str) else tag)
    return trained.spec, trained, policy


def _is_saved(reference: object) -> bool:
    """Whether `reference` is a folder or a repository, rather than a name of the registry."""
    if isinstance(reference, Path):
        return True
    if not isinstance(reference, str) or reference.partition(".")[0].partition("+")[0] in ENTRIES:
        return False
    return reference.startswith((hub.PREFIX, ".", "~")) or "/" in reference or _is_folder(reference)


def _is_folder(text: str) -> bool:
    try:
        return bool(text) and Path(text).is_dir()
    except (OSError, ValueError):  # too long for a path, or with a null byte
        return False


def _find_saved(
    reference: str | Path, pretrained: bool | str
) -> tuple[ModelSpec, Trained, str | None]:
    """A network in a folder or a repository, and the policy after a repository."""
    if isinstance(pretrained, str):
        raise ConfigError(
            f"{str(reference)!r} and pretrained={pretrained!r} name different weights.",
            "A folder and a repository have one set of weights.",
            "Leave pretrained out",
        )
    path, text = Path(reference).expanduser(), str(reference)
    on_hub = isinstance(reference, str) and (
        text.startswith(hub.PREFIX) or (hub.is_repo(text) and not _is_folder(str(path)))
    )
    if not on_hub:
        if path.suffix in FORMATS and path.is_file():
            raise ConfigError(
                f"{path} is a file of weights.",
                "It does not say which network they are of.",
                f'Type for example: load("resnet50", weights={str(path)!r})',
            )
        trained = folder.read(path)
        return trained.spec, trained, None
    repo, plus, over = text.removeprefix(hub.PREFIX).partition("+")
    trained = hub.read(repo)
    return trained.spec, trained, over if plus else None


def build(
    spec: ModelSpec,
    trained: Trained | None = None,
    *,
    channels: Channels | None = None,
    seed: int | None = None,
) -> Classifier:
    """The network of `spec`, with `trained` weights in eval mode where there are some."""
    model = spec.build(seed=seed)
    if trained is None:
        return model
    load_weights(model, spec, trained, channels=channels)
    return model.eval()


def _published(spec: ModelSpec, tag: str | None) -> Trained:
    """Weights of the manifest.

    Args:
        spec: The network as its name says it.
        tag: Tag of the weights; None for the default ones.
    """
    full, weight = manifest.find(spec.name, tag)
    if tag is None:
        _say(f"The default weights of {spec.name} are {full}.")
    trained = as_trained(spec, weight)
    located = search(full, weight)

    def read(like: Classifier | None) -> tuple[dict[str, Tensor], LoadReport]:
        file = located()
        reading = read_entry(weight, file.path, trained.build(seed=0) if like is None else like)
        return reading.state, LoadReport(
            full,
            file.origin,
            file.sha256,
            weight.classes or (),
            adapted=tuple((weight.source.file, note) for note in reading.notes),
            pinned=file.pinned,
            preprocessing=weight.preprocessing,
        )

    return Trained(trained, read)


@functools.cache
def _say(line: str) -> None:
    """Say what was chosen for the user, once."""
    print(line, file=sys.stderr)


def _check_channels(channels: object, in_chans: int | None, weights: bool) -> None:
    if channels is None:
        return
    known = get_args(Channels)
    if channels not in known:
        raise ConfigError(
            f"channels={channels!r} is no way to take other channels.",
            f"The ways are {', '.join(map(repr, known))}.",
            nearest(str(channels), known),
        )
    if not weights or in_chans is None:
        raise ConfigError(
            f"channels={channels!r} was given without {'in_chans' if weights else 'weights'}.",
            "It says how the first convolution of trained weights takes in_chans channels.",
            f"Type for example: in_chans=1, channels={channels!r}"
            if weights
            else "Leave channels out, or type pretrained=True",
        )


def _state(model: Classifier, stated: Preprocessing | Mapping[str, Any]) -> None:
    """Note the preprocessing that a user states for the weights of `model`.

    Raises:
        ConfigError: There are no weights, or it is for other channels than theirs.
    """
    report, channels = model.load_report, model.in_chans
    if report is None:
        raise ConfigError(
            "A preprocessing was given without weights.",
            "It says what images went through when the weights were trained.",
            "Leave it out, or type pretrained=True",
        )
    if isinstance(stated, Mapping):
        known = report.preprocessing or usual(model.input_size)
        stated = known.for_channels(channels).replace(**stated)
    if stated.channels != channels:
        raise ConfigError(
            f"The preprocessing is for {stated.channels} channels.",
            f"The network takes {channels}.",
            "Give a mean and a std for each channel",
        )
    model.load_report = dataclasses.replace(report, preprocessing=stated)


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
        seed: Seed of the gates' initialization; None draws one from torch's global state.
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
    network: ModelName | str | Path | ModelSpec | nn.Module,
    policy: Policy | str | None = None,
    *,
    sites: SiteMap | None = None,
    size: int | None = None,
) -> Explanation:
    """What sits where in a network, and what it costs. Print it, or take ``as_dict()``.

    Args:
        network: What `create` takes, or a spec, or a network itself, which is not changed.
        policy: A policy over the network's own.
        sites: Where gates can sit, for a network whose blocks are not known.
        size: Side of the image in pixels, for a network that does not say it; else 224.

    Raises:
        ConfigError: An unknown name or tag.
        PolicyError: A policy that can't be read or does not fit.
    """
    if isinstance(network, nn.Module):
        return _explain_module(network, policy, sites, size)
    spec = network if isinstance(network, ModelSpec) else config(network)
    name = spec.name if isinstance(network, ModelSpec) else str(network)
    if policy is not None:
        spec = spec.replace(policy=merge(spec.policy, as_policy(policy)))
    with torch.device("meta"):
        model = spec.build(seed=0)
    return explain_model(model, model.sites(), _image(model, size), name, spec.policy)


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
        side, channels = model.input_size, model.in_chans
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
        and (pretrained is None or pretrained == bool(manifest.tags(name)))
    ]


def transforms(model: Classifier) -> Preprocessing:
    """What an image goes through before `model` sees it, as a callable value.

    Args:
        model: A network. With trained weights, it is what they were trained with (for other input
            channels than the weights', the mean and std are averaged); without, or where the
            weights do not say, the usual for its size: CIFAR-10's statistics at 32 pixels, else
            ImageNet's and the center of 224 / 256 of each side.

    Raises:
        ConfigError: `model` is no network of this zoo, or takes neither gray nor RGB images.
    """
    if not isinstance(model, Classifier):
        raise ConfigError(
            f"transforms got a {type(model).__name__}.",
            "It takes networks made by senetzoo.create.",
            'Type for example: transforms(create("resnet50"))',
        )
    channels = model.in_chans
    if channels not in (1, 3):
        raise ConfigError(
            f"There are no transforms for images of {channels} channels.",
            "Image files are read as gray (1 channel) or RGB (3 channels).",
            "Stack and normalize the channels yourself: the network takes a plain tensor "
            f"(N, {channels}, H, W)",
        )
    report = model.load_report
    if report is not None and report.preprocessing is not None:
        return report.preprocessing.for_channels(channels)
    assumed = usual(model.input_size).for_channels(channels)
    if report is not None:
        _say(
            f"The weights {report.tag} do not say how images were preprocessed: assuming "
            f"{assumed}. State it with preprocessing=, or --mean, --std, --size and --crop."
        )
    return assumed
