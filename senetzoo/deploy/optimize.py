"""`optimize`: rewrite a trained network, choose the fastest engine, and compare them."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, fx, nn

from senetzoo._utils.environment import synchronize
from senetzoo.deploy import kernels
from senetzoo.deploy.engines import ENGINES, Dtype, Engine, Layout, Runner
from senetzoo.deploy.engines import engine as engine_called
from senetzoo.deploy.engines.common import check_batch
from senetzoo.deploy.fuse import fused
from senetzoo.deploy.rewrite import Rewrites, rewritten
from senetzoo.errors import ConfigError, SenetzooError, explained, nearest
from senetzoo.eval.spread import LEAST_ROUNDS, Spread
from senetzoo.nn.modes import TORCH_DTYPES

Mode: TypeAlias = Literal["latency", "throughput", "auto"]

# Largest rounding error of fp32 with sums in another order, relative to the largest logit.
_FP32 = 1e-3
# Numbers of parts to try for a batch, and the fewest images in a part.
_PARTS = (2, 4)
_LEAST = 4
# Seconds for timing all candidates, and the original with the chosen one.
_SECONDS = 2.0


@dataclass(frozen=True)
class Tried:
    """One way to run the network.

    Args:
        engine: Name of the engine.
        layout: Memory layout of the images and maps.
        milliseconds: Median for a batch like the sample; None if it can't be used.
        rounds: Number of batches that were timed.
        prepared: Seconds until it was ready, including compilation.
        streams: Parts of a batch that run at the same time, each on its share of the threads.
        part: Maximum number of images that are run at a time; None for the whole batch.
        why: Why it can't be used; empty if it can.
        tails: Blocks whose last convolution is one operator with its gate, sum and activation.
    """

    engine: str
    layout: Layout
    milliseconds: float | None
    rounds: int
    prepared: float
    streams: int = 1
    part: int | None = None
    why: str = ""
    tails: int = 0

    @property
    def how(self) -> str:
        """What it does besides engine and layout, to append to a line."""
        tails = f", {self.tails} tails in one operator each" if self.tails else ""
        streams = f", {self.streams} streams" if self.streams > 1 else ""
        return tails + streams + ("" if self.part is None else f", {self.part} images at a time")


@dataclass(frozen=True)
class Comparison:
    """Comparison of the optimized network with the original on the sample.

    Args:
        error: Largest difference between the logits, relative to the original's largest, both in
            fp32 unless the optimized network has another dtype.
        agreement: Fraction of the images for which both predict the same class.
        speedup: Ratio of the times of the original (eager torch, unchanged) and the optimized
            network, which run the same batch in turn.
        rounds: Number of batches of each.
    """

    error: float
    agreement: float
    speedup: Spread
    rounds: int


@dataclass(frozen=True)
class Report:
    """What `optimize` did.

    Args:
        dtype: Type of weights and activations.
        chosen: The candidate that was chosen.
        tried: All candidates, including the chosen one.
        rewrites: What was changed in the graph.
        comparison: Comparison with the original; None without ``compare``.
    """

    dtype: Dtype
    chosen: Tried
    tried: tuple[Tried, ...]
    rewrites: Rewrites
    comparison: Comparison | None

    def __str__(self) -> str:
        done, chosen = self.rewrites, self.chosen
        lines = [
            f"{chosen.engine}, {self.dtype}, {chosen.layout}"
            + (", 1 stream" if chosen.streams == 1 else "")
            + chosen.how,
            f"batch norms folded: {done.folded}" + (f", {done.norms} stay" if done.norms else ""),
            *([f"convolutions folded into parallel ones: {done.branches}"] * bool(done.branches)),
            f"gates that read the input of the convolution before them: {len(done.squeezed)}",
        ]
        lines += [f"  {path} not: {why}" for path, why in done.left]
        if len(self.tried) > 1:
            lines.append("tried, milliseconds per batch:")
            lines += [
                f"  {way.engine} {way.layout}{way.how}: "
                + (
                    f"{way.milliseconds:.2f} (ready after {way.prepared:.0f} s)"
                    if way.milliseconds is not None
                    else way.why
                )
                for way in self.tried
            ]
        if self.comparison is not None:
            lines += [
                f"speed ratio to the original [95 %]: {self.comparison.speedup}, "
                f"{self.comparison.rounds} rounds",
                f"logits differ by {self.comparison.error:.1e} of the largest; the same class for "
                f"{self.comparison.agreement:.1%} of the sample",
            ]
        return "\n".join(lines)


class Optimized(nn.Module):
    """The result of `optimize`, which is called like the original network.

    It has no parameters to train or save; keep the original network for that, and write files with
    ``senetzoo export``. Its ``report`` describes what was done.
    """

    def __init__(self, run: Runner, report: Report) -> None:
        super().__init__()
        self._run = run
        self.report = report
        self.training = False

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of fp32 images (N, C, H, W) of the sample's size, without gradient.

        Raises:
            ConfigError: The images have another size, type or device.
        """
        return self._run(images)

    def train(self, mode: bool = True) -> Optimized:
        """Raise if `mode` is true: training isn't possible, because gates and norms are folded.

        Raises:
            ConfigError: `mode` is true.
        """
        if mode:
            raise ConfigError(
                "An optimized network can't be trained.",
                "Its norms are folded and its graph is fixed.",
                "Train the original network, and optimize it again",
            )
        return self

    def __deepcopy__(self, memo: object) -> Optimized:
        return Optimized(self._run, self.report)

    def __reduce__(self) -> str:
        raise ConfigError(
            "An optimized network can't be pickled or sent to another process.",
            "What its engine compiled is bound to this process.",
            "Send the original network, and call senetzoo.optimize there",
        )

    def extra_repr(self) -> str:
        chosen = self.report.chosen
        return (
            f"engine={chosen.engine!r}, dtype={self.report.dtype!r}, layout={chosen.layout!r}, "
            f"streams={chosen.streams}"
        )


def optimize(
    model: nn.Module,
    sample: Tensor,
    *,
    engine: str = "auto",
    mode: Mode = "auto",
    dtype: Dtype = "fp32",
    calibration: Tensor | None = None,
    compare: bool = True,
) -> Optimized:
    """Make a trained network as fast as possible on this machine, without changing its function.

    The outputs differ only by the rounding of `dtype`.

    Batch norms are folded, gates after a convolution read its smaller input, and an engine runs
    the graph. With torch's own engines the tails of residual branches also become one operator
    each (`senetzoo.deploy.tail`) if that is faster. `model` is not changed.

    Args:
        model: Network from fp32 images (N, C, H, W) to logits (N, classes), from any library.
        sample: fp32 images (N, C, H, W) of the size and on the device to run with, ideally a whole
            batch, because engines are chosen by their time for it. Preprocessed real images make
            the comparison meaningful.
        engine: ``"eager"``, ``"inductor"``, ``"onnxruntime"``, ``"openvino"``, or ``"auto"``: all
            that are available are prepared and then timed in turn for two seconds, and the fastest
            is used.
        mode: How the CPU cores share a batch. ``"latency"``: all of them work on one image or part
            after the other. ``"throughput"``: each of torch's threads has its own part.
            ``"auto"``: the engine is chosen with ``"latency"``, then the faster of the two for the
            sample is used. On other devices every mode is ``"latency"``.
        dtype: Type of weights and activations. Measure on your data how much accuracy bf16 and
            int8 cost.
        calibration: A few hundred images like the sample's, to calibrate int8; None for the sample
            itself.
        compare: Whether to compare speed and logits with those of `model`, and for a named engine,
            whether to also try other ways to share and split a batch on a CPU, which
            ``engine="auto"`` always does: halves and quarters of the sample, whose maps may fit the
            caches.

    Returns:
        A module that is called like `model`; its ``report`` describes what was done and measured.

    Raises:
        ConfigError: An argument is invalid, the network can't be traced, or no engine can run it;
            in fp32, also if the outputs differ by more than rounding.
        MissingExtraError: A named engine is not installed.
    """
    check_batch("optimize", "sample", sample)
    named, modes = _ways(engine, dtype, sample), get_args(Mode)
    if mode not in modes:
        raise ConfigError(
            f"There is no mode {mode!r}.", f"Modes are {', '.join(modes)}.", nearest(mode, modes)
        )
    # Each stream has at least one image of the sample.
    most = min(torch.get_num_threads(), len(sample)) if sample.device.type == "cpu" else 1
    original = copy.deepcopy(model).eval().requires_grad_(False)
    asked = f"The network {type(model).__name__} fails on a sample of shape {tuple(sample.shape)}."
    failing = explained(asked, "It", "Give images like those to come")
    with failing, torch.inference_mode():
        expected = original(sample)
    graph, rewrites = rewritten(model, sample)
    ways, squeezed = _with_tails(named, graph, dtype, sample)
    ready: dict[int, Runner] = {}
    tried: list[Tried] = []

    def attempt(
        kind: Engine,
        layout: Layout,
        form: fx.GraphModule,
        tails: int,
        streams: int,
        *,
        needed: bool,
    ) -> None:
        start, why = time.perf_counter(), ""
        try:
            if tails:
                kernels.check(TORCH_DTYPES[dtype], sample.device)
            run = kind.load(
                form,
                sample,
                dtype,
                layout=layout,
                streams=streams,
                calibration=sample if calibration is None else calibration,
            )
            error = _error(run(sample), expected)
            if dtype == "fp32" and not error < _FP32:
                raise ConfigError(
                    f"The engine {kind.name} computes other logits than the network.",
                    f"They differ by {error:.1e} of the largest.",
                    "Use another engine: engine='eager'",
                )
            ready[len(tried)] = run
        except SenetzooError as refusal:
            if needed:
                raise
            why = " ".join(str(refusal).splitlines())
        prepared = time.perf_counter() - start
        tried.append(Tried(kind.name, layout, None, 0, prepared, streams, why=why, tails=tails))

    for way in ways:
        needed = len(named) == 1 and not way[-1]
        attempt(*way, most if mode == "throughput" else 1, needed=needed)
    if not ready:
        raise ConfigError(
            "No engine can run this network.",
            "; ".join(f"{way.engine}: {way.why}" for way in tried),
            "Use the network as it is",
        )
    best = _fastest(ready, tried, sample)
    ready = {best: ready[best]}
    worth = sample.device.type == "cpu" and (engine == "auto" or compare)
    if worth and mode == "auto" and most > 1:
        attempt(*ways[best], most, needed=False)
        best = _fastest(ready, tried, sample)
        ready = {best: ready[best]}
    # More of a small part fits in the CPU caches.
    sizes = [-(-len(sample) // parts) for parts in _PARTS if worth]
    for part in [size for size in sizes if size >= _LEAST * tried[best].streams]:
        start, run = time.perf_counter(), _in_parts(ready[best], part)
        run(sample)
        ready[len(tried)] = run
        prepared = time.perf_counter() - start
        tried.append(replace(tried[best], milliseconds=None, prepared=prepared, part=part))
    if len(ready) > 1:
        best = _fastest(ready, tried, sample)
    comparison = _compared(original, ready[best], sample, expected) if compare else None
    if tried[best].tails:
        rewrites = rewrites.also_squeezed(squeezed)
    report = Report(dtype, tried[best], tuple(tried), rewrites, comparison)
    return Optimized(ready[best], report)


def _ways(name: str, dtype: Dtype, sample: Tensor) -> list[tuple[Engine, Layout]]:
    """Engines and layouts to try."""
    if name != "auto":
        kind = engine_called(name)
        kind.check(sample.device, dtype)
        return [(kind, kind.layouts[-1])]
    reasons = {kind: kind.missing(sample.device, dtype) for kind in ENGINES.values()}
    if all(reasons.values()):
        raise ConfigError(
            f"No engine computes in {dtype!r} on the device '{sample.device}' here.",
            " ".join(reasons.values()),
            "Give another dtype, or install an engine",
        )
    # Inductor chooses the layout between convolutions itself, and takes long to compile.
    return [
        (kind, layout)
        for kind, reason in reasons.items()
        if not reason
        for layout in (kind.layouts if kind.name == "eager" else kind.layouts[-1:])
    ]


def _with_tails(
    ways: list[tuple[Engine, Layout]], graph: fx.GraphModule, dtype: Dtype, sample: Tensor
) -> tuple[list[tuple[Engine, Layout, fx.GraphModule, int]], frozenset[str]]:
    """Add variants with the network's residual tails as single operators, where that is possible.

    Each one has the graph for the engine, and the number of tails that are operators in it. In
    these variants more gates read the input of the convolution before them: their names.
    """
    able = [way for way in ways if way[0].operators and way[1] == "nhwc"]
    given = [(*way, graph, 0) for way in ways]
    if not able or sample.device.type not in ("cpu", "cuda"):
        return given, frozenset()
    form, tails, squeezed = fused(graph, TORCH_DTYPES[dtype])
    return given + [(*way, form, tails) for way in able if tails], squeezed


def _fastest(ready: Mapping[int, Runner], tried: list[Tried], sample: Tensor) -> int:
    """Time the runners, record it in `tried`, and return the index of the fastest."""
    times = _race(ready, sample)
    for number, seconds in times.items():
        tried[number] = replace(
            tried[number], milliseconds=statistics.median(seconds) * 1e3, rounds=len(seconds)
        )
    return min(times, key=lambda number: statistics.median(times[number]))


def _in_parts(run: Runner, most: int) -> Runner:
    """`run` on parts of at most `most` images, whose sizes differ by at most one."""

    def part_by_part(images: Tensor) -> Tensor:
        count = -(-len(images) // most)
        if count < 2:
            return run(images)
        return torch.cat([run(part) for part in images.tensor_split(count)])

    return part_by_part


def _error(logits: Tensor, expected: Tensor) -> float:
    return ((logits - expected).abs().max() / expected.abs().max()).item()


def _race(runners: Mapping[int, Runner], sample: Tensor, least: int = 3) -> dict[int, list[float]]:
    """Time a batch of each in turn, for `_SECONDS` in total and at least `least` rounds."""
    seconds: dict[int, list[float]] = {number: [] for number in runners}
    with torch.inference_mode():
        for run in runners.values():
            run(sample)
        began = time.perf_counter()
        rounds = 0
        while rounds < least or time.perf_counter() - began < _SECONDS:
            for number, run in runners.items():
                synchronize(sample.device)
                start = time.perf_counter()
                run(sample)
                synchronize(sample.device)
                seconds[number].append(time.perf_counter() - start)
            rounds += 1
    return seconds


def _compared(original: Runner, optimized: Runner, sample: Tensor, expected: Tensor) -> Comparison:
    times = _race({0: original, 1: optimized}, sample, LEAST_ROUNDS)
    ratios = [before / after for before, after in zip(times[0], times[1], strict=True)]
    logits = optimized(sample)
    same = (logits.argmax(1) == expected.argmax(1)).double().mean().item()
    return Comparison(_error(logits, expected), same, Spread.of(ratios), len(ratios))
