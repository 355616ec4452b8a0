"""What the Inception networks share: convolutions, branches side by side, and three stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from senetzoo.nn.classifier import Classifier
from senetzoo.nn.conv import ConvNormAct
from senetzoo.nn.maps import AuxOutput, doubling
from senetzoo.nn.slots import Slots, unit

Kernel: TypeAlias = int | tuple[int, int]
# Output channels and kernel of a convolution, then its stride and padding if they are not 1 and
# what keeps the size.
Layer: TypeAlias = tuple[int, Kernel] | tuple[int, Kernel, int, int]


def conv(
    inputs: int, outputs: int, kernel: Kernel, stride: int = 1, padding: int | str = "same"
) -> ConvNormAct:
    """A convolution with its norm and activation."""
    # The epsilon of the published weights.
    return ConvNormAct(inputs, outputs, kernel, stride, padding, eps=1e-3)


def convs(inputs: int, *layers: Layer) -> list[nn.Module]:
    """Convolutions one after the other."""
    widths = [inputs, *(layer[0] for layer in layers)]
    return [conv(width, *layer) for width, layer in zip(widths, layers, strict=False)]


class Concat(nn.Module):
    """Branches on one input, their outputs concatenated.

    Args:
        branches: The branches by the names that they have as children.
    """

    def __init__(self, branches: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.names = tuple(branches)
        for name, branch in branches.items():
            self.add_module(name, branch)

    def concat(self, x: Tensor) -> Tensor:
        """The outputs of the branches, concatenated."""
        found = [getattr(self, name)(x) for name in self.names]
        return torch.cat(found, 1) if len(found) > 1 else found[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.concat(x)


class Inception(Concat):
    """An Inception module: branches with slots around all of them.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        branches: The branches by name.
    """

    def __init__(self, inputs: int, outputs: int, branches: Mapping[str, nn.Module]) -> None:
        super().__init__(branches)
        self.slots = Slots({"pre": inputs, "standard": outputs})

    def forward(self, x: Tensor) -> Tensor:
        return unit(x, self.slots, self.concat)


class InceptionNetwork(Classifier):
    """A stem that makes a map 8 times smaller, or in the small form keeps it, and three stages.

    Each stage but the first halves the map.
    """

    aux: ClassVar[Mapping[str, str]] = {}
    """Linear layers of the auxiliary heads, by the modules whose output those heads take."""

    def set_stages(self, levels: Sequence[Sequence[str]], channels: Sequence[int]) -> None:
        """What runs up to the end of each stage, by path, and the channels that it puts out."""
        self.set_levels(levels, doubling(1 if self._config.small else 8, 3), channels)

    def classifiers(self) -> tuple[str, ...]:
        there = (linear for linear in self.aux.values() if self._aux_head(linear) is not None)
        return (self.head_name, *there)

    def _aux_head(self, linear: str) -> nn.Module | None:
        """The head with this linear layer; None where the network was built without."""
        head: nn.Module | None = getattr(self, linear.partition(".")[0])
        return head

    def forward_checked(self, x: Tensor) -> Tensor | AuxOutput:
        if not self.training or len(self.classifiers()) == 1:
            return super().forward_checked(x)
        taken = []
        for level in self._paths:
            for path in level:
                x = self.get_submodule(path)(x)
                if path in self.aux:
                    taken.append((self._aux_head(self.aux[path]), x))
        logits = self.forward_head(x)
        return AuxOutput(logits, tuple(head(y) for head, y in taken if head is not None))
