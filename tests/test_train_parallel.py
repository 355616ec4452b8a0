"""Several runs at once, each in its own process, end as if run one after another."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from support import commands
from support.runs import log_of, own_gate, press_ctrl_c, train, weights_of

from senetzoo._utils.environment import threads_set
from senetzoo.errors import TrainingError
from senetzoo.own import register_path
from senetzoo.train import parallel
from senetzoo.train.checkpoint import NEWEST
from senetzoo.train.parallel import OUTPUT, Asked, train_at_once
from senetzoo.train.recipes import RECIPES
from senetzoo.train.stop import Interrupted

SHORT = RECIPES["digits"].recipe.replace(
    phases=((32, 2),), images_per_class=16, batch=32, restart_epochs=0, compile=False
)


@pytest.mark.slow
def test_a_comparison_is_that_of_one_run_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gate_at_once.py").write_text(own_gate("HalfScale"), encoding="utf-8")
    ask = ["compare", "--model", "lenet5", "--policy", "gate_at_once:HalfScale@pre", "--data"]
    ask += ["digits", "--seeds", "2", "--quick", "--threads", "1", "--json"]
    with threads_set(1):
        found = [
            commands.run(*ask, "--out", out, "--parallel", n) for out, n in (("a", 1), ("b", 2))
        ]
    assert [result.exit_code for result in found] == [0, 0], found[1].stderr
    one, many = (json.loads(result.stdout) for result in found)
    place = {"folder": "", "command": ""}
    assert {**one, **place} == {**many, **place}
    said = [line for line in found[1].stderr.splitlines() if line.startswith("run ")]
    assert len(said) == 4
    for variant in ("plain", "half_scale@pre"):
        for seed in range(2):
            folders = [Path(out, f"{variant}-{seed}") for out in "ab"]
            weights, others = map(weights_of, folders)
            assert all(torch.equal(value, others[key]) for key, value in weights.items())
            (header,), (other,) = (log_of(folder, "run") for folder in folders)
            assert header["command"].replace("--out a", "--out b") == other["command"]
            assert "epoch 1/1" in (folders[1] / OUTPUT).read_text("utf-8")


def test_code_that_is_edited_meanwhile_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = Path("gate_edited.py")
    file.write_text(own_gate("HalfScale"), encoding="utf-8")
    gated = SHORT.replace(model=f"lenet5+{register_path('gate_edited:HalfScale')}")
    file.write_text(own_gate("HalfScale").replace("0.5", "0.25"), encoding="utf-8")
    said: list[str] = []
    with pytest.raises(TrainingError, match="1 of 1 runs failed"):
        train_at_once([(gated, tmp_path / "run", {})], 1, lambda *_: None, said.append)
    assert "began with another version of gate_edited:HalfScale" in said[-1]


def test_ctrl_c_saves_what_is_under_way_and_a_failure_ends_no_other(tmp_path: Path) -> None:
    bad, good, long, never = (tmp_path / name for name in ("bad", "good", "long", "never"))
    endless = SHORT.replace(phases=((32, 5000),), test_every=5000)
    runs: list[Asked] = [
        (SHORT.replace(batch=4096), bad, {}),
        (SHORT, good, {"seed": 1}),
        (endless, long, {}),
        (endless, never, {}),
    ]
    said: list[str] = []
    ended: list[Path] = []

    def say(line: str) -> None:
        said.append(line)
        if "finished" in line:
            threading.Thread(target=press, daemon=True).start()

    def press() -> None:
        while not (long / NEWEST).exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with threads_set(1):
        with pytest.raises(
            Interrupted,
            match=r"^The runs were interrupted\.\nOf 4, 1 are finished and 1 are saved; 1 failed\.",
        ):
            train_at_once(runs, 2, lambda folder, end: ended.append(folder), say)
        assert signal.getsignal(signal.SIGINT) is before
        train(SHORT, tmp_path / "alone", seed=1)
    assert ended == [good]
    weights = weights_of(good)
    assert all(torch.equal(v, weights[k]) for k, v in weights_of(tmp_path / "alone").items())
    failed, finished, stopped, *_ = sorted(said[1:])
    assert f"run 1 of 4: {bad}: failed. batch=4096 doesn't fit 160 training images" in failed
    assert failed.endswith(f"--set batch=160. See {bad / OUTPUT}")
    assert "error: batch=4096" in (bad / OUTPUT).read_text("utf-8")
    assert finished.startswith(f"run 2 of 4: {good}: finished, test accuracy ")
    assert (
        f"run 3 of 4: {long}: The run in {long} was interrupted. Everything up to epoch" in stopped
    )
    with pytest.raises(KeyboardInterrupt):  # which goes on from there, and is stopped again
        train(endless, long, say=going_on)


def going_on(line: str) -> None:
    """Stop a run that resumes."""
    if "resuming after" in line:
        press_ctrl_c()


def test_one_that_is_stopped_while_it_starts_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parallel, "train", stopped)
    for name in ("setsid", "dup2"):  # which are for a process of its own
        monkeypatch.setattr(os, name, lambda *_: None)
    ours, theirs = multiprocessing.Pipe(duplex=False)
    parallel._train(theirs, (SHORT, tmp_path, {}), torch.get_num_threads(), ((), {}))
    assert parallel._received(ours) == f"The run in {tmp_path} was interrupted."


@pytest.mark.slow
def test_one_that_fails_is_told_by_the_exit_code(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(TrainingError, match=r"^1 of 1 runs failed\."):
        train_at_once([(SHORT.replace(batch=4096), tmp_path, {})], 2, lambda *_: None, said.append)


def test_processes_of_one_run_start_no_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "0" if name == "RANK" else "2")
    for ask in (("train", "ablation_stages"), ("compare", "--model", "lenet5", "--policy", "se4")):
        result = commands.run(*ask, "--parallel", "2")
        assert result.exit_code == 2
        assert "accelerate launch or torchrun.\nRANK and WORLD_SIZE" in result.stderr
        assert commands.run(*ask, "--parallel", "0").exit_code == 2
    assert not list(tmp_path.iterdir())
