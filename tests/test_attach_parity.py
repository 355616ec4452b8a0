"""Networks of other libraries with gates against ours with the same gates, in fp64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.foreign import SMOOTH, all_five, image, randomize_gates, small
from support.networks import randomize, relative_error
from support.parity import translated
from torch import Tensor, nn

from senetzoo import attach
from senetzoo.models.resnet import ResNetConfig
from senetzoo.nn.slots import POSITIONS
from senetzoo.policies.algebra import Policy

POLICIES: dict[str, Policy] = {p: SMOOTH.at(p) for p in POSITIONS} | {"all": all_five()}
IMAGENET: dict[str, Any] = {"depths": (2, 1, 1, 1), "num_classes": 5}
CIFAR: dict[str, Any] = {"depths": (2, 1, 1), "num_classes": 5, "width": 16, "stem": "cifar"}
OURS: dict[str, tuple[ResNetConfig, str]] = {
    "torchvision basic": (ResNetConfig(block="basic", **IMAGENET), "torchvision"),
    "torchvision bottleneck": (ResNetConfig(block="bottleneck", **IMAGENET), "torchvision"),
    "timm basic": (ResNetConfig(block="basic", **IMAGENET), "timm"),
    "timm bottleneck": (ResNetConfig(block="bottleneck", **IMAGENET), "timm"),
    "pytorchcv basic": (ResNetConfig(block="basic", **CIFAR), "pytorchcv"),
    "pytorchcv bottleneck": (ResNetConfig(block="bottleneck", **CIFAR), "pytorchcv"),
}
# Networks to test at each position separately, with and without a module for it.
ALONE = ("torchvision basic", "pytorchcv basic")


@pytest.mark.parametrize(
    ("name", "position"),
    [
        pytest.param(n, p, marks=[] if p == "all" or n in ALONE else pytest.mark.slow)
        for n in OURS
        for p in POLICIES
    ],
)
def test_theirs_with_gates_is_ours_with_gates(name: str, position: str) -> None:
    config, dialect = OURS[name]
    theirs = small(name).double()
    randomize(theirs)
    ours = config.build().double()
    ours.load_state_dict(translated(theirs.state_dict(), dialect, ours), strict=True)
    policy = POLICIES[position]
    mine, foreign = attach(ours, policy, seed=0), attach(theirs, policy, seed=1)
    randomize_gates(mine)

    def number(site: Any) -> tuple[Any, ...]:
        return site.stage, site.block, site.stages, site.blocks, site.position, site.channels

    by_number = {number(site): gate for site, gate in foreign.items()}
    assert set(by_number) == {number(site) for site in mine}
    assert len(by_number) == len(foreign) == len(mine)
    for site, gate in mine.items():
        by_number[number(site)].load_state_dict(gate.state_dict())
    x = image(name).double()
    # In training mode first, which sets the statistics that eval mode uses.
    for model in (ours, theirs):
        model.train()
    outputs = [ours(x), theirs(x)]
    assert relative_error(outputs[0].detach(), outputs[1].detach()) < 1e-10
    target = torch.randn(outputs[0].shape, generator=torch.Generator().manual_seed(2)).double()
    for output in outputs:
        (output * target).sum().backward()
    for site, gate in mine.items():
        twin = by_number[number(site)]
        for (key, one), (_, other) in zip(
            gate.named_parameters(), twin.named_parameters(), strict=True
        ):
            assert one.grad is not None
            assert other.grad is not None
            assert relative_error(one.grad, other.grad) < 1e-8, (site, key)
    for model in (ours, theirs):
        model.eval()
    with torch.no_grad():
        assert relative_error(ours(x), theirs(x)) < 1e-10


# --- Inverted residuals, which we write out ------------------------------------------------------


def run(layers: list[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def inverted(block: nn.Module) -> tuple[list[nn.Module], list[nn.Module], str, nn.Module | None]:
    """Layers before and after `inner`, the attribute of the sum, and the stochastic depth."""
    kind = f"{type(block).__module__}.{type(block).__name__}"
    if kind.startswith("timm"):
        names = list(block._modules)
        first = "conv_pw" if "conv_pwl" in names else "conv_dw"
        last = "conv_pwl" if "conv_pwl" in names else "conv_pw"
        start, cut, end = (names.index(n) for n in (first, last, "drop_path"))
        layers = [block.get_submodule(n) for n in names]
        return layers[start:cut], layers[cut:end], "has_skip", block.get_submodule("drop_path")
    field = next(n for n in ("conv", "block", "layers") if n in block._modules)
    layers = list(block.get_submodule(field).children())
    cut = -1 if field == "block" else -2
    switch = "apply_residual" if field == "layers" else "use_res_connect"
    depth = block._modules.get("stochastic_depth")
    return layers[:cut], layers[cut:], switch, depth


INVERTED = [
    *("torchvision mobilenet_v2", "torchvision mobilenet_v3_small", "torchvision mnasnet"),
    *("torchvision efficientnet_b0", "timm mobilenetv2", "timm efficientnet_b0"),
    # These have blocks of a class that is already covered.
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("torchvision mobilenet_v3_large", "timm mobilenetv3_small")
    ),
]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", INVERTED)
def test_inverted_residuals_written_out(name: str, training: bool) -> None:
    """``post(standard(branch(pre(x))) + identity(x))`` for every block that adds its input."""
    bare, model = small(name).double(), small(name).double()
    gates = attach(model, all_five(), seed=0)
    randomize_gates(gates)
    by_path = {site.path: gate for site, gate in gates.items()}
    skips = [path.rpartition(".")[0] for path in by_path if path.endswith(".senetzoo_identity")]
    assert len(skips) > 4
    for seen, path in enumerate(skips):
        block = model.get_submodule(path)
        head, tail, switch, depth = inverted(bare.get_submodule(path))
        assert getattr(bare.get_submodule(path), switch) is True
        here = {
            site.position: gate
            for site, gate in gates.items()
            if (site.path + ".").startswith(path + ".")
        }
        assert set(here) == set(POSITIONS)
        width = next(site.channels for site in gates if gates[site] is here["pre"])
        x = torch.randn(4, width, 6, 6, generator=torch.Generator().manual_seed(seen)).double()
        block.train(training)
        bare.get_submodule(path).train(training)
        torch.manual_seed(seen)
        with torch.no_grad():
            y = run(tail, here["inner"](run(head, here["pre"](x))))
            y = here["standard"](y)
            y = y if depth is None else depth(y)
            expected = here["post"](y + here["identity"](x))
            torch.manual_seed(seen)
            assert relative_error(block(x), expected) < 1e-12, path
