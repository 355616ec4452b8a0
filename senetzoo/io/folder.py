"""A network in a folder, read: ``config.json``, which says what it is, and ``model.safetensors``.

The same two files are what a repository of the Hugging Face Hub holds, and what a training run
leaves beside its log. The words of ``config.json`` are not those of timm's or Transformers' files:
a library that does not know the gates must refuse the network rather than build another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import torch
from torch import Tensor

from senetzoo import runs
from senetzoo._utils.checks import Ge, Le, from_json, shown
from senetzoo._utils.documents import check_schema, parse_json, reading
from senetzoo.errors import BrokenError, PolicyError, WeightsError, nearest
from senetzoo.gates import GATES
from senetzoo.io import timm
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.preprocessing import Preprocessing
from senetzoo.nn.report import LoadReport
from senetzoo.nn.slots import Site
from senetzoo.nn.stem import parse_stem
from senetzoo.policies.algebra import NONE, Gate, resolve
from senetzoo.policies.recover import recovered
from senetzoo.registry import CONFIGS, ENTRIES
from senetzoo.spec import ModelSpec, policy, same_form
from senetzoo.weights.load import Trained, spec_of
from senetzoo.weights.load import read as read_tensors
from senetzoo.weights.manifest import Sha256

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
LIBRARY = "senetzoo"
SCHEMA = 2
REMEDY = "Save the network again with senetzoo.save, or get its files anew"

Read = tuple[dict[str, Tensor], str, str]
"""The tensors of a file, its sha256, and where it came from."""


@dataclass(frozen=True)
class File:
    """The file of the weights: its name, hash and size."""

    file: Literal["model.safetensors"]
    sha256: Sha256
    bytes: int


@dataclass(frozen=True)
class Network:
    """A `ModelSpec` in values of JSON.

    The name is null where none in the registry has this config. In files of schema 1 the policy may
    be each gate by the name of its site.
    """

    name: str | None
    family: str
    config: Mapping[str, object]
    policy: str | Mapping[str, object]


@dataclass(frozen=True)
class Description:
    """What ``config.json`` says of a network.

    `senetzoo` is the version that wrote it. The preprocessing is null where nobody says, the names
    of the classes, in the order of the logits, where they have none. Where `temperature` and
    `reject_below` are missing, the network was not calibrated. `own` has the ``module:Name`` of
    what is not of senetzoo, by its name: for a person to read, nothing is imported by it.
    """

    library_name: str
    schema: int
    senetzoo: str
    network: Network
    preprocessing: Preprocessing | None
    classes: tuple[str, ...] | None
    weights: File
    temperature: Annotated[float, Ge(1e-3), Le(1e3)] = 1.0
    reject_below: Annotated[float, Ge(0), Le(1)] | None = None
    own: Mapping[str, str] | None = None


def read(folder: Path) -> Trained:
    """The network in a folder that `save` or a run wrote; its tensors are not read yet."""

    def fetch(sha256: str) -> Read:
        return (*read_tensors(folder / WEIGHTS, sha256, REMEDY), "folder")

    if (folder / CONFIG).is_file() or not runs.is_run(folder):
        return opened(folder / CONFIG, str(folder), fetch)
    # Version 0.1.0 wrote no config.json into the folder of a run.
    spec, preprocessing, classes = _network_of_0_1(folder)
    return Trained(spec, _reader(str(folder), fetch, "", classes, preprocessing))


def opened(config: Path, tag: str, fetch: Callable[[str], Read]) -> Trained:
    """The network that a ``config.json`` describes.

    It may be senetzoo's or timm's. The load report calls the weights `tag`; `fetch` reads their
    file, which has the given hash; an empty one stands for any.
    """
    theirs = timm.found_in(config)
    if theirs is not None:
        with reading(config, REMEDY, WeightsError):
            return timm.opened(theirs, config, tag, fetch)
    about = read_description(config)
    with reading(config, REMEDY, WeightsError):
        spec = described(about)
    classes, sha256 = about.classes or (), about.weights.sha256
    load = _reader(tag, fetch, sha256, classes, about.preprocessing)
    return Trained(spec, load, about.temperature, about.reject_below)


def _reader(
    tag: str,
    fetch: Callable[[str], Read],
    sha256: str,
    classes: tuple[str, ...],
    preprocessing: Preprocessing | None,
) -> Callable[[Classifier | None], tuple[dict[str, Tensor], LoadReport]]:
    """What reads the tensors of a folder or repository, and says what is known of them."""
    pinned: Literal["sha256", ""] = "sha256" if sha256 else ""

    def load(_: Classifier | None) -> tuple[dict[str, Tensor], LoadReport]:
        state, found, origin = fetch(sha256)
        report = LoadReport(tag, origin, found, classes, pinned=pinned, preprocessing=preprocessing)
        return state, report

    return load


def read_description(file: Path) -> Description:
    """What a ``config.json`` says; `WeightsError` where it is not there, or broken."""
    if not file.is_file():
        folder = file.parent
        raise WeightsError(
            f"There is no network in {folder}.",
            f"It has no {CONFIG}." if folder.is_dir() else "There is no such folder.",
            "Give a folder that senetzoo.save or a training run wrote",
        )
    with reading(file, REMEDY, WeightsError):
        return parse(file.read_text(encoding="utf-8"))


def parse(text: str) -> Description:
    """The description that a ``config.json`` is; `BrokenError` where it is none."""
    raw = parse_json(text)
    if not isinstance(raw, dict) or raw.get("library_name") != LIBRARY:
        raise BrokenError("library_name", f"it is not {LIBRARY}'s: it does not name {LIBRARY!r}")
    schema = raw.get("schema")
    check_schema(schema, SCHEMA)
    return from_json(Description, _of_schema_1(raw) if schema == 1 else raw, "", partial=True)


def described(description: Description) -> ModelSpec:
    """The spec that `description` speaks of; `BrokenError` where its fields do not fit."""
    network, name = description.network, description.network.name
    for own, path in (description.own or {}).items():
        if own not in GATES and own not in ENTRIES:
            kind = path.rpartition(":")[2]
            raise WeightsError(
                f"The network needs {own!r}, which is not of senetzoo.",
                f"It was saved with {path!r}; a file imports no code.",
                f"If you trust that module: senetzoo.register({kind}) before, or --register {path}",
            )
    if network.family not in CONFIGS:
        hint = f"Families are {', '.join(CONFIGS)}"
        raise BrokenError("network.family", f"there is no family {network.family!r}", hint)
    config = from_json(CONFIGS[network.family], network.config, "network.config")
    if name is not None and name not in ENTRIES:
        raise BrokenError("network.name", f"there is no network {name!r}", nearest(name, ENTRIES))
    if name is not None and not same_form(ENTRIES[name].config, config):
        raise BrokenError("network.name", f"the config is not that of {name}")
    if description.classes is not None and len(description.classes) != config.num_classes:
        what = f"there are {len(description.classes)} names for {config.num_classes} classes"
        raise BrokenError("classes", what)
    images = description.preprocessing
    if images is not None and images.channels != config.in_chans:
        what = f"it is for {images.channels} channels, and the network takes {config.in_chans}"
        raise BrokenError("preprocessing", what)
    spec = ModelSpec(name or config.family, config, NONE)
    if network.policy == str(NONE):
        return spec
    with torch.device("meta"):
        sites = spec.build(seed=0).sites()
    if isinstance(network.policy, Mapping):
        return spec.replace(policy=recovered(dict(_gates(network.policy, sites)), sites))
    try:
        found = policy(network.policy)
        resolve(found, sites, spec.name)
    except PolicyError as error:
        what = " ".join(str(error).splitlines()[:2]).removesuffix(".")
        raise BrokenError("network.policy", what) from None
    return spec.replace(policy=found)


# --- Of version 0.1.0 ----------------------------------------------------------------------------


# Its words were timm's.
_FIELDS_0_1 = (
    *("library_name", "schema", "senetzoo", "architecture", "family", "config", "policy", "gates"),
    *("num_classes", "label_names", "pretrained_cfg", "weights"),
)


def _of_schema_1(raw: dict[str, Any]) -> dict[str, Any]:
    """The fields of today from those of version 0.1.0; who reads them checks their types."""
    if unknown := next((name for name in raw if name not in _FIELDS_0_1), None):
        raise BrokenError("", f"the field {unknown!r} is unknown", nearest(unknown, _FIELDS_0_1))
    if missing := next((name for name in _FIELDS_0_1 if name not in raw), None):
        raise BrokenError("", f"the field {missing!r} is missing")
    config, classes, images = raw["config"], raw["num_classes"], raw["pretrained_cfg"]
    if (raw["policy"] is None) == (raw["gates"] is None):
        what = "one of policy and gates says where gates are, the other is null"
        raise BrokenError("policy", what)
    if isinstance(config, dict) and config.get("num_classes") != classes:
        what = f"it is {shown(classes)}, and the config says {shown(config.get('num_classes'))}"
        raise BrokenError("num_classes", what)
    if isinstance(images, dict):
        fields = dict(images)
        shape, crop = fields.pop("input_size", None), fields.pop("crop_pct", None)
        if not isinstance(shape, list) or len(shape) != 3 or shape[1] != shape[2]:
            what = f"it is {shown(shape)}, not channels and two equal sides"
            raise BrokenError("pretrained_cfg.input_size", what)
        images = {**fields, "size": shape[1], "crop": crop}
    return {
        "library_name": LIBRARY,
        "schema": SCHEMA,
        "senetzoo": raw["senetzoo"],
        "network": {
            "name": raw["architecture"],
            "family": raw["family"],
            "config": config,
            "policy": raw["policy"] if raw["gates"] is None else raw["gates"],
        },
        "preprocessing": images,
        "classes": raw["label_names"],
        "weights": raw["weights"],
    }


def _gates(gates: Mapping[str, Any], sites: Iterable[Site]) -> Iterator[tuple[Site, Gate]]:
    """The gate at each site, as version 0.1.0 wrote what it had no text for."""
    known = {site.path: site for site in sites}
    for path, raw in gates.items():
        where = f"gates.{path}"
        if path not in known:
            raise BrokenError("gates", f"the network has no site {path!r}", nearest(path, known))
        if not isinstance(raw, dict):
            raise BrokenError(where, f"it is {shown(raw)}, not an object")
        name = raw.get("name")
        if not isinstance(name, str) or name not in GATES:
            what = f"it is {shown(name)}, not one of {', '.join(map(shown, GATES))}"
            raise BrokenError(f"{where}.name", what)
        fields = {field: value for field, value in raw.items() if field != "name"}
        yield known[path], from_json(GATES[name], fields, where)


def _network_of_0_1(folder: Path) -> tuple[ModelSpec, Preprocessing, tuple[str, ...]]:
    """What a finished run of version 0.1.0, which wrote no ``config.json``, trained.

    Returns:
        Its spec, its preprocessing as tested, and the names of its classes.
    """
    recipe = runs.read_summary(folder)["recipe"]
    classes = tuple(runs.read_log(folder / runs.LOG)[0]["data"]["classes"])
    with runs.reading_recipe(folder):
        mean, std = runs.statistics(recipe["data"])
        size = recipe["test_size"] or recipe["phases"][-1][0]
        crop = 1.0 if recipe["data"] in runs.STATISTICS else recipe["test_crop"]
        preprocessing = Preprocessing(size, mean, std, crop=crop)
        options = {
            "num_classes": len(classes),
            "in_chans": preprocessing.channels,
            "stem": parse_stem(recipe["stem"]) if recipe["stem"] else None,
            "dropout": recipe["dropout"],
            "drop_path": recipe["drop_path"],
            "key_drop": recipe["key_drop"] or None,
        }
        given = {name: value for name, value in options.items() if value is not None}
        spec = spec_of(recipe["model"]).replace(**given)
    return spec, preprocessing, classes
