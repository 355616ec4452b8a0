"""The forms for small images, the smallest images and the sites of every family, as tables."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from support.networks import skeleton

from senetzoo import config
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.slots import POSITIONS

# Channels and side of each map of an image of 32x32 pixels.
SMALL = {
    ("vgg11", "vgg11_lrn", "vgg16_c_bn", "vgg19"): [
        (64, 16), (128, 8), (256, 4), (512, 4), (512, 4),
    ],
    ("googlenet", "googlenet_bn"): [(480, 32), (832, 16), (1024, 8)],
    ("bn_inception",): [(320, 32), (608, 16), (1024, 8)],
    ("inception_v2",): [(288, 32), (768, 15), (2048, 7)],
    ("inception_v3",): [(288, 32), (768, 16), (2048, 8)],
    ("inception_v4",): [(384, 32), (1024, 16), (1536, 8)],
    ("inception_resnet_v1",): [(256, 32), (896, 16), (1792, 8)],
    ("inception_resnet_v2",): [(320, 32), (1088, 16), (1536, 8)],
    ("alexnet", "alexnet_2012"): [(None, 16), (None, 8), (256, 4)],
    ("plain18", "preresnet18"): [(64, 32), (128, 16), (256, 8), (512, 4)],
    ("plain20", "preresnet20"): [(16, 32), (32, 16), (64, 8)],
    ("wrn16_8",): [(128, 32), (256, 16), (512, 8)],
    ("senet154",): [(256, 32), (512, 16), (1024, 8), (2048, 4)],
    ("densenet121",): [(None, 32), (None, 16), (None, 8), (1024, 4)],
    ("densenet40_12", "densenet_bc_100_12"): [(None, 32), (None, 16), (None, 8)],
    ("mobilenet_v1",): [(64, 32), (128, 32), (256, 16), (512, 8), (1024, 4)],
    ("efficientnet_b0",): [
        (16, 32), (24, 32), (40, 16), (80, 8), (112, 8), (192, 4), (1280, 4),
    ],
    ("efficientnet_v2_s",): [(24, 32), (48, 32), (64, 16), (128, 8), (160, 8), (1280, 4)],
    ("mobilenet_v2",): [
        (16, 32), (24, 32), (32, 16), (64, 8), (96, 8), (160, 4), (1280, 4),
    ],
    ("mobilenet_v3_large",): [(16, 32), (24, 32), (40, 16), (80, 8), (112, 8), (960, 4)],
    ("mobilenet_v3_small",): [(16, 32), (24, 16), (40, 8), (48, 8), (576, 4)],
    ("regnet_y_400mf",): [(48, 32), (104, 16), (208, 8), (440, 4)],
    ("squeezenet1_0",): [(256, 32), (512, 16), (512, 8)],
    ("squeezenet1_1",): [(128, 32), (256, 16), (512, 8)],
    ("shufflenet_v2_x1_0",): [(116, 16), (232, 8), (1024, 4)],
    ("mnasnet1_0",): [(24, 32), (40, 16), (80, 8), (96, 8), (192, 4), (1280, 4)],
    ("xception",): [(128, 32), (256, 16), (728, 8), (2048, 4)],
    ("repvgg_a0",): [(48, 32), (48, 32), (96, 16), (192, 8), (1280, 4)],
    ("ghostnet_100",): [(16, 32), (24, 32), (40, 16), (112, 8), (960, 4)],
    ("skresnet18",): [(64, 32), (128, 16), (256, 8), (512, 4)],
    ("resnest50",): [(256, 32), (512, 16), (1024, 8), (2048, 4)],
    ("convnext_tiny",): [(96, 32), (192, 16), (384, 8), (768, 4)],
    ("swin_t", "swin_s"): [(96, 16), (192, 8), (384, 4), (768, 4)],
    ("swin_b",): [(128, 16), (256, 8), (512, 4), (1024, 4)],
}  # fmt: skip


@pytest.mark.parametrize(
    ("network", "maps"), [(name, maps) for names, maps in SMALL.items() for name in names]
)
def test_small_form(network: str, maps: list[tuple[int | None, int]]) -> None:
    model = skeleton(Classifier, network, stem="cifar", num_classes=10).eval()
    assert model.input_size == 32
    found = model.feature_maps(torch.empty(1, 3, 32, 32, device="meta"))
    assert [tuple(y.shape[1:]) for y in found] == [
        (channels or info.channels, side, side)
        for (channels, side), info in zip(maps, model.feature_info, strict=True)
    ]
    # Where everything is padded the stride is what the map says.
    if network != "inception_v2":
        assert [(y.shape[1], 32 // y.shape[2]) for y in found] == [
            (info.channels, info.stride) for info in model.feature_info
        ]


@pytest.mark.parametrize(
    ("network", "changes"),
    [("inception_v3", {"aux": True}), ("inception_v4", {}), ("inception_resnet_v1", {}),
     ("inception_resnet_v2", {})],
)  # fmt: skip
def test_small_form_has_the_parameters_of_the_other(network: str, changes: dict[str, Any]) -> None:
    large, small = (
        skeleton(Classifier, network, stem=stem, **changes) for stem in ("imagenet", "cifar")
    )
    expected = {name: tensor.shape for name, tensor in large.state_dict().items()}
    assert {name: tensor.shape for name, tensor in small.state_dict().items()} == expected


# Forms beside those of the registry, whose smallest images test_every_network finds.
AUX = [(name, stem) for name in ("googlenet", "googlenet_bn") for stem in ("imagenet", "cifar")]


@pytest.mark.parametrize(
    ("network", "changes", "least"),
    [
        *((name, {"aux": True, "stem": stem}, None) for name, stem in AUX),
        ("alexnet", {}, 63),
        ("alexnet_2012", {}, 67),
        ("alexnet_2012", {"padding": 2}, 63),
        ("vgg13", {"head": "dense"}, 224),
        ("bn_inception", {}, 7),
        ("mobilenet_v1", {}, 1),
        ("efficientnet_b0", {}, 1),
        ("inception_resnet_v2", {"depths": (1, 1, 2)}, 75),
    ],
)
def test_the_smallest_image(network: str, changes: dict[str, Any], least: int | None) -> None:
    model = skeleton(Classifier, network, **changes)
    if least is not None:
        assert model.min_size == least

    def run(side: int) -> None:
        # Past the check of the input.
        y: Any = model.forward_checked(torch.empty(2, 3, side, side, device="meta"))
        assert (y[0] if isinstance(y, tuple) else y).shape == (2, 1000)

    for side in (model.min_size, model.min_size + 1, model.min_size + 16):
        run(side)
    if model.min_size > 1:
        with pytest.raises(RuntimeError):
            run(model.min_size - 1)


@pytest.mark.parametrize(
    ("network", "stages"),
    [
        # Channels of the output of each module, stage by stage.
        ("googlenet", [[256, 480], [512, 512, 512, 528, 832], [832, 1024]]),
        ("bn_inception", [[256, 320], [576, 576, 576, 608, 608], [1056, 1024, 1024]]),
        ("inception_v2", [[288] * 3, [768] * 6, [1280, 2048, 2048]]),
        ("inception_v3", [[256, 288, 288], [768] * 5, [1280, 2048, 2048]]),
        ("inception_v4", [[384] * 4, [1024] * 8, [1536] * 4]),
    ],
)
def test_sites_are_the_modules_outputs(network: str, stages: list[list[int]]) -> None:
    sites = skeleton(Classifier, network).sites()
    assert [(s.stage, s.block, s.channels) for s in sites if s.position == "standard"] == [
        (stage, block, channels)
        for stage, blocks in enumerate(stages, 1)
        for block, channels in enumerate(blocks, 1)
    ]
    assert len(sites) == 2 * sum(map(len, stages))


@pytest.mark.parametrize(
    ("network", "block", "sites"),
    [
        ("mobilenet_v1", (2, 1), {"pre": 64, "standard": 128, "inner": 64}),
        # A block that changes the shape or the channels, and one that does not.
        ("efficientnet_b0", (2, 1), {"pre": 16, "standard": 24, "inner": 96}),
        ("efficientnet_b0", (2, 2), dict.fromkeys(POSITIONS, 24) | {"inner": 144}),
        # A block without a skip has nothing to put on one, and nothing to add after.
        ("plain18", (2, 1), {"pre": 64, "standard": 128, "inner": 128}),
    ],
)
def test_sites_of_a_block(network: str, block: tuple[int, int], sites: dict[str, int]) -> None:
    found = skeleton(Classifier, network).sites()
    assert {s.position: s.channels for s in found if (s.stage, s.block) == block} == sites


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_sites_of_inception_resnet(version: str) -> None:
    model = skeleton(Classifier, f"inception_resnet_{version}", depths=(2, 2, 2))
    # Six residual blocks; the units are two reductions and mixed_5b.
    assert len(model.sites()) == 5 * 6 + 2 * (2 if version == "v1" else 3)


@pytest.mark.parametrize(
    ("network", "changes"),
    [
        ("alexnet", {"widths": [64, 192, 384, 256, 256]}),
        ("vgg11", {"kernels": [[3], [3], [3, 3], [3, 3], [3, 3]]}),
        ("swin_t", {"depths": [2, 2, 6, 2], "heads": [3, 6, 12, 24]}),
        ("resnet50", {"depths": [3, 4, 6, 3]}),
    ],
)
def test_configs_are_values(network: str, changes: dict[str, Any]) -> None:
    settings = config(network).config
    assert settings.replace(**changes) == settings
    assert len({settings, settings.replace(), settings.replace(stem="cifar")}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.stem = "cifar"  # type: ignore[misc]
