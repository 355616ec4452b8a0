"""ResNets and RegNets of transformers with gates: against ours, saved, trained."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from support.foreign import SMOOTH, all_five, at, randomize_gates, traces
from support.networks import randomize, relative_error
from torch import Tensor, nn

from senetzoo import SE, attach, detach, site_map
from senetzoo.models.resnet import ResNetConfig
from senetzoo.nn.slots import POSITIONS

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def built(kind: str) -> Any:
    transformers = pytest.importorskip("transformers")
    stages: dict[str, Any] = {"depths": [2, 1, 1, 1], "num_labels": 5}
    torch.manual_seed(0)
    if kind.startswith("regnet"):
        config = transformers.RegNetConfig(
            hidden_sizes=[16, 24, 32, 40],
            embedding_size=16,
            groups_width=8,
            layer_type=kind[-1],
            **stages,
        )
        model = transformers.RegNetForImageClassification(config)
    else:
        sizes = [16, 32, 64, 128] if kind == "basic" else [64, 128, 256, 512]
        config = transformers.ResNetConfig(
            hidden_sizes=sizes, embedding_size=16, layer_type=kind, **stages
        )
        model = transformers.ResNetForImageClassification(config)
    model = model.eval()
    randomize(model)
    return model


IDENTITY = all_five(SE(4, init="identity"))
KINDS = ["basic", "bottleneck", "regnet-x", "regnet-y"]


def logits(model: Any, images: Tensor = IMAGES) -> Tensor:
    with torch.no_grad():
        return model(images).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", KINDS)
def test_identity_and_back(kind: str) -> None:
    model = built(kind)
    bare, before = logits(model), traces(model)
    assert at(site_map(model)) == set(POSITIONS)
    gates = attach(model, IDENTITY, seed=0, sample=IMAGES)
    assert (len(gates), gates.unsupported) == (25, ())
    assert torch.equal(logits(model), bare)
    randomize_gates(gates)
    gated = logits(model)
    assert not torch.allclose(gated, bare)
    assert torch.equal(logits(copy.deepcopy(model)), gated)
    assert traces(detach(model)) == before
    assert torch.equal(logits(model), bare)


def test_files(tmp_path: Path) -> None:
    """transformers loads the bare network, and the gates are attached again."""
    model = built("basic")
    bare = logits(model)
    randomize_gates(attach(model, IDENTITY, seed=0))
    gated = logits(model)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert torch.allclose(logits(loaded), bare, atol=1e-5)
    attach(loaded, IDENTITY, seed=5)
    loaded.load_state_dict(model.state_dict())
    assert torch.allclose(logits(loaded), gated, atol=1e-5)


def test_a_step_of_training() -> None:
    model = built("bottleneck").train()
    gates = attach(model, all_five(SMOOTH), seed=0)
    optimizer = torch.optim.SGD(gates.parameters(weight_decay=5e-4), lr=0.1)
    before = copy.deepcopy(model.state_dict())
    output = model(IMAGES, labels=torch.tensor([1, 2]))
    assert set(output) == {"loss", "logits"}
    output.loss.backward()
    optimizer.step()
    for path, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[path]), path


def as_ours(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names that torchvision gives to the same tensors, which are ours."""
    found = {}
    for key, tensor in state.items():
        parts = key.split(".")
        kind = {"convolution": "conv", "normalization": "bn"}.get(parts[-2], "")
        if parts[1] == "embedder":
            name = f"{kind}1"
        elif "shortcut" in parts:
            stage, block = int(parts[3]) + 1, parts[5]
            name = f"layer{stage}.{block}.downsample.{0 if kind == 'conv' else 1}"
        elif "layer" in parts:
            stage, block, number = int(parts[3]) + 1, parts[5], int(parts[7]) + 1
            name = f"layer{stage}.{block}.{kind}{number}"
        else:
            name = "fc"
        found[f"{name}.{parts[-1]}"] = tensor
    return found


@pytest.mark.parametrize("kind", KINDS[:2])
def test_it_is_ours_with_the_same_gates(kind: Any) -> None:
    theirs: nn.Module = built(kind).double()
    config = ResNetConfig(depths=(2, 1, 1, 1), block=kind, num_classes=5, width=16)
    ours = config.build().double().eval()
    ours.load_state_dict(as_ours(theirs.state_dict()), strict=True)
    mine, foreign = attach(ours, all_five(), seed=0), attach(theirs, all_five(), seed=1)
    randomize_gates(mine)
    twins = {(site.stage, site.block, site.position): gate for site, gate in foreign.items()}
    assert len(twins) == len(mine) == len(foreign)
    for site, gate in mine.items():
        twins[site.stage, site.block, site.position].load_state_dict(gate.state_dict())
    with torch.no_grad():
        assert relative_error(logits(theirs, IMAGES.double()), ours(IMAGES.double())) < 1e-10
