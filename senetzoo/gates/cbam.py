"""Convolutional Block Attention Module.

Woo, Park, Lee, Kweon 2018, "CBAM" (arXiv:1807.06521), Eq. 2 (channels) and 3 (space).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from senetzoo._utils.checks import Ge, Odd, PerStage
from senetzoo.gates.common import GateModule, Init, hidden, zero
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate


@dataclass(frozen=True)
class CBAM(Gate):
    """Channel attention, then spatial attention, each multiplied with the map.

    Channels: ``x * sigmoid(W2 relu(W1 mean(x)) + W2 relu(W1 max(x)))``, pooled over the pixels.
    Space: ``x * sigmoid(norm(conv([mean(x), max(x)])))``, pooled over the channels.

    Args:
        reduction: Divides the channels to get the hidden units, rounded down to at least 1: one
            number, or one per stage.
        part: ``"both"``, or ``"channel"`` or ``"spatial"`` alone.
        kernel: Kernel size of the spatial part (odd).
        bias: Bias in the layers of the channel part (the authors' code and pytorchcv have it, timm
            doesn't).
        init: ``"paper"``, or ``"identity"``: the last layers are zero and both gates doubled, so
            they start at exactly 1 and still learn. As in the authors' code, the scale of the
            spatial part's norm always starts at zero, so the paper's spatial gate starts at 1/2.
    """

    name: ClassVar[str] = "cbam"
    number: ClassVar[str] = "reduction"

    reduction: PerStage = 16
    part: Literal["both", "channel", "spatial"] = "both"
    kernel: Annotated[int, Ge(1), Odd()] = 7
    bias: bool = True
    init: Init = "paper"

    def build(self, site: Site) -> CBAMAttention:
        return CBAMAttention(self, site)


class CBAMAttention(GateModule):
    """The module of `CBAM`."""

    spec: CBAM

    def __init__(self, spec: CBAM, site: Site) -> None:
        super().__init__(spec, site)
        channels, width = site.channels, hidden(spec, site)
        if spec.part != "spatial":
            self.fc1 = nn.Linear(channels, width, bias=spec.bias)
            self.fc2 = nn.Linear(width, channels, bias=spec.bias)
            self.draw(self.fc1, last=[self.fc2])
        if spec.part != "channel":
            self.conv = nn.Conv2d(2, 1, spec.kernel, padding=spec.kernel // 2, bias=False)
            self.bn = nn.BatchNorm2d(1, momentum=0.01)
            self.draw(self.conv)
            zero(self.bn)

    @property
    def top(self) -> float:
        return super().top ** (2 if self.spec.part == "both" else 1)

    def channels(self, x: Tensor) -> Tensor:
        """Channel attention, (N, C)."""
        mean, peak = (
            self.fc2(torch.relu(self.fc1(z))) for z in (x.mean(self.space), x.amax(self.space))
        )
        return self.sigmoid(mean + peak)

    def pixels(self, x: Tensor) -> Tensor:
        """Spatial attention, (N, 1, H, W) or (N, H, W, 1)."""
        x = self.turned(x)
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return self.back(self.sigmoid(self.normalized(self.bn, self.conv(pooled))))

    def forward(self, x: Tensor) -> Tensor:
        if self.spec.part != "spatial":
            x = x * self.spread(self.channels(x))
        return x if self.spec.part == "channel" else x * self.pixels(x)
