"""What a network gives: logits of several heads, and maps of several sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class AuxOutput(NamedTuple):
    """What a network with auxiliary heads gives in training mode.

    Args:
        logits: Logits (N, num_classes).
        aux: Logits of the auxiliary heads, from the input on, each (N, num_classes).
    """

    logits: Tensor
    aux: tuple[Tensor, ...]


@dataclass(frozen=True)
class FeatureInfo:
    """One of the maps that `Classifier.feature_maps` gives.

    Args:
        stride: Pixels of the input for one of the map, in each direction.
        channels: Channels of the map.
    """

    stride: int
    channels: int


class FeatureInfos(tuple[FeatureInfo, ...]):
    """The maps that a network gives, in order; timm's words for all of them at once."""

    __slots__ = ()

    def channels(self) -> list[int]:
        """Channels of each map."""
        return [info.channels for info in self]

    def reduction(self) -> list[int]:
        """Stride of each map."""
        return [info.stride for info in self]


def doubling(first: int, stages: int) -> list[int]:
    """`first`, twice that, and so on: the strides of most networks, and often the channels."""
    return [first * 2**stage for stage in range(stages)]
