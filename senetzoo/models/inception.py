"""What the Inception networks share: convolutions, branches side by side, and three stages."""

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
# what keeps the size.
Layer: TypeAlias = tuple[int, Kernel] | tuple[int, Kernel, int, int]

SMALL_FORM = (
    "The same layers with the same parameters; {} has stride 1{}, and every convolution is "
    "padded: maps of 32x32, 16x16 and, before the pool, 8x8."
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
    """Convolutions and pools in a sequence, where there are several or `wrap` says so."""
    made: list[nn.Module] = []
    for step in steps:
        if isinstance(step, nn.Module):
            made.append(step)
        else:
            made.append(conv(inputs, *step))
            inputs = step[0]
    return made[0] if len(made) == 1 and not wrap else nn.Sequential(*made)


def numbered(*branches: nn.Module) -> dict[str, nn.Module]:
    """Branches by their names: ``branch0``, ``branch1``, ..."""
    return {f"branch{index}": branch for index, branch in enumerate(branches)}


class Concat(nn.Module):
    """Branches on one input, their outputs concatenated; with slots an Inception module.

    Args:
        branches: The branches by the names that they have as children.
        channels: Channels in and out of an Inception module, which has slots around it.
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
    """An Inception module of such branches."""
    return Concat(numbered(*branches), (inputs, outputs))


class Inception(Classifier):
    """A stem that makes a map 8 times smaller, or in the small form keeps it, and three stages.

    Each stage but the first halves the map. Built by the `build` of its config.

    Args:
        config: Its config.
        layers: All children but the head in the order of torchvision's or timm's state dict; None
            for what this form does not have.
        starts: The first child of the second and of the third stage.
        channels: Channels of the map after each stage.
        init: What the initialization of the convolutions keeps; None leaves it to the caller.
        apart: Children that do not run before the pooling.
        features: Channels that the head takes, if not those of the last map.
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
