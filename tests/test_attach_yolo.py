"""A YOLO: torch.fx can't trace it, and its `fuse` takes norms out, with what sits on them.

The detector is a stand-in of the same build; where ultralytics is installed, its own as well.
"""

from __future__ import annotations

import copy
import io
import os
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from support.foreign import SMOOTH, randomize_gates, traces
from support.networks import message, randomize
from support.yolo import Detector
from torch import Tensor, nn

from senetzoo import SE, Place, SiteMap, attach, detach, propose, site_map
from senetzoo.errors import PolicyError

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
BLOCKS = ["model.1", "model.3", "model.5", "model.8"]
IDENTITY = SE(4, init="identity") + SE(4, init="identity").at("pre")


def detector() -> nn.Module:
    torch.manual_seed(0)
    model = Detector().eval()
    randomize(model)
    return model


def ultralytics(name: str, folder: Path) -> nn.Module:
    """A YOLO of the package, which must neither read its settings nor use the network."""
    os.environ |= {"YOLO_CONFIG_DIR": str(folder), "YOLO_OFFLINE": "true"}
    os.environ |= {"YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
    tasks = pytest.importorskip("ultralytics.nn.tasks", exc_type=ImportError)
    torch.manual_seed(0)
    model: nn.Module = tasks.DetectionModel(name, ch=3, nc=5, verbose=False).eval()
    return model


def outputs(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(IMAGES)[0]  # type: ignore[no-any-return]


def test_what_is_proposed() -> None:
    model = detector()
    before = traces(model)
    sites = propose(model, IMAGES)
    assert traces(model) == before
    at = [(p.module, p.stage, p.block, p.channels) for p in sites.places if p.side == "after"]
    assert at == [
        ("model.1", 1, 1, 8),
        ("model.3", 2, 1, 16),
        ("model.5", 3, 1, 32),
        ("model.8", 4, 1, 16),
    ]
    assert [(p.module, p.channels) for p in sites.places if p.side == "before"] == [
        ("model.1", 8),
        ("model.3", 16),
        ("model.5", 32),
        ("model.8", 48),
    ]
    assert [str(lacking) for lacking in sites.unsupported if not lacking.position] == [
        "model.9: no place, it doesn't map one map to one map",
        *(f"model.{n}.conv: no place, it isn't in a block of two convolutions" for n in (0, 2, 4)),
        "model.0.conv: no place, it is taken out by the network's fuse(), and a gate with it, "
        "without a word; so are 57 others",
    ]
    assert message(lambda: attach(model, "se@post", sites=sites), PolicyError) == (
        "se@post isn't supported in Detector.\n"
        "At model.1, torch.fx can't trace the network, so its sums are unknown; there it "
        "has pre, standard.\nType for example: @standard"
    )


def test_gates_stay_when_it_is_fused() -> None:
    model = detector()
    bare = outputs(model)
    before = traces(model)
    sites = propose(model, IMAGES)
    gates = attach(model, IDENTITY, sites=sites, seed=0, sample=IMAGES)
    assert [site.path for site in gates if site.position == "standard"] == [
        f"{block}.senetzoo_standard" for block in BLOCKS
    ]
    assert torch.equal(outputs(model), bare)
    randomize_gates(gates)
    gated = outputs(model)
    assert not torch.allclose(gated, bare)
    fused = copy.deepcopy(model).fuse()  # type: ignore[operator]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert torch.allclose(outputs(fused), gated, atol=1e-4)
    assert torch.allclose(outputs(copy.deepcopy(fused)), gated, atol=1e-4)
    assert torch.allclose(outputs(detach(fused)), bare, atol=1e-4)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    assert torch.equal(outputs(torch.load(file, weights_only=False)), gated)
    assert traces(detach(model)) == before
    assert torch.equal(outputs(model), bare)


def test_a_step_of_training() -> None:
    model = detector().train()
    gates = attach(model, SMOOTH, sites=propose(model, IMAGES), seed=0)
    optimizer = torch.optim.SGD(gates.parameters(weight_decay=5e-4), lr=0.1)
    before = copy.deepcopy(model.state_dict())
    model({"img": IMAGES}).backward()
    optimizer.step()
    for path, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[path]), path


def test_a_state_dict_comes_back() -> None:
    model = detector()
    randomize_gates(attach(model, IDENTITY, sites=propose(model, IMAGES), seed=0))
    twin = detector()
    attach(twin, IDENTITY, sites=propose(twin, IMAGES), seed=5)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(outputs(twin), outputs(model))


@pytest.mark.parametrize("name", ["model.3.cv1.bn", "model.3.m.0.cv2.conv", "model.0.bn"])
def test_places_that_fuse_takes_out_are_refused(name: str) -> None:
    model = detector()
    before = traces(model)
    kind = type(model.get_submodule(name)).__name__
    around, width = name.rpartition(".")[0], 16 if name == "model.3.cv1.bn" else 8
    assert message(lambda: attach(model, SE(4), sites=SiteMap((Place(name),))), PolicyError) == (
        f"The SiteMap puts a gate at {name!r}, a {kind}.\n"
        "It is taken out by the network's fuse(), and a gate with it, without a word.\n"
        f"Type for example: Place({around!r}, channels={width})"
    )
    assert traces(model) == before
    # The places named instead stay.
    attach(model, SE(4), sites=SiteMap((Place(around, channels=width),)), seed=0, sample=IMAGES)
    gated = outputs(model)
    assert torch.allclose(outputs(model.fuse()), gated, atol=1e-4)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["yolov5n", "yolov8n", "yolov10n", "yolo11n", "yolo12n"])
def test_of_ultralytics(name: str, tmp_path: Path) -> None:
    model: Any = ultralytics(f"{name}.yaml", tmp_path)
    bare = outputs(model)
    known, proposed = site_map(model), propose(model, IMAGES)
    places = {(p.path, p.channels) for p in known.places}
    assert places <= {(p.path, p.channels) for p in proposed.places}
    gates = attach(model, IDENTITY, seed=0, sample=IMAGES)
    assert len(gates) >= 16
    assert torch.equal(outputs(model), bare)
    randomize_gates(gates)
    gated = outputs(model)
    fused = copy.deepcopy(model).fuse(verbose=False)
    assert torch.allclose(outputs(fused), gated, atol=1e-3, rtol=1e-4)
    assert torch.equal(outputs(detach(model)), bare)


class Last(nn.Module):
    """A block with channels-last maps, in a network that torch.fx can't trace."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.first, self.second = nn.Linear(channels, 32), nn.Linear(32, channels)
        self.conv = nn.Conv2d(32, 32, 3, padding=1, groups=32)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(self.norm(x)).permute(0, 3, 1, 2)
        y = self.second(self.conv(y).permute(0, 2, 3, 1))
        return x + cast(Tensor, y)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 4, stride=4)
        self.blocks = nn.ModuleList([Last(24), Last(24)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        for block in self.blocks[: int(x.mean() < 1e9) + 1]:
            x = block(x)
        return x.mean((1, 2))


def test_maps_with_their_channels_last() -> None:
    torch.manual_seed(0)
    model = Network().eval()
    x = torch.rand(2, 3, 48, 32)
    sites = propose(model, x)
    found = [(p.module, p.position, p.channels, p.layout) for p in sites.places]
    assert found == [
        (f"blocks.{n}", position, 24, "nhwc") for n in (0, 1) for position in ("pre", "standard")
    ]
    with torch.no_grad():
        before = model(x)
    attach(model, IDENTITY, sites=sites)
    with torch.no_grad():
        torch.testing.assert_close(model(x), before)
