from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from support.networks import message
from torch import Tensor, nn

from senetzoo._utils import environment
from senetzoo._utils.environment import check_device
from senetzoo.bench.timing import Backend, BenchmarkCase, Settings, Timing, measure
from senetzoo.errors import ConfigError


class Clock:
    """A clock that stands still but for what the fakes add."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def __deepcopy__(self, memo: object) -> Clock:
        return self  # `measure` copies modules; the copies share the clock


class Fake(nn.Module):
    """Says its name when called and takes the next of its durations."""

    def __init__(self, say: Callable[[], None], clock: Clock, seconds: Sequence[float]) -> None:
        super().__init__()
        self.say = say
        self.clock = clock
        self.seconds = iter(seconds)

    def forward(self, x: Tensor) -> Tensor:
        self.say()
        self.clock.now += next(self.seconds, 0.0)
        return x


def _fakes(**seconds: Sequence[float]) -> tuple[list[str], Clock, list[BenchmarkCase]]:
    said: list[str] = []
    clock = Clock()
    cases = [
        BenchmarkCase(name, Fake(lambda name=name: said.append(name), clock, durations), (1, 2, 2))  # type: ignore[misc]
        for name, durations in seconds.items()
    ]
    return said, clock, cases


def test_networks_run_in_turn_round_after_round() -> None:
    said, clock, cases = _fakes(a=[], b=[], c=[])
    ticks: list[None] = []
    measure(
        cases,
        Settings(batch=1, rounds=30, warmup=2),
        clock=clock,
        advance=lambda: ticks.append(None),
    )
    first_pass, memory = said[:3], said[-3:]
    assert first_pass == memory == ["a", "b", "c"]
    rounds = ["".join(said[start : start + 3]) for start in range(3, 3 + 3 * 32, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(ticks) == 3 * 32 == len(said) - 6
    # Every order occurs, so that nobody always follows the same neighbor.
    assert len(set(rounds)) == 6


def test_order_of_the_rounds_is_the_seeds() -> None:
    orders = []
    for seed in (0, 0, 1):
        said, clock, cases = _fakes(a=[], b=[], c=[])
        measure(cases, Settings(batch=1, rounds=10, seed=seed), clock=clock)
        orders.append(said)
    assert orders[0] == orders[1] != orders[2]


def test_a_slow_neighbor_does_not_stick_to_anybody() -> None:
    """Who follows the case that spoils the caches takes longer: over the rounds all do alike."""
    said, clock, cases = _fakes(spoils=[], b=[], c=[])
    measure(cases, Settings(batch=1, rounds=300, warmup=0), clock=clock)
    pairs = itertools.pairwise(said[3:-3])
    followers = Counter(after for before, after in pairs if before == "spoils")
    assert abs(followers["b"] - followers["c"]) < 60
    assert followers.total() > 200


def test_only_rounds_after_the_warm_up_count() -> None:
    #     first pass, one round of warm-up, three rounds, memory
    _, clock, cases = _fakes(a=[90, 80, 2, 3, 4, 70], b=[90, 80, 4, 12, 8, 70])
    plain, other = measure(cases, Settings(batch=6, rounds=3, warmup=1), clock=clock)
    assert plain.seconds == (2, 3, 4)
    assert other.seconds == (4, 12, 8)
    assert plain.latency.median == 3
    assert plain.images_per_second == 2
    assert len(repr(plain).splitlines()) == 1  # without the network
    # Paired: 2/4, 3/12, 4/8. The ratio of the medians would be 3/8.
    ratio = other.ratio(plain)
    assert ratio.median == 0.5
    assert ratio.p10 == pytest.approx(0.3)
    assert ratio.p90 == 0.5


class Look(nn.Module):
    """Keeps what it saw in a list that its copies share."""

    def __init__(self, seen: Callable[[Look, Tensor], None]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.seen = seen

    def forward(self, x: Tensor) -> Tensor:
        self.seen(self, x)
        return self.conv(x)  # type: ignore[no-any-return]


def test_measured_copies_have_the_settings_and_the_original_keeps_its_own() -> None:
    seen: list[tuple[object, ...]] = []

    def look(module: Look, x: Tensor) -> None:
        nhwc = x.is_contiguous(memory_format=torch.channels_last)
        inference = torch.is_inference_mode_enabled()
        seen.append(
            (tuple(x.shape), x.dtype, nhwc, module.conv.weight.dtype, module.training, inference)
        )

    module, threads = Look(look), torch.get_num_threads()
    settings = Settings(batch=2, layout="nhwc", threads=threads + 1, rounds=1, warmup=0)
    measure([BenchmarkCase("look", module, (3, 5, 7), Backend(dtype="bf16"))], settings)
    assert set(seen) == {((2, 3, 5, 7), torch.bfloat16, True, torch.bfloat16, False, True)}
    assert module.training
    assert module.conv.weight.dtype == torch.float32
    assert torch.get_num_threads() == threads


class TwoTensors(nn.Module):
    """Holds two tensors of its input's size at once, then one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1000))

    def forward(self, x: Tensor) -> Tensor:
        first = x * 2
        second = first + 1
        del first
        return second.relu_()


@pytest.mark.parametrize(("dtype", "bytes_each"), [("fp32", 4), ("bf16", 2)])
def test_peak_memory_of_known_allocations(dtype: Any, bytes_each: int) -> None:
    settings = Settings(batch=2, rounds=1, warmup=0)
    (timing,) = measure(
        [BenchmarkCase("two", TwoTensors(), (3, 64, 64), Backend(dtype=dtype))], settings
    )
    batch = 2 * 3 * 64 * 64
    converted = 0 if dtype == "fp32" else batch * bytes_each
    known = (1000 + 2 * batch) * bytes_each + converted + batch * 4  # images come in fp32
    assert timing.peak_bytes is not None
    assert 0 <= timing.peak_bytes - known <= 64  # torch makes a tensor of the scalar, too


def test_a_network_that_fails_says_on_what() -> None:
    case = BenchmarkCase("narrow", nn.Conv2d(3, 1, 9), (3, 4, 4))
    assert message(lambda: measure([case], Settings(batch=2, rounds=1)), ConfigError) == (
        "narrow fails on images of shape 2x3x4x4.\n"
        "torch says: Calculated padded input size per channel: (4 x 4). Kernel size: (9 x 9). "
        "Kernel size can't be greater than actual input size\n"
        "Give another size or a smaller batch: --size 224 --batch 8"
    )


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"batch": 0}, "bench got batch=0.\nbatch is a whole number of at least 1."),
        ({"batch": 1.5}, "bench got batch=1.5.\nbatch is a whole number of at least 1."),
        ({"rounds": 0}, "bench got rounds=0.\nrounds is a whole number of at least 1."),
        ({"warmup": -1}, "bench got warmup=-1.\nwarmup is a whole number of at least 0."),
        ({"threads": 0},
         "bench got threads=0.\nthreads is a whole number from 1 to 1024 or None."),
        ({"seed": -1}, "bench got seed=-1.\nseed is a whole number of at least 0."),
        ({"layout": "chwn"}, "bench got layout='chwn'.\nlayout is one of 'nchw', 'nhwc'."),
    ],
)  # fmt: skip
def test_wrong_settings(wrong: dict[str, Any], text: str) -> None:
    assert message(lambda: Settings(**wrong), ConfigError).startswith(f"{text}\n")


@pytest.mark.parametrize("device", ["gpu", "meta", "cpu:x"])
def test_unknown_device(device: str) -> None:
    assert (
        message(lambda: check_device(device), ConfigError)
        == f"There is no device {device!r}.\nThe devices are cpu, cuda, mps."
    )


def test_absent_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert message(lambda: check_device("cuda:1"), ConfigError) == (
        "The device 'cuda:1' is not available.\n"
        f"torch {torch.__version__} sees 0 cuda devices here.\n"
        "Type: --device cpu"
    )


def test_device_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(environment, "_convolves", lambda place, dtype: dtype == torch.float32)
    assert message(lambda: check_device("cuda", bf16=True), ConfigError) == (
        "The device 'cuda' can't compute in bf16.\n"
        f"torch {torch.__version__} has no bf16 convolution for it.\n"
        "Type: --dtype fp32"
    )


def test_ratio_needs_the_same_rounds() -> None:
    case = BenchmarkCase("a", nn.Identity(), (1, 1, 1))
    one = Timing(case, Settings(), (1.0, 2.0), None)
    other = Timing(case, Settings(), (1.0,), None)
    with pytest.raises(ValueError, match="shorter"):
        other.ratio(one)
