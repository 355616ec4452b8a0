"""Inception v3.

Szegedy et al. 2015, "Rethinking the Inception Architecture for Computer Vision"
(arXiv:1512.00567). The paper's Table 1 is the older v2 with these modules; the widths below are
those of the weights that were published as v3. Child names are torchvision's, so its state dicts
load strictly, the auxiliary head's included.

===========  ==================  =================
children     module              output at 299x299
===========  ==================  =================
Conv2d_*     convolutions, pools   35x35 x   192
Mixed_5b-5d  3 x Fig. 5            35x35 x   288
Mixed_6a     Fig. 10               17x17 x   768
Mixed_6b-6e  4 x Fig. 6, n = 7     17x17 x   768
Mixed_7a     Fig. 10               8x8   x  1280
Mixed_7b-7c  2 x Fig. 7            8x8   x  2048
===========  ==================  =================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo._utils.checks import Rate
from senetzoo.errors import ConfigError
from senetzoo.models.family import Family
from senetzoo.models.inception import InceptionNetwork, conv
from senetzoo.models.inception_v2 import SZEGEDY_2015
from senetzoo.nn.classifier import AuxOutput
from senetzoo.nn.config import Config
from senetzoo.nn.init import init_convs
from senetzoo.nn.slots import Slots, TensorMap, chain, unit

# Smallest image whose 17x17 map the auxiliary head's unpadded 5x5s fit on.
AUX_SIZE = 299


@dataclass(frozen=True, kw_only=True)
class InceptionV3Config(Config):
    """An Inception v3.

    ``stem="cifar"`` has the same layers with the same parameters, but the stem has stride 1 and
    no pools, and what the paper leaves unpadded is padded: the three kinds of modules see 32x32,
    16x16 and 8x8 maps of a 32x32 image, where they see 35x35, 17x17 and 8x8 of a 299x299 one.

    Args:
        aux: Whether there is an auxiliary head after the 17x17 modules; in training mode the
            network then gives an `AuxOutput`, and takes no image smaller than 299x299.
    """

    sizes = MappingProxyType({"imagenet": 299, "cifar": 32})
    has_branches: ClassVar[bool] = False

    dropout: Rate = 0.5
    aux: bool = False

    @property
    def min_size(self) -> int:
        return 1 if self.small else 75

    def build(self) -> InceptionV3:
        return InceptionV3(self)


class _Module(nn.Module, ABC):
    """An Inception module: branches on one input, their outputs concatenated."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.slots = Slots({"pre": inputs, "standard": outputs})

    @abstractmethod
    def branches(self, x: Tensor) -> tuple[Tensor, ...]:
        """The outputs of the branches."""

    def forward(self, x: Tensor) -> Tensor:
        return unit(x, self.slots, lambda y: torch.cat(self.branches(y), 1))


class InceptionA(_Module):
    """35x35 (Fig. 5, with one of the two 5x5s left)."""

    def __init__(self, inputs: int, pool: int) -> None:
        super().__init__(inputs, 64 + 64 + 96 + pool)
        self.branch1x1 = conv(inputs, 64, 1)
        self.branch5x5_1 = conv(inputs, 48, 1)
        self.branch5x5_2 = conv(48, 64, 5)
        self.branch3x3dbl_1 = conv(inputs, 64, 1)
        self.branch3x3dbl_2 = conv(64, 96, 3)
        self.branch3x3dbl_3 = conv(96, 96, 3)
        self.branch_pool = conv(inputs, pool, 1)

    def branches(self, x: Tensor) -> tuple[Tensor, ...]:
        return (
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(F.avg_pool2d(x, 3, 1, 1)),
        )


class InceptionB(_Module):
    """35x35 to 17x17 (Fig. 10)."""

    def __init__(self, inputs: int, padding: int) -> None:
        super().__init__(inputs, 384 + 96 + inputs)
        self.padding = padding
        self.branch3x3 = conv(inputs, 384, 3, 2, padding)
        self.branch3x3dbl_1 = conv(inputs, 64, 1)
        self.branch3x3dbl_2 = conv(64, 96, 3)
        self.branch3x3dbl_3 = conv(96, 96, 3, 2, padding)

    def branches(self, x: Tensor) -> tuple[Tensor, ...]:
        return (
            self.branch3x3(x),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            F.max_pool2d(x, 3, 2, self.padding),
        )


class InceptionC(_Module):
    """17x17 (Fig. 6, n = 7): 7x7s in factors of `width` channels."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(inputs, 192 + 192 + 192 + 192)
        self.branch1x1 = conv(inputs, 192, 1)
        self.branch7x7_1 = conv(inputs, width, 1)
        self.branch7x7_2 = conv(width, width, (1, 7))
        self.branch7x7_3 = conv(width, 192, (7, 1))
        self.branch7x7dbl_1 = conv(inputs, width, 1)
        self.branch7x7dbl_2 = conv(width, width, (7, 1))
        self.branch7x7dbl_3 = conv(width, width, (1, 7))
        self.branch7x7dbl_4 = conv(width, width, (7, 1))
        self.branch7x7dbl_5 = conv(width, 192, (1, 7))
        self.branch_pool = conv(inputs, 192, 1)

    def branches(self, x: Tensor) -> tuple[Tensor, ...]:
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        return (
            self.branch1x1(x),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(twice)),
            self.branch_pool(F.avg_pool2d(x, 3, 1, 1)),
        )


class InceptionD(_Module):
    """17x17 to 8x8 (as Fig. 10, with a factorised 7x7 in the second branch)."""

    def __init__(self, inputs: int, padding: int) -> None:
        super().__init__(inputs, 320 + 192 + inputs)
        self.padding = padding
        self.branch3x3_1 = conv(inputs, 192, 1)
        self.branch3x3_2 = conv(192, 320, 3, 2, padding)
        self.branch7x7x3_1 = conv(inputs, 192, 1)
        self.branch7x7x3_2 = conv(192, 192, (1, 7))
        self.branch7x7x3_3 = conv(192, 192, (7, 1))
        self.branch7x7x3_4 = conv(192, 192, 3, 2, padding)

    def branches(self, x: Tensor) -> tuple[Tensor, ...]:
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return (
            self.branch3x3_2(self.branch3x3_1(x)),
            self.branch7x7x3_4(seven),
            F.max_pool2d(x, 3, 2, self.padding),
        )


class InceptionE(_Module):
    """8x8 (Fig. 7): 3x3s as 1x3 and 3x1 side by side."""

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, 320 + 2 * 384 + 2 * 384 + 192)
        self.branch1x1 = conv(inputs, 320, 1)
        self.branch3x3_1 = conv(inputs, 384, 1)
        self.branch3x3_2a = conv(384, 384, (1, 3))
        self.branch3x3_2b = conv(384, 384, (3, 1))
        self.branch3x3dbl_1 = conv(inputs, 448, 1)
        self.branch3x3dbl_2 = conv(448, 384, 3)
        self.branch3x3dbl_3a = conv(384, 384, (1, 3))
        self.branch3x3dbl_3b = conv(384, 384, (3, 1))
        self.branch_pool = conv(inputs, 192, 1)

    def branches(self, x: Tensor) -> tuple[Tensor, ...]:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return (
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(F.avg_pool2d(x, 3, 1, 1)),
        )


class InceptionAux(nn.Module):
    """The auxiliary head on the last 17x17 map (Fig. 8)."""

    def __init__(self, inputs: int, num_classes: int, small: bool) -> None:
        super().__init__()
        # Both 5x5s are padded in the small form, so that they fit on a map of any size.
        self.padding = 2 if small else 0
        self.conv0 = conv(inputs, 128, 1)
        self.conv1 = conv(128, 768, 5, padding=self.padding)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 5, 3, self.padding)
        x = self.conv1(self.conv0(x))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]


class InceptionV3(InceptionNetwork):
    """Inception v3: built by `InceptionV3Config.build`.

    Sites: every Mixed module is a unit, those that halve the map too, as the SE paper (Fig. 2) puts
    a gate behind an Inception module as a whole. The stem has none.
    """

    channels = (288, 768, 2048)
    _config: InceptionV3Config
    fc: nn.Linear

    def __init__(self, config: InceptionV3Config) -> None:
        super().__init__(config)
        small = config.small
        # Stride and padding of what the paper strides by 2, and padding of what it doesn't pad.
        stride, padding = (1, 1) if small else (2, 0)
        self.Conv2d_1a_3x3 = conv(config.in_chans, 32, 3, stride, padding)
        self.Conv2d_2a_3x3 = conv(32, 32, 3, 1, padding)
        self.Conv2d_2b_3x3 = conv(32, 64, 3)
        self.maxpool1 = None if small else nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = conv(64, 80, 1)
        self.Conv2d_4a_3x3 = conv(80, 192, 3, 1, padding)
        self.maxpool2 = None if small else nn.MaxPool2d(3, 2)

        self.Mixed_5b = InceptionA(192, pool=32)
        self.Mixed_5c = InceptionA(256, pool=64)
        self.Mixed_5d = InceptionA(288, pool=64)

        self.Mixed_6a = InceptionB(288, padding)
        self.Mixed_6b = InceptionC(768, width=128)
        self.Mixed_6c = InceptionC(768, width=160)
        self.Mixed_6d = InceptionC(768, width=160)
        self.Mixed_6e = InceptionC(768, width=192)
        self.AuxLogits = InceptionAux(768, config.num_classes, small) if config.aux else None

        self.Mixed_7a = InceptionD(768, padding)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)

        self.add_head(2048)
        # The paper does not say. He initialization is what the authors' TF-slim code has;
        # torchvision's normal of deviation 0.1 whatever the fan-in makes the first logits large.
        init_convs(self, "fan_in")

    def stages(self) -> tuple[tuple[nn.Module, ...], ...]:
        return (
            (self.Mixed_5b, self.Mixed_5c, self.Mixed_5d),
            (self.Mixed_6a, self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e),
            (self.Mixed_7a, self.Mixed_7b, self.Mixed_7c),
        )

    def levels(self) -> tuple[TensorMap, ...]:
        first, second, third = (chain(*modules) for modules in self.stages())
        return lambda x: first(self.forward_stem(x)), second, third

    def forward_stem(self, x: Tensor) -> Tensor:
        """What the first module gets of an image: (N, 192, h, w)."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        if self.maxpool1 is not None:
            x = self.maxpool1(x)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        return x if self.maxpool2 is None else self.maxpool2(x)

    def forward_checked(self, x: Tensor) -> Tensor | AuxOutput:
        if self.AuxLogits is None or not self.training:
            return super().forward_checked(x)
        self._check_aux(x)
        first, second, third = self.levels()
        x = second(first(x))
        aux = self.AuxLogits(x)
        return AuxOutput(self.forward_head(third(x)), (aux,))

    def _check_aux(self, x: Tensor) -> None:
        if torch.compiler.is_compiling() or self._config.small or min(x.shape[2:]) >= AUX_SIZE:
            return
        raise ConfigError(
            f"The auxiliary head got images of {x.shape[2]}x{x.shape[3]} pixels.",
            f"In training it takes at least {AUX_SIZE}x{AUX_SIZE}.",
            "Enlarge the images, or build it without aux=True",
        )

    def classifiers(self) -> tuple[str, ...]:
        return ("fc",) if self.AuxLogits is None else ("fc", "AuxLogits.fc")

    def input_parameter(self) -> str:
        return "Conv2d_1a_3x3.conv.weight"


FAMILY = Family(
    title="Inception v3",
    papers={"*": SZEGEDY_2015},
    small="The same layers with the same parameters; the stem has stride 1 and no pools, and "
    "every convolution is padded: maps of 32x32, 16x16 and, before the pool, 8x8.",
    networks={"inception_v3": InceptionV3Config()},
)
