"""Inception v4.

Szegedy et al. 2016, "Inception-v4, Inception-ResNet and the Impact of Residual Connections on
Learning" (arXiv:1602.07261), Fig. 9. Child names are ours, with one child for each box of that
figure; inside the modules they are timm's (``branch0``, ``branch1.0``, ...).

===========  ====================  ================
child        box of Fig. 9         output at 299x299
===========  ====================  ================
stem         Stem (Fig. 3)         35x35 x  384
stage1       4 x Inception-A (4)   35x35 x  384
stage2.0     Reduction-A (7)       17x17 x 1024
stage2.1-7   7 x Inception-B (5)   17x17 x 1024
stage3.0     Reduction-B (8)       8x8   x 1536
stage3.1-3   3 x Inception-C (6)   8x8   x 1536
===========  ====================  ================
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from torch import nn

from senetzoo._utils.checks import PositiveInt, Rate
from senetzoo.models.family import SZEGEDY_2016, Family
from senetzoo.models.inception import (
    SMALL_FORM,
    Concat,
    Inception,
    average,
    conv,
    module,
    numbered,
    path,
)
from senetzoo.nn.classifier import Config


@dataclass(frozen=True, kw_only=True)
class InceptionV4Config(Config):
    """An Inception v4.

    ``stem="cifar"`` has the same layers with the same parameters, but all layers of the stem have
    stride 1, and all layers that the paper leaves unpadded are padded: the maps of a 32x32 image
    are 32x32, 16x16 and 8x8. With ``stem="imagenet"``, those of a 299x299 image are
    35x35, 17x17 and 8x8.

    Args:
        depths: Numbers of modules A, B and C; a reduction comes before the first B and the first C.
    """

    sizes = MappingProxyType({"imagenet": 299, "cifar": 32})
    has_branches: ClassVar[bool] = False

    # Fig. 9: keep 0.8.
    dropout: Rate = 0.2
    depths: tuple[PositiveInt, PositiveInt, PositiveInt] = (4, 7, 3)

    @property
    def min_size(self) -> int:
        return 1 if self.small else 75

    def build(self) -> Inception:
        (a, b, c), padding = self.depths, 1 if self.small else 0
        layers = {
            # Not a unit, although it ends like a reduction: the paper draws it as one box.
            "stem": _stem(self.in_chans, self.small),
            "stage1": nn.Sequential(*(_inception_a() for _ in range(a))),
            "stage2": nn.Sequential(_reduction_a(padding), *(_inception_b() for _ in range(b))),
            "stage3": nn.Sequential(_reduction_b(padding), *(_inception_c() for _ in range(c))),
        }
        # Initialized as in the authors' TF-slim code; the paper does not specify it.
        return Inception(self, layers, ("stage2", "stage3"), (384, 1024, 1536))


def _stem(inputs: int, small: bool) -> nn.Sequential:
    """Fig. 3: from the image to 384 channels."""
    # Stride of the layers that have stride 2 in the figure, and padding of the unpadded ones.
    stride, padding = (1, 1) if small else (2, 0)

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, stride, padding)

    return nn.Sequential(
        conv(inputs, 32, 3, stride, padding),
        conv(32, 32, 3, 1, padding),
        conv(32, 64, 3),
        Concat(numbered(pool(), path(64, (96, 3, stride, padding)))),
        Concat(
            numbered(
                path(160, (64, 1), (96, 3, 1, padding)),
                path(160, (64, 1), (64, (1, 7)), (64, (7, 1)), (96, 3, 1, padding)),
            )
        ),
        Concat(numbered(path(192, (192, 3, stride, padding)), pool())),
    )


def _inception_a() -> nn.Module:
    """Fig. 4, 35x35."""
    return module(
        384,
        384,
        path(384, (96, 1)),
        path(384, (64, 1), (96, 3)),
        path(384, (64, 1), (96, 3), (96, 3)),
        average(384, 96),
    )


def _inception_b() -> nn.Module:
    """Fig. 5, 17x17."""
    return module(
        1024,
        1024,
        path(1024, (384, 1)),
        path(1024, (192, 1), (224, (1, 7)), (256, (7, 1))),
        path(1024, (192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))),
        average(1024, 128),
    )


def _inception_c() -> nn.Module:
    """Fig. 6, 8x8: two branches end in parallel 1x3 and 3x1 convolutions."""

    def split(inputs: int) -> nn.Module:
        return Concat(numbered(path(inputs, (256, (1, 3))), path(inputs, (256, (3, 1)))))

    return module(
        1536,
        1536,
        path(1536, (256, 1)),
        path(1536, (384, 1), split(384)),
        path(1536, (384, 1), (448, (3, 1)), (512, (1, 3)), split(512)),
        average(1536, 256),
    )


def _reduction_a(padding: int) -> nn.Module:
    """Fig. 7, 35x35 to 17x17; k, l, m, n of Table 1 are 192, 224, 256, 384."""
    return module(
        384,
        384 + 256 + 384,
        path(384, (384, 3, 2, padding)),
        path(384, (192, 1), (224, 3), (256, 3, 2, padding)),
        nn.MaxPool2d(3, 2, padding),
    )


def _reduction_b(padding: int) -> nn.Module:
    """Fig. 8, 17x17 to 8x8."""
    return module(
        1024,
        192 + 320 + 1024,
        path(1024, (192, 1), (192, 3, 2, padding)),
        path(1024, (256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3, 2, padding)),
        nn.MaxPool2d(3, 2, padding),
    )


FAMILY = Family(
    title="Inception v4",
    papers={"*": SZEGEDY_2016},
    small=SMALL_FORM.format("the whole stem", ""),
    networks={"inception_v4": InceptionV4Config()},
)
