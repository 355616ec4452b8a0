"""Stems: the layers before the first stage, as a value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from torch import nn

from senetzoo._utils.checks import Example, Ge, NonEmpty, Odd, PositiveFloat, PositiveInt, check
from senetzoo.errors import ConfigError, nearest


@dataclass(frozen=True)
class Stem:
    """The convolutions before the first stage, each followed by norm and activation.

    Args:
        kernels: Kernel size of each convolution (odd; padded to keep the resolution at stride 1).
        strides: Stride of each convolution.
        widths: Output channels of each convolution as a fraction of the stem's output channels;
            the last is 1.
        pool: Whether a 3x3 max pool of stride 2 follows.
    """

    kernels: Annotated[tuple[Annotated[int, Ge(1), Odd()], ...], NonEmpty(), Example((3,))]
    strides: Annotated[tuple[PositiveInt, ...], NonEmpty(), Example((2,))]
    widths: tuple[PositiveFloat, ...] = ()
    pool: bool = False

    def __post_init__(self) -> None:
        check(self)
        widths = self.widths or (1.0,) * len(self.kernels)
        object.__setattr__(self, "widths", widths)
        if not len(self.kernels) == len(self.strides) == len(widths) or widths[-1] != 1.0:
            raise ConfigError(
                f"Stem got the kernels {self.kernels}, the strides {self.strides} "
                f"and the widths {widths}.",
                "Each convolution needs one of each, and the last width is 1.",
                "Type for example: Stem(kernels=(3,), strides=(2,), pool=True)",
            )

    @property
    def stride(self) -> int:
        """Total stride of the stem, including the pool."""
        total = 2 if self.pool else 1
        for stride in self.strides:
            total *= stride
        return total


IMAGENET = Stem(kernels=(7,), strides=(2,), pool=True)
CIFAR = Stem(kernels=(3,), strides=(1,))
# Three 3x3 convolutions instead of the 7x7, with the widths of ResNet-C/D (He et al. 2018,
# "Bag of Tricks", Fig. 2b); SENet-154 uses the same.
DEEP = Stem(kernels=(3, 3, 3), strides=(2, 1, 1), widths=(0.5, 0.5, 1.0), pool=True)

STEMS: dict[str, Stem] = {"imagenet": IMAGENET, "cifar": CIFAR, "deep": DEEP}


_TEXT = re.compile(r"(\d+)x\1/(\d+)(\+pool)?")


def as_stem(stem: Stem | str) -> Stem:
    """Look up a stem by name, or parse ``"7x7/2+pool"``; a `Stem` is returned unchanged."""
    if isinstance(stem, Stem):
        return stem
    if isinstance(stem, str) and stem in STEMS:
        return STEMS[stem]
    if isinstance(stem, str) and (found := _TEXT.fullmatch(stem)):
        return Stem(kernels=(int(found[1]),), strides=(int(found[2]),), pool=bool(found[3]))
    raise ConfigError(
        f"stem={stem!r} isn't a stem.",
        f"Use {', '.join(map(repr, STEMS))}, one like '3x3/2+pool', or a senetzoo.Stem.",
        nearest(stem, STEMS) if isinstance(stem, str) else "",
    )


def stem_convs(stem: Stem, inputs: int, outputs: int) -> nn.Module:
    """The convolutions of `stem` without the last norm and activation, to `outputs` channels.

    Several convolutions are a sequence with norms and activations in between, numbered as in timm's
    deep stems (0 conv, 1 norm, 2 activation, 3 conv ...).
    """
    layers: list[nn.Module] = []
    for index, (kernel, stride, fraction) in enumerate(
        zip(stem.kernels, stem.strides, stem.widths, strict=True)
    ):
        if index:
            layers += [nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)]
        width = int(outputs * fraction)
        layers.append(nn.Conv2d(inputs, width, kernel, stride, kernel // 2, bias=False))
        inputs = width
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)
