"""Where the time of a forward pass goes: by layer and by kind of operation, gates apart."""

from __future__ import annotations

import contextlib
import copy
import os
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, get_args

import torch
from torch import nn
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity

from senetzoo.bench.device import check_device, synchronize, threads_set
from senetzoo.bench.timing import Form, Settings, Subject, random_images, start
from senetzoo.deploy.engines import Runner
from senetzoo.errors import ConfigError
from senetzoo.gates.common import GateModule

Kind: TypeAlias = Literal[
    "convolution",
    "matrix product",
    "norm",
    "gate",
    "pool",
    "reduction",
    "pointwise",
    "attention",
    "data movement",
    "other",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
ENGINES = ("eager", "inductor")

# What other libraries call their gates. Ours are all of one class.
_GATES = {
    "timm": frozenset(
        {
            *("SEModule", "SqueezeExcite", "EffectiveSEModule", "SqueezeExciteCl", "EcaModule"),
            *("CecaModule", "CbamModule", "LightCbamModule", "GatherExcite", "CoordAttn"),
            *("SimpleCoordAttn", "BottleneckAttn", "GlobalContext"),
        }
    ),
    "torchvision": frozenset({"SqueezeExcitation"}),
    "pytorchcv": frozenset({"SEBlock", "CbamBlock", "BamBlock"}),
}
# Of names without namespace and the underscore of in-place operations, in this order.
_OPERATIONS: tuple[tuple[Kind, str], ...] = (
    ("attention", r"attention"),
    ("convolution", r"conv"),
    ("norm", r"norm"),
    ("matrix product", r"^(add|baddb|b)?mm$|^mv$|^(linear|matmul|einsum|bilinear)|_linear"),
    ("pool", r"pool|^mean$|^amax$|^sum$"),
    (
        "data movement",
        r"^(cat|stack|copy|clone|contiguous|to|pad|constant_pad.*|roll|permute|transpose|t|"
        r"reshape|view|flatten|unflatten|expand|expand_as|chunk|split|narrow|slice|select|index|"
        r"squeeze|unsqueeze|_to_copy|empty.*|resize|as_strided|unbind|lift_fresh|detach|alias|"
        r"set|_unsafe_view|resolve_.*|zeros|ones|full|arange)$",
    ),
    (
        "pointwise",
        r"^(relu|relu6|add|sub|rsub|mul|div|sigmoid|silu|gelu|tanh|elu|leaky_relu|hardtanh|"
        r"hardsigmoid|hardswish|clamp.*|softmax|exp|pow|sqrt|rsqrt|neg|abs|dropout|mish|erf|"
        r"addcmul|addcdiv|where|maximum|minimum|threshold|prelu|square|reciprocal|log)$",
    ),
)
# Of fused kernels, whose names list the operations that they come from; of libraries' kernels on a
# GPU. A product may leave its name to the kernel that goes on with it, so reductions come first.
_FUSED: tuple[tuple[Kind, str], ...] = (
    (
        "reduction",
        r"triton_(red|per)_|(^|_)(mean|sum|amax|max_pool\w*|avg_pool\w*|softmax|var|var_mean|"
        r"layer_norm|max|min|prod)(_|$)",
    ),
    ("matrix product", r"triton_tem_|(^|_)(addmm|bmm|mm|linear|gemm)(_|$)"),
    ("pointwise", r""),
)
_LIBRARY: tuple[tuple[Kind, str], ...] = (
    ("convolution", r"conv|fprop|implicit_gemm|winograd"),
    ("attention", r"flash|fmha|attention"),
    ("matrix product", r"gemm|cutlass|cublas|gemv"),
    ("norm", r"batch_norm|layer_norm|bn_fw"),
    ("data movement", r"memcpy|memset|copy|nchwtonhwc|nhwctonchw|transpose|\bcat"),
    ("reduction", r"reduce|pool|softmax"),
    ("pointwise", r"elementwise|pointwise"),
)
_FUSED_NAME = re.compile(r"^(graph_\d+_)?(cpp|triton)_")
_OPERATION_NAME = re.compile(r"^\w+::\w+")
_MODULE = "senetzoo module "


@dataclass(frozen=True)
class Part:
    """The time that one layer spends in one kind of operation.

    Args:
        path: Name of the module, ``""`` for the network itself; outside of modules, as all of
            inductor's are, name of the operation or kernel.
        kind: Of the operations.
        seconds: For a batch, the median over the rounds.
        calls: How many operations in a forward pass.
    """

    path: str
    kind: Kind
    seconds: float
    calls: int


@dataclass(frozen=True)
class Profile:
    """Where the time of one subject goes.

    Args:
        name: Of the subject.
        form: How it ran.
        image: Shape (C, H, W) of one image.
        batch: Images in a batch.
        parts: In the order in which they first ran.
        outside: Seconds of a forward pass outside of all operations: Python, and the profiler's
            own work, which is most of it. On a GPU that happens while the GPU computes.
    """

    name: str
    form: Form
    image: tuple[int, int, int]
    batch: int
    parts: tuple[Part, ...]
    outside: float

    @property
    def seconds(self) -> float:
        """Of all operations for a batch."""
        return sum(part.seconds for part in self.parts)

    def share(self, part: Part) -> float:
        """Fraction of the time of all operations."""
        return part.seconds / self.seconds if self.seconds else 0.0

    def kinds(self) -> dict[Kind, Part]:
        """The sum of each kind that occurs; the longest first."""
        found = _summed([Part("", part.kind, part.seconds, part.calls) for part in self.parts])
        ordered = sorted(found, key=lambda part: -part.seconds)
        return {part.kind: part for part in ordered}

    def layers(self) -> tuple[Part, ...]:
        """By the first two words of the path: ``layer1.0`` for all that is in it."""
        return _summed(
            [
                Part(".".join(part.path.split(".")[:2]), part.kind, part.seconds, part.calls)
                for part in self.parts
            ]
        )


class Event(Protocol):
    """What is read of a `torch.autograd.profiler_util.FunctionEvent`."""

    @property
    def name(self) -> str:
        """Of an operation, a kernel or a module."""

    @property
    def device_type(self) -> DeviceType:
        """The GPU's of a kernel that runs there, else the CPU's."""

    @property
    def cpu_time_total(self) -> float:
        """Microseconds with all that is inside it."""

    @property
    def device_time_total(self) -> float:
        """Microseconds of the kernels that it started on a GPU."""

    @property
    def cpu_children(self) -> list[Any]:
        """What ran inside it."""


def check_engines(forms: Sequence[Form]) -> None:
    """Refuse forms whose engine torch's profiler does not see into.

    Raises:
        ConfigError: One of them is such a form.
    """
    for form in forms:
        if form.engine not in ENGINES:
            raise ConfigError(
                f"{form.engine} can't be profiled.",
                f"torch's profiler sees into {' and '.join(ENGINES)} only.",
                "Type: --profile --engine eager",
            )


def profile(subject: Subject, settings: Settings) -> Profile:
    """Run a subject under torch's profiler.

    Eager networks are followed module by module: an operation counts for the innermost module that
    called it. Inductor's kernels belong to no module: each is a part of its own, and where the
    gates are fused with other layers nothing can be told of them.

    Args:
        subject: Eager or inductor.
        settings: As `measure` takes them; each round is a profile of its own.

    Raises:
        ConfigError: Another engine, or as `measure` does.
    """
    check_engines([subject.form])
    device = check_device(settings.device, bf16=subject.form.dtype == "bf16")
    with threads_set(settings.threads):
        images = random_images(subject.image, settings.batch, device)
        gates: frozenset[str] = frozenset()
        with _kernels_named(subject.form.engine):
            if subject.form.engine == "eager":
                watched, gates = _watched(subject.module)
                subject = Subject(subject.name, watched, subject.image, subject.form)
            run = start(subject, settings, images)
        for _ in range(settings.warmup):
            run(images)
        rounds = []
        for _ in range(settings.rounds):
            events, seconds = _events(run, images)
            rounds.append((grouped(events, gates), seconds))
    return _median(subject, settings.batch, rounds)


def grouped(events: Sequence[Event], gates: frozenset[str] = frozenset()) -> tuple[Part, ...]:
    """The operations in the trees below `events`, by layer and kind.

    Args:
        events: The outermost ones, in their order. Where there are kernels of a GPU among them,
            outside of any module, only these count.
        gates: Names of modules that are gates: all in them is of the kind ``"gate"``.
    """
    kernels = [event for event in events if event.device_type == DeviceType.CUDA]
    in_modules = any(event.name.startswith(_MODULE) for event in events)
    if kernels and not in_modules:
        return _summed(
            [Part(e.name, kind_of(e.name), e.device_time_total / 1e6, 1) for e in kernels]
        )
    parts: list[Part] = []
    for event in events:
        if event.device_type != DeviceType.CUDA:
            parts += _operations(event, None, gates, on_gpu=bool(kernels))
    return _summed(parts)


def kind_of(name: str) -> Kind:
    """The kind of an operation or a kernel by its name."""
    if _FUSED_NAME.match(name):
        return _first(_FUSED, _plain(name))
    if _OPERATION_NAME.match(name):
        return _first(_OPERATIONS, name.partition("::")[2].split("::")[-1].rstrip("_"))
    return _first(_LIBRARY, name.lower())


def _first(table: Sequence[tuple[Kind, str]], name: str) -> Kind:
    return next((kind for kind, pattern in table if re.search(pattern, name)), "other")


def _operations(
    event: Event, path: str | None, gates: frozenset[str], *, on_gpu: bool
) -> Iterator[Part]:
    """The outermost operations in `event`: what they call in turn is part of them."""
    name = event.name
    if name.startswith(_MODULE):
        path = name.removeprefix(_MODULE)
    elif _FUSED_NAME.match(name) or _OPERATION_NAME.match(name):
        seconds = (event.device_time_total if on_gpu else event.cpu_time_total) / 1e6
        if path is None:
            yield Part(_plain(name), kind_of(name), seconds, 1)
        else:
            around = {"", *(path[: end.start()] for end in re.finditer(r"\.|$", path))}
            yield Part(path, "gate" if around & gates else kind_of(name), seconds, 1)
        return
    for child in event.cpu_children:
        yield from _operations(child, path, gates, on_gpu=on_gpu)


def _plain(name: str) -> str:
    """Name of a kernel without the number of the compiled graph that it belongs to."""
    return re.sub(r"^graph_\d+_", "", name)


def _summed(parts: Sequence[Part]) -> tuple[Part, ...]:
    found: dict[tuple[str, Kind], Part] = {}
    for part in parts:
        before = found.get((part.path, part.kind), Part(part.path, part.kind, 0.0, 0))
        found[part.path, part.kind] = Part(
            part.path, part.kind, before.seconds + part.seconds, before.calls + part.calls
        )
    return tuple(found.values())


def _median(
    subject: Subject, batch: int, rounds: Sequence[tuple[tuple[Part, ...], float]]
) -> Profile:
    seconds: dict[tuple[str, Kind], list[float]] = defaultdict(list)
    calls: dict[tuple[str, Kind], int] = {}
    outside = []
    for parts, total in rounds:
        for part in parts:
            seconds[part.path, part.kind].append(part.seconds)
            calls[part.path, part.kind] = part.calls
        outside.append(max(0.0, total - sum(part.seconds for part in parts)))
    return Profile(
        subject.name,
        subject.form,
        subject.image,
        batch,
        tuple(
            Part(path, kind, statistics.median(values), calls[path, kind])
            for (path, kind), values in seconds.items()
        ),
        statistics.median(outside),
    )


def _watched(module: nn.Module) -> tuple[nn.Module, frozenset[str]]:
    """A copy of `module` that tells the profiler which of its modules runs, and its gates."""
    module = copy.deepcopy(module)
    running: list[torch.profiler.record_function] = []

    def enter(name: str) -> None:
        running.append(torch.profiler.record_function(_MODULE + name))
        running[-1].__enter__()  # type: ignore[no-untyped-call]

    def leave() -> None:
        running.pop().__exit__(None, None, None)

    gates = []
    for name, child in module.named_modules():
        # Plain functions: an engine copies the module once more, and these stay what they are.
        child.register_forward_pre_hook(lambda _module, _args, name=name: enter(name))
        child.register_forward_hook(lambda _module, _args, _out: leave(), always_call=True)
        if is_gate(child):
            gates.append(name)
    return module, frozenset(gates)


def is_gate(module: nn.Module) -> bool:
    """Whether it is a gate of ours, or one that timm, torchvision or pytorchcv has."""
    cls = type(module)
    return isinstance(module, GateModule) or cls.__name__ in _GATES.get(
        cls.__module__.partition(".")[0], ()
    )


@contextlib.contextmanager
def _kernels_named(name: str) -> Iterator[None]:
    """Have inductor tell the profiler about each C++ kernel; by default it does so of none."""
    if name != "inductor":
        yield
        return
    from torch._inductor import config

    with config.patch({"cpp.enable_kernel_profile": True}):
        yield


def _events(run: Runner, images: torch.Tensor) -> tuple[list[Event], float]:
    """The outermost events of one forward pass, and its seconds."""
    # Some builds of torch print kineto's trace points on stderr, into the table.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (images.device.type == "cuda")]
    with torch.profiler.profile(activities=activities) as recorded:
        begun = time.perf_counter()
        run(images)
        synchronize(images.device)
        seconds = time.perf_counter() - begun
    found: Any = recorded.events()
    return [event for event in found if event.cpu_parent is None], seconds
