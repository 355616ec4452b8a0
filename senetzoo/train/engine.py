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
from senetzoo._utils.terminal import echo, say_once
from senetzoo.data.hub import Stream
from senetzoo.errors import (
    ConfigError,
    MissingExtraError,
    PolicyError,
    TrainingError,
    first_line,
)
from senetzoo.runs import SUMMARY, tested
from senetzoo.train.batches import Batch
from senetzoo.train.checkpoint import NEWEST, require_same, require_same_data
from senetzoo.train.data import Data, load_data
from senetzoo.train.pace import PAYS, Pace, measure_step
from senetzoo.train.recipe import Options, Recipe, read_run
from senetzoo.train.run import Trainer

# Seconds to wait for another run in the same folder; runs take hours, so waiting doesn't help.
_GLANCE = 0.2
# Keys of a summary that are returned; runs of older versions lack the last ones.
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
    """Train a network, or resume an interrupted run of the same recipe in `out`.

    The state is saved after every epoch and on Ctrl-C. A resumed run ends with the same weights as
    an uninterrupted one, bit for bit on a CPU with the same number of threads. Runs with the same
    seed but different policies get the same batches. A process can train only one network at a
    time; torch's random state is restored at the end.

    With ``accelerate launch`` or ``torchrun``, each process takes an equal part of every batch, so
    the result doesn't depend on the number of processes for networks without batch norm. Batch
    norms normalize over the images of their process; the first process's running statistics are
    kept.

    Args:
        recipe: The recipe.
        out: Folder of the run. Contains ``log.jsonl`` (`log.begin`), the last two checkpoints, and
            at the end the network as written by `senetzoo.save` (with the weights of the moving
            average, if there is one), ``test.safetensors`` (`evaluate.record`) and
            ``summary.json``.
        data: Local copy of the data set for recipes that need one, or the data itself; None to
            fetch CIFAR.
        seed: Seed of the initialization, order and augmentation.
        variant: Name of the variant in an experiment, for the record.
        command: The command line, for the record.
        options: Options that don't change the result.
        pace: Result of `measure`; if None, a new run that isn't short is measured first, and its
            duration is reported.
        say: Called with progress lines.

    Returns:
        The last record of the log.

    Raises:
        ConfigError: The recipe doesn't fit the data, `out` contains another run, or another
            process is writing to it.
        DataError: The data can't be found or read.
        MissingExtraError: A library isn't installed.
        TrainingError: The loss isn't finite, a file can't be written, another process died, or
            another thread is training.
        Interrupted: Ctrl-C.
    """
    options, out = options or Options(), user_path(out)
    finished = (out / SUMMARY).is_file()
    if finished:
        stored, done = read_run(out)
        require_same(out, (stored, done["seed"]), (recipe, seed))
    first = launched("RANK", 0) == 0
    sets = data if isinstance(data, Data) else load_data(recipe, data)
    require_same_data(out, sets.identity, finished, say)
    if finished:
        say(f"{out}: finished, {tested(done)} accuracy {done['test_accuracy']:.2%}")
        return {key: done[key] for key in _END if key in done}
    # A stem that the recipe names is chosen.
    if first and not recipe.stem and (warning := recipe.too_small()):
        say_once(warning)
    if pace is None and _unmeasured(recipe, out, sets):
        pace = measure(recipe, sets, seed, options)
    if pace is not None:
        say(pace.said(recipe))
    with prepared(recipe, sets, seed) as accelerator:
        alone: AbstractContextManager[None] = nullcontext()
        if accelerator.is_main_process:
            alone = only_writer(
                out,
                f"A run in {out} is still running.",
                "Wait until it ends, or give another folder with --out",
                seconds=_GLANCE,
            )
        else:
            say = nothing
        with alone:
            return Trainer(recipe, out, sets, seed, accelerator, options, say).all(variant, command)


def _unmeasured(recipe: Recipe, out: Path, data: Data) -> bool:
    """Whether a run should be measured before it starts: a new run that isn't short.

    Runs on several processes, which would have to agree, and on streams, which first fill a buffer,
    can't be measured in advance. They, and resumed runs, report the remaining time while they run.
    """
    if isinstance(data.train, Stream) or launched("WORLD_SIZE", 1) > 1:
        return False
    long = recipe.epochs * (data.count // recipe.batch) > PAYS
    return long and not (out / NEWEST).is_file()


def measure(recipe: Recipe, data: Data, seed: int, options: Options) -> Pace:
    """Measure some steps and a test in a temporary run, without compiling."""
    plain = recipe.replace(compile=False)
    with tempfile.TemporaryDirectory() as folder, prepared(plain, data, seed) as accelerator:
        trainer = Trainer(plain, Path(folder), data, seed, accelerator, options, nothing)
        trainer.model.train()

        def step(batch: Batch) -> None:
            trainer.step(batch, trainer.sums)
            trainer.sums.finite()  # synchronizes with the device

        with closing(trainer.batches):
            each = measure_step(step, trainer.batches.epoch, max(1, options.workers))
        images = data.test if data.validation is None else data.validation
        some = images.first(max(1, 64 // len(data.classes)))
        begun = time.perf_counter()
        trainer.test(trainer.model, recipe.final_size, some)
        test = (time.perf_counter() - begun) / len(some) * len(images)
    return Pace(each, trainer.batches.steps, test)


@contextmanager
def prepared(recipe: Recipe, data: Data, seed: int) -> Iterator[Any]:
    """Yield an Accelerator for the recipe, with torch seeded for the run inside the context.

    Raises:
        ConfigError: The recipe doesn't fit the data or the machine.
        MissingExtraError: A library isn't installed.
        TrainingError: Another thread is training.
    """
    try:
        import accelerate  # noqa: F401
    except ImportError:
        raise MissingExtraError("Training", "accelerate", "train") from None

    if not _running.acquire(blocking=False):
        raise TrainingError(
            f"{recipe.name} can't be trained now.",
            "Another thread of this process is training, and torch has only one random state.",
            "Train one after the other, or in separate processes",
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

    # Otherwise Accelerate keeps the precision of the first run in this process.
    AcceleratorState._reset_state()
    try:
        accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),
            mixed_precision=recipe.precision if recipe.precision in ("bf16", "fp16") else "no",
            gradient_accumulation_steps=recipe.accumulate,
        )
    except ValueError as error:  # environment variables of a distributed run are incomplete
        raise ConfigError(
            f"{recipe.name} can't be trained on several processes.",
            f"Accelerate says: {first_line(error)}.",
            "Start it with accelerate launch or torchrun, or unset RANK, LOCAL_RANK and WORLD_SIZE",
        ) from error
    if recipe.precision in ("bf16", "fp16") and not accelerator.native_amp:
        raise ConfigError(
            f"precision={recipe.precision} isn't available here.",
            f"On the device '{accelerator.device}', torch would use fp32 instead.",
            "Type for example: --set precision=bf16, or --set precision=fp32",
        )
    ranks = accelerator.num_processes
    unit = ranks * recipe.accumulate
    if data.count < recipe.batch or recipe.batch % unit:
        accumulated = f" with accumulate={recipe.accumulate}" * (recipe.accumulate > 1)
        raise ConfigError(
            f"batch={recipe.batch} doesn't fit {data.count} training images on {ranks} processes"
            f"{accumulated}.",
            "Each process takes an equal part of a batch, and an epoch has at least one batch.",
            _fitting(min(data.count, max(recipe.batch, unit)) // unit * unit),
        )
    if recipe.batch == unit:
        _check_norms(recipe, data, ranks)
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), _deterministic(recipe.deterministic):
        torch.manual_seed((seed << 10) + accelerator.process_index)
        yield accelerator


def _fitting(batch: int) -> str:
    """What to type for a batch of this size; 0 if there are too few images."""
    if batch:
        return f"Type for example: --set batch={batch}"
    return "Train on more images, in fewer processes, or with a smaller accumulate"


def _check_norms(recipe: Recipe, data: Data, ranks: int) -> None:
    """Raise if a batch norm would get only one value per channel, with one image at a time."""
    why: list[str] = []
    with torch.device("meta"), torch.no_grad():
        model = recipe.network(len(data.classes), data.channels).build(seed=0).train()
        for name, module in model.named_modules():
            if isinstance(module, _BatchNorm):

                def look(_: Any, inputs: Any, name: str = name) -> None:
                    if inputs[0][:, 0].numel() == 1:
                        why.append(f"its batch norm {name} gets one value per channel")

                module.register_forward_pre_hook(look)
        for size, _ in recipe.phases:
            try:
                model(torch.empty(1, data.channels, size, size))
            except PolicyError as error:  # a gate checks before its norm runs
                why.append(str(error).partition(" in training mode")[0])
            except ValueError:  # raised by torch after the hook
                pass
            if why:
                break
        else:
            return
    parts = f", accumulate={recipe.accumulate}" * (recipe.accumulate > 1)
    parts += f", {ranks} processes" * (ranks > 1)
    raise ConfigError(
        f"batch={recipe.batch}{parts}: {recipe.model} can't be trained on one image at a time.",
        f"At {size} px, {why[0]}, and a variance needs at least two.",
        _fitting(batch if (batch := 2 * ranks * recipe.accumulate) <= data.count else 0),
    )


def nothing(_: str) -> None:
    """Ignore a line."""


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    if not wanted:
        yield
        return
    # cuBLAS requires it in this mode. The lock `PROCESS` isn't needed, because a process
    # trains one run at a time, and would be held for the whole run.
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
