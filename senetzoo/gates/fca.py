"""Frequency channel attention.

Qin, Zhang, Wu, Li 2021, "FcaNet: Frequency Channel Attention Networks" (arXiv:2012.11929), Eq. 3,
10 and 11.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from senetzoo._utils.checks import Ge, Le, PerStage
from senetzoo.gates.common import GateModule, Init, hidden
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate

# Frequencies (height, width) of a 7x7 grid, in the order of their ImageNet accuracy when used
# alone: "top16" in the authors' code.
TOP = ((0, 0), (0, 1), (6, 0), (0, 5), (0, 2), (1, 0), (1, 2), (4, 0), (5, 0), (1, 6), (3, 0),
       (0, 4), (0, 6), (0, 3), (3, 5), (2, 2))  # fmt: skip
GRID = 7


@dataclass(frozen=True)
class FCA(Gate):
    """SE whose squeeze is a cosine transform: ``y = x * sigmoid(W2 relu(W1 dct(x)))``.

    The channels are split into one part per frequency, and each part is summed over its pixels,
    weighted by the cosines of its frequency. Frequency (0, 0) alone is SE, up to a factor.

    Args:
        reduction: Divides the channels to get the hidden units, rounded down to at least 1: one
            number, or one per stage.
        frequencies: How many of the paper's 16 best frequencies.
        init: ``"paper"`` (He initialization), or ``"identity"``: the last layer is zero and the
            gate doubled, so it starts at exactly 1 and still learns.
    """

    name: ClassVar[str] = "fca"
    number: ClassVar[str] = "reduction"

    reduction: PerStage = 16
    frequencies: Annotated[int, Ge(1), Le(len(TOP))] = 16
    init: Init = "paper"

    def build(self, site: Site) -> FrequencyAttention:
        return FrequencyAttention(self, site)


class FrequencyAttention(GateModule):
    """The module of `FCA`."""

    spec: FCA

    def __init__(self, spec: FCA, site: Site) -> None:
        super().__init__(spec, site)
        channels, width = site.channels, hidden(spec, site)
        self.fc1 = nn.Linear(channels, width, bias=False)
        self.fc2 = nn.Linear(width, channels, bias=False)
        self.draw(self.fc1, last=[self.fc2])

    def waves(self, x: Tensor, axis: int) -> Tensor:
        """Cosines of each channel along the height (0) or the width (1) of `x`: (C, length)."""
        channels, length, count = x.shape[1], x.shape[2 + axis], self.spec.frequencies
        # Scaled from the 7x7 grid to this length; same as the authors' code for 14, 28 and 56.
        found = [top[axis] * length // GRID for top in TOP[:count]]
        norms = [(math.sqrt(2.0) if frequency else 1.0) / math.sqrt(length) for frequency in found]
        place = torch.arange(length, dtype=x.dtype, device=x.device) + 0.5
        waves = [
            torch.cos(math.pi * frequency / length * place) * norm
            for frequency, norm in zip(found, norms, strict=True)
        ]
        return torch.stack(waves)[[channel * count // channels for channel in range(channels)]]

    def excitation(self, x: Tensor) -> Tensor:
        """The gate's values, (N, C)."""
        # bf16 is too imprecise for a sum over a map.
        image = self.turned(x).to(torch.promote_types(x.dtype, torch.float32))
        rows, columns = self.waves(image, 0), self.waves(image, 1)
        z = torch.einsum("nchw,ch,cw->nc", image, rows, columns)
        return self.sigmoid(self.fc2(torch.relu(self.fc1(z.to(x.dtype)))))
