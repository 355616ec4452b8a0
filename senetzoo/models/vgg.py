"""VGG.

Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition"
(arXiv:1409.1556), Table 1: its columns A, A-LRN, B, C, D and E are vgg11, vgg11_lrn, vgg13,
vgg16_c, vgg16 and vgg19. ``_bn`` adds a batch norm after each convolution, which the paper does
not have; there is none for A-LRN, which only serves to compare LRN with no norm.

Child names are torchvision's, so its state dicts load strictly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo._utils.checks import Example, Ge, Le, NonEmpty, Odd, PositiveInt, Rate
from senetzoo.errors import ConfigError
from senetzoo.models.family import Family, arxiv
from senetzoo.nn.classifier import Config
from senetzoo.nn.slots import chain
from senetzoo.nn.stack import ConvStack, Unit, dropout, local_response_norm

# Channels of the five groups of convolutions. A pool follows each (with ``stem="cifar"``, each of
# the first three).
WIDTHS = (64, 128, 256, 512, 512)

# Table 1: kernel sizes of the convolutions of each group.
A = ((3,), (3,), (3, 3), (3, 3), (3, 3))
B = ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3))
C = ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1))
D = ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
E = ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3))

# Size of the map that the first linear layer takes.
SIDE = 7

Group: TypeAlias = Annotated[tuple[Annotated[int, Ge(1), Le(3), Odd()], ...], NonEmpty()]
"""Kernel sizes of the convolutions of a group."""


@dataclass(frozen=True, kw_only=True)
class VGGConfig(Config):
    """A VGG.

    ``stem="cifar"`` is a variant for 32x32 images: the last two groups have no pools, so that the
    last map is 4x4, and its average goes through one linear layer instead of three (vgg16 has 14.7
    million parameters with 10 classes).

    Args:
        kernels: Kernel sizes of the convolutions of each of the five groups: 3, or 1 (column C).
        norm: ``"none"``, ``"batch"`` after each convolution, or ``"lrn"``: local response
            normalization after the first one (column A-LRN).
        hidden: Units of the two linear layers before the last, which the variant for small images
            doesn't have.
        head: How to handle maps of other sizes than 7x7. ``"pool"`` averages them to 7x7
            (torchvision). ``"dense"`` applies the linear layers as convolutions, and averages the
            class scores (Section 3.2 of the paper).
    """

    has_branches: ClassVar[bool] = False

    dropout: Rate = 0.5
    kernels: Annotated[tuple[Group, Group, Group, Group, Group], Example(A)]
    norm: Literal["none", "batch", "lrn"] = "none"
    hidden: PositiveInt = 4096
    head: Literal["pool", "dense"] = "pool"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.small and self.head == "dense":
            raise ConfigError(
                "VGG got head='dense' with stem='cifar'.",
                "With stem='cifar' there is one linear layer, which takes the average of a map of "
                "any size.",
                "Leave head out",
            )

    @property
    def pools(self) -> int:
        """How many of the five groups, counted from the first, are followed by a pool."""
        return 3 if self.small else 5

    @property
    def min_size(self) -> int:
        # Halved by every pool.
        return (SIDE if self.head == "dense" else 1) << self.pools

    def build(self) -> VGG:
        return VGG(self)


class VGG(ConvStack):
    """VGG: built by `VGGConfig.build`."""

    _config: VGGConfig

    def __init__(self, config: VGGConfig) -> None:
        inputs = config.in_chans
        stages = []
        for group, (width, kernels) in enumerate(zip(WIDTHS, config.kernels, strict=True)):
            units = []
            for index, kernel in enumerate(kernels):
                after: list[nn.Module] = []
                if config.norm == "lrn" and group == index == 0:
                    after.append(local_response_norm())
                if index == len(kernels) - 1:
                    # An identity replaces a missing pool, so that both variants have the same
                    # names.
                    after.append(nn.MaxPool2d(2) if group < config.pools else nn.Identity())
                conv = nn.Conv2d(inputs, width, kernel, padding=kernel // 2)
                norm = nn.BatchNorm2d(width) if config.norm == "batch" else None
                units.append(Unit(conv, norm, tuple(after)))
                inputs = width
            stages.append(units)
        super().__init__(config, stages, [2 ** min(n, config.pools) for n in range(1, 6)])
        if config.small:
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            layers = [dropout(config.dropout)]
        else:
            self.avgpool = nn.AdaptiveAvgPool2d(SIDE)
            layers = []
            inputs *= SIDE**2
            for _ in range(2):
                layers += [
                    nn.Linear(inputs, config.hidden),
                    nn.ReLU(inplace=True),
                    dropout(config.dropout),
                ]
                inputs = config.hidden
        self.classifier = nn.Sequential(*layers, nn.Linear(inputs, config.num_classes))
        self.initialize()

    def pre_logits(self, features: Tensor) -> Tensor:
        if self._config.head == "dense":
            return self._dense(features)
        return super().pre_logits(features)

    def _dense(self, features: Tensor) -> Tensor:
        """Average of the hidden layers' output over all 7x7 windows of the map."""
        weight, bias = (self.get_parameter(f"classifier.0.{name}") for name in ("weight", "bias"))
        x = F.conv2d(features, weight.view(-1, features.shape[1], SIDE, SIDE), bias)
        # With channels last, a linear layer is a 1x1 convolution.
        return chain(*list(self.classifier)[1:-1])(x.permute(0, 2, 3, 1)).mean((1, 2))


FAMILY = Family(
    title="VGG",
    papers={
        "*": arxiv(
            "Very Deep Convolutional Networks for Large-Scale Image Recognition", "1409.1556"
        )
    },
    small="The last two groups have no pools, and the average of the last map, which is 4x4, goes "
    "through a single linear layer.",
    networks={
        "vgg11": VGGConfig(kernels=A),
        "vgg11_lrn": VGGConfig(kernels=A, norm="lrn"),
        "vgg13": VGGConfig(kernels=B),
        "vgg16_c": VGGConfig(kernels=C),
        "vgg16": VGGConfig(kernels=D),
        "vgg19": VGGConfig(kernels=E),
        "vgg11_bn": VGGConfig(kernels=A, norm="batch"),
        "vgg13_bn": VGGConfig(kernels=B, norm="batch"),
        "vgg16_c_bn": VGGConfig(kernels=C, norm="batch"),
        "vgg16_bn": VGGConfig(kernels=D, norm="batch"),
        "vgg19_bn": VGGConfig(kernels=E, norm="batch"),
    },
)
