"""Every network of the registry: its size, its gates, and that it can be copied and kept."""

from __future__ import annotations

import pytest
import torch
from support.networks import (
    learnable,
    message,
    on_meta,
    tiny,
)
from torch import nn

from senetzoo import ECA, SE
from senetzoo.errors import ConfigError
from senetzoo.gates.se import SqueezeExcitation
from senetzoo.nn.classifier import Classifier
from senetzoo.policies.attach import attach
from senetzoo.registry import ENTRIES
from senetzoo.zoo import create

# --- Sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "parameters"),
    # Table 6 of the ResNet paper: 0.27M, 0.46M, 0.66M, 0.85M, 1.7M.
    [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)],
)
def test_cifar_networks_have_the_papers_size(depth: int, parameters: float) -> None:
    model = on_meta(lambda: create(f"resnet{depth}a", seed=0))
    assert round(learnable(model) / 1e6, 1 if depth == 110 else 2) == parameters
    # 6n + 2 layers with weights.
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == depth


# --- Gates ---------------------------------------------------------------------------------------

TWINS = [name for name in ENTRIES if name.startswith("se_")]


def gates_of(model: Classifier) -> dict[str, SqueezeExcitation]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, SqueezeExcitation)
    }


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_has_a_gate_at_every_standard_site(name: str) -> None:
    model = on_meta(lambda: create(name, seed=0))
    sites = {site.path: site for site in model.sites() if site.position == "standard"}
    gates = gates_of(model)
    assert set(gates) == set(sites)
    # Every block has one; a block of two residuals (Swin) one for each.
    assert {(s.stage, s.block) for s in sites.values()} == {
        (stage, block)
        for stage, blocks in enumerate(model.stages(), 1)
        for block in range(1, len(blocks) + 1)
    }
    for path, gate in gates.items():
        # 2 C²/r weights and C/r + C biases, r = 16 (Section 4 of the SE paper).
        channels = sites[path].channels
        hidden = max(channels // 16, 1)
        assert learnable(gate) == 2 * channels * hidden + hidden + channels
    trunk = on_meta(lambda: create(ENTRIES[name].trunk, seed=0))
    assert learnable(model) == learnable(trunk) + sum(map(learnable, gates.values()))


# --- Copies, files, heads ------------------------------------------------------------------------


def small() -> Classifier:
    model = tiny("bottleneck").eval()
    attach(model, SE(4) + ECA().at("pre") + SE(4, init="identity").at("post"), seed=0)
    return model


def test_a_slot_that_is_filled_again_holds_the_new_gate() -> None:
    model = small()
    attach(model, ECA(), seed=0)
    assert "layer1.0.slots.standard.fc1.weight" not in model.state_dict()
    assert "layer1.0.slots.standard.conv.weight" in model.state_dict()


@pytest.mark.parametrize("name", ["se_resnet20", "lenet"])
def test_reset_classifier(name: str) -> None:
    model = create(name, seed=0).double().eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    head = model.classifier_parameters()
    model.reset_classifier(7)
    assert model.num_classes == 7
    assert model(torch.randn(2, 3, 32, 32).double()).shape == (2, 7)
    after = model.state_dict()
    assert list(after) == list(before)
    for key, value in before.items():
        if key in head:
            assert after[key].shape[0] == 7
        else:
            assert torch.equal(after[key], value)
    assert not any(module.training for module in model.modules())
    with pytest.raises(ConfigError) as caught:
        model.reset_classifier(-1)
    default = 10 if name == "lenet" else 1000
    assert str(caught.value) == (
        f"{model.family} got num_classes=-1.\n"
        "num_classes is a whole number of at least 0.\n"
        f"Type for example: num_classes={default}"
    )
    assert model.num_classes == 7


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (
            28,
            "The network got images of 28x28 pixels.\nThis LeNet takes at least 32x32.\n"
            "Enlarge the images, for example with senetzoo.transforms(model)",
        ),
        (
            40,
            "LeNet got an image of 40x40 pixels.\nIt takes 32x32 pixels.\n"
            "Resize the images, for example with senetzoo.transforms(model)",
        ),
    ],
)
def test_lenet_says_what_size_it_takes(size: int, text: str) -> None:
    assert (
        message(lambda: create("lenet", seed=0)(torch.zeros(1, 3, size, size)), ConfigError) == text
    )
