"""torchvision's segmenters and detectors: gates on the blocks of their bodies.

In training mode a detector does not call torchvision's compiled operators but for its second stage;
where these do not load, that is tested on the part before.
"""

from __future__ import annotations

import copy
import io
from collections import Counter, OrderedDict
from typing import Any

import pytest
import torch
from support.foreign import SMOOTH, all_five, randomize_gates, traces
from support.networks import randomize
from torch import Tensor, nn

from senetzoo import SE, attach, detach, site_map, stage

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
SLOW = pytest.mark.slow
IDENTITY = all_five(SE(init="identity"))


def built(name: str) -> nn.Module:
    from torchvision import models

    options: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": 5}
    dense = name.startswith(("fcn", "deeplabv3"))
    options |= {"aux_loss": True} if dense else {"min_size": 64, "max_size": 64}

    model: nn.Module = models.get_model(name, **options)
    randomize(model)
    return model.eval()


def maps(model: Any) -> OrderedDict[str, Tensor]:
    """The maps of the backbone and of the feature pyramid."""
    with torch.no_grad():
        found: OrderedDict[str, Tensor] = model.backbone(IMAGES)
    return found


def same(one: OrderedDict[str, Tensor], other: OrderedDict[str, Tensor]) -> bool:
    assert list(one) == list(other)
    assert type(one) is type(other)
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    "name",
    ["fcn_resnet50", "fasterrcnn_resnet50_fpn"]
    + [pytest.param(n, marks=SLOW) for n in ("deeplabv3_resnet50", "retinanet_resnet50_fpn")],
)
def test_identity_and_back(name: str) -> None:
    model = built(name)
    bare, before = maps(model), traces(model)
    assert Counter(place.position for place in site_map(model).places) == dict.fromkeys(
        ("pre", "inner", "standard", "identity", "post"), 16
    )
    gates = attach(model, IDENTITY, seed=0)
    assert {(site.stage, site.blocks) for site in gates} == {(1, 3), (2, 4), (3, 6), (4, 3)}
    assert all(".body." in site.path or site.path.startswith("backbone.") for site in gates)
    assert same(maps(model), bare)
    randomize_gates(gates)
    gated = maps(model)
    assert not same(gated, bare)
    assert same(maps(copy.deepcopy(model)), gated)
    detach(model)
    assert traces(model) == before
    assert same(maps(model), bare)


@pytest.mark.parametrize("name", ["fcn_resnet50", pytest.param("deeplabv3_resnet50", marks=SLOW)])
def test_a_segmenter_is_trained_and_saved(name: str) -> None:
    model = built(name)
    with torch.no_grad():
        bare = model(IMAGES)
    gates = attach(model, SE(init="identity"), seed=0, sample=IMAGES)
    with torch.no_grad():
        assert same(model(IMAGES), bare)
    assert list(bare) == ["out", "aux"]
    optimizer = torch.optim.SGD(gates.parameters(weight_decay=5e-4), lr=0.01)
    output = model.train()(IMAGES)
    target = torch.randint(5, (2, 64, 64), generator=torch.Generator().manual_seed(1))
    losses = [nn.functional.cross_entropy(y, target) for y in output.values()]
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    before = {site: copy.deepcopy(gate.state_dict()) for site, gate in gates.items()}
    optimizer.step()
    for site, gate in gates.items():
        # The squeezing layer gets a gradient only once the exciting one is no longer zero.
        weight = "fc2.weight"
        assert not torch.equal(gate.state_dict()[weight], before[site][weight]), site
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    twin = built(name)
    attach(twin, SE(init="identity"), seed=5)
    twin.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        assert same(twin(IMAGES), model.eval()(IMAGES))


def test_a_detector_is_trained() -> None:
    model = built("retinanet_resnet50_fpn").train()
    target = {"boxes": torch.tensor([[8.0, 8.0, 48.0, 48.0]]), "labels": torch.tensor([1])}
    gates = attach(model, SMOOTH.on(stage(3, 4)), seed=0)
    assert len(gates) == 6 + 3
    losses = model(list(IMAGES), [target, target])
    assert list(losses) == ["classification", "bbox_regression"]
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in gates.gate_parameters())
    assert all(p.grad.abs().max() > 0 for p in gates.gate_parameters() if p.grad is not None)


def test_the_first_stage_of_a_two_stage_detector_is_trained() -> None:
    model: Any = built("fasterrcnn_resnet50_fpn").train()
    gates = attach(model, SMOOTH.on(stage(3, 4)), seed=0)
    objectness, deltas = model.rpn.head(list(model.backbone(IMAGES).values()))
    assert len(objectness) == len(deltas) == 5
    sum(y.square().mean() for y in [*objectness, *deltas]).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in gates.gate_parameters())
