"""ConvNeXt: a ResNet with design choices from Transformers.

Liu et al. 2022, "A ConvNet for the 2020s" (arXiv:2201.03545), Section 2 and Table 9. Child names
are torchvision's, so its state dicts load strictly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo._utils.checks import Depths, Example, PositiveInt
from senetzoo.models.family import Family, arxiv
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.drop_path import DropPath, linear_rates
from senetzoo.nn.maps import doubling
from senetzoo.nn.slots import Slots, residual

# Epsilon of the norms, and initial scale of the branches (Appendix A.1).
EPS, SCALE = 1e-6, 1e-6


@dataclass(frozen=True, kw_only=True)
class ConvNeXtConfig(Config):
    """A ConvNeXt.

    With ``stem="imagenet"`` the stem is a convolution over 4x4 patches. ``stem="cifar"`` is a
    variant for 32x32 images: one padded 3x3 convolution of stride 1, so that the last map is 4x4.

    Args:
        depths: Blocks of each stage.
        width: Channels of the first stage; doubled at each later stage.
    """

    depths: Depths
    width: Annotated[PositiveInt, Example(96)]

    @property
    def strides(self) -> list[int]:
        """Stride of each stage's map relative to the image."""
        return doubling(1 if self.small else 4, len(self.depths))

    @property
    def min_size(self) -> int:
        # The convolutions that downsample are not padded.
        return self.strides[-1]

    def build(self) -> ConvNeXt:
        return ConvNeXt(self)


class ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Fig. 4: a depthwise 7x7 convolution, its norm, an MLP applied to each pixel, and a scale.

    ``inner`` is after the norm of the 7x7; ``standard`` is after the scale, at the branch's end.
    """

    def __init__(self, channels: int, drop_path: float) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.full((channels, 1, 1), SCALE))
        # Numbered as in torchvision, which counts permutations and the activation.
        self.block = nn.ModuleDict(
            {
                "0": nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
                "2": ChannelNorm(channels, eps=EPS),
                "3": nn.Linear(channels, 4 * channels),
                "5": nn.Linear(4 * channels, channels),
            }
        )
        self.drop_path = DropPath(drop_path) if drop_path else None
        self.slots = Slots.residual(channels, channels, channels)

    def branch(self, x: Tensor) -> Tensor:
        """The convolution and the MLP."""
        x = self.slots.at("inner", self.block["2"](self.block["0"](x)))
        x = self.block["5"](F.gelu(self.block["3"](x.permute(0, 2, 3, 1))))
        return self.layer_scale * x.permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return residual(x, self.slots, self.branch, drop_path=self.drop_path)


class ConvNeXt(Classifier):
    """ConvNeXt: built by `ConvNeXtConfig.build`."""

    head_name = "classifier.2"
    _config: ConvNeXtConfig

    def __init__(self, config: ConvNeXtConfig) -> None:
        super().__init__(config)
        width = config.width
        kernel, stride, padding = (3, 1, 1) if config.small else (4, 4, 0)
        stem = nn.Conv2d(config.in_chans, width, kernel, stride, padding)
        layers = [nn.Sequential(stem, ChannelNorm(width, eps=EPS))]
        for index, rates in enumerate(linear_rates(config.drop_path, config.depths)):
            if index:
                halved = nn.Conv2d(width, 2 * width, 2, 2)
                layers.append(nn.Sequential(ChannelNorm(width, eps=EPS), halved))
                width *= 2
            layers.append(nn.Sequential(*(Block(width, rate) for rate in rates)))
        # The stem, stage 1, a convolution, stage 2, a convolution, ...
        self.features = nn.Sequential(*layers)
        levels = [[f"features.{at}", f"features.{at + 1}"] for at in range(0, len(layers), 2)]
        self.set_levels(levels, config.strides, doubling(config.width, len(levels)))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(config.dropout) if config.dropout else None
        self.classifier = nn.Sequential(
            ChannelNorm(width, eps=EPS), nn.Flatten(), nn.Linear(width, config.num_classes)
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                # Appendix A.1.
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def pre_logits(self, features: Tensor) -> Tensor:
        x: Tensor = self.classifier[1](self.classifier[0](self.avgpool(features)))
        return x if self.dropout is None else self.dropout(x)


FAMILY = Family(
    title="ConvNeXt",
    papers={"*": arxiv("A ConvNet for the 2020s", "2201.03545")},
    small="The stem is one 3x3 convolution of stride 1: the last map is 4x4.",
    # Section 2; the rates of stochastic depth are those of Table 5.
    networks={
        "convnext_tiny": ConvNeXtConfig(depths=(3, 3, 9, 3), width=96, drop_path=0.1),
        "convnext_small": ConvNeXtConfig(depths=(3, 3, 27, 3), width=96, drop_path=0.4),
    },
)
