"""Excitations against gates computed by hand, one image at a time; `senetzoo inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from support.networks import images, message, randomize, tiny
from torch import Tensor, nn

import senetzoo
from senetzoo import CBAM, GCT, SE, Policy, SimAM
from senetzoo.cli import main
from senetzoo.data import digits
from senetzoo.errors import ConfigError
from senetzoo.inspect import Excitation, drift, excitations
from senetzoo.nn.classifier import Classifier
from senetzoo.train.augment import normalize

LABELS = torch.tensor([0, 2, 2, 0, 4, 2, 0])


def network(policy: Policy) -> Classifier:
    model = tiny("basic", depths=(1, 1)).double()
    senetzoo.attach(model, policy, seed=0)
    randomize(model)
    return model.eval()


def pairs(x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Batches of different sizes, on which the results must not depend."""
    return [(x[:3], LABELS[:3]), (x[3:4], LABELS[3:4]), (x[4:], LABELS[4:])]


def seen(model: nn.Module, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Input and output of a gate, one image at a time."""
    found: list[tuple[Tensor, Tensor]] = []
    handle = model.get_submodule(name).register_forward_hook(
        lambda _, args, out: found.append((args[0][0], out[0]))
    )
    with torch.no_grad():
        for image in x:
            model(image[None])
    handle.remove()
    return torch.stack([a for a, _ in found]), torch.stack([b for _, b in found])


@pytest.mark.parametrize("policy", [SE(2).at("standard"), GCT().at("pre")], ids=str)
def test_channel_gates_by_hand(policy: Policy) -> None:
    model, x = network(policy), images(len(LABELS), 3, 12, 12)
    found = excitations(model, pairs(x), classes=5)
    assert len(found) == 2  # one in each block
    for name, excitation in found.items():
        before, after = seen(model, name, x)
        # Every pixel of a channel is multiplied by the same value.
        values = after.flatten(2).sum(2) / before.flatten(2).sum(2)
        assert torch.allclose(excitation.mean, values.mean(0), rtol=1e-9)
        assert torch.allclose(excitation.std, values.std(0, correction=0), rtol=1e-6)
        assert torch.allclose(excitation.low, values.amin(0), rtol=1e-9)
        assert torch.allclose(excitation.high, values.amax(0), rtol=1e-9)
        for label in range(5):
            own = values[label == LABELS]
            if len(own):
                assert torch.allclose(excitation.by_class[label], own.mean(0), rtol=1e-9)
            else:
                assert excitation.by_class[label].isnan().all()
        assert excitation.counts.tolist() == [3, 0, 3, 0, 1]
        classes = torch.stack([values[label == LABELS].mean(0) for label in (0, 2, 4)])
        assert excitation.spread == pytest.approx(np.std(classes.numpy(), 0).mean())


@pytest.mark.parametrize("policy", [CBAM(2).at("standard"), SimAM().at("post")], ids=str)
def test_gates_of_pixels_are_fitted(policy: Policy) -> None:
    model, x = network(policy), images(len(LABELS), 3, 12, 12)
    for name, excitation in excitations(model, pairs(x), classes=5).items():
        before, after = seen(model, name, x)
        fitted = torch.empty(before.shape[:2], dtype=torch.float64)
        for n in range(len(x)):
            for c in range(before.shape[1]):
                column = before[n, c].flatten()[:, None]
                fitted[n, c] = (
                    torch.linalg.lstsq(column, after[n, c].flatten()[:, None]).solution.item()
                    if column.any()
                    else 1.0
                )
        assert torch.allclose(excitation.mean, fitted.mean(0), rtol=1e-8)
        assert torch.allclose(excitation.high, fitted.amax(0), rtol=1e-8)


@pytest.mark.parametrize(
    "gate",
    [
        *("se", "se(init=identity)", "se(scale=3)", "eca", "cbam", "cbam(init=identity)"),
        *("cbam(part=channel,init=identity)", "scse", "scse(init=identity)", "scse(combine=max)"),
        *("scse(part=sse,init=identity)", "ge", "srm", "gct", "coord", "coord(init=identity)"),
        *("ese(init=identity)", "bam", "simam", "gc(fusion=scale,init=identity)"),
        *("triplet(init=identity)", "sge(init=identity)", "fca", "multiscale(init=identity)"),
        *("ela", "ela(init=identity)"),
    ],
)
def test_values_fill_their_range(gate: str) -> None:
    model = network(SE(1).at("standard") if gate == "se" else senetzoo.policy(gate))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "slots" in name:
                value.mul_(30.0)
    found = excitations(model, pairs(images(len(LABELS), 3, 12, 12)), classes=5).values()
    for excitation in found:
        assert (excitation.low >= 0.0).all()
        assert (excitation.high <= excitation.top * (1 + 1e-9)).all()
    assert max(float((e.high / e.top).max()) for e in found) > 0.7


def test_gates_without_a_bound_have_one_as_their_top() -> None:
    for gate in ("gc", "gc(init=identity)", "nonlocal", "shuffle"):
        found = excitations(network(senetzoo.policy(gate)), pairs(images(7, 3, 8, 8)), classes=5)
        assert {excitation.top for excitation in found.values()} == {1.0}


def made(low: list[float], high: list[float], top: float) -> Excitation:
    none = torch.zeros(len(low))
    ends = torch.tensor(low), torch.tensor(high)
    return Excitation("gate", "se", top, torch.ones(1), none[None], none, none, *ends, none[None])


@pytest.mark.parametrize("top", [1.0, 2.0])
def test_closed_open_and_constant_channels(top: float) -> None:
    low, high = [0.0, 0.96, 0.4, 0.1, 0.0], [0.04, 1.0, 0.44, 0.9, 1.0]
    found = made([top * x for x in low], [top * x for x in high], top)
    assert found.closed.tolist() == [True, False, False, False, False]
    assert found.open.tolist() == [False, True, False, False, False]
    assert found.constant.tolist() == [True, True, True, False, False]
    # Gates without a bound, whose top is 1, may lie outside.
    outside = made([-3.0 * top, 1.2 * top, -0.01 * top], [-2.0 * top, 1.3 * top, 0.01 * top], top)
    assert outside.closed.tolist() == [False, False, True]
    assert not outside.open.any()


def test_variation_is_the_error_of_a_constant() -> None:
    """`variation` against the values of the gate for all images at once."""
    model, x = network(SE(2).at("pre")), images(len(LABELS), 3, 12, 12)
    path = "layer1.0.slots.pre"
    found = excitations(model, pairs(x), classes=5)[path]
    values: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_hook(
        lambda gate, args, out: values.append(gate.excitation(args[0]))
    )
    with torch.no_grad():
        model(x)
    handle.remove()
    (each,) = values
    error = (each - each.mean(0)).square().sum() / each.square().sum()
    assert found.variation == pytest.approx(float(error) ** 0.5, rel=1e-9)


def test_values_are_counted_by_class() -> None:
    model, x = network(SE(2).at("standard")), images(len(LABELS), 3, 12, 12)
    for name, excitation in excitations(model, pairs(x), classes=5).items():
        before, after = seen(model, name, x)
        values = (after.flatten(2).sum(2) / before.flatten(2).sum(2)).numpy()
        for label in range(5):
            own = values[LABELS.numpy() == label].ravel()
            counts, _ = np.histogram(own, bins=50, range=(0.0, 1.0))
            assert excitation.histogram[label].tolist() == counts.tolist()
            if len(own):
                parts = (0.05, 0.5, 0.95)
                found = excitation.quantiles(parts, label)
                exact = np.quantile(own, parts, method="inverted_cdf")
                assert np.abs(np.array(found) - exact).max() <= 1 / 50
        whole = excitation.quantiles((0.0, 0.5, 1.0))
        assert list(whole) == sorted(whole)
        assert abs(whole[2] - values.max()) <= 1 / 50


def test_drift_is_the_way_from_the_initial_weights() -> None:
    policy = SE(2).at("standard") + SimAM().at("post")
    model, initial = network(policy), network(policy)
    name = "layer1.0.slots.standard"
    weight = model.get_parameter(f"{name}.fc1.weight")
    with torch.no_grad():
        weight.add_(0.25)
    squares = [float(p.square().sum()) for p in initial.get_submodule(name).parameters()]
    expected = (0.0625 * weight.numel() / sum(squares)) ** 0.5
    # SimAM has no parameters that could drift.
    assert drift(model, initial) == {
        name: pytest.approx(expected),
        "layer2.0.slots.standard": 0.0,
    }


def test_identity_gates_are_open_and_constant() -> None:
    model = senetzoo.create("resnet20", policy=SE(4, init="identity"), seed=0)
    x = torch.randn(4, 3, 32, 32)
    for excitation in excitations(model, [(x, torch.tensor([0, 1, 2, 3]))], classes=10).values():
        assert torch.equal(excitation.mean, torch.ones_like(excitation.mean))
        assert excitation.top == 2.0
        assert excitation.constant.all()
        assert not excitation.open.any()


def test_the_network_is_left_as_it_was() -> None:
    model = network(SE(2))
    model.train()
    model.get_submodule("fc").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    excitations(model, pairs(images(len(LABELS), 3, 12, 12)), classes=5)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ConfigError, match="It takes images of shape"):
        excitations(model, [(torch.randn(1, 5, 12, 12).double(), LABELS[:1])], classes=5)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())


def test_networks_of_others() -> None:

    from torchvision.models import resnet18

    model = resnet18(num_classes=4)
    senetzoo.attach(model, SE(16), seed=0)
    found = excitations(model, [(torch.randn(2, 3, 64, 64), torch.tensor([3, 1]))], classes=4)
    assert [len(excitation.mean) for excitation in found.values()] == [64] * 2 + [128] * 2 + [
        256
    ] * 2 + [512] * 2


def test_a_trained_network_tells_digits_apart() -> None:
    """Gates that have learned differ by class more than by chance."""
    model = senetzoo.create("se_lenet5", seed=0)
    test = digits.load("test")
    x = normalize(test.images, digits.MEAN, digits.STD, 32)
    found = excitations(model, [(x, test.labels)], classes=10)
    shuffled = test.labels[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    chance = excitations(model, [(x, shuffled)], classes=10)
    for name, excitation in found.items():
        assert int(excitation.counts.sum()) == len(x)
        assert excitation.spread > chance[name].spread


@pytest.mark.parametrize(
    ("name", "batches", "text"),
    [
        ("resnet20", [(torch.zeros(1, 3, 32, 32), torch.tensor([0]))],
         "The network has no gates to look at.\n"
         "Its policy is empty, or its gates aren't from this zoo.\n"
         "Give a network with gates, such as se_resnet20. Fine-tune one: senetzoo finetune "
         "PHOTOS --model se_resnet20. Without gates, type: senetzoo predict NETWORK IMAGE "
         "--explain FOLDER"),
        ("se_resnet20", [], "There are no images to look at.\nThe batches are empty."),
        ("se_resnet20", [(torch.zeros(1, 3, 32, 32), torch.tensor([10]))],
         "An image has the label 10.\nWith 10 classes, labels are from 0 to 9."),
    ],
)  # fmt: skip
def test_bad_input(name: str, batches: list[tuple[Tensor, Tensor]], text: str) -> None:
    assert (
        message(
            lambda: excitations(senetzoo.create(name, seed=0), batches, classes=10), ConfigError
        )
        == text
    )


# --- The command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved network of the digits, untrained."""
    folder = tmp_path_factory.mktemp("networks") / "net"
    senetzoo.save(
        senetzoo.create("se_lenet5", seed=0),
        folder,
        classes=[str(n) for n in range(10)],
        preprocessing=senetzoo.transforms(senetzoo.create("lenet5", pretrained=True)),
    )
    return folder


def test_command(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    arguments = ["inspect", str(saved), "--data", "digits", "--images", "4"]
    result = CliRunner().invoke(main, [*arguments, "--out", str(out), "--json", "--class", "7"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    model = senetzoo.load(saved)
    assert [gate["gate"] for gate in report["gates"]] == [
        name for name, _ in model.named_modules() if name.endswith(".standard")
    ]
    for gate in report["gates"]:
        assert gate["images"] == 40
        assert len(gate["mean"]) == len(gate["by_class"]["7"])
        assert sum(gate["histogram"]) == 40 * len(gate["mean"])
    page = out.read_text(encoding="utf-8")
    assert page.count("<svg") == len(report["gates"]) + 1
    assert "http" not in page.replace("http://www.w3.org", "")
    wrong = CliRunner().invoke(main, [*arguments, "--class", "77", "--out", str(out)])
    assert wrong.exit_code == 2
    assert wrong.stderr.startswith("error: The data has no class '77'.\n")
