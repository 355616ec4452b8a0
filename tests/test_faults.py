"""Regression tests for faults of version 0.1.0.

For races, threads are held at the moment that decides them.
"""

from __future__ import annotations

import copy
import io
import json
import multiprocessing
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image, features
from support.images import file_of
from support.runs import after_step, press_ctrl_c
from torch import Tensor, nn
from torch.utils.data import DataLoader

import senetzoo
from senetzoo import SE
from senetzoo._utils.terminal import say_once
from senetzoo.cli import main
from senetzoo.data.files import read_image_folder
from senetzoo.data.images import open_image
from senetzoo.deploy.export import export
from senetzoo.errors import ConfigError, SenetzooError
from senetzoo.eval.data import read_images
from senetzoo.eval.predict import predict
from senetzoo.inspect import excitations
from senetzoo.inspect.evidence import evidence
from senetzoo.io import hub
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.counting import count
from senetzoo.nn.preprocessing import CIFAR10
from senetzoo.nn.provenance import provenance
from senetzoo.train import batches, evaluate

T = TypeVar("T")
U = TypeVar("U")

# Seconds that a thread is held for another one, which may be waiting for it.
HELD = 1.0
CPU = torch.device("cpu")


def at_once(function: Callable[[T], U], values: Iterable[T], threads: int) -> list[U]:
    """Results of `function` for each of `values`, computed by several threads."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, values))


class Meeting:
    """A barrier at which two threads wait for each other, for a limited time."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2)

    def __call__(self, *_: object) -> None:
        # It breaks if a lock keeps the other thread out; then nothing is shared.
        with suppress(threading.BrokenBarrierError):
            self._barrier.wait(HELD)


class Overlap:
    """Hold the first of two calls until the second has started, and the second until the end."""

    def __init__(self) -> None:
        self.first, self.second, self.over = (threading.Event() for _ in range(3))
        self._lock = threading.Lock()

    def __call__(self, *_: object) -> None:
        with self._lock:
            is_first = not self.first.is_set()
            self.first.set()
        if is_first:
            self.second.wait(HELD)
        else:
            self.second.set()
            self.over.wait(HELD)

    def calls(self, function: Callable[[], object]) -> None:
        """Call `function` in two threads, starting the second when the first is held."""
        with ThreadPoolExecutor(2) as pool:
            one = pool.submit(function)
            assert self.first.wait(60)
            two = pool.submit(function)
            one.result(60)
            self.over.set()
            two.result(60)


# --- State that is shared between calls ----------------------------------------------------------


@pytest.mark.parametrize("engine", ["eager", "onnxruntime", "openvino"])
def test_an_optimized_network_gives_each_thread_its_own_logits(engine: str) -> None:
    if engine != "eager":
        pytest.importorskip(engine)
    net = senetzoo.create("resnet20", seed=0, num_classes=10).eval()
    # Many, because a call may end before the next one starts.
    images = [torch.randn(1, 3, 32, 32) for _ in range(64)]
    fast = senetzoo.optimize(net, images[0], engine=engine, compare=False)
    alone = [fast(x) for x in images]
    for a, b in zip(alone, at_once(fast, images, 8), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-4)


def _evidence(net: nn.Module, x: Tensor) -> Tensor:
    found: Any = evidence(net, x, senetzoo.transforms(net))  # type: ignore[arg-type]
    return torch.cat([gate.mean for gate in found.gates.values()])


def _excitations(net: nn.Module, x: Tensor) -> Tensor:
    found = excitations(net, [(x[None], torch.tensor([0]))], classes=1)
    return torch.cat([gate.mean for gate in found.values()])


@pytest.mark.parametrize("look", [_evidence, _excitations])
def test_gates_are_seen_on_the_images_of_the_thread(
    look: Callable[[nn.Module, Tensor], Tensor],
) -> None:
    net = senetzoo.create("se_resnet20", pretrained=True)
    images = [torch.randn(3, 32, 32), torch.randn(3, 32, 32)]
    alone = [look(net, x) for x in images]
    assert not torch.allclose(alone[0], alone[1])
    # Both threads start before one computes, and have computed before one continues.
    meeting = Meeting()
    net.register_forward_pre_hook(meeting)
    net.register_forward_hook(meeting)
    together = at_once(lambda x: look(net, x), images, 2)
    for a, b in zip(alone, together, strict=True):
        torch.testing.assert_close(b, a)


def test_a_seed_means_the_same_network_in_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(_: object) -> list[Tensor]:
        return list(senetzoo.create("resnet20", seed=0).state_dict().values())

    alone, meeting, plain = make(0), Meeting(), nn.init.kaiming_normal_

    def draw(*args: Any, **options: Any) -> Tensor:
        meeting()
        return plain(*args, **options)

    monkeypatch.setattr(nn.init, "kaiming_normal_", draw)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for together in at_once(make, range(2), 2):
        assert all(map(torch.equal, alone, together))
    assert torch.equal(torch.get_rng_state(), before)


def test_predict_leaves_a_network_in_training_as_it_is() -> None:
    net = senetzoo.create("resnet20", seed=0, num_classes=10).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    images = list((torch.rand(4, 3, 32, 32) * 255).byte())
    overlap = Overlap()
    net.register_forward_pre_hook(overlap)
    overlap.calls(lambda: predict(net, images))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(module.training for module in net.modules())


def test_a_network_created_in_inference_mode_learns() -> None:
    with torch.inference_mode():
        net = senetzoo.create("resnet20+se4@pre", seed=0)
    net(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_weights_on_the_meta_device_are_refused() -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match="outside of torch"):
        senetzoo.create("se_resnet20", pretrained=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_preprocessing_does_not_depend_on_the_default_dtype(dtype: torch.dtype) -> None:
    image = torch.from_numpy(np.asarray(noise(40, 40)).copy()).permute(2, 0, 1)
    right = CIFAR10(image)
    torch.set_default_dtype(dtype)
    try:
        assert torch.equal(CIFAR10(image), right)
        assert torch.equal(CIFAR10.pixels(right), CIFAR10.pixels(CIFAR10(image)))
    finally:
        torch.set_default_dtype(torch.float32)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(torch.randint(0, 256, (height, width, 3)).byte().numpy())


def held_in_open(monkeypatch: pytest.MonkeyPatch, hold: Callable[[], object]) -> None:
    """Call `hold` whenever senetzoo is reading an image."""
    plain = Image.open

    def held(*args: Any, **options: Any) -> Any:
        hold()
        return plain(*args, **options)

    monkeypatch.setattr(Image, "open", held)


def test_opening_images_leaves_the_filters_of_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of(noise(8, 8), "PNG")
    with warnings.catch_warnings():
        before = list(warnings.filters)
        overlap = Overlap()
        held_in_open(monkeypatch, overlap)
        overlap.calls(lambda: open_image(data))
        assert list(warnings.filters) == before


def test_a_large_image_of_the_user_opens_while_senetzoo_reads_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small, large = file_of(noise(8, 8), "PNG"), file_of(noise(12, 12), "PNG")
    opened: list[Future[tuple[int, int]]] = []
    plain = Image.open
    # 144 pixels: Pillow warns above this limit, and refuses above twice as many.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)

    def user() -> tuple[int, int]:
        return plain(io.BytesIO(large)).size

    def ask() -> None:
        opened.append(other.submit(user))
        opened[-1].exception(60)

    with ThreadPoolExecutor(1) as other, warnings.catch_warnings():
        warnings.simplefilter("always")
        held_in_open(monkeypatch, ask)
        open_image(small)
    assert [call.result() for call in opened] == [(12, 12)]


# --- Runs ----------------------------------------------------------------------------------------


def pictures(root: Path, classes: str, count: int = 8, side: int = 32) -> Path:
    """Class folders of noise under train and val."""
    for split in ("train", "val"):
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise(side, side).save(folder / f"{number}.png")
    return root


FOLDER = (
    *("train", "cifar_small", "--no-compile", "--workers", "0", "--set", "data=folder"),
    *("--set", "model=lenet", "--set", "restart_epochs=0", "--set", "batch=8"),
)


@pytest.fixture
def typed() -> Iterator[Callable[..., Result]]:
    """Runs a command in this process, and restores torch's settings."""
    threads = torch.get_num_threads()

    def run(*arguments: str | Path) -> Result:
        return CliRunner().invoke(main, [str(word) for word in arguments])

    yield run
    torch.set_num_threads(threads)


def test_a_finished_run_is_not_that_of_other_data(
    tmp_path: Path, typed: Callable[..., Result]
) -> None:
    pictures(tmp_path / "A", "ab")
    pictures(tmp_path / "B", "xy")
    command = (*FOLDER, "--out", tmp_path / "run", "--set", "phases=((32,1),)", "--data")
    assert typed(*command, tmp_path / "A").exit_code == 0
    again = typed(*command, tmp_path / "A")
    assert again.exit_code == 0
    assert "finished, validation accuracy" in again.output
    for other in ("B", "nowhere"):
        result = typed(*command, tmp_path / other)
        assert result.exit_code == 2
        assert "finished, validation accuracy" not in result.output
    noise(40, 40).save(tmp_path / "A" / "train" / "a" / "0.png")
    result = typed(*command, tmp_path / "A")
    assert result.exit_code == 2
    assert "bytes differ" in result.output


def test_an_interrupted_run_does_not_go_on_with_other_data(
    tmp_path: Path, typed: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(tmp_path / "A", "ab")
    pictures(tmp_path / "B", "xy")
    command = (*FOLDER, "--out", tmp_path / "run", "--set", "phases=((32,2),)", "--data")
    with monkeypatch.context() as patch:
        after_step(patch, 1, press_ctrl_c)
        assert typed(*command, tmp_path / "A").exit_code == 130
    assert typed(*command, tmp_path / "B").exit_code == 2
    assert typed(*command, tmp_path / "A").exit_code == 0


def test_precision_is_computed_with_or_refused(
    tmp_path: Path, typed: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    command = (
        *("train", "digits", "--set", "phases=((32,1),)", "--set", "images_per_class=8"),
        *("--set", "batch=16", "--threads", "1"),
    )

    def trained(precision: str) -> bytes | None:
        folder = tmp_path / precision
        result = typed(*command, "--set", f"precision={precision}", "--out", folder)
        if result.exit_code:
            assert precision in result.output
            return None
        assert json.loads((folder / "summary.json").read_text())["recipe"]["precision"] == precision
        return (folder / "model.safetensors").read_bytes()

    plain = trained("fp32")
    assert plain is not None
    for precision in ("bf16", "fp16"):
        assert trained(precision) != plain


def _children(number: int) -> list[int]:
    """Running child processes of a process."""
    text = Path(f"/proc/{number}/task/{number}/children").read_text()
    stats = [Path(f"/proc/{word}/stat").read_text() for word in text.split()]
    return [int(stat.split()[0]) for stat in stats if stat.rpartition(")")[2].split()[0] != "Z"]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes in /proc")
@pytest.mark.parametrize(
    ("number", "whom"),
    [
        (signal.SIGTERM, "group"),
        pytest.param(signal.SIGHUP, "group", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, "worker", marks=pytest.mark.slow),
    ],
)
def test_a_run_with_workers_ends_with_its_state_saved(
    number: signal.Signals, whom: str, tmp_path: Path
) -> None:
    data, out, log = pictures(tmp_path / "D", "ab", 16, 64), tmp_path / "run", tmp_path / "log"
    command = (
        *(sys.executable, "-m", "senetzoo.cli", *FOLDER, "--workers", "2", "--threads", "1"),
        *("--set", "phases=((32,100000),)", "--data", str(data), "--out", str(out)),
    )
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while "epoch 2/" not in log.read_text():
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            # Stop it until its workers have died, if they do, so that it can't end before.
            os.kill(process.pid, signal.SIGSTOP)
            workers = _children(process.pid)
            if whom == "group":
                os.killpg(process.pid, number)
            else:
                os.kill(workers[-1], number)
            end = time.monotonic() + HELD
            while _children(process.pid) == workers and time.monotonic() < end:
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGCONT)
            code = process.wait(60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    text = log.read_text()
    assert code > 0
    assert "Traceback" not in text
    assert text.count("stopping after this step") == (whom == "group")
    assert "saved" in text
    assert "Type the same command again" in text
    assert (out / "checkpoint.pt").is_file()


def _square(number: int) -> tuple[Tensor, int]:
    return torch.full((8, 8, 3), number, dtype=torch.uint8), number


@pytest.mark.parametrize("room", [2**20, 2**40])
def test_workers_do_without_shared_memory(
    room: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say_once.cache_clear()
    monkeypatch.setattr(
        os, "statvfs", lambda _: SimpleNamespace(f_bavail=room // 2**10, f_frsize=2**10)
    )
    order = [[4 * step, 4 * step + 1] for step in range(5)]
    of_workers = batches.loader(_square, order, CPU, 2, 2**17)
    alone = batches.loader(_square, order, CPU, 0, 2**17)
    pairs = zip(batches.loaded(of_workers, CPU), batches.loaded(alone, CPU), strict=True)
    for (x, labels), (right, numbers) in pairs:
        assert torch.equal(x, right)
        assert torch.equal(labels, numbers)
        # Tensors from a worker are in shared memory, unless they came through a pipe.
        assert x.untyped_storage().is_shared() is (room == 2**40)
    assert ("is too small" in capsys.readouterr().err) is (room == 2**20)


ENDS: dict[str, tuple[Callable[[], object], str]] = {
    "hangs": (lambda: time.sleep(600), "has read no batch in 2 seconds"),
    "no shared memory": (lambda: os.kill(os.getpid(), signal.SIGBUS), "--shm-size"),
    "no memory": (lambda: os.kill(os.getpid(), signal.SIGKILL), "--workers 0"),
}


@pytest.mark.skipif(not hasattr(signal, "SIGBUS"), reason="has no such signals")
@pytest.mark.parametrize(("end", "testing"), [*((end, False) for end in ENDS), ("no memory", True)])
def test_a_worker_that_does_not_go_on_ends_the_run_with_its_state_saved(
    end: str,
    testing: bool,
    tmp_path: Path,
    typed: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    act, said = ENDS[end]
    before = multiprocessing.active_children()  # of other tests in this process
    pictures(tmp_path / "D", "ab")
    often = ("--set", "phases=((32,2),)", "--set", "test_every=1")
    command = (*FOLDER, *often, "--data", tmp_path / "D")
    plain = batches._read

    def read(recipe: Any, seed: int, images: Any, item: tuple[Any, ...]) -> Any:
        if item[0] == 1:
            act()
        return plain(recipe, seed, images, item)

    def fail(*_: object) -> Any:
        act()

    with monkeypatch.context() as patch:
        if testing:
            patch.setattr(evaluate, "_file", fail)
        else:
            patch.setattr(batches, "_read", read)
        patch.setattr(batches, "PATIENCE", 2)
        result = typed(*command, "--workers", "1", "--out", tmp_path / "run")
    assert result.exit_code in (1, 2)
    assert said in result.output
    assert f"epoch 1{', step 2' * testing} is saved" in result.output
    assert "Type the same command again to resume" in result.output
    assert "Traceback" not in result.output
    assert not [p for p in multiprocessing.active_children() if p not in before]
    # The resumed run ends like one that was never interrupted.
    assert typed(*command, "--out", tmp_path / "run").exit_code == 0
    assert typed(*command, "--out", tmp_path / "whole").exit_code == 0
    ended, whole = (tmp_path / name / "model.safetensors" for name in ("run", "whole"))
    assert ended.read_bytes() == whole.read_bytes()


def test_a_second_training_in_a_process_is_refused(
    tmp_path: Path, typed: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Result] = []
    command = ("train", "digits", "--quick", "--no-compile", "--threads", "1", "--out")

    def other() -> None:
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(typed, *command, tmp_path / "second").result(60))

    after_step(monkeypatch, 1, other)
    assert typed(*command, tmp_path / "first").exit_code == 0
    assert seen[0].exit_code == 2
    assert "Another thread of this process is training" in seen[0].output
    assert not (tmp_path / "second").exists()


def test_workers_that_can_t_start_are_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, typed: Callable[..., Result]
) -> None:
    def fail(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DataLoader, "_get_iterator", fail)
    command = (*FOLDER, "--data", pictures(tmp_path / "D", "ab"), "--workers", "1")
    result = typed(*command, "--out", tmp_path / "run")
    assert result.exit_code in (1, 2)
    assert "No space left on device" in result.output
    assert "--workers 0" in result.output


# --- What is said of weights that are not there any more -----------------------------------------


def test_a_new_classifier_has_no_names_of_classes(tmp_path: Path) -> None:
    net = senetzoo.create("se_resnet20", pretrained=True)
    net.reset_classifier(3)
    (guess,) = predict(net, torch.zeros(3, 32, 32, dtype=torch.uint8))
    assert sorted(guess.name for guess in guess.guesses) == ["class 0", "class 1", "class 2"]
    senetzoo.save(net, tmp_path)
    report = senetzoo.load(tmp_path).load_report
    assert report is not None
    assert report.classes == ()


def test_a_new_classifier_is_not_exported_as_the_weights_own(tmp_path: Path) -> None:
    net = senetzoo.create("lenet", pretrained=True)
    net.reset_classifier(10)
    metadata = export(net, tmp_path / "net.pt2").metadata
    assert "classes" not in metadata
    assert "weights" not in metadata or metadata["weights_not_loaded"] == ["fc3.weight", "fc3.bias"]


def _step(net: Classifier) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(torch.randn(2, 3, 32, 32)).sum().backward()
    optimizer.step()


def _batch(net: Classifier) -> None:
    net.train()(torch.randn(2, 3, 32, 32))


def _turned(net: Classifier) -> None:
    weight = net.get_parameter("conv1.weight")
    weight.data = weight.data.flip(1)


CHANGES: dict[str, Callable[[Classifier], object]] = {
    "an optimizer's step": _step,
    "statistics of a batch": _batch,
    "channels in another order": _turned,
    "other weights": lambda net: net.load_state_dict(
        senetzoo.load("resnet20.cifar10_v1").state_dict()
    ),
    "negated through .data": lambda net: net.get_parameter("fc.weight").data.neg_(),
    "memory without values": lambda net: net.to("meta").to_empty(device="cpu"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_network_does_not_claim_the_weights_it_began_with(
    change: str, tmp_path: Path
) -> None:
    net = senetzoo.load("resnet20.cifar10_v2")
    CHANGES[change](net)
    report = provenance(net)
    assert report is not None
    assert report.changed
    assert str(report).startswith("trained from weights resnet20.cifar10_v2")
    if change != "an optimizer's step":
        return
    metadata = export(net, tmp_path / "net.pt2").metadata
    assert "weights" not in metadata
    assert "weights_sha256" not in metadata
    assert metadata["start"] == "resnet20.cifar10_v2"
    assert hub.stage(net, "someone/net", tmp_path / "net", None).startswith("senetzoo")
    card = (tmp_path / "net" / hub.CARD).read_text()
    assert "resnet20.cifar10_v2" not in card
    assert "How good it is" not in card


@pytest.mark.parametrize("change", ["a gate", "no gates", "another number of channels"])
def test_published_figures_are_of_the_whole_published_network(change: str, tmp_path: Path) -> None:
    net = senetzoo.load("se_resnet20.cifar10_v2", in_chans=1 if "channels" in change else None)
    if change == "a gate":
        senetzoo.attach(net, SE(4).at("pre"), seed=0)
    elif change == "no gates":
        senetzoo.detach(net)
    report = provenance(net)
    assert report is not None
    assert not report.changed
    assert {where.rpartition(".slots.")[2].partition(".")[0] for where, _ in report.replaced} == (
        {"pre"} if change == "a gate" else set()
    )
    assert hub.stage(net, "someone/net", tmp_path, None).startswith("senetzoo")
    assert "How good it is" not in (tmp_path / hub.CARD).read_text()


def test_a_cards_multiply_accumulates_are_those_of_its_input(tmp_path: Path) -> None:
    """The images of these weights have another size than those of ImageNet."""
    net = senetzoo.load("resnet20.flowers5_v2")
    hub.stage(net, "someone/net", tmp_path, None)
    card = (tmp_path / hub.CARD).read_text()
    (size,) = re.findall(r"^\| input \| 3x(\d+)x", card, re.MULTILINE)
    assert int(size) == net.input_size != 224
    assert f"| multiply-accumulates | {count(net, int(size)).macs:,} |" in card


def _trained_head(net: Classifier) -> None:
    net.reset_classifier(3)
    with torch.no_grad():
        net.get_parameter("fc.weight").add_(1)


CASTS: dict[str, Callable[[Classifier], object]] = {
    "as loaded": lambda net: net,
    "half": lambda net: net.half(),
    "half and back": lambda net: net.half().float(),
    "bfloat16": lambda net: net.bfloat16(),
    "double": lambda net: net.double(),
    "channels last": lambda net: net.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
    "a copy": copy.deepcopy,
    "in training mode": lambda net: net.train(),
    "a new classifier": _trained_head,
}


@pytest.mark.parametrize("cast", CASTS)
def test_a_network_in_another_format_has_the_weights_it_was_loaded_with(cast: str) -> None:
    net = senetzoo.load("resnet20.cifar10_v2")
    made = CASTS[cast](net)
    report = provenance(made if isinstance(made, Classifier) else net)
    assert report is not None
    assert not report.changed
    assert report.tag == "resnet20.cifar10_v2"


# --- Images --------------------------------------------------------------------------------------


def test_odd_metadata_beside_a_good_orientation_is_left_out() -> None:
    plain = file_of(noise(96, 64), "JPEG")
    # ResolutionUnit, a SHORT, is written as a LONG of 4,000,000,000 beside an orientation of 6.
    tiff = b"II*\0" + struct.pack("<IH", 8, 2) + struct.pack("<HHIHH", 0x112, 3, 1, 6, 0)
    tiff += struct.pack("<HHII", 0x128, 4, 1, 4_000_000_000) + bytes(4)
    exif = b"Exif\0\0" + tiff
    odd = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    pixels = np.asarray(Image.open(io.BytesIO(plain)))
    assert np.array_equal(np.asarray(open_image(odd)), np.rot90(pixels, -1))


BAD: dict[str, Callable[[], Any]] = {
    "an empty crop": lambda: Image.new("RGB", (40, 40)).crop((5, 5, 5, 9)),
    "a cut JPEG, opened": lambda: Image.open(io.BytesIO(file_of(noise(300, 300), "JPEG")[:900])),
    "a long text": lambda: "x" * 300,
}
UNUSUAL: dict[str, Callable[[], Any]] = {
    "an array": lambda: np.zeros((40, 40, 3), np.uint8),
    "bytes": lambda: file_of(noise(300, 300), "JPEG"),
}


@pytest.mark.parametrize("what", [*BAD, *UNUSUAL])
def test_an_odd_input_is_an_error_of_its_own(what: str) -> None:
    net = senetzoo.create("se_resnet20", pretrained=True)
    good = Image.new("RGB", (40, 40))
    before, odd, after = predict(net, [good, (BAD | UNUSUAL)[what](), good])
    assert before.error is after.error is None
    alone = predict(net, good)[0].guesses
    for guesses in (before.guesses, after.guesses):
        assert [guess.label for guess in guesses] == [guess.label for guess in alone]
        assert guesses[0].probability == pytest.approx(alone[0].probability, abs=1e-5)
    # Arrays and bytes are classified, or rejected by name.
    assert odd.error is not None or (what in UNUSUAL and odd.guesses)


def test_a_file_and_its_pil_image_are_the_same_image(tmp_path: Path) -> None:
    net = senetzoo.create("se_resnet20", pretrained=True)
    exif = Image.Exif()
    exif[0x112] = 6
    path = tmp_path / "turned.jpg"
    Image.linear_gradient("L").convert("RGB").save(path, exif=exif)
    (of_path,), (of_image,) = predict(net, path), predict(net, Image.open(path))
    assert of_path.guesses == of_image.guesses


# --- Folders -------------------------------------------------------------------------------------


def _suffix(suffix: str) -> Callable[[Path, Path], list[str]]:
    def make(folder: Path, _: Path) -> list[str]:
        form = Image.registered_extensions()[suffix]
        Image.new("RGB", (9, 9)).save(folder / f"odd{suffix}", form)
        return [f"odd{suffix}"]

    return make


def _linked_folder(folder: Path, elsewhere: Path) -> list[str]:
    elsewhere.mkdir()
    for name in ("3.png", "4.png"):
        Image.new("RGB", (9, 9)).save(elsewhere / name)
    (folder / "more").symlink_to(elsewhere, target_is_directory=True)
    return ["3.png", "4.png"]


def _broken_link(folder: Path, elsewhere: Path) -> list[str]:
    (folder / "6.png").symlink_to(elsewhere / "6.png")
    return ["6.png"]


HAS = {".jfif": "jpg", ".avif": "avif", ".jp2": "jpg_2000"}
USED: dict[str, Callable[[Path, Path], list[str]]] = {
    **{suffix: _suffix(suffix) for suffix in HAS},
    "linked folder": _linked_folder,
}
kinds = pytest.mark.parametrize("kind", [*USED, "broken link"])


def _odd_folder(kind: str, root: Path) -> tuple[Path, list[str]]:
    """A class folder with 1.png and what `kind` says, and the names of the latter."""
    if kind in HAS and not features.check(HAS[kind]):
        pytest.skip(f"this Pillow can't write {kind}")
    folder = root / "classes" / "a"
    folder.mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(folder / "1.png")
    return folder, (USED | {"broken link": _broken_link})[kind](folder, root / "elsewhere")


@kinds
def test_nothing_in_a_class_folder_is_left_out_without_a_word(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, names = _odd_folder(kind, tmp_path)
    try:
        files = read_image_folder(folder.parent)
        found = [Path(files.source_name(i)).name for i in range(len(files))]
        said = "".join(capsys.readouterr())
    except SenetzooError as error:
        found, said = [], str(error)
    if kind in USED:
        assert sorted(found) == ["1.png", *names]
    else:
        assert all(name in found or name in said for name in names)


@kinds
def test_nothing_in_a_folder_is_left_out_of_predict_without_a_word(
    kind: str, tmp_path: Path
) -> None:
    folder, names = _odd_folder(kind, tmp_path)
    net = senetzoo.create("se_resnet20", pretrained=True)
    found = {Path(p.image).name: p.error for p in predict(net, folder)}
    assert sorted(found) == ["1.png", *names]
    assert [name for name, error in found.items() if error] == names * (kind not in USED)


def test_folders_that_are_named_by_numbers_are_those_outputs(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / str(number)).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / str(number) / "x.png")
    found = read_images(str(tmp_path), (), 12)
    outputs = dict(zip(found.images.classes, found.outputs, strict=True))
    assert outputs == {str(number): number for number in range(12)}
