"""What `senetzoo.deploy` rewrites gives what the network gives."""

from __future__ import annotations

import copy
from typing import Any, Literal

import pytest
import torch
from support.networks import (
    EVERY_GATE,
    SMALL,
    calibrate_on_next_batch,
    drawn_network,
    images,
    images_of,
    randomize,
    relative_error,
    tiny,
)
from test_export import QUICK, TRUNKS, short
from torch import Tensor, nn

from senetzoo import (
    SE,
    attach,
)
from senetzoo.deploy.graph import aten, traced
from senetzoo.deploy.rewrite import Rewrites, rewritten
from senetzoo.deploy.squeeze import squeeze_through
from senetzoo.nn.classifier import Classifier
from senetzoo.policies.algebra import NONE, Gate, Policy
from senetzoo.policies.recover import recovered
from senetzoo.zoo import config

# In fp64; of the largest logit.
EXACT = 1e-11
# In fp32, where the network's own error is less.
SINGLE = 1e-6
# A 3x3's borders by inclusion and exclusion are nine sums: over the map (with nine weights), its
# four edges (with three each) and corners (one each). Of a map of one pixel all nine are that
# pixel, and 24 of the 25 terms cancel.
BORDERS = 25 * torch.finfo(torch.float32).eps


def calibrated(model: nn.Module, x: Tensor) -> nn.Module:
    """`model` in eval mode, with random weights and the batch-norm statistics of one forward."""
    randomize(model)
    calibrate_on_next_batch(model.train())
    with torch.no_grad():
        model(x)
    return model.eval()


@torch.no_grad()
def same(model: nn.Module, x: Tensor, *, everywhere: bool, least_bound: float = SINGLE) -> Rewrites:
    """Assert that the rewritten form is exact, and not worse than the network in fp32.

    Errors in fp32 up to `least_bound` are none, however exact the network's own form is.
    """
    module, done = rewritten(model, x, everywhere=everywhere)
    expected = model(x)
    assert expected.std() > 1e-6
    for batch in (x, x[:1], x.to(memory_format=torch.channels_last)):
        assert relative_error(module(batch), expected[: len(batch)]) < EXACT
    own = copy.deepcopy(model).float()
    single = relative_error(own(x.float()).double(), expected)
    if any(torch.float64 in (*n.args, *n.kwargs.values()) for n in module.graph.nodes):
        # Some gates compute in a dtype that they choose by the input's: it is in their graph.
        module, _ = rewritten(own, x.float(), everywhere=everywhere)
    assert relative_error(module.float()(x.float()).double(), expected) <= max(
        2 * single, least_bound
    )
    return done


def network(name: str, policy: Policy | None = None) -> tuple[Classifier, Tensor]:
    arch = short(name)
    if policy is not None:
        arch = arch.replace(policy=policy)
    model = arch.replace(stem="cifar", num_classes=7).build(seed=0).double()
    x = images_of(model, 4).double()
    calibrated(model, x)
    return model, x


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in SMALL.values()]
)
def test_every_family(name: str) -> None:
    model, x = network(name, SE(4))
    done = same(model, x, everywhere=True)
    assert done.folded + done.norms == sum(
        isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) for module in model.modules()
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TRUNKS, "se_resnet50"])
def test_every_network(name: str) -> None:
    model, x = network(name, SE(4))
    same(model, x, everywhere=True)


@pytest.mark.parametrize(
    ("block", "gate"),
    [
        pytest.param(
            block,
            gate,
            id=f"{block}-{gate.name}",
            # An average, a convolution over channels, pixels, and none of these.
            marks=[pytest.mark.slow]
            * (gate.name not in {"basic": ("se", "eca"), "bottleneck": ("scse", "gct")}[block]),
        )
        for block in ("basic", "bottleneck")
        for gate in EVERY_GATE
    ],
)
def test_every_gate_at_every_position(block: Literal["basic", "bottleneck"], gate: Gate) -> None:
    """All five in one network: one of them in each block."""
    model = tiny(block, depths=(2, 3)).double()
    at = ("pre", "standard", "post", "identity", "inner")
    chosen = {}
    for slots, position in zip(dict.fromkeys(s for _, s in model.slots()), at, strict=True):
        site = next(s for s, owner in model.slots() if owner is slots and s.position == position)
        chosen[site] = gate
    attach(model, recovered(chosen, model.sites()), seed=0)
    x = images(4, 3, 12, 12)
    same(calibrated(model, x), x, everywhere=True)


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=[pytest.mark.slow] * (n > 0)) for n in range(12)]
)
def test_networks_drawn_at_random(seed: int) -> None:
    model = drawn_network(seed).double()
    x = images_of(model, 4, 32).double()
    same(calibrated(model, x), x, everywhere=seed % 2 == 0)


class Gated(nn.Module):
    """A convolution whose map is multiplied by a gate of its average."""

    def __init__(self, conv: nn.Conv2d, *, keepdim: bool, first: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.keepdim, self.first = conv, keepdim, first

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = y.mean((2, 3), keepdim=self.keepdim)
        if self.first is not None:
            z = self.first(z)
        # The gate is an output too, so that its own error shows.
        z = z.flatten(1)
        return torch.cat([z, (y * torch.sigmoid(z.sum(1))[:, None, None, None]).flatten(1)], 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 2), (3, 1), (2, 5), (6, 3)])
@pytest.mark.parametrize(("keepdim", "groups"), [(False, 1), (True, 2)])
def test_borders_by_inclusion_and_exclusion(
    size: tuple[int, int], keepdim: bool, groups: int
) -> None:
    """Maps of one row or column too, where the first is the last."""
    conv = nn.Conv2d(4, 6, 3, padding=1, groups=groups, bias=groups == 1).double()
    first = nn.Conv2d(6, 3, 1).double() if keepdim else nn.Linear(6, 3, bias=False).double()
    x = torch.randn(3, 4, *size, dtype=torch.float64)
    for layer in (None, first):
        model = Gated(conv, keepdim=keepdim, first=layer)
        done = same(model, x, everywhere=True, least_bound=BORDERS)
        assert done.squeezed == ("",)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_single_pixels_of_any_stride(groups: int, stride: int) -> None:
    model = Gated(nn.Conv2d(4, 24, 1, stride, groups=groups).double(), keepdim=False)
    x = torch.randn(2, 4, 7, 5, dtype=torch.float64)
    done = same(model, x, everywhere=True)
    assert done.squeezed == ("",)


@pytest.mark.parametrize(
    ("conv", "why"),
    [
        (nn.Conv2d(4, 6, 3, 2, 1), "its convolution is 3x3 of stride 2"),
        (nn.Conv2d(4, 6, 3), "its convolution is 3x3 of stride 1"),
        (nn.Conv2d(4, 6, 3, padding=2, dilation=2), "its convolution is 3x3 of stride 1"),
        (nn.Conv2d(4, 6, 5, padding=2), "its convolution is 5x5 of stride 1"),
        (nn.Conv2d(4, 6, 1, padding=1), "its convolution is 1x1 of stride 1"),
    ],
)
def test_other_convolutions_stay(conv: nn.Conv2d, why: str) -> None:
    done = same(Gated(conv.double(), keepdim=True), images(4, 4, 9, 9), everywhere=True)
    assert (done.squeezed, done.left) == ((), (("", why),))


def paths(model: Classifier, position: str = "standard") -> tuple[str, ...]:
    return tuple(site.path for site in model.sites() if site.position == position)


def shallow(name: str, **fields: Any) -> tuple[Classifier, Tensor]:
    arch = config(name).replace(stem="cifar", num_classes=7, **fields)
    model = arch.build(seed=0).double()
    x = images(4, 3, 16, 16)
    calibrated(model, x)
    return model, x


@pytest.mark.parametrize(
    "name",
    [
        *("se_resnext50_32x4d", "se_preresnet50", "resnet50+ese"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("se_resnet50", "resnet50+eca")),
    ],
)
def test_bottlenecks_are_squeezed(name: str) -> None:
    """Every gate of the standard position: its 1x1 convolution has fewer inputs than outputs."""
    model, x = shallow(name, depths=(1, 1))
    done = same(model, x, everywhere=False)
    assert done.squeezed == paths(model)
    assert done.left == ()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel", [1, 5, 2])
def test_convolutions_along_channels(kernel: int, bias: bool) -> None:
    """ECA's becomes part of the layer from the average, if it has a result for each channel."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 6, 1, bias=bias)
            self.along = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=bias)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            gate = self.along(y.mean((2, 3)).view(-1, 1, 6))[:, 0, :6].sigmoid()
            logits: Tensor = self.head((y * gate[:, :, None, None]).mean((2, 3)))
            return logits

    torch.manual_seed(0)
    model, x = Gated().double().eval(), torch.randn(3, 4, 5, 5, dtype=torch.float64)
    same(model, x, everywhere=False)
    graph = rewritten(model, x)[0].graph
    assert any(n.target is aten.conv1d.default for n in graph.nodes) == (kernel % 2 == 0)


def test_other_convolutions_along_an_axis_stay() -> None:
    """Of a parameter, and of layers of sequences."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query = nn.Parameter(torch.randn(1, 1, 6))
            self.layer = nn.Linear(5, 6)
            self.along = nn.Conv1d(1, 1, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            rows = self.along(self.layer(x[:, 0]).reshape(-1, 1, 6)).reshape(-1, 4, 6)
            logits: Tensor = rows.mean(1) + self.along(self.query)[:, 0]
            return logits

    torch.manual_seed(0)
    model, x = Tokens().double().eval(), torch.randn(3, 1, 4, 5, dtype=torch.float64)
    same(model, x, everywhere=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["se_resnet50", "se_resnext50_32x4d", "senet154", "se_resnet152"])
def test_whole_networks_are_squeezed(name: str) -> None:
    model, x = network(name)
    assert same(model, x, everywhere=False).squeezed == paths(model)


def test_what_stays_is_told_with_its_reason() -> None:
    model, x = shallow("se_resnet20", depths=(1,))
    borders = "its convolution is 3x3, whose windows differ at the borders"
    _, done = rewritten(model, x)
    assert done.left == tuple((path, borders) for path in paths(model))
    assert rewritten(model, x, everywhere=True)[1].squeezed == paths(model)
    model, x = shallow("resnet20+se4@post/s1", depths=(1,))
    relu = "its map comes from relu, not from a convolution"
    assert rewritten(model, x)[1].left == ((paths(model, "post")[0], relu),)
    model, x = shallow("resnet50+cbam/s1", depths=(1,))
    ((_, why),) = rewritten(model, x)[1].left
    assert why == "its map is read by amax anyway"


@pytest.mark.parametrize(
    ("name", "depths", "norms"),
    [
        # DenseNet's first norm of each layer, of each transition, and the last: behind a
        # concatenation; the first of the pre-activation network behind a sum.
        ("resnet50", (1,), 0),
        ("densenet121", (2, 1), 3 + 1 + 1),
        ("preresnet20", (1, 2), 3 + 1),
    ],
)
def test_norms_that_stay(name: str, depths: tuple[int, ...], norms: int) -> None:
    model, x = shallow(name, depths=depths)
    graph, done = rewritten(model, x)
    left = [n for n in graph.graph.nodes if n.target is aten.batch_norm.default]
    assert (done.norms, len(left)) == (norms, norms)


def test_factors_are_folded() -> None:
    model, x = network("inception_resnet_v1", NONE)
    graph, done = rewritten(model, x)
    # One in each residual block, but for the last one, which is not scaled.
    assert done.factors == sum(getattr(module, "scale", 1.0) != 1.0 for module in model.modules())
    assert not [n for n in graph.graph.nodes if n.target is aten.mul.Tensor]


@pytest.mark.parametrize("name", ["se_repvgg_a0", "repvgg_a0+se4@pre"])
def test_branches_become_one_convolution(name: str) -> None:
    """One convolution for each layer, as in the paper's form of deployment, and no norm."""
    model, x = shallow(name, depths=(2,), last=0.25)
    graph, done = rewritten(model, x)
    convs = [node for node in graph.graph.nodes if node.target is aten.conv2d.default]
    assert (len(convs), done.branches, done.norms) == (3, 3, 0)
    assert not [node for node in graph.graph.nodes if node.target is aten.add.Tensor]
    with torch.no_grad():
        assert relative_error(graph(x), model(x)) < EXACT


class Added(nn.Module):
    """Two layers of one map, added."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.one(x) + self.other(x)
        return y.flatten(1)


@pytest.mark.parametrize(
    ("one", "other", "branches"),
    [
        (nn.Conv2d(4, 4, (3, 5), padding=(1, 2), groups=2), nn.BatchNorm2d(4), 0),
        (nn.Conv2d(4, 6, (1, 3), padding=(0, 1)), nn.Conv2d(4, 6, (1, 1), bias=False), 1),
        (nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(4, 6, 1, 2), 1),
        # Kernels that don't lie on each other's middle, or look at other pixels.
        (nn.Conv2d(4, 6, (1, 3), padding=(0, 1)), nn.Conv2d(4, 6, (3, 1), padding=(1, 0)), 0),
        (nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 6, 3, padding=2, dilation=2), 0),
        (nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 6, 1, groups=2), 0),
    ],
)
def test_branches_of_any_shape(one: nn.Module, other: nn.Module, branches: int) -> None:
    x = images(2, 4, 7, 6)
    model = Added(one, other).double()
    done = same(calibrated(model, x), x, everywhere=False)
    assert (done.branches, done.norms) == (branches, 0)


def test_the_network_is_not_changed() -> None:
    model, x = shallow("se_resnet50", depths=(1,))
    model.train().requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    rewritten(model, x)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_nothing_is_kept_that_is_not_used() -> None:
    model, x = shallow("se_resnet50", depths=(1,))
    module, done = rewritten(model, x)
    held = {name for name, _ in [*module.named_parameters(), *module.named_buffers()]}
    assert held == {n.target for n in module.graph.nodes if n.op == "get_attr"}
    assert done.removed == 1
    graph = traced(model, x)
    assert set(squeeze_through(graph).values()) == {
        "its map comes from getitem, not from a convolution"
    }


@pytest.mark.parametrize(
    "name",
    [
        "pytorchcv:seresnet20_cifar10",
        pytest.param("timm:seresnet50", marks=pytest.mark.slow),
        pytest.param("timm:legacy_seresnet50", marks=pytest.mark.slow),
        pytest.param("pytorchcv:seresnet50", marks=pytest.mark.slow),
    ],
)
def test_networks_of_others(name: str) -> None:
    library, _, kind = name.partition(":")
    if library == "timm":
        import timm

        model = timm.create_model(kind, num_classes=5)
    else:
        from pytorchcv.model_provider import get_model

        model = get_model(kind)
    model = model.double()
    x = images(4, 3, 32, 32)
    calibrated(model, x)
    done = same(model, x, everywhere=True)
    assert done.norms == 0
    assert len(done.squeezed) == (9 if "cifar" in name else 16)
