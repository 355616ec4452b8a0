"""Inception v3.

Szegedy et al. 2015, "Rethinking the Inception Architecture for Computer Vision"
(arXiv:1512.00567). The paper's Table 1 is the older v2 with these modules; the widths below are
those of the weights that were published as v3. Child names are torchvision's, so its state dicts
load strictly, including the auxiliary head.

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

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo._utils.checks import Rate
from senetzoo.errors import ConfigError
from senetzoo.models.family import SZEGEDY_2015, Family
from senetzoo.models.inception import SMALL_FORM, Inception, Layer, conv
from senetzoo.nn.classifier import Config
from senetzoo.nn.maps import AuxOutput
from senetzoo.nn.slots import Slots, unit

# Smallest image for which the auxiliary head's unpadded 5x5 kernels fit its map.
AUX_SIZE = 299


@dataclass(frozen=True, kw_only=True)
class InceptionV3Config(Config):
    """An Inception v3.

    ``stem="cifar"`` has the same layers with the same parameters, but the stem has stride 1 and
    no pools, and all layers that the paper leaves unpadded are padded: the maps of a 32x32 image
    are 32x32, 16x16 and 8x8. With ``stem="imagenet"``, those of a 299x299 image are
    35x35, 17x17 and 8x8.

    Args:
        aux: Whether to add an auxiliary head after the 17x17 modules; in training mode the network
            then returns an `AuxOutput`, and needs images of at least 299x299 pixels.
    """

    sizes = MappingProxyType({"imagenet": 299, "cifar": 32})
    has_branches: ClassVar[bool] = False

    dropout: Rate = 0.5
    aux: bool = False

    @property
    def min_size(self) -> int:
        return 1 if self.small else 75

    def build(self) -> InceptionV3:
        # Stride of the layers that have stride 2 in the paper, and padding of the unpadded ones.
        stride, padding = (1, 1) if self.small else (2, 0)
        layers: dict[str, nn.Module | None] = {
            "Conv2d_1a_3x3": conv(self.in_chans, 32, 3, stride, padding),
            "Conv2d_2a_3x3": conv(32, 32, 3, 1, padding),
            "Conv2d_2b_3x3": conv(32, 64, 3),
            "maxpool1": None if self.small else nn.MaxPool2d(3, 2),
            "Conv2d_3b_1x1": conv(64, 80, 1),
            "Conv2d_4a_3x3": conv(80, 192, 3, 1, padding),
            "maxpool2": None if self.small else nn.MaxPool2d(3, 2),
            "Mixed_5b": figure5(192, pool=32),
            "Mixed_5c": figure5(256, pool=64),
            "Mixed_5d": figure5(288, pool=64),
            "Mixed_6a": figure10(288, padding),
            "Mixed_6b": figure6(768, width=128),
            "Mixed_6c": figure6(768, width=160),
            "Mixed_6d": figure6(768, width=160),
            "Mixed_6e": figure6(768, width=192),
            "AuxLogits": auxiliary_head(768, self.num_classes, self.small) if self.aux else None,
            "Mixed_7a": factorized10(768, padding),
            "Mixed_7b": figure7(1280),
            "Mixed_7c": figure7(2048),
        }
        return InceptionV3(
            self,
            layers,
            ("Mixed_6a", "Mixed_7a"),
            (288, 768, 2048),
            # The paper does not specify it; the authors' TF-slim code has He initialization.
            # torchvision's normal with a standard deviation of 0.1 for any fan-in makes the first
            # logits large.
            init="fan_in",
            apart=("AuxLogits",),
            aux={"Mixed_6e": "AuxLogits.fc"} if self.aux else {},
        )


Step: TypeAlias = Layer | list[Layer]
"""A convolution, or several parallel ones at the end of a branch."""
Branches: TypeAlias = Mapping[str, Sequence[Step]]


def _width(step: Step) -> int:
    """Output channels of a step."""
    return step[0] if isinstance(step, tuple) else sum(layer[0] for layer in step)


class Module(nn.Module):
    """An Inception module: parallel branches whose outputs are concatenated.

    The convolutions of a branch are children of the module itself. A single one has the name of the
    branch; otherwise ``_1``, ``_2`` ... is appended, and ``a`` and ``b`` for two parallel ones.
    ``branch_pool`` starts with an average pool; a module without it reduces the grid, and its last
    branch is a max pool.

    Args:
        inputs: Input channels.
        branches: The convolutions of each branch by its name.
        padding: Padding of the max pool.
    """

    def __init__(self, inputs: int, branches: Branches, padding: int = 0) -> None:
        super().__init__()
        # A module, because `Backbone` looks for strides among modules.
        self.pool = None if "branch_pool" in branches else nn.MaxPool2d(3, 2, padding)
        passed = 0 if "branch_pool" in branches else inputs
        outputs = passed + sum(_width(steps[-1]) for steps in branches.values())
        self.slots = Slots({"pre": inputs, "standard": outputs})
        self.names: list[list[list[str]]] = []
        for branch, steps in branches.items():
            width, names = inputs, []
            for number, step in enumerate(steps, 1):
                name = branch if len(steps) == 1 else f"{branch}_{number}"
                layers = [step] if isinstance(step, tuple) else step
                ends = "ab" if len(layers) > 1 else [""]
                names.append([name + end for end in ends])
                for child, layer in zip(names[-1], layers, strict=True):
                    self.add_module(child, conv(width, *layer))
                width = _width(step)
            self.names.append(names)

    def forward(self, x: Tensor) -> Tensor:
        return unit(x, self.slots, self.concat)

    def concat(self, x: Tensor) -> Tensor:
        """The outputs of the branches, concatenated."""
        found = []
        for *steps, last in self.names:
            y = F.avg_pool2d(x, 3, 1, 1) if last == ["branch_pool"] else x
            for (name,) in steps:
                y = getattr(self, name)(y)
            found += [getattr(self, name)(y) for name in last]
        if self.pool is not None:
            found.append(self.pool(x))
        return torch.cat(found, 1)


def figure5(inputs: int, pool: int) -> Module:
    """35x35 module (Fig. 5, but with a 5x5 convolution in one branch)."""
    return Module(
        inputs,
        {
            "branch1x1": [(64, 1)],
            "branch5x5": [(48, 1), (64, 5)],
            "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
            "branch_pool": [(pool, 1)],
        },
    )


def figure10(inputs: int, padding: int) -> Module:
    """Reduction from 35x35 to 17x17 (Fig. 10)."""
    branches: Branches = {
        "branch3x3": [(384, 3, 2, padding)],
        "branch3x3dbl": [(64, 1), (96, 3), (96, 3, 2, padding)],
    }
    return Module(inputs, branches, padding)


def figure6(inputs: int, width: int) -> Module:
    """17x17 module (Fig. 6, n = 7): factorized 7x7 convolutions, `width` channels inside."""
    wide, high = (1, 7), (7, 1)
    return Module(
        inputs,
        {
            "branch1x1": [(192, 1)],
            "branch7x7": [(width, 1), (width, wide), (192, high)],
            "branch7x7dbl": [(width, 1), (width, high), (width, wide), (width, high), (192, wide)],
            "branch_pool": [(192, 1)],
        },
    )


def factorized10(inputs: int, padding: int) -> Module:
    """Reduction from 17x17 to 8x8 (Fig. 10, but with a factorized 7x7 in the second branch)."""
    branches: Branches = {
        "branch3x3": [(192, 1), (320, 3, 2, padding)],
        "branch7x7x3": [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2, padding)],
    }
    return Module(inputs, branches, padding)


def figure7(inputs: int) -> Module:
    """8x8 module (Fig. 7): parallel 1x3 and 3x1 convolutions instead of 3x3."""
    both: Step = [(384, (1, 3)), (384, (3, 1))]
    return Module(
        inputs,
        {
            "branch1x1": [(320, 1)],
            "branch3x3": [(384, 1), both],
            "branch3x3dbl": [(448, 1), (384, 3), both],
            "branch_pool": [(192, 1)],
        },
    )


def auxiliary_head(inputs: int, num_classes: int, small: bool) -> nn.Module:
    """The auxiliary head on the last 17x17 map (Fig. 8)."""
    # In the variant for small images both 5x5 kernels are padded, so that they fit any map.
    padding = 2 if small else 0
    layers = {
        "pool": nn.AvgPool2d(5, 3, padding),
        "conv0": conv(inputs, 128, 1),
        "conv1": conv(128, 768, 5, padding=padding),
        "average": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(768, num_classes),
    }
    return nn.Sequential(OrderedDict(layers))


class InceptionV3(Inception):
    """Inception v3: built by `InceptionV3Config.build`.

    Sites: every Mixed module is a unit, including those that halve the resolution, because the SE
    paper (Fig. 2) puts a gate after a whole Inception module. The stem has none.
    """

    def forward_checked(self, x: Tensor) -> Tensor | AuxOutput:
        checks = self.aux and self.training and not self._config.small
        if checks and not torch.compiler.is_compiling() and min(x.shape[2:]) < AUX_SIZE:
            raise ConfigError(
                f"The auxiliary head got images of {x.shape[2]}x{x.shape[3]} pixels.",
                f"In training it takes at least {AUX_SIZE}x{AUX_SIZE}.",
                "Enlarge the images, or build it without aux=True",
            )
        return super().forward_checked(x)


FAMILY = Family(
    title="Inception v3",
    papers={"*": SZEGEDY_2015},
    small=SMALL_FORM.format("the stem", " and no pools"),
    networks={"inception_v3": InceptionV3Config()},
)
