"""Two processes that share every batch equal a single one; and what happens if one dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.networks import randomize
from support.runs import TINY, after_step, log_of, train, weights_of
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from senetzoo import Backbone, create
from senetzoo.errors import SenetzooError
from senetzoo.nn.classifier import Classifier
from senetzoo.train import checkpoint
from senetzoo.train.batches import Batches
from senetzoo.train.data import load_data
from senetzoo.train.recipe import Recipe

# 160 images in batches of 16: 10 steps an epoch, 20 in all.
LENET = TINY.replace(
    model="se_lenet5",
    images_per_class=16,
    precision="fp64",
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
    return in_two(worker, str(out), recipe, die_at)


def in_two(target: Callable[..., None], *args: object) -> list[int | None]:
    """Call `target` with the rank, a free port and `args` in two processes; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    # DistributedDataParallel imports torch._dynamo, which takes seconds: import it only once.
    preload = ["accelerate", "sklearn.datasets", "senetzoo.train.engine", "torch._dynamo"]
    context.set_forkserver_preload(preload)
    children = [context.Process(target=target, args=(rank, port, *args)) for rank in (0, 1)]
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
    # Images left out by all processes are counted.
    assert [line.get("left_out") for line in two[1:3]] == [10, 10]


def test_batch_norm_takes_the_statistics_of_each_process(tmp_path: Path) -> None:
    # One step, half a batch per process; 16 px keep it fast.
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
    # The running statistics are those of the first half.
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
    assert first == "Process 0 of 2 can't continue in epoch 2; another one may have died."
    assert cause
    path = tmp_path / "cut" / checkpoint.NEWEST
    assert remedy == f"Type the same command again: {path} has the state of epoch 1"
    assert pair(tmp_path / "cut", recipe) == [0, 0]
    assert pair(tmp_path / "whole", recipe) == [0, 0]
    a, b = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert all(torch.equal(a[name], b[name]) for name in a)


# --- torch's own loop ----------------------------------------------------------------------------

# One of each kind: excitation, convolution over channels, spatial attention, shared bias.
GATED = "se_resnet20+eca@pre/s1+cbam@identity/s2+gc@post/s3"


def networks() -> dict[str, nn.Module]:
    """A network with gates, and the trunk of one, identical in all processes."""
    made: dict[str, nn.Module] = {}
    for kind in ("network", "backbone"):
        model = create(GATED, num_classes=5, seed=0).double().eval()
        randomize(model)
        made[kind] = model if kind == "network" else Backbone(model, out_indices=(0, 2))
    # Norms are in eval mode, because the statistics of half a batch differ.
    return {kind: model.eval() for kind, model in made.items()}


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    """A mean over the images, so that two halves can be averaged."""
    found = model(x)
    maps = [found] if isinstance(found, Tensor) else found
    return sum((one.square().flatten(1).mean(1).mean() for one in maps), torch.zeros(()).double())


def photographs() -> Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()


def backward(rank: int, port: int, out: str) -> None:
    """In one of two processes, write the gradients of half a batch, averaged over both."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", address, rank=rank, world_size=2)
    for kind, model in networks().items():
        wrapped = DistributedDataParallel(model)
        # Two steps, because the second one waits for all parameters of the first.
        for _ in range(2):
            wrapped.zero_grad()
            loss_of(wrapped, photographs()[2 * rank : 2 * rank + 2]).backward()  # type: ignore[no-untyped-call]
        save_file(gradients(model), f"{out}/{kind}-{rank}.safetensors")
        state = {name: value.contiguous() for name, value in wrapped.state_dict().items()}
        save_file(state, f"{out}/{kind}-{rank}-state.safetensors")
    torch.distributed.destroy_process_group()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.contiguous() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.filterwarnings("ignore:The network is being trained in eval mode")
def test_gradients_of_two_processes_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    assert in_two(backward, str(tmp_path)) == [0, 0]
    for kind, model in networks().items():
        loss_of(model, photographs()).backward()  # type: ignore[no-untyped-call]
        expected = gradients(model)
        assert set(expected) == {name for name, _ in model.named_parameters()}
        assert any(".slots." in name for name in expected)
        largest = max(value.abs().max().item() for value in expected.values())
        for rank in (0, 1):
            found = load_file(tmp_path / f"{kind}-{rank}.safetensors")
            assert set(found) == set(expected)
            for name, value in expected.items():
                torch.testing.assert_close(found[name], value, atol=1e-12 * largest, rtol=0)
        # The network inside the wrapper is saved, with its own names.
        state = load_file(tmp_path / f"{kind}-1-state.safetensors")
        own = {name.removeprefix("module."): value for name, value in state.items()}
        again = create(GATED, num_classes=5, seed=1).double()
        missing = again.load_state_dict(own, strict=isinstance(model, Classifier)).missing_keys
        assert all(name.startswith("fc.") for name in missing)
        assert all(torch.equal(again.state_dict()[n], v) for n, v in model.state_dict().items())
