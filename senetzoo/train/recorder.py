"""A run that is written from one's own training loop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors.torch import save as tensor_bytes
from torch import Tensor, nn
from typing_extensions import Self

from senetzoo._utils import environment
from senetzoo._utils.terminal import printable
from senetzoo.errors import ConfigError
from senetzoo.eval.predictions import Predictions
from senetzoo.io.save import save
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.counting import parameters
from senetzoo.nn.preprocessing import Preprocessing
from senetzoo.runs import SUMMARY, TEST, is_run
from senetzoo.train import checkpoint, evaluate, log


class Recorder:
    """Write a run from a training loop of one's own, for `senetzoo report` to read.

    Use it as a context: ``with Recorder("runs/mine", model, classes=names) as run:``, in it
    ``run.epoch(...)`` after each epoch and ``run.end(logits, labels)`` after the last. A loop that
    stops before is a run that is not finished, which can be reported on too.

    Args:
        folder: Folder of the run, made where it does not exist.
        model: The network. One of this zoo is saved at the end, so that the folder is a network for
            `senetzoo.load` and every command; of another one the figures alone are kept.
        classes: Names of the classes, in the order of the logits.
        data: What the data is called. Runs in one report have the same classes.
        train_images: How many images an epoch trains on.
        variant: What tells this run from others that it is compared with: runs of two variants with
            the same seeds are paired in a report.
        seed: Its seed.
        preprocessing: What images go through before, for the saved network.
        settings: What else the record should have: ``{"optimizer": "sgd"}``; values of JSON.
        command: What was typed.

    Raises:
        ConfigError: There is a run in `folder`, or a value does not fit.
    """

    def __init__(
        self,
        folder: str | Path,
        model: nn.Module,
        *,
        classes: Sequence[str],
        data: str = "own data",
        train_images: int = 0,
        variant: str = "",
        seed: int = 0,
        preprocessing: Preprocessing | None = None,
        settings: Mapping[str, Any] | None = None,
        command: str = "",
    ) -> None:
        self.folder, self.model = Path(folder), model
        self.classes, self.preprocessing = tuple(classes), preprocessing
        if isinstance(classes, str) or not self.classes:
            raise ConfigError(
                f"Recorder got classes={classes!r}.",
                "They are names, one for each class.",
                'Type for example: classes=("cat", "dog")',
            )
        if isinstance(model, Classifier) and len(self.classes) != model.num_classes:
            raise ConfigError(
                f"Recorder got {len(self.classes)} names of classes.",
                f"The network has {model.num_classes} classes.",
                "Give one name for each, in the order of the logits",
            )
        if is_run(self.folder):
            raise ConfigError(
                f"There is a run in {self.folder}.",
                "A recorder begins a new one, and keeps what is there.",
                "Give another folder, or delete this one",
            )
        name = type(model).__name__
        if isinstance(model, Classifier):
            name = f"{model.spec.name}+{model.spec.policy}".removesuffix("+none")
        self._recipe = {"name": "own loop", "model": name, **(settings or {})}
        self._said = {"seed": seed, "command": command}
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        header = {
            "recipe": self._recipe,
            "variant": variant,
            **self._said,
            "data": {"name": data, "train_images": train_images, "classes": list(self.classes)},
            "environment": {
                **environment.environment(device, torch.get_num_threads()),
                "machine": environment.machine(),
            },
            "model": {"name": name, "params": parameters(model)},
        }
        try:
            json.dumps(header)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                "Recorder got settings that are no JSON.",
                f"Python says: {error}.",
                "Give text, numbers, lists and dictionaries",
            ) from None
        self.folder.mkdir(parents=True, exist_ok=True)
        log.begin(self.folder, header)
        self._epochs, self._seconds, self._ended = 0, 0.0, False
        self._begun = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended = True

    def epoch(
        self,
        *,
        train_loss: float | Tensor,
        train_accuracy: float | Tensor,
        test_loss: float | Tensor | None = None,
        test_accuracy: float | Tensor | None = None,
        lr: float = 0.0,
    ) -> None:
        """Note an epoch; its time is that since the one before.

        Args:
            train_loss: Mean loss of the training images.
            train_accuracy: Fraction of them that was right, from 0 to 1.
            test_loss: Mean loss of the test images, where they were looked at.
            test_accuracy: Fraction of them that was right.
            lr: Learning rate.

        Raises:
            ConfigError: The run is over, or a figure is no number or no fraction.
            TrainingError: The log can't be written.
        """
        self._check_open()
        figures: dict[str, float | Tensor | None] = {
            "lr": lr,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
        }
        record: dict[str, float | None] = {}
        for name, given in figures.items():
            # A tensor of one number is what loops have.
            plain = given.detach() if isinstance(given, Tensor) else given
            value = None if plain is None else float(plain)
            if value is not None and not (
                math.isfinite(value) and (not name.endswith("accuracy") or 0.0 <= value <= 1.0)
            ):
                raise ConfigError(
                    f"epoch got {name}={value}.",
                    "An accuracy is a fraction from 0 to 1."
                    if name.endswith("accuracy")
                    else "It is no number.",
                    f"Type for example: {name}=0.5",
                )
            record[name] = value
        now = time.perf_counter()
        self._epochs, spent = self._epochs + 1, now - self._begun
        self._seconds, self._begun = self._seconds + spent, now
        seconds = {"train": round(spent, 3), "data": 0.0, "test": 0.0}
        log.add(self.folder, "epoch", {"epoch": self._epochs, **record, "seconds": seconds})

    def end(self, logits: Tensor, labels: Tensor) -> dict[str, Any]:
        """Note what the network says of the test images, and save it.

        Args:
            logits: (N, classes).
            labels: (N,), whole numbers: the class of each image.

        Returns:
            The figures: accuracy, its interval, and more.

        Raises:
            ConfigError: No epoch was noted, the run is over, or the shapes do not fit.
            WeightsError: The network has weights that are not finite.
            TrainingError: A file can't be written.
        """
        self._check_open()
        wanted = len(self.classes)
        if (
            logits.ndim != 2
            or logits.shape[1] != wanted
            or labels.shape != logits.shape[:1]
            or labels.dtype != torch.int64
            or not len(labels)
            or not 0 <= int(labels.min()) <= int(labels.max()) < wanted
            or not bool(torch.isfinite(logits).all())
        ):
            raise ConfigError(
                f"end got logits {tuple(logits.shape)} and labels {tuple(labels.shape)}.",
                f"They are finite (N, {wanted}) and, in int64, (N,) from 0 to {wanted - 1}.",
                "Give those of all test images",
            )
        if not self._epochs:
            raise ConfigError(
                f"The run in {printable(str(self.folder))} has no epoch.",
                "A run has at least one.",
                "Call epoch(...) after each",
            )
        found = Predictions(logits.detach().float().cpu(), labels.cpu())
        if isinstance(self.model, Classifier):
            save(self.model, self.folder, classes=self.classes, preprocessing=self.preprocessing)
        shown = {
            "logits": found.logits.half().contiguous(),
            "labels": found.labels.contiguous(),
            "mistakes": torch.zeros(0, dtype=torch.int64),
            "images": torch.zeros((0, 1, 1, 3), dtype=torch.uint8),
        }
        checkpoint.write(self.folder / TEST, tensor_bytes(shown))
        end = {
            "epochs": self._epochs,
            "train_seconds": round(self._seconds, 3),
            **evaluate.end(found),
        }
        log.add(self.folder, "end", end)
        summary = {
            "recipe": self._recipe,
            **self._said,
            "revision": environment.revision(),
            "machine": environment.machine(),
            **end,
        }
        checkpoint.write(self.folder / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode())
        self._ended = True
        return end

    def _check_open(self) -> None:
        if self._ended:
            raise ConfigError(
                f"The run in {printable(str(self.folder))} is over.",
                "Its end was noted, or its context was left.",
                "Begin another one: Recorder(folder, model, classes=names)",
            )
