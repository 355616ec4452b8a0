"""The weights that do best on the validation images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from senetzoo.eval.predictions import Predictions, Tally
from senetzoo.train.recipe import Recipe


@dataclass
class Best:
    """The best of the tested epochs; part of a checkpoint.

    Args:
        epoch: Its number, from 1; 0 before the first.
        score: Accuracy on the validation images (the mean over the classes, where these count
            alike in the loss), and for equal ones the loss, negative.
        state: The weights after it.
    """

    epoch: int = 0
    score: tuple[float, float] = (-1.0, 0.0)
    state: Mapping[str, Tensor] = field(default_factory=dict)

    def offer(self, epoch: int, tested: Predictions, network: nn.Module, recipe: Recipe) -> None:
        """Take over the weights of an epoch if they do better."""
        accuracy = tested.accuracy
        if recipe.class_weights:
            classes = [Tally("", *pair).accuracy for pair in tested.by_class() if pair[1]]
            accuracy = sum(classes) / len(classes)
        score = (accuracy, -tested.loss)
        if score > self.score:
            state = {name: value.detach().clone() for name, value in network.state_dict().items()}
            self.epoch, self.score, self.state = epoch, score, state

    def settled(self, epoch: int, recipe: Recipe) -> bool:
        """Whether nothing has got better for as many epochs as the recipe waits."""
        return bool(recipe.patience and self.epoch and epoch - self.epoch >= recipe.patience)

    def as_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"epoch": self.epoch, "score": list(self.score), "state": dict(self.state)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Best:
        """The same from what `as_dict` gave."""
        accuracy, loss = stored["score"]
        return cls(stored["epoch"], (accuracy, loss), stored["state"])
