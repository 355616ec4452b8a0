"""Optimized networks kept on disk: a second start, and what must not be taken for the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.networks import images, message, relative_error, tiny
from torch import Tensor, nn

import senetzoo
from senetzoo import SE, attach
from senetzoo.deploy import cache
from senetzoo.deploy import optimize as room
from senetzoo.errors import ConfigError

KEPT = ["network.bin", "network.xml", "report.json"]


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SENETZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(room, "_SECONDS", 0.05)
    return tmp_path / "optimized"


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = tiny("bottleneck", depths=(1,))
    attach(model, SE(4), seed=seed)
    return model.eval()


def plain() -> nn.Module:
    torch.manual_seed(0)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), *head).eval()


def traced_again(*_: object) -> Any:
    raise AssertionError("it is traced again")


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_a_second_start(dtype: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nncf" if dtype == "int8" else "openvino")
    model, x = network(), images(4, 3, 16, 16).float()
    first = senetzoo.optimize(model, x, engine="openvino", dtype=dtype, cache=True)
    (one,) = folder.iterdir()
    assert sorted(file.name for file in one.iterdir()) == KEPT
    monkeypatch.setattr(room, "rewritten", traced_again)
    second = senetzoo.optimize(network(), x, engine="openvino", dtype=dtype, cache=True)
    assert torch.equal(first(x[:3]), second(x[:3]))
    assert not first.report.cached
    assert second.report.cached
    said = "from the cache: what is measured is of the first start"
    assert str(second.report) == f"{first.report}\n{said}"
    with pytest.raises(ConfigError, match="sample's 3x16x16"):
        second(images(1, 3, 16, 18).float())
    with pytest.raises(AssertionError):
        senetzoo.optimize(model, x, engine="openvino", dtype=dtype)


def test_what_is_broken_is_made_again(folder: Path) -> None:
    pytest.importorskip("openvino")
    model, x = plain(), images(2, 3, 16, 16).float()

    def start() -> room.Optimized:
        return senetzoo.optimize(model, x, engine="openvino", mode="latency", cache=True)

    exact = start()(x)
    (one,) = folder.iterdir()
    for name in KEPT:
        whole = (one / name).read_bytes()
        # Weights of another network, of the right size; half of a file.
        broken = bytes(len(whole)) if name == "network.bin" else whole[: len(whole) // 2]
        (one / name).write_bytes(broken)
        again = start()
        assert not again.report.cached
        assert relative_error(again(x), exact) < 1e-5
        assert start().report.cached


def test_nothing_is_kept_in_part(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino")

    def fails(model: object, xml: str, weights: str) -> None:
        Path(weights).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(openvino, "serialize", fails)
    with pytest.raises(OSError, match="no space"):
        senetzoo.optimize(plain(), images(2, 3, 16, 16).float(), engine="openvino", cache=True)
    assert not list(folder.iterdir())


def plus_one(model: nn.Module) -> None:
    next(model.parameters()).data.view(-1)[0] += 1


def wider(model: nn.Module) -> None:
    next(m for m in model.modules() if isinstance(m, nn.Conv2d)).padding = (0, 0)


def other_norm(model: nn.Module) -> None:
    next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).eps = 1e-3


def other_activation(model: nn.Module) -> None:
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, nn.ReLU6())
                return


@pytest.mark.parametrize("change", [plus_one, wider, other_norm, other_activation])
def test_another_network_has_another_place(change: Callable[[nn.Module], None]) -> None:
    model, x = network(), images(2, 3, 16, 16).float()
    before = cache.folder_for(model, x, None)
    assert cache.folder_for(network(), x + 1, None) == before
    change(model)
    assert cache.folder_for(model, x, None) != before


def test_another_use_has_another_place(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network(), images(2, 3, 16, 16).float()
    places = {
        cache.folder_for(model, x, None, "fp32"),
        cache.folder_for(model, x, None, "bf16"),
        cache.folder_for(model, x[:1], None, "fp32"),
        cache.folder_for(model, x, x, "fp32"),
        cache.folder_for(model, x, x + 1, "fp32"),
    }
    monkeypatch.setattr(cache, "processor", lambda: "another one")
    places.add(cache.folder_for(model, x, None, "fp32"))
    assert len(places) == 6


def test_another_process_has_the_same_place() -> None:
    name = "se_resnet20.cifar10_v2"
    program = (
        "import senetzoo, torch; from senetzoo.deploy import cache; torch.set_num_threads(1); "
        f"print(cache.folder_for(senetzoo.create({name!r}), torch.ones(1, 3, 8, 8), None).name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        place = cache.folder_for(senetzoo.create(name), torch.ones(1, 3, 8, 8), None)
    finally:
        torch.set_num_threads(threads)
    assert done.stdout.split()[-1] == place.name


class Foreign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def hooked() -> nn.Module:
    model = network()
    model.register_forward_hook(lambda *_: None)
    return model


def constant() -> nn.Module:
    model = network()
    model.constant = [torch.ones(3)]  # type: ignore[assignment]
    return model


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (Foreign, "its class is a Foreign of test_deploy_cache"),
        (hooked, "it has its own _forward_hooks"),
        (constant, "it has its own constant"),
    ],
)
def test_what_can_not_be_compared_is_refused(made: Callable[[], nn.Module], why: str) -> None:
    x = images(2, 3, 16, 16).float()
    assert message(lambda: senetzoo.optimize(made(), x, cache=True), ConfigError) == (
        "The optimized network can't be kept.\n"
        f"What it computes can't be read from its modules: {why}.\n"
        "Leave cache out"
    )
