"""senetzoo weights convert: what is recognized, what is refused, and what is never run."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.networks import message, randomize, relative_error
from support.parity import from_library, skeleton_of
from torch import Tensor, nn

import senetzoo
from senetzoo import config, create
from senetzoo import load as load_network
from senetzoo.cli import main
from senetzoo.errors import WeightsError
from senetzoo.weights import dialects
from senetzoo.weights.unpack import load, unpack

SAFE = "Get the file as safetensors, or save its state dict alone where you trust it"


def run(*arguments: object, text: str | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["weights", "convert", *map(str, arguments)], input=text)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def converted(folder: Path, content: object, *arguments: object) -> str:
    """What is said of a conversion of `content`, from ``mine.pt`` to ``ours.safetensors``."""
    torch.save(content, folder / "mine.pt")
    out = folder / "ours.safetensors"
    code, output = run(folder / "mine.pt", "--to", *arguments, "--out", out)
    assert code == 0, output
    return output


def refused(folder: Path, *arguments: object, text: str | None = None) -> str:
    """The message of a conversion that is refused, and leaves no file."""
    before = sorted(folder.iterdir())
    code, output = run(*arguments, text=text)
    assert code == 2, output
    assert sorted(folder.iterdir()) == before
    return output.partition("error: ")[2].rstrip("\n")


@pytest.fixture(scope="module")
def resnet20() -> dict[str, Tensor]:
    model = create("resnet20", seed=0)
    randomize(model)
    return {key: tensor.detach() for key, tensor in model.state_dict().items()}


def bytes_of(content: object, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def equal(file: Path, state: dict[str, Tensor]) -> bool:
    written = load_file(str(file))
    return written.keys() == state.keys() and all(torch.equal(written[k], state[k]) for k in state)


# --- Names ---------------------------------------------------------------------------------------


def test_a_file_of_pytorchcv_computes_the_same_here(tmp_path: Path) -> None:
    reference = from_library("pytorchcv", "seresnet20_cifar100").eval()
    randomize(reference)
    file, out = tmp_path / "mine.pt", tmp_path / "ours.safetensors"
    output = converted(tmp_path, reference.state_dict(), "se_resnet20")
    assert output == (
        f"{file}: tensor names of pytorchcv (seresnet20_cifar100)\n"
        "  164 tensors, 280,697 parameters, 100 classes.\n"
        "  The preprocessing is not known: Preprocessing(size=32, "
        "mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616), interpolation='bilinear', "
        "crop=1.0) will be assumed."
        " Set it with --mean, --std, --size and --crop.\n"
        f"Written to {out}, as se_resnet20 with num_classes=100. To load it:\n"
        f"  senetzoo.load('se_resnet20', weights='{out}')\n"
    )
    model = senetzoo.load("se_resnet20", weights=out)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert relative_error(model(x), reference(x)) < 1e-5


def test_the_caffe_form_is_told_by_its_names(tmp_path: Path) -> None:
    """As it was published: of 2018, on several GPUs."""
    model = skeleton_of(dialects.counterpart("timm_legacy", "legacy_seresnext26_32x4d"))
    state = {
        f"module.{key}": torch.zeros(tensor.shape)
        for key, tensor in dialects.write(model.state_dict(), "timm_legacy", model).items()
        if not key.endswith("num_batches_tracked")
    }
    file, out = tmp_path / "mine.pt", tmp_path / "ours.safetensors"
    whole = {"epoch": 3, "state_dict": state, "best_acc1": torch.tensor(71.0)}
    output = converted(tmp_path, whole, "se_resnext50_32x4d", "--json")
    report = json.loads(output)
    assert report["notes"] == [
        "Taken from 'state_dict' of the file.",
        "The prefix 'module.' is taken off.",
        "29 missing num_batches_tracked are 0.",
    ]
    known = {"dialect": "timm_legacy", "network": "legacy_seresnext26_32x4d"}
    assert report["names"] == [known]
    assert report["config"] == {"depths": [2, 2, 2, 2], "pool": "ceil"}
    with safe_open(str(out), "pt") as opened:
        assert opened.metadata() == {
            "format": "pt",
            "model": "se_resnext50_32x4d",
            "config": '{"depths": [2, 2, 2, 2], "pool": "ceil"}',
            "policy": "",
            "dialect": "timm_legacy",
            "source_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
    assert report["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_policy_of_timm(tmp_path: Path) -> None:
    model = config("se_resnet18+se16(width=round8)").build(seed=0)
    file, out = tmp_path / "model.safetensors", tmp_path / "ours.safetensors"
    save_file(dialects.write(model.state_dict(), "timm", model), str(file))
    code, output = run(file, "--to", "se_resnet18", "--out", out)
    assert code == 0
    assert f"{file}: tensor names of timm (seresnet18)\n" in output
    assert f"Written to {out}, as se_resnet18+se16(width=round8). To load it:\n" in output
    assert equal(out, dict(model.state_dict()))
    assert equal(out, dict(senetzoo.load("se_resnet18", weights=out).state_dict()))


def test_names_that_several_libraries_have(tmp_path: Path, resnet20: dict[str, Tensor]) -> None:
    file, out = tmp_path / "mine.pt", tmp_path / "ours.safetensors"
    output = converted(tmp_path, resnet20, "resnet20")
    assert (
        output.splitlines()[0] == f"{file}: tensor names of senetzoo, chenyaofo (cifar10_resnet20)"
    )
    assert equal(out, resnet20)


def test_classes_and_channels_are_read_off_the_file(tmp_path: Path) -> None:
    model = create("resnet20", num_classes=7, in_chans=5, seed=0)
    output = converted(
        tmp_path, dialects.write(model.state_dict(), "pytorchcv", model), "resnet20", "--json"
    )
    assert json.loads(output)["config"] == {"num_classes": 7, "in_chans": 5}


def test_images_of_torchvisions_inception(tmp_path: Path) -> None:
    model = config("googlenet_bn").replace(aux=True, num_classes=2).build(seed=0)
    output = converted(tmp_path, model.state_dict(), "googlenet_bn", "--json")
    assert json.loads(output)["notes"] == [
        "20 tensors of auxiliary heads are left out.",
        "If the file is torchvision's, googlenet_bn takes images of mean (0.5, 0.5, 0.5) and std "
        "(0.5, 0.5, 0.5).",
    ]


def bottleneck() -> dict[str, Tensor]:
    """pytorchcv's ResNet-50, whose forms differ in the place of a stride; no memory for it."""
    model = skeleton_of(dialects.counterpart("pytorchcv", "resnet50"))
    state = dialects.write(model.state_dict(), "pytorchcv", model)
    return {key: torch.tensor(0.0).expand(tensor.shape) for key, tensor in state.items()}


def test_forms_that_names_do_not_tell_apart(tmp_path: Path) -> None:
    file, out = tmp_path / "resnet50.pth", tmp_path / "ours.safetensors"
    torch.save(bottleneck(), file)
    assert refused(tmp_path, file, "--to", "resnet50", "--out", out) == (
        "The tensors could be resnet50 of pytorchcv or resnet50b of pytorchcv.\n"
        "They differ in stride_on, which names and shapes do not show.\n"
        "Type for example: --as resnet50"
    )
    assert refused(tmp_path, file, "--to", "resnet50", "--as", "resnet50x", "--out", out) == (
        "No library has a network called 'resnet50x' that is like resnet50.\n"
        "They call it resnet50, resnet50c, resnet50b, cbam_resnet50.\n"
        "Did you mean 'resnet50'?"
    )
    for name, stride in (("resnet50", {"stride_on": "1x1"}), ("resnet50b", {})):
        target = tmp_path / f"{name}.safetensors"
        code, output = run(file, "--to", "resnet50", "--as", name, "--out", target, "--json")
        assert code == 0
        assert json.loads(output)["config"] == stride


def test_tensors_that_do_not_fit_are_named(tmp_path: Path, resnet20: dict[str, Tensor]) -> None:
    file, out = tmp_path / "mine.pt", tmp_path / "ours.safetensors"
    torch.save(resnet20, file)
    assert refused(tmp_path, file, "--to", "se_resnet20", "--out", out) == (
        "The tensors do not fit se_resnet20 (names of senetzoo).\n"
        "layer1.0.slots.standard.fc1.weight is missing; layer1.0.slots.standard.fc1.bias is "
        "missing; layer1.0.slots.standard.fc2.weight is missing (and 33 more).\n"
        "Give their network with --to"
    )
    assert refused(tmp_path, file, "--to", "vgg11", "--out", out) == (
        f"The tensor names in {file} are not those of a library that senetzoo knows.\n"
        "The first names are conv1.weight, bn1.weight, bn1.bias.\n"
        "Match the tensors by order and shape: --by-structure"
    )


# --- Wrappers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrap", "notes"),
    [
        (lambda s: s, ()),
        (lambda s: {"state_dict": s}, ("Taken from 'state_dict' of the file.",)),
        (
            lambda s: {"model": {f"module.{k}": v for k, v in s.items()}, "epoch": 3},
            ("Taken from 'model' of the file.", "The prefix 'module.' is taken off."),
        ),
        (
            lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
            ("The prefix '_orig_mod.' is taken off.", "The prefix 'module.' is taken off."),
        ),
        (
            lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
            ("The prefix 'module.' is taken off.", "The prefix '_orig_mod.' is taken off."),
        ),
        (
            lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}, "optimizer": {}},
            ("Taken from 'state_dict' of the file.", "The prefix 'model.' is taken off."),
        ),
        (
            lambda s: {"n_averaged": torch.tensor(3), **{f"module.{k}": v for k, v in s.items()}},
            (
                "Left out, being no weights: n_averaged.",
                "The prefix 'module.' is taken off.",
            ),
        ),
        (lambda s: {"epoch": 3, **s}, ("Left out, being no weights: epoch.",)),
        (
            lambda s: {"args": argparse.Namespace(lr=0.1), "model_ema": s},
            ("Taken from 'model_ema' of the file.",),
        ),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrappers(
    wrap: Callable[[dict[str, Tensor]], object], notes: tuple[str, ...], zipped: bool
) -> None:
    """In files of both formats of torch.save, that of today and that from before 1.6."""
    state = {"conv1.weight": torch.ones(2), "bn1.bias": torch.zeros(2)}
    content = bytes_of(wrap(state), _use_new_zipfile_serialization=zipped)
    found = unpack(load(content, Path("x.pth")), Path("x.pth"))
    assert found[1] == notes
    assert list(found[0]) == list(state)
    assert all(torch.equal(found[0][key], state[key]) for key in state)


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"a": torch.ones(1)}, "model_ema": {"a": torch.zeros(1)}, "epoch": 1},
        {"model.a": torch.ones(1), "model_ema.a": torch.zeros(1)},
    ],
)
def test_one_of_several_state_dicts(content: dict[str, object]) -> None:
    file = Path("both.pth")
    assert message(lambda: unpack(content, file), WeightsError) == (
        "both.pth contains several state dicts.\n"
        "They are model, model_ema.\n"
        "Type for example: --part model_ema"
    )
    for part, value in (("model", 1.0), ("model_ema", 0.0)):
        assert unpack(content, file, part)[0]["a"].item() == value
    assert message(lambda: unpack(content, file, "ema"), WeightsError) == (
        "both.pth has no part 'ema'.\n"
        "They are model, model_ema.\n"
        "Type for example: --part model_ema"
    )


def test_parts_that_are_not_there() -> None:
    with pytest.raises(WeightsError) as caught:
        unpack({"a": torch.ones(1)}, Path("x.pth"), "ema")
    assert str(caught.value) == (
        "x.pth has no part 'ema'.\nIt contains one state dict.\nLeave out --part"
    )
    for content in ({}, [torch.ones(1)], torch.ones(1), {"epoch": 3}, {"model": {"x": 1}}):
        with pytest.raises(WeightsError) as caught:
            unpack(content, Path("x.pth"))
        assert str(caught.value) == (
            "There are no weights in x.pth.\n"
            "It contains no named tensors.\n"
            "Give a file with a state dict"
        )


# --- By structure --------------------------------------------------------------------------------


def nameless(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"p{number}": tensor for number, tensor in enumerate(state.values())}


def test_by_structure(tmp_path: Path, resnet20: dict[str, Tensor]) -> None:
    file, out = tmp_path / "mine.pt", tmp_path / "ours.safetensors"
    torch.save(nameless(resnet20), file)
    asked = (file, "--to", "resnet20", "--by-structure", "--out", out)
    declined = "Nothing was written.\nThe mapping was not accepted.\nAdd --yes to accept it"
    assert refused(tmp_path, *asked, text="n\n") == declined
    assert refused(tmp_path, *asked, text="") == declined
    assert refused(tmp_path, *asked, "--json") == declined
    code, output = run(*asked, text="y\n")
    assert code == 0
    lines = output.splitlines()
    assert lines[0] == "p0 -> conv1.weight (16, 3, 3, 3)"
    # Counters of batches are no weights.
    assert lines[6] == "p7 -> layer1.0.bn1.weight (16,)"
    assert lines[107] == "Names were ignored. Is each tensor mapped correctly? [y/N]: y"
    assert lines[108] == f"{file}: matched by order and shape"
    zero = {k: v for k, v in resnet20.items() if k.endswith("num_batches_tracked")}
    assert all(v.item() == 0 for v in zero.values())
    assert equal(out, resnet20)


def test_by_structure_where_gates_come_before_the_shortcut(tmp_path: Path) -> None:
    """pytorchcv's order and shapes, without its names: ours has the gates of a block last."""
    reference = from_library("pytorchcv", "seresnet20_cifar10")
    randomize(reference)
    out = tmp_path / "ours.safetensors"
    converted(tmp_path, nameless(reference.state_dict()), "se_resnet20", "--by-structure", "--yes")
    model = create("se_resnet20", seed=0)
    expected = dialects.read(reference.state_dict(), "pytorchcv", model)
    assert equal(out, expected)


def spoiled(state: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    items = list(nameless(state).items())
    keys = list(state)
    if how == "order":
        # Of other shapes: the last convolution of a stage and the first one of the next.
        i, j = keys.index("layer1.2.conv2.weight"), keys.index("layer2.0.conv1.weight")
        items[i], items[j] = items[j], items[i]
    elif how == "count":
        items.pop()
    elif how == "kind":
        # Of equal shapes, but their names say what they are.
        i, j = keys.index("bn1.weight"), keys.index("bn1.bias")
        items[i], items[j] = ("norm.beta", items[j][1]), ("norm.gamma", items[i][1])
    elif how == "variance":
        i = keys.index("bn1.running_var")
        items[i] = (items[i][0], -items[i][1])
    return dict(items)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("order", "The tensors do not have the network's order and shapes.\n"
         "Number 31 is p42 (32, 16, 3, 3) there and layer1.2.conv2.weight (16, 16, 3, 3) here.\n"
         "Give their network, with its policy: --to resnet50+se16"),
        ("count", "The tensors do not have the network's order and shapes.\n"
         "There are 106 of them, and the network has 107.\n"
         "Give their network, with its policy: --to resnet50+se16"),
        ("kind", "The tensors do not have the network's order and shapes.\n"
         "Number 2 is norm.beta there and bn1.weight here: a bias, a weight.\n"
         "Give their network, with its policy: --to resnet50+se16"),
        ("variance", "bn1.running_var has negative values.\n"
         "It is a variance: the tensors are in another order than the network's.\n"
         "Rename them to the names of a library that senetzoo knows"),
    ],
)  # fmt: skip
def test_structures_that_do_not_fit(
    tmp_path: Path, resnet20: dict[str, Tensor], how: str, message: str
) -> None:
    file, out = tmp_path / "mine.pt", tmp_path / "ours.safetensors"
    torch.save(spoiled(resnet20, how), file)
    asked = (file, "--to", "resnet20", "--by-structure", "--yes", "--out", out)
    assert refused(tmp_path, *asked) == message


# --- Files ---------------------------------------------------------------------------------------


class Evil:
    """What unpickling turns into a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"echo run > '{self.mark}'",)


def test_a_malicious_pickle_is_refused_and_not_run(
    tmp_path: Path, resnet20: dict[str, Tensor]
) -> None:
    mark = tmp_path / "mark"
    evil = {**resnet20, "state_dict": Evil(mark)}
    called = "Unpickling it would call posix.system, which weights do not need; it was not called."
    inside = "It contains more than tensors and plain containers; nothing of it was run."
    for name, content, true in (
        ("zip.pth", bytes_of(evil), called),
        ("old.pth", bytes_of(evil, _use_new_zipfile_serialization=False), called),
        ("bare.pkl", pickle.dumps(Evil(mark), 0), called),
        ("bare.safetensors", pickle.dumps(Evil(mark), 2), called),
        # Instructions that torch's unpickler does not even know.
        ("new.pkl", pickle.dumps(Evil(mark), 4), inside),
        ("module.pth", bytes_of(nn.Linear(1, 1)), called.replace(
            "posix.system", "torch.nn.modules.linear.Linear"
        )),
    ):  # fmt: skip
        file = tmp_path / name
        file.write_bytes(content)
        out = tmp_path / "ours.safetensors"
        message = refused(
            tmp_path, file, "--to", "resnet20", "--by-structure", "--yes", "--out", out
        )
        assert message == f"Can't read the weights {file}.\n{true}\n{SAFE}"
        assert not mark.exists()
    # The same bytes do run where nobody takes care.
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists()


def tar() -> bytes:
    """A file as torch wrote it in 2016."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            content = pickle.dumps({})
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return file.getvalue()


def script() -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(1, 1), torch.ones(1, 1)), file)  # type: ignore[no-untyped-call]
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "true", "remedy"),
    [
        (
            tar,
            "It is in torch's tar format of 2016, which can only be read by running its pickle.",
            SAFE,
        ),
        (script, "It is a TorchScript program, and would have to be run.",
         "Save the state_dict() of its module instead"),
        (lambda: b"", "It is neither safetensors nor a whole file of torch.save (EOFError).",
         "Get the file again"),
        (lambda: bytes_of({"a": torch.ones(500)})[:700],
         "It is neither safetensors nor a whole file of torch.save (RuntimeError).",
         "Get the file again"),
        (lambda: b"<html>404</html>" * 99,
         "It is neither safetensors nor a whole file of torch.save (UnpicklingError).",
         "Get the file again"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_files_that_are_no_state_dicts(
    tmp_path: Path, content: Callable[[], bytes], true: str, remedy: str
) -> None:
    file = tmp_path / "file.pth"
    file.write_bytes(content())
    message = refused(tmp_path, file, "--to", "resnet20", "--out", tmp_path / "o.safetensors")
    assert message == f"Can't read the weights {file}.\n{true}\n{remedy}"


def test_a_damaged_safetensors_file(tmp_path: Path) -> None:
    file = tmp_path / "file.safetensors"
    save_file({"a": torch.ones(9)}, str(file))
    file.write_bytes(file.read_bytes()[:-1])
    message = refused(tmp_path, file, "--to", "resnet20", "--out", tmp_path / "o.safetensors")
    first, true, remedy = message.split("\n")
    assert first == f"Can't read the weights {file}."
    assert true.startswith("It isn't a complete safetensors file (")
    assert remedy == "Get the file again"


def test_values_that_are_not_finite(tmp_path: Path, resnet20: dict[str, Tensor]) -> None:
    file = tmp_path / "mine.pt"
    torch.save({**resnet20, "fc.bias": torch.full((10,), torch.nan)}, file)
    assert refused(tmp_path, file, "--to", "resnet20", "--out", tmp_path / "o.safetensors") == (
        "The tensors have values that aren't finite.\n"
        "There is NaN or infinity in fc.bias.\n"
        "The training diverged, or the file is damaged: use other weights"
    )


def test_what_is_written_to(
    tmp_path: Path, resnet20: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.pt"
    torch.save(resnet20, file)
    monkeypatch.chdir(tmp_path)
    code, _ = run(file, "--to", "resnet20")
    assert code == 0
    assert equal(Path("resnet20.safetensors"), resnet20)
    assert refused(tmp_path, file, "--to", "resnet20") == (
        "resnet20.safetensors exists already.\n"
        "Nothing is overwritten.\n"
        "Give another name with --out"
    )
    assert refused(tmp_path, file, "--to", "resnet20", "--out", "x/ours.pth") == (
        "Can't write x/ours.pth.\n"
        "Weights are written as safetensors.\n"
        "Type for example: --out ours.safetensors"
    )
    assert refused(tmp_path, file, "--to", "resnet20", "--out", "x/o.safetensors").startswith(
        "Can't use"
    )


def test_networks_that_do_not_exist(tmp_path: Path) -> None:
    file = tmp_path / "mine.pt"
    file.write_bytes(b"")
    assert refused(tmp_path, file, "--to", "resnet21").startswith(
        "There is no network 'resnet21'.\n"
    )
    code, output = run(tmp_path / "missing.pt", "--to", "resnet20")
    assert code == 2
    assert "does not exist" in output


# --- Repositories for CIFAR ----------------------------------------------------------------------


def kuangliu(name: str) -> str:
    return name.replace("downsample", "shortcut").replace("fc.", "linear.")


def akamaster(name: str) -> str:
    return f"module.{kuangliu(name)}"


def weiaicunzai(name: str) -> str:
    parts = name.split(".")
    if parts[0] in ("conv1", "bn1"):
        return ".".join(["conv1", "0" if parts[0] == "conv1" else "1", *parts[1:]])
    if parts[0] == "fc":
        return name
    stage, block, layer, *rest = parts
    place = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}
    inner = ["shortcut"] if layer == "downsample" else ["residual_function", str(place[layer])]
    return ".".join([f"conv{int(stage[-1]) + 1}_x", block, *inner, *rest])


def copied(name: str) -> str:
    return "backbone." + name.replace("downsample", "skip").replace("fc.", "classifier.")


def half_copied(name: str) -> str:
    return name.replace("fc.", "linear.")


def slow(*values: object) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("network", "options", "rename", "key"),
    [
        ("resnet20", {"shortcut": "pad"}, akamaster, "state_dict"),
        ("resnet20", {"shortcut": "pad"}, half_copied, ""),
        ("resnet20", {}, kuangliu, "net"),
        ("resnet20", {"num_classes": 100}, weiaicunzai, "model"),
        ("resnet20", {}, copied, ""),
        ("resnet20", {}, half_copied, "net"),
        slow("resnet18", {"stem": "cifar"}, kuangliu, "net"),
        slow("resnet18", {}, kuangliu, "net"),
        slow("resnet50", {"stem": "cifar", "num_classes": 100}, weiaicunzai, ""),
    ],
)
@pytest.mark.parametrize("more", [(), ("--by-structure", "--yes")])
def test_repositories_for_cifar(
    tmp_path: Path,
    network: str,
    options: dict[str, Any],
    rename: Callable[[str], str],
    key: str,
    more: tuple[str, ...],
) -> None:
    model = config(network).replace(**{"num_classes": 10, **options}).build(seed=0).eval()
    randomize(model)
    state = {rename(name): tensor for name, tensor in model.state_dict().items()}
    assert not set(state) & {"fc.weight", "fc.bias"} or rename is weiaicunzai
    file, out = tmp_path / "theirs.pth", tmp_path / "ours.safetensors"
    torch.save({key: state, "acc": 93.0, "epoch": 7} if key else state, file)
    code, output = run(file, "--to", network, "--out", out, *more)
    assert code == 0, output
    again = load_network(network, weights=out)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(images), model(images))


def test_the_stem_of_a_file(tmp_path: Path) -> None:
    """A network for photographs, trained with the stem for small images."""
    model = create("resnet18", stem="cifar", num_classes=10, seed=0)
    state = {kuangliu(name): tensor for name, tensor in model.state_dict().items()}
    file, out = tmp_path / "theirs.pth", tmp_path / "ours.safetensors"
    save_file(state, str(file))
    code, output = run(file, "--to", "resnet18", "--out", out, "--json")
    assert code == 0, output
    assert json.loads(output)["config"] == {"num_classes": 10, "stem": "cifar"}
    assert load_network("resnet18", weights=out).spec == model.spec


def test_a_structure_that_is_asked_for_has_its_way(
    tmp_path: Path, resnet20: dict[str, Tensor]
) -> None:
    """Though names are nearly ours: here two tensors of one shape have each other's."""
    swap = {"layer1.0.conv1.weight": "layer1.0.conv2.weight"}
    swap |= {new: old for old, new in swap.items()}
    state = {swap.get(name, name): tensor for name, tensor in resnet20.items()}
    file, out = tmp_path / "mine.pt", tmp_path / "ours.safetensors"
    torch.save(state, file)
    code, output = run(file, "--to", "resnet20", "--by-structure", "--yes", "--out", out)
    assert code == 0, output
    assert equal(out, resnet20)
