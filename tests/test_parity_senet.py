"""SENet-154 against both of timm's forms of it, on shared random weights in fp64."""

from __future__ import annotations

import pytest
import torch
from support.networks import learnable, on_meta
from torch import nn

from senetzoo import NONE, config
from senetzoo.zoo import create


def test_smallest_image() -> None:
    ceil = config("senet154").replace(depths=(1, 1), width=8, groups=8, group_width=16, pool="ceil")
    assert config("senet154").config.min_size == 1
    assert ceil.config.min_size == 3
    assert ceil.replace(stem="cifar").config.min_size == 1
    model = ceil.build(seed=0).eval()
    assert model.forward_features(torch.zeros(1, 3, 3, 3)).shape == (1, 64, 1, 1)
    with pytest.raises(RuntimeError):
        model.forward_features(torch.zeros(1, 3, 2, 2))


def test_parameters() -> None:
    assert learnable(on_meta(lambda: create("senet154", seed=0))) == 115_088_984
    bare = on_meta(lambda: create("senet154", policy=NONE, seed=0))
    # Each gate has 2 C²/16 weights and C/16 + C biases (Section 4 of the paper).
    blocks = {256: 3, 512: 8, 1024: 36, 2048: 3}
    gates = sum(n * (2 * c * (c // 16) + c // 16 + c) for c, n in blocks.items())
    assert learnable(bare) == 115_088_984 - gates


def test_what_the_appendix_lists() -> None:
    with torch.device("meta"):
        model = create("senet154", seed=0)
    layers = {path: m for path, m in model.named_modules() if isinstance(m, nn.Conv2d)}

    def shape(path: str) -> tuple[object, ...]:
        layer = layers[path]
        return layer.out_channels, layer.kernel_size[0], layer.stride[0], layer.groups

    assert [shape(f"conv1.{n}") for n in (0, 3, 6)] == [
        (64, 3, 2, 1),
        (64, 3, 1, 1),
        (128, 3, 1, 1),
    ]
    # Half as many channels as ResNeXt-152 (64x4d) has in its first 1x1.
    assert [shape(f"layer1.0.conv{n}") for n in (1, 2, 3)] == [
        (128, 1, 1, 1),
        (256, 3, 1, 64),
        (256, 1, 1, 1),
    ]
    assert [shape(f"layer{n}.0.downsample.0") for n in (1, 2, 3, 4)] == [
        (256, 1, 1, 1),
        (512, 3, 2, 1),
        (1024, 3, 2, 1),
        (2048, 3, 2, 1),
    ]
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.2]
    # 152 layers less the 7x7 and with three in its place.
    convs = [path for path in layers if "downsample" not in path]
    assert len(convs) + 1 == 154
