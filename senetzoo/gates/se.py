"""Squeeze-and-Excitation.

Hu, Shen, Albanie, Sun, Wu 2017/2019, "Squeeze-and-Excitation Networks" (arXiv:1709.01507), Eq. 2-4.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo._utils.checks import PerStage, PositiveFloat, PositiveInt, Rate
from senetzoo.errors import PolicyError
from senetzoo.gates.common import GateModule, Init, for_stage, hidden
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate


@dataclass(frozen=True)
class SE(Gate):
    """Squeeze-and-Excitation: ``y = x * scale * gate(W2 act(W1 squeeze(x)))``.

    The options cover the differences between implementations of SE.

    Args:
        reduction: Divides the channels to get the hidden units: one number, or one per stage.
        width: How C / reduction is rounded: ``"floor"`` (down to at least 1; paper, pytorchcv),
            ``"round8"`` (to the nearest multiple of 8, at least 8; timm), or the number of hidden
            units itself.
        bias: Bias in both linear layers (the released Caffe networks have it, the paper's
            ablations don't).
        act: Activation of the hidden units: ``"relu"`` or ``"silu"`` (EfficientNet).
        gate: ``"sigmoid"`` or ``"hardsigmoid"`` (MobileNetV3).
        scale: Factor on the gate, and thus its upper bound.
        squeeze: ``"avg"`` or ``"max"`` (Table 11 of the paper).
        drop: Dropout on the gates in training, in [0, 1): dropped channels are zero, the others
            are divided by ``1 - drop``.
        init: ``"paper"`` (He initialization), or ``"identity"``: the last layer is zero and
            `scale` is 2, so the gate starts at exactly 1 and still learns.
    """

    name: ClassVar[str] = "se"
    number: ClassVar[str] = "reduction"

    reduction: PerStage = 16
    width: Literal["floor", "round8"] | PositiveInt = "floor"
    bias: bool = True
    act: Literal["relu", "silu"] = "relu"
    gate: Literal["sigmoid", "hardsigmoid"] = "sigmoid"
    scale: PositiveFloat = 1.0
    squeeze: Literal["avg", "max"] = "avg"
    drop: Rate = 0.0
    init: Init = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init == "identity":
            if self.scale not in (1.0, 2.0):
                raise PolicyError(
                    f"SE got init='identity' with scale={self.scale!r}.",
                    "The identity is 2 * sigmoid(0), so its scale must be 2.",
                    "Leave scale out",
                )
            object.__setattr__(self, "scale", 2.0)

    def _implied(self, field: dataclasses.Field[Any], value: object) -> bool:
        if field.name == "scale" and self.init == "identity":
            return True
        return super()._implied(field, value)

    def hidden(self, site: Site) -> int:
        """Number of hidden units at `site`."""
        if isinstance(self.width, int):
            return self.width
        if self.width == "floor":
            return hidden(self, site)
        ratio = for_stage(self, "reduction", site)
        # Half rounds up, as in timm's make_divisible.
        return max((site.channels * 2 + 8 * ratio) // (16 * ratio) * 8, 8)

    def build(self, site: Site) -> SqueezeExcitation:
        return SqueezeExcitation(self, site)


class SqueezeExcitation(GateModule):
    """The module of `SE`. `fc1` and `fc2` are linear layers: faster than 1x1 convolutions."""

    spec: SE

    def __init__(self, spec: SE, site: Site) -> None:
        super().__init__(spec, site)
        channels, width = site.channels, spec.hidden(site)
        self.fc1 = nn.Linear(channels, width, bias=spec.bias)
        self.fc2 = nn.Linear(width, channels, bias=spec.bias)
        self.draw(self.fc1, last=[self.fc2])

    @property
    def top(self) -> float:
        return self.spec.scale

    def excitation(self, x: Tensor) -> Tensor:
        """The gate's values, (N, C), before dropout."""
        spec = self.spec
        z = x.mean(self.space) if spec.squeeze == "avg" else x.amax(self.space)
        z = self.fc1(z)
        z = F.relu(z) if spec.act == "relu" else F.silu(z)
        z = self.fc2(z)
        z = torch.sigmoid(z) if spec.gate == "sigmoid" else F.hardsigmoid(z)
        return z if spec.scale == 1.0 else z * spec.scale

    def forward(self, x: Tensor) -> Tensor:
        s = self.excitation(x)
        if self.spec.drop:
            s = F.dropout(s, self.spec.drop, self.training)
        return x * self.spread(s)
