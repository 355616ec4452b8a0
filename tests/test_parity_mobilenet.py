"""MobileNet against timm, and against the tables of its paper and of the SE paper."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import pytest
import torch
from support import networks
from torch import Tensor, nn

from senetzoo import SE
from senetzoo.models.mobilenet import MobileNet
from senetzoo.nn.counting import count

build = partial(networks.built, MobileNet)
skeleton = partial(networks.skeleton, MobileNet)


# At widths that are no multiple of an eighth the channels are rounded, as timm does it.
@pytest.mark.parametrize("width", [0.1, 0.35, 0.6, 1.3])
def test_rounding(width: float) -> None:
    timm: Any = importlib.import_module("timm.layers")
    ours = skeleton("mobilenet_v1", width=width).spec.config
    for full in (32, 64, 128, 256, 512, 1024):
        assert ours.channels(full) == timm.make_divisible(full * width, 8, round_limit=0.9)


# --- Tables --------------------------------------------------------------------------------------

# Table 1 of the paper: type, stride, channels out, side of the output.
TABLE_1 = [
    ("Conv", 2, 32, 112),
    ("Conv dw", 1, 32, 112),
    ("Conv", 1, 64, 112),
    ("Conv dw", 2, 64, 56),
    ("Conv", 1, 128, 56),
    ("Conv dw", 1, 128, 56),
    ("Conv", 1, 128, 56),
    ("Conv dw", 2, 128, 28),
    ("Conv", 1, 256, 28),
    ("Conv dw", 1, 256, 28),
    ("Conv", 1, 256, 28),
    ("Conv dw", 2, 256, 14),
    ("Conv", 1, 512, 14),
    *[("Conv dw", 1, 512, 14), ("Conv", 1, 512, 14)] * 5,
    ("Conv dw", 2, 512, 7),
    ("Conv", 1, 1024, 7),
    # The paper prints stride 2 here, where the map keeps its 7x7.
    ("Conv dw", 1, 1024, 7),
    ("Conv", 1, 1024, 7),
]


def test_layers_of_the_papers_table() -> None:
    model = skeleton("mobilenet_v1")
    seen: list[tuple[str, int, int, int]] = []

    def see(module: nn.Module, _: object, y: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        kind = "Conv dw" if module.groups == module.in_channels else "Conv"
        assert module.kernel_size == ((1, 1) if kind == "Conv" and seen else (3, 3))
        seen.append((kind, module.stride[0], y.shape[1], y.shape[2]))

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(see)
    model(torch.empty(1, 3, 224, 224, device="meta"))
    assert seen == TABLE_1


@pytest.mark.parametrize(
    ("name", "mmacs", "millions"),
    # Table 6 of the paper.
    [
        ("mobilenet_v1", 569, 4.2),
        ("mobilenet_v1_075", 325, 2.6),
        ("mobilenet_v1_050", 149, 1.3),
        ("mobilenet_v1_025", 41, 0.5),
    ],
)
def test_sizes_of_the_paper(name: str, mmacs: int, millions: float) -> None:
    counts = count(skeleton(name))
    assert round(counts.macs / 1e6) == mmacs
    assert round(counts.params / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("size", "mmacs"),
    # Table 7 of the paper, which prints 290 for 290.7.
    [(192, 418), (160, 290), (128, 186)],
)
def test_macs_at_lower_resolution(size: int, mmacs: int) -> None:
    assert 0 <= count(skeleton("mobilenet_v1"), size).macs / 1e6 - mmacs < 1


# --- Sites and forms -----------------------------------------------------------------------------


def test_order_in_a_block() -> None:
    everywhere = SE() + SE().at("pre") + SE().at("inner")
    model = build("mobilenet_v1_025", stem="cifar", policy=everywhere)
    block = model.get_submodule("blocks.2.1")
    gates = block.get_submodule("slots")
    order: list[str] = []
    for name, module in (*block.named_children(), *gates.named_children()):
        if module is not gates:
            module.register_forward_pre_hook(lambda *_, name=name: order.append(name))
    model(torch.randn(2, 3, 32, 32))
    assert order == [
        "pre",
        "conv_dw",
        "bn1",
        "act",
        "inner",
        "conv_pw",
        "bn2",
        "act",
        "standard",
    ]
