"""The last layer of a network: a linear layer, or none."""

from __future__ import annotations

from torch import nn

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
