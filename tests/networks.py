"""Small networks drawn at random: any family that is cheap, any fields, stems and gates."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from helpers import randomise
from torch import Tensor

from senetzoo import BAM, CBAM, ECA, GE, SE, SRM, CoordinateAttention, Stem, attach, detach
from senetzoo.errors import SenetzooError
from senetzoo.models.densenet import DenseNetConfig
from senetzoo.models.lenet import LeNetConfig
from senetzoo.models.mobilenet import MobileNetConfig
from senetzoo.models.plain import PlainConfig
from senetzoo.models.preresnet import PreResNetConfig
from senetzoo.models.resnet import ResNetConfig
from senetzoo.models.swin import SwinConfig
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.config import Config
from senetzoo.policies.algebra import NONE, Gate
from senetzoo.policies.recover import recovered
from senetzoo.spec import ModelSpec

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
    randomise(model, seed)
    return model.eval()


def images(model: Classifier, number: int = 2, size: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(number, model.in_chans, size, size, generator=generator)


def same(ours: Classifier, theirs: Classifier) -> bool:
    """Whether two networks hold the same tensors."""
    a, b = ours.state_dict(), theirs.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def message(run: Callable[[], object], kind: type[SenetzooError]) -> str:
    """The message of the error that `run` raises."""
    with pytest.raises(kind) as caught:
        run()
    return str(caught.value)
