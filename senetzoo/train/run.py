"""A run: its epochs, what it writes, and what stops it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from senetzoo._utils import environment
from senetzoo.errors import MissingExtraError, SenetzooError, TrainingError
from senetzoo.eval.predictions import Predictions
from senetzoo.io.folder import WEIGHTS
from senetzoo.io.save import write as write_network
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.counting import count
from senetzoo.runs import LOG, SUMMARY, TEST, read_log
from senetzoo.train import checkpoint, evaluate, log
from senetzoo.train.batches import Batches
from senetzoo.train.checkpoint import NEWEST, State, StepCount
from senetzoo.train.data import Data
from senetzoo.train.log import Progress
from senetzoo.train.optim import make_optimizer
from senetzoo.train.recipe import Recipe
from senetzoo.train.step import Step, Sums
from senetzoo.train.stop import Interrupted, signals

# Several processes agree on stopping and saving once in so many steps: that waits for all of them.
_AGREE_EVERY = 20


@dataclass(frozen=True)
class Options:
    """What a run may be given that does not change its result.

    Args:
        workers: Processes that read large images.
        save_minutes: Save the state within an epoch too, so often.
        tensorboard: Also write a TensorBoard log, to the folder ``tensorboard`` of the run.
    """

    workers: int = 0
    save_minutes: float = 15.0
    tensorboard: bool = False


class Trainer:
    """The state of a run and what is done with it; see `train`."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        data: Data,
        seed: int,
        accelerator: Any,
        options: Options,
        say: Callable[[str], None],
    ) -> None:
        self.recipe, self.out, self.data, self.seed = recipe, out, data, seed
        self.accelerator, self.options, self.say = accelerator, options, say
        self.main = bool(accelerator.is_main_process)
        device = accelerator.device
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        stored = checkpoint.load(out, recipe, seed, say)
        shape = len(data.classes), data.channels
        if stored is None:
            model = recipe.build(*shape, seed)
            self.start = model.load_report
        else:  # has all weights
            model = recipe.network(*shape).build(seed=seed)
            self.start = None
        if self.start is not None:
            say(f"starting from {self.start}")
        model = model.to(memory_format=layout)  # type: ignore[call-overload]
        self.counts = count(model, recipe.final_size)
        if recipe.precision == "fp64":
            model = model.double()
        self.ema: nn.Module | None = None
        if recipe.ema:
            # Copied before Accelerate binds the network's forward to itself.
            self.ema = torch.optim.swa_utils.AveragedModel(
                model,
                device=device,
                multi_avg_fn=cast(Any, torch.optim.swa_utils).get_ema_multi_avg_fn(recipe.ema),
                use_buffers=True,
            )
        self.model: Classifier = model
        optimizer = make_optimizer(model, recipe)
        if stored is not None:
            model.load_state_dict(stored["model"])
            optimizer.load_state_dict(stored["optimizer"])
        prepared, self.optimizer = accelerator.prepare(model, optimizer)
        compiled = recipe.compile and _can_compile(device)
        if compiled != recipe.compile:
            say("no C++ compiler is installed: training without torch.compile, slower")
        network = torch.compile(prepared, dynamic=False) if compiled else prepared
        self.step = Step(accelerator, network, model, self.optimizer, recipe)
        self.batches = Batches(
            recipe,
            data,
            seed,
            device,
            rank=accelerator.process_index,
            ranks=accelerator.num_processes,
            workers=options.workers,
        )
        sums = Sums.zero(len(self.step.depths), device)
        self.state = State(accelerator, model, self.optimizer, self.ema, self.batches, sums)
        if stored is not None:
            self.state.restore(stored)
        self._last_save = time.monotonic()
        self._stop = False

    def all(self, variant: str, command: str) -> dict[str, Any]:
        """Train to the end."""
        recipe = self.recipe
        self._begin(variant, command)
        per_epoch = self.batches.steps * recipe.batch
        done = self.state.position.epoch * per_epoch + self.state.position.step * recipe.batch
        self.progress = Progress(
            self.out.name, recipe.epochs * per_epoch, done, self.say, quiet=not self.main
        )
        tested = None
        with self._trackers(), signals(self._ask_to_stop):
            try:
                while self.state.position.epoch < recipe.epochs:
                    tested = self._epoch()
            except RuntimeError as error:
                if isinstance(error, SenetzooError) or self.accelerator.num_processes == 1:
                    raise
                raise self._broken(error) from error
            finally:
                self.progress.close()
        return self._end(tested or self._test(self.ema or self.model, recipe.final_size), command)

    def _epoch(self) -> Predictions | None:
        """The rest of an epoch, its test, and its record; the test of what is to be saved."""
        recipe, steps, number = self.recipe, self.batches.steps, self.state.position.epoch
        peaks = [group["peak"] for group in self.optimizer.param_groups]
        self.model.train()
        size, factor = recipe.size(number), 0.0
        batches = self.batches.epoch(number, self.state.position.step, self.state.sampler)
        begun = time.perf_counter()
        for batch in batches:
            ready = time.perf_counter()
            factor = recipe.factor(number * steps + self.state.position.step, steps)
            for group, peak in zip(self.optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            self.step(batch, self.state.sums)
            if self.ema is not None:
                cast(Any, self.ema).update_parameters(self.model)
            self.state.position = StepCount(number, self.state.position.step + 1)
            last = self.state.position.step == steps
            if self.progress.advance(recipe.batch) or last:
                self._check_loss()  # before the clock is read: it waits for the device
                self._show()
            now = time.perf_counter()
            self.state.sums.data += ready - begun
            self.state.sums.train += now - begun
            begun = now
            if not last:
                self._pause()
                begun = time.perf_counter()
        lr = recipe.lr * recipe.factor(number * steps + steps - 1, steps)
        record, tested = self._record(number, size, lr)
        if self.main:
            self.progress.epoch(record, recipe.epochs)
            log.add(self.out, "epoch", record)
            self._track(record)
        self.state.position = StepCount(number + 1)
        self.state.sums = Sums.zero(len(self.step.depths), self.accelerator.device)
        self.state.sampler = None
        self._save()
        if self._agreed(self._stop):
            raise self._interrupted()
        return tested

    def _record(
        self, number: int, size: int, lr: float
    ) -> tuple[dict[str, Any], Predictions | None]:
        recipe, sums, accelerator = self.recipe, self.state.sums, self.accelerator
        loss, right = accelerator.reduce(torch.stack([sums.loss, sums.right]), "sum").tolist()
        images = sums.steps * recipe.batch
        record: dict[str, Any] = {
            "epoch": number + 1,
            "size": size,
            "lr": lr,
            "train_loss": round(loss / accelerator.num_processes / sums.steps, 5),
            "train_accuracy": round(right / images, 5),
            "test_loss": None,
            "test_accuracy": None,
        }
        begun = time.perf_counter()
        tested = None
        if (number + 1) % recipe.test_every == 0 or number + 1 == recipe.epochs:
            side = recipe.test_size or size
            for prefix, model in (("", self.model), ("ema_", self.ema)):
                if model is not None:
                    tested = self._test(model, side)
                    record[f"{prefix}test_loss"] = round(tested.loss, 5)
                    record[f"{prefix}test_accuracy"] = round(tested.accuracy, 5)
        norms = (sums.norms / sums.steps).tolist()
        record["gradient_norm"] = {
            name: float(f"{norm:.6g}") for name, norm in zip(self.step.depths, norms, strict=True)
        }
        record["seconds"] = {
            "train": round(sums.train, 3),
            "data": round(sums.data, 3),
            "test": round(time.perf_counter() - begun, 3),
        }
        record["images_per_second"] = round(images / max(sums.train, 1e-9), 1)
        return record, tested

    def _test(self, model: nn.Module, size: int) -> Predictions:
        inner = cast(Any, model).module if model is self.ema else model
        return evaluate.classify(
            inner, self.data, self.recipe, size, self.accelerator, workers=self.options.workers
        )

    # What is written

    def _begin(self, variant: str, command: str) -> None:
        if not self.main:
            return
        header: dict[str, Any] = {
            "recipe": dataclasses.asdict(self.recipe),
            "variant": variant,
            "seed": self.seed,
            "command": command,
            "data": {
                "name": self.data.title,
                "train_images": self.data.count,
                "test_images": len(self.data.test),
                "classes": list(self.data.classes),
            },
            "environment": {
                **environment.environment(self.accelerator.device, torch.get_num_threads()),
                "machine": environment.machine(),
                "processes": self.accelerator.num_processes,
            },
            "model": {
                "name": self.recipe.model,
                "params": self.counts.params,
                "macs": self.counts.macs,
            },
        }
        if self.start is not None:
            header["model"] |= {"start": self.start.tag, "start_sha256": self.start.sha256}
        if self.state.saved is not None:
            self.say(f"{self.out}: going on after {self.state.position}")
        log.begin(self.out, header, self.state.saved)

    def _end(self, tested: Predictions, command: str) -> dict[str, Any]:
        from safetensors.torch import save

        epochs = (
            [line for line in read_log(self.out / LOG) if line["kind"] == "epoch"]
            if self.main
            else []
        )
        end = {
            "epochs": self.recipe.epochs,
            "train_seconds": round(sum(line["seconds"]["train"] for line in epochs), 3),
            **evaluate.end(tested),
        }
        if self.main:
            model = cast(Any, self.ema).module if self.ema is not None else self.model
            with checkpoint.writing(self.out / WEIGHTS):
                write_network(
                    model,
                    self.out,
                    classes=self.data.classes,
                    preprocessing=self.data.preprocessing(self.recipe),
                )
            shown = evaluate.record(tested, self.data, self.recipe)
            checkpoint.write(self.out / TEST, save(shown))
            log.add(self.out, "end", end)
            summary = {
                "recipe": dataclasses.asdict(self.recipe),
                "seed": self.seed,
                "command": command,
                "revision": environment.revision(),
                "machine": environment.machine(),
                **end,
            }
            text = json.dumps(summary, indent=1) + "\n"
            checkpoint.write(self.out / SUMMARY, text.encode())
        self.accelerator.wait_for_everyone()
        return end

    @contextmanager
    def _trackers(self) -> Iterator[None]:
        self._tracker: Any = None
        if self.options.tensorboard and self.main:
            try:
                from accelerate.tracking import TensorBoardTracker

                self._tracker = TensorBoardTracker("tensorboard", logging_dir=self.out)
                self._tracker.start()
            except (ImportError, ValueError):
                raise MissingExtraError("--tensorboard", "tensorboard", "train") from None
        try:
            yield
        finally:
            if self._tracker is not None:
                self._tracker.finish()

    def _track(self, record: dict[str, Any]) -> None:
        if self._tracker is None:
            return
        flat = {k: v for k, v in record.items() if isinstance(v, float)}
        flat |= {f"gradient_norm/{k}": v for k, v in record["gradient_norm"].items()}
        self._tracker.log(flat, step=record["epoch"])

    def _save(self) -> None:
        self.state.save(self.out, self.recipe, self.seed)
        self._last_save = time.monotonic()

    # What stops a run

    def _pause(self) -> None:
        """Between two steps: save where it is time or Ctrl-C was pressed, and stop there."""
        ranks = self.accelerator.num_processes
        if ranks > 1 and self.state.position.step % _AGREE_EVERY:
            return
        due = time.monotonic() - self._last_save > 60 * self.options.save_minutes
        if ranks == 1 and not (due or self._stop):
            return
        stop = self._agreed(self._stop)
        if stop or self._agreed(due):
            self._check_loss()
            self._save()
        if stop:
            raise self._interrupted()

    def _agreed(self, mine: bool) -> bool:
        """Whether any process says so."""
        if self.accelerator.num_processes == 1:
            return mine
        flag = torch.tensor(float(mine), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)

    def _ask_to_stop(self) -> None:
        self._stop = True
        self.progress.say("stopping after this step; once more to stop at once")

    def _interrupted(self) -> Interrupted:
        return Interrupted(
            f"The run in {self.out} was interrupted.\n"
            f"All up to {self.state.position} is saved.\n"
            "Type the same command again to go on"
        )

    def _show(self) -> None:
        images = self.state.sums.steps * self.recipe.batch / self.accelerator.num_processes
        loss = float(self.state.sums.loss) / self.state.sums.steps
        self.progress.show(
            self.state.position.epoch + 1, loss, float(self.state.sums.right) / images
        )

    def _check_loss(self) -> None:
        if self.state.sums.finite():
            return
        value = float(self.state.sums.loss)
        what = "The loss" if value != value or abs(value) == float("inf") else "A gradient"
        raise TrainingError(
            f"{what} of {self.recipe.name} is {value if what == 'The loss' else 'not finite'} "
            f"in epoch {self.state.position.epoch + 1}.",
            f"The run diverged; {self.out / NEWEST} has the state of {self.state.saved}."
            if self.state.saved is not None
            else "The run diverged in its first epoch.",
            f"Type for example: --set lr={self.recipe.lr / 2:g}, with another --out",
        )

    def _broken(self, error: RuntimeError) -> TrainingError:
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        return TrainingError(
            f"Process {rank} of {ranks} can't go on in epoch {self.state.position.epoch + 1}; "
            "another one may have died.",
            (str(error).partition("\n")[0] or type(error).__name__) + ".",
            f"Type the same command again: {self.out / NEWEST} has the state of {self.state.saved}"
            if self.state.saved is not None
            else "Type the same command again",
        )


def _can_compile(device: torch.device) -> bool:
    """Whether inductor has what it needs: on the CPU, a C++ compiler."""
    compilers = (os.environ.get("CXX"), "c++", "g++", "clang++", "cl")
    return device.type != "cpu" or any(shutil.which(name) for name in compilers if name)
