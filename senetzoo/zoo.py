"""Networks by reference: a name, a folder, a training run, a repository, or a weights file."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable, Mapping
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
from senetzoo.registry import ENTRIES, entry
from senetzoo.spec import ModelSpec, named, split
from senetzoo.weights import manifest
from senetzoo.weights.load import Channels, Trained, load_weights, published, read_file, spec_of
from senetzoo.weights.manifest import FORMATS


def config(reference: ModelName | str | Path) -> ModelSpec:
    """The spec of a network, which can be changed and built.

    Args:
        reference: As in `create`. With a tag, the spec that these weights were trained with.

    Raises:
        ConfigError: Unknown name or tag.
        PolicyError: The policy can't be parsed.
        WeightsError: There is no such folder or repository.
    """
    return described(reference)[0]


def described(reference: ModelName | str | Path) -> tuple[ModelSpec, Preprocessing | None]:
    """The spec of a network, as `config` returns it, and its weights' preprocessing if known."""
    _require_network(reference)
    if is_saved(reference):
        spec, trained = find(reference)
        return spec, None if trained is None else trained.preprocessing
    base, tag, _ = split(reference)  # type: ignore[arg-type]
    known = None if tag is None else manifest.find(base, tag)[1].preprocessing
    return spec_of(reference), known  # type: ignore[arg-type]


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
    """Create a network by name, from a folder, or from the Hugging Face Hub.

    Args:
        reference: Which network:

            - a name in the registry (`list_models`), optionally with a tag of its weights
              (``"se_resnet20.cifar10_v1"``) and a policy (``"resnet50+se8@pre/s3-4"``);
            - a folder written by `save` or a training run;
            - a repository: ``"hf-hub:owner/name"``, ``"hf-hub:owner/name@v1"``. Repositories and
              folders can also be in timm's format (``"hf-hub:timm/resnet50.a1_in1k"``);
            - a folder or repository with a policy (``"runs/photos+eca@pre"``).
        policy: Which gates sit where; merged over the network's own policy. `NONE` removes the
            latter.
        pretrained: True for the default weights of a name, or the tag of other weights. Folders
            and repositories have their own.
        weights: A safetensors file with weights of the network that the other arguments describe,
            or of the network that `reference` names.
        preprocessing: Preprocessing of the weights' training images, if they don't state it or to
            override it; or some of its fields by name, ``{"mean": (0.5,), "std": (0.5,)}``, where
            one number holds for every channel.
        num_classes: Number of outputs; None for that of the weights or the network. If it differs
            from the weights, the classifier is replaced; with 0 the network returns the
            classifier's input.
        in_chans: Number of input channels; if it differs from the weights, the first convolution
            is adapted.
        channels: How the first convolution is adapted: ``"sum"`` to fewer channels, ``"tile"`` to
            more channels (the response to gray images stays the same), or ``"random"``. None
            chooses between the first two.
        stem: ``"imagenet"``, ``"cifar"``, ``"deep"``, one convolution such as ``"3x3/2+pool"``, or
            a `Stem`; None for the network's own. If its tensors differ from the weights', it is
            initialized randomly.
        dropout: Dropout rate before the classifier.
        drop_path: Stochastic depth rate.
        seed: Seed of the random initialization; None draws one from torch's global state. The
            same seed gives the same trunk with every policy.

    Returns:
        The network, in training mode like any PyTorch module; with weights, in eval mode.
        ``model.load_report`` says which weights it has, and which tensors they don't cover.

    Raises:
        ConfigError: Unknown name, tag or value.
        PolicyError: The policy can't be parsed or doesn't fit the network.
        WeightsError: The weights can't be read or don't fit the network.
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
    """Load a network with its weights, ready to use.

    Like `create`, but a name without a tag and without `weights` gets its default weights. No code
    in the files is executed: they are safetensors, or read with ``weights_only=True``.

    Args:
        reference: A name, a folder written by `save` or a training run, or a repository.
        policy: Which gates sit where; merged over the network's own policy. `NONE` removes the
            latter.
        weights: A safetensors file with weights of the network.
        preprocessing: Preprocessing of the weights' training images.
        num_classes: Number of outputs; if it differs from the weights, the classifier is replaced;
            with 0 the network returns the classifier's input.
        in_chans: Number of input channels; if it differs, the first convolution is adapted.
        channels: How the first convolution is adapted.
        stem: Another stem.
        dropout: Dropout rate before the classifier.
        drop_path: Stochastic depth rate.
        seed: Seed of randomly initialized tensors.

    Returns:
        The network in eval mode; ``model.load_report`` says which weights it has.

    Raises:
        ConfigError: Unknown name, tag or value.
        PolicyError: The policy can't be parsed or doesn't fit the network.
        WeightsError: There is no such folder or repository, or its files are damaged.
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
    """Resolve a reference to the spec of a network and its initial weights.

    All commands and functions resolve references here. Reads no tensors and runs no code. The
    arguments are as in `create`; an option that is None leaves its field of the config unchanged.

    Raises:
        ConfigError: Unknown name, tag or option.
        PolicyError: The policy can't be parsed.
        WeightsError: There is no such folder, repository or file.
    """
    file = isinstance(pretrained, str) and Path(pretrained).suffix in FORMATS
    if file or not isinstance(pretrained, (bool, str)):
        remedy = f"weights={pretrained!r}" if file else "pretrained=True"
        raise ConfigError(
            f"pretrained={pretrained!r} doesn't name any weights.",
            "pretrained is True, False, or a tag.",
            f"Type for example: create({str(reference)!r}, {remedy})",
        )
    _require_network(reference)
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
        # The file may be of the requested network, the referenced one, or that without a policy.
        trained = read_file(
            user_path(weights), list(dict.fromkeys([wanted, spec.merged(own), spec]))
        )
        if trained.spec != wanted:
            wanted = trained.spec.merged(own, policy).replace(**given)
    return wanted, trained


def _find_named(
    name: str | Path, pretrained: bool | str
) -> tuple[ModelSpec, Trained | None, str | None]:
    """A network of the registry, its weights if requested, and the policy after the name."""
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


EXPORTED = (".onnx", ".pt2", ".xml")
"""Suffixes of the files that `senetzoo.export` writes."""


def is_exported(reference: object) -> bool:
    """Whether `reference` names a file that `senetzoo.export` wrote."""
    text = str(reference)
    named = Path(text).suffix in EXPORTED and not text.startswith(hub.PREFIX)
    return named and not _is_folder(text)


def _require_network(reference: object) -> None:
    """Raise `ConfigError` if `reference` is a file that isn't a network's, or a missing one."""
    if is_exported(reference):
        there = "" if user_path(str(reference)).exists() else " that does not exist"
        raise ConfigError(
            f"{reference} is an exported file{there}.",
            "Only the commands eval and predict take one.",
            "Give the network that it was exported from, such as the folder of its run",
        )
    base, _ = before_policy(reference)
    name, dot, _ = base.partition(".")
    saved = is_saved(reference)
    if not saved and (not isinstance(reference, str) or not dot or name in ENTRIES):
        return
    if Path(base).suffix not in FORMATS and _is_file(base):
        raise ConfigError(
            f"{reference} is a file, but not one that a network is read from.",
            f"Weights end in {', '.join(FORMATS)}; exported files in {', '.join(EXPORTED)}.",
            "Give the folder that save or a run wrote, or a file with one of these endings",
        )
    if not saved:
        entry(name, f"network, folder or file {base!r}")


def is_saved(reference: object) -> bool:
    """Whether `reference` is a folder or a repository rather than a name in the registry."""
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
    """The folder that `reference` names; None if it isn't a folder or has a policy."""
    base, over = before_policy(reference)
    there = is_saved(reference) and over is None and _is_folder(base)
    return user_path(base) if there else None


def is_network(text: str) -> bool:
    """Whether `text` names a network or its exported file, not an image or a folder of images."""
    if is_exported(text):
        return True
    base, _ = before_policy(text)
    if _is_folder(base):
        path = user_path(base)
        return (path / folder.CONFIG).is_file() or runs.is_run(path)
    named = text.partition(".")[0].partition("+")[0] in ENTRIES
    return text.startswith(hub.PREFIX) or (named and not Path(text).is_file())


def _is(kind: Callable[[Path], bool], text: str) -> bool:
    try:
        return bool(text) and kind(user_path(text))
    except (OSError, ValueError):  # too long, with a null byte, or no home
        return False


_is_folder = functools.partial(_is, Path.is_dir)
_is_file = functools.partial(_is, Path.is_file)


def _find_saved(
    reference: str | Path, pretrained: bool | str
) -> tuple[ModelSpec, Trained, str | None]:
    """A network in a folder or repository, its weights, and the policy after the reference."""
    if isinstance(pretrained, str):
        raise ConfigError(
            f"{str(reference)!r} and pretrained={pretrained!r} name different weights.",
            "A folder or repository has only one set of weights.",
            "Leave out pretrained",
        )
    text = str(reference)
    base, over = before_policy(reference)
    path = user_path(base)
    if text.startswith(hub.PREFIX):
        trained = hub.read(base.removeprefix(hub.PREFIX))
    elif path.suffix in FORMATS and not path.is_dir():
        raise ConfigError(
            f"{path} is a weights file{'' if path.exists() else ' that does not exist'}.",
            "It doesn't say which network the weights are for.",
            f'Name the network, too: load("resnet50", weights={str(path)!r}), or in a command: '
            f"resnet50 --weights {path}",
        )
    else:
        trained = folder.read(path)
    return trained.spec, trained, over


def before_policy(reference: object) -> tuple[str, str | None]:
    """Split a reference into folder or repository and policy; folder names may contain a ``+``."""
    text = str(reference)
    if isinstance(reference, Path):
        return text, None
    base, over = text, ""
    while not _is_folder(base) and "+" in base:
        base, _, last = base.rpartition("+")
        over = f"{last}+{over}" if over else last
    return base, over or None


def with_policy(reference: str, policy: str) -> str:
    """The reference of a network with a policy merged over its own, as `create` does it."""
    base, own = before_policy(reference)
    return f"{base}+{policy}" if own is None or policy == "none" else f"{base}+{own}|{policy}"


def build(
    spec: ModelSpec,
    trained: Trained | None = None,
    *,
    channels: Channels | None = None,
    seed: int | None = None,
) -> Classifier:
    """Build a network; with `trained` weights, load them and switch to eval mode."""
    model = spec.build(seed=seed)
    if trained is None:
        return model
    if next(model.parameters()).is_meta:
        raise ConfigError(
            f"Weights can't be loaded into {spec.name} on the meta device.",
            "Tensors on the meta device have no values.",
            "Leave out pretrained, or call create outside of torch.device('meta')",
        )
    load_weights(model, spec, trained, channels=channels)
    return model.eval()


def _check_channels(channels: object, in_chans: int | None, weights: bool) -> None:
    if channels is None:
        return
    known = get_args(Channels)
    if channels not in known:
        raise ConfigError(
            f"channels={channels!r} isn't a way to adapt channels.",
            f"The ways are {', '.join(map(repr, known))}.",
            nearest(str(channels), known),
        )
    if not weights or in_chans is None:
        raise ConfigError(
            f"channels={channels!r} was given without {'in_chans' if weights else 'weights'}.",
            "It says how the first convolution of the weights is adapted to in_chans.",
            f"Type for example: in_chans=1, channels={channels!r}"
            if weights
            else "Leave out channels, or type pretrained=True",
        )


def list_models(
    pattern: str = "*", *, pretrained: bool | None = None, family: str | None = None
) -> list[str]:
    """List the names of networks.

    Args:
        pattern: Shell-style pattern: ``"se_*"``.
        pretrained: Only networks with (True) or without (False) published weights.
        family: Only networks of this family, ignoring case: ``"resnet"``.

    Raises:
        ConfigError: There is no such family.
    """
    titles = sorted({found.family.title for found in ENTRIES.values()})
    if family is not None and family.lower() not in [title.lower() for title in titles]:
        raise ConfigError(
            f"There is no family {family!r}.",
            nearest(family, map(str.lower, titles)) or f"Families are {', '.join(titles)}.",
        )
    return [
        name
        for name, found in ENTRIES.items()
        if fnmatch.fnmatchcase(name, pattern)
        and (family is None or found.family.title.lower() == family.lower())
        and (pretrained is None or pretrained == bool(manifest.tags(name)))
    ]
