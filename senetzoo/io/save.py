"""Writing a network to a folder, for `load`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import nn

import senetzoo
from senetzoo import own
from senetzoo._utils.checks import check
from senetzoo._utils.documents import json_text
from senetzoo._utils.files import atomically, only_writer, user_path, write_text
from senetzoo.errors import ConfigError, WeightsError, checks_options, nearest
from senetzoo.io import timm
from senetzoo.io.folder import (
    CONFIG,
    LIBRARY,
    SCHEMA,
    WEIGHTS,
    Description,
    File,
    Network,
    read_description,
)
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.head import check_classes
from senetzoo.nn.modes import inside
from senetzoo.nn.preprocessing import Preprocessing
from senetzoo.nn.provenance import calibration
from senetzoo.nn.transforms import completed
from senetzoo.registry import ENTRIES
from senetzoo.weights import dialects
from senetzoo.weights.load import check_finite, stored

# The types that a float32 network can load without loss.
_TYPES = {torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool}


Format: TypeAlias = Literal["senetzoo", "timm"]
"""The library whose config and tensor names are used."""


@checks_options
def save(
    model: Classifier,
    folder: str | Path,
    *,
    classes: Sequence[str] | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    format: Format = "senetzoo",
) -> None:
    """Save a network to a folder, from which `load` restores it.

    ``model.safetensors`` has the tensors, each in its own dtype; ``config.json`` has the config,
    the stem, the gates, the classes, the preprocessing, and the hash of the tensors, or with
    ``format="timm"`` what timm reads. A network that senetzoo saved in the folder before is
    replaced; other files are not touched.

    Args:
        model: A network of this zoo, with any config, stem and gates.
        folder: The folder, created if needed.
        classes: Class names in the order of the logits; None for those of the loaded weights.
        preprocessing: The preprocessing of images, or the fields of it that differ from that of the
            loaded weights; None for that of the loaded weights.
        format: ``"timm"`` for timm's config and tensor names, which timm and Transformers read too.
            timm must have the network, with the same gates.

    Raises:
        ConfigError: `model` isn't a network of this zoo, or was changed by hand; the folder has a
            network of another library; `classes` or `preprocessing` don't fit; or timm has no such
            network.
        WeightsError: Tensors have values that aren't finite, or no values; or the files can't be
            written.
    """
    if format not in get_args(Format):
        raise ConfigError(
            f"save got format={format!r}.",
            f"The formats are {' and '.join(map(repr, get_args(Format)))}.",
            nearest(str(format), get_args(Format)),
        )
    _check_network(model)
    network = type(model).__name__
    for path, module in model.named_modules():
        changed, remedy = _changed(path, module)
        if changed:
            raise ConfigError(f"Can't save the {network}.", changed, remedy)
    for name, value in model.state_dict().items():
        if type(value) is not torch.Tensor:  # such as torchao's, whose dtype is float32
            wrong = f"a {type(value).__name__}, not a plain tensor"
            remedy = "Save the network before it is quantized or sharded"
        elif value.is_meta:
            wrong = "on the meta device, without values"
            remedy = "Give it values first: load weights, or build it on the CPU"
        elif value.dtype not in _TYPES:
            wrong = str(value.dtype).removeprefix("torch.")
            remedy = "Convert the network to float32: model.float()"
        else:
            continue
        raise WeightsError(f"Can't save the {network}.", f"Its {name} is {wrong}.", remedy)
    check_finite(model.state_dict(), f"weights of the {network}")
    path = user_path(folder)
    whole = None if preprocessing is None else completed(model, preprocessing)
    try:
        write(model, path, classes=classes, preprocessing=whole, format=format)
    except OSError as error:
        raise WeightsError(
            f"Can't save a network in {path}.",
            f"{error.filename or path}: {error.strerror or error}.",
            "Free some space, or give another folder",
        ) from error


def _check_network(model: object) -> None:
    if isinstance(model, Classifier):
        return
    asked = f"save got a {type(model).__name__}."
    if isinstance(model, nn.Module) and isinstance((found := inside(model))[0], Classifier):
        raise ConfigError(
            asked,
            f"It wraps a {type(found[0]).__name__} of this zoo.",
            f"Type save({found[1]}, folder)",
        )
    raise ConfigError(
        asked,
        "It isn't a network of this zoo, and couldn't be rebuilt from its folder.",
        "Save its state_dict() yourself, with safetensors.torch.save_file",
    )


def _changed(path: str, module: nn.Module) -> tuple[str, str]:
    """How torch changed a module's tensors and how to undo it; two empty texts if it didn't."""
    from torch.nn.utils import parametrize
    from torch.nn.utils.prune import BasePruningMethod
    from torch.nn.utils.spectral_norm import SpectralNorm
    from torch.nn.utils.weight_norm import WeightNorm

    home = f"model.get_submodule({path!r})"
    if type(module).__module__.startswith(("torch.ao.", "torch.nn.quantized", "torch.nn.qat")):
        return (
            f"Its {path} is quantized, or prepared for it: it is a {type(module).__name__}.",
            "Save the network first, and quantize it after loading; or deploy it in int8: "
            "senetzoo.optimize(model, images, dtype='int8')",
        )
    if parametrize.is_parametrized(module):
        tensor = next(iter(module.parametrizations))  # type: ignore[arg-type]
        return (
            f"Its {path}.{tensor} is parametrized.",
            f"Type: torch.nn.utils.parametrize.remove_parametrizations({home}, {tensor!r})",
        )
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod):
            tensor = hook._tensor_name
            return (
                f"Its {path}.{tensor} is pruned by a separate mask.",
                f"Type: torch.nn.utils.prune.remove({home}, {tensor!r})",
            )
        for kind, word in ((WeightNorm, "weight_norm"), (SpectralNorm, "spectral_norm")):
            if isinstance(hook, kind):
                return (
                    f"Its {path}.{hook.name} is computed by {word}.",
                    f"Type: torch.nn.utils.remove_{word}({home}, {hook.name!r})",
                )
    return "", ""


def write(
    model: Classifier,
    folder: Path,
    *,
    classes: Sequence[str] | None,
    preprocessing: Preprocessing | None,
    format: Format = "senetzoo",
    held: bool = False,
) -> None:
    """Write a network's two files; other files in the folder are not touched.

    `held` means that the caller already is the folder's `only_writer`.

    ``config.json``, which has the hash of the weights, is replaced last, so that a killed process
    leaves a complete network or one that is rejected. The same tensors give the same bytes.
    """
    about = {"format": "pt", "library_name": LIBRARY, "senetzoo": senetzoo.__version__}
    # First, because tensors of a network that was changed by hand have no names in other libraries.
    _check_built(model)
    theirs = timm.architecture(model) if format == "timm" else None
    state = model.state_dict()
    content = stored(
        state if theirs is None else dialects.write(state, theirs.dialect, model), about
    )
    description = describe(model, content, classes=classes, preprocessing=preprocessing)
    text = (
        _text(description)
        if theirs is None
        else timm.text(model, theirs, description.preprocessing, description.classes)
    )
    asked = f"Can't save a network in {folder}."
    if folder.exists() and not folder.is_dir():
        raise ConfigError(asked, "It is a file.", "Give the name of a folder")
    with nullcontext() if held else only_writer(folder, asked, "Wait, or give another folder"):
        # A save that was killed between its two files leaves only the weights.
        there = [folder / name for name in (CONFIG, WEIGHTS) if (folder / name).is_file()]
        if there and _library(there[0]) != LIBRARY:
            raise ConfigError(
                asked,
                f"Its {there[0].name} isn't senetzoo's, and would be replaced.",
                "Give another folder, or move that file away",
            )
        # The inner one is renamed first.
        with atomically(folder / CONFIG) as first, atomically(folder / WEIGHTS) as second:
            first.write_text(text, encoding="utf-8")
            second.write_bytes(content)


def store_calibration(folder: Path, temperature: float, reject_below: float | None) -> None:
    """Store the result of `senetzoo eval --calibrate` in a folder that `save` or a run wrote.

    Raises:
        WeightsError: ``config.json`` is missing or broken.
        ConfigError: The values are out of range, or another process is writing to the folder.
    """
    asked = f"Can't store a calibration in {folder}."
    with only_writer(folder, asked, "Wait, then type it again"):
        known = read_description(folder / CONFIG)
        about = dataclasses.replace(known, temperature=temperature, reject_below=reject_below)
        check(about, name="The folder")
        write_text(folder / CONFIG, _text(about))


def _text(description: Description) -> str:
    fields = dataclasses.asdict(description)
    for name in ("own", "own_versions"):
        if not fields[name]:
            del fields[name]
    return json_text(fields, indent=2) + "\n"


def _library(file: Path) -> Any:
    """The library that wrote a file, if the file states it."""
    from safetensors import SafetensorError, safe_open

    try:
        if file.name == CONFIG:
            raw = json.loads(file.read_text(encoding="utf-8"))
            # In timm's format there is no library_name, but the version of senetzoo.
            return LIBRARY if "senetzoo" in raw else raw["library_name"]
        with safe_open(str(file), "pt") as opened:
            return opened.metadata()["library_name"]
    except (ValueError, RecursionError, SafetensorError, TypeError, KeyError):
        return None


def describe(
    model: Classifier,
    content: bytes,
    *,
    classes: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
) -> Description:
    """Describe `model`; its weights file has the given `content`.

    `classes` and `preprocessing` default to those of the loaded weights.
    """
    report = model.load_report
    if report is not None:
        classes = (model.classes or None) if classes is None else classes
        if preprocessing is None and report.preprocessing is not None and model.in_chans in (1, 3):
            preprocessing = report.preprocessing.for_channels(model.in_chans)
    if classes is not None:
        check_classes("save", classes, model.num_classes)
    if preprocessing is not None and preprocessing.channels != model.in_chans:
        raise ConfigError(
            f"save got a preprocessing for {preprocessing.channels} channels.",
            f"The network takes {model.in_chans}.",
            "Give a mean and a std for each channel of the network",
        )
    spec = model.spec
    temperature, reject_below = calibration(model)
    description = Description(
        library_name=LIBRARY,
        schema=SCHEMA,
        senetzoo=senetzoo.__version__,
        network=Network(
            name=spec.name if spec.name in ENTRIES else None,
            family=spec.config.family,
            config=dataclasses.asdict(spec.config),
            policy=str(spec.policy),
        ),
        preprocessing=preprocessing,
        classes=None if classes is None else tuple(classes),
        weights=File(WEIGHTS, hashlib.sha256(content).hexdigest(), len(content)),
        temperature=temperature,
        reject_below=reject_below,
        own=own.paths(own.names_in(spec)),
        own_versions=own.versions(own.names_in(spec)),
    )
    check(description, name="save")
    return description


def _check_built(model: Classifier) -> None:
    """Raise `ConfigError` for a network that was changed by hand: its spec doesn't build it."""
    with torch.device("meta"):
        ours, built = _looks(model), _looks(model.spec.build(seed=0))
    for path in ours | built:
        if ours.get(path) != built.get(path):
            raise ConfigError(
                f"Can't save this {type(model).__name__}: it was changed at {path or 'its top'}.",
                f"There is {ours.get(path, 'nothing')}, but its config and gates build "
                f"{built.get(path, 'nothing')}.",
                "Save its state_dict() yourself, with safetensors",
            )


def _looks(model: nn.Module) -> dict[str, str]:
    """The type and options of each module, and the shape of each tensor, by name."""
    looks = {}
    for path, module in model.named_modules():
        # These compute the same, SyncBatchNorm in eval mode.
        kind = type(module).__name__.replace("SyncBatchNorm", "BatchNorm2d")
        kind = kind.replace("NoClassifier", "Identity")
        looks[path] = f"{kind}({module.extra_repr()})"
    for path, tensor in model.state_dict().items():
        looks[path] = f"a tensor {tuple(tensor.shape)}"
    return looks
