"""Every public function that takes a network, from many threads at once.

Each thread gets the answer that it gets alone; what is of the process, and the network that all
share, are afterwards as before; and a thread that uses a network of its own notices nothing.
"""

from __future__ import annotations

import copy
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from support.networks import keep_record, tiny
from torch import Tensor, nn

import senetzoo
from senetzoo import SE
from senetzoo._utils.environment import PROCESS
from senetzoo.bench.profile import profile
from senetzoo.bench.timing import BenchmarkCase, Settings, measure
from senetzoo.data.sets import ImageSet
from senetzoo.deploy.engines import ENGINES
from senetzoo.eval.data import LabeledImages
from senetzoo.eval.predict import predict
from senetzoo.inspect import excitations, grad_cam, layer_cam
from senetzoo.inspect.evidence import evidence
from senetzoo.io import hub
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.counting import count
from senetzoo.nn.modes import evaluated
from senetzoo.nn.preprocessing import CIFAR10
from senetzoo.nn.provenance import provenance
from senetzoo.nn.seeds import seeded

THREADS = 8
CPU = torch.device("cpu")


class Foreign(nn.Module):
    """An unknown network with a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = (x + self.conv2(self.conv1(x).relu())).relu()
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def image(number: int, count: int = 1) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(number))


def pixels(number: int) -> Tensor:
    return (image(number, 4) * 60 + 128).clamp(0, 255).byte()


def labeled(number: int) -> LabeledImages:
    names = tuple("abcde")
    images = ImageSet(pixels(number).permute(0, 2, 3, 1), torch.arange(4), names, "four")
    return LabeledImages(images, (0, 1, 2, 3, 4))


def state(model: nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]


class Work:
    """The work of each thread, by its number, on a shared network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        torch.manual_seed(0)
        self.net: Classifier = tiny(depths=(1, 1))
        senetzoo.attach(self.net, SE(4), seed=0)
        with torch.no_grad():
            self.net.train()(image(99, 8))
        # Use training mode, in which running statistics change.
        self.net.train()
        self.other = Foreign()
        from torchvision.models import resnet18

        with torch.device("meta"):
            self.known = resnet18()

    def create(self, number: int) -> Any:
        return state(senetzoo.create("lenet5+se4", seed=number, num_classes=5))

    def load(self, number: int) -> Any:
        net = senetzoo.load(("lenet5", "resnet20", "se_resnet20")[number % 3], seed=number)
        return state(net), str(provenance(net)), str(net.spec)

    def config(self, number: int) -> Any:
        return str(senetzoo.config("resnet20+se4@pre").replace(num_classes=number + 1))

    def list_models(self, number: int) -> Any:
        return senetzoo.list_models("*resnet*", pretrained=bool(number % 2))

    def explain(self, number: int) -> Any:
        return senetzoo.explain(self.net, size=32 + 8 * number).as_dict()

    def explain_foreign(self, number: int) -> Any:
        return senetzoo.explain(self.other, "se4@inner", sites=self.sites(), size=8).as_dict()

    def explain_name(self, number: int) -> Any:
        return senetzoo.explain(("lenet5", "lenet")[number % 2]).as_dict()

    def count(self, number: int) -> Any:
        return count(self.net, 32 + number)

    def predict(self, number: int) -> Any:
        return predict(self.net, pixels(number), preprocessing=CIFAR10, batch=3)

    def evaluate(self, number: int) -> Any:
        return senetzoo.evaluate(self.net, labeled(number), CIFAR10, batch=3).logits

    def transforms(self, number: int) -> Any:
        return senetzoo.transforms(self.net)(pixels(number)[0])

    def save(self, number: int) -> Any:
        with self.scratch() as folder:
            senetzoo.save(self.net, folder, classes=tuple(f"{number}{k}" for k in range(5)))
            return [file.read_bytes() for file in sorted(folder.iterdir())]

    def stage(self, number: int) -> Any:
        with self.scratch() as folder:
            hub.stage(self.net, f"owner/n{number}", folder, None)
            return [file.read_bytes() for file in sorted(folder.iterdir())]

    def attach(self, number: int) -> Any:
        net = copy.deepcopy(self.net)
        senetzoo.attach(net, "eca@pre+simam@post", seed=number, sample=image(0))
        return state(net)

    def attach_foreign(self, number: int) -> Any:
        net = copy.deepcopy(self.other)
        added = senetzoo.attach(net, "se4@inner", sites=self.sites(), seed=number, sample=image(0))
        with torch.no_grad():
            return state(net), str(added), net(image(number))

    def detach(self, number: int) -> Any:
        return state(senetzoo.detach(copy.deepcopy(self.net)))

    def site_map(self, number: int) -> Any:
        return str(senetzoo.site_map(self.known))

    def propose(self, number: int) -> Any:
        return str(senetzoo.propose(self.other, image(0, 1 + number)))

    def sites(self) -> senetzoo.SiteMap:
        return senetzoo.propose(self.other, image(0))

    def evidence(self, number: int) -> Any:
        return evidence(self.net, image(number)[0], CIFAR10)

    def grad_cam(self, number: int) -> Any:
        return grad_cam(self.net, image(number, 2), layer=1)

    def layer_cam(self, number: int) -> Any:
        return layer_cam(self.net, image(number, 2), layer="conv1")

    def excitations(self, number: int) -> Any:
        found = excitations(self.net, [(image(number, 4), torch.arange(4))], classes=5)
        return [gate.as_dict("abcde", None) for gate in found.values()]

    def export(self, number: int) -> Any:
        with self.scratch() as folder:
            written = senetzoo.export(self.net, folder / "net.pt2", name=f"n{number}")
            with PROCESS:  # torch reads one file at a time
                program = torch.export.load(written.files[0]).module()
            return written.metadata, program(image(number, 2))

    def optimize(self, number: int) -> Any:
        return senetzoo.optimize(self.net, image(0, 4), engine="eager", compare=False)(
            image(number, 4)
        )

    def measure(self, number: int) -> Any:
        case = BenchmarkCase("net", self.net, (3, 32, 32))
        (timing,) = measure([case], Settings(batch=1 + number % 2, rounds=2, warmup=0, threads=2))
        return replace(timing, case=None, seconds=(), peak_bytes=None)  # type: ignore[arg-type]

    def profile(self, number: int) -> Any:
        case = BenchmarkCase("net", self.net, (3, 32, 32))
        found = profile(case, Settings(batch=1, rounds=1, warmup=0))
        return [(part.path, part.kind, part.calls) for part in found.parts]

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            yield Path(folder)


CALLS = sorted(name for name, value in vars(Work).items() if callable(value) and name[0] != "_")
CALLS = [name for name in CALLS if name not in ("sites", "scratch")]
# Calls that take a second or more: fewer threads, or only with --slow.
LONG = {"export": 2, "measure": 3, "optimize": 0}


def of_the_process() -> dict[str, Any]:
    """Global state that no call may change."""
    return {
        "torch's generator": torch.get_rng_state().tolist(),
        "numpy's generator": [str(part) for part in np.random.get_state()],
        "random's generator": random.getstate(),
        "filters of warnings": list(warnings.filters),
        "how warnings are shown": warnings.showwarning,
        "environment": dict(os.environ),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "default type": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "loggers": [logging.getLogger(name).level for name in ("", "torch.onnx", "nncf")],
        "hooks of all modules": [
            len(vars(nn.modules.module)[name])
            for name in ("_global_forward_hooks", "_global_forward_pre_hooks")
        ],
        "how modules are called": (nn.Module.__call__, nn.Module.__getattr__),
        "stdout": (sys.stdout, sys.stderr),
        "folder": Path.cwd(),
        "telemetry": sys.modules.get("openvino_telemetry", ""),
    }


def of_network(model: nn.Module) -> list[Any]:
    """State of a network that no call may change."""
    tensors = {name: value.tolist() for name, value in model.state_dict().items()}
    return [
        tensors,
        [(name, type(module), module.training) for name, module in model.named_modules()],
        [
            (len(module._forward_hooks), len(module._forward_pre_hooks), sorted(vars(module)))
            for module in model.modules()
        ],
        [(p.requires_grad, p.grad is None) for p in model.parameters()],
    ]


def assert_same(found: Any, right: Any) -> None:
    """Equal up to the rounding of sums in another order."""
    if isinstance(right, (Tensor, float)):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)
    elif isinstance(right, dict):
        assert list(found) == list(right)
        assert_same(list(found.values()), list(right.values()))
    elif isinstance(right, (list, tuple)):
        assert len(found) == len(right)
        for one, other in zip(found, right, strict=True):
            assert_same(one, other)
    elif hasattr(right, "__dataclass_fields__"):
        assert_same(vars(found), vars(right))
    else:
        assert found == right


@contextmanager
def a_bystander() -> Iterator[None]:
    """Another thread that computes, draws random numbers and warns isn't disturbed."""
    with seeded(0, CPU):
        net = Foreign()
    x, over = image(7), threading.Event()

    def look() -> list[Tensor]:
        found = []
        while not over.is_set():
            found.append(net(x).detach())
            time.sleep(0.001)
        return found

    right = net(x).detach()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(look)
        try:
            yield
        finally:
            over.set()
        assert all(torch.equal(logits, right) for logits in other.result(60))


@contextmanager
def switching() -> Iterator[None]:
    """Switch threads as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def at_once(function: Callable[[int], Any], threads: int = THREADS) -> list[Any]:
    """Results of `function` in several threads that start at the same time."""
    barrier = threading.Barrier(threads)

    def begin(number: int) -> Any:
        barrier.wait(60)
        return function(number)

    with switching(), a_bystander(), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(begin, range(threads)))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    return Work(tmp_path_factory.mktemp("threads"))


SLOW = [pytest.param(name, THREADS, marks=pytest.mark.slow) for name in LONG]


@pytest.mark.parametrize(
    ("name", "threads"),
    [*((name, LONG.get(name, THREADS)) for name in CALLS if LONG.get(name, 1)), *SLOW],
)
def test_threads_get_what_each_gets_alone(name: str, threads: int, work: Work) -> None:
    function: Callable[[int], Any] = getattr(work, name)
    # The first call imports modules and fills caches.
    alone = [function(number) for number in range(1 if name in LONG else threads)]
    process, network = of_the_process(), of_network(work.net)
    together = at_once(function, threads)
    for found, right in zip(together, alone, strict=name not in LONG):
        assert_same(found, right)
    for what, value in of_the_process().items():
        assert value == process[what], what
    assert of_network(work.net) == network
    keep_record("reliability", {"of": "threads", "function": name, "threads": threads})


@pytest.mark.slow
@pytest.mark.parametrize("engine", [*ENGINES])
def test_eight_threads_share_an_engine(engine: str, work: Work) -> None:
    if ENGINES[engine].missing(CPU):
        pytest.skip(f"{engine} can't be used here")
    fast = senetzoo.optimize(work.net, image(0, 2), engine=engine, compare=False)
    # The first thread compiles for another number of images than the sample.
    batches = [image(number, 1 + number % 2) for number in range(THREADS)]
    alone = [senetzoo.optimize(work.net, image(0, 2), engine="eager", compare=False)(batches[0])]
    process = of_the_process()
    found = at_once(lambda number: [fast(batches[number]) for _ in range(8)])
    torch.testing.assert_close(found[0][0], alone[0], rtol=1e-3, atol=1e-4)
    for number, several in enumerate(found):
        for logits in several:
            torch.testing.assert_close(logits, fast(batches[number]), rtol=1e-3, atol=1e-4)
    for what, value in of_the_process().items():
        assert value == process[what], what
    function = f"the engine {engine}"
    keep_record("reliability", {"of": "threads", "function": function, "threads": THREADS})


def _with_a_forward_of_its_own(net: nn.Module) -> nn.Module:
    """Wrap a network as Accelerate does."""
    plain = type(net).forward
    net.forward = MethodType(lambda self, x: plain(self, x).float(), net)
    return net


WRAPPED: dict[str, Callable[[nn.Module], Any]] = {
    "plain": lambda net: net,
    "a forward of its own": _with_a_forward_of_its_own,
    "scripted": torch.jit.script,
    "a graph": torch.fx.symbolic_trace,
    "in parallel": nn.DataParallel,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", WRAPPED)
def test_a_network_of_any_kind_is_evaluated_and_stays_in_training(kind: str) -> None:
    with seeded(0, CPU):
        plain = nn.Sequential(Foreign(), nn.BatchNorm1d(5))
    right = copy.deepcopy(plain).eval()(image(0, 4))
    net = WRAPPED[kind](plain)
    before = of_network(net)
    assert_same(evaluated(net)(image(0, 4)), right)
    assert net.training
    assert of_network(net) == before
    # Batch norms still update their statistics.
    net(image(1, 4))
    assert of_network(net) != before
