"""The best weights on the validation images."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from senetzoo.eval.predictions import Predictions, Tally
from senetzoo.train.recipe import Recipe


@dataclass
class Best:
    """The best evaluated epoch; part of a checkpoint.

    Args:
        epoch: Its number, from 1; 0 before the first one.
        score: Accuracy on the validation images (the mean over the classes if the loss weighs
            classes equally), and the negative loss to break ties.
        state: The weights after it.
    """

    epoch: int = 0
    score: list[float] = field(default_factory=lambda: [-1.0, 0.0])
    state: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, epoch: int, tested: Predictions, network: nn.Module, recipe: Recipe) -> None:
        """Keep the weights of an epoch if they are better."""
        accuracy = tested.accuracy
        if recipe.class_weights:
            classes = [Tally("", *pair).accuracy for pair in tested.by_class() if pair[1]]
            accuracy = sum(classes) / len(classes)
        score = [accuracy, -tested.loss]
        if score > self.score:
            state = {name: value.detach().clone() for name, value in network.state_dict().items()}
            self.epoch, self.score, self.state = epoch, score, state

    def settled(self, epoch: int, recipe: Recipe) -> bool:
        """Whether the recipe's patience has run out without an improvement."""
        return bool(recipe.patience and self.epoch and epoch - self.epoch >= recipe.patience)
