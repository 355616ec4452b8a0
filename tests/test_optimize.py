"""`senetzoo.optimize`: what it gives, reports and refuses."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from support.networks import message, relative_error, tiny
from torch import Tensor, nn

import senetzoo
from senetzoo._utils.environment import threads_set
from senetzoo.deploy import optimize as room
from senetzoo.deploy.engines import ENGINES
from senetzoo.deploy.engines.common import Engine, Request, Runner
from senetzoo.errors import ConfigError


def gated() -> nn.Module:
    model = tiny("bottleneck", depths=(1,))
    senetzoo.attach(model, senetzoo.SE(4), seed=0)
    return model.eval()


@pytest.fixture(autouse=True)
def short_races(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short, and without streams but where a test has them: as on a single core."""
    monkeypatch.setattr(room, "_SECONDS", 0.05)
    with threads_set(1):
        yield


def sample(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "inductor")) for n in ENGINES]
)
def test_each_engine_by_name(name: str) -> None:
    model, x = gated(), sample()
    fast = senetzoo.optimize(model, x, engine=name)
    assert fast.report.chosen.engine == name
    assert len(fast.report.rewrites.squeezed) == 1
    for count in (4, 1, 5):
        with torch.no_grad():
            expected = model(sample(count))
        assert relative_error(fast(sample(count)), expected) < 1e-4
    compared = fast.report.comparison
    assert compared is not None
    assert compared.error < 1e-4
    assert compared.agreement == 1.0
    assert compared.rounds >= 6
    assert compared.speedup.interval is not None


def slow(seconds: float, wrong: float = 0.0) -> Callable[[Request], Runner]:
    """An engine's start whose runner takes so long by the fake clock, and adds an error."""

    def start(request: Request) -> Runner:
        def run(images: Tensor) -> Tensor:
            clock.now += seconds
            with torch.no_grad():
                logits: Tensor = request.module(images) + wrong
            return logits

        return run

    return start


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


clock = Clock()


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace the engines and the clock."""

    def give(**starts: Callable[[Request], Runner]) -> None:
        made = {
            name: Engine(name, ("fp32", "bf16"), ("nchw",), ("cpu",), start)
            for name, start in starts.items()
        }
        monkeypatch.setattr(room, "ENGINES", made)

    monkeypatch.setattr(time, "perf_counter", clock)
    return give


def test_auto_takes_the_fastest_that_is_right(
    fakes: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_SECONDS", 2.0)
    fakes(slug=slow(0.5), hare=slow(0.125), liar=slow(0.0625, wrong=1.0))
    fast = senetzoo.optimize(gated(), sample())
    report = fast.report
    assert report.chosen.engine == "hare"
    slug, hare, liar = report.tried
    assert (slug.milliseconds, hare.milliseconds, liar.milliseconds) == (500.0, 125.0, None)
    # 2 seconds at 0.625 a round.
    assert (slug.rounds, hare.rounds, liar.rounds) == (4, 4, 0)
    assert liar.why.startswith(
        "The engine liar computes other logits than the network. They differ by"
    )
    text = str(report)
    assert "hare, fp32, nchw" in text
    assert "slug nchw: 500.00 (ready after 1 s)" in text


@pytest.mark.parametrize(
    ("images", "fastest", "part"), [(16, 4, 4), (16, 8, 8), (16, 16, None), (7, 4, 4), (6, 4, None)]
)
def test_parts_of_a_batch(
    fakes: Callable[..., None], images: int, fastest: int, part: int | None
) -> None:
    """Halves and quarters are tried; here up to `fastest` images at a time an image takes half."""
    sizes: list[int] = []

    def start(request: Request) -> Runner:
        def run(batch: Tensor) -> Tensor:
            sizes.append(len(batch))
            clock.now += len(batch) * (0.125 if len(batch) <= fastest < 16 else 0.25)
            clock.now += 1 / 64
            with torch.no_grad():
                logits: Tensor = request.module(batch)
            return logits

        return run

    fakes(hare=start)
    model = gated()
    fast = senetzoo.optimize(model, sample(images))
    assert fast.report.chosen.part == part
    assert (f"hare, fp32, nchw, 1 stream, {part} images at a time" in str(fast.report)) == (
        part is not None
    )
    sizes.clear()
    for count in (1, images, images + 1, 3 * images):
        with torch.no_grad():
            assert relative_error(fast(sample(count)), model(sample(count))) < 1e-4
    assert part is None or max(sizes) <= part
    # As even as can be: no small rest that would be compiled for itself.
    sizes.clear()
    fast(sample(images + 1))
    assert max(sizes) - min(sizes) <= 1


def test_modes(fakes: Callable[..., None]) -> None:
    """By the clock an image takes half the time in streams."""

    def start(request: Request) -> Runner:
        def run(images: Tensor) -> Tensor:
            clock.now += len(images) / (16 if request.streams > 1 else 8)
            with torch.no_grad():
                logits: Tensor = request.module(images)
            return logits

        return run

    model = gated()
    fakes(hare=start)

    def report(count: int, mode: Any = "auto") -> str:
        fast = senetzoo.optimize(model, sample(count), mode=mode)
        with torch.no_grad():
            assert relative_error(fast(sample(count)), model(sample(count))) < 1e-4
        return str(fast.report)

    with threads_set(2):
        both = report(3)
        assert "hare, fp32, nchw, 2 streams\n" in both
        assert "  hare nchw: 375.00" in both
        assert "  hare nchw, 2 streams: 187.50" in both
        assert report(3, "latency").startswith("hare, fp32, nchw, 1 stream\n")
        assert report(3, "throughput").startswith("hare, fp32, nchw, 2 streams\n")
        assert report(1, "throughput").startswith("hare, fp32, nchw, 1 stream\n")
    with threads_set(1):
        assert report(3, "throughput").startswith("hare, fp32, nchw, 1 stream\n")
    assert message(lambda: senetzoo.optimize(model, sample(), mode="fast"), ConfigError) == (  # type: ignore[arg-type]
        "There is no mode 'fast'.\nModes are latency, throughput, auto."
    )


def test_an_engine_that_is_not_there_is_not_tried(
    fakes: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes(here=slow(0.25), gone=slow(0.25))
    both = dict(vars(room)["ENGINES"])
    both["gone"] = replace(both["gone"], packages=("no_such_package",), extra="none")
    monkeypatch.setattr(room, "ENGINES", both)
    assert [way.engine for way in senetzoo.optimize(gated(), sample()).report.tried] == ["here"]
    monkeypatch.setattr(room, "ENGINES", {"gone": both["gone"]})
    assert message(lambda: senetzoo.optimize(gated(), sample()), ConfigError).splitlines()[0] == (
        "No engine computes in 'fp32' on the device 'cpu' here."
    )


def test_every_engine_wrong(fakes: Callable[..., None]) -> None:
    fakes(one=slow(0.25, wrong=1.0), two=slow(0.25, wrong=2.0))
    with pytest.raises(
        ConfigError, match=r"^No engine can run this network\.\none: The engine one"
    ):
        senetzoo.optimize(gated(), sample())


def test_auto_for_real() -> None:
    least = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 5)).eval()
    fast = senetzoo.optimize(least, sample(), compare=False)
    ways = [(way.engine, way.layout) for way in fast.report.tried]
    assert ways == [
        ("eager", "nchw"), ("eager", "nhwc"), ("inductor", "nhwc"), ("onnxruntime", "nchw"),
        ("openvino", "nchw"),
    ]  # fmt: skip
    assert all(way.milliseconds for way in fast.report.tried)
    assert fast.report.comparison is None
    best = min(fast.report.tried, key=lambda way: way.milliseconds or 0)
    assert fast.report.chosen == best


def test_the_network_stays_as_it_is() -> None:
    model = gated().train()
    before = copy.deepcopy(model.state_dict())
    fast = senetzoo.optimize(model, sample(), engine="eager")
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert fast(sample()).std() > 0


def test_it_is_a_network_in_eval_mode() -> None:
    fast = senetzoo.optimize(gated(), sample(), engine="eager")
    assert not fast.training
    assert fast.eval() is fast
    assert not fast(sample()).requires_grad
    assert repr(fast) == "Optimized(engine='eager', dtype='fp32', layout='nhwc', streams=1)"
    assert message(lambda: fast.train(), ConfigError) == (
        "An optimized network can't be trained.\n"
        "Its norms are folded and its graph is fixed.\n"
        "Train the original network, and optimize it again"
    )


def test_a_wrong_sample() -> None:
    """What else is none, tests of engines say."""
    images = torch.zeros(3, 16, 16)
    assert message(lambda: senetzoo.optimize(gated(), images), ConfigError) == (
        "optimize got a tensor of shape (3, 16, 16) as sample.\n"
        "It takes float32 images of shape (number, channels, height, width), at least one.\n"
        "Type for example: torch.randn(1, 3, 224, 224)"
    )


def test_a_sample_that_the_network_fails_on() -> None:
    gray = torch.randn(2, 1, 16, 16)
    for model in (gated(), nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())):
        said = message(partial(senetzoo.optimize, model, gray), ConfigError)
        assert "(2, 1, 16, 16)" in said
        assert "export" not in said


def test_noise_is_no_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    report = senetzoo.optimize(gated(), sample(), engine="eager", compare=False).report
    monkeypatch.setattr(time, "perf_counter", clock)
    seconds = itertools.cycle([0.01, 0.04, 0.02])

    def run(images: Tensor) -> Tensor:
        clock.now += next(seconds)
        return images.mean((2, 3))

    found = room._compared(run, run, sample(), sample().mean((2, 3)))
    assert found.speedup.differs is False
    assert " no difference, " in str(replace(report, comparison=found))


def test_a_wrong_engine_and_a_network_that_is_no_graph() -> None:
    with pytest.raises(ConfigError, match=r"^There is no engine 'opnvino'"):
        senetzoo.optimize(gated(), sample(), engine="opnvino")

    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ConfigError, match=r"^The network Branches can't be exported\."):
        senetzoo.optimize(Branches(), sample(), engine="eager")


def test_batches_of_many_sizes_agree() -> None:
    model = gated()
    fast = senetzoo.optimize(model, sample(1), engine="eager", compare=False)
    for count, order in itertools.product(
        (1, 2, 7), (torch.contiguous_format, torch.channels_last)
    ):
        x = sample(count).to(memory_format=order)
        with torch.no_grad():
            assert relative_error(fast(x), model(x)) < 1e-5
