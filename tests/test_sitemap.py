"""Sites of unknown networks: named by hand, or proposed by tracing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.foreign import SMALL, image, randomize_gates, small, traces
from support.networks import message
from torch import Tensor, nn
from torch.nn import functional

from senetzoo import (
    ECA,
    GE,
    SE,
    Place,
    SimAM,
    SiteMap,
    attach,
    detach,
    explain,
    propose,
    site_map,
    stage,
)
from senetzoo.errors import PolicyError
from senetzoo.nn.drop_path import DropPath
from senetzoo.policies.foreign.places import complete


class Mine(nn.Module):
    """An unknown residual network: a stem and two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.blocks = nn.ModuleList([Block(8, 8), Block(8, 16)])
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, 1 + (inputs != outputs), 1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1),
        )
        self.side = nn.Conv2d(inputs, outputs, 1, 2) if inputs != outputs else None
        self.drop = DropPath(0.1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(self.body(x))
        y += x if self.side is None else self.side(x)
        return self.act(y)  # type: ignore[no-any-return]


IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


# --- By name and by predicate --------------------------------------------------------------------


def test_places_by_name() -> None:
    model = Mine().eval()
    sites = SiteMap(
        (
            Place("blocks.0.body", "pre"),
            Place("blocks.0.body"),
            Place("blocks.1.body.2", "inner", "after", stage=2),
            Place("blocks.1", "post", stage=2, channels=16),
        )
    )
    before = traces(model)
    gates = attach(model, "se4+se4@pre+se4@inner+se4@post", sites=sites, seed=0, sample=IMAGES)
    assert [(site.path, site.stage, site.channels) for site in gates] == [
        ("blocks.0.body.3.senetzoo_standard", 1, 8),
        ("blocks.0.body.0.senetzoo_pre", 1, 8),
        ("blocks.1.body.2.senetzoo_inner", 2, 16),
        ("blocks.1.senetzoo_post", 2, 16),
    ]
    assert traces(detach(model)) == before


def test_where() -> None:
    model = Mine()

    def number(name: str) -> int:
        return int(name.split(".")[1]) + 1

    sites = site_map(model, "blocks.*.body.3", stage=number)
    sites += site_map(
        model, lambda name, module: isinstance(module, nn.ReLU) and "body" in name, "inner"
    )
    gates = attach(model, ECA().on(stage(1)) + ECA().at("inner"), sites=sites, sample=IMAGES)
    assert [(s.path, s.stage, s.block, s.stages, s.channels) for s in gates] == [
        ("blocks.0.body.3.senetzoo_standard", 1, 1, 2, 8),
        ("blocks.0.body.2.senetzoo_inner", 1, 1, 2, 8),
        ("blocks.1.body.2.senetzoo_inner", 1, 2, 2, 16),
    ]
    rows = explain(model, sites=sites, size=16).rows
    assert [(row.path, row.gate) for row in rows] == [
        ("blocks.0.body.3.senetzoo_standard", "eca"),
        ("blocks.1.body.3.senetzoo_standard", ""),
        ("blocks.0.body.2.senetzoo_inner", "eca"),
        ("blocks.1.body.2.senetzoo_inner", "eca"),
    ]


def test_a_map_over_a_known_network() -> None:
    model = small("torchvision basic").eval()
    sites = site_map(model, ["bn1", "layer1"], "post", channels=64)
    gates = attach(model, "se@post", sites=sites, sample=image("torchvision basic"))
    # For a sequence, its last child is used.
    assert [site.path for site in gates] == ["bn1.senetzoo_post", "layer1.1.senetzoo_post"]


BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: Place("x", "standart"), "Place got position='standart'.\n"  # type: ignore[arg-type]
     "position is one of 'pre', 'standard', 'post', 'identity', 'inner'.\n"
     "Did you mean 'standard'?"),
    (lambda: Place("x", when="during"), "Place got when='during'.\n"  # type: ignore[arg-type]
     "when is 'before', 'after' or None.\nType for example: when=None"),
    (lambda: Place("x", layout="chw"), "Place got layout='chw'.\n"  # type: ignore[arg-type]
     "layout is one of 'nchw', 'nhwc'.\nDid you mean 'nchw'?"),
    (lambda: Place("x", stage=0), "Place got stage=0.\n"
     "stage is a whole number of at least 1.\nType for example: stage=1"),
    (lambda: Place("x", channels=-1), "Place got channels=-1.\n"
     "channels is a whole number of at least 0.\nType for example: channels=0"),
    (lambda: site_map(Mine(), "block.*"),
     "'block.*' names no module of Mine.\nIt has 21 modules, from 'stem' to 'head'.\n"
     "Did you mean 'blocks.1'?"),
    (lambda: site_map(Mine(), lambda name, module: False),
     "The function names no module of Mine.\nIt has 21 modules, from 'stem' to 'head'."),
    (lambda: attach(Mine(), SE(), sites=SiteMap((Place("blocks.0.bodi"),))),
     "The SiteMap names the module 'blocks.0.bodi'.\nMine has no module of that name.\n"
     "Did you mean 'blocks.0.body'?"),
    (lambda: attach(Mine(), SE(), sites=SiteMap((Place("blocks"),))),
     "The SiteMap puts a gate at 'blocks', a ModuleList.\n"
     "It runs its children one after the other, and the gate would become one of them.\n"
     "Name the module inside it where the gate should be"),
    (lambda: attach(Mine(), SE(), sites=SiteMap((Place("blocks.0.act"),))),
     "The channels at 'blocks.0.act', a ReLU, are not known.\n"
     "They can be read from convolutions, norms and linear layers only.\n"
     "Type for example: Place('blocks.0.act', channels=64)"),
    (lambda: attach(Mine(), SE(), sites=SiteMap((Place("stem"), Place("stem", when="before")))),
     "The SiteMap has two standard places at 'stem'.\n"
     "A module has one gate for each position.\nGive them different positions"),
    (lambda: attach(Mine(), "se@pre", sites=SiteMap((Place("stem"),))),
     "se@pre matches nothing in Mine.\nMine has the positions standard, not pre.\n"
     "Type for example: @standard"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "text"), BAD)
def test_wrong_maps(call: Callable[[], object], text: str) -> None:
    assert message(call, PolicyError) == text


# --- Gates that would not act --------------------------------------------------------------------


class Sneaky(nn.Module):
    """Runs its convolution without calling it, and one of its children in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.walked = Walker()
        self.aside = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.walked(functional.conv2d(x, self.conv.weight))  # type: ignore[no-any-return]


class Walker(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = child(x)
        return x


@pytest.mark.parametrize("name", ["conv", "walked", "aside"])
def test_a_gate_that_does_not_act_is_found_and_taken_out(name: str) -> None:
    model = Sneaky()
    before = traces(model)
    sites = SiteMap((Place(name, channels=4), Place("walked.inner", "pre")))
    assert message(
        lambda: attach(model, "eca+eca@pre", sites=sites, seed=0, sample=torch.ones(1, 3, 4, 4)),
        PolicyError,
    ) == (
        f"1 of 2 gates have no effect: {name}.senetzoo_standard.\n"
        "The network doesn't call their modules, or calls them in a loop over all "
        "children.\n"
        "Leave them out of the SiteMap"
    )
    assert traces(model) == before


def test_a_gate_that_was_there_comes_back() -> None:
    model = Sneaky()
    good = SiteMap((Place("walked.inner", "pre"),))
    first = attach(model, "eca@pre", sites=good, seed=0)
    before = traces(model)
    both = good + SiteMap((Place("conv"),))
    message(
        lambda: attach(model, "se4+se4@pre", sites=both, sample=torch.ones(1, 3, 4, 4)), PolicyError
    )
    assert traces(model) == before
    assert list(first.values()) == [model.get_submodule("walked.inner.senetzoo_pre")]


def test_a_place_that_is_wrong() -> None:
    model = Mine()
    sites = SiteMap((Place("blocks.0.body", channels=7),))
    assert message(lambda: attach(model, ECA(), sites=sites, sample=IMAGES), PolicyError) == (
        "The gate at blocks.0.body.3.senetzoo_standard got a tensor of shape (2, 8, 8, 8).\n"
        "Its place in the SiteMap has 7 channels in the layout nchw.\n"
        "Set channels= and layout= of the place, or leave it out"
    )


def test_a_module_that_gives_no_tensor() -> None:
    model = nn.GRU(4, 4)
    attach(model, ECA(), sites=SiteMap((Place("", channels=4),)))
    assert message(lambda: model(torch.ones(2, 1, 4)), PolicyError) == (
        "The gate 'senetzoo_standard' at a GRU got a tuple.\n"
        "A gate takes one tensor, the module's first argument or its output.\n"
        "Remove this module from the SiteMap"
    )


def test_modules_that_were_exchanged_are_found() -> None:
    """A converted norm has the gate, but not the hook that runs it."""
    model = small("torchvision basic").eval()
    attached = attach(model, ECA(), seed=0)
    attached.check(image("torchvision basic"))
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    assert message(lambda: attached.check(image("torchvision basic")), PolicyError).startswith(
        "5 of 5 gates have no effect: layer1.0.bn2.senetzoo_standard, "
    )
    # After attaching again, they run.
    attach(model, ECA(), seed=0, sample=image("torchvision basic"))


def test_a_gate_on_the_other_side() -> None:
    model = Mine()
    attach(model, ECA(), sites=SiteMap((Place("stem", when="before"),)), seed=0)
    before = traces(model)
    assert message(lambda: attach(model, ECA(), sites=SiteMap((Place("stem"),))), PolicyError) == (
        "A Conv2d already has a gate 'senetzoo_standard', before it.\n"
        "The new one would sit elsewhere, or get a map of another size.\n"
        "Type first: detach(model)"
    )
    assert traces(model) == before


# --- Proposed ------------------------------------------------------------------------------------


def seen(sites: SiteMap, model: nn.Module) -> dict[str, tuple[Any, ...]]:
    return {
        place.path: (place.side, place.channels, place.layout)
        for place in complete(sites, model).places
    }


@pytest.mark.parametrize(
    "name",
    [
        "torchvision basic",
        "torchvision bottleneck",
        "torchvision resnext",
        "torchvision vgg",
        "torchvision vgg_bn",
        "torchvision alexnet",
        "torchvision mobilenet_v2",
        "torchvision mobilenet_v3_small",
        "torchvision efficientnet_b0",
        "torchvision swin",
        "timm bottleneck",
        "pytorchcv basic",
    ],
)
def test_what_is_proposed_is_what_the_tables_know(name: str) -> None:
    model = small(name).eval()
    before = traces(model)
    example = torch.empty(1, 3, SMALL[name][1], SMALL[name][1])
    sites = propose(model, example)
    assert traces(model) == before
    proposed, known = seen(sites, model), seen(site_map(model), model)
    if name == "pytorchcv basic":
        # Its convolution modules are traced, too, so places are inside or after them.
        assert len(proposed) == 4 * 4 + 2
    else:
        assert proposed.items() <= known.items()
    missing = {path.rpartition("_")[2] for path in known.keys() - proposed.keys()}
    units = {"pre", "standard", "inner"} if "net_v" in name or "efficient" in name else set()
    assert name == "pytorchcv basic" or missing <= {"identity", "post"} | units
    gates = attach(
        model, "eca" if "swin" not in name else "eca@post", sites=sites, sample=image(name)
    )
    assert len(gates) >= 3
    if name.split()[1] in ("basic", "bottleneck", "resnext"):
        numbers = {(p.path, p.stage, p.block) for p in complete(site_map(model), model).places}
        assert name == "pytorchcv basic" or numbers >= {
            (p.path, p.stage, p.block) for p in complete(sites, model).places
        }
        reasons = {refusal.reason for refusal in sites.unsupported}
        assert "the skip is the block's input as it is, and no module of its own" in reasons


def test_a_network_of_nobody() -> None:
    model = Mine().eval()
    sites = propose(model, IMAGES)
    assert str(sites) == (
        "stage 1 block 1: pre before blocks.0.body.0\n"
        "stage 1 block 1: standard after blocks.0.body.3\n"
        "stage 1 block 1: inner before blocks.0.body.3\n"
        "stage 1 block 1: post after blocks.0\n"
        "stage 2 block 1: pre before blocks.1.body.0\n"
        "stage 2 block 1: standard after blocks.1.body.3\n"
        "stage 2 block 1: inner before blocks.1.body.3\n"
        "stage 2 block 1: identity after blocks.1.side\n"
        "stage 2 block 1: post after blocks.1\n"
        "unsupported: stem: no place, it is in no residual branch\n"
        "unsupported: blocks.0: identity, the skip is the block's input as it is, and no module of "
        "its own"
    )
    gates = attach(model, "se4+se4@pre+se4@inner+se4@post+se4@identity", sites=sites, seed=0)
    gates.check(IMAGES)
    assert [str(refusal) for refusal in gates.unsupported] == [
        "blocks.0: identity, the skip is the block's input as it is, and no module of its own"
    ]
    randomize_gates(gates)
    with torch.no_grad():
        before = model(IMAGES)
        detach(model)
        assert not torch.allclose(model(IMAGES), before)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Choosy(nn.Module):
    """A network whose control flow depends on the images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x if x.sum() > 0 else -x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "name", ["torchvision basic", "timm bottleneck", "timm convnext", "pytorchcv basic"]
)
def test_the_blocks_of_what_cant_be_traced(name: str) -> None:
    """They are those of the tables, or branches inside them that are modules."""
    inside = small(name).eval()
    model, x = Choosy(inside), image(name)
    before = traces(model)
    sites = propose(model, x)
    assert traces(model) == before
    wanted = "standard" if name == "pytorchcv basic" else "post"
    known = [p for p in complete(site_map(model), model).places if p.position == wanted]
    found = [p for p in sites.places if p.position == "standard"]
    assert [(p.module, p.channels) for p in found] == [(p.module, p.channels) for p in known]
    attach(model, "eca+eca@pre", sites=sites, seed=0, sample=x)
    # Existing gates aren't proposed.
    assert propose(model, x) == sites


def test_what_cant_be_traced_is_said() -> None:
    sites = propose(Branching(), IMAGES)
    assert sites.places == ()
    assert [str(refusal)[:66] for refusal in sites.unsupported] == [
        "the network: no place, torch.fx can't trace it: TraceError: symbol"
    ]
    assert [str(r) for r in propose(nn.Linear(3, 3), torch.ones(1, 3)).unsupported] == [
        "the network: no place, it has neither residual sums nor convolutions of images"
    ]
    model = Branching()
    assert message(lambda: attach(model, SE(), sites=sites), PolicyError).splitlines()[::2] == [
        "attach got a SiteMap without places for a Branching.",
        NAME_IT,
    ]


NAME_IT = (
    "If a module gives maps of images, name it, for example: "
    'SiteMap((Place("layer1.conv", channels=64),))'
)


def test_networks_of_tokens_are_told_that_gates_do_not_fit() -> None:
    """Once and for all: no advice sends one back to where one came from."""
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32).eval()
    sites = propose(model, torch.zeros(1, 3, 32, 32))
    assert sites.places == ()
    assert str(sites.unsupported[0]) == (
        "the network: no place, its blocks process sequences, but gates need feature maps"
    )
    assert any("a tensor of (1, 5, 192)" in lacking.reason for lacking in sites.unsupported[1:])
    assert message(lambda: attach(model, SE(), sites=sites), PolicyError) == (
        "attach got a SiteMap without places for a VisionTransformer.\n"
        f"Unsupported: {sites.unsupported[0]}.\n{NAME_IT}"
    )


def test_an_empty_sequence_is_no_place() -> None:
    """timm's GhostNet has one on the skip of a block that keeps the shape."""
    timm = pytest.importorskip("timm")
    model = timm.create_model("ghostnet_050").eval()
    empty = [n for n, m in model.named_modules() if isinstance(m, nn.Sequential) and not len(m)]
    assert any(name.endswith("shortcut") for name in empty)
    x = image("torchvision basic")
    before = traces(model)
    sites = propose(model, x)
    assert {place.position for place in sites.places} >= {"pre", "standard", "identity"}
    assert not {place.module for place in sites.places} & set(empty)
    attach(model, "eca+eca@pre+eca@identity", sites=sites, seed=0, sample=x)
    assert traces(detach(model)) == before


@pytest.mark.parametrize("rank", [1, 3])
def test_networks_of_signals_and_volumes_are_refused(rank: int) -> None:
    conv: Any = {1: nn.Conv1d, 3: nn.Conv3d}[rank]
    model = nn.Sequential(conv(3, 8, 3, padding=1), nn.ReLU(), conv(8, 8, 3, padding=1))
    before = set(model.state_dict())
    for gate in (SE(2), SimAM(), GE()):
        with pytest.raises(PolicyError, match=f"attach got a Sequential of Conv{rank}ds"):
            attach(model, gate, sites=site_map(model, "2"))
        with pytest.raises(PolicyError, match=f"attach got a Sequential of Conv{rank}ds"):
            attach(model, gate)
    assert set(model.state_dict()) == before


def test_a_gate_takes_maps_only() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(2), nn.Conv1d(8, 8, 1))
    attach(model, SimAM(), sites=SiteMap((Place("2", channels=8),)))
    with pytest.raises(PolicyError, match="A gate takes feature maps"):
        model(torch.randn(2, 3, 4, 4))
