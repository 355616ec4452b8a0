"""What images go through before a network sees them."""

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
    """What an image goes through before `model` sees it, as a callable value.

    Args:
        model: A network, or one in a wrapper of torch (`DataParallel`, `torch.compile`). With
            trained weights, it is what they were trained with (for other input channels than the
            weights', the mean and std are averaged); without, or where the weights do not say, the
            usual for its size: CIFAR-10's statistics at 32 pixels, else ImageNet's and the center
            of 224 / 256 of each side.

    Raises:
        ConfigError: `model` is no network of this zoo, or takes neither gray nor RGB images.
    """
    model, _ = inside(model)
    if not isinstance(model, Classifier):
        raise ConfigError(
            f"transforms got a {type(model).__name__}.",
            "It takes networks made by senetzoo.create.",
            'Type for example: transforms(create("resnet50"))',
        )
    channels = model.in_chans
    if channels not in (1, 3):
        raise ConfigError(
            f"There are no transforms for images of {channels} channels.",
            "Image files are read as gray (1 channel) or RGB (3 channels).",
            "Stack and normalize the channels yourself: the network takes a plain tensor "
            f"(N, {channels}, H, W)",
        )
    report = model.load_report
    if report is not None and report.preprocessing is not None:
        return report.preprocessing.for_channels(channels)
    assumed = usual(model.input_size).for_channels(channels)
    if report is not None:
        terminal.say_once(
            f"The weights {report.tag} do not say how images were preprocessed: assuming "
            f"{assumed}. State it with preprocessing=, or --mean, --std, --size and --crop."
        )
    return assumed


def state(model: Classifier, stated: Preprocessing | Mapping[str, Any]) -> None:
    """Note the preprocessing that a user states for the weights of `model`.

    Raises:
        ConfigError: There are no weights, or it is for other channels than theirs.
    """
    report, channels = model.load_report, model.in_chans
    if report is None:
        raise ConfigError(
            "A preprocessing was given without weights.",
            "It says what images went through when the weights were trained.",
            "Leave it out, or type pretrained=True",
        )
    if isinstance(stated, Mapping):
        known = report.preprocessing or usual(model.input_size)
        stated = known.for_channels(channels).replace(**stated)
    if stated.channels != channels:
        raise ConfigError(
            f"The preprocessing is for {stated.channels} channels.",
            f"The network takes {channels}.",
            "Give a mean and a std for each channel",
        )
    model.load_report = dataclasses.replace(report, preprocessing=stated)
