"""Bottleneck Attention Module.

Park, Woo, Lee, Kweon 2018, "BAM: Bottleneck Attention Module" (arXiv:1807.06514), Eq. 1 to 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from senetzoo._utils.checks import PerStage, PositiveInt
from senetzoo.gates.common import GateModule, hidden
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate


@dataclass(frozen=True)
class BAM(Gate):
    """``y = x * (1 + sigmoid(channels(x) + pixels(x)))``.

    Layers as in the authors' code: each hidden layer of both branches has a batch norm and a ReLU,
    the last ones have neither. The channel branch normalizes one value per image, so training needs
    batches of at least two.

    Args:
        reduction: Divides the channels to get the hidden ones of both branches, rounded down to
            at least 1: one number, or one per stage.
        dilation: Dilation of the two 3x3 convolutions of the spatial branch.
        combine: Combination of the branches: ``"sum"`` (paper) or ``"product"`` (authors' code,
            pytorchcv).
    """

    name: ClassVar[str] = "bam"
    number: ClassVar[str] = "reduction"
    no_identity: ClassVar[str] = "BAM multiplies by 1 + sigmoid, which is never 1."

    reduction: PerStage = 16
    dilation: PositiveInt = 4
    combine: Literal["sum", "product"] = "sum"

    def build(self, site: Site) -> BottleneckAttention:
        return BottleneckAttention(self, site)


class BottleneckAttention(GateModule):
    """The module of `BAM`."""

    spec: BAM

    def __init__(self, spec: BAM, site: Site) -> None:
        super().__init__(spec, site)
        channels, width, step = site.channels, hidden(spec, site), spec.dilation
        self.fc1 = nn.Linear(channels, width)
        self.fc_bn = nn.BatchNorm1d(width)
        self.fc2 = nn.Linear(width, channels)
        self.conv1 = nn.Conv2d(channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=step, dilation=step)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 3, padding=step, dilation=step)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv4 = nn.Conv2d(width, 1, 1)
        self.draw(self.fc1, self.fc2, self.conv1, self.conv2, self.conv3, self.conv4)

    @property
    def top(self) -> float:
        return 2.0  # 1 + sigmoid

    def channels(self, x: Tensor) -> Tensor:
        """The channel branch, (N, C)."""
        z = self.normalized(self.fc_bn, self.fc1(x.mean(self.space)))
        out: Tensor = self.fc2(torch.relu(z))
        return out

    def pixels(self, x: Tensor) -> Tensor:
        """The spatial branch, (N, 1, H, W) or (N, H, W, 1)."""
        z = self.turned(x)
        z = torch.relu(self.normalized(self.bn1, self.conv1(z)))
        z = torch.relu(self.normalized(self.bn2, self.conv2(z)))
        z = torch.relu(self.normalized(self.bn3, self.conv3(z)))
        return self.back(self.conv4(z))

    def forward(self, x: Tensor) -> Tensor:
        c, s = self.spread(self.channels(x)), self.pixels(x)
        return x * (1.0 + torch.sigmoid(c + s if self.spec.combine == "sum" else c * s))
