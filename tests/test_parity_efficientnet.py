"""EfficientNet against torchvision and timm, with and without its own gates."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from support import networks
from support.networks import (
    on_meta,
)
from torch import Tensor, nn

from senetzoo import NONE, SE
from senetzoo.gates.se import SqueezeExcitation
from senetzoo.models.efficientnet import SE_POLICY, EfficientNet
from senetzoo.nn.drop_path import DropPath
from senetzoo.spec import policy
from senetzoo.zoo import config, create

skeleton = partial(networks.skeleton, EfficientNet, "efficientnet_b0")


# --- Tables --------------------------------------------------------------------------------------

# Table 1 of the paper, stages 2 to 8: expansion, kernel, input side, channels, blocks.
TABLE_1 = [
    (1, 3, 112, 16, 1),
    (6, 3, 112, 24, 2),
    (6, 5, 56, 40, 2),
    (6, 3, 28, 80, 3),
    (6, 5, 14, 112, 3),
    (6, 5, 14, 192, 4),
    (6, 3, 7, 320, 1),
]


def test_layers_of_the_papers_table() -> None:
    model = skeleton()
    seen: list[tuple[int, int, int, int, int]] = []

    def see(stage: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> None:
        (x,) = args
        convs = [m for m in stage.get_submodule("0").modules() if isinstance(m, nn.Conv2d)]
        kernel = max(conv.kernel_size[0] for conv in convs)
        expansion = convs[-1].in_channels // x.shape[1]
        seen.append((expansion, kernel, x.shape[2], y.shape[1], len(list(stage.children()))))

    for stage in range(1, 8):
        model.get_submodule(f"features.{stage}").register_forward_hook(see)
    maps = model.eval().feature_maps(torch.empty(1, 3, 224, 224, device="meta"))
    # The paper's table has the first MBConv6 at 112 and the next at 56: sides of the input.
    assert seen == TABLE_1
    assert [tuple(y.shape[1:]) for y in maps] == [
        (info.channels, 224 // info.stride, 224 // info.stride) for info in model.feature_info
    ]
    assert maps[-1].shape[1:] == (1280, 7, 7)


# --- The default policy --------------------------------------------------------------------------


def test_the_policy_is_text_that_reads_back() -> None:
    default = policy(SE_POLICY)
    assert str(default) == SE_POLICY
    assert config("efficientnet_b0").policy == default
    stages = {f"features.{site}.slots.inner" for site in ("1.0", "2.0", "2.1", "7.0")}
    sites = skeleton().sites()
    gates = {site.path: gate for site, gate in default.resolve(sites).items()}
    assert stages <= set(gates)
    assert len(gates) == 16
    reductions = {path: gate.reduction for path, gate in gates.items() if isinstance(gate, SE)}
    assert {path for path, r in reductions.items() if r == 4} == {"features.1.0.slots.inner"}
    assert {gate.act for gate in gates.values() if isinstance(gate, SE)} == {"silu"}


def test_hidden_units_are_a_quarter_of_the_blocks_input() -> None:
    gates = [m for m in skeleton().modules() if isinstance(m, SqueezeExcitation)]
    quarter = [8, 4, 6, 6, 10, 10, 20, 20, 20, 28, 28, 28, 48, 48, 48, 48]
    assert [gate.fc1.out_features for gate in gates] == quarter


def test_the_policy_can_be_stripped_and_moved() -> None:
    bare = on_meta(lambda: create("efficientnet_b0", policy=NONE, seed=0))
    assert not any(isinstance(module, SqueezeExcitation) for module in bare.modules())
    assert not any(".slots." in name for name in bare.state_dict())
    more = on_meta(lambda: create("efficientnet_b0+se16", seed=0))
    names = [name for name, m in more.named_modules() if isinstance(m, SqueezeExcitation)]
    assert sum(name.endswith(".inner") for name in names) == 16
    assert sum(name.endswith(".standard") for name in names) == 16


# --- Sites and forms -----------------------------------------------------------------------------


def test_drop_path_rises_to_its_rate() -> None:
    rates = [m.rate for m in skeleton().modules() if isinstance(m, DropPath)]
    # Of 16 blocks, those that have a skip; the last has none.
    blocks = [2, 4, 6, 7, 9, 10, 12, 13, 14]
    assert rates == pytest.approx([0.2 * block / 15 for block in blocks])
    assert [m.p for m in skeleton().modules() if isinstance(m, nn.Dropout)] == [0.2]
    for changes in ({"drop_path": 0, "dropout": 0}, {"drop_path": 0.0, "dropout": 0.0}):
        still = skeleton(**changes)
        assert not any(isinstance(m, (DropPath, nn.Dropout)) for m in still.modules())
