"""Latency, throughput and memory of any modules in any engines, interleaved in one process.

Knows nothing of the zoo: a `Subject` is a module, the shape of its images, and how it runs.
"""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from senetzoo.bench.device import MOST_THREADS, check_device, explained, synchronize, threads_set
from senetzoo.bench.memory import peak_bytes
from senetzoo.bench.spread import Ratio, Spread
from senetzoo.deploy.engines import DTYPES, LAYOUTS, Dtype, Layout, Runner, engine
from senetzoo.errors import ConfigError

# Of the random images; the values do not matter, as long as they are no denormal numbers.
_SEED = 0
# Images from which int8 takes its ranges. They are random too: the ranges decide what comes out,
# not how long it takes.
_CALIBRATION = 8


def _check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(
            f"{name}={value!r} can't be measured.", f"{name} is one of {', '.join(allowed)}."
        )


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Args:
        batch: Images in a batch.
        layout: ``"nchw"``, or ``"nhwc"``: torch's channels_last. Engines that lay out activations
            by themselves do so.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        threads: Threads on the CPU, of every engine; None for torch's number.
        rounds: Measured rounds; each runs one batch through every subject.
        warmup: Rounds before them that are not measured.
        seed: Of the order of the subjects within each round.

    Raises:
        ConfigError: A value that does not fit.
    """

    batch: int = 32
    layout: Layout = "nchw"
    device: str = "cpu"
    threads: int | None = None
    rounds: int = 20
    warmup: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"batch": 1, "rounds": 1, "warmup": 0, "threads": 1, "seed": 0}
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is None and name == "threads":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise ConfigError(
                    f"{name}={value!r} can't be measured.",
                    f"{name} is a whole number of at least {lowest}.",
                )
        if self.threads is not None and self.threads > MOST_THREADS:
            raise ConfigError(
                f"threads={self.threads!r} can't be measured.",
                f"threads is a whole number of at most {MOST_THREADS}.",
            )
        _check_choice("layout", self.layout, LAYOUTS)


@dataclass(frozen=True)
class Form:
    """How a network runs.

    Args:
        engine: A name of `senetzoo.deploy.engines.ENGINES`.
        dtype: Type of weights and activations.
        optimized: Whether it was rewritten by senetzoo first.

    Raises:
        ConfigError: There is no such engine, or it has no such dtype.
    """

    engine: str = "eager"
    dtype: Dtype = "fp32"
    optimized: bool = False

    def __post_init__(self) -> None:
        _check_choice("dtype", self.dtype, DTYPES)
        has = engine(self.engine).dtypes
        if self.dtype not in has:
            raise ConfigError(
                f"{self.engine} can't be measured in {self.dtype}.",
                f"It computes in {' and '.join(has)}.",
                f"Type: --dtype {has[0]}",
            )

    def __str__(self) -> str:
        """``"inductor, bf16, optimized"``."""
        return ", ".join([self.engine, self.dtype, *["optimized"] * self.optimized])


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Args:
        name: Its name in the result.
        module: Takes a batch of images and gives logits; it is copied, not changed.
        image: Shape (C, H, W) of one image.
        form: How it runs.
    """

    name: str
    module: nn.Module
    image: tuple[int, int, int]
    form: Form = Form()


@dataclass(frozen=True)
class Timing:
    """What was measured of one subject.

    Args:
        name: Of the subject.
        image: Shape (C, H, W) of one image.
        batch: Images in a batch.
        seconds: Of each round's batch, in the order of the rounds.
        peak_bytes: As `senetzoo.bench.memory.peak_bytes` says; None where it can't be told.
        form: How it ran.
    """

    name: str
    image: tuple[int, int, int]
    batch: int
    seconds: tuple[float, ...]
    peak_bytes: int | None
    form: Form = Form()

    @property
    def latency(self) -> Spread:
        """Seconds for a batch."""
        return Spread.of(self.seconds)

    @property
    def images_per_second(self) -> float:
        """The batch over its median latency."""
        return self.batch / self.latency.median

    def ratio(self, first: Timing) -> Ratio:
        """Throughput as a multiple of `first`'s, from the ratio within each round.

        Those in a round meet the same clock frequency and the same other load, so the ratios
        scatter less than the latencies.
        """
        pairs = zip(first.seconds, self.seconds, strict=True)
        return Ratio.of([theirs / own for theirs, own in pairs])


def measure(
    subjects: Sequence[Subject],
    settings: Settings,
    *,
    clock: Callable[[], float] = time.perf_counter,
    advance: Callable[[], None] = lambda: None,
) -> list[Timing]:
    """Time every subject, one batch of each in turn, round after round.

    The order is drawn anew for each round. In a fixed order each subject would always follow the
    same neighbour, and find the caches, the memory and the clock frequency as that one left them:
    a bias with the same sign in every round, which no number of rounds takes away. Rotating a
    fixed order would keep all neighbours but one.

    Modules run in eval mode, without gradients. Each does at least one untimed forward pass before
    the warm-up (where compilation happens), and one after the rounds for the memory.

    Args:
        subjects: What to measure.
        settings: How.
        clock: Seconds of a monotonic clock.
        advance: Called after each timed or warm-up forward pass; a progress bar's tick.

    Raises:
        ConfigError: The device is not to be had here, an engine or its dtype can't be used on it,
            or a module fails on its images.
        MissingExtraError: An engine's package is not installed.
    """
    device = check_device(settings.device, bf16=any(s.form.dtype == "bf16" for s in subjects))
    for subject in subjects:
        engine(subject.form.engine).check(device, subject.form.dtype)
    with threads_set(settings.threads):
        shapes = dict.fromkeys(subject.image for subject in subjects)
        batches = {shape: random_images(shape, settings.batch, device) for shape in shapes}
        running = [start(s, settings, batches[s.image]) for s in subjects]

        seconds: list[list[float]] = [[] for _ in subjects]
        order, draw = list(range(len(subjects))), random.Random(settings.seed)
        for number in range(settings.warmup + settings.rounds):
            draw.shuffle(order)
            for index in order:
                run, images = running[index], batches[subjects[index].image]
                synchronize(device)
                begun = clock()
                run(images)
                synchronize(device)
                ended = clock()
                if number >= settings.warmup:
                    seconds[index].append(ended - begun)
                advance()

        return [
            Timing(
                subject.name,
                subject.image,
                settings.batch,
                tuple(measured),
                peak_bytes(subject.module, run, batches[subject.image], subject.form),
                subject.form,
            )
            for subject, run, measured in zip(subjects, running, seconds, strict=True)
        ]


def start(subject: Subject, settings: Settings, images: Tensor) -> Runner:
    """Load a subject into its engine, which runs it once on `images`.

    Raises:
        ConfigError: The engine can't take it, or it fails on its images.
        MissingExtraError: The engine's package is not installed.
    """
    runs_in, form = engine(subject.form.engine), subject.form
    layout = settings.layout if settings.layout in runs_in.layouts else runs_in.layouts[0]
    calibration = None
    if form.dtype == "int8":
        calibration = random_images(subject.image, _CALIBRATION, torch.device("cpu"))
    with explained(subject.name, subject.image, settings.batch), warnings.catch_warnings():
        # That a processor only emulates bf16: the report says so once, not once per subject.
        warnings.simplefilter("ignore", RuntimeWarning)
        return runs_in.load(
            subject.module,
            images,
            form.dtype,
            layout=layout,
            threads=torch.get_num_threads(),
            calibration=calibration,
        )


def random_images(image: tuple[int, int, int], number: int, device: torch.device) -> Tensor:
    """Make `number` fp32 images, the same at each call.

    Raises:
        ConfigError: There is no memory for them.
    """
    generator = torch.Generator().manual_seed(_SEED)
    try:
        return torch.randn(number, *image, generator=generator).to(device)
    except RuntimeError as error:
        raise ConfigError(
            f"A batch of {number} images of {image[1]}x{image[2]} pixels can't be made.",
            f"torch says: {str(error).splitlines()[0]}",
            "Give a smaller batch: --batch 8",
        ) from error
