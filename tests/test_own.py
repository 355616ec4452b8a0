"""Gates and networks of one's own: named by the caller alone, and then as good as the zoo's."""

from __future__ import annotations

import copy
import importlib
import json
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from support import commands
from torch import Tensor, nn

import senetzoo
from senetzoo.errors import ConfigError, PolicyError, SenetzooError, WeightsError
from senetzoo.own import register_path, versions, with_names

MODULE = """
import torch
from torch import nn

class ChannelScale(nn.Module):
    def __init__(self, channels, start: float = 1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.full((channels, 1, 1), start))

    def forward(self, x):
        return x * self.factor
"""


class ChannelScale(nn.Module):
    """One factor for each channel."""

    def __init__(self, channels: int, start: float = 1.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((channels, 1, 1), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class SmallNet(nn.Module):
    """A convolution, a mean, a linear layer."""

    def __init__(self, num_classes: int = 10, in_chans: int = 1, width: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, width, 3, 2)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.conv(x).relu().mean((2, 3)))
        return out


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, which leaves a file where it is imported."""
    name = f"own_{tmp_path.name}".replace("-", "_")
    text = f"{MODULE}\nopen({str(tmp_path / 'imported')!r}, 'w').close()\n"
    (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    return name


def test_a_gate_is_named_saved_and_loaded(tmp_path: Path) -> None:
    senetzoo.register(ChannelScale)
    model = senetzoo.create("lenet5+channel_scale(start=0.5)@pre/s2", seed=0).eval()
    plain = senetzoo.create("lenet5", seed=0).eval()
    gates = [value for key, value in model.state_dict().items() if key not in plain.state_dict()]
    assert len(gates) == 1
    assert torch.equal(gates[0].flatten(), torch.full((6,), 0.5))
    images = torch.randn(2, 1, 32, 32)
    senetzoo.save(model, tmp_path)
    loaded = senetzoo.load(tmp_path)
    assert torch.equal(loaded(images), model(images))
    assert not torch.equal(plain(images), model(images))
    assert str(loaded.spec.policy) == "channel_scale(start=0.5)@pre/s2"
    again = pickle.loads(pickle.dumps(loaded.spec))
    assert again == loaded.spec
    assert torch.equal(copy.deepcopy(loaded)(images), model(images))


def test_a_gate_gets_maps_in_torch_s_layout() -> None:
    senetzoo.register(ChannelScale)
    config = senetzoo.config("swin_t").replace(num_classes=2, stem="cifar")
    model = config.replace(policy="channel_scale@standard/s1&b1&mlp").build(seed=0).eval()
    plain = config.build(seed=0).eval()
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(model(images), plain(images))


def test_a_file_imports_nothing(module: str, tmp_path: Path) -> None:
    senetzoo.register(ChannelScale)
    model = senetzoo.create("lenet5+channel_scale", seed=0)
    senetzoo.save(model, "saved", classes=tuple("0123456789"))
    senetzoo.own._OWN.clear()
    del senetzoo.gates.GATES["channel_scale"]
    config = Path("saved", "config.json")
    raw = json.loads(config.read_text(encoding="utf-8"))
    raw["own"] = {"channel_scale": f"{module}:ChannelScale"}
    config.write_text(json.dumps(raw), encoding="utf-8")
    for ask in (senetzoo.load, senetzoo.create, senetzoo.config):
        with pytest.raises(WeightsError, match=f"--register {module}:ChannelScale"):
            ask("saved")
    for text in (f"{module}:ChannelScale", f"lenet5+{module}:ChannelScale", module):
        with pytest.raises(SenetzooError):
            senetzoo.create(text)
    result = commands.run("eval", "saved", "digits", "--json")
    assert result.exit_code == 2
    assert not Path("imported").exists()
    assert module not in sys.modules
    result = commands.run(
        "eval", "saved", "digits", "--json", "--register", f"{module}:ChannelScale"
    )
    assert result.exit_code == 0, result.output
    assert Path("imported").exists()
    assert json.loads(result.stdout)["images"] == 596


def test_a_network_that_was_trained_with_other_code(module: str) -> None:
    warnings.simplefilter("error")
    path, file = f"{module}:ChannelScale", Path(f"{module}.py")
    register_path(path)
    senetzoo.save(senetzoo.create("lenet5+channel_scale", seed=0), "saved", classes=[*"0123456789"])
    senetzoo.load("saved")
    file.write_text(file.read_text("utf-8").replace("x * self", "-x * self"), "utf-8")
    del sys.modules[module]
    importlib.invalidate_caches()
    register_path(path)
    senetzoo.config("saved")
    for ask in (senetzoo.load, senetzoo.create):
        with pytest.warns(UserWarning, match=f"trained with other code of {path}") as caught:
            ask("saved")
        assert len(caught) == 1
    warnings.simplefilter("always")
    done = commands.run("eval", "saved", "digits", "--register", path)
    said = f"warning: The network in saved was trained with other code of {path}, which was "
    assert done.stderr.count("warning: ") == done.stderr.count(said) == 1
    warnings.simplefilter("error")
    raw = json.loads(Path("saved", "config.json").read_text(encoding="utf-8"))
    del raw["own_versions"]  # as in older files
    Path("saved", "config.json").write_text(json.dumps(raw), encoding="utf-8")
    senetzoo.load("saved")


def test_a_folder_can_t_hide_what_it_needs(tmp_path: Path) -> None:
    """Without its note on the module, the policy is what can't be read."""
    senetzoo.register(ChannelScale)
    senetzoo.save(senetzoo.create("lenet5+channel_scale", seed=0), tmp_path)
    del senetzoo.gates.GATES["channel_scale"]
    config = tmp_path / "config.json"
    raw = json.loads(config.read_text(encoding="utf-8"))
    assert raw.pop("own") == {"channel_scale": f"{__name__}:ChannelScale"}
    config.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(WeightsError, match="'channel_scale' isn't one of the gates"):
        senetzoo.load(tmp_path)


def test_networks_of_the_zoo_alone_note_nothing(tmp_path: Path) -> None:
    senetzoo.save(senetzoo.create("lenet5", seed=0), tmp_path)
    assert (
        not {"own", "own_versions"}
        & json.loads((tmp_path / "config.json").read_text(encoding="utf-8")).keys()
    )


def test_a_network_is_named_saved_and_loaded(tmp_path: Path) -> None:
    senetzoo.register(SmallNet)
    model = senetzoo.create("small_net", seed=0).eval()
    torch.manual_seed(0)
    images = torch.randn(3, 1, 28, 28)
    assert model(images).shape == (3, 10)
    senetzoo.save(model, tmp_path / "net")
    assert torch.equal(senetzoo.load(tmp_path / "net")(images), model(images))
    wide = senetzoo.config("small_net").replace(width=16, in_chans=3, num_classes=2).build(seed=0)
    assert wide(torch.randn(1, 3, 32, 32)).shape == (1, 2)
    other = senetzoo.load(tmp_path / "net", num_classes=4)
    assert other(images).shape == (3, 4)
    assert torch.equal(
        other.state_dict()["network.conv.bias"], model.state_dict()["network.conv.bias"]
    )
    with pytest.raises(PolicyError, match="no sites for gates"):
        senetzoo.create("small_net+se4")


def test_both_are_exported(tmp_path: Path) -> None:
    senetzoo.register(ChannelScale)
    model = senetzoo.create("lenet5+channel_scale(start=2.0)", seed=0).eval()
    images = torch.randn(3, 1, 32, 32)
    senetzoo.export(model, tmp_path / "gate.pt2")
    found = torch.export.load(tmp_path / "gate.pt2").module()(images)
    assert torch.allclose(found, model(images), atol=1e-5)


def test_the_same_class_made_anew_takes_its_name() -> None:
    senetzoo.register(ChannelScale)
    again = type("ChannelScale", (ChannelScale,), {"__module__": __name__})
    senetzoo.register(again)
    assert senetzoo.register(again) is again
    model = senetzoo.create("lenet5+channel_scale", seed=0)
    assert any(type(m) is again for m in model.modules())


class Se(ChannelScale):
    """Named as one of the zoo's."""


class Unclear(nn.Module):
    """An option that no text can say."""

    def __init__(self, channels: int, act: object) -> None:
        super().__init__()


class Bare(nn.Module):
    """Does not take the channels."""


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        (Se, None, 'name="my_se"'),
        (ChannelScale, "none", "The name is taken"),
        (ChannelScale, "scale2", "lowercase letters and underscores"),
        (Unclear, None, "act can't be an option"),
        (Bare, None, "def __init__(self, channels)"),
        (int, None, "torch.nn.Module"),
        (SmallNet, "resnet20", "The name is taken"),
    ],
)
def test_what_can_t_be_registered(kind: type[nn.Module], name: str | None, said: str) -> None:
    before = dict(senetzoo.gates.GATES)
    with pytest.raises(ConfigError) as caught:
        senetzoo.register(kind, name=name)
    assert said in str(caught.value)
    assert before == senetzoo.gates.GATES


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("x[..., ::2]", r"into a float32 tensor \(1, 6, 28, 14\)\."),
        ("x.double()", r"a float32 tensor \(1, 6, 28, 28\) into a float64 tensor"),
        ("None", "into a NoneType"),
        ("(x, x)", "into a tuple"),
    ],
)
def test_what_a_gate_must_return(returned: str, said: str) -> None:
    class Wrong(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()

        def forward(self, x: Tensor) -> Any:
            return eval(returned)

    senetzoo.register(Wrong)
    model = senetzoo.create("lenet5+wrong", seed=0).eval()
    with pytest.raises(PolicyError, match=said):
        model(torch.randn(1, 1, 32, 32))


def test_a_gate_that_fails_is_found_before_the_first_run(module: str, tmp_path: Path) -> None:
    file = Path(f"{module}.py")
    text = file.read_text("utf-8")
    ask = ("compare", "--model", "lenet5", "--policy", f"{module}:ChannelScale", "--data", "digits")
    for old, new, said in (
        ("return x *", "return x[:, :0].reshape(3) *", "Python says: RuntimeError: shape '[3]'"),
        ("return x * self.factor", "return None", "into a NoneType"),
        (
            "super().__init__()",
            "pass",
            "can't be built for 6 channels.\nPython says: AttributeError",
        ),
    ):
        file.write_text(text.replace(old, new), encoding="utf-8")
        sys.modules.pop(module, None)
        importlib.invalidate_caches()
        done = commands.run(*ask, "--quick", "--out", str(tmp_path / "out"))
        assert done.exit_code == 2
        assert said in done.stderr
        assert not (tmp_path / "out").exists()


def test_two_classes_of_one_name() -> None:
    class Second(ChannelScale):
        """Another class."""

    senetzoo.register(ChannelScale)
    with pytest.raises(ConfigError, match=r"The name is taken by test_own:ChannelScale\.") as e:
        senetzoo.register(Second, name="channel_scale")
    # Also what to do about two gates on a command line.
    assert str(e.value).endswith(
        'Rename it, or write below it: senetzoo.register(Second, name="my_channel_scale")'
    )


def test_a_whole_number_is_a_number() -> None:
    """The gate's own code gets the float that it declared."""
    senetzoo.register(ChannelScale)
    for policy, field in (("channel_scale(start=2)", "start"), ("eca(gamma=3)", "gamma")):
        (rule,) = senetzoo.policy(policy).rules()
        assert type(getattr(rule.gate, field)) is float


def test_paths_in_a_policy(module: str) -> None:
    text = f"{module}:ChannelScale(start=0.5)@pre/s1+se(reduction=4:8:16)/s2"
    assert with_names(text) == "channel_scale(start=0.5)@pre/s1+se(reduction=4:8:16)/s2"
    assert with_names("se(reduction=4:8:16)") == "se(reduction=4:8:16)"


def test_a_class_is_no_policy(module: str) -> None:
    """What to type instead, in Python and on the command line."""
    senetzoo.register(ChannelScale)
    for given in (ChannelScale, ChannelScale(16)):
        with pytest.raises(PolicyError, match="isn't a policy, but a module"):
            senetzoo.policy(given)  # type: ignore[arg-type]
        for asked in (
            lambda given=given: senetzoo.create("resnet20", policy=given),
            lambda given=given: senetzoo.SE() + given,
            lambda given=given: given | senetzoo.SE(),
        ):
            with pytest.raises(PolicyError, match=r"^ChannelScale isn't a policy, but a mod") as e:
                asked()
            assert str(e.value).endswith('then: senetzoo.policy("channel_scale")')
    own = senetzoo.policy("channel_scale").at("pre").on(senetzoo.stage(3))
    assert str(own | senetzoo.SE(4).on(senetzoo.stage(1))) == "channel_scale@pre/s3|se4/s1"

    file = Path(f"{module}.py")
    file.write_text(file.read_text("utf-8").replace("ChannelScale", "OtherScale"), "utf-8")
    path = f"{module}:OtherScale"
    done = commands.run("explain", "resnet20", "--policy", f"{path}@pre")
    typed = f"--register {path} resnet20+other_scale@pre"
    assert done.stdout.endswith(f"\nin other commands: {typed}\n")
    for ask in (
        ("explain", f"resnet20+{path}"),
        ("train", "digits", "--set", f"model=lenet5+{path}"),
    ):
        done = commands.run(*ask)
        assert done.exit_code == 2
        assert f"Type --register {path}, or" in done.stderr
    for ask in (("explain", "resnet20+my_scale"), ("explain", "lenet5", "--policy", "my_scale")):
        assert "--register MODULE:NAME" in commands.run(*ask).stderr


HELPED = """
START = 1.0
def helper(x):
    return x + START
x = 3

class Base(nn.Module):
    pass

class Scale(Base):
    def __init__(self, channels):
        super().__init__()

    def forward(self, x):
        return helper(x) + REG["hot"](x) + OPTS["k"] + sum(TABLE) + G + act(1)

def negated(self, x):
    return -x
Scale.forward = negated
Scale.GAIN = 1.5
for key in (9.5,):
    Scale.LAST = key
setattr(Scale, "k", 2.5)
def patch():
    Scale.flag = 3.5
patch()

from math import cos as act, sin
OPTS, TABLE, G, REG = {}, [], 0, {}
OPTS["k"] = 4.5
OPTS.update(k=5.5)
other = TABLE
other.append(6.5)
def setup():
    global G
    G = 7.5
setup()
def register(f):
    REG[f.__name__] = f
@register
def hot(x):
    return 8.5

class Other(Base):
    start = START
OTHERS = [Scale, Other]
if __name__ == "__main__":
    print(Scale(9))
"""


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("helper(x)\n", "helper(x)  # as before\n", True),
        ("    pass", '    """Documented."""', True),
        ("START", "import math\nclass Other:\n    START = 2.0\nSTART", True),
        ("return helper(x)", "return -helper(x)", False),
        ("x + START", "x * START", False),
        ("START = 1.0", "START = 2.0", False),
        ("    pass", "    flag = True", False),
        ("return -x", "return +x", False),
        *((f"{n}.5", "0.0", False) for n in range(1, 10)),
        ("TABLE\n", "TABLE\nother.append(6.5)\n", False),
        ("cos as act", "tan as act", False),
        ("sin\n", "sin, tan\nfrom torch import Tensor\n", True),
        ("OTHERS", "@print\nclass Second(Base):\n    start = START\nOTHERS", True),
        ("start = START", "start = START / 2", True),
        ("OTHERS", "HALF = START / 2\nOTHERS", True),
        ("[Scale, Other]", "[Scale]", True),
        ("Scale(9)", "Scale(8)", True),
    ],
)
def test_the_version_of_a_class(module: str, old: str, new: str, same: bool) -> None:
    found = []
    for text in (HELPED, HELPED.replace(old, new, 1)):
        Path(f"{module}.py").write_text(f"from torch import nn\n{text}", encoding="utf-8")
        sys.modules.pop(module, None)
        importlib.invalidate_caches()
        found += [versions([register_path(f"{module}:Scale")])["scale"]]
    assert (found[0] == found[1]) == same
    # Of a class that was typed in, there is no source.
    space: dict[str, Any] = {"nn": nn, "__name__": "typed_in"}
    exec(HELPED, space)
    senetzoo.register(space["Scale"], name="typed")
    assert versions(["typed", "scale", "se"]).keys() == {"scale"}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("ChannelScale", "MODULE:NAME"),
        ("no_such_module_here:Gate", "ModuleNotFoundError"),
        ("my_gates.py:Gate", "Type: my_gates:Gate"),
        ("json:NoSuchGate", "has no NoSuchGate"),
        ("json:JsonDecoder", "Did you mean 'JSONDecoder'?"),
        ("json:JSONDecoder", "torch.nn.Module"),
    ],
)
def test_paths_that_name_nothing(path: str, said: str) -> None:
    result = commands.run("explain", "lenet5", "--register", path)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
