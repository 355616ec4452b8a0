"""Resumed runs end like uninterrupted ones, bit for bit; checkpoints survive failures."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import shutil
import signal
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.networks import message
from support.runs import TINY, after_step, log_of, press_ctrl_c, train

from senetzoo.errors import ConfigError, TrainingError
from senetzoo.train import checkpoint, engine
from senetzoo.train.recipe import Options
from senetzoo.train.stop import Interrupted

# Dropout draws from the global state, mixing and rotation from the batches'; the gates' seeds and
# a moving average with batch norm's statistics are part of it too.
FULL = TINY.replace(
    name="full",
    model="se_lenet5",
    dropout=0.3,
    phases=((32, 3),),
    batch=8,
    mixup=0.4,
    cutmix=1.0,
    rotation=10.0,
    ema=0.9,
    optimizer="adamw",
    accumulate=2,
)


def same(a: Path, b: Path) -> None:
    for name in ("model.safetensors", "test.safetensors"):
        one, two = load_file(str(a / name)), load_file(str(b / name))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert measured(a) == measured(b)


def measured(folder: Path) -> list[dict[str, Any]]:
    """The epochs of the log without times."""
    clocks = ("seconds", "images_per_second")
    return [{k: v for k, v in e.items() if k not in clocks} for e in log_of(folder, "epoch")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, for comparison."""
    out = tmp_path_factory.mktemp("whole")
    train(FULL, out)
    return out


def test_a_run_stopped_in_an_epoch_ends_like_the_uninterrupted_one(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_step(monkeypatch, 14, press_ctrl_c)
    before = signal.getsignal(signal.SIGINT)
    assert message(lambda: train(FULL, tmp_path), Interrupted) == (
        f"The run in {tmp_path} was interrupted.\n"
        "Everything up to epoch 2, step 4 is saved.\n"
        "Type the same command again to resume"
    )
    assert signal.getsignal(signal.SIGINT) is before
    said: list[str] = []
    end = train(FULL, tmp_path, say=said.append)
    assert said[0] == f"{tmp_path}: resuming after epoch 2, step 4"
    same(whole, tmp_path)
    lines = log_of(tmp_path)
    kinds = [line["kind"] for line in lines]
    assert kinds == ["run", "epoch", "resume", "epoch", "epoch", "end"]
    assert lines[2] == {"kind": "resume", "epoch": 2, "step": 4}
    # A finished run isn't trained again.
    assert train(FULL, tmp_path, say=said.append) == end
    assert said[-1].startswith(f"{tmp_path}: finished, test accuracy ")


KILLED = FULL.replace(images_per_class=20, phases=((32, 6),), test_every=2)


def alone(folder: str) -> None:
    """Train in a separate process, saving after every step."""
    torch.set_num_threads(1)
    train(KILLED, Path(folder), seed=3, options=Options(save_minutes=0.0))


def imported() -> ForkServerContext:
    """A fork server with the imports, which would take seconds in each process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["accelerate", "sklearn.datasets", "senetzoo.train.engine"])
    return context


def kill_and_resume(folder: Path, moments: list[float]) -> int:
    """Train in processes that are killed some seconds after their first save; return how many."""
    context, hits = imported(), 0
    for moment in moments:
        child = context.Process(target=alone, args=(str(folder),))
        child.start()
        seen = checkpoint_time(folder)
        while checkpoint_time(folder) == seen and child.is_alive():
            time.sleep(0.005)
        time.sleep(moment)
        hits += child.is_alive()
        child.kill()
        child.join()
        assert child.exitcode in (0, -signal.SIGKILL)
    return hits


def checkpoint_time(folder: Path) -> float:
    path = folder / checkpoint.NEWEST
    return path.stat().st_mtime if path.exists() else 0.0


@pytest.mark.parametrize("count", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_ends_like_the_uninterrupted_one(
    tmp_path: Path, count: int
) -> None:
    moments = [random.Random(seed).uniform(0, 0.6) for seed in range(count)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(KILLED, tmp_path / "whole", seed=3)
        hits = kill_and_resume(tmp_path / "cut", moments)
        train(KILLED, tmp_path / "cut", seed=3)
    finally:
        torch.set_num_threads(threads)
    assert hits >= 1  # on a fast machine a run may be finished before its moment
    same(tmp_path / "whole", tmp_path / "cut")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(whole: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    newest, ended = cut / checkpoint.NEWEST, cut / "summary.json"
    previous = torch.load(cut / checkpoint.PREVIOUS, weights_only=True)
    assert (previous["epoch"], previous["step"]) == (2, 0)
    newest.write_bytes(newest.read_bytes()[:-1000])
    ended.unlink()
    said: list[str] = []
    train(FULL, cut, say=said.append)
    assert said[0] == f"{newest} can't be read (RuntimeError): resuming from checkpoint.previous.pt"
    same(whole, cut)
    # A kill between the two renames leaves only the previous checkpoint.
    ended.unlink()
    newest.unlink()
    train(FULL, cut)
    same(whole, cut)
    ended.unlink()
    newest.write_bytes(b"")
    (cut / checkpoint.PREVIOUS).write_bytes(b"")
    assert message(lambda: train(FULL, cut), ConfigError) == (
        f"{newest} can't be read.\n"
        "It isn't a checkpoint of a run (EOFError).\n"
        "Give another folder with --out; or delete this one, which loses its run"
    )


def test_a_full_disk_is_named_and_the_checkpoint_stays_whole(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "run", os.fsync
    written = 0

    def full(descriptor: int) -> None:
        nonlocal written
        written += 1
        # The log's first line, then a checkpoint for each epoch: the file, then its folder.
        if written == 5:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert message(lambda: train(FULL, out), TrainingError) == (
        f"{out / 'checkpoint.new.pt'} can't be written.\n"
        "No space left on device.\n"
        "Fix that, then type the same command again: checkpoint.pt next to it is intact"
    )
    assert not list(out.glob("*.partial"))
    assert torch.load(out / checkpoint.NEWEST, weights_only=True)["epoch"] == 1
    monkeypatch.setattr(os, "fsync", real)
    train(FULL, out)
    same(out, whole)


def limited(folder: str, told: Connection) -> None:
    """Train with a file size limit of 300 kB."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    try:
        train(FULL, Path(folder))
    except TrainingError as error:
        told.send(str(error))


def test_a_file_system_that_is_full(tmp_path: Path) -> None:
    """The same with a limit of the kernel, which cuts writes short."""
    context = imported()
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=limited, args=(str(tmp_path), theirs))
    child.start()
    theirs.close()
    assert ours.recv().splitlines() == [
        f"{tmp_path / 'checkpoint.new.pt'} can't be written.",
        "File too large.",
        "Fix that, then type the same command again",
    ]
    child.join()
    assert child.exitcode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl"]


def test_a_folder_of_a_run_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run in the same folder is rejected, and the first one continues."""
    found = list[str]()

    def another() -> None:
        with monkeypatch.context() as patch:  # as another process has it
            patch.setattr(engine, "_running", threading.Lock())
            found.append(message(lambda: train(FULL, tmp_path), ConfigError))

    after_step(monkeypatch, 2, another)
    train(FULL, tmp_path)
    assert found == [
        f"A run in {tmp_path} is still running.\nAnother process is writing to {tmp_path}.\n"
        "Wait until it ends, or give another folder with --out"
    ]
    assert not (tmp_path / ".lock").exists()
    train(FULL, tmp_path)  # finished


def test_the_state_is_saved_within_an_epoch_and_two_are_kept(tmp_path: Path) -> None:
    train(FULL.replace(phases=((32, 1),)), tmp_path, options=Options(save_minutes=0.0))
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == [
        "checkpoint.previous.pt",
        "checkpoint.pt",
    ]
    previous = torch.load(tmp_path / checkpoint.PREVIOUS, weights_only=True)
    assert (previous["epoch"], previous["step"]) == (0, 9)
    assert {"model", "optimizer", "ema", "rng", "sampler"} <= previous.keys()
