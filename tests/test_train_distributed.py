"""Two processes that share every batch: equal to one, and what happens when one of them dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.runs import after_step, log_of, train, weights_of

from senetzoo.errors import SenetzooError
from senetzoo.train import checkpoint
from senetzoo.train.batches import Batches
from senetzoo.train.data import load_data
from senetzoo.train.recipe import Recipe

# 160 images in batches of 16: 10 steps an epoch, 20 in all.
LENET = Recipe(
    name="pair",
    model="se_lenet5",
    data="digits",
    images_per_class=16,
    phases=((32, 2),),
    batch=16,
    precision="fp64",
    compile=False,
    lr=0.05,
    rotation=10.0,
    mixup=0.2,
    cutmix=1.0,
    noise=0.05,
    test_every=2,
)


def worker(rank: int, port: int, out: str, recipe: Recipe, die_at: int) -> None:
    """Train as one of two processes; the second kills itself after `die_at` steps, if not 0.

    Of each step the second says that it left out an image.
    """
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        LOCAL_WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    if rank == 1:
        patch = pytest.MonkeyPatch()
        patch.setattr(Batches, "left_out", property(lambda _: ["one"], lambda *_: None), False)
    if rank == 1 and die_at:
        after_step(pytest.MonkeyPatch(), die_at, lambda: os.kill(os.getpid(), signal.SIGKILL))
    try:
        train(recipe, Path(out))
    except SenetzooError as error:
        Path(f"{out}-{rank}.txt").write_text(str(error))
        os._exit(2)


def pair(out: Path, recipe: Recipe, die_at: int = 0) -> list[int | None]:
    """Train in two processes over gloo; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["accelerate", "sklearn.datasets", "senetzoo.train.engine"])
    children = [
        context.Process(target=worker, args=(rank, port, str(out), recipe, die_at))
        for rank in (0, 1)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(timeout=240)
    codes = [child.exitcode for child in children]
    for child in children:
        child.kill()
    return codes


def test_two_processes_equal_one_without_batch_norm(tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    train(LENET, first)
    assert pair(second, LENET) == [0, 0]
    a, b = weights_of(first), weights_of(second)
    assert next(iter(a.values())).dtype == torch.float64
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, atol=1e-8, rtol=0)
    start = LENET.network(10, 1).build(seed=0).double().state_dict()
    assert any((a[name] - start[name]).abs().max() > 0.01 for name in a)
    one, two = log_of(first), log_of(second)
    assert two[-1]["test_correct"] == one[-1]["test_correct"]
    for key in ("train_loss", "train_accuracy", "lr", "gradient_norm"):
        assert two[1][key] == one[1][key], key
    logits = [load_file(str(out / "test.safetensors"))["logits"] for out in (first, second)]
    torch.testing.assert_close(logits[0], logits[1])
    assert two[0]["environment"]["processes"] == 2
    # What every process left out counts.
    assert [line.get("left_out") for line in two[1:3]] == [10, 10]


def test_batch_norm_takes_the_statistics_of_each_process(tmp_path: Path) -> None:
    # One step of a batch of which each process sees a half; 16 px keep it short.
    recipe = LENET.replace(
        model="resnet20",
        images_per_class=4,
        phases=((16, 1),),
        batch=40,
        mixup=0.0,
        cutmix=0.0,
        warmup=0.0,
    )
    train(recipe, tmp_path / "one")
    assert pair(tmp_path / "two", recipe) == [0, 0]
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    assert not torch.allclose(one["conv1.weight"], two["conv1.weight"], atol=1e-8, rtol=0)
    # The running statistics are of the first half alone.
    model = recipe.network(10, 1).build(seed=0).double()
    batches = Batches(recipe, load_data(recipe, None), 0, torch.device("cpu"), rank=0, ranks=2)
    x = next(batches.epoch(0)).x
    assert len(x) == 20
    model(x)
    torch.testing.assert_close(two["bn1.running_mean"], model.get_buffer("bn1.running_mean"))
    assert not torch.allclose(one["bn1.running_mean"], two["bn1.running_mean"])


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_with_a_message_and_a_checkpoint(tmp_path: Path) -> None:
    recipe = LENET.replace(phases=((32, 2),))
    assert pair(tmp_path / "cut", recipe, die_at=14) == [2, -signal.SIGKILL]
    first, cause, remedy = (tmp_path / "cut-0.txt").read_text().splitlines()
    assert first == "Process 0 of 2 can't go on in epoch 2; another one may have died."
    assert cause
    path = tmp_path / "cut" / checkpoint.NEWEST
    assert remedy == f"Type the same command again: {path} has the state of epoch 1"
    assert pair(tmp_path / "cut", recipe) == [0, 0]
    assert pair(tmp_path / "whole", recipe) == [0, 0]
    a, b = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert all(torch.equal(a[name], b[name]) for name in a)
