"""Networks by reference: a name, a folder, a run, a repository, or a file of weights."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from senetzoo import runs
from senetzoo._utils.files import user_path
from senetzoo.errors import ConfigError, checks_options, nearest
from senetzoo.io import folder, hub
from senetzoo.models.names import ModelName
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.preprocessing import Preprocessing
from senetzoo.nn.stem import Stem
from senetzoo.nn.transforms import state
from senetzoo.policies.algebra import Policy
from senetzoo.registry import ENTRIES
from senetzoo.spec import ModelSpec, named, split
from senetzoo.weights import manifest
from senetzoo.weights.load import Channels, Trained, load_weights, published, read_file, spec_of
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
    return find(reference)[0] if is_saved(reference) else spec_of(reference)  # type: ignore[arg-type]


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
            - a repository: ``"hf-hub:owner/name"``, ``"hf-hub:owner/name@v1"``; of timm's form too,
              as ``"hf-hub:timm/resnet50.a1_in1k"``, and so may be a folder;
            - a policy may follow these too (``"runs/photos+eca@pre"``).
        policy: Which gates sit where, over the network's own; `NONE` strips that.
        pretrained: True for the default weights of a name, or the tag of others. A folder and a
            repository have their own.
        weights: A safetensors file of the network that the other arguments describe, or of the
            network that `reference` names.
        preprocessing: What images go through before, for weights that don't say it, or in place of
            what they say; or some of its fields by name, ``{"mean": (0.5,), "std": (0.5,)}``.
        num_classes: Outputs; None for the weights' or the network's own. Another number than the
            weights have replaces the classifier; with 0 the network gives what it would take.
        in_chans: Channels of the input; another number than the weights have adapts the first
            convolution.
        channels: How it is adapted: ``"sum"`` to fewer channels, ``"tile"`` to more, which respond
            to gray images as before, or ``"random"``. None for the one of the two that fits.
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
    headless = type(num_classes) is int and num_classes == 0
    spec, trained = find(
        reference,
        pretrained,
        weights,
        policy=policy,
        num_classes=None if headless else num_classes,
        in_chans=in_chans,
        stem=stem,
        dropout=dropout,
        drop_path=drop_path,
    )
    _check_channels(channels, in_chans, trained is not None)
    model = build(spec, trained, channels=channels, seed=seed)
    if headless:
        model.reset_classifier(0)
    if preprocessing is not None:
        state(model, preprocessing)
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
    default = weights is None and not is_saved(reference) and split(str(reference))[1] is None
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


Classifier.from_pretrained = staticmethod(load)


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
    file = isinstance(pretrained, str) and Path(pretrained).suffix in FORMATS
    if file or not isinstance(pretrained, (bool, str)):
        remedy = f"weights={pretrained!r}" if file else "pretrained=True"
        raise ConfigError(
            f"pretrained={pretrained!r} names no weights.",
            "pretrained is True, False, or the tag of weights.",
            f"Type for example: create({str(reference)!r}, {remedy})",
        )
    look = _find_saved if is_saved(reference) else _find_named
    spec, trained, own = look(reference, pretrained)
    given = {name: value for name, value in options.items() if value is not None}
    wanted = spec.merged(own, policy).replace(**given)
    if weights is not None:
        if trained is not None:
            raise ConfigError(
                f"{str(reference)!r} and weights={str(weights)!r} name different weights.",
                "A network has one set of weights.",
                "Leave one of them out",
            )
        # Of what is asked for, of what is named, or of the name alone.
        trained = read_file(
            user_path(weights), list(dict.fromkeys([wanted, spec.merged(own), spec]))
        )
        if trained.spec != wanted:
            wanted = trained.spec.merged(own, policy).replace(**given)
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
    trained = published(spec, pretrained if isinstance(pretrained, str) else tag)
    return trained.spec, trained, policy


def is_saved(reference: object) -> bool:
    """Whether `reference` is a folder or a repository, rather than a name of the registry."""
    if isinstance(reference, Path):
        return True
    if not isinstance(reference, str) or reference.partition(".")[0].partition("+")[0] in ENTRIES:
        return False
    base, _ = before_policy(reference)
    return (
        base.startswith((hub.PREFIX, ".", "~"))
        or "/" in base
        or Path(base).suffix in FORMATS
        or _is_folder(base)
    )


def saved_in(reference: str | Path) -> Path | None:
    """The folder that `reference` names, where it names one without a policy over its network."""
    base, over = before_policy(reference)
    there = is_saved(reference) and over is None and _is_folder(base)
    return user_path(base) if there else None


def is_network(text: str) -> bool:
    """Whether `text` names a network, rather than an image or a folder of images."""
    base, _ = before_policy(text)
    if _is_folder(base):
        path = user_path(base)
        return (path / folder.CONFIG).is_file() or runs.is_run(path)
    named = text.partition(".")[0].partition("+")[0] in ENTRIES
    return text.startswith(hub.PREFIX) or (named and not Path(text).is_file())


def _is_folder(text: str) -> bool:
    try:
        return bool(text) and user_path(text).is_dir()
    except (OSError, ValueError):  # too long, with a null byte, or no home
        return False


def _find_saved(
    reference: str | Path, pretrained: bool | str
) -> tuple[ModelSpec, Trained, str | None]:
    """A network in a folder or a repository, and the policy after it."""
    if isinstance(pretrained, str):
        raise ConfigError(
            f"{str(reference)!r} and pretrained={pretrained!r} name different weights.",
            "A folder and a repository have one set of weights.",
            "Leave pretrained out",
        )
    text = str(reference)
    base, over = before_policy(reference)
    path = user_path(base)
    if text.startswith(hub.PREFIX) or (
        isinstance(reference, str)
        and not text.startswith((".", "~", "/"))
        and not _is_folder(base)
        and path.suffix not in FORMATS
        and hub.is_repo(base)
    ):
        trained = hub.read(base.removeprefix(hub.PREFIX))
    elif path.suffix in FORMATS and not path.is_dir():
        raise ConfigError(
            f"{path} is a file of weights{'' if path.exists() else ', which is not there'}.",
            "It does not say which network they are of.",
            f'Type for example: load("resnet50", weights={str(path)!r})',
        )
    else:
        trained = folder.read(path)
    return trained.spec, trained, over


def before_policy(reference: object) -> tuple[str, str | None]:
    """A folder or repository, and the policy after it; a folder's own name may have a ``+``."""
    text = str(reference)
    if isinstance(reference, Path):
        return text, None
    base, over = text, ""
    while not _is_folder(base) and "+" in base:
        base, _, last = base.rpartition("+")
        over = f"{last}+{over}" if over else last
    return base, over or None


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
    if next(model.parameters()).is_meta:
        raise ConfigError(
            f"Weights can't be loaded into {spec.name} on the meta device.",
            "There a network has shapes and no values.",
            "Leave pretrained out, or call create outside of torch.device('meta')",
        )
    load_weights(model, spec, trained, channels=channels)
    return model.eval()


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
