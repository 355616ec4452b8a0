"""Gates folded into weights, against the network with constants in their places."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from helpers import randomise, reduced, tiny
from torch import Tensor

import senetzoo
from senetzoo import ECA, SE
from senetzoo.cli import main
from senetzoo.errors import ConfigError
from senetzoo.inspect import excitations, prune_gates
from senetzoo.inspect.prune import with_constants
from senetzoo.nn.classifier import Classifier

# By network: how many gates there are, how many can be folded, and why the others can't.
ADDED = "its map comes from add, and goes to add"
SHARED = "its map comes from a map that others read too, and goes to "
NETWORKS = [
    ("lenet5", "se2", 2, 2, ""),
    ("lenet5", "se2@pre", 2, 2, ""),
    ("vgg11", "se@pre", 8, 8, ""),
    ("vgg11_bn", "se", 8, 8, ""),
    ("googlenet", "se", 9, 9, ""),
    ("inception_resnet_v1", "se@inner", 4, 4, ""),
    ("inception_resnet_v1", "se", 6, 4, SHARED + "add"),
    ("resnet20", "se", 9, 9, ""),
    ("resnet20", "se4@pre", 9, 9, ""),
    ("resnet20", "se4@inner", 9, 9, ""),
    ("resnet20", "se4@identity", 9, 2, SHARED + "add"),
    ("resnet20", "se4@post", 9, 3, ADDED),
    ("resnext50_32x4d", "se@pre", 16, 16, ""),
    ("preresnet20", "se4@pre", 9, 9, ""),
    ("preresnet20", "se", 9, 9, ""),
    ("densenet40_12", "se4", 9, 9, ""),
    ("densenet40_12", "se4@post", 9, 3, SHARED + "cat"),
    ("mobilenet_v1_025", "se4@pre", 13, 13, ""),
    ("efficientnet_b0", "se@inner", 16, 16, ""),
    ("swin_t", "se", 16, 16, ""),
    ("swin_t", "se4@pre", 16, 16, ""),
]
# Their graphs are large: ten seconds each.
LARGE = (
    "efficientnet_b0", "googlenet", "inception_resnet_v1", "mobilenet_v1_025", "resnext50_32x4d",
    "swin_t",
)  # fmt: skip


def images(model: Classifier) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (2, model.config.in_chans, 32, 32)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def built(name: str, policy: str = "se") -> tuple[Classifier, Tensor]:
    spec = reduced(name).replace(num_classes=5, policy=policy)
    if name != "lenet5":
        spec = spec.replace(stem="cifar")
    model = spec.build(seed=0).double().eval()
    randomise(model)
    return model, images(model)


@pytest.mark.parametrize(
    ("name", "policy", "gates", "folded", "why"),
    [pytest.param(*case, marks=[pytest.mark.slow] * (case[0] in LARGE)) for case in NETWORKS],
)
def test_folding_is_exact(name: str, policy: str, gates: int, folded: int, why: str) -> None:
    model, x = built(name, policy)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = excitations(model, [(x, torch.tensor([0, 1]))], classes=2)
    pruned, told = prune_gates(model, found, tolerance=1.0)
    gone = [each.path for each in told if not each.why]
    assert (len(told), len(gone)) == (gates, folded)
    assert {each.why for each in told if each.why} == ({why} if why else set())
    with torch.no_grad():
        expected = with_constants(model, {path: found[path].mean for path in gone})(x)
        given = pruned(x)
    assert float((given - expected).abs().max()) <= 1e-12 * float(expected.abs().max())
    # Not by leaving the gates alone: without them and without the folding it is another network.
    assert set(before) - set(pruned.state_dict()) == {
        key for key in before if key.startswith(tuple(f"{path}." for path in gone))
    }
    stripped = copy.deepcopy(model)
    for site, slots in list(stripped.slots()):
        if site.path in gone:
            slots.clear(site.position)
    with torch.no_grad():
        assert float((stripped(x) - expected).abs().max()) > 1e-6 * float(expected.abs().max())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_only_nearly_constant_gates_go() -> None:
    model, x = built("resnet20")
    found = excitations(model, [(x, torch.tensor([0, 1]))], classes=2)
    ordered = sorted(excitation.variation for excitation in found.values())
    middle = (ordered[3] + ordered[4]) / 2
    pruned, told = prune_gates(model, found, tolerance=middle)
    for each in told:
        assert each.variation == found[each.path].variation
        assert each.why == ("" if each.variation <= middle else "it depends on the image")
        assert each.params == sum(p.numel() for p in model.get_submodule(each.path).parameters())
        left = dict(pruned.named_modules())
        assert (each.path in left) == bool(each.why)
    assert 0 < sum(not each.why for each in told) < len(told)


def test_what_a_constant_is_wrong_by() -> None:
    """`variation` against the maps of the gate itself, for maps that are the same for all."""
    model, x = built("resnet20", "se4@pre/s1&b1")
    path = "layer1.0.slots.pre"
    found = excitations(model, [(x, torch.tensor([0, 1]))], classes=2)[path]
    seen: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_hook(
        lambda gate, args, out: seen.append(gate.excitation(args[0]))
    )
    with torch.no_grad():
        model(x)
    handle.remove()
    values = seen[0]
    error = (values - values.mean(0)).square().sum() / values.square().sum()
    assert found.variation == pytest.approx(float(error) ** 0.5, rel=1e-9)


def test_other_gates() -> None:
    model, x = built("resnet20", "none")
    senetzoo.attach(model, ECA().on(senetzoo.stage(1)) + senetzoo.CBAM(4).on(senetzoo.stage(2)))
    model.double()
    found = excitations(model, [(x, torch.tensor([0, 1]))], classes=2)
    pruned, told = prune_gates(model, found, tolerance=1.0)
    assert [each.why for each in told] == [""] * 3 + ["its values differ from pixel to pixel"] * 3
    with torch.no_grad():
        gone = {each.path: found[each.path].mean for each in told if not each.why}
        assert torch.allclose(pruned(x), with_constants(model, gone)(x), rtol=1e-10)


def test_a_closed_channel_is_not_folded() -> None:
    model, x = built("resnet20")
    gate = model.get_submodule("layer1.0.slots.standard")
    with torch.no_grad():
        gate.get_parameter("fc2.bias")[3] = -2000.0  # sigmoid: exactly 0
    found = excitations(model, [(x, torch.tensor([0, 1]))], classes=2)
    _, told = prune_gates(model, found, tolerance=1.0)
    assert told[0].why == "it closes a channel altogether"
    assert not any(each.why for each in told[1:])


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = senetzoo.create("se_resnet20", pretrained=True)
    x = images(model).float()
    found = excitations(model, [(x, torch.tensor([0, 1]))], classes=2)
    pruned, _ = prune_gates(model, found, tolerance=sorted(e.variation for e in found.values())[2])
    senetzoo.save(pruned, tmp_path / "pruned")
    again = senetzoo.load(tmp_path / "pruned")
    with torch.no_grad():
        assert torch.equal(again(x), pruned(x))
    assert len(list(again.sites())) == len(list(model.sites()))
    assert again.load_report is not None
    assert again.load_report.classes == model.load_report.classes if model.load_report else False


def test_bad_input() -> None:
    model = tiny("basic")
    x = torch.randn(1, 3, 12, 12)
    senetzoo.attach(model, SE(2), seed=0)
    found = excitations(model, [(x, torch.tensor([0]))], classes=1)
    cases: list[tuple[Callable[[], object], str]] = [
        (
            lambda: prune_gates(torch.nn.Linear(1, 1), found),  # type: ignore[arg-type]
            "prune_gates got a Linear.\nIt takes networks made by senetzoo.create.\n"
            'Type for example: create("se_resnet20", pretrained=True)',
        ),
        (
            lambda: prune_gates(model, found, tolerance=1.5),
            "prune_gates can't have tolerance=1.5.\nIt is a number from 0 to 1.",
        ),
        (
            lambda: prune_gates(tiny("basic"), found),
            f"The network has no gate {next(iter(found))}.\n"
            "The excitations are of another network.\n"
            "Measure them again: excitations(model, batches, classes=...)",
        ),
    ]
    for call, text in cases:
        with pytest.raises(ConfigError) as caught:
            call()
        assert str(caught.value) == text


# --- Commands ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved network of the digits, untrained, one of whose gates is constant."""
    folder = tmp_path_factory.mktemp("networks") / "net"
    model = senetzoo.create("se_lenet5", seed=0)
    gate = next(m for name, m in model.named_modules() if name.endswith(".standard"))
    with torch.no_grad():
        gate.get_parameter("fc2.weight").zero_()
    senetzoo.save(
        model,
        folder,
        classes=[str(n) for n in range(10)],
        preprocessing=senetzoo.transforms(senetzoo.create("lenet5", pretrained=True)),
    )
    return folder


def test_prune_command(network: Path, tmp_path: Path) -> None:
    out = tmp_path / "pruned"
    arguments = ["inspect", "prune-gates", str(network), "--data", "digits", "--images", "5"]
    arguments += ["--test", "digits", "--rounds", "2", "--batch", "2"]
    result = CliRunner().invoke(main, [*arguments, "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["gates"][0]["folded"]
    assert told["gates"][0]["variation"] < 1e-3
    assert told["folded"] == sum(gate["folded"] for gate in told["gates"])
    assert told["accuracy"]["before"]["images"] == 596
    assert told["speed"]["rounds"] == 2
    gates = [name for name, _ in senetzoo.load(out).named_modules() if name.endswith("standard")]
    assert gates == [gate["gate"] for gate in told["gates"] if not gate["folded"]]
    table = CliRunner().invoke(main, [*arguments[:-4], "--rounds", "0"])
    assert table.exit_code == 0, table.output
    assert f"folded {told['folded']} of {len(told['gates'])} gates" in table.stdout
    assert "accuracy after: " in table.stdout
    assert "speed" not in table.stdout


def test_excitations_command(network: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    arguments = ["inspect", "excitations", str(network), "--data", "digits", "--images", "4"]
    result = CliRunner().invoke(main, [*arguments, "--out", str(out), "--json", "--class", "7"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    model = senetzoo.load(network)
    assert [gate["gate"] for gate in told["gates"]] == [
        name for name, _ in model.named_modules() if name.endswith(".standard")
    ]
    for gate in told["gates"]:
        assert gate["images"] == 40
        assert len(gate["mean"]) == len(gate["by_class"]["7"])
        assert sum(gate["histogram"]) == 40 * len(gate["mean"])
    page = out.read_text(encoding="utf-8")
    assert page.count("<svg") == len(told["gates"]) + 1
    assert "http" not in page.replace("http://www.w3.org", "")
    wrong = CliRunner().invoke(main, [*arguments, "--class", "77", "--out", str(out)])
    assert wrong.exit_code == 2
    assert wrong.stderr.startswith("error: The data has no class '77'.\n")


def test_a_network_without_gates() -> None:
    result = CliRunner().invoke(main, ["inspect", "excitations", "lenet5", "--data", "digits"])
    assert result.exit_code == 2
    assert "error: The network has no gates to look at." in result.stderr
