"""The tail of a residual branch as one operator: its definition, its kernel, and where it goes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.networks import images, message, relative_error, tiny
from test_rewrite import EXACT, calibrated, shallow
from torch import Tensor, fx, nn

import senetzoo
from senetzoo import CBAM, ECA, SE, attach
from senetzoo._utils.environment import compiler_missing
from senetzoo.deploy import kernels, tail
from senetzoo.deploy import optimize as room
from senetzoo.deploy.engines import ENGINES
from senetzoo.deploy.rewrite import rewritten
from senetzoo.errors import ConfigError

OPERATORS = torch.ops.senetzoo
# Of bf16, by its eight bits; sums are in fp32.
HALF = 2**-7
LAST = torch.channels_last


@pytest.fixture
def kernel() -> None:
    """Compiles it, once for all tests on a machine."""
    why, remedy = compiler_missing(torch.device("cpu"))
    if why:
        pytest.skip(f"{why} {remedy}")
    if torch.backends.cpu.get_cpu_capability() not in kernels._FLAGS:
        pytest.skip("neither AVX2 nor AVX-512")
    kernels.check(torch.float32)


def tensors(number: int, inputs: int, outputs: int, height: int, width: int) -> list[Tensor]:
    """Maps, weights, bias, gate and shortcut in fp64."""
    x, weight = images(number, inputs, height, width), images(outputs, inputs, seed=2)
    bias, gate = images(outputs, seed=3), images(number, outputs, seed=4).sigmoid()
    return [x, weight / inputs**0.5, bias, gate, images(number, outputs, height, width, seed=5)]


def by_hand(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gate: Tensor | None,
    shortcut: Tensor | None,
    activation: int,
) -> Tensor:
    """The tail pixel by pixel, as one sum over channels."""
    y = torch.einsum("nkhw,ck->nchw", x, weight)
    if bias is not None:
        y += bias[None, :, None, None]
    if gate is not None:
        y = torch.einsum("nchw,nc->nchw", y, gate)
    if shortcut is not None:
        y += shortcut
    forms: list[Tensor] = [y, y.clamp_min(0), 1 / (1 + (-y).exp())]
    return forms[activation]


SHAPES = [(1, 8, 32, 1, 1), (3, 34, 96, 5, 7), (33, 64, 64, 3, 1), (2, 256, 512, 7, 7)]


@pytest.mark.parametrize("sizes", SHAPES)
def test_the_definition(sizes: tuple[int, ...]) -> None:
    x, weight, *others = tensors(*sizes)
    for gone in (None, 0, 1, 2):
        some: list[Any] = [None if n == gone else other for n, other in enumerate(others)]
        for activation in (tail.IDENTITY, tail.RELU, tail.SIGMOID):
            bias, gate, shortcut = some
            found = tail.gated_tail(x, tail.pack(weight), bias, gate, shortcut, activation)
            expected = by_hand(x, weight, bias, gate, shortcut, activation)
            assert relative_error(found, expected) < EXACT
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(tail.unpack(tail.pack(weight.to(dtype))), weight.to(dtype))


def layouts(value: Tensor) -> list[Tensor]:
    """The same values in several memory layouts."""
    wide = torch.stack([value, value], -1).flatten(3)
    kinds = (torch.contiguous_format, LAST)
    return [*(value.clone(memory_format=kind) for kind in kinds), wide[..., ::2]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", SHAPES)
def test_the_kernel_gives_what_the_definition_gives(
    sizes: tuple[int, ...], dtype: torch.dtype, kernel: None
) -> None:
    try:
        kernels.check(dtype)
    except ConfigError as error:
        pytest.skip(str(error))
    x, weight, *others = (value.to(dtype) for value in tensors(*sizes))
    packed = tail.pack(weight)
    for gone in (None, 0, 1, 2):
        some: list[Any] = [None if n == gone else other for n, other in enumerate(others)]
        b, g, s = (None if other is None else other.double() for other in some)
        exact = by_hand(x.double(), weight.double(), b, g, s, tail.RELU)
        b, g, s = some
        own = relative_error(tail.gated_tail(x, packed, b, g, s, tail.RELU).double(), exact)
        bound = HALF if dtype == torch.bfloat16 else max(2 * own, 1e-6)
        shortcuts = [None] * 3 if some[2] is None else layouts(some[2])
        for maps, shortcut in zip(layouts(x), shortcuts, strict=True):
            arguments = (packed, *some[:2], shortcut, tail.RELU)
            found = OPERATORS.gated_tail(maps, *arguments)
            assert found.is_contiguous(memory_format=LAST)
            assert relative_error(found.double(), exact) <= bound
            if shortcut is not None:
                OPERATORS.gated_tail_(maps, *arguments)
                assert torch.equal(shortcut, found)


@pytest.mark.parametrize("number", [1, 5, 33])
def test_the_excitation(number: int, kernel: None) -> None:
    x = images(number, 64, 5, 7)
    first, second = images(32, 64, seed=2) / 8, images(96, 32, seed=3) / 6
    biases = images(32, seed=4), images(96, seed=5)
    hidden = (x.mean((2, 3)) @ first.T + biases[0]).clamp_min(0)
    exact = (hidden @ second.T + biases[1]).sigmoid()
    layers = (tail.pack(first), biases[0], tail.pack(second), biases[1])
    assert relative_error(tail.excitation(x, *layers), exact) < EXACT
    single = (tail.pack(first.float()), biases[0].float(), tail.pack(second.float()))
    for maps in layouts(x.float()):
        found = OPERATORS.excitation(maps, *single, biases[1].float())
        assert relative_error(found, exact) < 1e-6


def test_what_does_not_fit_is_refused(kernel: None) -> None:
    x, weight, bias, gate, shortcut = (value.float() for value in tensors(2, 8, 32, 3, 3))
    packed = tail.pack(weight)
    call = OPERATORS.gated_tail
    for run in (call, tail.gated_tail):
        with pytest.raises(ValueError, match="shape"):
            run(x[:0], packed, bias, gate[:0], shortcut[:0], tail.RELU)
    with pytest.raises(ValueError, match=r"packed by senetzoo\.deploy\.tail\.pack"):
        call(x[:, :6], packed, bias, gate, shortcut, tail.RELU)
    with pytest.raises(ValueError, match="gate is"):
        call(x, packed, bias, gate[:1], shortcut, tail.RELU)
    with pytest.raises(ValueError, match="shortcut has another"):
        call(x, packed, bias, gate, shortcut[:, :, :2], tail.RELU)
    with pytest.raises(ValueError, match="not Double"):
        call(x.double(), packed, bias, gate, shortcut, tail.RELU)


def test_compilers_are_told_the_right_shapes(kernel: None) -> None:
    x, weight, bias, gate, shortcut = (value.float() for value in tensors(2, 32, 64, 3, 5))
    packed, checks = tail.pack(weight), ("test_schema", "test_faketensor")
    for name in ("gated_tail", "gated_tail_"):
        for memory in (torch.contiguous_format, LAST):
            to = shortcut.clone(memory_format=memory)
            arguments = (x, packed, bias, gate, to, tail.RELU)
            torch.library.opcheck(getattr(OPERATORS, name).default, arguments, test_utils=checks)
    layer = (packed, bias)
    second = (tail.pack(weight.T.contiguous()), None)
    torch.library.opcheck(OPERATORS.excitation.default, (x, *layer, *second), test_utils=checks)


def defined(graph: fx.GraphModule) -> fx.GraphModule:
    """The graph with definitions in the place of operators: for fp64."""
    for node in graph.graph.nodes:
        for name, define in (
            ("gated_tail", tail.gated_tail),
            ("gated_tail_", tail._gated_tail_),
            ("excitation", tail.excitation),
        ):
            if node.target is getattr(OPERATORS, name).default:
                node.target = define
    return fx.GraphModule(graph, graph.graph)


@torch.no_grad()
def fused(model: nn.Module, x: Tensor) -> tail.Fused:
    """Assert that tails as operators are exact in fp64, and no worse in fp32; they are counted."""
    double = rewritten(model.double(), x.double())[0]
    exact = double(x.double())
    kept = [value.clone() for value in double.state_dict().values()]
    assert relative_error(defined(tail.fused(double, torch.float64).graph)(x.double()), exact) < (
        EXACT
    )
    assert all(map(torch.equal, double.state_dict().values(), kept))
    single = rewritten(model.float(), x)[0]
    found = tail.fused(single, torch.float32)
    own = relative_error(single(x).double(), exact)
    for batch in (x, x.contiguous(memory_format=LAST), x[:1]):
        error = relative_error(found.graph(batch).double(), exact[: len(batch)])
        assert error <= max(2 * own, 1e-5)
    return found


@pytest.mark.parametrize(
    ("policy", "gated", "calls"),
    [
        (SE(4), 3, 3),
        (SE(4, act="silu", bias=False), 3, 0),
        # It reads the convolution's map for more than its average.
        (CBAM(4), 0, 0),
        (SE(4).at("pre") + SE(4).at("inner") + SE(4).at("identity") + ECA().at("post"), 0, None),
    ],
)
def test_every_gate(policy: Any, gated: int, calls: int | None, kernel: None) -> None:
    model = tiny("bottleneck", depths=(1, 2), width=32)
    attach(model, policy, seed=0)
    x = images(3, 3, 15, 18).float()
    found = fused(calibrated(model, x), x)
    assert found.gated == gated
    targets = [node.target for node in found.graph.graph.nodes]
    if calls is not None:
        assert targets.count(OPERATORS.excitation.default) == calls
    if gated:
        # Every shortcut is of a convolution or a sum before it, and dead.
        assert targets.count(OPERATORS.gated_tail_.default) == found.tails == 3


@pytest.mark.parametrize(
    ("name", "tails", "gated"),
    [
        ("se_resnext50_32x4d", 2, 2),
        # Its convolution has as many inputs as outputs.
        ("senet154", 2, 2),
        ("preresnet50", 2, 0),
        ("resnet18", 0, 0),
    ],
)
def test_every_family(name: str, tails: int, gated: int, kernel: None) -> None:
    model, x = shallow(name, depths=(1, 1))
    found = fused(model, x.float())
    assert (found.tails, found.gated) == (tails, gated)


@pytest.mark.slow
def test_compiled(kernel: None) -> None:
    model = tiny("bottleneck", depths=(2,))
    attach(model, SE(4), seed=0)
    x = images(2, 3, 16, 16).float()
    graph = rewritten(calibrated(model, x), x)[0]
    run = ENGINES["inductor"].load(
        tail.fused(graph, torch.float32).graph, x, layout="nhwc", threads=1
    )
    with torch.no_grad():
        for batch in (x, x.flip(0)):
            assert relative_error(run(batch), model(batch)) < 1e-4


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What is known of the kernel is forgotten before and after the test."""
    for memory in (kernels._library_missing, kernels._fails):
        memory.cache_clear()
    yield
    for memory in (kernels._library_missing, kernels._fails):
        memory.cache_clear()


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, forgotten: None) -> None:
    monkeypatch.setattr(room, "_SECONDS", 0.05)
    monkeypatch.setattr(
        kernels, "compiler_missing", lambda device: ("There is no C++ compiler.", "Install g++")
    )
    model = tiny("bottleneck", depths=(1,)).eval()
    x = images(2, 3, 16, 16).float()
    fast = senetzoo.optimize(model, x, engine="eager")
    assert fast.report.chosen.tails == 0
    refused = next(way for way in fast.report.tried if way.tails)
    assert refused.why == (
        "The tails of residual branches have no kernel here. There is no C++ compiler. Install g++"
    )
    assert "eager nhwc, 1 tails in one operator each: The tails" in str(fast.report)
    with torch.no_grad():
        assert relative_error(fast(x), model(x)) < 1e-5


def test_another_brgemm_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, forgotten: None
) -> None:
    monkeypatch.setenv("SENETZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(kernels, "compiler_missing", lambda device: ("", ""))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    says = "import sys; sys.exit('tail.cpp:1: error: no matching function for call to brgemm')"
    monkeypatch.setattr(kernels, "_command", lambda capability: [sys.executable, "-c", says])
    text = message(lambda: kernels.check(torch.float32), ConfigError)
    assert f"torch {torch.__version__} has another brgemm" in text
    assert not list(tmp_path.rglob("*.so"))


def test_one_compiler_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SENETZOO_CACHE", str(tmp_path))
    log = tmp_path / "log"
    program = (
        "import pathlib, sys, time; time.sleep(0.3); "
        f"open({str(log)!r}, 'a').write('x'); pathlib.Path(sys.argv[-1]).touch()"
    )
    command = [sys.executable, "-c", program]
    threads = [threading.Thread(target=kernels._compiled, args=(command,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.read_text() == "x"
    with pytest.raises(subprocess.CalledProcessError):
        kernels._compiled([sys.executable, "-c", "raise SystemExit(1)"])
