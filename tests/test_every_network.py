"""What holds for every network of the registry, one by one: sites, features, forms, heads.

Each is built in its form for small images, which is the cheapest, unless the test is of the other.
Without --slow, networks that stand for the others of their kind.
"""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from support.networks import (
    SMALL,
    calibrate_on_next_batch,
    images_of,
    on_meta,
    reduced,
    relative_error,
)
from support.parity import TOLERANCE
from tables import networks
from torch import Tensor, fx, nn

from senetzoo import NONE, SE, Policy, config, create, explain
from senetzoo.errors import ConfigError
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.slots import Layout, Slots
from senetzoo.registry import ENTRIES, FAMILIES

TRUNKS = [name for name, entry in ENTRIES.items() if entry.trunk == name]
ONE_EACH = list(SMALL.values())
TRACED_ALWAYS = ("lenet", "xception", "shufflenet_v2_x0_5", "convnext_tiny", "skresnet18", "swin_t")


def limited(name: str) -> bool:
    """Whether there are images too small for the network in one of its forms."""
    arch = ENTRIES[name].config
    return any(arch.replace(stem=stem).min_size > 1 for stem in arch.sizes)


def small(name: str, policy: Policy = NONE) -> Classifier:
    """The form for small images, without what networks draw at random."""
    still = reduced(name) if name in ONE_EACH else config(name)
    still = still.replace(stem="cifar", num_classes=7, dropout=0.0, drop_path=0.0)
    return still.replace(policy=policy).build(seed=0)


def small_on_meta(name: str) -> Classifier:
    model = on_meta(lambda: small(name))
    return model


def settled(name: str, policy: Policy = NONE) -> tuple[Classifier, Tensor]:
    """A small form in eval mode and a batch of images, which its statistics are those of.

    With other statistics no signal gets through a deep network that has just been initialized.
    """
    model = small(name, policy)
    x = images_of(model)
    calibrate_on_next_batch(model)
    with torch.no_grad():
        model(x)
    return model.eval(), x


class Probe(nn.Module):
    """A gate that says when it ran: one learnable factor for each channel."""

    def __init__(self, channels: int, layout: Layout) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.linspace(0.5, 1.5, channels))
        self.layout = layout
        self.shapes: list[torch.Size] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(x.shape)
        return x * (self.factor[:, None, None] if self.layout == "nchw" else self.factor)


def probed(model: Classifier) -> dict[str, Probe]:
    """A probe in every slot."""
    probes = {}
    for site, slots in model.slots():
        probes[site.path] = Probe(site.channels, site.layout)
        slots.put(site.position, probes[site.path])
    return probes


@pytest.mark.parametrize("name", TRUNKS)
def test_every_site_is_passed_once_with_its_channels(name: str) -> None:
    """Over all sites at once: each gate runs, once, on a map of the channels it was built for."""
    model = small_on_meta(name).eval()
    sites = model.sites()
    assert len({site.path for site in sites}) == len(sites)
    with torch.device("meta"):
        probes = probed(model)
        model(torch.empty(2, model.in_chans, 32, 32))
    for site in sites:
        # A factor for each channel broadcasts only where the channels are as declared.
        (shape,) = probes[site.path].shapes
        assert shape[1 if site.layout == "nchw" else 3] == site.channels, site
        assert model.get_submodule(site.path) is probes[site.path]
        assert 1 <= site.stage <= site.stages == len(model.stages())
        assert 1 <= site.block <= site.blocks == len(model.stages()[site.stage - 1])


@pytest.mark.parametrize("name", TRUNKS)
def test_every_site_gets_gradients_and_matters(name: str) -> None:
    torch.manual_seed(0)
    model, x = settled(name)
    model.requires_grad_(False)
    probes = probed(model)
    y = model(x)
    (y * torch.randn_like(y)).sum().backward()
    for path, probe in probes.items():
        gradient = probe.factor.grad
        assert gradient is not None, path
        assert bool(torch.isfinite(gradient).all()), path
        assert gradient.abs().max() > 0, path
    with torch.no_grad():
        for site, slots in model.slots():
            slots.clear(site.position)
        assert (model(x) - y).abs().max() > 1e-3 * y.abs().max()


@pytest.mark.parametrize("name", TRUNKS)
def test_features_are_as_they_say(name: str) -> None:
    model = small_on_meta(name).eval()
    info, size = model.feature_info, 32
    assert len(info) == len(model.stages()) == len(model.levels())
    with torch.device("meta"):
        x = torch.empty(2, model.in_chans, size, size)
        maps = model.feature_maps(x)
        last = model.forward_features(x)
        assert model.forward_head(last).shape == (2, 7)
    assert [m.shape[1] for m in maps] == [f.channels for f in info]
    assert all(m.shape[0] == 2 and m.ndim == 4 for m in maps)
    assert maps[-1].shape == last.shape
    # Promised in the docs: enough of a small image is left before it is pooled.
    assert min(last.shape[2:]) >= 4


@pytest.mark.parametrize(
    "name", [name for name in TRUNKS if "imagenet" in ENTRIES[name].config.sizes]
)
def test_strides(name: str) -> None:
    """A map grows by one pixel for each `stride` pixels that the image grows by."""
    model = on_meta(lambda: create(name, stem="imagenet", seed=0)).eval()
    # Without the check of a size, so that one network's fixed size is not in the way here.
    small, large = model.input_size, model.input_size + 7 * 64
    sizes = []
    for side in (small, large):
        with torch.device("meta"):
            maps = model.feature_maps(torch.empty(1, model.in_chans, side, side))
        sizes.append([m.shape[2] for m in maps])
    grown = [(large - small) // (b - a) for a, b in zip(*sizes, strict=True)]
    assert grown == [f.stride for f in model.feature_info]


@pytest.mark.parametrize("name", [name for name in TRUNKS if name in ONE_EACH or limited(name)])
def test_the_smallest_image(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`min_size` is exact: found again by trying."""
    for stem in ENTRIES[name].config.sizes:
        model = on_meta(lambda stem=stem: create(name, stem=stem, seed=0)).eval()  # type: ignore[misc]
        least = model.min_size

        def run(side: int, model: Classifier = model) -> None:
            with torch.device("meta"):
                y = model(torch.empty(1, model.in_chans, side, side))
            assert y.shape == (1, model.num_classes)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(least)
            if least == 1:
                continue
            with pytest.raises(ConfigError, match=f"{least - 1}x{least - 1} pixels"):
                run(least - 1)
            monkeypatch.setattr(type(model), "check_input", lambda *_: None)
            with pytest.raises((RuntimeError, ValueError, AssertionError)):
                run(least - 1)
            monkeypatch.undo()


@pytest.mark.parametrize("name", ONE_EACH)
def test_the_cam_layer_gives_the_last_map(name: str) -> None:
    model, x = settled(name)
    seen: list[Tensor] = []
    handle = model.cam_layer.register_forward_hook(lambda _, __, y: seen.append(y))
    y = model(x)
    handle.remove()
    (cam,) = seen
    assert cam.ndim == 4
    nchw = cam if model.layout == "nchw" else cam.permute(0, 3, 1, 2)
    assert torch.equal(nchw, model.forward_features(x))
    assert torch.equal(model.forward_head(nchw), y)
    (gradient,) = torch.autograd.grad(y[0, 1], cam)
    assert gradient[0].abs().max() > 0
    assert gradient[1].abs().max() == 0


@pytest.mark.parametrize("name", ONE_EACH)
def test_features_equal_the_levels_of_a_forward(name: str) -> None:
    model, x = settled(name, SE(4))
    with torch.no_grad():
        maps = model.feature_maps(x)
        kept = [m.clone() for m in maps]
        assert torch.equal(model.forward_head(maps[-1]), model(x))
    # Nothing later writes into a map that was handed out.
    assert all(torch.equal(a, b) for a, b in zip(maps, kept, strict=True))


@pytest.mark.parametrize("name", TRUNKS)
def test_reset_classifier(name: str) -> None:
    model = small_on_meta(name)
    before = {k: v.shape for k, v in model.state_dict().items()}
    model.reset_classifier(3)
    after = {k: v.shape for k, v in model.state_dict().items()}
    assert list(after) == list(before)
    changed = {k for k in before if before[k] != after[k]}
    assert changed == set(model.classifier_parameters())
    with torch.device("meta"):
        assert model.eval()(torch.empty(2, model.in_chans, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("name", ONE_EACH)
def test_copies_and_pickles(name: str) -> None:
    model, x = settled(name, SE(4))
    with torch.no_grad():
        y = model(x)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin(x), y)
            assert str(twin) == str(model)
            assert (twin.sites(), twin.spec.config) == (model.sites(), model.spec.config)
            assert torch.equal(twin.feature_maps(x)[-1], model.feature_maps(x)[-1])
            next(twin.parameters()).zero_()
            assert not torch.equal(twin(x), y)
            assert not torch.equal(twin.feature_maps(x)[-1], model.feature_maps(x)[-1])
        assert torch.equal(model(x), y)


@pytest.mark.parametrize(
    "name",
    [
        # Those that slice their children or select among maps; the others only chain modules.
        pytest.param(name, marks=[pytest.mark.slow] * (name not in TRACED_ALWAYS))
        for name in ONE_EACH
    ],
)
def test_symbolic_traces(name: str) -> None:
    model = small(name, SE(4)).eval()
    x = images_of(model)
    with torch.no_grad():
        assert torch.equal(fx.symbolic_trace(model)(x), model(x))


@pytest.mark.parametrize("name", ONE_EACH)
def test_channels_last_and_half_precision(name: str) -> None:
    model, x = settled(name, SE(4))
    model, x = model.double(), x.double()
    with torch.no_grad():
        y = model(x)
        z = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
        assert relative_error(z, y) < 1e-10
        z = model.to(torch.bfloat16)(x.to(torch.bfloat16))
    assert z.dtype == torch.bfloat16
    assert bool(torch.isfinite(z).all())


@pytest.mark.parametrize("name", ONE_EACH)
def test_wrong_inputs(name: str) -> None:
    model = small(name)
    channels = model.in_chans
    for shape in [(channels, 32, 32), (2, channels + 1, 32, 32), (2, 32, 32, channels), (1, 2)]:
        for call in (model, model.feature_maps):
            with pytest.raises(ConfigError) as caught:
                call(torch.zeros(shape))
            assert str(caught.value).startswith(
                f"The network got an input of shape {shape}.\n"
                f"It takes images of shape (N, {channels}, H, W).\n"
            )


@pytest.mark.parametrize("name", TRUNKS)
def test_explain_lists_every_site(name: str) -> None:
    found = explain(name)
    model = on_meta(lambda: create(name, policy=NONE, seed=0))
    assert [row.path for row in found.rows] == [site.path for site in model.sites()]
    assert [row.channels for row in found.rows] == [site.channels for site in model.sites()]


@pytest.mark.parametrize("name", TRUNKS)
def test_no_gate_is_left_without_a_slot(name: str) -> None:
    """Every `Slots` of every network is in a block: else a gate there could not be reached."""
    model = small_on_meta(name)
    reached = {id(slots) for _, slots in model.slots()}
    assert {id(m) for m in model.modules() if isinstance(m, Slots)} == reached


def test_every_network_has_been_compared() -> None:
    """With another library, as the record has it, or with its paper, by a test that exists."""
    path = Path(__file__).parents[1] / "benchmarks" / "records" / "parity" / "networks.jsonl"
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    compared = {record["network"] for record in records}
    assert {name for name in TRUNKS if name not in compared} == set(networks.BY_THE_PAPER)
    assert all(0 <= record["error"] < TOLERANCE for record in records)
    for test in set(networks.BY_THE_PAPER.values()):
        file, name = test.split("::")
        text = (Path(__file__).parent / file).read_text("utf-8")
        assert f"\ndef {name}(" in text, test


def test_the_table_says_of_a_network_that_nothing_was_compared_with_just_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(networks.BY_THE_PAPER, "lenet")
    *_, row = networks.every(["lenet"]).splitlines()
    assert row.split(" | ")[-2] == "nothing yet"


def test_every_network_has_a_paper() -> None:
    for name in TRUNKS:
        paper = ENTRIES[name].family.paper(name)
        assert paper.link.startswith("https://")
        assert 1989 < paper.year < 2026


def test_networks_with_gates_of_their_own_have_no_twin() -> None:
    for family in FAMILIES:
        for name in family.networks:
            own = name in family.defaults
            assert (f"se_{name}" in ENTRIES) != own
            assert (config(name).policy != NONE) == own
