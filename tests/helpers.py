"""What several test files need: small networks, random weights, names of other libraries."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from senetzoo.models.resnet import ResNet, ResNetConfig
from senetzoo.nn.stem import Stem
from senetzoo.spec import ModelSpec
from senetzoo.zoo import config


def keep_record(name: str, line: Mapping[str, object]) -> None:
    """Append `line` to ``name.jsonl`` in the folder SENETZOO_RECORDS, if that is set."""
    if "SENETZOO_RECORDS" in os.environ:
        path = Path(os.environ["SENETZOO_RECORDS"]) / f"{name}.jsonl"
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def tiny(
    block: Literal["basic", "bottleneck"] = "basic",
    *,
    depths: tuple[int, ...] = (1, 2),
    width: int = 8,
    stem: Stem | str = "cifar",
    drop_path: float = 0.0,
) -> ResNet:
    """A ResNet of a few thousand parameters with five classes."""
    return ResNetConfig(
        block=block, depths=depths, width=width, stem=stem, num_classes=5, drop_path=drop_path
    ).build()


# A small network of each family, by the family's title: it stands for the others where a test is
# of the class, not of its sizes.
SMALL = {
    "LeNet": "lenet",
    "AlexNet": "alexnet",
    "VGG": "vgg11",
    "GoogLeNet": "googlenet_bn",
    "BN-Inception": "bn_inception",
    "Inception v2": "inception_v2",
    "Inception v3": "inception_v3",
    "Inception v4": "inception_v4",
    "Inception-ResNet": "inception_resnet_v1",
    "ResNet": "resnet20",
    "Plain": "plain20",
    "PreResNet": "preresnet20",
    "SENet": "senet154",
    "DenseNet": "densenet40_12",
    "MobileNet": "mobilenet_v1_025",
    "EfficientNet": "efficientnet_b0",
    "Swin": "swin_t",
}

# With others these stand for the registry: each of those has a block, a stem or a head of its own.
# Tests of one network after the other have the rest with --slow.
KINDS = {
    *SMALL.values(),
    *("lenet5", "alexnet_2012", "vgg11_bn", "vgg11_lrn", "vgg16_c", "googlenet", "resnet18"),
    *("resnet20a", "resnet50", "resnext50_32x4d", "plain18", "preresnet50", "wrn16_8"),
    *("densenet121", "densenet_bc_100_12"),
}


# Fields that make such a network a shallow one, with every kind of block: the
# others of its kind hold nothing new.
SHALLOW: dict[str, dict[str, Any]] = {
    "senet154": {"depths": (1, 2, 1, 1)},
    "swin_t": {"depths": (2, 2, 2, 2)},
    "inception_resnet_v1": {"depths": (1, 1, 2)},
    "densenet40_12": {"depths": (3, 3, 3)},
}


def reduced(name: str) -> ModelSpec:
    """The network called `name`, or a shallow one of its kind where that is large."""
    return config(name).replace(**SHALLOW.get(name.removeprefix("se_"), {}))


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """What `build` builds, without memory or random draws."""
    with torch.device("meta"):
        return build()


def learnable(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> None:
    """Fill every parameter with values that keep activations of order one; reset batch norms."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            bound = math.sqrt(6 / parameter[0].numel())
            parameter.uniform_(-bound, bound, generator=generator)
        elif name.endswith("weight"):
            parameter.uniform_(0.5, 1.5, generator=generator)
        else:
            parameter.uniform_(-0.5, 0.5, generator=generator)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.reset_running_stats()


def calibrate_on_next_batch(model: nn.Module) -> None:
    """Make batch norms take over the statistics of the next training-mode batch as they are."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = 1.0


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over the largest value; fails where that would mean nothing."""
    assert ours.shape == theirs.shape
    assert bool(torch.isfinite(theirs).all())
    assert bool(torch.isfinite(ours).all())
    scale = theirs.abs().max().item()
    assert scale > 0
    return (ours - theirs).abs().max().item() / scale
