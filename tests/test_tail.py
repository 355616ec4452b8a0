"""The tail of a residual branch as one operator: its definition, its kernel, and where it goes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from support.networks import images, message, relative_error, tiny
from test_rewrite import EXACT, calibrated, shallow
from torch import Tensor, fx, nn

import senetzoo
from senetzoo import CBAM, ECA, SE, attach
from senetzoo._utils.environment import compiler_missing
from senetzoo.deploy import fuse, kernels, tail
from senetzoo.deploy import optimize as room
from senetzoo.deploy.engines import ENGINES
from senetzoo.deploy.engines.streams import in_streams
from senetzoo.deploy.rewrite import rewritten
from senetzoo.errors import ConfigError
from senetzoo.zoo import config

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
    """Maps, weights, bias, gate, shortcut and gate of the input in fp64."""
    x, weight = images(number, inputs, height, width), images(outputs, inputs, seed=2)
    bias, gate = images(outputs, seed=3), images(number, outputs, seed=4).sigmoid()
    shortcut = images(number, outputs, height, width, seed=5)
    before = images(number, inputs, seed=6).sigmoid()
    return [x, weight / inputs**0.5, bias, gate, shortcut, before]


def by_hand(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gate: Tensor | None,
    shortcut: Tensor | None,
    activation: int,
    before: Tensor | None,
) -> Tensor:
    """The tail pixel by pixel, as one sum over channels."""
    if before is not None:
        x = torch.einsum("nkhw,nk->nkhw", x, before)
    y = torch.einsum("nkhw,ck->nchw", x, weight)
    if bias is not None:
        y += bias[None, :, None, None]
    if gate is not None:
        y = torch.einsum("nchw,nc->nchw", y, gate)
    if shortcut is not None:
        y += shortcut
    return ACTIVATIONS[activation](y)


ACTIVATIONS: list[Callable[[Tensor], Tensor]] = [
    lambda y: y,
    lambda y: y.clamp_min(0),
    lambda y: 1 / (1 + (-y).exp()),
    lambda y: y / (1 + (-y).exp()),
    lambda y: (y / 6 + 0.5).clamp(0, 1),
]
# The last two are of MobileNetV3 and EfficientNet.
SHAPES = [
    *((1, 8, 32, 1, 1), (3, 34, 96, 5, 7), (33, 64, 64, 3, 1), (2, 256, 512, 7, 7)),
    *((33, 72, 24, 5, 3), (1, 672, 112, 7, 7)),
]
ABSENT = (None, 0, 1, 2, 3)
"""Which of bias, gate, shortcut and gate of the input there is not."""


@pytest.mark.parametrize("sizes", SHAPES)
def test_the_definition(sizes: tuple[int, ...]) -> None:
    x, weight, *others = tensors(*sizes)
    for gone in ABSENT:
        *some, before = [None if n == gone else other for n, other in enumerate(others)]
        for activation in range(len(ACTIVATIONS)):
            arguments: list[Any] = [*some, activation, before]
            found = tail.gated_tail(x, tail.pack(weight), *arguments)
            expected = by_hand(x, weight, *arguments)
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
    for gone in ABSENT:
        some: list[Any] = [None if n == gone else other for n, other in enumerate(others)]
        b, g, s, before = (None if other is None else other.double() for other in some)
        exact = by_hand(x.double(), weight.double(), b, g, s, tail.RELU, before)
        b, g, s, before = some
        defined = tail.gated_tail(x, packed, b, g, s, tail.RELU, before)
        own = relative_error(defined.double(), exact)
        bound = HALF if dtype == torch.bfloat16 else max(2 * own, 1e-6)
        shortcuts = [None] * 3 if s is None else layouts(s)
        for maps, shortcut in zip(layouts(x), shortcuts, strict=True):
            arguments = (packed, b, g, shortcut, tail.RELU, before)
            found = OPERATORS.gated_tail(maps, *arguments)
            assert found.is_contiguous(memory_format=LAST)
            assert relative_error(found.double(), exact) <= bound
            if shortcut is not None:
                OPERATORS.gated_tail_(maps, *arguments)
                assert torch.equal(shortcut, found)


@pytest.mark.parametrize(
    ("hidden", "activation"), [(tail.RELU, tail.SIGMOID), (tail.SILU, tail.HARDSIGMOID)]
)
@pytest.mark.parametrize(("number", "inputs", "outputs"), [(1, 64, 96), (5, 72, 72), (33, 176, 10)])
def test_the_excitation(
    number: int, inputs: int, outputs: int, hidden: int, activation: int, kernel: None
) -> None:
    x = images(number, inputs, 5, 7)
    first, second = images(32, inputs, seed=2) / 8, images(outputs, 32, seed=3) / 6
    biases = images(32, seed=4), images(outputs, seed=5)
    units = ACTIVATIONS[hidden](x.mean((2, 3)) @ first.T + biases[0])
    exact = ACTIVATIONS[activation](units @ second.T + biases[1])
    layers = (tail.pack(first), biases[0], tail.pack(second), biases[1], hidden, activation)
    assert relative_error(tail.excitation(x, *layers), exact) < EXACT
    single = (tail.pack(first.float()), biases[0].float(), tail.pack(second.float()))
    for maps in layouts(x.float()):
        found = OPERATORS.excitation(maps, *single, biases[1].float(), hidden, activation)
        assert relative_error(found, exact) < 1e-6


def test_what_does_not_fit_is_refused(kernel: None) -> None:
    x, weight, bias, gate, shortcut, before = (v.float() for v in tensors(2, 8, 32, 3, 3))
    packed = tail.pack(weight)
    call = OPERATORS.gated_tail
    for run in (call, tail.gated_tail):
        with pytest.raises(ValueError, match="shape"):
            run(x[:0], packed, bias, gate[:0], shortcut[:0], tail.RELU, before[:0])
    with pytest.raises(ValueError, match=r"pack them with senetzoo\.deploy\.tail\.pack"):
        call(x[:, :6], packed, bias, gate, shortcut, tail.RELU)
    with pytest.raises(ValueError, match="gate is"):
        call(x, packed, bias, gate[:1], shortcut, tail.RELU)
    with pytest.raises(ValueError, match="gate is"):
        call(x, packed, bias, gate, shortcut, tail.RELU, gate)
    with pytest.raises(ValueError, match="shortcut has another"):
        call(x, packed, bias, gate, shortcut[:, :, :2], tail.RELU)
    with pytest.raises(ValueError, match="not Double"):
        call(x.double(), packed, bias, gate, shortcut, tail.RELU)


def test_compilers_are_told_the_right_shapes(kernel: None) -> None:
    x, weight, bias, gate, shortcut, before = (v.float() for v in tensors(2, 32, 64, 3, 5))
    packed, checks = tail.pack(weight), ("test_schema", "test_faketensor")
    for name in ("gated_tail", "gated_tail_"):
        for memory in (torch.contiguous_format, LAST):
            to = shortcut.clone(memory_format=memory)
            arguments = (x, packed, bias, gate, to, tail.RELU, before)
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
def fused(model: nn.Module, x: Tensor) -> Counter[str]:
    """Assert that tails as operators are exact in fp64, and no worse in fp32.

    Returns:
        How many there are of each operator, of tails with a gate, and with one of the input.
    """
    double = rewritten(model.double(), x.double())[0]
    exact = double(x.double())
    kept = [value.clone() for value in double.state_dict().values()]
    form, tails, _ = fuse.fused(double, torch.float64)
    found = Counter[str]()
    for node in form.graph.nodes:
        assert node.users or node.op == "output" or "gated_tail_" in str(node.target), node
        if (name := str(node.target)).startswith("senetzoo."):
            found[name.split(".")[1]] += 1
            if "tail" in name:
                found["gates"] += node.args[3] is not None
                found["input gates"] += node.args[6] is not None
    assert found["gated_tail"] + found["gated_tail_"] == tails
    assert relative_error(defined(form)(x.double()), exact) < EXACT
    assert all(map(torch.equal, double.state_dict().values(), kept))
    single = rewritten(model.float(), x)[0]
    form, same, _ = fuse.fused(single, torch.float32)
    assert same == tails
    own = relative_error(single(x).double(), exact)
    for batch in (x, x.contiguous(memory_format=LAST), x[:1]):
        error = relative_error(form(batch).double(), exact[: len(batch)])
        assert error <= max(2 * own, 1e-5)
    return found


@pytest.mark.parametrize(
    ("policy", "counted"),
    [
        # Every shortcut is of a convolution or a sum before it, and dead.
        (SE(4), {"gated_tail_": 3, "gates": 3, "excitation": 3}),
        (SE(4, act="silu", bias=False), {"gated_tail_": 3, "gates": 3, "excitation": 3}),
        pytest.param(
            SE(4, gate="hardsigmoid"),
            {"gated_tail_": 3, "gates": 3, "excitation": 3},
            marks=pytest.mark.slow,
        ),
        # It reads the convolution's map for more than its average.
        (CBAM(4), {"gates": 0, "excitation": 0}),
        (SE(4).at("inner"), {"gated_tail_": 3, "gates": 0, "input gates": 3, "excitation": 3}),
        (SE(4).at("pre") + SE(4).at("identity") + ECA().at("post"), {"gates": 0}),
    ],
)
def test_every_gate(policy: Any, counted: dict[str, int], kernel: None) -> None:
    model = tiny("bottleneck", depths=(1, 2), width=32)
    attach(model, policy, seed=0)
    x = images(3, 3, 15, 18).float()
    found = fused(calibrated(model, x), x)
    assert {name: found[name] for name in counted} == counted


@pytest.mark.parametrize(
    ("name", "tails", "gates"),
    [
        ("se_resnext50_32x4d", 2, 2),
        # Its convolution has as many inputs as outputs.
        ("senet154", 2, 2),
        ("preresnet50", 2, 0),
        ("resnet18", 0, 0),
    ],
)
def test_every_family(name: str, tails: int, gates: int, kernel: None) -> None:
    model, x = shallow(name, depths=(1, 1))
    found = fused(model, x.float())
    assert (found["gated_tail_"], found["gates"]) == (tails, gates)
    graph, done = rewritten(model, x.float())
    done = done.also_squeezed(fuse.fused(graph, torch.float32)[2])
    assert (len(done.squeezed), done.left) == (gates, ())


def small(name: str, number: int) -> tuple[nn.Module, Tensor]:
    model = config(name).replace(num_classes=7).build(seed=0)
    x = images(number, 3, 45, 37).float()
    return calibrated(model, x), x


@pytest.mark.parametrize(
    ("name", "number", "gates", "added"),
    [
        # Numbers of the papers' tables: blocks with SE, and blocks with a skip.
        ("mobilenet_v3_small", 33, 9, 6),
        pytest.param("efficientnet_b0", 2, 16, 9, marks=pytest.mark.slow),
        pytest.param("mnasnet1_0+se4@inner", 2, 16, 10, marks=pytest.mark.slow),
        pytest.param("regnet_y_400mf", 2, 16, 16, marks=pytest.mark.slow),
    ],
)
def test_gates_before_a_projection(
    name: str, number: int, gates: int, added: int, kernel: None
) -> None:
    found = fused(*small(name, number))
    assert (found["input gates"], found["excitation"]) == (gates, gates)
    assert found["gated_tail_"] == added


@pytest.mark.parametrize("name", ["mobilenet_v3_small"])
def test_in_bf16(name: str, kernel: None) -> None:
    try:
        kernels.check(torch.bfloat16)
    except ConfigError as error:
        pytest.skip(str(error))
    model, x = small(name, 33)
    graph, _ = rewritten(model, x)
    forms = [graph, fuse.fused(graph, torch.bfloat16)[0]]
    runs = [ENGINES["eager"].load(form, x, "bf16", layout="nhwc") for form in forms]
    with torch.no_grad():
        exact = model(x)
    # In all of a batch: the largest error of a network of random weights says little.
    own, *errors = (
        float((run(batch) - exact[: len(batch)]).norm() / exact[: len(batch)].norm())
        for run, batch in zip((*runs, runs[1]), (x, x, x[:1]), strict=True)
    )
    # By processor, whose products round in other orders, it is 0.9 to 1.2 times the original's.
    assert errors[0] <= 1.5 * own
    assert errors[1] <= 2 * own


class Itself(nn.Module):
    """A convolution of the map that it is added to, which nothing else reads."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.conv = nn.Conv2d(3, 128, 3), nn.Conv2d(128, 128, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        return torch.relu(self.conv(y) + y).flatten(1)


def test_what_is_read_is_not_written(kernel: None) -> None:
    x = images(3, 3, 9, 8).float()
    found = fused(calibrated(Itself(), x), x)
    assert (found["gated_tail"], found["gated_tail_"]) == (1, 0)


class Between(nn.Module):
    """A map that is written in place after it was read, before the sum that its reader ends in."""

    def __init__(self, gated: bool) -> None:
        super().__init__()
        self.before, self.gate = nn.Conv2d(3, 64, 3), nn.Conv2d(64, 64, 1)
        self.branch, self.inner, self.outer = (nn.Conv2d(64, 64, 1) for _ in range(3))
        self.gated = gated

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        scale = torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        b = self.branch(y * scale if self.gated else y)
        z = y + self.outer(torch.relu(self.inner(y)))
        return cast(Tensor, (b + z).flatten(1))


@pytest.mark.parametrize("gated", [False, True])
def test_what_is_read_later_is_not_written_before(gated: bool, kernel: None) -> None:
    x = images(3, 3, 9, 8).float()
    fused(calibrated(Between(gated), x), x)


def test_each_stream_keeps_its_number_of_threads(kernel: None) -> None:
    x, weight = (value.float() for value in tensors(2, 32, 64, 5, 7)[:2])
    packed, found, libraries = tail.pack(weight), list[int](), list[list[str]]()

    def run(part: Tensor) -> Tensor:
        logits: Tensor = OPERATORS.gated_tail(part, packed, None, None, None, tail.RELU)
        found.append(torch.get_num_threads())
        libraries.append(torch.__config__.parallel_info().splitlines())
        return logits

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        in_streams(run, streams=2, threads=1)(x)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(found) == {1}
    for lines in libraries:
        numbers = [line.partition(" : ")[2] for line in lines if "get_max_threads()" in line]
        assert set(numbers) == {"1"}


@pytest.mark.slow
def test_compiled(kernel: None) -> None:
    model = tiny("bottleneck", depths=(2,))
    attach(model, SE(4), seed=0)
    x = images(2, 3, 16, 16).float()
    graph = rewritten(calibrated(model, x), x)[0]
    run = ENGINES["inductor"].load(fuse.fused(graph, torch.float32)[0], x, layout="nhwc", threads=1)
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
