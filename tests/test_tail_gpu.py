"""The tail's operators in Triton: on a GPU, or else by Triton's interpreter on the processor.

Without Triton they skip. By hand, on Linux:

    pip install --target /tmp/triton --no-deps triton
    PYTHONPATH=/tmp/triton pytest tests/test_tail_gpu.py
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.networks import images, message, relative_error, tiny
from test_rewrite import EXACT, calibrated
from test_tail import ABSENT, ACTIVATIONS, HALF, LAST, OPERATORS, by_hand, layouts, tensors
from torch import fx

import senetzoo
from senetzoo import SE, attach
from senetzoo.deploy import fuse, kernels, tail
from senetzoo.deploy.rewrite import rewritten
from senetzoo.errors import ConfigError

# The interpreter is chosen when the kernels, and Triton's own functions, are imported.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
EPSILON = {torch.float32: 1e-6, torch.bfloat16: HALF, torch.float16: 2**-10}

here = pytest.mark.skipif(not (INTERPRETED or ON_GPU), reason="test_by_the_interpreter runs it")


@pytest.mark.skipif(INTERPRETED or ON_GPU, reason="the others run here")
def test_by_the_interpreter() -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-k", "not interpreter", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


@pytest.mark.skipif(INTERPRETED, reason="test_by_the_interpreter runs these")
@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize(("dtype", "whole"), [("bf16", True), ("fp32", False)])
def test_it_compiles(dtype: str, whole: bool, architecture: int) -> None:
    """For a GPU that need not be here: the interpreter takes more than the compiler does."""
    triton = pytest.importorskip("triton")
    compiler = importlib.import_module("triton.compiler")
    target = importlib.import_module("triton.backends.compiler").GPUTarget
    gpu: Any = importlib.import_module("senetzoo.deploy.kernels.gpu")
    kernel, tile = gpu._product.fn, gpu._product.configs[-1 if whole else 2]
    sizes, pointers = ("rows", "pixels", "inputs", "outputs"), ("x", "weight", "to")
    some = ("bias", "gate", "shortcut", "input_gate")
    values = {"ACTIVATION": tail.RELU, "FACTORS": triton.language.dtype(dtype), **tile.kwargs}
    values |= {} if whole else dict.fromkeys(some)
    types = {**dict.fromkeys([*pointers, *some], f"*{dtype}"), **dict.fromkeys(sizes, "i32")}
    types |= dict.fromkeys(values, "constexpr")
    source = compiler.ASTSource(kernel, {name: types[name] for name in kernel.arg_names}, values)
    options = {"num_warps": tile.num_warps, "num_stages": tile.num_stages}
    made = triton.compile(source, target=target("cuda", architecture, 32), options=options)
    on_tensor_cores = any(word in made.asm["ptx"] for word in ("mma.sync", "wgmma"))
    assert on_tensor_cores == (dtype == "bf16")
    types = {"x": f"*{dtype}", "to": f"*{dtype}", "pixels": "i32", "channels": "i32"}
    types |= {"PIXELS": "constexpr", "CHANNELS": "constexpr"}
    source = compiler.ASTSource(gpu._means, types, {"PIXELS": 64, "CHANNELS": 64})
    triton.compile(source, target=target("cuda", architecture, 32))


@pytest.fixture
def gpu() -> Iterator[Any]:
    module = importlib.import_module("senetzoo.deploy.kernels.gpu")
    tiles = module._product.configs
    yield module
    module._product.configs = tiles


@pytest.fixture
def one_tile(gpu: Any) -> None:
    """The interpreter has no clock to choose by."""
    gpu._product.configs = gpu._product.configs[-1:]


@here
@pytest.mark.parametrize("tile", range(5))
@pytest.mark.parametrize(
    ("sizes", "dtype"),
    # Less than a tile, parts of one, and several of each side, across images.
    [
        ((1, 8, 32, 1, 1), torch.bfloat16),
        ((4, 3, 1, 1, 2), torch.float16),
        ((3, 34, 65, 3, 7), torch.float32),
        ((5, 72, 24, 5, 3), torch.bfloat16),
        ((2, 130, 150, 5, 7), torch.float32),
    ],
)
def test_the_tail(sizes: tuple[int, ...], dtype: torch.dtype, tile: int, gpu: Any) -> None:
    gpu._product.configs = gpu._product.configs[tile : tile + 1]
    x, weight, *others = (value.to(DEVICE, dtype) for value in tensors(*sizes))
    for gone, activation in zip(ABSENT, range(len(ACTIVATIONS)), strict=True):
        some: list[Any] = [None if n == gone else other for n, other in enumerate(others)]
        b, g, s, before = (None if other is None else other.double() for other in some)
        exact = by_hand(x.double(), weight.double(), b, g, s, activation, before)
        b, g, s, before = some
        shortcuts = [None] * 3 if s is None else layouts(s)
        for maps, shortcut in list(zip(layouts(x), shortcuts, strict=True))[gone or 0 :: 3]:
            arguments = (weight, b, g, shortcut, activation, before)
            found = gpu.gated_tail(maps, *arguments)
            assert found.is_contiguous(memory_format=LAST)
            assert found.dtype == dtype
            assert (found.double() - exact).abs().max() <= EPSILON[dtype] * exact.abs().max()
            if shortcut is not None:
                gpu.gated_tail_(maps, *arguments)
                assert torch.equal(shortcut, found)


@here
@pytest.mark.usefixtures("one_tile")
@pytest.mark.parametrize("dtype", EPSILON)
@pytest.mark.parametrize(
    ("number", "inputs", "outputs", "hidden", "activation"),
    [
        (1, 64, 96, tail.RELU, tail.SIGMOID),
        (5, 73, 70, tail.SILU, tail.HARDSIGMOID),
        (2, 130, 10, tail.RELU, tail.HARDSIGMOID),
    ],
)
def test_the_excitation(
    number: int,
    inputs: int,
    outputs: int,
    hidden: int,
    activation: int,
    dtype: torch.dtype,
    gpu: Any,
) -> None:
    x = images(number, inputs, 9, 8).to(DEVICE, dtype)
    first, second = images(32, inputs, seed=2) / 8, images(outputs, 32, seed=3) / 6
    biases = images(32, seed=4), images(outputs, seed=5)
    one, first_bias, two, second_bias = (
        value.to(DEVICE, dtype) for value in (first, biases[0], second, biases[1])
    )
    units = x.double().mean((2, 3)) @ one.double().T + first_bias.double()
    exact = ACTIVATIONS[hidden](units) @ two.double().T + second_bias.double()
    exact = ACTIVATIONS[activation](exact)
    for maps in layouts(x):
        found = gpu.excitation(maps, one, first_bias, two, second_bias, hidden, activation)
        # A mean and hidden units of this type.
        assert relative_error(found.double(), exact) <= 2 * EPSILON[dtype]
    found = gpu.excitation(x, one, None, two, None, tail.IDENTITY, tail.IDENTITY)
    exact = x.double().mean((2, 3)) @ one.double().T @ two.double().T
    assert relative_error(found.double(), exact) <= 4 * EPSILON[dtype]


@here
@pytest.mark.usefixtures("one_tile")
def test_what_is_no_number_stays(gpu: Any) -> None:
    x, weight, bias, _, _, _ = (v.to(DEVICE, torch.float32) for v in tensors(1, 16, 16, 2, 2))
    x[0, 0, 0, 0] = torch.nan
    for activation in range(len(ACTIVATIONS)):
        found = gpu.gated_tail(x, weight, bias, None, None, activation)
        assert found.isnan().sum() == found[0, :, 0, 0].isnan().sum() == 16


@here
@pytest.mark.usefixtures("one_tile")
def test_what_does_not_fit_is_refused(gpu: Any) -> None:
    x, weight, bias, gate, shortcut, before = (
        value.to(DEVICE, torch.float32) for value in tensors(2, 8, 32, 3, 3)
    )
    fits = [x, weight, bias, gate, shortcut, tail.RELU, before]
    for place, value, said in (
        (0, x[:0], "shape"),
        (0, x[:, :, 0], "shape"),
        (0, x.double(), "float64"),
        (0, x[:, :6], "weights"),
        (1, tail.pack(weight.cpu()).to(DEVICE), "weights"),
        (1, weight.half(), "weights"),
        (2, bias[:4], "bias"),
        (3, gate[:1], "gate"),
        (4, shortcut[:, :, :2], "shortcut"),
        (6, gate, "gate of its input"),
    ):
        for run in (gpu.gated_tail, gpu.gated_tail_):
            arguments = [value if n == place else other for n, other in enumerate(fits)]
            with pytest.raises(ConfigError, match=said):
                run(*arguments)
    with pytest.raises(ConfigError, match="shape"):
        gpu.excitation(x[:0], weight, bias, weight.T, None)
    with pytest.raises(ConfigError, match="weights"):
        gpu.excitation(x, weight, bias, weight, None)


@here
@pytest.mark.usefixtures("one_tile")
@pytest.mark.parametrize("position", ["standard", "inner"])
@torch.no_grad()
def test_a_network(position: Any, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights as they are on a GPU, through the rewrite, the definition and the kernels."""
    if not ON_GPU:
        monkeypatch.setattr(fuse, "pack", lambda weight: weight.contiguous())
    model = tiny("bottleneck", depths=(1, 2), width=32).double()
    attach(model, SE(4).at(position), seed=0)
    x = images(3, 3, 15, 18)
    exact = calibrated(model, x)(x).to(DEVICE)
    model, x = model.to(DEVICE, torch.float32), x.to(DEVICE, torch.float32)
    form, tails, _ = fuse.fused(rewritten(model, x)[0], torch.float32)
    assert tails == 3
    for room, bound in ((tail, 1e-5), (gpu, 1e-5)):
        found = replaced(form, room)(x)
        assert relative_error(found.double(), exact) < bound


def replaced(graph: fx.GraphModule, room: Any) -> fx.GraphModule:
    """The graph with a module's functions in the place of the operators."""
    nodes = copy.deepcopy(graph.graph)
    for node in nodes.nodes:
        for name in ("gated_tail", "gated_tail_", "excitation"):
            if node.target is getattr(OPERATORS, name).default:
                node.target = getattr(room, name, None) or getattr(room, f"_{name}")
    return fx.GraphModule(graph, nodes)


@pytest.mark.skipif(not ON_GPU, reason="needs a GPU")
@pytest.mark.parametrize("engine", ["eager", "inductor"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_optimized(engine: str, dtype: Any) -> None:
    model = tiny("bottleneck", depths=(2,), width=64)
    attach(model, SE(4), seed=0)
    x = images(4, 3, 32, 32).float()
    ready = calibrated(model, x).cuda()
    fast = senetzoo.optimize(ready, x.cuda(), engine=engine, dtype=dtype)
    ways = [way for way in fast.report.tried if way.tails]
    assert ways
    assert not any(way.why for way in ways)
    with torch.no_grad():
        error = relative_error(fast(x.cuda()).double(), ready(x.cuda()).double())
    assert error < (1e-3 if dtype == "fp32" else 0.05)


def test_weights_are_packed_for_the_processor_alone() -> None:
    weight = images(70, 34)
    assert tail.pack(weight.to("meta")).shape == weight.shape
    x = images(2, 34, 3, 3)
    as_it_is = tail.gated_tail(x, weight, None, None, None, tail.RELU)
    packed = tail.gated_tail(x, tail.pack(weight), None, None, None, tail.RELU)
    assert relative_error(as_it_is, packed) < EXACT
    with torch.device("meta"):
        maps, plain = torch.empty(2, 34, 3, 3), torch.empty(70, 34)
        assert OPERATORS.gated_tail(maps, plain, None, None, None, 0).shape == (2, 70, 3, 3)
        assert OPERATORS.excitation(maps, plain, None, plain.T, None).shape == (2, 34)


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def no_triton(name: str, package: str | None = None) -> Any:
        return None if name == "triton" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", no_triton)
    assert message(lambda: kernels.check(torch.float32, torch.device("cuda")), ConfigError) == (
        "The tails of residual branches have no kernel here.\n"
        "It requires Triton, which is not installed.\n"
        "Type: pip install triton"
    )
