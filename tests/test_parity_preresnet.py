"""Pre-activation and Wide ResNets against timm and pytorchcv, on shared random weights in fp64."""

from __future__ import annotations

import pytest
import torch
from support.networks import Times, randomize, relative_error
from support.parity import TOLERANCE
from torch import Tensor, nn

from senetzoo import config
from senetzoo.models.staged import Block, basic, bottleneck
from senetzoo.nn.counting import count
from senetzoo.zoo import create


@pytest.mark.parametrize("depth", [18, 50, 20])
def test_macs_are_the_resnets(depth: int) -> None:
    """The same convolutions in another order: they cost what the ResNet's cost."""
    with torch.device("meta"):
        ours, theirs = (create(f"{line}{depth}", seed=0) for line in ("preresnet", "resnet"))
    assert count(ours).macs == count(theirs).macs


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
@torch.no_grad()
def test_positions(kind: str, stride: int) -> None:
    """A block with a gate at every position, written out."""
    outputs = 8 * stride
    width = outputs // 4
    rows = basic(outputs, stride)
    if kind == "bottleneck":
        rows = bottleneck((width, width), outputs, stride)
    shortcut = None if stride == 1 else nn.Conv2d(8, outputs, 1, stride, bias=False)
    block = Block(8, rows, shortcut, preact=True).double().eval()
    randomize(block)
    factors = {"pre": 0.5, "inner": 0.7, "standard": 1.3, "identity": 0.9, "post": 1.1}
    for position, factor in factors.items():
        block.slots.put(position, Times(factor))  # type: ignore[arg-type]
    x = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(1)).double()
    held = x.clone()

    layers = dict(block.named_children())
    p = layers["norm1"](x).relu()
    y = layers["conv1"](p * 0.5)
    if kind == "basic":
        y = layers["conv2"](layers["norm2"](y).relu() * 0.7)
    else:
        y = layers["conv2"](layers["norm2"](y).relu())
        y = layers["conv3"](layers["norm3"](y).relu() * 0.7)
    # Where the shape changes, the skip starts after the first norm and activation.
    skip = x if block.downsample is None else block.downsample(p)
    expected = (y * 1.3 + skip * 0.9) * 1.1
    assert relative_error(block(x), expected) < TOLERANCE
    assert torch.equal(x, held)


def test_maps_of_a_deep_stem() -> None:
    with torch.device("meta"):
        model = create("preresnet50", stem="deep", seed=0).eval()
        maps = model.feature_maps(torch.empty(1, 3, 64, 64))
    assert [(m.shape[1], 64 // m.shape[2], m.shape[2]) for m in maps] == [
        (info.channels, info.stride, side)
        for info, side in zip(model.feature_info, (16, 8, 4, 2), strict=True)
    ]


def test_the_last_map_is_normalized_and_activated() -> None:
    model = config("preresnet20").replace(depths=(1, 1, 1)).build(seed=0).eval()
    seen: list[Tensor] = []
    model.cam_layer.register_forward_hook(lambda _, inputs, output: seen.append(output))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        logits = model(x)
        assert len(seen) == 1
        assert seen[0].min() == 0
        assert torch.equal(model.forward_features(x), seen[0])
        maps = model.feature_maps(x)
        assert torch.equal(maps[-1], seen[0])
        # The maps before are sums, of either sign, and nothing afterwards writes into them.
        assert all(m.min() < 0 for m in maps[:-1])
        stem, layer1 = model.get_submodule("conv1"), model.get_submodule("layer1")
        assert torch.equal(layer1(stem(x)), maps[0])
        assert torch.equal(model.forward_head(maps[-1]), logits)
