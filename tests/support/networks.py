"""Small networks, random weights and images that several test files need."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from senetzoo import (
    BAM,
    CBAM,
    ECA,
    ELA,
    ESE,
    FCA,
    GC,
    GCT,
    GE,
    SCSE,
    SE,
    SGE,
    SRM,
    CoordinateAttention,
    MultiScaleAttention,
    NonLocal,
    ShuffleAttention,
    SimAM,
    TripletAttention,
    attach,
    detach,
)
from senetzoo.models.densenet import DenseNetConfig
from senetzoo.models.lenet import LeNetConfig
from senetzoo.models.mobilenet import MobileNetConfig
from senetzoo.models.plain import PlainConfig
from senetzoo.models.preresnet import PreResNetConfig
from senetzoo.models.resnet import ResNetConfig
from senetzoo.models.staged import ResNet
from senetzoo.models.swin import SwinConfig
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.slots import Layout, Site
from senetzoo.nn.stem import Stem
from senetzoo.policies.algebra import NONE, Gate
from senetzoo.policies.recover import recovered
from senetzoo.spec import ModelSpec
from senetzoo.zoo import config

ModuleT = TypeVar("ModuleT", bound=nn.Module)
Network = TypeVar("Network", bound=Classifier)


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
    "RepVGG": "repvgg_a0",
    "GoogLeNet": "googlenet_bn",
    "BN-Inception": "bn_inception",
    "Inception v2": "inception_v2",
    "Inception v3": "inception_v3",
    "Inception v4": "inception_v4",
    "Inception-ResNet": "inception_resnet_v1",
    "Xception": "xception",
    "ResNet": "resnet20",
    "Plain": "plain20",
    "PreResNet": "preresnet20",
    "SENet": "senet154",
    "SKNet": "skresnet18",
    "ResNeSt": "resnest50",
    "DenseNet": "densenet40_12",
    "SqueezeNet": "squeezenet1_1",
    "MobileNet": "mobilenet_v1_025",
    "MobileNetV2": "mobilenet_v2_035",
    "ShuffleNetV2": "shufflenet_v2_x0_5",
    "MNASNet": "mnasnet0_5",
    "MobileNetV3": "mobilenet_v3_small",
    "GhostNet": "ghostnet_100",
    "EfficientNet": "efficientnet_b0",
    "RegNet": "regnet_y_400mf",
    "Swin": "swin_t",
    "ConvNeXt": "convnext_tiny",
}

# With others these stand for the registry: each of those has a block, a stem or a head of its own.
# Tests of one network after the other have the rest with --slow.
KINDS = {
    *SMALL.values(),
    *("lenet5", "alexnet_2012", "vgg11_bn", "vgg11_lrn", "vgg16_c", "googlenet", "resnet18"),
    *("resnet20a", "resnet50", "resnext50_32x4d", "plain18", "preresnet50", "wrn16_8"),
    *("densenet121", "densenet_bc_100_12", "mobilenet_v3_large", "efficientnet_v2_s"),
}


# Fields that make such a network a shallow one, with every kind of block: the
# others of its kind hold nothing new.
SHALLOW: dict[str, dict[str, Any]] = {
    "senet154": {"depths": (1, 2, 1, 1)},
    "swin_t": {"depths": (2, 2, 2, 2)},
    "inception_resnet_v1": {"depths": (1, 1, 2)},
    "densenet40_12": {"depths": (3, 3, 3)},
    "efficientnet_v2_s": {"depth": 0.2},
    "xception": {"middle": 1},
    "skresnet18": {"depths": (1, 1, 1), "width": 32},
    "resnest50": {"depths": (1, 1, 1), "width": 32},
    "repvgg_a0": {"depths": (2, 1), "width": 0.25, "last": 0.5},
    "ghostnet_100": {"width": 0.5},
    "shufflenet_v2_x0_5": {"depths": (2, 1, 1)},
    "convnext_tiny": {"depths": (1, 2, 1, 1)},
}


def reduced(name: str) -> ModelSpec:
    """The network called `name`, or a shallow one of its kind where that is large."""
    return config(name).replace(**SHALLOW.get(name.removeprefix("se_"), {}))


def on_meta(build: Callable[[], ModuleT]) -> ModuleT:
    """What `build` builds, without memory or random draws."""
    with torch.device("meta"):
        return build()


def built(kind: type[Network], name: str, **changes: Any) -> Network:
    """The network called `name`, with `changes`."""
    model = config(name).replace(**changes).build(seed=0)
    assert isinstance(model, kind)
    return model


def skeleton(kind: type[Network], name: str, **changes: Any) -> Network:
    """The same without memory or weights."""
    return on_meta(lambda: built(kind, name, **changes))


def learnable(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def randomize(model: nn.Module, seed: int = 0) -> None:
    """Fill every parameter with values that keep activations of order one; reset batch norms."""
    # Ten times as fast as torch's generator, which for large networks took longer than the test.
    draw = np.random.Generator(np.random.SFC64(seed))
    for name, parameter in model.named_parameters():
        low, high = -0.5, 0.5
        if parameter.ndim > 1:
            high = math.sqrt(6 / parameter[0].numel())
            low = -high
        elif name.endswith("weight"):
            low, high = 0.5, 1.5
        values = torch.from_numpy(draw.random(tuple(parameter.shape), dtype=np.float32))
        parameter.copy_(values).mul_(high - low).add_(low)
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


EVERY_GATE: tuple[Gate, ...] = (
    *(SE(4), ECA(), CBAM(4), SCSE(), GE(), GE(extent=2, variant="theta"), SRM(), GCT()),
    *(CoordinateAttention(4), ESE(), BAM(4), SimAM(), GC(), TripletAttention(3), SGE(4), FCA(1)),
    *(ShuffleAttention(4), MultiScaleAttention(4), ELA(), NonLocal()),
)
"""A form of every gate, with few parameters; two of GE."""

GATES: list[Gate] = [
    SE(),
    SE(reduction=4, bias=False, act="silu", gate="hardsigmoid"),
    SE(reduction=3, width="round8", squeeze="max", scale=1.5),
    SE(init="identity"),
    ECA(),
    ECA(init="identity"),
    CBAM(reduction=2),
    GE(),
    SRM(),
    CoordinateAttention(),
    BAM(reduction=4),
]


STEMS: list[Stem | str] = [
    "cifar",
    Stem((5,), (1,)),
    Stem((3, 1), (1, 2), (0.5, 1.0)),
    Stem((3, 3), (1, 1), (0.25, 1.0), pool=True),
]
BLOCKS: list[Literal["basic", "bottleneck"]] = ["basic", "bottleneck"]


def drawn_config(draw: random.Random) -> Config:
    """A config whose network has some ten thousand parameters."""
    free: dict[str, Any] = {
        "num_classes": draw.randint(2, 12),
        "in_chans": draw.choice([1, 3, 3, 4]),
        "dropout": draw.choice([0.0, 0.25]),
    }
    stem = draw.choice(STEMS)
    kind = draw.randrange(7)
    if kind == 0:
        block = draw.choice(BLOCKS)
        grouped: dict[str, Any] = {}
        if block != "basic":
            grouped = {"groups": 2, "group_width": 32, "stride_on": "1x1"}
        return ResNetConfig(
            block=block,
            depths=(1, 2),
            width=8,
            stem=stem,
            drop_path=draw.choice([0.0, 0.1]),
            pool=draw.choice(["padded", "ceil"]),
            shortcut=draw.choice(["project", "pad"]),
            **grouped,
            **free,
        )
    if kind == 1:
        return PlainConfig(depths=(2, 1), width=8, stem=stem, **free)
    if kind == 2:
        norm = draw.random() < 0.5
        return PreResNetConfig(
            block="basic", depths=(1, 1), width=8, widen=2, stem=stem, stem_norm=norm, **free
        )
    if kind == 3:
        return DenseNetConfig(
            depths=(2, 2), growth=6, width=12, stem=stem, compression=0.75, **free
        )
    if kind == 4:
        return LeNetConfig(act=draw.choice(["relu", "tanh"]), **free)
    if kind == 5:
        return MobileNetConfig(width=0.125, stem="cifar", act="relu", **free)
    return SwinConfig(embed_dim=8, depths=(1, 2), heads=(1, 2), stem="cifar", **free)


def drawn_network(seed: int) -> Classifier:
    """A network of a drawn config with drawn gates: built in, attached later, taken out again."""
    draw = random.Random(seed)
    model = ModelSpec("drawn", drawn_config(draw), NONE).build(seed=seed)
    for _ in range(draw.randint(0, 3)):
        kinds = draw.sample(GATES, draw.randint(1, 2))
        chosen = {site: draw.choice(kinds) for site in model.sites() if draw.random() < 0.4}
        attach(model, recovered(chosen, model.sites()), seed=draw.randrange(100))
        if draw.random() < 0.1:
            detach(model)
    if draw.random() < 0.3:
        model.reset_classifier(draw.randint(1, 20))
    randomize(model, seed)
    return model.eval()


def images(*shape: int, seed: int = 1) -> Tensor:
    """Random numbers of fp64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def images_of(model: Classifier, number: int = 2, size: int = 0) -> Tensor:
    """Images for `model`; by default small ones, which leave the last stage a few pixels."""
    size = size or max(16, model.min_size)
    return images(number, model.in_chans, size, size).float()


def same(ours: nn.Module, theirs: nn.Module) -> bool:
    """Whether two networks hold the same tensors, in the same order."""
    return list(ours.state_dict()) == list(theirs.state_dict()) and same_tensors(ours, theirs)


def same_tensors(ours: nn.Module, theirs: nn.Module) -> bool:
    """Whether two networks hold the same tensors, in whatever order gates were attached."""
    a, b = ours.state_dict(), theirs.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def message(call: Callable[[], object], kind: type[BaseException]) -> str:
    """The message of the error of `kind` that `call` raises."""
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def gate_site(channels: int, *, stage: int = 1, stages: int = 4, layout: Layout = "nchw") -> Site:
    return Site(
        path="x.standard",
        stage=stage,
        block=1,
        stages=stages,
        blocks=1,
        position="standard",
        channels=channels,
        layout=layout,
    )


def gate_module(spec: Gate, channels: int, *, layout: Layout = "nchw", seed: int = 0) -> nn.Module:
    """The gate's module in fp64, every parameter and every running statistic random."""
    module = spec.build(gate_site(channels, layout=layout)).double()
    randomize(module, seed)
    generator = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.uniform_(-0.5, 0.5, generator=generator)
            norm.running_var.uniform_(0.5, 1.5, generator=generator)
    return module


class Times(nn.Module):
    """A gate whose effect can be told from any other's: it multiplies by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor
