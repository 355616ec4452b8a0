"""What a network gives: logits of several heads, and maps of several sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from senetzoo.nn.checkpoint import recomputed
from senetzoo.nn.slots import Layout, TensorMap, chain


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


class Trunk(nn.Module):
    """A network up to its last map, cut after each stage by `set_levels`."""

    layout: Layout = "nchw"
    """Layout of the maps inside the network."""

    feature_info: FeatureInfos
    """Stride and channels of the map after each stage."""
    _paths: tuple[tuple[str, ...], ...] = ()
    _recomputes = False

    def set_levels(
        self, levels: Iterable[Sequence[str]], strides: Iterable[int], channels: Iterable[int]
    ) -> None:
        """What runs before the pooling, cut after each stage.

        Args:
            levels: For each stage the paths of its modules in order: before the first the stem's,
                after the last what follows. A path under which there is no module is passed over.
            strides: Pixels of the input for one of the map after each stage.
            channels: Channels of that map.
        """
        self._paths = tuple(map(tuple, levels))
        self.feature_info = FeatureInfos(map(FeatureInfo, strides, channels))

    def _running(self, level: int) -> list[nn.Module]:
        """The modules that run in a level, in order."""
        found = (_at(self, path) for path in self._paths[level])
        return [module for module in found if module is not None]

    def levels(self) -> tuple[TensorMap, ...]:
        """The network before its pooling, cut after each stage: maps in `layout` in and out."""
        return tuple(chain(*self._running(level)) for level in range(len(self._paths)))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the maps between stages only in training, and compute the others once more.

        Gradients are the same; memory is bought with about a third more time.
        """
        self._recomputes = enable

    def _maps(self, x: Tensor) -> Iterator[Tensor]:
        """The map after each stage, (N, C, h, w)."""
        for level in self.levels():
            x = self._run(level, x)
            yield x if self.layout == "nchw" else x.permute(0, 3, 1, 2)

    def _run(self, part: TensorMap, x: Tensor) -> Tensor:
        recomputes = self._recomputes and self.training and torch.is_grad_enabled()
        return recomputed(self, part, x) if recomputes else part(x)


def _at(root: nn.Module, path: str) -> nn.Module | None:
    """The module under `path`, or None."""
    found: nn.Module | None = root
    for name in path.split("."):
        found = None if found is None else found._modules.get(name)
    return found


def doubling(first: int, stages: int) -> list[int]:
    """`first`, twice that, and so on: the strides of most networks, and often the channels."""
    return [first * 2**stage for stage in range(stages)]
