"""Every engine gives what the network gives eagerly, and says what it can't do."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from support.networks import (
    SMALL,
    calibrate_on_next_batch,
    images_of,
    message,
    relative_error,
    tiny,
)
from test_export import ready
from torch import Tensor, nn
from torch._dynamo.utils import counters

import senetzoo
from senetzoo import SE
from senetzoo.data.cifar import CIFAR10
from senetzoo.deploy.engines import ENGINES, Dtype, Engine, Layout, common, engine, ort
from senetzoo.deploy.program import exported, onnx_model
from senetzoo.errors import ConfigError, MissingExtraError
from senetzoo.train.augment import normalize

CPU = torch.device("cpu")
EAGER, INDUCTOR = ENGINES["eager"], ENGINES["inductor"]
OTHERS = [pytest.param(e, id=name) for name, e in ENGINES.items() if name != "eager"]
EVERY = [pytest.param(e, id=name) for name, e in ENGINES.items()]
# In fp32, where another order of sums is another rounding.
TOLERANCE = 1e-4


def small() -> nn.Module:
    """A ResNet of one block with a gate, in training mode."""
    model = tiny(depths=(1,))
    senetzoo.attach(model, SE(4), seed=0)
    calibrate_on_next_batch(model)
    with torch.no_grad():
        model.train()(batch(8))
    return model


def batch(count: int, size: int = 16) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


class Flat(nn.Module):
    """The least network: compiled in a moment."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 4 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))  # type: ignore[no-any-return]


def load(found: Engine, model: nn.Module, sample: Tensor, dtype: Dtype = "fp32") -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # bf16 without instructions for it
        return found.load(model, sample, dtype)


def states(model: nn.Module) -> dict[str, Any]:
    """All that a load could change of a module."""
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    flags = {name: module.training for name, module in model.named_modules()}
    learnt = {name: p.requires_grad for name, p in model.named_parameters()}
    return {"tensors": tensors, "flags": flags, "learnt": learnt}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    tensors = zip(one["tensors"].values(), other["tensors"].values(), strict=True)
    return (
        one["flags"] == other["flags"]
        and one["learnt"] == other["learnt"]
        and all(torch.equal(a, b) for a, b in tensors)
    )


# --- What they compute ---------------------------------------------------------------------------


@pytest.mark.parametrize("found", EVERY)
def test_logits_are_those_of_the_network(found: Engine) -> None:
    """Whatever number of images, layout and kind of tensor; and the network stays as it was."""
    model = small()
    before = states(model)
    run = load(found, model, batch(3))
    assert same(states(model), before)
    model.eval()
    with torch.inference_mode():
        inside = batch(3)
    given = [
        batch(3),
        batch(3).to(memory_format=torch.channels_last),
        batch(6)[::2],
        batch(3).requires_grad_(),
        inside,
        # Another number is compiled anew, which has a test of its own.
        *([] if found is INDUCTOR else [batch(1)]),
    ]
    for x in given:
        logits = run(x)
        with torch.no_grad():
            assert relative_error(logits, model(x)) < TOLERANCE
        assert logits.dtype == torch.float32
        assert not logits.requires_grad
        logits += 1  # a tensor like any other, and nobody else's
        with torch.no_grad():
            assert relative_error(run(x), model(x)) < TOLERANCE


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(e, id=name, marks=[pytest.mark.slow] * (name in ("inductor", "onnxruntime")))
        for name, e in ENGINES.items()
    ],
)
def test_a_traced_network_runs_as_well(found: Engine) -> None:
    model = small().eval()
    dynamic = ({0: torch.export.Dim("batch")},)
    graph = torch.export.export(model, (batch(2),), dynamic_shapes=dynamic).module()
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        run = load(found, graph, batch(1))
    with torch.no_grad():
        for count in (1, 4) if found is not INDUCTOR else (1,):
            assert relative_error(run(batch(count)), model(batch(count))) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL.values())
@pytest.mark.parametrize("found", OTHERS)
def test_every_family(found: Engine, name: str) -> None:
    model = ready(name)
    run = load(found, model, images_of(model, 3))
    with torch.no_grad():
        for count in (3, 1) if found is INDUCTOR else (3, 1, 5):
            x = images_of(model, count)
            expected = model(x)
            assert expected.std() > 1e-3
            assert relative_error(run(x), expected) < TOLERANCE


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(
    "found",
    [EAGER, pytest.param(INDUCTOR, marks=pytest.mark.slow)],
    ids=lambda found: found.name,
)
def test_layouts(found: Engine, layout: Layout) -> None:
    model = small().eval()
    run = found.load(model, batch(2), layout=layout)
    with torch.no_grad():
        assert relative_error(run(batch(2)), model(batch(2))) < TOLERANCE


@pytest.mark.parametrize(
    "name", ["eager", pytest.param("inductor", marks=pytest.mark.slow), "openvino"]
)
def test_bf16_is_near(name: str) -> None:
    """Eight bits of mantissa: a relative error of 0.4 % a product."""
    found, model = ENGINES[name], small().eval()
    run = load(found, model, batch(4), "bf16")
    with torch.no_grad():
        expected = model(batch(4))
    assert run(batch(4)).dtype == torch.float32
    error = relative_error(run(batch(4)), expected)
    assert error < 0.05
    if not found.caveat(CPU, "bf16") or name == "eager":
        assert error > 1e-5  # it is not fp32


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_int8_answers_as_fp32(name: str, sample: Callable[[str], Path]) -> None:
    """On real images and trained weights; calibrated with images of the other split."""
    model = senetzoo.create("resnet20.cifar10_v1", pretrained=True)
    train = CIFAR10.load(sample("cifar10-train-sample.parquet"), "train").first(4)
    test = CIFAR10.load(sample("cifar10-test-sample.parquet"), "test").first(12)
    ranges, x = (normalize(s.images, CIFAR10.mean, CIFAR10.std, 32) for s in (train, test))
    run = ENGINES[name].load(model, x[:20], "int8", calibration=ranges)
    logits = run(x)
    with torch.no_grad():
        expected = model(x)
    agree = (logits.argmax(1) == expected.argmax(1)).float().mean()
    assert agree > 0.95
    assert relative_error(logits, expected) > 1e-3  # it is not fp32


def test_ranges_are_of_seven_bits_where_eight_overflow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """ONNX Runtime's int8 weights: -127..127, or -64..64 on a processor without VNNI."""
    import onnx
    from onnx import numpy_helper

    path = tmp_path / "flat.onnx"
    model = Flat().eval()
    path.write_bytes(onnx_model(exported(model, batch(2, 4))).SerializeToString())
    for vnni, bounds in ((True, (127, 128)), (False, (63, 64))):
        monkeypatch.setattr(common, "has_vnni", lambda vnni=vnni: vnni)
        graph = onnx.load(ort.quantized(path, batch(8, 4))).graph
        weights = [t for t in graph.initializer if t.data_type == onnx.TensorProto.INT8]
        assert max(abs(numpy_helper.to_array(t).astype(int)).max() for t in weights) in bounds


# --- How they compute ----------------------------------------------------------------------------


def test_inductor_compiles_each_network_and_number_of_images() -> None:
    """Past dynamo's limit too, where it would fall back to eager without a word."""
    before = counters["stats"]["unique_graphs"]
    with torch._dynamo.config.patch(recompile_limit=1, accumulated_recompile_limit=1):
        runs = [INDUCTOR.load(Flat(), batch(2, 4)) for _ in range(2)]
        for run in runs:
            run(batch(1, 4))
            run(batch(2, 4))
            run(batch(1, 4))
    assert counters["stats"]["unique_graphs"] - before == 4


def test_inductor_folds_frozen_weights() -> None:
    """As an option of torch.compile, freezing changes nothing, and nothing says so."""
    before = counters["inductor"]["binary_folding_conv"]
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten())
    INDUCTOR.load(model, batch(2, 4))
    assert counters["inductor"]["binary_folding_conv"] > before


def test_threads_are_set_for_the_run_alone() -> None:
    seen = []

    class Counts(Flat):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(torch.get_num_threads())
            return super().forward(x)

    before = torch.get_num_threads()
    other = before + 1
    run = EAGER.load(Counts(), batch(2, 4), threads=other)
    run(batch(2, 4))
    assert set(seen) == {other}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("found", EVERY)
def test_streams(found: Engine) -> None:
    """Whatever the batch, from several callers at once, and in a fork; and no thread stays."""
    model, before = Flat().eval(), set(threading.enumerate())
    batches = [batch(count, 4) for count in (4, 1, 2, 3, 9)]
    if found is INDUCTOR:  # which compiles for each number of images
        del batches[-1]
    with torch.no_grad():
        right = [model(x) for x in batches]

    def close(logits: Tensor, expected: Tensor) -> bool:
        return relative_error(logits, expected) < TOLERANCE

    run = found.load(model, batches[0], threads=2, streams=2)
    for x, expected in zip(batches, right, strict=True):
        assert close(run(x), expected)
    with ThreadPoolExecutor(4) as pool:
        assert all(map(close, pool.map(run, batches * 8), right * 8))
    if hasattr(os, "fork"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
            child = os.fork()
        if not child:
            os._exit(0 if all(map(close, map(run, batches), right)) else 1)
        until = time.monotonic() + 60
        while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < until:
            time.sleep(0.01)
        if not ended[0]:
            os.kill(child, signal.SIGKILL)
        assert ended == (child, 0)
    del run
    gc.collect()
    started = set(threading.enumerate()) - before
    for thread in started:
        if thread.name.startswith("senetzoo"):
            thread.join(60)
            assert not thread.is_alive()


def test_streams_have_their_threads_and_their_errors() -> None:
    seen = []

    class Picky(Flat):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((threading.get_ident(), torch.get_num_threads()))
            if bool((x > 100).any()):
                raise ValueError("too bright")
            return super().forward(x)

    before = torch.get_num_threads()
    model, x = Picky().eval(), batch(5, 4)
    run = EAGER.load(model, x, threads=4, streams=2)
    seen.clear()
    logits = run(x)
    assert len({thread for thread, _ in seen} - {threading.get_ident()}) >= 1
    assert {number for _, number in seen} == {2}
    bright = x.clone()
    bright[-1] = 1000
    with pytest.raises(ValueError, match="too bright"):
        run(bright)
    assert torch.equal(run(x), logits)
    assert torch.get_num_threads() == before


def test_threads_of_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is torch's number: on a shared machine nobody wants every core taken."""
    import onnxruntime

    asked = []
    session = onnxruntime.InferenceSession

    def spy(path: str, options: Any, **rest: Any) -> Any:
        asked.append(options.intra_op_num_threads)
        return session(path, options, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    ENGINES["onnxruntime"].load(Flat(), batch(2, 4))
    assert asked == [torch.get_num_threads()]


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    program = (
        "import sys, senetzoo.deploy.engines, senetzoo.deploy.export; "
        "print(sorted({'onnx', 'onnxruntime', 'openvino', 'nncf', 'torchvision'} "
        "& set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def openvino_alone() -> subprocess.CompletedProcess[str]:
    """A process that loads networks with OpenVINO, one of them in int8, which imports NNCF."""
    program = (
        "import gc, signal, sys, torch; from senetzoo.deploy.engines import ENGINES\n"
        "signal.signal(signal.SIGINT, lambda *_: print('there'))\n"
        "x = torch.randn(2, 3, 4, 4)\n"
        "for dtype in ('fp32', 'int8', 'fp32'):\n"
        "    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 5))\n"
        "    data = x if dtype == 'int8' else None\n"
        "    run = ENGINES['openvino'].load(net, x, dtype, calibration=data)\n"
        "    run(x), run(x[:1])\n"
        "    gc.collect()\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "del run\n"
        "gc.collect()\n"
        "signal.raise_signal(signal.SIGINT)\n"
        "print('nncf' in sys.modules, 'openvino_telemetry' in sys.modules)\n"
    )
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", program], capture_output=True, text=True
    )


def test_openvino_reports_nothing_to_its_makers(
    openvino_alone: subprocess.CompletedProcess[str],
) -> None:
    """Its own import, a conversion and NNCF's would each send an event."""
    # Nothing else either: of NNCF's progress bars none is drawn where a table or JSON goes.
    assert openvino_alone.stdout.replace("there\n", "") == "True False\n"


def test_signals_arrive_after_openvino(openvino_alone: subprocess.CompletedProcess[str]) -> None:
    """It exchanges the stack that signal handlers run on: where faulthandler has set one."""
    assert openvino_alone.returncode == 0, openvino_alone.stderr
    assert openvino_alone.stdout.startswith("there\n" * 4)
    assert openvino_alone.stdout.count("there") == 4


# --- What they refuse ----------------------------------------------------------------------------


def test_the_table_names_each_engine() -> None:
    assert {found.name: found for found in ENGINES.values()} == ENGINES
    assert engine("openvino") is ENGINES["openvino"]
    assert message(lambda: engine("open_vino"), ConfigError) == (
        "There is no engine 'open_vino'.\n"
        "Engines are eager, inductor, onnxruntime, openvino.\n"
        "Did you mean 'openvino'?"
    )


ARRAY: Any = [[1.0]]
FLOATS = (
    "It takes float32 images of shape (number, channels, height, width), at least one.\n"
    "Type for example: torch.randn(1, 3, 224, 224)"
)
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("onnxruntime", {"dtype": "bf16"}, "The engine onnxruntime can't compute in 'bf16'.\n"
     "It computes in fp32 and int8.\nGive one of these, or another engine: dtype='fp32'"),
    ("eager", {"dtype": "fp16"},
     "The engine eager can't compute in 'fp16'.\nIt computes in fp32 and bf16.\n"
     "Give one of these, or another engine: dtype='fp32'"),
    ("eager", {"layout": "nhcw"}, "The engine eager has no layout 'nhcw'.\n"
     "It has nchw and nhwc.\nLeave layout out, or give 'nchw'"),
    ("openvino", {"layout": "nhwc"}, "The engine openvino has no layout 'nhwc'.\n"
     "It has nchw.\nLeave layout out, or give 'nchw'"),
    ("onnxruntime", {"dtype": "int8"},
     "The engine onnxruntime got no calibration images for int8.\n"
     "int8 is calibrated with the activations of real images.\n"
     "Give a few hundred, preprocessed: calibration=images"),
    ("openvino", {"dtype": "int8", "calibration": torch.zeros(2, 3, 8, 8)},
     "The engine openvino got calibration of 3x8x8.\n"
     "The network was loaded for the sample's 3x4x4.\nLoad it again with a sample of this size"),
    ("onnxruntime", {"sample": torch.zeros(1, 3, 4, 4, device="meta")},
     "The engine onnxruntime can't run on the device 'meta'.\nIt runs on cpu.\n"
     "Give another device, or engine='eager'"),
    ("eager", {"streams": 3, "threads": 2}, "The engine eager can't run 3 streams.\n"
     "On the device 'cpu' there are 1 to 2, one for each thread.\n"
     "Give fewer, or more threads"),
    ("eager", {"sample": ARRAY}, "The engine eager got a list as sample.\n" + FLOATS),
    ("eager", {"sample": torch.zeros(2, 3, 4, 4, dtype=torch.uint8)},
     "The engine eager got a tensor of uint8 as sample.\n" + FLOATS),
    ("eager", {"sample": torch.zeros(0, 3, 4, 4)},
     "The engine eager got a tensor of shape (0, 3, 4, 4) as sample.\n" + FLOATS),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "text"), BAD)
def test_bad_values(name: str, given: dict[str, Any], text: str) -> None:
    given = {"sample": batch(2, 4), **given}
    assert message(lambda: ENGINES[name].load(Flat(), **given), ConfigError) == text


@pytest.mark.parametrize("found", OTHERS)
def test_images_of_another_size(found: Engine) -> None:
    run = found.load(Flat(), batch(2, 4))
    assert message(lambda: run(torch.zeros(2, 3, 2, 8)), ConfigError) == (
        f"The engine {found.name} got images of 3x2x8.\n"
        "The network was loaded for the sample's 3x4x4.\n"
        "Load it again with a sample of this size"
    )


def test_eager_takes_any_size() -> None:
    model = small().eval()
    run = EAGER.load(model, batch(2))
    with torch.no_grad():
        assert torch.equal(run(batch(3, 24)), model(batch(3, 24)))
    assert message(lambda: run(torch.zeros(2, 1, 24, 24)), ConfigError).startswith(
        "The engine eager got images of 1x24x24.\nThe network was loaded for the sample's 3x"
    )


def test_images_elsewhere() -> None:
    run = EAGER.load(Flat(), batch(2, 4))
    assert message(lambda: run(torch.zeros(2, 3, 4, 4, device="meta")), ConfigError) == (
        "The engine eager got images on the device 'meta'.\n"
        "The network was loaded for 'cpu'.\n"
        "Type: images.to('cpu')"
    )


@pytest.mark.parametrize(
    ("name", "dtype", "package", "text"),
    [
        ("onnxruntime", "fp32", "onnxscript",
         "The engine onnxruntime needs the package 'onnxscript'.\nIt is not installed.\n"
         "Type: pip install 'senetzoo[onnx]'"),
        ("openvino", "fp32", "openvino", "The engine openvino needs the package 'openvino'.\n"
         "It is not installed.\nType: pip install 'senetzoo[openvino]'"),
        ("openvino", "int8", "nncf", "The engine openvino in int8 needs the package 'nncf'.\n"
         "It is not installed.\nType: pip install 'senetzoo[openvino]'"),
    ],
)  # fmt: skip
def test_missing_packages(
    name: str, dtype: Dtype, package: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ENGINES[name]
    assert found.missing(CPU, dtype) == ""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda wanted: None if wanted == package else real(wanted)
    )
    assert found.missing(CPU, dtype) == text.replace("\n", " ")
    assert (
        message(
            lambda: found.load(Flat(), batch(2, 4), dtype, calibration=batch(2, 4)),
            MissingExtraError,
        )
        == text
    )
    if dtype == "int8":
        assert found.missing(CPU) == ""


def test_no_compiler() -> None:
    from torch._inductor import config

    with config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        said = message(lambda: INDUCTOR.load(Flat(), batch(2, 4)), ConfigError)
    assert said == (
        "The engine inductor can't be used here.\n"
        "It requires a C++ compiler, and there is none: torch looks for no-such-compiler.\n"
        "Install g++ or clang++, or set the variable CXX to another compiler"
    )


def test_bf16_without_instructions_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "This processor has no bf16 instructions: torch converts to fp32 and back, and bf16 is "
        "slower than fp32."
    )
    monkeypatch.setattr(common, "computes_bf16", lambda: False)
    assert EAGER.caveat(CPU, "bf16") == INDUCTOR.caveat(CPU, "bf16") == text
    assert EAGER.caveat(CPU, "fp32") == EAGER.caveat(torch.device("cuda"), "bf16") == ""
    with pytest.warns(RuntimeWarning) as said:
        EAGER.load(Flat(), batch(2, 4), "bf16")
    assert [str(warning.message) for warning in said] == [text]
    monkeypatch.setattr(common, "computes_bf16", lambda: True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EAGER.load(Flat(), batch(2, 4), "bf16")


def test_openvino_says_what_it_does_with_bf16() -> None:
    import openvino

    able = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    text = "This processor has no bf16 instructions: OpenVINO computes in fp32 instead."
    assert ENGINES["openvino"].caveat(CPU, "bf16") == ("" if able else text)


class Eigenvalues(Flat):
    """OpenVINO has no such operation."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * torch.linalg.eigvals(x).real[..., None])


class Undecided(Flat):
    """Which way it goes depends on the pixels: there is no one graph of it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


@pytest.mark.parametrize(
    ("found", "network", "begins"),
    [
        (INDUCTOR, Undecided, "The engine inductor can't run this network.\nIt says: "),
        (ENGINES["onnxruntime"], Undecided,
         "The network Undecided can't be exported.\ntorch.export says: "),
        (ENGINES["openvino"], Undecided,
         "The network Undecided can't be exported.\ntorch.export says: "),
        (ENGINES["openvino"], Eigenvalues,
         "The engine openvino can't run this network.\nIt says: Exception happened during conv"),
    ],
    ids=lambda value: value.name if isinstance(value, Engine) else "",
)  # fmt: skip
def test_networks_without_a_graph(found: Engine, network: type[Flat], begins: str) -> None:
    with pytest.raises(ConfigError) as error:
        found.load(network(), batch(2, 4))
    lines = str(error.value).splitlines()
    assert str(error.value).startswith(begins)
    assert len(lines) == 3
    assert "eager" in lines[2]
