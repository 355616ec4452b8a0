"""Inception-ResNet v1 and v2 against timm and pytorchcv, on shared random weights in fp64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.inception import shapes
from support.networks import learnable, skeleton

from senetzoo import SE
from senetzoo.models.inception_resnet import InceptionResNet, InceptionResNetConfig
from senetzoo.nn.counting import count
from senetzoo.nn.drop_path import DropPath
from senetzoo.policies.attach import attach
from senetzoo.zoo import create

# Blocks of each stage of the published weights.
DEPTHS = {"v1": (5, 10, 6), "v2": (10, 20, 10)}


def build(version: str, **changes: Any) -> InceptionResNet:
    return skeleton(InceptionResNet, f"inception_resnet_{version}", **changes)


def test_parameters_and_macs() -> None:
    v1, v2 = count(build("v1")), count(build("v2"))
    assert v1.params == 23_995_624
    assert v2.params == 55_843_464
    # timm's 13.18 and pytorchcv's 13.189 and 6.330 count norms or pools too. The SE paper's 11.75
    # is of a re-implementation whose widths it does not give; what its gates add is the same.
    assert round(v1.macs / 1e9, 2) == 6.31
    assert round(v2.macs / 1e9, 2) == 13.16
    with torch.device("meta"):
        gated = count(create("se_inception_resnet_v2", seed=0))
    assert round((gated.macs - v2.macs) / 1e9, 2) == 0.01


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_depths_of_the_paper(version: str) -> None:
    """Its block counts are 5, 10, 5: a block less or more costs what a block costs."""
    model = build(version)
    blocks = [stage[-2] for stage in model.stages()]
    less = [had - has for had, has in zip(DEPTHS[version], (5, 10, 5), strict=True)]
    shorter = build(version, depths=(5, 10, 5))
    expected = sum(n * learnable(block) for n, block in zip(less, blocks, strict=True))
    assert learnable(model) - learnable(shorter) == expected
    first = 5 if version == "v1" else 6
    assert [len(stage) for stage in shorter.stages()] == [first, 11, 6]


def test_table() -> None:
    stem = {
        "conv2d_1a": (32, 149),
        "conv2d_2a": (32, 147),
        "conv2d_2b": (64, 147),
        "maxpool_3a": (64, 73),
        "conv2d_3b": (80, 73),
        "conv2d_4a": (192, 71),
    }
    v1 = {
        **stem,
        "conv2d_4b": (256, 35),
        **{f"repeat.{i}": (256, 35) for i in range(5)},
        "mixed_6a": (896, 17),
        **{f"repeat_1.{i}": (896, 17) for i in range(10)},
        "mixed_7a": (1792, 8),
        **{f"repeat_2.{i}": (1792, 8) for i in range(5)},
        "block8": (1792, 8),
    }
    v2 = {
        **stem,
        "maxpool_5a": (192, 35),
        "mixed_5b": (320, 35),
        **{f"repeat.{i}": (320, 35) for i in range(10)},
        "mixed_6a": (1088, 17),
        **{f"repeat_1.{i}": (1088, 17) for i in range(20)},
        "mixed_7a": (2080, 8),
        **{f"repeat_2.{i}": (2080, 8) for i in range(9)},
        "block8": (2080, 8),
        "conv2d_7b": (1536, 8),
    }
    assert shapes(build("v1"), list(v1), 299) == list(v1.values())
    assert shapes(build("v2"), list(v2), 299) == list(v2.values())


def test_standard_comes_after_the_scaling() -> None:
    """What a gate there sees is the residual times its scale; 1 in the last block."""
    model = InceptionResNetConfig(version="v2", depths=(1, 1, 2), stem="cifar").build().eval()
    gates = attach(model, SE(), seed=0)
    seen: dict[str, torch.Tensor] = {}
    for site, gate in gates.items():
        gate.register_forward_pre_hook(lambda _m, x, path=site.path: seen.__setitem__(path, x[0]))
    for scale, path in (
        (0.17, "repeat.0"),
        (0.1, "repeat_1.0"),
        (0.2, "repeat_2.0"),
        (1.0, "block8"),
    ):
        block = model.get_submodule(path)
        conv = block.get_submodule("conv2d")
        conv.register_forward_hook(
            lambda _m, _x, y, path=path, scale=scale: seen.__setitem__(path, y * scale)
        )
    with torch.no_grad():
        model(torch.randn(1, 3, 12, 12))
    for path in ("repeat.0", "repeat_1.0", "repeat_2.0", "block8"):
        assert torch.equal(seen[f"{path}.slots.standard"], seen[path])


def test_drop_path_rises_over_the_residual_blocks() -> None:
    model = build("v2", depths=(2, 2, 2), drop_path=0.5)
    rates = [module.rate for module in model.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert model.get_submodule("block8.drop_path") is not None
