"""Loading verified files into networks: strictly, with a report of all adaptations."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from senetzoo._utils import terminal
from senetzoo._utils.checks import from_json
from senetzoo._utils.documents import parse_json, reading
from senetzoo.errors import BrokenError, ConfigError, WeightsError
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.preprocessing import Preprocessing
from senetzoo.nn.provenance import checksums
from senetzoo.nn.report import LoadReport
from senetzoo.nn.seeds import seeded
from senetzoo.policies.algebra import resolve
from senetzoo.spec import ModelSpec, named, split
from senetzoo.weights import dialects
from senetzoo.weights.download import search
from senetzoo.weights.manifest import Entry, find
from senetzoo.weights.unpack import load, unpack

_AGAIN = "Convert the weights again: senetzoo weights convert"

Channels: TypeAlias = Literal["sum", "tile", "random"]
"""How the first convolution is adapted to another number of input channels."""

_REMEDY = "Give a .safetensors file that senetzoo wrote"


def read(path: Path, expected: str = "", remedy: str = _REMEDY) -> tuple[dict[str, Tensor], str]:
    """The tensors of a safetensors file, floating-point ones as float32, and the file's sha256.

    `expected` is the hash in the ``config.json`` beside it; `remedy` says what to do about a file
    that can't be read or has another hash.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    # Read once, so that what is loaded is what was hashed, even if the file is being changed.
    try:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if expected not in ("", digest):
            raise WeightsError(
                f"The weights in {path.parent} are not those of its config.json.",
                f"{path.name} has the sha256 {digest}, config.json has {expected}.",
                remedy,
            )
        state = parse(content)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error, remedy) from None
    # safetensors returns them in no particular order.
    return {k: v.float() if v.is_floating_point() else v for k, v in sorted(state.items())}, digest


def stored(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> bytes:
    """`tensors` as safetensors, with the metadata `about` sorted by name.

    safetensors writes metadata in random order, so that equal content would have different hashes.
    """
    from safetensors.torch import save

    # safetensors requires contiguous CPU tensors that don't share memory.
    own = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    whole = save(own, metadata=dict(about))
    # The format: 8 bytes with the length of the header; the header in JSON, padded with spaces; the
    # tensors.
    start = 8 + int.from_bytes(whole[:8], "little")
    header = {**json.loads(whole[8:start]), "__metadata__": dict(sorted(about.items()))}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    return b"".join([len(text).to_bytes(8, "little"), text, memoryview(whole)[start:]])


def _unreadable(path: Path, error: Exception, remedy: str = _REMEDY) -> WeightsError:
    true = f"It isn't a complete safetensors file ({error})." if path.is_file() else ""
    return WeightsError(
        f"Can't read the weights {path}.", true or "The file doesn't exist.", remedy
    )


def load_strictly(model: Classifier, state: Mapping[str, Tensor], name: str) -> None:
    """Load `state`, which must have exactly the names and shapes of `model`.

    Raises `WeightsError`, and changes nothing, if they differ or values aren't finite.
    """
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    if own != {key: tuple(value.shape) for key, value in state.items()}:
        raise WeightsError(
            f"The weights {name} do not fit the network.",
            dialects.misfit(state, own),
            "Build the network with the policy, stem and num_classes the weights were made with",
        )
    check_finite(state, f"weights {name}")
    model.load_state_dict(dict(state), strict=True)


def check_finite(state: Mapping[str, Tensor], what: str) -> None:
    """Raise `WeightsError` for tensors, called `what`, with values that aren't finite."""
    broken = [key for key, value in state.items() if not bool(torch.isfinite(value).all())]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise WeightsError(
            f"The {what} have values that aren't finite.",
            f"There is NaN or infinity in {broken[0]}{more}.",
            "The training diverged, or the file is damaged: use other weights",
        )


def read_entry(
    entry: Entry, path: Path, like: Classifier
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a manifest entry's file under our names, and notes on how they were adapted.

    `like` is a network with the entry's config and policy; it isn't changed.
    """
    if entry.dialect == dialects.OURS:
        return read(path)[0], ()
    theirs, notes = unpack(load(path.read_bytes(), path), path)
    state = {k: v.float() if v.is_floating_point() else v for k, v in theirs.items()}
    ours, more = dialects.reading(state, entry.dialect, like)
    return ours, notes + more


def spec_of(name: str) -> ModelSpec:
    """The spec of a network by name.

    The name may have a tag, for the spec that the weights were trained with
    (``"se_resnet20.cifar10_v1"``), and a policy (``"resnet50+se8@pre"``).
    """
    base, tag, text = split(name)
    spec = named(base)
    if tag is not None:
        spec = as_trained(spec, find(base, tag)[1])
    return spec.merged(text)


def as_trained(spec: ModelSpec, weight: Entry) -> ModelSpec:
    """The spec that the weights of a manifest entry were trained with; `spec` is the network's."""
    stem = {} if weight.stem is None else {"stem": weight.stem}
    trained = spec.replace(
        num_classes=weight.num_classes,
        in_chans=weight.preprocessing.channels,
        **stem,
        **weight.config,
    )
    return trained.merged(weight.policy or None)


@dataclass(frozen=True)
class Trained:
    """Trained weights of the network `spec`, to be loaded.

    `read` returns their tensors under our names and a load report. It is called once, with a
    network of `spec` if there is one already. `preprocessing`, `temperature` and `reject_below` are
    the network's.
    """

    spec: ModelSpec
    read: Callable[[Classifier | None], tuple[Mapping[str, Tensor], LoadReport]]
    preprocessing: Preprocessing | None = None
    temperature: float = 1.0
    reject_below: float | None = None


def published(spec: ModelSpec, tag: str | None) -> Trained:
    """Weights in the manifest: those of `tag`, or the default ones."""
    full, weight = find(spec.name, tag)
    if tag is None:
        terminal.say_once(f"The default weights of {spec.name} are {full}.")
    trained = as_trained(spec, weight)
    located = search(full, weight)

    def read(like: Classifier | None) -> tuple[dict[str, Tensor], LoadReport]:
        file = located()
        state, notes = read_entry(
            weight, file.path, trained.build(seed=0) if like is None else like
        )
        return state, LoadReport(
            full,
            file.origin,
            file.sha256,
            weight.classes or (),
            adapted=tuple((weight.source.file, note) for note in notes),
            pinned=file.pinned,
            preprocessing=weight.preprocessing,
        )

    return Trained(trained, read, weight.preprocessing)


def read_file(path: Path, candidates: Sequence[ModelSpec]) -> Trained:
    """Weights in a safetensors file with our tensor names.

    If `senetzoo weights convert` wrote the file, its metadata has the network. Otherwise it is the
    first candidate with the file's tensors, up to the numbers of classes and input channels, which
    are taken from the file; or else the last candidate.
    """
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors" and path.exists():
        raise WeightsError(
            f"Can't read the weights {path}.",
            "Weights are read from .safetensors files with senetzoo's tensor names.",
            f"Type: senetzoo weights convert {path} --to {candidates[0].name}",
        )
    try:
        with safe_open(str(path), "pt") as file:
            about = file.metadata() or {}
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from None
    stated: Preprocessing | None = None
    if "preprocessing" in about:
        with reading(path, _AGAIN, WeightsError):
            stated = from_json(Preprocessing, parse_json(about["preprocessing"]), "preprocessing")

    def state_of(_: Classifier | None) -> tuple[dict[str, Tensor], LoadReport]:
        state, digest = read(path)
        return state, LoadReport(path.name, "file", digest, pinned="", preprocessing=stated)

    return Trained(_spec_of_file(path, about, shapes, candidates), state_of, stated)


def _spec_of_file(
    path: Path,
    about: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    candidates: Sequence[ModelSpec],
) -> ModelSpec:
    name = candidates[0].name
    if "model" in about and "config" in about:
        base = split(about["model"])[0]
        if base != name:
            raise WeightsError(
                f"The weights {path} are not those of {name}.",
                f"They are those of {base}.",
                f"Type {base} in place of {name}",
            )
        with reading(path, _AGAIN, WeightsError):
            config = parse_json(about["config"])
            if not isinstance(config, dict) or "policy" in config:
                raise BrokenError("config", "expected an object with options")
        spec = spec_of(about["model"]).replace(**config)
        # A policy in the network's name takes precedence, as in the conversion.
        policy = "" if "+" in about["model"] else about.get("policy", "")
        return spec.merged(policy or None)
    for spec in candidates:
        with torch.device("meta"):
            model = spec.build(seed=0)
            head = shapes.get(f"{model.classifiers()[0]}.weight", ())
            first = shapes.get(model.input_parameter(), ())
            without = (0,) if first and not head else ()
            sizes = {"num_classes": head[:1] or without, "in_chans": first[1:2]}
            spec = spec.replace(**{field: size[0] for field, size in sizes.items() if size})
            model = spec.build(seed=0)
        if {key: tuple(value.shape) for key, value in model.state_dict().items()} == shapes:
            if not model.num_classes:
                terminal.say_once(f"{path} has no classifier: the network returns features.")
            break
    return spec


def load_weights(
    model: Classifier, spec: ModelSpec, trained: Trained, *, channels: Channels | None = None
) -> LoadReport:
    """Load weights, adapting gates, stem, input channels and classifier as the report says.

    The model's `spec` may differ from the weights' in `num_classes`, `in_chans`, `stem`, dropout
    rates, and gates. `channels` says how the first convolution is adapted (`adapt_channels`);
    ``"random"`` keeps its random initialization. After an error nothing is changed.
    """
    old, new = trained.spec.config, spec.config
    weights, report = trained.read(model if spec == trained.spec else None)
    state, own = dict(weights), model.state_dict()
    # Why tensors of the weights are left out, and why the network keeps its own ones.
    gone, kept = dict[str, str](), dict[str, str]()
    for prefix in _other_gates(model, trained.spec, spec):
        gone |= _alike(state, prefix, "the network has another gate or none here")
        kept |= _alike(own, prefix, "a gate that the weights do not have")
    adapted: list[tuple[str, str]] = []
    if new.stem != old.stem:
        before, after = _stems(model, old)
        if before == after:
            adapted = [("stem", "other strides or pooling, the same tensors")]
        else:
            others = [name for name in before if name not in after]
            gone |= dict.fromkeys(others, "the network has another stem")
            kept |= dict.fromkeys(after, "another stem than the weights have")
    if new.num_classes != old.num_classes:
        why = f"{new.num_classes} classes instead of {old.num_classes}"
        if not old.num_classes:
            why = "the weights have no classifier"
        kept |= dict.fromkeys(model.classifier_parameters(), why)
        if not new.num_classes:
            for path in model.classifiers():
                gone |= _alike(state, f"{path}.", "the network has no classifier")
    left_out = [(name, f"left out: {why}") for name, why in gone.items() if name in state]
    adapted = [*report.adapted, *left_out, *adapted]
    state = {name: tensor for name, tensor in state.items() if name not in gone}
    for first in model.input_parameters() if new.in_chans != old.in_chans else ():
        if first not in state or first in kept:
            continue
        if channels == "random":
            kept[first] = f"{new.in_chans} channels instead of {old.in_chans}"
        else:
            state[first], how = adapt_channels(state[first], new.in_chans, channels)
            adapted.append((first, f"{how}, {old.in_chans} to {new.in_chans}"))
    load_strictly(model, {**state, **{name: own[name] for name in kept}}, report.tag)
    model.loaded = {name: checksums(tensor) for name, tensor in state.items() if name not in kept}
    if not kept and tuple(adapted) == report.adapted:  # exactly the network that was calibrated
        model.temperature, model.reject_below = trained.temperature, trained.reject_below
        if (trained.temperature, trained.reject_below) != (1.0, None):
            model.calibrated = model.loaded
    preprocessing = report.preprocessing
    if preprocessing is not None and new.small != old.small:
        # Small images are not cropped.
        crop = 1.0 if new.small else preprocessing.crop
        preprocessing = dataclasses.replace(preprocessing, size=new.input_size, crop=crop)
    model.load_report = dataclasses.replace(
        report,
        classes=report.classes if new.num_classes == old.num_classes else (),
        replaced=tuple(kept.items()),
        adapted=tuple(adapted),
        preprocessing=preprocessing,
    )
    return model.load_report


def _other_gates(model: Classifier, trained: ModelSpec, wanted: ModelSpec) -> list[str]:
    """Prefixes of tensor names at the sites where the gates of the two specs differ."""
    if trained.policy == wanted.policy:
        return []
    sites = model.sites()
    before, after = (resolve(spec.policy, sites, spec.name) for spec in (trained, wanted))
    return [f"{site.path}." for site in sites if before.get(site) != after.get(site)]


def _alike(state: Mapping[str, Tensor], prefix: str, why: str) -> dict[str, str]:
    return {name: why for name in state if name.startswith(prefix)}


def _stems(model: Classifier, old: Config) -> list[dict[str, torch.Size]]:
    """Shapes of the stem's tensors in a network of `old`, and in `model`."""
    with seeded(0, torch.device("meta")):
        # The number of channels is adapted separately.
        theirs = old.replace(in_chans=model.in_chans, num_classes=1).build()
    states = ((network, network.state_dict()) for network in (theirs, model))
    return [{name: state[name].shape for name in one.stem_tensors()} for one, state in states]


def adapt_channels(
    weight: Tensor, channels: int, how: Literal["sum", "tile"] | None = None
) -> tuple[Tensor, str]:
    """Adapt the first convolution's weight (C_out, C_in, k, k) to another C_in; says how.

    ``"sum"`` makes fewer channels, each the sum of every ``channels``-th old one; ``"tile"`` makes
    more by repeating the old ones, divided by the number of copies. Images with equal channels
    (gray) give the same outputs. None chooses the one that fits.
    """
    old = weight.shape[1]
    fits = "sum" if channels < old else "tile"
    if how not in (None, fits):
        raise ConfigError(
            f"channels={how!r} can't go from {old} to {channels} channels.",
            "'sum' makes fewer channels, 'tile' more, and 'random' either.",
            f"Leave out channels, or type channels={fits!r}",
        )
    if fits == "sum":
        parts = [weight[:, start::channels].sum(1) for start in range(channels)]
        return torch.stack(parts, 1), "channels summed"
    index = torch.arange(channels) % old
    copies = index.bincount(minlength=old)[index].to(weight.dtype)
    return weight[:, index] / copies[:, None, None], "channels repeated and divided by the copies"
