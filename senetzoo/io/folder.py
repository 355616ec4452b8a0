"""Reading a network from a folder: ``config.json``, which describes it, and ``model.safetensors``.

A repository on the Hugging Face Hub and the folder of a training run have the same two files. The
fields of ``config.json`` differ from those of timm and Transformers, so that a library that doesn't
know the gates rejects the network instead of building another one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import torch
from torch import Tensor

from senetzoo import own, runs
from senetzoo._utils.checks import Ge, Le, from_json, shown
from senetzoo._utils.documents import check_schema, parse_json, reading
from senetzoo.errors import BrokenError, PolicyError, WeightsError, nearest
from senetzoo.gates import GATES
from senetzoo.io import timm
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.preprocessing import Preprocessing
from senetzoo.nn.report import LoadReport, Pinned
from senetzoo.nn.slots import Site
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
REMEDY = "Save the network again with senetzoo.save, or get its files again"

Read = tuple[dict[str, Tensor], str, str]
"""The tensors of a file, its sha256, and its origin."""


@dataclass(frozen=True)
class File:
    """The weights file: its name, hash and size."""

    file: Literal["model.safetensors"]
    sha256: Sha256
    bytes: int


@dataclass(frozen=True)
class Network:
    """A `ModelSpec` as JSON values.

    The name is null if no network of the registry has this config. In files of schema 1 the policy
    may be a mapping from the names of sites to gates.
    """

    name: str | None
    family: str
    config: Mapping[str, object]
    policy: str | Mapping[str, object]


@dataclass(frozen=True)
class Description:
    """The content of a ``config.json``.

    `senetzoo` is the version that wrote it. The preprocessing is null if it isn't known; the class
    names, in the order of the logits, are null if there are none. If `temperature` and
    `reject_below` are missing, the network isn't calibrated. `own` maps the names of gates and
    networks that aren't senetzoo's to ``module:Name``; it is for people, and nothing is imported.
    `own_versions` has the versions of their code, as in `senetzoo.own.versions`.
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
    own_versions: Mapping[str, str] | None = None


def read(folder: Path) -> Trained:
    """The network in a folder that `save` or a run wrote; its tensors are read later."""

    def fetch(sha256: str) -> Read:
        return (*read_tensors(folder / WEIGHTS, sha256, REMEDY), "folder")

    if (folder / CONFIG).is_file() or not runs.is_run(folder):
        return opened(folder / CONFIG, str(folder), fetch)
    # Runs of version 0.1.0 have no config.json.
    spec, preprocessing, classes = _network_of_0_1(folder)
    load = _reader(str(folder), fetch, "", classes, preprocessing)
    return Trained(spec, load, preprocessing)


def opened(config: Path, tag: str, fetch: Callable[[str], Read]) -> Trained:
    """The network that a ``config.json`` describes, in senetzoo's or timm's format.

    `tag` is the name of the weights in the load report. `fetch` takes the hash of their file, or
    an empty text for any, and reads the file.
    """
    theirs = timm.found_in(config)
    if theirs is not None:
        with reading(config, REMEDY, WeightsError):
            return timm.opened(theirs, config, tag, fetch)
    about = read_description(config)
    with reading(config, REMEDY, WeightsError):
        spec = described(about)
    classes, sha256 = about.classes or (), about.weights.sha256
    load = _reader(tag, fetch, sha256, classes, about.preprocessing, about.own_versions)
    return Trained(spec, load, about.preprocessing, about.temperature, about.reject_below)


def _reader(
    tag: str,
    fetch: Callable[[str], Read],
    sha256: str,
    classes: tuple[str, ...],
    preprocessing: Preprocessing | None,
    versions: Mapping[str, str] | None = None,
) -> Callable[[Classifier | None], tuple[dict[str, Tensor], LoadReport]]:
    """A function that reads the tensors of a folder or repository and makes their load report."""
    pinned: Pinned = "sha256" if sha256 else ""

    def load(_: Classifier | None) -> tuple[dict[str, Tensor], LoadReport]:
        if edited := own.changed(versions or {}):
            warnings.warn(
                f"The network in {tag} was trained with other code of {', '.join(edited)}, which "
                "was edited since. Restore the code, or train the network again.",
                UserWarning,
                stacklevel=2,
            )
        state, found, origin = fetch(sha256)
        report = LoadReport(tag, origin, found, classes, pinned=pinned, preprocessing=preprocessing)
        return state, report

    return load


def read_description(file: Path) -> Description:
    """Read a ``config.json``; `WeightsError` if it is missing or broken."""
    if not file.is_file():
        folder = file.parent
        raise WeightsError(
            f"There is no network in {folder}.",
            f"It has no {CONFIG}." if folder.is_dir() else "The folder doesn't exist.",
            "Give a folder that senetzoo.save or a training run wrote, or hf-hub:OWNER/NAME for a "
            "repository",
        )
    with reading(file, REMEDY, WeightsError):
        return parse(file.read_text(encoding="utf-8"))


def parse(text: str) -> Description:
    """Parse the text of a ``config.json``; `BrokenError` if it is invalid."""
    raw = parse_json(text)
    if not isinstance(raw, dict) or raw.get("library_name") != LIBRARY:
        raise BrokenError("library_name", f"it isn't {LIBRARY!r}")
    schema = raw.get("schema")
    check_schema(schema, SCHEMA)
    return from_json(Description, _of_schema_1(raw) if schema == 1 else raw, "", partial=True)


def described(description: Description) -> ModelSpec:
    """The spec of a description; `BrokenError` if its fields don't fit each other."""
    network, name = description.network, description.network.name
    for needed, path in (description.own or {}).items():
        if needed not in GATES and needed not in ENTRIES:
            kind = path.rpartition(":")[2]
            raise WeightsError(
                f"The network needs {needed!r}, which isn't part of senetzoo.",
                f"It was saved with {path!r}, which loading doesn't import.",
                f"If you trust that module: senetzoo.register({kind}) first, or --register {path}",
            )
    if network.family not in CONFIGS:
        hint = f"The families are {', '.join(CONFIGS)}"
        raise BrokenError("network.family", f"there is no family {network.family!r}", hint)
    config = from_json(CONFIGS[network.family], network.config, "network.config")
    if name is not None and name not in ENTRIES:
        raise BrokenError("network.name", f"there is no network {name!r}", nearest(name, ENTRIES))
    if name is not None and not same_form(ENTRIES[name].config, config):
        raise BrokenError("network.name", f"the config isn't that of {name}")
    if description.classes is not None and len(description.classes) != config.num_classes:
        what = f"there are {len(description.classes)} names for {config.num_classes} classes"
        raise BrokenError("classes", what)
    images = description.preprocessing
    if images is not None and images.channels != config.in_chans:
        what = f"it is for {images.channels} channels, but the network takes {config.in_chans}"
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


# --- Version 0.1.0 -------------------------------------------------------------------------------


# Some fields had timm's names.
_FIELDS_0_1 = (
    *("library_name", "schema", "senetzoo", "architecture", "family", "config", "policy", "gates"),
    *("num_classes", "label_names", "pretrained_cfg", "weights"),
)


def _of_schema_1(raw: dict[str, Any]) -> dict[str, Any]:
    """The current fields from those of version 0.1.0; their types are checked later."""
    if unknown := next((name for name in raw if name not in _FIELDS_0_1), None):
        raise BrokenError("", f"the field {unknown!r} is unknown", nearest(unknown, _FIELDS_0_1))
    if missing := next((name for name in _FIELDS_0_1 if name not in raw), None):
        raise BrokenError("", f"the field {missing!r} is missing")
    config, classes, images = raw["config"], raw["num_classes"], raw["pretrained_cfg"]
    if (raw["policy"] is None) == (raw["gates"] is None):
        what = "exactly one of policy and gates must be null"
        raise BrokenError("policy", what)
    if isinstance(config, dict) and config.get("num_classes") != classes:
        what = f"it is {shown(classes)}, but the config has {shown(config.get('num_classes'))}"
        raise BrokenError("num_classes", what)
    if isinstance(images, dict):
        fields = dict(images)
        shape, crop = fields.pop("input_size", None), fields.pop("crop_pct", None)
        if not isinstance(shape, list) or len(shape) != 3 or shape[1] != shape[2]:
            what = f"it is {shown(shape)}, not a number of channels and two equal sides"
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
    """The gate at each site; version 0.1.0 wrote policies that it had no text for in this form."""
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
    """The network of a finished run of version 0.1.0, which has no ``config.json``.

    Returns:
        The spec, the preprocessing of the test images, and the class names.
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
            "stem": recipe["stem"] or None,
            "dropout": recipe["dropout"],
            "drop_path": recipe["drop_path"],
            "key_drop": recipe["key_drop"] or None,
        }
        given = {name: value for name, value in options.items() if value is not None}
        spec = spec_of(recipe["model"]).replace(**given)
    return spec, preprocessing, classes
