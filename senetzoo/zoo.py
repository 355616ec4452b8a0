"""Where the rooms meet: names, policies and weights become networks."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from senetzoo.counting import ghost
from senetzoo.errors import ConfigError, PolicyError, check_fields, checks_options
from senetzoo.gates import GATES
from senetzoo.names import ModelName
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.config import Config
from senetzoo.nn.slots import Site
from senetzoo.nn.stem import Stem
from senetzoo.policies.algebra import NONE, Policy, resolve
from senetzoo.policies.attach import Attached, drawn_seed, seeded
from senetzoo.policies.attach import attach as attach_gates
from senetzoo.policies.attach import detach as detach_gates
from senetzoo.policies.explain import Explanation, explain_model
from senetzoo.policies.sitemap import SiteMap
from senetzoo.policies.text import parse
from senetzoo.registry import ENTRIES, entry
from senetzoo.weights import manifest as weights
from senetzoo.weights.fetch import Search
from senetzoo.weights.load import load_entry

if TYPE_CHECKING:
    from senetzoo.data.transforms import Transforms


@dataclass(frozen=True)
class Blueprint:
    """Everything that decides a network before its weights.

    Args:
        name: Name in the registry.
        arch: Config of the architecture.
        policy: Which gates sit where.
    """

    name: str
    arch: Config
    policy: Policy

    def replace(self, **changes: Any) -> Blueprint:
        """A copy with fields of the architecture's config, or `policy`, changed.

        Raises:
            ConfigError: A field that the architecture does not have.
        """
        own = {field.name for field in dataclasses.fields(self.arch)}
        check_fields(f"The config of {self.name}", changes, [*sorted(own), "policy"])
        policy = changes.pop("policy", self.policy)
        return Blueprint(self.name, self.arch.replace(**changes), _as_policy(policy))

    def build(self, *, seed: int | None = None) -> Classifier:
        """The network, randomly initialised.

        Args:
            seed: Seed of the initialisation; None draws one from torch's global state. The trunk
                depends on the seed alone, each gate on the seed and its site.
        """
        if seed is None:
            seed = drawn_seed()
        _check_seed(seed)
        device = torch.get_default_device()
        with seeded(seed, device):
            model = self.arch.build()
        model.to(device)
        if self.policy != NONE:
            # Said of the network's name, not of its class, which is shared by many.
            attach_gates(model, self.policy, seed=seed, name=self.name)
        return model


def _check_seed(seed: object) -> None:
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise ConfigError(
            f"seed={seed!r} is no seed.",
            "A seed is a whole number from 0 up to, not including, 2**63.",
            "Type for example: seed=0",
        )


def policy(text: str) -> Policy:
    """The policy that a text such as ``"se8@pre/s3-4+eca/s1-2"`` stands for.

    Raises:
        PolicyError: It is none; the message points at the place.
    """
    return parse(text, GATES)


def config(name: ModelName | str) -> Blueprint:
    """The config of a network by name, to change and build.

    Args:
        name: Name in the registry; a tag of its weights may follow, for the config that they were
            trained with (``"se_resnet20.cifar10_v1"``), and a policy (``"resnet50+se8@pre"``).

    Raises:
        ConfigError: An unknown name or tag.
        PolicyError: A policy that can't be read.
    """
    base, tag, text = _split(name)
    found = entry(base)
    blueprint = Blueprint(base, found.config, policy(found.policy) if found.policy else NONE)
    if tag is not None:
        full, weight = weights.find(base, tag)
        blueprint = _blueprint_of(blueprint, weight, None, full)
    if text is not None:
        blueprint = blueprint.replace(policy=_merge(blueprint.policy, policy(text)))
    return blueprint


def _split(name: str) -> tuple[str, str | None, str | None]:
    """``"network.tag+policy"`` in its parts; None for those that are not there."""
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
    stem: Stem | str | None = None,
    dropout: float | None = None,
    drop_path: float | None = None,
    seed: int | None = None,
) -> Classifier:
    """A network by name.

    Args:
        name: Name in the registry (`list_models`); a tag of its weights may follow
            (``"se_resnet20.cifar10_v1"``), and a policy (``"resnet50+se8@pre/s3-4"``).
        policy: Which gates sit where, over the name's own policy; `NONE` strips that.
        pretrained: True for the default weights of the network, or the tag of others.
        num_classes: Outputs; None for the weights' or the network's own. Another number than the
            weights have replaces the classifier.
        in_chans: Channels of the input; another number than the weights have adapts the first
            convolution.
        stem: ``"imagenet"``, ``"cifar"``, ``"deep"`` or a `Stem`; None for the network's own.
        dropout: Dropout before the classifier.
        drop_path: Stochastic depth.
        seed: Seed of the random initialisation; None draws one from torch's global state. The
            same seed gives the same trunk under every policy.

    Returns:
        The network, in training mode as PyTorch modules are; in eval mode with `pretrained`.
        ``model.load_report`` says which weights it has.

    Raises:
        ConfigError: An unknown name, tag or value.
        PolicyError: A policy that can't be read or does not fit.
        WeightsError: Weights that can't be had or do not fit.
    """
    base, tag, text = _split(name)
    blueprint = config(base)
    if not isinstance(pretrained, (bool, str)):
        raise ConfigError(
            f"pretrained={pretrained!r} names no weights.",
            "pretrained is True, False, or the tag of weights.",
            f"Type for example: create({base!r}, pretrained=True)",
        )
    if tag is not None and isinstance(pretrained, str) and pretrained != tag:
        raise ConfigError(
            f"{name!r} and pretrained={pretrained!r} name different weights.",
            "A network has one set of weights.",
            "Leave one of them out",
        )
    wanted = pretrained if tag is None and isinstance(pretrained, str) else tag
    weight = weights.find(base, wanted) if wanted is not None or pretrained else None
    if weight is not None:
        blueprint = _blueprint_of(blueprint, weight[1], stem, weight[0])
    trained = blueprint
    if text is not None:
        blueprint = blueprint.replace(policy=_merge(blueprint.policy, _as_policy(text)))
    if policy is not None:
        blueprint = blueprint.replace(policy=_merge(blueprint.policy, _as_policy(policy)))
    asked: dict[str, Any] = {
        "num_classes": num_classes,
        "in_chans": in_chans,
        "stem": stem,
        "dropout": dropout,
        "drop_path": drop_path,
    }
    blueprint = blueprint.replace(**{k: v for k, v in asked.items() if v is not None})
    if weight is None:
        return blueprint.build(seed=seed)
    if wanted is None:
        _say_default(weight[0])
    search = Search(*weight)
    model = blueprint.build(seed=seed)
    # Of one network's sites: the trunk of both is the same.
    sites = model.sites()
    before, after = (resolve(p, sites, base) for p in (trained.policy, blueprint.policy))
    keep = {site.path for site, gate in before.items() if after.get(site) == gate}
    # Another publisher's names are those of the network that the weights are of.
    foreign = weight[1].dialect != "senetzoo" and blueprint != trained
    like = trained.build(seed=0) if foreign else model
    located = search.result()
    report = load_entry(model, weight[0], weight[1], located, keep=keep, like=like)
    model.load_report = dataclasses.replace(report, pinned=located.pinned)
    return model.eval()


@functools.cache
def _say_default(tag: str) -> None:
    """Say once which weights ``pretrained=True`` stands for."""
    print(f"The default weights of {tag.partition('.')[0]} are {tag}.", file=sys.stderr)


def _blueprint_of(
    blueprint: Blueprint, weight: weights.Entry, stem: Stem | str | None, tag: str
) -> Blueprint:
    """The blueprint that the weights of a manifest entry were trained with."""
    trained = blueprint.replace(num_classes=weight.num_classes, in_chans=weight.input.channels)
    if weight.policy:
        trained = trained.replace(policy=_merge(trained.policy, policy(weight.policy)))
    if weight.stem is not None:
        trained = trained.replace(stem=weight.stem)
    trained = trained.replace(**weight.config)
    if stem is not None and trained.replace(stem=stem).arch.stem != trained.arch.stem:
        raise ConfigError(
            f"stem={stem!r} does not go with the weights {tag}.",
            "They were trained with another stem.",
            "Leave out stem, or leave out pretrained",
        )
    return trained


def _as_policy(value: Policy | str) -> Policy:
    if isinstance(value, str):
        return policy(value)
    if not isinstance(value, Policy):
        raise PolicyError(
            f"policy={value!r} is no policy.",
            "A policy is a gate such as SE(), a combination of them, or its text.",
            'Type for example: policy=SE().at("pre")',
        )
    return value


def _merge(own: Policy, other: Policy) -> Policy:
    """`other` over a network's own policy; `NONE` strips it."""
    if other == NONE or own == NONE:
        return other
    return own | other


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
        with what the policy asked for in vain and why (``refused``).

    Raises:
        PolicyError: The policy does not fit, or a gate does not act; nothing is changed then.
        ConfigError: `seed` is no seed.
    """
    if seed is not None:
        _check_seed(seed)
    if sites is not None and not isinstance(sites, SiteMap):
        raise PolicyError(
            f"attach got sites={sites!r}.",
            "Sites are a SiteMap.",
            "Type for example: sites=SiteMap.propose(model, example_input)",
        )
    return attach_gates(model, _as_policy(policy), sites=sites, seed=seed, sample=sample)


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
        blueprint = blueprint.replace(policy=_merge(blueprint.policy, _as_policy(policy)))
    with torch.device("meta"):
        model = blueprint.build(seed=0)
    return explain_model(model, model.sites(), _image(model, size), name, blueprint.policy)


def _explain_module(
    model: nn.Module, policy: Policy | str | None, sites: SiteMap | None, size: int | None
) -> Explanation:
    twin = ghost(model)
    policy = NONE if policy is None else _as_policy(policy)
    attach_gates(twin, policy, sites=sites, seed=0, name=type(model).__name__)
    if isinstance(twin, Classifier):
        known: Iterable[Site] = twin.sites()
    else:
        known = (SiteMap.of(twin) if sites is None else sites).on(twin).sites()
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
        raise ConfigError(f"There is no family {family!r}.", f"Families are {', '.join(titles)}.")
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
        model: A network. With pretrained weights, the transforms are those of its manifest entry
            (for other input channels than the weights', the mean and std are averaged); without,
            the usual ones for its size: CIFAR-10's statistics at 32 pixels, else ImageNet's and
            the centre of 224 / 256 of each side.

    Raises:
        ConfigError: `model` is no network of this zoo, or takes neither grey nor RGB images.
    """
    from senetzoo.data.transforms import CIFAR10, IMAGENET, Transforms

    if not isinstance(model, Classifier):
        raise ConfigError(
            f"transforms got a {type(model).__name__}.",
            "It takes networks made by senetzoo.create.",
            'Type for example: transforms(create("resnet50"))',
        )
    report, channels = model.load_report, model.config.in_chans
    if channels not in (1, 3):
        raise ConfigError(
            f"There are no transforms for images of {channels} channels.",
            "Image files are read as grey (1 channel) or RGB (3 channels).",
            "Stack and normalise the channels yourself: the network takes a plain tensor "
            f"(N, {channels}, H, W)",
        )
    if report is not None:
        seen = weights.manifest()[report.tag].input
        known = Transforms(seen.size, seen.mean, seen.std, seen.interpolation, seen.crop)
    else:
        size = model.config.input_size
        known = CIFAR10 if size == 32 else dataclasses.replace(IMAGENET, size=size)
    if len(known.mean) == channels:
        return known
    mean, std = (sum(values) / len(values) for values in (known.mean, known.std))
    return dataclasses.replace(known, mean=(mean,) * channels, std=(std,) * channels)
