"""Every network of the registry: its size, its gates, and that it can be copied and kept."""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle

import pytest
import torch
from support.networks import (
    SMALL,
    calibrate_on_next_batch,
    learnable,
    message,
    on_meta,
    randomize,
    reduced,
    tiny,
)
from torch import Tensor, nn

from senetzoo import ECA, SE, Policy
from senetzoo.errors import ConfigError
from senetzoo.gates.se import SqueezeExcitation
from senetzoo.models.resnet import ResNetConfig
from senetzoo.nn.classifier import Classifier
from senetzoo.policies.attach import attach
from senetzoo.registry import ENTRIES
from senetzoo.zoo import create

# --- Sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "policy", "parameters"),
    [
        ("resnet50", None, 25_557_032),
        ("se_resnet50", None, 28_088_024),
        ("resnet50", SE(bias=False), 28_071_976),
        ("resnet50", SE(bias=False).at("pre"), 27_548_200),
        ("resnet50", SE(bias=False).at("inner"), 25_714_216),
        ("se_resnet18", None, 11_778_592),
        ("resnet18", SE(width="round8"), 11_779_624),
        ("se_resnet18", SE(width="round8"), 11_779_624),
        ("se_resnext50_32x4d", None, 27_559_896),
        ("wide_resnet50_2", None, 68_883_240),
        ("resnet20", None, 272_474),
        ("se_resnet20", None, 274_847),
        ("resnet20a", None, 269_722),
        # LeNet-5 with full connections, by hand: 156 + 2416 + 48120 + 10164 + 850.
        ("lenet5", None, 61_706),
        ("lenet", None, 62_006),
    ],
)
def test_parameters(name: str, policy: Policy | None, parameters: int) -> None:
    assert learnable(on_meta(lambda: create(name, policy=policy, seed=0))) == parameters


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
TWIN_EACH = [f"se_{name}" for name in SMALL.values() if f"se_{name}" in ENTRIES]


def gates_of(model: Classifier) -> dict[str, SqueezeExcitation]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, SqueezeExcitation)
    }


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_has_a_gate_at_every_standard_site(name: str) -> None:
    model = on_meta(lambda: create(name, seed=0))
    assert isinstance(model, Classifier)
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


def open_gates(gate: SqueezeExcitation) -> None:
    """Random weights that let a signal through: no hidden unit sits below its ReLU for good."""
    nn.init.normal_(gate.fc1.weight, std=gate.fc1.in_features**-0.5)
    nn.init.uniform_(gate.fc1.bias, 2.0, 3.0)
    nn.init.normal_(gate.fc2.weight, std=gate.fc2.in_features**-0.5)
    nn.init.normal_(gate.fc2.bias)


def opened(name: str) -> tuple[Classifier, Tensor]:
    """The small form of a network with its gates open and its statistics calibrated, on a batch."""
    torch.manual_seed(0)
    model = reduced(name).replace(stem="cifar", num_classes=10, dropout=0.0).build(seed=0)
    for gate in gates_of(model).values():
        open_gates(gate)
    for path, parameter in model.named_parameters():
        if path.endswith("layer_scale"):  # of 1e-6, which lets next to nothing through
            nn.init.ones_(parameter)
    x = torch.randn(2, model.in_chans, 32, 32)
    calibrate_on_next_batch(model)
    with torch.no_grad():
        model(x)
    return model.eval(), x


@pytest.mark.parametrize("name", [*TWIN_EACH, "senet154", "efficientnet_b0"])
def test_every_gate_runs_once_and_learns(name: str) -> None:
    model, x = opened(name)
    model.requires_grad_(False)
    gates = gates_of(model)
    runs = dict.fromkeys(gates, 0)

    def count(path: str) -> None:
        runs[path] += 1

    for path, gate in gates.items():
        gate.requires_grad_(True)
        gate.register_forward_hook(lambda *_, path=path: count(path))
    y = model(x)
    assert set(runs.values()) == {1}

    (y * torch.randn_like(y)).sum().backward()
    for path, gate in gates.items():
        for field, parameter in gate.named_parameters():
            assert parameter.grad is not None, f"{path}.{field}"
            assert bool(torch.isfinite(parameter.grad).all()), f"{path}.{field}"
            assert parameter.grad.abs().max() > 0, f"{path}.{field}"

    with torch.no_grad():
        for site, slots in model.slots():
            slots.clear(site.position)
        plain = model(x)
    assert set(runs.values()) == {1}
    assert (plain - y).abs().max() > 1e-3 * y.abs().max()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * ("inception" in n)) for n in TWIN_EACH]
)
def test_each_gate_alone_changes_the_output(name: str) -> None:
    model, x = opened(name)
    with torch.no_grad():
        y = model(x)
        for site, slots in model.slots():
            held = slots.get(site.position)
            if held is None:
                continue
            slots.clear(site.position)
            assert (model(x) - y).abs().max() > 1e-4 * y.abs().max(), site
            slots.put(site.position, held)
        assert torch.equal(model(x), y)


# --- Copies, files, heads ------------------------------------------------------------------------


def small() -> Classifier:
    model = tiny("bottleneck").eval()
    attach(model, SE(4) + ECA().at("pre") + SE(4, init="identity").at("post"), seed=0)
    return model


def test_deep_copy() -> None:
    model = small()
    twin = copy.deepcopy(model)
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(twin(x), model(x))
    randomize(model)
    assert not torch.allclose(twin(x), model(x))
    assert twin.sites() == model.sites()


def test_pickle() -> None:
    model = small()
    twin = pickle.loads(pickle.dumps(model))
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(twin(x), model(x))
    assert twin.spec.config == model.spec.config
    assert str(twin) == str(model)


def test_state_dict_round_trip() -> None:
    model = small()
    randomize(model)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    twin = small()
    x = torch.randn(1, 3, 16, 16)
    assert not torch.allclose(twin(x), model(x))
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(twin(x), model(x))


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


def test_configs_are_values() -> None:
    config = ENTRIES["resnet50"].config
    assert isinstance(config, ResNetConfig)
    assert config.replace(depths=[3, 4, 6, 3]) == config
    assert len({config, config.replace(), config.replace(stem="cifar")}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.width = 3  # type: ignore[misc]
