"""The preprocessing of a network's input images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from senetzoo._utils import terminal
from senetzoo.errors import ConfigError
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.modes import inside
from senetzoo.nn.preprocessing import Preprocessing, usual


def transforms(model: nn.Module) -> Preprocessing:
    """The preprocessing of a network's input images, as a callable value.

    Returns the preprocessing that the weights were trained with; mean and std are averaged if the
    network has other input channels than the weights. Without weights, or if they don't state it,
    returns the usual one for the network's input size: CIFAR-10's statistics at 32 pixels,
    otherwise ImageNet's with a center crop of 224 / 256.

    Args:
        model: A network, possibly wrapped by torch (`DataParallel`, `torch.compile`).

    Raises:
        ConfigError: `model` isn't a network of this zoo, or takes neither gray nor RGB images.
    """
    model, _ = inside(model)
    if not isinstance(model, Classifier):
        raise ConfigError(
            f"transforms got a {type(model).__name__}.",
            "It takes a network made by senetzoo.create.",
            'Type for example: transforms(create("resnet50"))',
        )
    channels = model.in_chans
    if channels not in (1, 3):
        raise ConfigError(
            f"There are no transforms for images with {channels} channels.",
            "Image files are read as gray (1 channel) or RGB (3 channels).",
            f"Stack and normalize the channels yourself: the network takes (N, {channels}, H, W)",
        )
    report = model.load_report
    if report is not None and report.preprocessing is not None:
        return report.preprocessing.for_channels(channels)
    assumed = usual(model.input_size).for_channels(channels)
    if report is not None:
        terminal.say_once(
            f"The weights {report.tag} don't state their preprocessing: assuming "
            f"{assumed}. State it with preprocessing=, or --mean, --std, --size and --crop."
        )
    return assumed


def completed(model: Classifier, stated: Preprocessing | Mapping[str, Any]) -> Preprocessing:
    """The preprocessing that a user stated for `model`, whole or in part.

    Raises:
        ConfigError: It is neither, or has an unknown field.
    """
    if isinstance(stated, Preprocessing):
        return stated
    if not isinstance(stated, Mapping):
        raise ConfigError(
            f"A preprocessing can't be {stated!r}.",
            "It is what senetzoo.transforms(model) returns, or those of its fields that differ.",
            'Type for example: preprocessing={"mean": (0.5,), "std": (0.5,)}',
        )
    report = model.load_report
    known = (report and report.preprocessing) or usual(model.input_size)
    spread = {  # one mean or std is that of every channel
        name: tuple(value) * model.in_chans
        for name, value in stated.items()
        if name in ("mean", "std") and isinstance(value, (tuple, list)) and len(value) == 1
    }
    return known.for_channels(model.in_chans).replace(**{**stated, **spread})


def state(model: Classifier, stated: Preprocessing | Mapping[str, Any]) -> None:
    """Set the preprocessing of the weights of `model`, as stated by the user.

    Raises:
        ConfigError: There are no weights, or the number of channels differs.
    """
    report, channels = model.load_report, model.in_chans
    if report is None:
        raise ConfigError(
            "A preprocessing was given without weights.",
            "It describes the images that weights were trained on.",
            "Leave it out, or type pretrained=True",
        )
    stated = completed(model, stated)
    if stated.channels != channels:
        raise ConfigError(
            f"The preprocessing is for {stated.channels} channels.",
            f"The network takes {channels}.",
            "Give a mean and a std for each channel",
        )
    model.load_report = dataclasses.replace(report, preprocessing=stated)
