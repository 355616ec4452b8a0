"""The last layer of a network: a linear layer, or none."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from senetzoo.errors import ConfigError

# The error of functions that need classes.
NO_CLASSIFIER = (
    "The network has no classifier.",
    "It returns features, not classes.",
    "Train one: senetzoo finetune DATA --model FOLDER",
)


class NoClassifier(nn.Identity):
    """Placeholder for the last linear layer of a network without a classifier."""

    def __init__(self, instead_of: nn.Linear | NoClassifier) -> None:
        super().__init__()
        self.in_features: int = instead_of.in_features
        self.biased = _biased(instead_of)


def _biased(layer: nn.Linear | NoClassifier) -> bool:
    return layer.biased if isinstance(layer, NoClassifier) else layer.bias is not None


def linear_like(layer: nn.Linear | NoClassifier, outputs: int, model: nn.Module) -> nn.Linear:
    """A new linear layer to replace `layer`, on the device and in the dtype of `model`."""
    like = next(model.parameters()) if isinstance(layer, NoClassifier) else layer.weight
    return nn.Linear(
        layer.in_features, outputs, _biased(layer), device=like.device, dtype=like.dtype
    )


def check_classes(function: str, classes: Sequence[str], number: int) -> None:
    """Raise `ConfigError` if the `classes` that a function got aren't `number` names."""
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise ConfigError(
            f"{function} got classes={classes!r}.",
            "classes is a sequence of names, one for each class.",
            'Type for example: classes=("cat", "dog")',
        )
    if len(classes) != number:
        raise ConfigError(
            f"{function} got {len(classes)} class names.",
            f"The network has {number} classes.",
            "Give one name for each, in the order of the logits",
        )
