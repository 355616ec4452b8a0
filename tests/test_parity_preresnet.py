"""Pre-activation and Wide ResNets against timm and pytorchcv, on shared random weights in fp64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import learnable, on_meta, randomise, relative_error
from parity import TOLERANCE, compare, from_the_pytorchcv, from_the_timm
from torch import Tensor, nn

from senetzoo import config
from senetzoo.errors import ConfigError
from senetzoo.models.preresnet import PreBasicBlock, PreBottleneck, PreResNetConfig
from senetzoo.nn.counting import count
from senetzoo.nn.drop_path import DropPath
from senetzoo.zoo import create


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_timm(depth: int) -> None:
    name = f"preresnet{depth}"
    compare(
        lambda: create(name, seed=0),
        lambda: from_the_timm(f"resnetv2_{depth}"),
        "timm",
        gradients=depth in (18, 50),
        record=(name, f"timm resnetv2_{depth}"),
    )


def test_timm_deep_stem() -> None:
    """The last of its convolutions has no norm behind it either."""
    compare(
        lambda: create("preresnet18", stem="deep", seed=0),
        lambda: from_the_timm("resnetv2_18", stem_type="deep"),
        "timm",
    )


def pooled(name: str) -> nn.Module:
    """Of pytorchcv, whose pool before the classifier is for images of 224 pixels alone."""
    model: Any = from_the_pytorchcv(name)
    model.features.final_pool = nn.AdaptiveAvgPool2d(1)
    return model  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "theirs", "changes"),
    [
        ("preresnet18", "preresnet18", {}),
        ("preresnet50", "preresnet50b", {}),
        ("preresnet50", "preresnet50", {"stride_on": "1x1"}),
        ("se_preresnet18", "sepreresnet18", {}),
    ],
)
def test_pytorchcv_imagenet(name: str, theirs: str, changes: dict[str, object]) -> None:
    """Its stem has a norm and an activation; its 50 without a b has the stride on the 1x1."""
    spec = config(name).replace(stem_norm=True, **changes)
    compare(
        lambda: spec.build(seed=0),
        lambda: pooled(theirs),
        "pytorchcv",
    )


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("preresnet20", "preresnet20_cifar10"),
        ("preresnet56", "preresnet56_cifar10"),
        ("preresnet110", "preresnet110_cifar10"),
        ("preresnet164", "preresnet164bn_cifar10"),
    ],
)
def test_pytorchcv_cifar(name: str, theirs: str) -> None:
    compare(
        lambda: create(name, seed=0),
        lambda: from_the_pytorchcv(theirs),
        "pytorchcv",
        size=32,
        gradients=name == "preresnet20",
        record=(name, f"pytorchcv {theirs}"),
    )


def gated(name: str, channels: int) -> nn.Module:
    """Of pytorchcv, whose SE networks for CIFAR lack the norm and activation at the end."""
    model: Any = from_the_pytorchcv(name)
    from pytorchcv.models.preresnet import PreResActivation

    pool = model.features.final_pool
    del model.features.final_pool
    model.features.add_module("post_activ", PreResActivation(channels))
    model.features.add_module("final_pool", pool)
    return model  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "theirs", "channels"),
    [
        ("se_preresnet20", "sepreresnet20_cifar10", 64),
        ("se_preresnet164", "sepreresnet164bn_cifar10", 256),
    ],
)
def test_pytorchcv_cifar_se(name: str, theirs: str, channels: int) -> None:
    """Block for block; its stem has a norm and an activation."""
    spec = config(name).replace(stem_norm=True)
    compare(
        lambda: spec.build(seed=0),
        lambda: gated(theirs, channels),
        "pytorchcv",
        size=32,
        gradients=name == "se_preresnet20",
    )


def wide(blocks: int, width_factor: int) -> nn.Module:
    from_the_pytorchcv("wrn16_10_cifar10")
    from pytorchcv.models.wrn_cifar import get_wrn_cifar

    model: nn.Module = get_wrn_cifar(num_classes=10, blocks=blocks, width_factor=width_factor)
    return model


@pytest.mark.parametrize(
    ("blocks", "factor"), [(16, 8), pytest.param(28, 10, marks=pytest.mark.slow)]
)
def test_pytorchcv_wide(blocks: int, factor: int) -> None:
    """pytorchcv has no name for WRN-16-8, but it builds any depth and width."""
    name = f"wrn{blocks}_{factor}"
    compare(
        lambda: create(name, seed=0),
        lambda: wide(blocks, factor),
        "pytorchcv",
        size=32,
        record=(name, f"pytorchcv get_wrn_cifar({blocks}, {factor})"),
    )


def test_pytorchcv_wide_shallow() -> None:
    """One block a stage, as wide as WRN-28-10: what is added to that is more of the same."""
    shallow = config("wrn28_10").replace(depths=(1, 1, 1))
    compare(
        lambda: shallow.build(seed=0),
        lambda: wide(10, 10),
        "pytorchcv",
        size=32,
    )


def test_pytorchcv_wide_gradients() -> None:
    narrow = config("wrn16_8").replace(widen=2)
    compare(
        lambda: narrow.build(seed=0),
        lambda: wide(16, 2),
        "pytorchcv",
        size=32,
        gradients=True,
    )


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("preresnet18", 11_687_720),
        ("preresnet34", 21_795_880),
        ("preresnet50", 25_549_352),
        ("preresnet101", 44_541_480),
        ("preresnet20", 272_282),
        ("preresnet56", 855_578),
        ("preresnet110", 1_730_522),
        ("preresnet164", 1_703_258),
        ("wrn16_8", 10_961_370),
        ("wrn28_10", 36_479_194),
    ],
)
def test_parameters(name: str, parameters: int) -> None:
    """Those of pytorchcv, for ImageNet less the two times 64 of its stem's norm."""
    assert learnable(on_meta(lambda: create(name, seed=0))) == parameters


@pytest.mark.parametrize("depth", [18, 50, 20])
def test_macs_are_the_resnets(depth: int) -> None:
    """The same convolutions in another order: they cost what the ResNet's cost."""
    with torch.device("meta"):
        ours, theirs = (create(f"{line}{depth}", seed=0) for line in ("preresnet", "resnet"))
    assert count(ours).macs == count(theirs).macs


@pytest.mark.parametrize(
    ("name", "billions"),
    [("preresnet18", 1.82), ("preresnet34", 3.67), ("preresnet50", 4.11), ("preresnet101", 7.83)],
)
def test_published_macs(name: str, billions: float) -> None:
    """timm's figures, which have the norms' and pools' operations in them, about half a percent."""
    published = billions * 1e9
    with torch.device("meta"):
        model = create(name, seed=0)
    assert 0 <= published - count(model).macs < 0.006 * published


class Times(nn.Module):
    """A gate whose effect can be told from any other's."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
@torch.no_grad()
def test_positions(kind: str, stride: int) -> None:
    """A block with a gate at every position, written out."""
    outputs = 8 * stride
    if kind == "basic":
        block: PreBasicBlock | PreBottleneck = PreBasicBlock(8, outputs, stride)
    else:
        block = PreBottleneck(8, outputs, (1, stride))
    block = block.double().eval()
    randomise(block)
    factors = {"pre": 0.5, "inner": 0.7, "standard": 1.3, "identity": 0.9, "post": 1.1}
    for position, factor in factors.items():
        block.slots.put(position, Times(factor))  # type: ignore[arg-type]
    x = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(1)).double()
    held = x.clone()

    p = block.norm1(x).relu()
    y = block.conv1(p * 0.5)
    if isinstance(block, PreBasicBlock):
        y = block.conv2(block.norm2(y).relu() * 0.7)
    else:
        y = block.conv2(block.norm2(y).relu())
        y = block.conv3(block.norm3(y).relu() * 0.7)
    # Where the shape changes, the skip starts after the first norm and activation.
    skip = x if block.downsample is None else block.downsample(p)
    assert (block.downsample is None) == (stride == 1)
    expected = (y * 1.3 + skip * 0.9) * 1.1
    assert relative_error(block(x), expected) < TOLERANCE
    assert torch.equal(x, held)


@pytest.mark.parametrize(
    ("name", "stem", "sides"),
    [
        ("preresnet18", "cifar", (32, 16, 8, 4)),
        ("preresnet50", "deep", (16, 8, 4, 2)),
        ("preresnet20", "cifar", (32, 16, 8)),
        ("wrn16_8", "cifar", (32, 16, 8)),
    ],
)
def test_maps(name: str, stem: str, sides: tuple[int, ...]) -> None:
    model = create(name, stem=stem, seed=0).to("meta").eval()
    side = 64 if stem == "deep" else 32
    maps = model.feature_maps(torch.empty(1, 3, side, side, device="meta"))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (info.channels, side, side) for info, side in zip(model.feature_info, sides, strict=True)
    ]
    assert [side // info.stride for info in model.feature_info] == list(sides)


def test_the_last_map_is_normalised_and_activated() -> None:
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"block": "basic", "stride_on": "1x1"},
            "A basic block got stride_on='1x1'.\n"
            "Basic blocks have two 3x3 convolutions and the stride on the first.\n"
            'Type for example: block="bottleneck"',
        ),
        (
            {"widen": 0},
            "PreResNet got widen=0.\n"
            "widen is a whole number of at least 1.\n"
            "Type for example: widen=1",
        ),
        (
            {"stem_norm": 1},
            "PreResNet got stem_norm=1.\n"
            "stem_norm is True or False.\n"
            "Type for example: stem_norm=False",
        ),
        (
            {"block": "wide"},
            "PreResNet got block='wide'.\nblock is one of 'basic', 'bottleneck'.",
        ),
        (
            {"stride_on": "first"},
            "PreResNet got stride_on='first'.\n"
            "stride_on is one of '1x1', '3x3'.\n"
            "Type for example: stride_on='3x3'",
        ),
    ],
)
def test_wrong_configs(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config("preresnet50").replace(**changes)
    assert str(caught.value) == message


def test_stochastic_depth_rises_with_depth() -> None:
    model = PreResNetConfig(
        block="bottleneck", depths=(2, 3), width=8, num_classes=5, stem="cifar", drop_path=0.4
    ).build()
    rates = [
        block.drop_path.rate if isinstance(block.drop_path, DropPath) else 0.0
        for blocks in model.stages()
        for block in blocks
    ]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
