"""Inception-ResNet v1 and v2.

Szegedy et al. 2016, "Inception-v4, Inception-ResNet and the Impact of Residual Connections on
Learning" (arXiv:1602.07261), Fig. 15. The networks are those of the published weights, which
differ from the paper's: v1 has a linear layer of 512 units before the classifier; v2 has the stem
of Inception v3 with one Inception module (``mixed_5b``), 320, 1088 and 2080 channels where the
paper has 384, 1154 and 2048, and a last 1x1 convolution to 1536; both have more blocks, and their
last block has neither activation nor scaling. Child names are timm's.

==========  =====================================  =========================================
child       v1 at 299x299                          v2 at 299x299
==========  =====================================  =========================================
conv2d_*    stem (Fig. 14)          35x35 x  256   stem and mixed_5b          35x35 x  320
repeat       5 x block 35 (10)      35x35 x  256   10 x block 35 (16)         35x35 x  320
mixed_6a    Reduction-A (7)         17x17 x  896   Reduction-A (7)            17x17 x 1088
repeat_1    10 x block 17 (11)      17x17 x  896   20 x block 17 (17)         17x17 x 1088
mixed_7a    Reduction-B (12)        8x8   x 1792   Reduction-B (18)           8x8   x 2080
repeat_2     5 x block 8 (13)       8x8   x 1792    9 x block 8 (19)          8x8   x 2080
block8       1 x block 8, linear    8x8   x 1792    1 x block 8, linear       8x8   x 2080
conv2d_7b                                          1x1                        8x8   x 1536
==========  =====================================  =========================================
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal, TypeAlias

from torch import Tensor, nn

from senetzoo._utils.checks import Example, PositiveInt, Rate
from senetzoo.models.family import SZEGEDY_2016, Family
from senetzoo.models.inception import (
    SMALL_FORM,
    Concat,
    Inception,
    Layer,
    average,
    conv,
    module,
    numbered,
    path,
)
from senetzoo.nn.classifier import Config
from senetzoo.nn.drop_path import DropPath, linear_rates
from senetzoo.nn.slots import Slots, residual


@dataclass(frozen=True, kw_only=True)
class InceptionResNetConfig(Config):
    """An Inception-ResNet.

    ``stem="cifar"`` has the same layers with the same parameters, but the stem has stride 1 and
    no pools, and all layers that the paper leaves unpadded are padded: the maps of a 32x32 image
    are 32x32, 16x16 and 8x8. With ``stem="imagenet"``, those of a 299x299 image are
    35x35, 17x17 and 8x8.

    Args:
        version: ``"v1"``, which costs about as much as Inception v3, or ``"v2"``, like v4.
        depths: Residual blocks on the 35x35, 17x17 and 8x8 maps. The very last block has neither
            activation nor scaling. The paper has (5, 10, 5) for both versions.
    """

    sizes = MappingProxyType({"imagenet": 299, "cifar": 32})

    version: Literal["v1", "v2"]
    depths: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], Example((5, 10, 5))]
    # Fig. 15: keep 0.8.
    dropout: Rate = 0.2

    @property
    def min_size(self) -> int:
        return 1 if self.small else 75

    def build(self) -> InceptionResNet:
        # Stride of the layers that have stride 2 in the paper, and padding of the unpadded ones.
        stride, padding = (1, 1) if self.small else (2, 0)
        layers: dict[str, nn.Module | None] = {
            "conv2d_1a": conv(self.in_chans, 32, 3, stride, padding),
            "conv2d_2a": conv(32, 32, 3, 1, padding),
            "conv2d_2b": conv(32, 64, 3),
            "maxpool_3a": None if self.small else nn.MaxPool2d(3, 2),
            "conv2d_3b": conv(64, 80, 1),
            "conv2d_4a": conv(80, 192, 3, 1, padding),
        }
        # v1 reaches 35x35 with a convolution, v2 with a pool, followed by its Inception module.
        first = self.version == "v1"
        if first:
            layers["conv2d_4b"] = conv(192, 256, 3, stride, padding)
        else:
            layers["maxpool_5a"] = None if self.small else nn.MaxPool2d(3, 2)
            layers["mixed_5b"] = _mixed_5b()
        a, b, c = CHANNELS[self.version]
        rows, (to_b, to_c) = BLOCKS[self.version], REDUCTIONS[self.version]
        rates = linear_rates(self.drop_path, self.depths)
        layers |= {
            "repeat": _blocks(a, rows[0], rates[0]),
            "mixed_6a": _reduction(a, b, to_b, padding),
            "repeat_1": _blocks(b, rows[1], rates[1]),
            "mixed_7a": _reduction(b, c, to_c, padding),
            "repeat_2": _blocks(c, rows[2], rates[2][:-1]),
            "block8": ResidualBlock(c, rows[2], self.drop_path, linear=True),
        }
        if first:
            layers["last_linear"] = nn.Linear(c, 512, bias=False)
            layers["last_bn"] = nn.BatchNorm1d(512, eps=0.001)
        else:
            layers["conv2d_7b"] = conv(c, 1536, 1)
        # Initialized as in the authors' TF-slim code; the paper does not specify it.
        return InceptionResNet(
            self,
            layers,
            ("mixed_6a", "mixed_7a"),
            (a, b, c if first else 1536),
            apart=("last_linear", "last_bn"),
            features=512 if first else 1536,
        )


# Scale of the residual, and its branches.
Row: TypeAlias = tuple[float, tuple[tuple[Layer, ...], ...]]

# Channels after each stage.
CHANNELS = {"v1": (256, 896, 1792), "v2": (320, 1088, 2080)}

# Figs. 10, 11, 13 (v1) and 16, 17, 19 (v2), with the scales of the published weights; the paper
# says between 0.1 and 0.3 (Section 3.3).
BLOCKS: dict[str, tuple[Row, Row, Row]] = {
    "v1": (
        (0.17, (((32, 1),), ((32, 1), (32, 3)), ((32, 1), (32, 3), (32, 3)))),
        (0.10, (((128, 1),), ((128, 1), (128, (1, 7)), (128, (7, 1))))),
        (0.20, (((192, 1),), ((192, 1), (192, (1, 3)), (192, (3, 1))))),
    ),
    "v2": (
        (0.17, (((32, 1),), ((32, 1), (32, 3)), ((32, 1), (48, 3), (64, 3)))),
        (0.10, (((192, 1),), ((128, 1), (160, (1, 7)), (192, (7, 1))))),
        (0.20, (((192, 1),), ((192, 1), (224, (1, 3)), (256, (3, 1))))),
    ),
}

# Figs. 7 (with Table 1), 12 and 18. The last convolution of each branch has stride 2 and is
# unpadded; a max pool is the last branch.
REDUCTIONS = {
    "v1": (
        (((384, 3),), ((192, 1), (192, 3), (256, 3))),
        (((256, 1), (384, 3)), ((256, 1), (256, 3)), ((256, 1), (256, 3), (256, 3))),
    ),
    "v2": (
        (((384, 3),), ((256, 1), (256, 3), (384, 3))),
        (((256, 1), (384, 3)), ((256, 1), (288, 3)), ((256, 1), (288, 3), (320, 3))),
    ),
}


class ResidualBlock(Concat):
    """Concatenated branches, and a linear 1x1 convolution to the channels of the skip.

    Not every branch ends in a spatial convolution, so ``inner`` is the concatenation of all
    branches, after their norms and activations and before the 1x1.

    Args:
        channels: Input and output channels.
        row: Its row of `BLOCKS`.
        drop_path: Rate of stochastic depth.
        linear: Whether it is the last block, without activation and scaling.
    """

    slots: Slots

    def __init__(self, channels: int, row: Row, drop_path: float, linear: bool) -> None:
        scale, branches = row
        super().__init__(numbered(*(path(channels, *branch) for branch in branches)))
        inner = sum(branch[-1][0] for branch in branches)
        self.conv2d = nn.Conv2d(inner, channels, 1)
        self.scale = 1.0 if linear else scale
        self.act = None if linear else nn.ReLU(inplace=True)
        self.drop_path = DropPath(drop_path) if drop_path else None
        self.slots = Slots.residual(channels, channels, inner)

    def branch(self, x: Tensor) -> Tensor:
        """The residual branch before scaling."""
        return self.conv2d(self.slots.at("inner", self.concat(x)))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return residual(
            x, self.slots, self.branch, act=self.act, scale=self.scale, drop_path=self.drop_path
        )


def _blocks(channels: int, row: Row, rates: list[float]) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels, row, rate, linear=False) for rate in rates))


def _reduction(
    inputs: int, outputs: int, branches: tuple[tuple[Layer, ...], ...], padding: int
) -> nn.Module:
    return module(
        inputs,
        outputs,
        *(path(inputs, *before, (*last[:2], 2, padding)) for *before, last in branches),
        nn.MaxPool2d(3, 2, padding),
    )


def _mixed_5b() -> nn.Module:
    """The last module of v2's stem: Inception v3's 35x35 module with other widths."""
    return module(
        192,
        320,
        path(192, (96, 1)),
        path(192, (48, 1), (64, 5)),
        path(192, (64, 1), (96, 3), (96, 3)),
        average(192, 64),
    )


class InceptionResNet(Inception):
    """Inception-ResNet v1 or v2: built by `InceptionResNetConfig.build`.

    Training v1 needs batches of at least two images, because its head has a batch norm.

    Sites: the residual blocks have all five positions; mixed_5b of v2 and the reductions have the
    two of units. The SE paper (Figs. 2 and 3) puts a gate after a whole Inception module, and after
    the branch of a residual block. The cost of its SE-Inception-ResNet-v2 doesn't show which gates
    that network has: the gates add 0.01 GFLOPs with or without those of the units.
    """

    head_name = "classif"
    last_linear: nn.Linear
    last_bn: nn.BatchNorm1d

    def pre_logits(self, features: Tensor) -> Tensor:
        x = super().pre_logits(features)
        return self.last_bn(self.last_linear(x)) if hasattr(self, "last_bn") else x


FAMILY = Family(
    title="Inception-ResNet",
    papers={"*": SZEGEDY_2016},
    small=SMALL_FORM.format("the stem", " and no max pools"),
    # Block counts of the published weights.
    networks={
        "inception_resnet_v1": InceptionResNetConfig(version="v1", depths=(5, 10, 6)),
        "inception_resnet_v2": InceptionResNetConfig(version="v2", depths=(10, 20, 10)),
    },
)
