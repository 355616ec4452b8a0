"""A recipe: everything that decides how a network is trained, as a frozen value."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from typing_extensions import Self

from senetzoo.errors import ConfigError, check_fields


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train.

    Args:
        name: The recipe's name.
        model: Network to train, by name; a policy may follow: ``"resnet20+se16@pre"``.
        data: ``"cifar10"``, or ``"digits"`` (scikit-learn's, which needs no file).
        phases: Resolution by time: pairs of image side and epochs at it.
        batch: Images per optimizer step, over all processes.
        optimizer: ``"sgd"`` (Nesterov), or ``"muon"`` for the convolutions and SGD for the rest.
        lr: Peak learning rate of SGD.
        muon_lr: Peak relative step of Muon.
        momentum: Momentum of SGD.
        muon_momentum: Momentum of Muon.
        weight_decay: Weight decay of SGD; never on norms, biases and gates.
        warmup: Part of the training in which the learning rate rises from 0 to its peak.
        schedule: How it falls to 0 afterwards: ``"linear"`` or ``"cosine"``.
        restart_epochs: Epochs after those of `phases`, at their last size, in which the learning
            rate starts once more and falls linearly to 0 (a warm restart: Loshchilov and Hutter
            2016, arXiv:1608.03983).
        restart_lr: Where it starts then, as a part of its peak.
        label_smoothing: Label smoothing.
        margin: Reflected pixels around an image before the random crop; 0 for no crop.
        flip: Whether images are mirrored at random.
        rotation: Largest random rotation in degrees; 0 for none.
        zoom: Largest random change of size, as a part; 0 for none.
        test_every: Evaluate on the test images after every so many epochs, and after the last.
        compile: Whether to use `torch.compile`.
    """

    name: str
    model: str
    data: Literal["cifar10", "digits"]
    phases: tuple[tuple[int, int], ...]
    batch: int = 128
    optimizer: Literal["sgd", "muon"] = "sgd"
    lr: float = 0.1
    muon_lr: float = 0.06
    momentum: float = 0.9
    muon_momentum: float = 0.6
    weight_decay: float = 5e-4
    warmup: float = 0.1
    schedule: Literal["linear", "cosine"] = "linear"
    restart_epochs: int = 0
    restart_lr: float = 0.12
    label_smoothing: float = 0.0
    margin: int = 4
    flip: bool = True
    rotation: float = 0.0
    zoom: float = 0.0
    test_every: int = 1
    compile: bool = True

    def __post_init__(self) -> None:
        choices: dict[str, tuple[str, ...]] = {
            "data": ("cifar10", "digits"),
            "optimizer": ("sgd", "muon"),
            "schedule": ("linear", "cosine"),
        }
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                raise self._wrong(field, f"one of {', '.join(allowed)}")
        phases = self.phases
        pairs = isinstance(phases, tuple) and all(
            isinstance(phase, tuple) and len(phase) == 2 and all(type(n) is int for n in phase)
            for phase in phases
        )
        if not phases or not pairs or min(min(phase) for phase in phases) < 1:
            raise self._wrong("phases", "pairs of image side and epochs, such as ((32, 10),)")
        for field, least in (("batch", 1), ("test_every", 1), ("margin", 0), ("restart_epochs", 0)):
            if type(getattr(self, field)) is not int or getattr(self, field) < least:
                raise self._wrong(field, f"a whole number of at least {least}")
        for field in (
            "warmup",
            "momentum",
            "muon_momentum",
            "label_smoothing",
            "zoom",
            "restart_lr",
        ):
            if not 0.0 <= getattr(self, field) < 1.0:
                raise self._wrong(field, "a number from 0 up to, not including, 1")
        for field in ("lr", "muon_lr", "weight_decay", "rotation"):
            if not 0.0 <= getattr(self, field) < math.inf:
                raise self._wrong(field, "a number of at least 0")

    def _wrong(self, field: str, right: str) -> ConfigError:
        return ConfigError(
            f"The recipe can't have {field}={getattr(self, field)!r}.", f"{field} is {right}."
        )

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return self._planned + self.restart_epochs

    @property
    def _planned(self) -> int:
        return sum(epochs for _, epochs in self.phases)

    def size(self, epoch: int) -> int:
        """Image side in `epoch`, counted from 0."""
        for size, epochs in self.phases:
            if epoch < epochs:
                return size
            epoch -= epochs
        return self.phases[-1][0]

    def factor(self, step: int, steps: int) -> float:
        """Learning rate in `step`, as a part of its peak.

        Args:
            step: From 0, over all epochs.
            steps: Steps of one epoch.
        """
        planned = self._planned * steps
        if step >= planned:
            return self.restart_lr * (1.0 - (step - planned) / (self.restart_epochs * steps))
        done = step / planned
        if done < self.warmup:
            return done / self.warmup
        left = (1.0 - done) / (1.0 - self.warmup)
        return left if self.schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed; an unknown field is a `ConfigError`."""
        check_fields("The recipe", changes, [field.name for field in dataclasses.fields(self)])
        return dataclasses.replace(self, **changes)

    def quick(self) -> Self:
        """The recipe shrunk to seconds: one epoch at the last size, without compiling."""
        return self.replace(phases=((self.phases[-1][0], 1),), restart_epochs=0, compile=False)
