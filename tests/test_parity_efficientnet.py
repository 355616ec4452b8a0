"""EfficientNet against torchvision and timm, with and without its own gates."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from support import networks
from support.networks import (
    calibrate_on_next_batch,
    learnable,
    on_meta,
    randomize,
    relative_error,
)
from torch import Tensor, nn

from senetzoo import NONE, SE
from senetzoo.gates.se import SqueezeExcitation
from senetzoo.models.efficientnet import SE_POLICY, EfficientNet
from senetzoo.nn.counting import count
from senetzoo.nn.drop_path import DropPath
from senetzoo.spec import policy
from senetzoo.zoo import config, create


def build(**changes: Any) -> EfficientNet:
    model = config("efficientnet_b0").replace(**changes).build(seed=0)
    assert isinstance(model, EfficientNet)
    return model


skeleton = partial(networks.skeleton, EfficientNet, "efficientnet_b0")


def steady(**changes: Any) -> EfficientNet:
    """The network without what it draws at random in training."""
    return build(dropout=0.0, drop_path=0.0, **changes)


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


def test_sizes() -> None:
    counts = count(skeleton())
    # Table 2 of the paper: 5.3 M and 0.39 B; torchvision states 0.386.
    assert counts.params == 5_288_548
    assert round(counts.macs / 1e9, 3) == 0.386
    gates = 0
    inputs = 32
    for expansion, _, _, width, depth in TABLE_1:
        for _ in range(depth):
            channels, hidden = inputs * expansion, inputs // 4
            gates += 2 * channels * hidden + channels + hidden
            inputs = width
    assert counts.params - learnable(skeleton(policy=NONE)) == gates


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


def test_every_gate_runs_once_and_matters() -> None:
    torch.manual_seed(0)
    model = steady(stem="cifar")
    randomize(model)
    calibrate_on_next_batch(model)
    gates = [m for m in model.modules() if isinstance(m, SqueezeExcitation)]
    runs = [0] * len(gates)

    def count_run(index: int) -> None:
        runs[index] += 1

    for index, gate in enumerate(gates):
        gate.register_forward_hook(lambda *_, index=index: count_run(index))
    x = torch.randn(2, 3, 32, 32)
    y = model(x)
    assert runs == [1] * 16
    (y * torch.randn_like(y)).sum().backward()
    for gate in gates:
        for parameter in gate.parameters():
            assert parameter.grad is not None
            assert parameter.grad.abs().max() > 0
    model.eval()
    with torch.no_grad():
        y = model(x)
        for site, slots in model.slots():
            held = slots.get(site.position)
            if held is None:
                continue
            slots.clear(site.position)
            assert relative_error(model(x), y) > 1e-3, site
            slots.put(site.position, held)
        assert torch.equal(model(x), y)


# --- Sites and forms -----------------------------------------------------------------------------


def test_sites() -> None:
    sites = skeleton().sites()
    changing = [s for s in sites if (s.stage, s.block) == (2, 1)]
    assert {s.position: s.channels for s in changing} == {"pre": 16, "standard": 24, "inner": 96}
    keeping = [s for s in sites if (s.stage, s.block) == (2, 2)]
    assert {s.position: s.channels for s in keeping} == {
        "pre": 24,
        "standard": 24,
        "post": 24,
        "identity": 24,
        "inner": 144,
    }
    # Seven blocks change the shape or the channels.
    assert sum(s.position == "post" for s in sites) == 16 - 7


def test_drop_path_rises_to_its_rate() -> None:
    rates = [m.rate for m in skeleton().modules() if isinstance(m, DropPath)]
    # Of 16 blocks, those that have a skip; the last has none.
    blocks = [2, 4, 6, 7, 9, 10, 12, 13, 14]
    assert rates == pytest.approx([0.2 * block / 15 for block in blocks])
    assert [m.p for m in skeleton().modules() if isinstance(m, nn.Dropout)] == [0.2]
    for changes in ({"drop_path": 0, "dropout": 0}, {"drop_path": 0.0, "dropout": 0.0}):
        still = skeleton(**changes)
        assert not any(isinstance(m, (DropPath, nn.Dropout)) for m in still.modules())
