"""A network in a folder: ``config.json``, which says what it is, and ``model.safetensors``.

The same two files are what a repository of the Hugging Face Hub holds.
"""

from __future__ import annotations

import builtins
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from senetzoo._files import atomically
from senetzoo._utils.checks import from_json, shown
from senetzoo._utils.documents import parse_json
from senetzoo.errors import BrokenError, ConfigError, WeightsError
from senetzoo.weights.stored import stored

SCHEMA = 1
LIBRARY = "senetzoo"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
REMEDY = "Save the network again with senetzoo.save, or get its files anew"


@dataclass(frozen=True)
class Seen:
    """What the network was trained to see, in the words of timm's ``pretrained_cfg``.

    Args:
        input_size: Channels, height and width.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        interpolation: Of the resizing.
        crop_pct: Kept fraction of the resized shorter side.
    """

    input_size: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Literal["nearest", "bilinear", "bicubic"]
    crop_pct: float


@dataclass(frozen=True)
class File:
    """The file of the weights.

    Args:
        file: Its name.
        sha256: Its hash.
        bytes: Its size.
    """

    file: Literal["model.safetensors"]
    sha256: str
    bytes: int

    @staticmethod
    def of(whole: builtins.bytes) -> File:
        """What a file with `whole` inside is."""
        return File("model.safetensors", hashlib.sha256(whole).hexdigest(), len(whole))


@dataclass(frozen=True)
class Description:
    """What ``config.json`` says of a network.

    Args:
        library_name: ``"senetzoo"``.
        schema: Version of these fields.
        senetzoo: Version of senetzoo that wrote it.
        architecture: Name in the registry; null where none has this config.
        family: Family of the config: ``"ResNet"``.
        config: Every field of the config.
        policy: Text of the policy; null where `gates` says it.
        gates: Each gate by the name of its site, for what no text can say; else null.
        num_classes: Outputs.
        label_names: Their names in order; null where they have none.
        pretrained_cfg: What an image goes through before; null where nobody says.
        weights: The file of the weights.
    """

    library_name: str
    schema: int
    senetzoo: str
    architecture: str | None
    family: str
    config: Mapping[str, object]
    policy: str | None
    gates: Mapping[str, Mapping[str, object]] | None
    num_classes: int
    label_names: tuple[str, ...] | None
    pretrained_cfg: Seen | None
    weights: File

    def text(self) -> str:
        """The content of ``config.json``."""
        raw = dataclasses.asdict(self)
        return json.dumps(raw, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def parse(text: str) -> Description:
    """The description that a ``config.json`` is.

    Raises:
        BrokenError: It is none, or of another version.
    """
    raw = parse_json(text)
    if not isinstance(raw, dict) or raw.get("library_name") != LIBRARY:
        raise BrokenError("library_name", f"it is not {LIBRARY}'s: it does not name {LIBRARY!r}")
    if raw.get("schema") != SCHEMA or type(raw["schema"]) is not int:
        found = shown(raw.get("schema"))
        newer = type(raw.get("schema")) is int and raw["schema"] > SCHEMA
        what = f"it is {found}, and this version of {LIBRARY} reads {SCHEMA}"
        raise BrokenError("schema", what, f"Install a newer {LIBRARY}" * newer)
    description = from_json(Description, raw, "")
    if not re.fullmatch(r"[0-9a-f]{64}", description.weights.sha256):
        what = "it is no hash of 64 lower-case hexadecimal digits"
        raise BrokenError("weights.sha256", what)
    if (description.policy is None) == (description.gates is None):
        raise BrokenError(
            "policy", "one of policy and gates says where gates are, the other is null"
        )
    if (
        description.label_names is not None
        and len(description.label_names) != description.num_classes
    ):
        what = (
            f"there are {len(description.label_names)} names for {description.num_classes} classes"
        )
        raise BrokenError("label_names", what)
    return description


def broken(file: Path | str, error: BrokenError) -> WeightsError:
    """The error of a ``config.json``."""
    return WeightsError(f"{file} is broken at {error.where}.", error.what, error.hint or REMEDY)


@dataclass(frozen=True)
class Place:
    """Where a network's two files are.

    Args:
        tag: What the load report calls it.
        config: Its ``config.json``.
        fetch: Gives the file of its weights, and where it came from.
        again: Fetches the file anew where the cache has another one; None where nothing can.
    """

    tag: str
    config: Path
    fetch: Callable[[], tuple[Path, str]]
    again: Callable[[], Path] | None = None

    @staticmethod
    def of(folder: Path) -> Place:
        """A folder on this machine."""
        return Place(str(folder), folder / CONFIG, lambda: (folder / WEIGHTS, "folder"))

    def tensors(self, description: Description) -> tuple[dict[str, Tensor], str]:
        """The tensors, as `tensors` gives them, and where they came from.

        Raises:
            WeightsError: They can't be had.
        """
        file, origin = self.fetch()
        try:
            return tensors(file, description), origin
        except WeightsError:
            if origin != "cache" or self.again is None:
                raise
        return tensors(self.again(), description), "hub"


def described(file: Path) -> Description:
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
            "Give a folder that senetzoo.save wrote",
        ) from None
    except UnicodeDecodeError:
        raise broken(file, BrokenError("its start", "it is no text in UTF-8")) from None
    except BrokenError as error:
        raise broken(file, error) from None


def tensors(file: Path, description: Description) -> dict[str, Tensor]:
    """The tensors of a file, its hash checked; floating point ones as float32.

    Args:
        file: The file.
        description: What says its hash.

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
    found, expected = hashlib.sha256(content).hexdigest(), description.weights.sha256
    if found != expected:
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
    return {k: v.float() if v.is_floating_point() else v for k, v in sorted(state.items())}


def content(state: Mapping[str, Tensor], version: str) -> bytes:
    """The content of a file of weights: safetensors, each tensor in its own type.

    Args:
        state: The tensors.
        version: Version of senetzoo, for the file's metadata.

    Returns:
        The same bytes for the same tensors and version.
    """
    # On the CPU, contiguous, and each with its own memory: safetensors takes no others.
    own = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in state.items()
    }
    return stored(own, {"format": "pt", "library_name": LIBRARY, "senetzoo": version})


def write(folder: Path, description: Description, weights: bytes) -> None:
    """Write a network's two files; of others in the folder none is touched.

    ``config.json``, which names the hash of the weights, comes last: whatever a kill leaves is a
    whole network, or is refused.

    Args:
        folder: The folder, made where it does not exist.
        description: What the network is.
        weights: Content of the file of its weights.

    Raises:
        ConfigError: The folder is a file, or holds a network that is not senetzoo's.
    """
    _check_ours(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # The inner one is put in its place first.
    with atomically(folder / CONFIG) as first, atomically(folder / WEIGHTS) as second:
        first.write_text(description.text(), encoding="utf-8")
        second.write_bytes(weights)


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
