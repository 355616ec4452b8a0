"""Record a run from your own training loop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from senetzoo._utils.terminal import printable
from senetzoo.errors import ConfigError
from senetzoo.eval.predictions import Predictions
from senetzoo.io.save import save
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.counting import parameters
from senetzoo.nn.preprocessing import Preprocessing
from senetzoo.runs import OWN_LOOP, is_run
from senetzoo.train import evaluate, log


class Recorder:
    """Record a run from your own training loop, for `senetzoo report`.

    Use it as a context manager, ``with Recorder("runs/mine", model, classes=names) as run:``, and
    call ``run.epoch(...)`` after each epoch and ``run.end(logits, labels)`` after the last one. A
    loop that stops earlier leaves an unfinished run, which can be reported, too.

    Args:
        folder: Folder of the run; created if it doesn't exist.
        model: The network. If it is from this zoo, it is saved at the end, so `senetzoo.load` and
            all commands accept the folder; otherwise only the numbers are kept.
        classes: Names of the classes, in the order of the logits.
        data: Name of the data. All runs in a report must have the same classes.
        train_images: Number of training images in an epoch.
        variant: Name of the variant in a comparison: runs of two variants with the same seeds are
            paired in a report.
        seed: Seed of the run.
        preprocessing: Preprocessing of the images, for the saved network.
        settings: Other values for the record, as JSON: ``{"optimizer": "sgd"}``.
        command: The command line.

    Raises:
        ConfigError: There is a run in `folder`, or a value is invalid.
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
                "It takes names, one for each class.",
                'Type for example: classes=("cat", "dog")',
            )
        if isinstance(model, Classifier) and len(self.classes) != model.num_classes:
            raise ConfigError(
                f"Recorder got {len(self.classes)} class names.",
                f"The network has {model.num_classes} classes.",
                "Give a name for each class, in the order of the logits",
            )
        if is_run(self.folder):
            raise ConfigError(
                f"There is a run in {self.folder}.",
                "A recorder starts a new run and doesn't overwrite an old one.",
                "Give another folder; or delete this one, which loses its run",
            )
        name = type(model).__name__
        if isinstance(model, Classifier):
            name = f"{model.spec.name}+{model.spec.policy}".removesuffix("+none")
        recipe = {"name": OWN_LOOP, "model": name, **(settings or {})}
        self._said = {"recipe": recipe, "seed": seed, "command": command}
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        header = {
            **log.header(self._said, variant, device),
            "data": {"name": data, "train_images": train_images, "classes": list(self.classes)},
            "model": {"name": name, "params": parameters(model)},
        }
        try:
            json.dumps(header)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                "Recorder got settings that can't be written as JSON.",
                f"Python says: {error}.",
                "Use str, numbers, lists and dicts",
            ) from None
        self.folder.mkdir(parents=True, exist_ok=True)
        log.begin(self.folder, header)
        self._epochs, self._seconds, self._ended = 0, 0.0, False
        self._begun = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
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
        """Record an epoch; its duration is the time since the previous call.

        Args:
            train_loss: Mean loss of the training images.
            train_accuracy: Accuracy on the training images, from 0 to 1.
            test_loss: Mean loss of the test images, if they were evaluated.
            test_accuracy: Accuracy on the test images, from 0 to 1.
            lr: Learning rate.

        Raises:
            ConfigError: The run has ended, or a number isn't finite or not in its range.
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
            # Training loops often have scalar tensors.
            plain = given.detach() if isinstance(given, Tensor) else given
            value = None if plain is None else float(plain)
            if value is not None and not (
                math.isfinite(value) and (not name.endswith("accuracy") or 0.0 <= value <= 1.0)
            ):
                raise ConfigError(
                    f"epoch got {name}={value}.",
                    "An accuracy is a fraction from 0 to 1."
                    if name.endswith("accuracy")
                    else "It must be finite.",
                    f"Type for example: {name}=0.5",
                )
            record[name] = value
        now = time.perf_counter()
        self._epochs, spent = self._epochs + 1, now - self._begun
        self._seconds, self._begun = self._seconds + spent, now
        seconds = {"train": round(spent, 3), "data": 0.0, "test": 0.0}
        log.add(self.folder, "epoch", {"epoch": self._epochs, **record, "seconds": seconds})

    def end(self, logits: Tensor, labels: Tensor) -> dict[str, Any]:
        """Record the predictions for the test images, and save the network.

        Args:
            logits: (N, classes), of the test images.
            labels: (N,), int64, the class of each image.

        Returns:
            The results: accuracy, its interval, and more.

        Raises:
            ConfigError: No epoch was recorded, the run has ended, or the shapes don't fit.
            WeightsError: The network has weights that aren't finite.
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
                f"Logits must be finite (N, {wanted}), labels int64 (N,) from 0 to {wanted - 1}.",
                "Pass those of all test images",
            )
        if not self._epochs:
            raise ConfigError(
                f"The run in {printable(str(self.folder))} has no epoch.",
                "A run needs at least one.",
                "Call epoch(...) after each epoch",
            )
        found = Predictions(logits.detach().float().cpu(), labels.cpu())
        if isinstance(self.model, Classifier):
            save(self.model, self.folder, classes=self.classes, preprocessing=self.preprocessing)
        shown = {
            "logits": found.logits.contiguous(),
            "labels": found.labels.contiguous(),
            "mistakes": torch.zeros(0, dtype=torch.int64),
            "images": torch.zeros((0, 1, 1, 3), dtype=torch.uint8),
        }
        end = {
            "epochs": self._epochs,
            "train_seconds": round(self._seconds, 3),
            **evaluate.end(found),
        }
        log.finish(self.folder, shown, {}, end, self._said)
        self._ended = True
        return end

    def _check_open(self) -> None:
        if self._ended:
            raise ConfigError(
                f"The run in {printable(str(self.folder))} has ended.",
                "Either end() was called, or its context was left.",
                "Start another one: Recorder(folder, model, classes=names)",
            )
