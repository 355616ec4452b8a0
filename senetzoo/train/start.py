"""The weights that fine-tuning starts from, as the reference that a recipe names."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
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
from senetzoo.nn.stem import Stem
from senetzoo.policies.algebra import Rule, resolve
from senetzoo.runs import REMEDY, is_run
from senetzoo.spec import ModelSpec, as_policy, split
from senetzoo.train import checkpoint
from senetzoo.weights import cache, convert, manifest, unpack
from senetzoo.zoo import before_policy, build, config, find, is_saved

START, ORIGIN = "start", "start.json"
"""What the run keeps of its start: the network of a file of weights, and what the run is of."""
SMALL = 48
"""Images up to so many pixels are small: nothing of them is cut off, and nothing shrunk."""
_LARGE_SIZE = 128
# At 128 pixels it leaves maps of 32, as CIFAR-10's are, and its tensors are those of the 3x3/1.
_LARGE_STEM = "3x3/2+pool"
# Not the one of the flowers: who tunes on flowers would hold out what it was trained on.
EMBEDDED = "resnet20.cifar10_v2"


@dataclass(frozen=True)
class Start:
    """What fine-tuning starts from.

    Args:
        model: For `Recipe.model`: new gates in it start as the identity.
        stem: For `Recipe.stem`.
        preprocessing: What images go through, with the size to train at.
        features: Numbers that the head takes.
        why: In words.
    """

    model: str
    stem: str
    preprocessing: Preprocessing
    features: int
    why: str


class Origin(TypedDict):
    """What a run is of, as ``start.json`` in its folder has it.

    Args:
        photos: Their path from the folder of the run, or the name of a data set.
        seed: Of the split.
        network: What `weights` are of; None without.
        weights: Sha256 of a file of weights.
    """

    photos: str
    seed: int
    network: str | None
    weights: str | None


def origin(
    photos: str | Path, model: str | None, weights: Path | None, folder: Path, seed: int
) -> Origin:
    """What a run in `folder` is to be of.

    Raises:
        ConfigError: `weights` without `model`.
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
            f"{weights} does not say which network it is of.",
            "A file of weights has tensors and their names.",
            f"Type for example: --model resnet50 --weights {weights}",
        )
    if not weights.is_file():
        raise WeightsError(f"Can't read the weights {weights}.", "There is no such file.")
    network, _ = before_policy(model)
    return Origin(photos=source, seed=seed, network=network, weights=cache.sha256(weights))


def write_origin(folder: Path, asked: Origin) -> None:
    """Write what a new run is of."""
    checkpoint.write(folder / ORIGIN, json_text(asked, indent=2).encode() + b"\n")


def require_same(folder: Path, asked: Origin) -> None:
    """Refuse to go on with a run of other photographs, another split or other weights.

    Raises:
        ConfigError: It is one, or does not say what it is of.
    """
    file = folder / ORIGIN
    if not file.is_file():
        raise ConfigError(
            f"{folder} holds a run that is no fine-tuning, or of an older version.",
            f"There is no {file}, which says what the run is of.",
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
                f"{folder} holds a run of {what}.",
                f"It has {its}; asked for was {new}.",
                "Give another folder with --out",
            )


def choose(
    model: str | None, weights: Path | None, side: int, size: int | None, folder: Path
) -> Start:
    """The start for images of `side` pixels.

    Args:
        model: A reference as of `senetzoo.create`; None for a network of the package.
        weights: A file of weights of `model`, by our names or another library's.
        side: Shorter side of the images in pixels, mostly.
        size: Image side to train at; None for what suits network and images.
        folder: The run. The network of `weights` is written into it, where no run has begun.

    Raises:
        ConfigError: No such network.
        PolicyError: A policy that can't be read or does not fit.
        WeightsError: There are no weights, or they do not fit.
    """
    base, over = before_policy(model or EMBEDDED)
    if weights is not None:
        begin = folder / START
        if not is_run(folder):
            _write_start(base, weights, begin)
        # However --out is spelled, and from wherever the run is read.
        reference, why = str(begin.resolve()), f"the weights in {weights}"
    else:
        config(base)  # which knows what names there are
        reference, why = base, "its weights" if model else "the network of the package for photos"
        if not is_saved(base) and split(base)[1] is None:
            reference, _ = manifest.find(split(base)[0], None)
            why = f"{reference}, its default weights"
    spec, trained = find(reference)
    if trained is None:
        raise WeightsError(f"There are no weights of {reference}.")
    known = _preprocessing(spec, reference)
    stem = ""
    if spec.config.small and side > SMALL and isinstance(spec.config.stem, Stem):
        # Photographs: through a stem that shrinks them first.
        stem, known = _LARGE_STEM, dataclasses.replace(known, size=_LARGE_SIZE, crop=0.875)
        why += f", behind the stem {_LARGE_STEM} for photographs"
    if size is not None:
        known = dataclasses.replace(known, size=size)
    policy = _as_identity(over, spec) if over is not None else ""
    reference = f"{reference}+{policy}" if policy else reference
    return Start(reference, stem, known, _features(spec), why)


def _preprocessing(spec: ModelSpec, reference: str) -> Preprocessing:
    """What images of three channels went through for the weights of `reference`."""
    if not is_saved(reference):
        return manifest.find(*_parts(reference))[1].preprocessing.for_channels(3)
    report = build(*find(reference), seed=0).load_report
    if report is not None and report.preprocessing is not None:
        return report.preprocessing.for_channels(3)
    return usual(spec.config.input_size)


def _features(spec: ModelSpec) -> int:
    with torch.device("meta"):
        model = spec.build(seed=0)
    head = model.get_submodule(model.classifiers()[0])
    return int(head.get_parameter("weight").shape[1])


def _parts(reference: str) -> tuple[str, str | None]:
    base, tag, _ = split(reference)
    return base, tag


def _as_identity(text: str, trained: ModelSpec) -> str:
    """A policy over that of `trained`, whose new gates do nothing before they are trained."""
    with torch.device("meta"):
        sites = trained.build(seed=0).sites()
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
        except PolicyError:  # not of this form
            return rule

    return str(as_policy(text)._map(changed))


def _write_start(base: str, weights: Path, folder: Path) -> None:
    """Write the network `base` with the weights of a file to `folder`.

    Raises:
        WeightsError: The file can't be read, or is of another network.
    """
    spec = config(base)

    def make(changes: Mapping[str, object], policy: str) -> Classifier:
        return config(f"{base}+{policy}" if policy else base).replace(**changes).build(seed=0)

    state, _ = unpack.unpack(unpack.load(weights.read_bytes(), weights), weights, None)
    done = convert.by_names(state, spec.name, make)
    if done is None:
        raise WeightsError(
            f"The names in {weights} are those of no library that senetzoo knows.",
            f"They begin {', '.join(list(state)[:3])}.",
            f"Type: senetzoo weights convert {weights} --to {base} --by-structure",
        )
    convert.check_values(done)
    done.model.load_state_dict(done.state)
    known = usual(done.model.input_size).for_channels(done.model.in_chans)
    write_network(done.model, folder, classes=None, preprocessing=known)


def check_length(epochs: int | None, minutes: float | None) -> None:
    """Refuse a run without a length."""
    length = 1 if epochs is None else epochs, 1.0 if minutes is None else minutes
    if length[0] < 1 or not 0 < length[1] < math.inf:
        raise ConfigError(
            f"finetune got epochs={epochs} and minutes={minutes}.",
            "Both are numbers above 0.",
            "Type for example: epochs=10",
        )


def check_place(folder: Path, photos: str | Path) -> None:
    """Refuse a run among its photographs, for which its pictures would be taken the next time."""
    place = user_path(str(photos)).resolve()
    if place.is_dir() and folder.resolve().is_relative_to(place):
        raise ConfigError(
            f"The run would be in {folder}, among the photographs.",
            "Its pictures would be taken for photographs the next time.",
            "Give another folder with --out",
        )
