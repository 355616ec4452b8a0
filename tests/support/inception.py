"""What the tests of the Inception networks share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from senetzoo.nn.maps import AuxOutput

# Without what torchvision's networks draw, and do to an image.
THEIRS: dict[str, Any] = {"init_weights": False, "transform_input": False, "dropout": 0.0}


class AllLogits(nn.Module):
    """The logits of every head side by side, the auxiliary ones from the input on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        out: Any = self.model(x)
        if isinstance(out, Tensor):
            return out
        # torchvision's are from the end on.
        aux = out.aux if isinstance(out, AuxOutput) else out[:0:-1]
        return torch.cat([out[0], *aux], 1)


def pad_all(model: nn.Module, stem: list[nn.Module]) -> None:
    """Make the small form of another library's network: `stem` is its part with stride 1 there."""
    strided = {module for part in stem for module in part.modules()}
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.padding = (1, 1)
            if module in strided:
                module.stride = (1, 1)
        elif isinstance(module, nn.MaxPool2d):
            module.padding = 1
            if module in strided:
                module.stride = 1
