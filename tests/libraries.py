"""Networks of other libraries by name, and state dicts of their shapes that cost no memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from helpers import on_meta
from torch import Tensor, nn

from senetzoo import config
from senetzoo._utils.torchvision import torchvision
from senetzoo.nn.classifier import Classifier
from senetzoo.weights.dialects import Counterpart


def theirs(dialect: str, name: str) -> nn.Module:
    """A network as its library builds it."""
    torchvision()
    if dialect == "torchvision":
        from torchvision import models

        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model: nn.Module = models.get_model(name, **options)
    elif dialect == "pytorchcv":
        from pytorchcv.model_provider import get_model

        model = get_model(name)
    else:
        import timm

        model = timm.create_model(name, drop_rate=0.0)
    return model


def ours(counterpart: Counterpart) -> Classifier:
    """Our network that a counterpart says."""
    policy = f"+{counterpart.policy}" if counterpart.policy else ""
    return config(counterpart.model + policy).replace(**counterpart.changes).build(seed=0)


def ghost_of(counterpart: Counterpart) -> Classifier:
    """The same, on the meta device."""
    model = on_meta(lambda: ours(counterpart))
    assert isinstance(model, Classifier)
    return model


def numbered(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the same shapes, each full of its own number, with memory for one value."""
    return {
        name: torch.tensor(float(number)).expand(tensor.shape)
        for number, (name, tensor) in enumerate(state.items())
    }


def numbers(state: Mapping[str, Tensor]) -> dict[str, tuple[tuple[int, ...], float]]:
    """Shape and number of each."""
    return {n: (tuple(t.shape), t.reshape(-1)[0].item()) for n, t in state.items()}
