"""A training run: its epochs, what it writes, and what stops it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import swa_utils

from senetzoo import own
from senetzoo._utils import environment
from senetzoo._utils.terminal import echo
from senetzoo.data.split import Images
from senetzoo.errors import SenetzooError, TrainingError, first_line
from senetzoo.eval.predictions import Predictions
from senetzoo.io.folder import WEIGHTS
from senetzoo.io.save import write as write_network
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.counting import count
from senetzoo.registry import ENTRIES
from senetzoo.runs import LOG, read_log
from senetzoo.spec import name_of
from senetzoo.train import checkpoint, evaluate, log, stop
from senetzoo.train.batches import Batches, WorkerError, worker_error
from senetzoo.train.best import Best
from senetzoo.train.checkpoint import NEWEST, StepCount
from senetzoo.train.data import Data
from senetzoo.train.log import Progress
from senetzoo.train.optim import freeze, make_optimizer
from senetzoo.train.recipe import Options, Recipe
from senetzoo.train.step import Step, Sums
from senetzoo.train.stop import signals

# Steps between agreements of several processes on stopping and saving, which synchronize them.
_AGREE_EVERY = 20


class Trainer:
    """The state of a run; see `train`."""

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
        device = accelerator.device
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        stored = checkpoint.load(out, recipe, seed, say)
        shape = len(data.classes), data.channels
        model: Classifier = (
            recipe.build(*shape, seed)
            if stored is None
            else recipe.network(*shape).build(seed=seed)  # all weights are in the checkpoint
        )
        self.start = model.load_report
        # Names of the parameters that the initial weights don't cover.
        self.fresh: list[str] = stored.get("fresh", []) if stored is not None else []
        if self.start is not None:
            say(f"starting from {self.start}")
            self.fresh = [name for name, _ in self.start.replaced]
        self.frozen = freeze(model, recipe, self.fresh)
        model.uncalibrate()
        model._small_warned = True  # `train` says it, on the command line only once
        model = model.to(memory_format=layout)  # type: ignore[call-overload]
        self.counts = count(model, recipe.final_size)
        if recipe.precision == "fp64":
            model = model.double()
        self.model, self.ema = model, None
        # Networks to test, by the prefix of their results; the last one is saved at the end.
        self.networks: dict[str, nn.Module] = {"": model}
        if recipe.ema:
            # Copy before Accelerate wraps the forward of the network.
            average = cast(Any, swa_utils).get_ema_multi_avg_fn(recipe.ema)
            self.ema = swa_utils.AveragedModel(
                model, device, multi_avg_fn=average, use_buffers=True
            )
            self.networks["ema_"] = self.ema.module
        *_, self.final = self.networks.values()
        self.best = Best() if recipe.keep == "best" else None
        optimizer = make_optimizer(model, recipe, self.fresh)
        if stored is not None:
            model.load_state_dict(stored["model"])
            optimizer.load_state_dict(stored["optimizer"])
        prepared, self.optimizer = accelerator.prepare(model, optimizer)
        missing, remedy = environment.compiler_missing(device) if recipe.compile else ("", "")
        if missing:
            say(f"training without torch.compile, slower: {missing} {remedy}")
        compiled = recipe.compile and not missing
        if compiled and accelerator.is_main_process:
            echo(f"compiling {recipe.model}: the first steps take longer", err=True)
        network = torch.compile(prepared, dynamic=False) if compiled else prepared
        weights = data.class_weights().to(device) if recipe.class_weights else None
        self.step = Step(accelerator, network, model, self.optimizer, recipe, weights)
        self.batches = Batches(
            recipe,
            data,
            seed,
            device,
            rank=accelerator.process_index,
            ranks=accelerator.num_processes,
            workers=options.workers,
        )
        self.sums = Sums.zero(len(self.step.depths), device)
        self._said, self._tell = set[str](), say
        # Current position, and that of the newest checkpoint.
        self.position = StepCount()
        self.saved: StepCount | None = None
        # State of the batch generator at `position`; None at the start of an epoch.
        self.sampler: Tensor | None = None
        if stored is not None:
            self._restore(stored)
        self._last_save, self._stop, self._between_steps = time.monotonic(), False, False

    def all(self, variant: str, command: str) -> dict[str, Any]:
        """Train until the end."""
        recipe, main = self.recipe, self.accelerator.is_main_process
        if main:
            self._begin(variant, command)
        per_epoch = self.batches.steps * recipe.batch
        epochs = [(recipe.size(epoch), per_epoch) for epoch in range(recipe.epochs)]
        done = self.position.epoch * per_epoch + self.position.step * recipe.batch
        self.progress = Progress(self.out.name, epochs, done, self.say, bar=main)
        self._tell, tested = self.progress.say, None
        board = log.tensorboard(self.out) if main and self.options.tensorboard else nullcontext()
        with (
            board as self.board,
            closing(self.batches),
            closing(self.progress),
            signals(self._ask_to_stop),
        ):
            try:
                while self.position.epoch < recipe.epochs and not self._settled():
                    tested = self._epoch()
                if self.best is not None:
                    self.final.load_state_dict(self.best.state)
                held = self.data.validation
                other = held is not None and held is not self.data.test
                if self.best is not None or tested is None or other:
                    tested = self.test(self.final, recipe.final_size, self.data.test)
            except RuntimeError as error:
                if (died := worker_error(error)) is not None:
                    raise self._without_worker(died) from error
                if (cause := getattr(error, "inner_exception", None)) is not None:
                    raise TrainingError(
                        f"torch.compile fails on the network of {recipe.name}.",
                        first_line(cause),
                        "Type the same command with --no-compile",
                    ) from error
                if isinstance(error, SenetzooError) or self.accelerator.num_processes == 1:
                    raise
                epoch = self.position.epoch + 1
                raise stop.alone(self.accelerator, epoch, error, self._newest()) from error
        return self._end(tested, command)

    def _settled(self) -> bool:
        """Whether to stop early."""
        if self.best is None or not self.best.settled(self.position.epoch, self.recipe):
            return False
        self.say(
            f"{self.out}: no improvement for {self.recipe.patience} epochs, so the run ends with "
            f"the weights of epoch {self.best.epoch}"
        )
        return True

    def _epoch(self) -> Predictions | None:
        """Train the rest of an epoch, test and record it; return the last test."""
        recipe, steps, number = self.recipe, self.batches.steps, self.position.epoch
        peaks = [group["peak"] for group in self.optimizer.param_groups]
        self.model.train()
        for module in self.frozen:
            module.eval()
        begun = time.perf_counter()
        self._between_steps = True
        for batch in self.batches.epoch(number, self.position.step, self.sampler):
            self._between_steps = False
            ready = time.perf_counter()
            factor = recipe.factor(number * steps + self.position.step, steps)
            for group, peak in zip(self.optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            self.step(batch, self.sums)
            if self.ema is not None:
                self.ema.update_parameters(self.model)
            self._count_left_out()
            self.position = StepCount(number, self.position.step + 1)
            last = self.position.step == steps
            if self.progress.advance(recipe.batch) or last:
                self._check_loss()  # synchronizes with the device before the time is read
                seen = self.sums.steps * recipe.batch / self.accelerator.num_processes
                loss = float(self.sums.loss) / self.sums.steps
                self.progress.show(number + 1, loss, float(self.sums.right) / seen)
            now = time.perf_counter()
            self.sums.data += ready - begun
            self.sums.train += now - begun
            begun = now
            if not last:
                self._pause()
                begun = time.perf_counter()
            self._between_steps = True
        record, tested = self._record(number)
        self._between_steps = False
        if self.accelerator.is_main_process:
            self.progress.epoch(record, recipe.epochs)
            log.add(self.out, "epoch", record)
            if self.board is not None:
                log.track(self.board, record)
        self.position, self.sampler = StepCount(number + 1), None
        self.sums = Sums.zero(len(self.step.depths), self.accelerator.device)
        self._save()
        if self._agreed(self._stop):
            raise stop.interrupted(self.out, str(self.position))
        return tested

    def _count_left_out(self) -> None:
        """Count images that can't be read, and report each once."""
        self.sums.left_out += len(self.batches.left_out)
        for line in self.batches.left_out:
            self._say_once(f"left out: {line}")
        self.batches.left_out.clear()

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._tell(line)

    def _record(self, number: int) -> tuple[dict[str, Any], Predictions | None]:
        recipe, sums, accelerator = self.recipe, self.sums, self.accelerator
        mine = torch.stack([sums.loss, sums.right, torch.full_like(sums.loss, sums.left_out)])
        loss, right, left_out = accelerator.reduce(mine, "sum").tolist()
        images, steps = sums.steps * recipe.batch, self.batches.steps
        record: dict[str, Any] = {
            "epoch": number + 1,
            "size": recipe.size(number),
            "lr": recipe.lr * recipe.factor(number * steps + steps - 1, steps),
            "train_loss": round(loss / accelerator.num_processes / sums.steps, 5),
            "train_accuracy": round(right / images, 5),
            "test_loss": None,
            "test_accuracy": None,
        }
        begun = time.perf_counter()
        tested, held = None, self.data.validation
        part, on = ("test", self.data.test) if held is None else ("val", held)
        if (number + 1) % recipe.test_every == 0 or number + 1 == recipe.epochs:
            for prefix, network in self.networks.items():
                tested = self.test(network, recipe.test_size or recipe.size(number), on)
                record[f"{prefix}{part}_loss"] = round(tested.loss, 5)
                record[f"{prefix}{part}_accuracy"] = round(tested.accuracy, 7)
            if self.best is not None and tested is not None:
                self.best.offer(number + 1, tested, self.final, recipe)
        if left_out:
            record["left_out"] = round(left_out)
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

    def test(self, network: nn.Module, size: int, images: Images) -> Predictions:
        """Classify `images` at `size`."""
        return evaluate.classify(
            network,
            images,
            self.data,
            self.recipe,
            size,
            self.accelerator,
            workers=self.options.workers,
            say=self._say_once,
        )

    # What is written

    def _begin(self, variant: str, command: str) -> None:
        name = name_of(self.model)
        model = {
            # "lenet5+se16" is "se_lenet5"; other policies are as they were given.
            "name": name if name in ENTRIES else self.recipe.model,
            "params": self.counts.params,
            "macs": self.counts.macs,
        }
        if self.start is not None:
            model |= {"start": self.start.tag, "start_sha256": self.start.sha256}
        device, processes = self.accelerator.device, self.accelerator.num_processes
        header = {
            **log.header(self._origin(command), variant, device, processes=processes),
            "data": {"name": self.data.title, **self.data.identity},
            "model": model,
            "own": own.versions(own.names_in(self.model.spec)),
        }
        if self.saved is not None:
            self.say(f"{self.out}: resuming after {self.position}")
        log.begin(self.out, header, self.saved)

    def _origin(self, command: str) -> dict[str, Any]:
        recipe = dataclasses.asdict(self.recipe)
        return {"recipe": recipe, "seed": self.seed, "command": command}

    def _end(self, tested: Predictions, command: str) -> dict[str, Any]:
        main = self.accelerator.is_main_process
        lines = read_log(self.out / LOG) if main else []
        seconds = [line["seconds"]["train"] for line in lines if line["kind"] == "epoch"]
        end = {
            "epochs": self.position.epoch,
            **({} if self.best is None else {"best_epoch": self.best.epoch}),
            **({"part": "val"} if self.data.test is self.data.validation else {}),
            "train_seconds": round(sum(seconds), 3),
            **evaluate.end(tested),
        }
        if main:
            recipe, data = self.recipe, self.data
            with checkpoint.writing(self.out / WEIGHTS):
                write_network(
                    cast(Classifier, self.final),
                    self.out,
                    classes=data.classes,
                    preprocessing=data.preprocessing(recipe),
                    held=True,
                )
            shown = evaluate.record(tested, data, recipe)
            files = evaluate.names(data.test, shown)
            log.finish(self.out, shown, files, end, self._origin(command))
        self.accelerator.wait_for_everyone()
        return end

    def _save(self) -> None:
        """Write a checkpoint; all processes must call it."""
        from accelerate.utils import gather_object

        device, scaler = self.accelerator.device, self.accelerator.scaler
        mine: dict[str, Any] = {"torch": torch.get_rng_state()}
        if device.type == "cuda":
            mine["cuda"] = torch.cuda.get_rng_state(device)
        rng = gather_object([mine])
        if self.accelerator.is_main_process:
            state = {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "ema": self.ema.state_dict() if self.ema is not None else None,
                "scaler": scaler.state_dict() if scaler is not None else None,
                "rng": rng,
                "sampler": self.batches.generator.get_state(),
                **self.position._asdict(),
                "sums": dataclasses.asdict(self.sums),
                "best": vars(self.best) if self.best is not None else None,
                "fresh": self.fresh,
                "recipe": dataclasses.asdict(self.recipe),
                "seed": self.seed,
            }
            checkpoint.save(self.out, state)
        self.saved = self.position
        self._last_save = time.monotonic()

    def _restore(self, stored: dict[str, Any]) -> None:
        """Restore a checkpoint, except the network and the optimizer."""
        device, rank = self.accelerator.device, self.accelerator.process_index
        self.position = self.saved = StepCount(stored["epoch"], stored["step"])
        if self.ema is not None:
            self.ema.load_state_dict(stored["ema"])
        if self.best is not None:
            self.best = Best(**stored["best"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(stored["scaler"])
        # Additional processes keep the state seeded by their index.
        for rng in stored["rng"][rank : rank + 1]:
            torch.set_rng_state(rng["torch"])
            if device.type == "cuda" and "cuda" in rng:
                torch.cuda.set_rng_state(rng["cuda"], device)
        if self.position.step:
            self.sampler = stored["sampler"]
            tensors = {k: v.to(device) for k, v in stored["sums"].items() if isinstance(v, Tensor)}
            self.sums = Sums(**{**stored["sums"], **tensors})

    # What stops a run

    def _pause(self) -> None:
        """Between two steps, save if it is time or Ctrl-C was pressed, and stop in that case."""
        if self.accelerator.num_processes > 1 and self.position.step % _AGREE_EVERY:
            return
        asked = self._agreed(self._stop)
        due = time.monotonic() - self._last_save > 60 * self.options.save_minutes
        if asked or self._agreed(due):
            self._check_loss()
            self._save()
        if asked:
            raise stop.interrupted(self.out, str(self.position))

    def _agreed(self, mine: bool) -> bool:
        """Whether `mine` is true in any process."""
        if self.accelerator.num_processes == 1:
            return mine
        flag = torch.tensor(float(mine), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)

    def _ask_to_stop(self) -> None:
        self._stop = True
        self.progress.say("stopping after this step; press Ctrl-C again to stop at once")

    def _without_worker(self, error: WorkerError) -> TrainingError:
        """The error after a worker died or hangs; saves the state if it is consistent."""
        if self._between_steps and self.accelerator.num_processes == 1:
            self._check_loss()
            self._save()
        return stop.without_worker(self.out, str(self.saved or ""), error)

    def _newest(self) -> str:
        """Describe the saved state; empty if there is none."""
        return "" if self.saved is None else f"{self.out / NEWEST} has the state of {self.saved}"

    def _check_loss(self) -> None:
        if not self.sums.finite():
            epoch, loss = self.position.epoch + 1, float(self.sums.loss)
            raise stop.diverged(self.recipe, loss, epoch, self._newest())
