"""Latency, throughput and peak memory of any modules, interleaved in one process.

Knows nothing of the zoo: a `Subject` is a module and the shape of its images.
"""

from __future__ import annotations

import contextlib
import copy
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from senetzoo.errors import ConfigError, SenetzooError

Dtype: TypeAlias = Literal["fp32", "bf16"]
Layout: TypeAlias = Literal["nchw", "nhwc"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
DEVICES = ("cpu", "cuda", "mps")
# Of the random images; the values do not matter, as long as they are no denormal numbers.
_SEED = 0


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Args:
        batch: Images in a batch.
        dtype: Type of weights and images.
        layout: ``"nchw"``, or ``"nhwc"``: torch's channels_last.
        compile: Whether torch.compile's inductor runs the networks (on the CPU with frozen
            weights); else they run eagerly.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        threads: Threads of torch on the CPU; None leaves its number as it is.
        rounds: Measured rounds; each runs one batch through every network.
        warmup: Rounds before them that are not measured.

    Raises:
        ConfigError: A value that does not fit.
    """

    batch: int = 32
    dtype: Dtype = "fp32"
    layout: Layout = "nchw"
    compile: bool = False
    device: str = "cpu"
    threads: int | None = None
    rounds: int = 20
    warmup: int = 3

    def __post_init__(self) -> None:
        for name, least in (("batch", 1), ("rounds", 1), ("warmup", 0), ("threads", 1)):
            value = getattr(self, name)
            if value is None and name == "threads":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(
                    f"{name}={value!r} can't be measured.",
                    f"{name} is a whole number of at least {least}.",
                )
        for name, allowed in (("dtype", get_args(Dtype)), ("layout", get_args(Layout))):
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} can't be measured.",
                    f"{name} is one of {', '.join(allowed)}.",
                )

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout as torch calls it."""
        return torch.channels_last if self.layout == "nhwc" else torch.contiguous_format


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Args:
        name: Its name in the result.
        module: Takes a batch of images; it is copied, not changed.
        image: Shape (C, H, W) of one image.
    """

    name: str
    module: nn.Module
    image: tuple[int, int, int]


@dataclass(frozen=True)
class Spread:
    """The median of some measurements, with the tenth and the ninetieth percentile."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Percentiles of `values` (at least one), linear between neighbours."""
        data = torch.tensor(values, dtype=torch.float64)
        p10, median, p90 = data.quantile(data.new_tensor([0.1, 0.5, 0.9])).tolist()
        return cls(median, p10, p90)

    @property
    def relative(self) -> float:
        """``(p90 - p10) / median``: the width of the middle 80 %."""
        return (self.p90 - self.p10) / self.median


@dataclass(frozen=True)
class Timing:
    """What was measured of one subject.

    Args:
        name: Of the subject.
        image: Shape (C, H, W) of one image.
        batch: Images in a batch.
        seconds: Of each round's batch, in the order of the rounds.
        peak_bytes: Parameters, buffers and the batch of images, plus the most that torch's
            allocator held at once for one forward pass. What libraries allocate by themselves
            (oneDNN's scratchpads, the CUDA context) is not in it. None on MPS, whose allocator
            keeps no peak.
    """

    name: str
    image: tuple[int, int, int]
    batch: int
    seconds: tuple[float, ...]
    peak_bytes: int | None

    @property
    def latency(self) -> Spread:
        """Seconds for a batch."""
        return Spread.of(self.seconds)

    @property
    def images_per_second(self) -> float:
        """The batch over its median latency."""
        return self.batch / self.latency.median

    def ratio(self, first: Timing) -> Spread:
        """Throughput as a multiple of `first`'s, from the ratio within each round.

        Neighbours in a round meet the same clock frequency and the same other load, so the
        ratios spread less than the latencies.
        """
        pairs = zip(first.seconds, self.seconds, strict=True)
        return Spread.of([theirs / own for theirs, own in pairs])


def measure(
    subjects: Sequence[Subject],
    settings: Settings,
    *,
    clock: Callable[[], float] = time.perf_counter,
    advance: Callable[[], None] = lambda: None,
) -> list[Timing]:
    """Time every subject, one batch of each in turn, round after round.

    Modules run in eval mode under inference_mode. Each does one untimed forward pass before the
    warm-up (where compilation happens), and one after the rounds for the memory.

    Args:
        subjects: What to measure.
        settings: How.
        clock: Seconds of a monotonic clock.
        advance: Called after each timed or warm-up forward pass; a progress bar's tick.

    Raises:
        ConfigError: The device or dtype is not to be had here, or a module fails on its images.
    """
    device = check_device(settings)
    with threads_set(settings.threads), _compile_limit(len(subjects)), torch.inference_mode():
        batches: dict[tuple[int, int, int], Tensor] = {}
        for subject in subjects:
            if subject.image not in batches:
                batches[subject.image] = _images(subject.image, settings, device)
        running: list[Callable[[Tensor], object]] = []
        for subject in subjects:
            module = prepare(subject.module, settings)
            run = _compiled(module, device) if settings.compile else module
            with explained(subject.name, subject.image, settings.batch):
                run(batches[subject.image])
            running.append(run)

        seconds: list[list[float]] = [[] for _ in subjects]
        for number in range(settings.warmup + settings.rounds):
            for subject, run, measured in zip(subjects, running, seconds, strict=True):
                images = batches[subject.image]
                _synchronize(device)
                start = clock()
                run(images)
                _synchronize(device)
                stop = clock()
                if number >= settings.warmup:
                    measured.append(stop - start)
                advance()

        return [
            Timing(
                subject.name,
                subject.image,
                settings.batch,
                tuple(measured),
                _peak(subject.module, run, batches[subject.image], device),
            )
            for subject, run, measured in zip(subjects, running, seconds, strict=True)
        ]


def prepare(module: nn.Module, settings: Settings) -> nn.Module:
    """Copy `module`, in eval mode, of the settings' dtype and layout, on their device."""
    ready = copy.deepcopy(module).eval().to(settings.device, DTYPES[settings.dtype])
    # The overload with a memory format is keyword-only and unknown to the type of nn.Module.to.
    return ready.to(memory_format=settings.memory_format)  # type: ignore[call-overload, no-any-return]


def check_device(settings: Settings) -> torch.device:
    """Try the settings' device with a small convolution of their dtype.

    Raises:
        ConfigError: It is not to be had here, or can't compute in the dtype.
    """
    try:
        device = torch.device(settings.device)
    except RuntimeError:
        device = None
    if device is None or device.type not in DEVICES:
        raise ConfigError(
            f"There is no device {settings.device!r}.", f"Devices are {', '.join(DEVICES)}."
        )
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }[device.type]
    if (device.index or 0) >= there:
        raise ConfigError(
            f"The device {settings.device!r} is not available.",
            f"torch {torch.__version__} sees {there} {device.type} devices here.",
            "Type: --device cpu",
        )
    dtype = DTYPES[settings.dtype]
    supported = device.type != "cuda" or dtype != torch.bfloat16 or torch.cuda.is_bf16_supported()
    if supported:
        try:
            one = torch.ones(1, 1, 3, 3, device=device, dtype=dtype)
            torch.nn.functional.conv2d(one, one)
        except (RuntimeError, TypeError):
            supported = False
    if not supported:
        raise ConfigError(
            f"The device {settings.device!r} can't compute in {settings.dtype}.",
            f"torch {torch.__version__} has no {settings.dtype} convolution for it.",
            "Type: --dtype fp32",
        )
    return device


@contextlib.contextmanager
def explained(name: str, image: tuple[int, int, int], batch: int) -> Iterator[None]:
    """Turn torch's failure on a forward pass into a `ConfigError` with the shape and its words."""
    try:
        yield
    except SenetzooError:
        raise  # the network's own words, or those of the images' reader, are better
    except RuntimeError as error:
        shape = "x".join(map(str, (batch, *image)))
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"{name} fails on images of shape {shape}.",
            f"torch says: {said[0]}",
            "Give another size or a smaller batch: --size 224 --batch 8",
        ) from error


def _images(image: tuple[int, int, int], settings: Settings, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(_SEED)
    try:
        images = torch.randn(settings.batch, *image, generator=generator)
        return images.to(device, DTYPES[settings.dtype], memory_format=settings.memory_format)
    except RuntimeError as error:
        raise ConfigError(
            f"A batch of {settings.batch} images of {image[1]}x{image[2]} pixels can't be made.",
            f"torch says: {str(error).splitlines()[0]}",
            "Give a smaller batch: --batch 8",
        ) from error


def _compiled(module: nn.Module, device: torch.device) -> Callable[[Tensor], object]:
    # Frozen weights let inductor fold batch norms and pack the weights of CPU convolutions.
    options: dict[str, str | int | bool | Callable[..., object]] = {"freezing": True}
    compiled: Callable[[Tensor], object] = torch.compile(
        module, dynamic=False, options=options if device.type == "cpu" else None
    )
    return compiled


@contextlib.contextmanager
def _compile_limit(networks: int) -> Iterator[None]:
    """Room for `networks` compiled forwards of one class: past dynamo's limit of 8 it runs eagerly.

    It would say nothing, and eager figures would stand under the title "compiled".
    """
    from torch._dynamo import config

    torch.compiler.reset()
    with config.patch(recompile_limit=networks + 8):
        yield


@contextlib.contextmanager
def threads_set(number: int | None) -> Iterator[None]:
    """Run with `number` threads of torch; None leaves the number as it is."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _peak(
    module: nn.Module, run: Callable[[Tensor], object], images: Tensor, device: torch.device
) -> int | None:
    """`Timing.peak_bytes` of `module`, whose prepared form is `run`."""
    if device.type == "mps":
        return None
    tensors = [*module.parameters(), *module.buffers()]
    # The prepared copy has all floating point tensors in the images' dtype.
    stored = sum(
        t.numel() * (images.itemsize if t.is_floating_point() else t.itemsize) for t in tensors
    )
    return stored + images.nbytes + _forward_peak(run, images, device)


def _forward_peak(run: Callable[[Tensor], object], images: Tensor, device: torch.device) -> int:
    """Measure the most bytes that one forward pass holds at once, beyond weights and images."""
    if device.type == "cuda":
        _synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run(images)
        _synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    from torch.profiler import ProfilerActivity, profile

    # Some builds of torch print kineto's trace points on stderr, into the table.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
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
