"""What the Inception networks share: their convolutions, and three stages after a stem."""

from __future__ import annotations

from typing import TypeAlias

from torch import nn

from senetzoo.nn.classifier import FeatureInfo
from senetzoo.nn.conv import ConvNormAct
from senetzoo.nn.pooled import Pooled

Kernel: TypeAlias = int | tuple[int, int]


def conv(
    inputs: int, outputs: int, kernel: Kernel, stride: int = 1, padding: int | str = "same"
) -> ConvNormAct:
    """A convolution with its norm and activation."""
    # The epsilon of the published weights.
    return ConvNormAct(inputs, outputs, kernel, stride, padding, eps=1e-3)


class InceptionNetwork(Pooled):
    """A stem that makes a map 8 times smaller, or in the small form keeps it, and three stages.

    Each stage but the first halves the map.
    """

    channels: tuple[int, int, int]
    """Channels of the map after each stage."""

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        first = 1 if self._config.small else 8
        return tuple(
            FeatureInfo(first * 2**index, channels) for index, channels in enumerate(self.channels)
        )

    @property
    def cam_layer(self) -> nn.Module:
        return self.stages()[-1][-1]
