"""Networks in timm's format: its ``config.json`` and its tensor names.

``timm.create_model("hf-hub:owner/name", pretrained=True)`` (``local-dir:`` for a folder) and
Transformers read them, and `senetzoo.load` reads what timm wrote. timm itself is not needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from torch import Tensor

import senetzoo
from senetzoo._utils import terminal
from senetzoo._utils.checks import PositiveFloat, PositiveInt, Rate, from_json, shown
from senetzoo._utils.documents import json_text, parse_json
from senetzoo.errors import BrokenError, ConfigError, WeightsError
from senetzoo.models.swin import SwinConfig
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.preprocessing import IMAGENET, Interpolation, Preprocessing, usual
from senetzoo.nn.provenance import calibration
from senetzoo.nn.report import LoadReport
from senetzoo.policies.recover import recovered
from senetzoo.spec import ModelSpec, gates_of, name_of, named
from senetzoo.weights import dialects
from senetzoo.weights.dialects import Counterpart, counterpart, counterparts
from senetzoo.weights.load import Trained

_DIALECTS = ("timm", "timm_legacy")
# Fields for training only: they don't change what a network computes in eval mode.
_TRAINING = ("dropout", "drop_path", "key_drop", "drop_rate")
# Arguments of timm's networks, and our fields for them.
_ARGUMENTS: Final = {"drop_rate": "dropout", "drop_path_rate": "drop_path", "bn_eps": "eps"}


def _spec(other: Counterpart) -> ModelSpec:
    return named(other.model).merged(other.policy or None).replace(**other.changes)


def _misfit(config: Config, size: int) -> str:
    """Why timm's network differs from ours on images of `size` pixels; empty if it doesn't."""
    if config.family == "VGG" and size // 32 > 7:
        return (
            f"timm's VGG applies its head to 7x7 windows of the {size // 32}x{size // 32} map, "
            "ours to its mean."
        )
    if isinstance(config, SwinConfig) and size % (32 * config.side):
        return (
            f"If the side isn't a multiple of {32 * config.side} pixels, timm pads after shifting "
            "the windows, senetzoo before."
        )
    return ""


# --- Writing -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Architecture:
    """A network of timm: its dialect, its name, and the arguments that build it."""

    dialect: str
    name: str
    arguments: Mapping[str, object]


def architecture(model: Classifier) -> Architecture:
    """The network of timm that equals `model`.

    Raises:
        ConfigError: timm has no network with this config and these gates.
    """
    config, gates, sites = model.spec.config, gates_of(model), model.sites()
    gated, differing = [], []
    for dialect in _DIALECTS:
        for name, other in counterparts(dialect).items():
            theirs = _spec(other)
            if type(theirs.config) is not type(config):
                continue
            fields = [field.name for field in dataclasses.fields(config)]
            free = [f for f in fields if f in ("num_classes", "in_chans", "eps", *_TRAINING)]
            like = theirs.config.replace(**{field: getattr(config, field) for field in free})
            if like != config:
                if other.model == model.spec.name:
                    wrong = [f for f in fields if getattr(like, f) != getattr(config, f)]
                    differing.append(f"Its {name} has a different {' and '.join(wrong)}.")
            elif theirs.policy.resolve(sites) != gates:
                there = recovered(theirs.policy.resolve(sites), sites)
                gated.append(f"{name} has the gates {there}")
            else:
                eps = getattr(config, "eps", None)
                same = eps == getattr(theirs.config, "eps", None)
                return Architecture(dialect, name, {} if same else {"bn_eps": eps})
    reason = f"Its {', its '.join(gated)}." if gated else "".join(differing[:1])
    raise ConfigError(
        f"timm has no network that equals this {name_of(model)}.",
        reason or f"None of the networks that senetzoo and timm share is such a {config.family}.",
        "Leave out the format: senetzoo's own supports every network",
    )


def text(
    model: Classifier,
    found: Architecture,
    preprocessing: Preprocessing | None,
    classes: tuple[str, ...] | None,
) -> str:
    """The ``config.json`` of `model`, with the usual preprocessing if none is given.

    Raises:
        ConfigError: timm's network differs on images of this size.
    """
    if preprocessing is None:
        preprocessing = usual(model.input_size)
        terminal.say_once(
            f"The preprocessing is not known: timm's config gets {preprocessing}. "
            "Set it with preprocessing=, or --mean, --std, --size and --crop."
        )
    if calibration(model) != (1.0, None):
        terminal.say_once("timm's config can't store the calibration: it is left out.")
    config, size, channels = model.spec.config, preprocessing.size, model.in_chans
    if wrong := _misfit(config, size):
        raise ConfigError(
            f"timm's {found.name} differs from this network on images of {size}x{size}.",
            wrong,
            "Give another size with preprocessing=, or leave out the format",
        )
    arguments = dict(found.arguments)
    if config.family == "Swin":
        arguments["img_size"] = [size, size]
    if channels != 3:
        arguments["in_chans"] = channels
    names = dialects.names(found.dialect, model)
    first, head = (
        names[ours][0].rpartition(".")[0] if ours in names else ""
        for ours in (model.input_parameter(), f"{model.classifiers()[0]}.weight")
    )
    statistics = {}
    if channels in (1, 3):
        images = preprocessing.for_channels(channels)
        statistics = {"mean": images.mean, "std": images.std}
    # `num_classes` isn't among the arguments because Transformers passes it.
    config_of_timm = {
        "architecture": found.name,
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "global_pool": "avg",
        **({} if classes is None else {"label_names": classes}),
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": (channels, size, size),
            "fixed_input_size": config.family == "Swin",
            "interpolation": preprocessing.interpolation,
            "crop_pct": preprocessing.crop,
            "crop_mode": "center",
            **statistics,
            "num_classes": model.num_classes,
            "pool_size": None,
            "first_conv": first,
            "classifier": head,
        },
        "senetzoo": senetzoo.__version__,
    }
    return json_text(config_of_timm, indent=2) + "\n"


# --- Reading -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Images:
    """The fields read from a ``pretrained_cfg``, with timm's defaults."""

    input_size: tuple[PositiveInt, PositiveInt, PositiveInt] = (3, 224, 224)
    mean: tuple[float, ...] = IMAGENET.mean
    std: tuple[PositiveFloat, ...] = IMAGENET.std
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    crop_mode: str = "center"
    num_classes: int = 1000
    label_offset: int = 0


@dataclass(frozen=True)
class _Arguments:
    """The fields read from ``model_args``, the arguments that timm builds the network with."""

    num_classes: int | None = None
    in_chans: PositiveInt | None = None
    img_size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    global_pool: str = "avg"
    drop_rate: Rate | None = None
    drop_path_rate: Rate | None = None
    bn_eps: PositiveFloat | None = None


def found_in(file: Path) -> dict[str, Any] | None:
    """The content of timm's ``config.json``; None if it isn't one or can't be read."""
    try:
        raw = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, BrokenError):  # a path with a null byte, bytes that aren't UTF-8
        return None
    theirs = isinstance(raw, dict) and "architecture" in raw and "library_name" not in raw
    return raw if theirs else None  # type: ignore[return-value]


def opened(
    raw: Mapping[str, Any],
    file: Path,
    tag: str,
    fetch: Callable[[str], tuple[dict[str, Tensor], str, str]],
) -> Trained:
    """The network that timm's ``config.json`` describes.

    Args:
        raw: The content of the file.
        file: The file, for messages.
        tag: Name of the weights in the load report.
        fetch: As in `senetzoo.io.folder.opened`; timm states no hash.

    Raises:
        WeightsError: senetzoo doesn't have the network, its arguments or its preprocessing.
        BrokenError: A field is invalid.
    """
    name = raw["architecture"]
    if not isinstance(name, str):
        raise BrokenError("architecture", f"it is {shown(name)}, not text")
    dialect = next((one for one in _DIALECTS if name in counterparts(one)), _DIALECTS[0])
    spec = _spec(counterpart(dialect, name))
    # Files from before 2023 have all fields at the top level.
    images = from_json(
        _Images, _read(raw.get("pretrained_cfg", raw), _Images), "pretrained_cfg", partial=True
    )
    arguments = raw.get("model_args") or {}
    given = from_json(_Arguments, _read(arguments, _Arguments), "model_args", partial=True)
    for what in _unknown(raw, images, arguments, spec.config):
        raise WeightsError(
            f"{file} describes a network that senetzoo does not have.",
            f"Its {name} has {what}.",
            f"Load it with timm; to convert only its tensors: senetzoo weights convert FILE --to "
            f"{spec.name}",
        )
    channels, side = given.in_chans or images.input_size[0], images.input_size[1]
    if isinstance(given.img_size, int):
        side = given.img_size
    elif given.img_size is not None:
        side = given.img_size[0]
    options = {
        ours: getattr(given, theirs)
        for theirs, ours in _ARGUMENTS.items()
        if getattr(given, theirs) is not None
    }
    stated = (given.num_classes, raw.get("num_classes"), images.num_classes)
    classes = next(number for number in stated if number is not None)
    if type(classes) is not int or classes < 0:
        what = f"it is {shown(classes)}, not a whole number of at least 0"
        raise BrokenError("num_classes", what)
    spec = spec.replace(num_classes=classes, in_chans=channels, **options)
    if wrong := _misfit(spec.config, side):
        raise WeightsError(
            f"senetzoo's {spec.name} differs from timm's {name} on images of {side}x{side}.",
            wrong,
            f"Load it with timm; to convert only its tensors: senetzoo weights convert FILE --to "
            f"{spec.name}",
        )
    labels = _labels(raw, classes)
    preprocessing = from_json(
        Preprocessing,
        {
            "size": side,
            "mean": images.mean,
            "std": images.std,
            "interpolation": images.interpolation,
            "crop": images.crop_pct,
        },
        "pretrained_cfg",
    )
    known = preprocessing.for_channels(channels) if channels in (1, 3) else None

    def load(like: Classifier | None) -> tuple[dict[str, Tensor], LoadReport]:
        older = file.with_name("pytorch_model.bin")
        if older.is_file() and not file.with_name("model.safetensors").is_file():
            raise WeightsError(
                f"The only weights in {file.parent} are {older.name}.",
                "That is a pickle; networks are read from model.safetensors.",
                f"Type: senetzoo weights convert {older} --to {spec.name}",
            )
        theirs, sha256, origin = fetch("")
        ours, notes = dialects.reading(theirs, dialect, like or spec.build(seed=0))
        adapted = tuple((file.name, note) for note in notes)
        return ours, LoadReport(
            tag, origin, sha256, labels, adapted=adapted, pinned="", preprocessing=known
        )

    return Trained(spec, load, known)


def _read(raw: object, kind: type) -> object:
    """The fields of `raw` that `kind` has, without those that are null."""
    if not isinstance(raw, dict):
        return raw
    known = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in raw.items() if name in known and value is not None}


def _unknown(
    raw: Mapping[str, Any], images: _Images, arguments: Mapping[str, Any], config: Config
) -> Iterator[str]:
    """The settings in a ``config.json`` that senetzoo doesn't support."""
    known = {field.name for field in dataclasses.fields(_Arguments)}
    for name, value in arguments.items():
        if name not in known or not hasattr(config, _ARGUMENTS.get(name, "family")):
            yield f"the argument {name}={shown(value)}"
    for pool in (raw.get("global_pool"), arguments.get("global_pool")):
        if pool not in (None, "avg"):
            yield f"global_pool={shown(pool)}; senetzoo only has average pooling"
    if images.crop_mode != "center":
        yield f"crop_mode={shown(images.crop_mode)}; senetzoo only crops at the center"
    if images.interpolation not in get_args(Interpolation):
        yield f"interpolation={shown(images.interpolation)}"
    if images.input_size[1] != images.input_size[2]:
        yield f"input_size={shown(images.input_size)}; senetzoo only takes square images"
    if images.label_offset:
        yield f"label_offset={images.label_offset}, which leaves out classes"


def _labels(raw: Mapping[str, Any], number: int) -> tuple[str, ...]:
    """Class names in the order of the logits; empty if there are none."""
    within = raw.get("pretrained_cfg")
    within = within if isinstance(within, dict) else {}
    where = "label_names"
    found = raw.get(where) or raw.get("labels") or within.get(where) or ()
    if isinstance(found, dict):  # by the number of the class
        found = [found.get(str(index)) for index in range(number)]
    if not isinstance(found, (list, tuple)) or not all(isinstance(label, str) for label in found):
        raise BrokenError(where, f"it is {shown(found)}, not a name for each class")
    if found and len(found) != number:
        raise BrokenError(where, f"there are {len(found)} names for {number} classes")
    return tuple(found)
