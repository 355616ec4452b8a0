"""The training loop, on Hugging Face Accelerate."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from senetzoo._utils.environment import launched
from senetzoo._utils.files import only_writer, user_path
from senetzoo._utils.terminal import echo
from senetzoo.data.hub import Stream
from senetzoo.errors import (
    ConfigError,
    MissingExtraError,
    PolicyError,
    TrainingError,
    first_line,
)
from senetzoo.runs import SUMMARY
from senetzoo.train.batches import Batch
from senetzoo.train.checkpoint import NEWEST, require_same, require_same_data
from senetzoo.train.data import Data, load_data
from senetzoo.train.pace import PAYS, Pace, measure_step
from senetzoo.train.recipe import Options, Recipe, read_run
from senetzoo.train.run import Trainer

# Seconds: a run takes hours, so there is no use in waiting for another one.
_GLANCE = 0.2
# What is returned of a summary; runs of older versions do not have the last.
_END = (
    *("epochs", "train_seconds", "test_accuracy", "test_images", "test_correct", "wilson"),
    *("by_class", "best_epoch", "part"),
)


def train(
    recipe: Recipe,
    out: Path,
    *,
    data: Path | Data | None = None,
    seed: int = 0,
    variant: str = "",
    command: str = "",
    options: Options | None = None,
    pace: Pace | None = None,
    say: Callable[[str], None] = echo,
) -> dict[str, Any]:
    """Train a network, resuming where an earlier run of the same recipe in `out` stopped.

    The state is saved after every epoch, and at Ctrl-C. A resumed run ends with the weights of
    the uninterrupted one, bit for bit on a CPU with the same number of threads; runs with
    different policies and the same seed see the same batches. A process trains one network at a
    time: torch's random state is the run's while it lasts, and then again what it was.

    Under ``accelerate launch`` or ``torchrun`` each process takes an equal part of every batch,
    so a network without batch norm learns the same on any number of processes. Batch norms take
    their statistics over the images of their process; running statistics are the first one's.

    Args:
        recipe: What to do.
        out: Folder of the run. It gets ``log.jsonl`` (`log.begin`), the last two checkpoints, and
            at the end the network as `senetzoo.save` writes one, for `senetzoo.load` (the moving
            average's weights, where there is one), ``test.safetensors`` (`evaluate.record`) and
            ``summary.json``.
        data: Local copy of the data set, for recipes that need one, or the data itself; without,
            CIFAR is fetched.
        seed: Seed of initialization, order and augmentation.
        variant: Which variant of an experiment this is, for the record.
        command: What was typed, for the record.
        options: What does not change the result.
        pace: What `measure` gave; without, a new run that is not short measures first, and says
            how long it will take.
        say: Where progress lines go.

    Returns:
        The record of the end, as in the log.

    Raises:
        ConfigError: The recipe does not fit the data, `out` has another run, or another process is
            writing to it.
        DataError: Data that can't be found or read.
        MissingExtraError: A library is not installed.
        TrainingError: The loss is no number, a file can't be written, another process died, or
            another thread trains.
        Interrupted: Ctrl-C.
    """
    options, out = options or Options(), user_path(out)
    finished = (out / SUMMARY).is_file()
    if finished:
        stored, done = read_run(out)
        require_same(out, (stored, done["seed"]), (recipe, seed))
    sets = data if isinstance(data, Data) else load_data(recipe, data)
    require_same_data(out, sets.identity, finished, say)
    if finished:
        say(f"{out}: finished, test accuracy {done['test_accuracy']:.2%}")
        return {key: done[key] for key in _END if key in done}
    if pace is None and _unmeasured(recipe, out, sets):
        pace = measure(recipe, sets, seed, options)
    if pace is not None:
        say(pace.said(recipe))
    with prepared(recipe, sets, seed) as accelerator:
        alone: AbstractContextManager[None] = nullcontext()
        if accelerator.is_main_process:
            alone = only_writer(
                out,
                f"A run in {out} is under way.",
                "Wait for its end, or give another folder with --out",
                seconds=_GLANCE,
            )
        else:
            say = nothing
        with alone:
            return Trainer(recipe, out, sets, seed, accelerator, options, say).all(variant, command)


def _unmeasured(recipe: Recipe, out: Path, data: Data) -> bool:
    """Whether a run takes long enough, and can be measured, before it begins.

    Several processes would have to agree on when it is enough; a stream fills its buffer first.
    Then, and after an interruption, what is left is said once some of it is done.
    """
    if isinstance(data.train, Stream) or launched("WORLD_SIZE", 1) > 1:
        return False
    long = recipe.epochs * (data.count // recipe.batch) > PAYS
    return long and not (out / NEWEST).is_file()


def measure(recipe: Recipe, data: Data, seed: int, options: Options) -> Pace:
    """Take some steps and a test in a run that is thrown away, without compiling."""
    plain = recipe.replace(compile=False)
    with tempfile.TemporaryDirectory() as folder, prepared(plain, data, seed) as accelerator:
        trainer = Trainer(plain, Path(folder), data, seed, accelerator, options, nothing)
        trainer.model.train()

        def step(batch: Batch) -> None:
            trainer.step(batch, trainer.sums)
            trainer.sums.finite()  # waits for the device

        with closing(trainer.batches):
            each = measure_step(step, trainer.batches.epoch)
        images = data.test if data.validation is None else data.validation
        some = images.first(max(1, 64 // len(data.classes)))
        begun = time.perf_counter()
        trainer.test(trainer.model, recipe.final_size, some)
        test = (time.perf_counter() - begun) / len(some) * len(images)
    return Pace(each, trainer.batches.steps, test)


@contextmanager
def prepared(recipe: Recipe, data: Data, seed: int) -> Iterator[Any]:
    """An Accelerator that fits the recipe, and torch's random state of a run inside.

    Raises:
        ConfigError: It does not fit the data or the machine.
        MissingExtraError: A library is not installed.
    """
    try:
        import accelerate  # noqa: F401
    except ImportError:
        raise MissingExtraError("Training", "accelerate", "train") from None

    if not _running.acquire(blocking=False):
        raise TrainingError(
            f"{recipe.name} can't be trained now.",
            "Another thread of this process trains, and a process has one random state.",
            "Train one after the other, or each in a process of its own",
        )
    try:
        with _prepared(recipe, data, seed) as accelerator:
            yield accelerator
    finally:
        _running.release()


_running = threading.Lock()


@contextmanager
def _prepared(recipe: Recipe, data: Data, seed: int) -> Iterator[Any]:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # Accelerate keeps the precision of the process's first run.
    AcceleratorState._reset_state()
    try:
        accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),
            mixed_precision=recipe.precision if recipe.precision in ("bf16", "fp16") else "no",
            gradient_accumulation_steps=recipe.accumulate,
        )
    except ValueError as error:  # of variables that say that this is one of several processes
        raise ConfigError(
            f"{recipe.name} can't be trained on several processes.",
            f"Accelerate says: {first_line(error)}.",
            "Start it with accelerate launch or torchrun, or unset RANK, LOCAL_RANK and WORLD_SIZE",
        ) from error
    if recipe.precision in ("bf16", "fp16") and not accelerator.native_amp:
        raise ConfigError(
            f"precision={recipe.precision} is not to be had here.",
            f"On the device '{accelerator.device}' torch would compute in fp32 instead.",
            "Type for example: --set precision=bf16, or --set precision=fp32",
        )
    ranks = accelerator.num_processes
    unit = ranks * recipe.accumulate
    if data.count < recipe.batch or recipe.batch % unit:
        accumulated = f" with accumulate={recipe.accumulate}" * (recipe.accumulate > 1)
        raise ConfigError(
            f"batch={recipe.batch} does not fit {data.count} training images on {ranks} processes"
            f"{accumulated}.",
            "Each process takes an equal part of a batch, and an epoch is at least one batch.",
            _fitting(min(data.count, max(recipe.batch, unit)) // unit * unit),
        )
    if recipe.batch == unit:
        _check_norms(recipe, data, ranks)
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), _deterministic(recipe.deterministic):
        torch.manual_seed((seed << 10) + accelerator.process_index)
        yield accelerator


def _fitting(batch: int) -> str:
    """What to type for a batch of so many images; 0 where there are too few."""
    if batch:
        return f"Type for example: --set batch={batch}"
    return "Train on more images, in fewer processes, or with a smaller accumulate"


def _check_norms(recipe: Recipe, data: Data, ranks: int) -> None:
    """Refuse to train on one image at a time where a batch norm then gets one value a channel."""
    why: list[str] = []
    with torch.device("meta"), torch.no_grad():
        model = recipe.network(len(data.classes), data.channels).build(seed=0).train()
        for name, module in model.named_modules():
            if isinstance(module, _BatchNorm):

                def look(_: Any, inputs: Any, name: str = name) -> None:
                    if inputs[0][:, 0].numel() == 1:
                        why.append(f"its batch norm {name} gets one value of each channel")

                module.register_forward_pre_hook(look)
        for size, _ in recipe.phases:
            try:
                model(torch.empty(1, data.channels, size, size))
            except PolicyError as error:  # a gate has looked before its own norm
                why.append(str(error).partition(" in training mode")[0])
            except ValueError:  # torch's, after the hook
                pass
            if why:
                break
        else:
            return
    parts = f", accumulate={recipe.accumulate}" * (recipe.accumulate > 1)
    parts += f", {ranks} processes" * (ranks > 1)
    raise ConfigError(
        f"batch={recipe.batch}{parts}: {recipe.model} can't be trained on one image at a time.",
        f"At {size} px {why[0]}, and a variance takes two.",
        _fitting(batch if (batch := 2 * ranks * recipe.accumulate) <= data.count else 0),
    )


def nothing(_: str) -> None:
    """Say nothing."""


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    if not wanted:
        yield
        return
    # What cuBLAS asks for in that mode. Without the lock of `variable_set`, which would be held as
    # long as the run takes: a process has one run at a time.
    name = "CUBLAS_WORKSPACE_CONFIG"
    had = name in os.environ
    os.environ.setdefault(name, ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        if not had:
            os.environ.pop(name, None)
