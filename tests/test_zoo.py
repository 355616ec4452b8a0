from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from support.networks import on_meta, same
from support.weights import Shelf
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from senetzoo import (
    NONE,
    SE,
    attach,
    config,
    create,
    detach,
    explain,
    list_models,
    stage,
    transforms,
)
from senetzoo.models.names import ModelName
from senetzoo.nn.counting import Counts, count, module_macs
from senetzoo.nn.drop_path import DropPath
from senetzoo.nn.preprocessing import CIFAR10, IMAGENET
from senetzoo.registry import ENTRIES, FAMILIES

# --- Seeds ---------------------------------------------------------------------------------------


def test_a_seed_decides_the_weights() -> None:
    assert same(create("se_resnet20", seed=3), create("se_resnet20", seed=3))
    assert not same(create("se_resnet20", seed=3), create("se_resnet20", seed=4))


def test_without_a_seed_torchs_state_decides() -> None:
    torch.manual_seed(5)
    first, second = create("se_resnet20"), create("se_resnet20")
    torch.manual_seed(5)
    assert same(create("se_resnet20"), first)
    assert not same(first, second)


def test_building_leaves_the_callers_random_state() -> None:
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    create("se_resnet20", seed=9)
    attach(create("resnet20", seed=9), SE(), seed=9)
    assert torch.equal(torch.rand(4), expected)
    # Without a seed, one draw whatever the network.
    after = []
    for name in ("lenet", "se_resnet32"):
        torch.manual_seed(1)
        create(name)
        after.append(torch.rand(4))
    assert torch.equal(after[0], after[1])


def test_building_does_not_seed_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(seed: int) -> None:
        raise AssertionError("the accelerators' generators were seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    create("se_lenet", seed=0)


def test_meta_needs_no_seed() -> None:
    with torch.device("meta"):
        model = create("se_resnet152")
        attach(model, SE().at("pre"))
    assert {p.device.type for p in model.parameters()} == {"meta"}
    ours = create("resnet20", seed=0)
    with torch.device("meta"):
        attach(ours, SE(), seed=0)
    assert same(ours, create("se_resnet20", seed=0))


# --- Options -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, entry in ENTRIES.items() if entry.trunk == n])
def test_options_fit_every_network(name: str) -> None:
    options: dict[str, Any] = {"stem": "cifar", "num_classes": 7, "in_chans": 5, "dropout": 0.25}
    model = on_meta(lambda: create(name, **options))
    assert model.spec.config.small
    assert model.input_size == 32
    state = model.state_dict()
    assert {state[p].shape[0] for p in model.classifier_parameters()} == {7}
    assert state[model.input_parameter()].shape[1] == 5
    with torch.device("meta"):
        assert model.eval()(torch.empty(2, 5, 32, 32)).shape == (2, 7)
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.25}


def test_drop_path_rises_to_its_rate() -> None:
    model = create("resnet20", drop_path=0.4, seed=0)
    rates = [m.rate for m in model.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.4 * n / 8 for n in range(1, 9)])
    assert not any(isinstance(m, DropPath) for m in create("resnet20", seed=0).modules())


def test_config_is_what_create_builds() -> None:
    spec = config("resnet20+se8@pre/s3").replace(num_classes=4, dropout=0.1)
    assert same(
        spec.build(seed=2),
        create("resnet20", policy="se8@pre/s3", num_classes=4, dropout=0.1, seed=2),
    )
    assert config("se_resnet20").config == config("resnet20").config
    assert same(
        config("se_resnet20").replace(policy=NONE).build(seed=0), create("resnet20", seed=0)
    )
    assert config("resnet20").replace(policy="se").policy == SE()


def test_none_strips_and_a_policy_overrides() -> None:
    plain = create("resnet20", seed=0)
    assert same(create("se_resnet20", policy=NONE, seed=0), plain)
    assert same(create("se_resnet20+none", seed=0), plain)
    mixed = create("se_resnet20", policy=SE(4).on(stage(3)), seed=0).state_dict()
    assert mixed["layer1.0.slots.standard.fc1.weight"].shape == (1, 16)
    assert mixed["layer3.0.slots.standard.fc1.weight"].shape == (16, 64)


# --- Names ---------------------------------------------------------------------------------------


def test_list_models() -> None:
    names = list_models()
    assert names == list(ENTRIES) == list(get_args(ModelName))
    assert len(set(names)) == len(names)
    listed = ["se_resnet101", "se_resnet152", "se_resnet110", "se_resnet164"]
    assert list_models("se_resnet1??") == listed
    assert list_models("lenet*", family="lenet") == ["lenet", "lenet5"]
    assert list_models("lenet*", family="ResNet") == []
    of = [name for family in FAMILIES for name in list_models(family=family.title.upper())]
    assert sorted(of) == sorted(names)
    assert list_models("nothing") == []
    assert list_models("RESNET50") == []


def test_list_models_by_weights(shelf: Shelf) -> None:
    assert list_models(pretrained=True) == []
    shelf.put("resnet20.pets_v1")
    assert list_models(pretrained=True) == ["resnet20"]
    assert list_models(pretrained=False) == [n for n in ENTRIES if n != "resnet20"]
    assert list_models("se_*", pretrained=True) == []


# --- Preprocessing ------------------------------------------------------------------------------


def test_transforms_without_weights() -> None:
    assert transforms(create("resnet20", seed=0)) == CIFAR10
    assert transforms(create("resnet18", seed=0)) == IMAGENET
    assert (IMAGENET.size, IMAGENET.resize) == (224, 256)
    assert transforms(create("resnet18", stem="cifar", seed=0)) == CIFAR10
    gray = transforms(create("lenet5", seed=0))
    assert gray.mean == pytest.approx(((0.4914 + 0.4822 + 0.4465) / 3,))


# --- Counting and explaining ---------------------------------------------------------------------


def test_counting_changes_nothing() -> None:
    model = create("se_resnet20", seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert count(model) == count(model, 32)
    assert count(model, 64).macs > 3.9 * count(model).macs
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {value.device.type for value in model.state_dict().values()} == {"cpu"}
    shared = nn.Sequential(nn.Linear(3, 3, bias=False))
    shared.append(shared[0])
    assert module_macs(shared, (1, 3)) == 18


def test_counts_are_those_of_a_real_forward_pass() -> None:
    model = create("se_resnet20", seed=0).eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert count(model) == Counts(274_847, counter.get_total_flops() // 2)


def test_explain_by_formula() -> None:
    plain, found = explain("resnet50"), explain("se_resnet50")
    # SE paper, Eq. 5, with biases: 2 C^2 / r + C / r + C for each block.
    channels = [
        c for c, blocks in ((256, 3), (512, 4), (1024, 6), (2048, 3)) for _ in range(blocks)
    ]
    assert found.params - plain.params == sum(2 * c * c // 16 + c // 16 + c for c in channels)
    assert found.params - plain.params == 2_530_992
    assert found.macs - plain.macs == sum(2 * c * c // 16 for c in channels)
    gated = [row for row in found.rows if row.gate]
    assert [row.channels for row in gated] == channels
    assert all(
        row.params == 2 * c * c // 16 + c // 16 + c for row, c in zip(gated, channels, strict=True)
    )
    assert all(row.macs == 2 * c * c // 16 for row, c in zip(gated, channels, strict=True))
    assert {(row.gate, row.position) for row in gated} == {("se", "standard")}
    assert [(row.stage, row.block) for row in gated][2:5] == [(1, 3), (2, 1), (2, 2)]
    assert len(found.rows) == 5 * 16
    assert not any(row.params or row.macs for row in found.rows if not row.gate)
    assert plain.params == 25_557_032


def test_explain_takes_policies_and_configs() -> None:
    assert explain("se_resnet50", NONE).params == 25_557_032
    # SE paper, Tables 14 and 15, without biases.
    assert explain("resnet50", SE(bias=False)).params == 28_071_976
    assert explain("resnet50", SE(bias=False).at("pre")).params == 27_548_200
    assert explain("resnet50+se(bias=false)@inner").params == 25_714_216
    eca = explain(config("resnet50"), "eca")
    # ECA paper, Eq. 12: |log2(C) / 2 + 1 / 2| down to 4, 5, 5 and 6, then up to odd.
    kernels = {row.channels: row.params for row in eca.rows if row.gate}
    assert kernels == {256: 5, 512: 5, 1024: 5, 2048: 7}
    assert eca.network == "resnet50"


def test_explain_with_a_tag(shelf: Shelf) -> None:
    shelf.put("resnet20.pre_v1", policy="se8@pre/s3")
    found = explain("resnet20.pre_v1+eca/s1")
    assert {(row.gate, row.stage, row.position) for row in found.rows if row.gate} == {
        ("se8", 3, "pre"),
        ("eca", 1, "standard"),
    }
    assert found.network == "resnet20.pre_v1+eca/s1"


def test_explain_as_text_and_as_dict() -> None:
    found = explain("resnet20", SE(8).at("pre").on(stage(3)))
    # A gate has 2 C (C / 8) weights and C / 8 + C biases: 292 of 32 channels, 1096 of 64.
    assert str(found) == (
        "resnet20: 274,958 parameters, 40,815,488 MACs at 32x32\n"
        "stage  block  position  channels  gate  +params  share  +MACs  share\n"
        "    3      1  pre             32  se8       292  0.11%    256  0.00%\n"
        "    3      2  pre             64  se8     1,096  0.40%  1,024  0.00%\n"
        "    3      3  pre             64  se8     1,096  0.40%  1,024  0.00%\n"
        "3 of 45 sites have a gate: 2,484 parameters (0.90%), 2,304 MACs (0.01%)"
    )
    assert found.as_dict()["params"] == found.params == 272_474 + 292 + 2 * 1096
    sites = found.as_dict()["sites"]
    assert len(sites) == 45
    assert {site["macs_share"] for site in sites if not site["gate"]} == {0.0}
    assert next(s for s in sites if s["gate"]) == {
        "stage": 3,
        "block": 1,
        "position": "pre",
        "branch": "",
        "path": "layer3.0.slots.pre",
        "channels": 32,
        "gate": "se8",
        "params": 292,
        "macs": 256,
        "params_share": 292 / 274_958,
        "macs_share": 256 / 40_815_488,
    }


# --- What a network says of itself ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet20", "se_resnet20", "efficientnet_b0", "lenet5"])
def test_a_network_is_what_its_spec_says(name: str) -> None:
    model = create(name, num_classes=3, seed=0)
    spec = model.spec
    assert spec == config(name).replace(num_classes=3)
    again = spec.replace(num_classes=5).build(seed=0)
    assert (again.num_classes, again.spec.name) == (5, name)
    assert (model.num_classes, model.in_chans, model.input_size) == (
        3,
        spec.config.in_chans,
        spec.config.input_size,
    )
    # Transformers' Trainer writes to this attribute where there is one.
    assert not hasattr(model, "config")


def test_a_spec_follows_the_network() -> None:
    model = create("resnet20", seed=0)
    attach(model, SE(8).at("pre").on(stage(2)), seed=0)
    assert str(model.spec.policy) == "se8@pre/s2"
    model.reset_classifier(7)
    assert model.spec.config.num_classes == 7
    detach(model)
    assert model.spec == config("resnet20").replace(num_classes=7)
