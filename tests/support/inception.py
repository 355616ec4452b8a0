"""What the tests of Inception v3, v4 and Inception-ResNet share."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from senetzoo import ECA
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.slots import Position, Site
from senetzoo.policies.attach import attach
from support.networks import on_meta


def pad_all(model: nn.Module, stem: list[nn.Module]) -> None:
    """Make the small form of another library's network: `stem` is its part with stride 1 there."""
    strided = {module for part in stem for module in part.modules()}
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.padding = (1, 1)
            if module in strided:
                module.stride = (1, 1)
        elif isinstance(module, nn.MaxPool2d):
            module.padding = 1
            if module in strided:
                module.stride = 1


def shapes(model: Classifier, names: list[str], size: int) -> list[tuple[int, int]]:
    """Channels and side of what each of these modules gives, for a square image."""
    found: dict[str, tuple[int, int]] = {}

    def keep(name: str, y: Tensor) -> None:
        assert y.shape[2] == y.shape[3]
        found[name] = (y.shape[1], y.shape[2])

    handles = [
        model.get_submodule(name).register_forward_hook(lambda _m, _x, y, name=name: keep(name, y))
        for name in names
    ]
    model(torch.empty(2, model.in_chans, size, size, device="meta"))
    for handle in handles:
        handle.remove()
    return [found[name] for name in names]


def check_levels(model: Classifier) -> None:
    """`features`, `feature_info`, `forward_features` and `cam_layer` tell of the same maps."""
    model.eval()
    size = model.input_size
    x = torch.empty(2, model.in_chans, size, size, device="meta")
    seen: list[Tensor] = []
    handle = model.cam_layer.register_forward_hook(lambda _m, _x, y: seen.append(y))
    maps = model.feature_maps(x)
    handle.remove()
    assert len(seen) == 1
    assert len(maps) == len(model.stages()) == len(model.feature_info)
    assert seen[0].shape == maps[-1].shape == model.forward_features(x).shape
    assert [y.shape[1] for y in maps] == [info.channels for info in model.feature_info]
    for y, info in zip(maps, model.feature_info, strict=True):
        # Unpadded convolutions cost up to 3 of the 299 / stride pixels.
        assert size // info.stride - 3 <= y.shape[2] <= size // info.stride + 1


def check_small_form(config: Config) -> None:
    """The small form keeps the parameters of the other and ends in 8x8 maps, 4x4 at 16x16."""
    model = on_meta(lambda: config.replace(stem="cifar").build())
    assert isinstance(model, Classifier)
    expected = {k: v.shape for k, v in on_meta(config.build).state_dict().items()}
    assert {k: v.shape for k, v in model.state_dict().items()} == expected
    check_levels(model)
    maps = model.feature_maps(torch.empty(2, config.in_chans, 32, 32, device="meta"))
    assert [y.shape[2] for y in maps] == [32, 16, 8]


def check_min_size(config: Config) -> None:
    """The network takes images of `min_size` and none that are smaller."""
    model = on_meta(config.build)
    assert isinstance(model, Classifier)
    least = config.min_size

    def run(size: int) -> None:
        images = torch.empty(2, config.in_chans, size, size, device="meta")
        model.forward_head(model.forward_features(images))

    run(least)
    if least > 1:
        try:
            run(least - 1)
        except RuntimeError:
            return
        raise AssertionError(f"{least - 1} works too")


def check_gates(model: Classifier, positions: tuple[Position, ...]) -> None:
    """A gate at every site runs once, gets gradients, and changes what passes it.

    (A known reimplementation attaches gates to these networks that never run.)
    """
    gates: dict[Site, nn.Module] = {}
    for position in positions:
        gates |= attach(model, ECA().at(position), seed=0)
    assert set(gates) == set(model.sites())
    runs: Counter[str] = Counter()
    changed: set[str] = set()

    def keep(path: str, x: Tensor, y: Tensor) -> None:
        assert x.shape == y.shape
        runs[path] += 1
        if not torch.equal(x, y):
            changed.add(path)

    for site, gate in gates.items():

        def check(_m: nn.Module, x: tuple[Tensor], y: Tensor, path: str = site.path) -> None:
            keep(path, x[0], y)

        gate.register_forward_hook(check)

        def channels(_m: nn.Module, x: tuple[Tensor], expected: int = site.channels) -> None:
            assert x[0].shape[1] == expected

        gate.register_forward_pre_hook(channels)
    torch.manual_seed(0)
    y = model(torch.randn(2, model.in_chans, 12, 12))
    assert runs == dict.fromkeys((site.path for site in gates), 1)
    assert changed == set(runs)
    (y * torch.randn_like(y)).sum().backward()
    for site, gate in gates.items():
        for parameter in gate.parameters():
            assert parameter.grad is not None, site.path
            assert parameter.grad.abs().max() > 0, site.path


def check_graphs(model: Classifier) -> None:
    """The compiled and the exported network give what the eager one gives."""
    model.eval()
    torch.manual_seed(0)
    x = torch.randn(2, model.in_chans, 12, 12)
    with torch.no_grad():
        expected = model(x)
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        assert torch.allclose(compiled(x), expected, rtol=1e-4, atol=1e-5)
        exported = torch.export.export(model, (x,)).module()
        assert torch.allclose(exported(x), expected, rtol=1e-4, atol=1e-5)
