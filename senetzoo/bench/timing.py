"""Measure latency, throughput and memory of any modules in any engines, interleaved in one process.

It is independent of the zoo: a `BenchmarkCase` is a module, the shape of its images, and a backend.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor, nn

from senetzoo._utils.checks import Ge, Le, NonNegativeInt, PositiveInt, check
from senetzoo._utils.environment import (
    MOST_THREADS,
    PROCESS,
    check_device,
    synchronize,
    threads_set,
    unwarned,
)
from senetzoo.deploy.engines import Dtype, Layout, Runner, engine
from senetzoo.errors import explained
from senetzoo.eval.accuracy import failures_explained
from senetzoo.eval.spread import Spread
from senetzoo.nn.counting import Counts
from senetzoo.nn.modes import TORCH_DTYPES

# Seed of the random images; the values do not matter, unless they are denormal numbers.
_SEED = 0
# Number of images for calibrating int8. They are random too: the ranges change the outputs, but
# not the time.
_CALIBRATION = 8
# Engines and devices whose activations are torch tensors, allocated and freed in each forward pass.
_WITH_TORCH = (("eager", "cpu"), ("eager", "cuda"), ("inductor", "cpu"))


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Args:
        batch: Images in a batch.
        layout: ``"nchw"``, or ``"nhwc"``: torch's channels_last. Some engines choose their own
            layout instead.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        threads: Number of CPU threads of every engine; None for torch's number.
        rounds: Measured rounds; each runs one batch of every case.
        warmup: Rounds before them that are not measured.
        seed: Seed of the order of the cases within each round.

    Raises:
        ConfigError: A value is invalid.
    """

    batch: PositiveInt = 32
    layout: Layout = "nchw"
    device: str = "cpu"
    threads: Annotated[int, Ge(1), Le(MOST_THREADS)] | None = None
    rounds: PositiveInt = 20
    warmup: NonNegativeInt = 3
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        check(self, name="bench")


@dataclass(frozen=True)
class Backend:
    """The engine that runs a network, and its settings.

    Args:
        engine: A name of `senetzoo.deploy.engines.ENGINES`.
        dtype: Type of weights and activations.
        streams: Parts of a batch that run at the same time, each on its share of the threads.

    Raises:
        ConfigError: There is no such engine, it has no such dtype, or `streams` is below 1.
    """

    engine: str = "eager"
    dtype: Dtype = "fp32"
    streams: PositiveInt = 1

    def __post_init__(self) -> None:
        engine(self.engine).check_dtype(self.dtype)
        check(self, name="bench")


@dataclass(frozen=True)
class BenchmarkCase:
    """A network to measure in one backend.

    Args:
        name: Its name in the result.
        module: Network from a batch of images to logits; it is copied, not changed.
        image: Shape (C, H, W) of one image.
        backend: The backend that runs it.
        optimized: Whether `module` is a network that senetzoo rewrote.
        counts: Parameters and multiply-adds; of a rewritten network, those before rewriting.
    """

    name: str
    module: nn.Module = field(repr=False)
    image: tuple[int, int, int]
    backend: Backend = Backend()
    optimized: bool = False
    counts: Counts | None = None

    @property
    def how(self) -> str:
        """How it runs: ``"inductor, bf16, 2 streams, optimized"``."""
        backend = self.backend
        words = [backend.engine, backend.dtype]
        words += [f"{backend.streams} streams"] * (backend.streams > 1)
        return ", ".join([*words, *["optimized"] * self.optimized])


@dataclass(frozen=True)
class Timing:
    """The measurements of one case.

    Args:
        case: The case.
        settings: How it was measured.
        seconds: Seconds for the batch of each round, in order.
        peak_bytes: The result of `peak_bytes`; None if it is unknown.
    """

    case: BenchmarkCase
    settings: Settings
    seconds: tuple[float, ...]
    peak_bytes: int | None

    @property
    def latency(self) -> Spread:
        """Seconds per batch."""
        return Spread.of(self.seconds)

    @property
    def images_per_second(self) -> float:
        """The batch size divided by the median latency."""
        return self.settings.batch / self.latency.median

    def ratio(self, first: Timing) -> Spread:
        """Throughput as a multiple of `first`'s, from the ratio within each round.

        The batches of a round run at the same clock frequency and with the same other load, so the
        ratios scatter less than the latencies.
        """
        pairs = zip(first.seconds, self.seconds, strict=True)
        return Spread.of([theirs / own for theirs, own in pairs])


def measure(
    cases: Sequence[BenchmarkCase],
    settings: Settings,
    *,
    clock: Callable[[], float] = time.perf_counter,
    advance: Callable[[], None] = lambda: None,
) -> list[Timing]:
    """Time every case, one batch of each in turn, round after round.

    The order is random in each round. In a fixed order each case would always follow the same
    other one, and start with the caches, the memory and the clock frequency that that one left: a
    bias with the same sign in every round, which more rounds don't reduce. Rotating a fixed order
    would keep all neighbors but one.

    Modules run in eval mode, without gradients. Each does at least one untimed forward pass before
    the warm-up (where compilation happens), and, where its memory can be measured, one after the
    rounds.

    Args:
        cases: What to measure.
        settings: How to measure.
        clock: Returns the seconds of a monotonic clock.
        advance: Called after each timed or warm-up forward pass, for a progress bar.

    Raises:
        ConfigError: The device is not available here, an engine or its dtype can't be used on it,
            or a module fails on its images.
        MissingExtraError: An engine's package is not installed.
    """
    device = check_device(settings.device, bf16=any(c.backend.dtype == "bf16" for c in cases))
    for case in cases:
        engine(case.backend.engine).check(device, case.backend.dtype)
    with threads_set(settings.threads):
        shapes = dict.fromkeys(case.image for case in cases)
        batches = {shape: random_images(shape, settings.batch, device) for shape in shapes}
        running = [start(case, settings, batches[case.image]) for case in cases]

        seconds: list[list[float]] = [[] for _ in cases]
        order, draw = list(range(len(cases))), random.Random(settings.seed)
        for number in range(settings.warmup + settings.rounds):
            draw.shuffle(order)
            for index in order:
                run, images = running[index], batches[cases[index].image]
                synchronize(device)
                begun = clock()
                run(images)
                synchronize(device)
                ended = clock()
                if number >= settings.warmup:
                    seconds[index].append(ended - begun)
                advance()

        return [
            Timing(case, settings, tuple(measured), peak_bytes(case, run, batches[case.image]))
            for case, run, measured in zip(cases, running, seconds, strict=True)
        ]


def start(case: BenchmarkCase, settings: Settings, images: Tensor) -> Runner:
    """Load a case into its engine, which runs it once on `images`."""
    runs_in, dtype = engine(case.backend.engine), case.backend.dtype
    calibration = None
    if dtype == "int8":
        calibration = random_images(case.image, _CALIBRATION, torch.device("cpu"))
    # If a processor only emulates bf16, the report says so once, not once per case.
    with failures_explained(case.name, case.image, settings.batch), unwarned(RuntimeWarning):
        return runs_in.load(
            case.module,
            images,
            dtype,
            layout=runs_in.layout(settings.layout),
            threads=torch.get_num_threads(),
            streams=case.backend.streams,
            calibration=calibration,
        )


def random_images(image: tuple[int, int, int], number: int, device: torch.device) -> Tensor:
    """Make `number` fp32 images, the same at each call."""
    generator = torch.Generator().manual_seed(_SEED)
    asked = f"A batch of {number} images of {image[1]}x{image[2]} pixels can't be made."
    with explained(asked, "torch", "Give a smaller batch: --batch 8"):
        return torch.randn(number, *image, generator=generator).to(device)


MEMORY = (
    "parameters, buffers and images, plus the most that torch's allocator held at once for one "
    "forward pass; - if memory is not allocated through it, or not recorded (several streams)"
)


def peak_bytes(case: BenchmarkCase, run: Runner, images: Tensor) -> int | None:
    """Bytes of the parameters and buffers, of the images, and the peak of one forward pass.

    Memory that libraries allocate themselves (oneDNN's scratchpads and packed weights, the CUDA
    context) is not included. The growth of the process would include it, but not show which case it
    belongs to: all cases share one process.

    None if it is unknown: on MPS, whose allocator doesn't record a peak; for inductor on a GPU,
    whose CUDA graphs keep their memory; for engines with their own allocator; for several streams,
    because torch records one thread.
    """
    if case.backend.streams > 1 or (case.backend.engine, images.device.type) not in _WITH_TORCH:
        return None
    # An engine's copy has all floating point tensors in the backend's dtype.
    itemsize = TORCH_DTYPES[case.backend.dtype].itemsize
    stored = sum(
        tensor.numel() * (itemsize if tensor.is_floating_point() else tensor.itemsize)
        for tensor in (*case.module.parameters(), *case.module.buffers())
    )
    return stored + images.nbytes + _forward_peak(run, images)


@contextlib.contextmanager
def profiling() -> Iterator[None]:
    """Context for torch's profiler: one thread at a time, because a process has one profiler."""
    name = "KINETO_LOG_LEVEL"
    with PROCESS:
        had = name in os.environ
        # Some builds of torch print kineto's trace points on stderr, into the table.
        os.environ.setdefault(name, "99")
        try:
            yield
        finally:
            if not had:
                os.environ.pop(name, None)


def _forward_peak(run: Runner, images: Tensor) -> int:
    """Measure the most bytes that one forward pass holds at once, beyond weights and images."""
    device = images.device
    if device.type == "cuda":
        synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run(images)
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    with profiling(), profile(activities=activities, profile_memory=True) as recorded:
        run(images)
    result = recorded.profiler and recorded.profiler.kineto_results
    if not result:
        raise RuntimeError("torch's profiler recorded nothing")
    held = peak = 0
    events = [event for event in result.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
