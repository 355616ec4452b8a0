"""Profile a forward pass by layer and by kind of operation; gates are a kind of their own."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity

from senetzoo._utils.environment import check_device, synchronize, threads_set
from senetzoo.bench.kinds import Kind, is_gate, is_operation, kind_of, kind_of_node, plain
from senetzoo.bench.timing import Backend, BenchmarkCase, Settings, profiling, random_images, start
from senetzoo.deploy.engines import Runner
from senetzoo.deploy.engines.ov import counting
from senetzoo.errors import ConfigError

ENGINES = ("eager", "inductor", "openvino")

_MODULE = "senetzoo module "
# Has the attributes of `torch.autograd.profiler_util.FunctionEvent` that are read here: name,
# device_type, cpu_time_total and device_time_total (microseconds), cpu_children.
Event: TypeAlias = Any


@dataclass(frozen=True)
class Part:
    """The time that one layer spends in one kind of operation.

    Args:
        path: Name of the module, ``""`` for the network itself; outside of modules, as for all
            operations of inductor, the name of the operation or kernel.
        kind: Kind of the operations.
        seconds: Seconds per batch, median over the rounds.
        calls: Number of operations in a forward pass.
    """

    path: str
    kind: Kind
    seconds: float
    calls: int


@dataclass(frozen=True)
class Profile:
    """The profile of one case.

    Args:
        case: The case.
        batch: Images in a batch.
        parts: The parts, in the order in which they first ran.
        outside: Seconds of a forward pass outside of all operations: in Python, and mostly in the
            profiler itself. On a GPU that happens while the GPU computes.
    """

    case: BenchmarkCase
    batch: int
    parts: tuple[Part, ...]
    outside: float

    @property
    def seconds(self) -> float:
        """Seconds of all operations per batch."""
        return sum(part.seconds for part in self.parts)

    def share(self, part: Part) -> float:
        """Fraction of the time of all operations."""
        return part.seconds / self.seconds if self.seconds else 0.0

    def kinds(self) -> dict[Kind, Part]:
        """The sum of each kind that occurs, longest first."""
        found = _summed([dataclasses.replace(part, path="") for part in self.parts])
        return {part.kind: part for part in sorted(found, key=lambda part: -part.seconds)}

    def layers(self) -> tuple[Part, ...]:
        """Sums by the first two parts of the path: ``layer1.0`` includes everything inside it."""
        pairs = [(part, ".".join(part.path.split(".")[:2])) for part in self.parts]
        return _summed([dataclasses.replace(part, path=path) for part, path in pairs])


def check_engines(backends: Sequence[Backend]) -> None:
    """Raise `ConfigError` for a backend that can't be profiled."""
    for backend in backends:
        if backend.engine not in ENGINES:
            raise ConfigError(
                f"{backend.engine} can't be profiled.",
                f"Profiles exist for {', '.join(ENGINES)}.",
                f"Type: --profile --engine {'openvino' if backend.dtype == 'int8' else 'eager'}",
            )
        if backend.streams > 1:
            raise ConfigError(
                f"{backend.streams} streams can't be profiled.",
                "A profile covers one stream.",
                "Leave --streams out",
            )


def profile(case: BenchmarkCase, settings: Settings) -> Profile:
    """Run a case under torch's profiler, or with OpenVINO's counters.

    Eager networks are profiled by module: an operation counts for the innermost module that called
    it. Inductor's kernels belong to no module: each is a separate part, and the time of gates that
    are fused with other layers is unknown. OpenVINO's nodes are grouped by type and implementation.

    Args:
        case: A case with the engine eager, inductor or openvino.
        settings: As for `measure`; each round is profiled separately.

    Raises:
        ConfigError: The engine can't be profiled, or `measure` would raise it.
    """
    check_engines([case.backend])
    device = check_device(settings.device, bf16=case.backend.dtype == "bf16")
    watched, gates = case, frozenset[str]()
    with threads_set(settings.threads):
        images = random_images(case.image, settings.batch, device)
        with _kernels_named(case.backend.engine) as nodes:
            if case.backend.engine == "eager":
                module, gates = _watched(case.module)
                watched = dataclasses.replace(case, module=module)
            run = start(watched, settings, images)
            for _ in range(settings.warmup):
                run(images)
            rounds = []
            for _ in range(settings.rounds):
                if nodes is None:
                    events, seconds = _events(run, images)
                    rounds.append((grouped(events, gates), seconds))
                else:
                    begun = time.perf_counter()
                    run(images)
                    rounds.append((_of_nodes(nodes), time.perf_counter() - begun))
    return _median(case, settings.batch, rounds)


def grouped(events: Sequence[Event], gates: frozenset[str] = frozenset()) -> tuple[Part, ...]:
    """Sum the operations in the trees below the outermost `events` by layer and kind.

    If there are GPU kernels and no modules, only the kernels count. `gates` are names of modules:
    everything in them is of the kind ``"gate"``.
    """
    kernels = [event for event in events if event.device_type == DeviceType.CUDA]
    in_modules = any(event.name.startswith(_MODULE) for event in events)
    if kernels and not in_modules:
        return _summed(
            [
                Part(e.name, kind_of(e.name, on_gpu=True), e.device_time_total / 1e6, 1)
                for e in kernels
            ]
        )
    parts: list[Part] = []
    for event in events:
        if event.device_type != DeviceType.CUDA:
            parts += _operations(event, None, gates, on_gpu=bool(kernels))
    return _summed(parts)


def _operations(
    event: Event, path: str | None, gates: frozenset[str], *, on_gpu: bool
) -> Iterator[Part]:
    """The outermost operations in `event`; they include the operations that they call."""
    name = event.name
    if name.startswith(_MODULE):
        path = name.removeprefix(_MODULE)
    elif is_operation(name):
        seconds = (event.device_time_total if on_gpu else event.cpu_time_total) / 1e6
        if path is None:
            yield Part(plain(name), kind_of(name), seconds, 1)
        else:
            around = {"", *(path[: end.start()] for end in re.finditer(r"\.|$", path))}
            yield Part(path, "gate" if around & gates else kind_of(name), seconds, 1)
        return
    for child in event.cpu_children:
        yield from _operations(child, path, gates, on_gpu=on_gpu)


def _of_nodes(nodes: Sequence[Event]) -> tuple[Part, ...]:
    """OpenVINO's counters by type and implementation: ``Convolution brgconv_avx512_I8``."""
    return _summed(
        [
            Part(
                f"{node.node_type} {node.exec_type}",
                kind_of_node(node.node_type),
                node.real_time.total_seconds(),
                1,
            )
            for node in nodes
            if node.status == node.Status.EXECUTED
        ]
    )


def _summed(parts: Sequence[Part]) -> tuple[Part, ...]:
    found: dict[tuple[str, Kind], Part] = {}
    for part in parts:
        before = found.get((part.path, part.kind), Part(part.path, part.kind, 0.0, 0))
        found[part.path, part.kind] = Part(
            part.path, part.kind, before.seconds + part.seconds, before.calls + part.calls
        )
    return tuple(found.values())


def _median(
    case: BenchmarkCase, batch: int, rounds: Sequence[tuple[tuple[Part, ...], float]]
) -> Profile:
    found: dict[tuple[str, Kind], list[Part]] = defaultdict(list)
    for part in [part for parts, _ in rounds for part in parts]:
        found[part.path, part.kind].append(part)
    medians = tuple(
        dataclasses.replace(same[-1], seconds=statistics.median(part.seconds for part in same))
        for same in found.values()
    )
    outside = [max(0.0, total - sum(part.seconds for part in parts)) for parts, total in rounds]
    return Profile(case, batch, medians, statistics.median(outside))


def _watched(module: nn.Module) -> tuple[nn.Module, frozenset[str]]:
    """A copy of `module` that reports to the profiler which module runs, and names of its gates."""
    module = copy.deepcopy(module)
    running: list[torch.profiler.record_function] = []

    def enter(name: str) -> None:
        running.append(torch.profiler.record_function(_MODULE + name))
        running[-1].__enter__()  # type: ignore[no-untyped-call]

    def leave() -> None:
        running.pop().__exit__(None, None, None)

    gates = []
    for name, child in module.named_modules():
        # Plain functions, because an engine copies the module again, but doesn't copy functions.
        child.register_forward_pre_hook(lambda _module, _args, name=name: enter(name))
        child.register_forward_hook(lambda _module, _args, _out: leave(), always_call=True)
        if is_gate(child):
            gates.append(name)
    return module, frozenset(gates)


@contextlib.contextmanager
def _kernels_named(name: str) -> Iterator[list[Event] | None]:
    """Make the engine report each of its kernels, which it doesn't by default.

    Inductor's kernels appear in torch's profiler; OpenVINO's are in the list that this yields.
    """
    if name == "openvino":
        with counting() as nodes:
            yield nodes
        return
    if name != "inductor":
        yield None
        return
    from torch._inductor import config

    with config.patch({"cpp.enable_kernel_profile": True}):
        yield None


def _events(run: Runner, images: torch.Tensor) -> tuple[list[Event], float]:
    """The outermost events of one forward pass, and its seconds."""
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (images.device.type == "cuda")]
    with profiling(), torch.profiler.profile(activities=activities) as recorded:
        begun = time.perf_counter()
        run(images)
        synchronize(images.device)
        seconds = time.perf_counter() - begun
    found: Any = recorded.events()
    return [event for event in found if event.cpu_parent is None], seconds
