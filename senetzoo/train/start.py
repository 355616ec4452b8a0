"""The weights that fine-tuning starts from, as a reference for a recipe."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch

from senetzoo._utils.documents import json_text, read_json
from senetzoo._utils.files import user_path
from senetzoo.errors import ConfigError, PolicyError, WeightsError
from senetzoo.io.save import write as write_network
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.preprocessing import Preprocessing, usual
from senetzoo.nn.slots import Site
from senetzoo.nn.stem import Stem
from senetzoo.policies.algebra import Rule, resolve
from senetzoo.runs import REMEDY, is_run
from senetzoo.spec import ModelSpec, as_policy, split
from senetzoo.train import checkpoint
from senetzoo.weights import cache, convert, download, manifest, unpack
from senetzoo.zoo import before_policy, config, find, is_saved

START, ORIGIN = "start", "start.json"
"""Names in the run's folder: the initial network if it comes from a weights file, and the
origin."""
SMALL = 48
"""Images up to this many pixels are small: they are neither cropped nor downscaled."""
_LARGE_SIZE = 128
# At 128 pixels the maps have 32, as CIFAR-10's, and its tensors are the same as the 3x3/1 stem's.
_LARGE_STEM = "3x3/2+pool"
# Not the flowers network, whose training images could be someone's validation images.
EMBEDDED = "resnet20.cifar10_v2"


@dataclass(frozen=True)
class Start:
    """The initial network of fine-tuning.

    Args:
        model: Value for `Recipe.model`, in which new gates start as the identity, if they have one.
        stem: Value for `Recipe.stem`.
        preprocessing: Preprocessing of the images, with the size to train at.
        features: Number of input features of the head.
        why: Why it was chosen.
    """

    model: str
    stem: str
    preprocessing: Preprocessing
    features: int
    why: str


class Origin(TypedDict):
    """What a run was started from, stored as ``start.json`` in its folder.

    Args:
        photos: Their path relative to the folder of the run, or the name of a data set.
        seed: Seed of the split.
        network: Network of `weights`; None without.
        weights: SHA-256 of the weights file; None without.
    """

    photos: str
    seed: int
    network: str | None
    weights: str | None


def origin(
    photos: str | Path, model: str | None, weights: Path | None, folder: Path, seed: int
) -> Origin:
    """The origin of a run in `folder`.

    Raises:
        ConfigError: `weights` were passed without `model`.
        WeightsError: There is no such file.
    """
    source, path = str(photos), user_path(photos)
    if path.exists():
        try:
            source = Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
        except ValueError:  # another drive
            source = str(path.resolve())
    if weights is None:
        return Origin(photos=source, seed=seed, network=None, weights=None)
    if model is None:
        raise ConfigError(
            f"{weights} doesn't say which network it is for.",
            "A weights file has only tensors and their names.",
            f"Type for example: --model resnet50 --weights {weights}",
        )
    if not weights.is_file():
        raise WeightsError(f"Can't read the weights {weights}.", "There is no such file.")
    network, _ = before_policy(model)
    return Origin(photos=source, seed=seed, network=network, weights=cache.sha256(weights))


def write_origin(folder: Path, asked: Origin) -> None:
    """Write the origin of a new run."""
    checkpoint.write(folder / ORIGIN, json_text(asked, indent=2).encode() + b"\n")


def require_same(folder: Path, asked: Origin) -> None:
    """Check that the run in `folder` has this origin.

    Raises:
        ConfigError: It has other photographs, another split or other weights, or no origin.
    """
    file = folder / ORIGIN
    if not file.is_file():
        raise ConfigError(
            f"{folder} has a run that isn't a fine-tuning, or is from an older version.",
            f"There is no {file}, which says what the run was started from.",
            "Give another folder with --out",
        )
    found = read_json(Origin, file, REMEDY)
    values: dict[str, tuple[object, object]] = {
        "other photographs": (found["photos"], asked["photos"]),
        "another seed": (found["seed"], asked["seed"]),
        "the weights of another network": (found["network"], asked["network"]),
        "other weights": (found["weights"], asked["weights"]),
    }
    for what, (own, wanted) in values.items():
        if own != wanted:
            its, new = ("none" if value is None else value for value in (own, wanted))
            raise ConfigError(
                f"{folder} has a run with {what}.",
                f"It has {its}, and {new} was requested.",
                "Give another folder with --out",
            )


def choose(
    model: str | None, weights: Path | None, side: int, size: int | None, folder: Path
) -> Start:
    """Choose the initial network for images of `side` pixels.

    Args:
        model: A reference, as in `senetzoo.create`; None for a network of the package.
        weights: A weights file for `model`, with the names of this or another library.
        side: Median of the shorter sides of the images in pixels.
        size: Image size to train at; None to choose it by network and images.
        folder: Folder of the run. If no run has started, the network with `weights` is saved in it.

    Raises:
        ConfigError: There is no such network.
        PolicyError: The policy can't be parsed or doesn't fit the network.
        WeightsError: There are no weights, or they don't fit the network.
    """
    base, over = before_policy(model or EMBEDDED)
    if weights is not None:
        begin = folder / START
        if not is_run(folder):
            _write_start(base, weights, begin)
        # Independent of the current folder.
        reference, why = str(begin.resolve()), f"the weights in {weights}"
    else:
        config(base)  # raises for an unknown name
        reference, why = base, "its weights" if model else "the network of the package for photos"
        if not is_saved(base) and split(base)[1] is None:
            reference, _ = manifest.find(split(base)[0], None)
            why = "its default weights"
    spec, trained = find(reference)
    if trained is None:
        raise WeightsError(f"There are no weights of {reference}.")
    known = (trained.preprocessing or usual(spec.config.input_size)).for_channels(3)
    stem = ""
    if spec.config.small and side > SMALL and isinstance(spec.config.stem, Stem):
        # Photographs need a stem that downsamples them.
        stem, known = _LARGE_STEM, dataclasses.replace(known, size=_LARGE_SIZE, crop=0.875)
        why += f", with the stem {_LARGE_STEM} for photographs"
    if size is not None:
        known = dataclasses.replace(known, size=size)
    with torch.device("meta"):
        built = spec.build(seed=0)
    policy = _as_identity(over, spec, built.sites()) if over is not None else ""
    reference = f"{reference}+{policy}" if policy else reference
    head: Any = built.get_submodule(built.classifiers()[0])
    return Start(reference, stem, known, head.in_features, why)


def fetch(model: str) -> None:
    """Fetch the weights of a name, before all images are read.

    Raises:
        WeightsError: They can't be fetched.
    """
    base, _ = before_policy(model)
    if is_saved(base):
        find(base)
        return
    name, tag, _ = split(base)
    try:
        download.locate(*manifest.find(name, tag))
    except WeightsError as error:
        asked, true, remedy = (*str(error).splitlines(), "", "")[:3]
        remedy += "; or leave" if remedy else "Leave"
        remedy += f" out --model: fine-tuning then starts from {EMBEDDED}, which is in the package"
        raise WeightsError(asked, true, remedy) from error


def _as_identity(text: str, trained: ModelSpec, sites: Sequence[Site]) -> str:
    """Text of a policy to merge over that of `trained`, with new gates that start as identity."""
    wanted = trained.merged(text)
    before = resolve(trained.policy, sites, trained.name)
    if before == resolve(wanted.policy, sites, trained.name):
        return ""
    own = set(before.values())

    def changed(rule: Rule) -> Rule:
        gate: Any = rule.gate
        if gate in own or not hasattr(gate, "init"):
            return rule
        try:
            return dataclasses.replace(rule, gate=dataclasses.replace(gate, init="identity"))
        except PolicyError:  # this variant of the gate has no identity
            return rule

    return str(as_policy(text)._map(changed))


def _write_start(base: str, weights: Path, folder: Path) -> None:
    """Save the network `base` with the weights of a file to `folder`.

    Raises:
        WeightsError: The file can't be read, or is for another network.
    """
    spec = config(base)

    def make(changes: Mapping[str, object], policy: str) -> Classifier:
        return config(f"{base}+{policy}" if policy else base).replace(**changes).build(seed=0)

    state, _ = unpack.unpack(unpack.load(weights.read_bytes(), weights), weights, None)
    done = convert.by_names(state, spec.name, make)
    if done is None:
        raise WeightsError(
            f"The names in {weights} aren't those of a library that senetzoo knows.",
            f"They start with {', '.join(list(state)[:3])}.",
            f"Type: senetzoo weights convert {weights} --to {base} --by-structure",
        )
    convert.check_values(done)
    done.model.load_state_dict(done.state)
    known = usual(done.model.input_size).for_channels(done.model.in_chans)
    write_network(done.model, folder, classes=None, preprocessing=known)


def check_length(epochs: int | None, minutes: float | None) -> None:
    """Check that the run has a positive length."""
    length = 1 if epochs is None else epochs, 1.0 if minutes is None else minutes
    if length[0] < 1 or not 0 < length[1] < math.inf:
        raise ConfigError(
            f"finetune got epochs={epochs} and minutes={minutes}.",
            "Both must be positive.",
            "Type for example: epochs=10",
        )


def check_place(folder: Path, photos: str | Path) -> None:
    """Check that the run isn't inside its photographs, which would then include its pictures."""
    place = user_path(str(photos)).resolve()
    if place.is_dir() and folder.resolve().is_relative_to(place):
        raise ConfigError(
            f"The run would be in {folder}, inside the photographs.",
            "The next run would use its pictures as photographs.",
            "Give another folder with --out",
        )
