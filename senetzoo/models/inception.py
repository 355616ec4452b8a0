"""Shared parts of the Inception networks: convolutions, parallel branches, and three stages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import takewhile
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.conv import ConvNormAct
from senetzoo.nn.init import init_convs
from senetzoo.nn.maps import AuxOutput, doubling
from senetzoo.nn.slots import Slots, unit
from senetzoo.nn.trunk import module_at

Kernel: TypeAlias = int | tuple[int, int]
# Output channels and kernel of a convolution, then its stride and padding if they are not 1 and
# "same".
Layer: TypeAlias = tuple[int, Kernel] | tuple[int, Kernel, int, int]

SMALL_FORM = (
    "The same layers with the same parameters; {} has stride 1{}, and every convolution is "
    "padded: the maps are 32x32, 16x16 and 8x8."
)


def conv(
    inputs: int, outputs: int, kernel: Kernel, stride: int = 1, padding: int | str = "same"
) -> ConvNormAct:
    """A convolution with its norm and activation."""
    # The epsilon of the published weights.
    return ConvNormAct(inputs, outputs, kernel, stride, padding, eps=1e-3)


def path(
    inputs: int,
    *steps: Layer | nn.Module,
    conv: Callable[..., nn.Module] = conv,
    wrap: bool = False,
) -> nn.Module:
    """Convolutions and pools, in an `nn.Sequential` if there are several or `wrap` is true."""
    made: list[nn.Module] = []
    for step in steps:
        if isinstance(step, nn.Module):
            made.append(step)
        else:
            made.append(conv(inputs, *step))
            inputs = step[0]
    return made[0] if len(made) == 1 and not wrap else nn.Sequential(*made)


def numbered(*branches: nn.Module) -> dict[str, nn.Module]:
    """Name branches ``branch0``, ``branch1``, ..."""
    return {f"branch{index}": branch for index, branch in enumerate(branches)}


class Concat(nn.Module):
    """Parallel branches whose outputs are concatenated; with slots, an Inception module.

    Args:
        branches: The branches by child name.
        channels: Input and output channels of an Inception module; None for one without slots.
    """

    def __init__(
        self, branches: Mapping[str, nn.Module], channels: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self.names = tuple(branches)
        for name, branch in branches.items():
            self.add_module(name, branch)
        self.slots = Slots({"pre": channels[0], "standard": channels[1]}) if channels else None

    def concat(self, x: Tensor) -> Tensor:
        """The outputs of the branches, concatenated."""
        found = [getattr(self, name)(x) for name in self.names]
        return torch.cat(found, 1) if len(found) > 1 else found[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.concat(x) if self.slots is None else unit(x, self.slots, self.concat)


def average(inputs: int, outputs: int) -> nn.Module:
    """Average pooling and a 1x1 convolution."""
    return path(inputs, nn.AvgPool2d(3, 1, padding=1, count_include_pad=False), (outputs, 1))


def module(inputs: int, outputs: int, *branches: nn.Module) -> Concat:
    """An Inception module with these branches."""
    return Concat(numbered(*branches), (inputs, outputs))


class Inception(Classifier):
    """A stem of stride 8, or of stride 1 in the variant for small images, and three stages.

    Each stage but the first halves the resolution. Built by `build` of its config.

    Args:
        config: Its config.
        layers: All children except the head, in the order of torchvision's or timm's state dict;
            None for those that this variant doesn't have.
        starts: The first child of the second and of the third stage.
        channels: Channels of the map after each stage.
        init: Fan mode for initializing the convolutions; None leaves it to the caller.
        apart: Children that do not run before the global pooling.
        features: Input channels of the head, if they are not those of the last map.
        aux: Linear layers of the auxiliary heads, by the child whose output those heads take.
    """

    def __init__(
        self,
        config: Config,
        layers: Mapping[str, nn.Module | None],
        starts: tuple[str, str],
        channels: tuple[int, int, int],
        *,
        init: Literal["fan_in", "fan_out"] | None = "fan_in",
        apart: Collection[str] = (),
        features: int = 0,
        aux: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(config)
        self.aux = dict(aux or {})
        for name, layer in layers.items():
            self.register_module(name, layer)
        running = [name for name in layers if name not in apart]
        first = list(takewhile(lambda name: name != starts[0], running))
        second = list(takewhile(lambda name: name != starts[1], running[len(first) :]))
        levels = first, second, running[len(first) + len(second) :]
        self.set_levels(levels, doubling(1 if config.small else 8, 3), channels)
        self.add_head(features or channels[-1])
        if init is not None:
            init_convs(self, init)

    def classifiers(self) -> tuple[str, ...]:
        return (self.head_name, *self.aux.values())

    def forward_checked(self, x: Tensor) -> Tensor | AuxOutput:
        if not self.training or not self.aux:
            return super().forward_checked(x)
        taken = []
        for level in self._paths:
            for path in level:
                layer = module_at(self, path)
                x = x if layer is None else self._run(layer, x)
                if path in self.aux:
                    head = self.get_submodule(self.aux[path].partition(".")[0])
                    taken.append((head, x))
        return AuxOutput(self.forward_head(x), tuple(head(y) for head, y in taken))
