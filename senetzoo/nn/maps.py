"""Outputs of a network: logits of several heads, and maps of several sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class AuxOutput(NamedTuple):
    """Output of a network with auxiliary heads in training mode.

    Args:
        logits: Logits (N, num_classes).
        aux: Logits (N, num_classes) of each auxiliary head, from input to output.
    """

    logits: Tensor
    aux: tuple[Tensor, ...]


@dataclass(frozen=True)
class FeatureInfo:
    """One of the maps that `Classifier.feature_maps` returns.

    Args:
        stride: Input pixels per pixel of the map, in each direction.
        channels: Channels of the map.
    """

    stride: int
    channels: int


class FeatureInfos(tuple[FeatureInfo, ...]):
    """All maps of a network, in order, with the methods of timm's `FeatureInfo`."""

    __slots__ = ()

    def channels(self) -> list[int]:
        """Channels of each map."""
        return [info.channels for info in self]

    def reduction(self) -> list[int]:
        """Stride of each map."""
        return [info.stride for info in self]


def doubling(first: int, stages: int) -> list[int]:
    """`first` times 1, 2, 4, ...: the strides of most networks, and often the channels."""
    return [first * 2**stage for stage in range(stages)]
