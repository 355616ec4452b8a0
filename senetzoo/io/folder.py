"""A network in a folder: ``config.json``, which says what it is, and ``model.safetensors``.

The same two files are what a repository of the Hugging Face Hub holds, and what a training run
leaves beside its log.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import senetzoo
from senetzoo import runs
from senetzoo._utils.files import atomically
from senetzoo.data.preprocessing import Preprocessing
from senetzoo.errors import BrokenError, ConfigError, WeightsError, checks_options
from senetzoo.io.describe import describe, described
from senetzoo.io.description import LIBRARY, Description, File, parse
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.report import LoadReport
from senetzoo.weights.load import Trained, check_finite
from senetzoo.weights.stored import stored

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
REMEDY = "Save the network again with senetzoo.save, or get its files anew"

Fetch = Callable[[str], tuple[Path, str]]
"""Gives the file of the weights whose hash is known, and where it came from."""


# --- Reading -------------------------------------------------------------------------------------


def read(folder: Path) -> Trained:
    """The network in a folder that `save` or a training run wrote; its tensors are not read yet.

    Raises:
        WeightsError: There is none, or its files are not as they were written.
    """
    if not (folder / CONFIG).is_file() and runs.is_run(folder):
        return _run_of_0_1(folder)
    return opened(folder / CONFIG, str(folder), lambda _: (folder / WEIGHTS, "folder"))


def opened(config: Path, tag: str, fetch: Fetch) -> Trained:
    """The network that a ``config.json`` describes.

    Args:
        config: The file.
        tag: What the load report calls the weights.
        fetch: Gives their file.

    Raises:
        WeightsError: It is not there, or broken.
    """
    description = read_description(config)
    try:
        spec = described(description)
    except BrokenError as error:
        raise _broken(config, error) from None
    sha256 = description.weights.sha256

    def load(_: Classifier | None) -> tuple[dict[str, Tensor], LoadReport]:
        file, origin = fetch(sha256)
        state = tensors(file, sha256)[0]
        classes = description.classes or ()
        return state, LoadReport(
            tag, origin, sha256, classes, preprocessing=description.preprocessing
        )

    return Trained(spec, load)


def _run_of_0_1(folder: Path) -> Trained:
    """The network of a run that version 0.1.0 finished, which wrote no ``config.json``."""
    spec, preprocessing, classes = runs.network_of_0_1(folder)

    def load(_: Classifier | None) -> tuple[dict[str, Tensor], LoadReport]:
        state, sha256 = tensors(folder / WEIGHTS)
        return state, LoadReport(
            str(folder), "folder", sha256, classes, pinned="", preprocessing=preprocessing
        )

    return Trained(spec, load)


def read_description(file: Path) -> Description:
    """What a ``config.json`` says.

    Raises:
        WeightsError: It is not there, or broken.
    """
    try:
        return parse(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        folder = file.parent
        raise WeightsError(
            f"There is no network in {folder}.",
            f"It has no {CONFIG}." if folder.is_dir() else "There is no such folder.",
            "Give a folder that senetzoo.save or a training run wrote",
        ) from None
    except UnicodeDecodeError:
        raise _broken(file, BrokenError("its start", "it is no text in UTF-8")) from None
    except BrokenError as error:
        raise _broken(file, error) from None


def _broken(file: Path, error: BrokenError) -> WeightsError:
    return WeightsError(f"{file} is broken at {error.where}.", error.what, error.hint or REMEDY)


def tensors(file: Path, expected: str = "") -> tuple[dict[str, Tensor], str]:
    """The tensors of a file, floating point ones as float32, and its sha256.

    Args:
        file: The file.
        expected: The hash that it must have; empty where nobody states one.

    Raises:
        WeightsError: It is not there, has another hash, or is no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    # Read once: what is loaded is what was hashed, whoever writes to the file in between.
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise WeightsError(
            f"There are no weights in {file.parent}.", f"It has no {file.name}.", REMEDY
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if expected and found != expected:
        raise WeightsError(
            f"The weights in {file.parent} are not those of its {CONFIG}.",
            f"{file.name} has the sha256 {found}, {CONFIG} has {expected}.",
            REMEDY,
        )
    try:
        state = load(content)
    except SafetensorError as error:
        raise WeightsError(
            f"Can't read the weights {file}.", f"It is no whole safetensors file ({error}).", REMEDY
        ) from None
    # safetensors has them in no order.
    return {k: v.float() if v.is_floating_point() else v for k, v in sorted(state.items())}, found


# --- Writing -------------------------------------------------------------------------------------


@checks_options
def save(
    model: Classifier,
    folder: str | Path,
    *,
    classes: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
) -> None:
    """Write a network to a folder, from which `load` makes it again.

    ``model.safetensors`` holds its tensors, each in its own type; ``config.json`` the config, the
    stem, the gates, the classes, the preprocessing, and the hash of the tensors. Of other files in
    the folder none is touched; a network that senetzoo saved there before is replaced.

    Args:
        model: A network of this zoo, whatever its config, stem and gates.
        folder: The folder, made where it does not exist.
        classes: Names of the classes in the order of the logits; None for those that the load
            report has.
        preprocessing: What an image goes through before; None for that of the weights that the
            network was loaded with.

    Raises:
        ConfigError: `model` is another network, or was changed by hand; the folder holds another
            library's; or `classes` or `preprocessing` do not fit.
        WeightsError: Tensors hold values that are not finite, or no values at all.
    """
    _check_network(model)
    report = model.load_report
    if classes is None and report is not None and report.classes:
        classes = report.classes
    if preprocessing is None and report is not None and report.preprocessing is not None:
        channels = model.in_chans
        preprocessing = report.preprocessing.for_channels(channels) if channels in (1, 3) else None
    state = model.state_dict()
    _check_types(state, type(model).__name__)
    check_finite(state, f"of the {type(model).__name__}")
    write(model, Path(folder), classes=classes, preprocessing=preprocessing)


# What a network of float32 takes without a loss.
_TYPES = {torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool}


def _check_types(state: Mapping[str, Tensor], network: str) -> None:
    for name, value in state.items():
        if value.is_meta:
            raise WeightsError(
                f"Can't save the {network}.",
                f"Its {name} is on the meta device, without values.",
                "Give it values first: load weights, or build it on the CPU",
            )
        if value.dtype not in _TYPES:
            raise WeightsError(
                f"Can't save the {network}.",
                f"Its {name} is {str(value.dtype).removeprefix('torch.')}.",
                "Save networks of float32, or of less: model.float()",
            )


def _check_network(model: object) -> None:
    if isinstance(model, Classifier):
        return
    inner = next(
        (
            name
            for name in ("module", "_orig_mod")
            if isinstance(getattr(model, name, None), Classifier)
        ),
        None,
    )
    raise ConfigError(
        f"save got a {type(model).__name__}.",
        f"It is a wrapper around a {type(getattr(model, inner)).__name__} of this zoo."
        if inner
        else "It is no network of this zoo, and could not be built again from its folder.",
        f"Type save(model.{inner}, folder)"
        if inner
        else "Save its state_dict() yourself, with safetensors.torch.save_file",
    )


def write(
    model: Classifier,
    folder: Path,
    *,
    classes: Sequence[str] | None,
    preprocessing: Preprocessing | None,
) -> None:
    """Write a network's two files; of others in the folder none is touched.

    ``config.json``, which names the hash of the weights, comes last: whatever a kill leaves is a
    whole network, or is refused. The same tensors make the same bytes.

    Args:
        model: The network.
        folder: The folder, made where it does not exist.
        classes: Names of the classes; None where they have none.
        preprocessing: What an image goes through before; None where nobody says.

    Raises:
        ConfigError: The folder is a file, or holds a network that is not senetzoo's; or the network
            can't be described.
    """
    # On the CPU, contiguous, and each with its own memory: safetensors takes no others.
    own = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
    }
    content = stored(
        own, {"format": "pt", "library_name": LIBRARY, "senetzoo": senetzoo.__version__}
    )
    description = describe(model, File.of(content), classes=classes, preprocessing=preprocessing)
    _check_ours(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # The inner one is put in its place first.
    with atomically(folder / CONFIG) as first, atomically(folder / WEIGHTS) as second:
        first.write_text(description.text(), encoding="utf-8")
        second.write_bytes(content)


def _check_ours(folder: Path) -> None:
    """Refuse to replace another library's files.

    Raises:
        ConfigError: They are there.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(
            f"Can't save a network in {folder}.", "It is a file.", "Give the name of a folder"
        )
    config, weights = folder / CONFIG, folder / WEIGHTS
    if config.is_file():
        foreign = CONFIG if _library(config) != LIBRARY else ""
    else:
        # Weights alone are what a save leaves that was killed between its two files.
        foreign = WEIGHTS if weights.is_file() and _metadata(weights) != LIBRARY else ""
    if foreign:
        raise ConfigError(
            f"Can't save a network in {folder}.",
            f"Its {foreign} is not senetzoo's, and would be replaced.",
            "Give another folder, or move that file away",
        )


def _library(config: Path) -> Any:
    try:
        raw = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    return raw.get("library_name") if isinstance(raw, dict) else None


def _metadata(weights: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(weights), "pt") as file:
            return (file.metadata() or {}).get("library_name")
    except SafetensorError:
        return None
