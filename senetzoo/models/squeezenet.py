"""SqueezeNet.

Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model
size" (arXiv:1602.07360), Table 1; 1.1 is the authors' later version, which pools earlier.

Child names are torchvision's. The last convolution, a 1x1, is a linear layer applied to each pixel
here, like the classifiers of all networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo._utils.checks import Rate
from senetzoo.models.family import Family, arxiv
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.init import init_convs
from senetzoo.nn.maps import doubling
from senetzoo.nn.slots import Slots, unit
from senetzoo.nn.stack import dropout

# A stage ends before each pool. Each module: its squeezed channels, and those of each expansion.
Row = tuple[int, int]
TABLES: dict[str, tuple[int, int, tuple[tuple[Row, ...], ...]]] = {
    # The stem's channels and kernel, and the modules.
    "1_0": (
        96,
        7,
        (
            ((16, 64), (16, 64), (32, 128)),
            ((32, 128), (48, 192), (48, 192), (64, 256)),
            ((64, 256),),
        ),
    ),
    "1_1": (
        64,
        3,
        (
            ((16, 64), (16, 64)),
            ((32, 128), (32, 128)),
            ((48, 192), (48, 192), (64, 256), (64, 256)),
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class SqueezeNetConfig(Config):
    """A SqueezeNet.

    ``stem="cifar"`` is a variant for 32x32 images: the stem is one padded 3x3 convolution of stride
    1 without a pool, so that the last map is 8x8.

    Args:
        table: Table of the modules: ``"1_0"`` (Table 1) or ``"1_1"``.
    """

    has_branches: ClassVar[bool] = False

    dropout: Rate = 0.5
    table: Literal["1_0", "1_1"] = "1_0"

    @property
    def min_size(self) -> int:
        # A pool in ceil mode halves the pixels, rounded down, so three pools need 8, for which the
        # unpadded stem needs its kernel size and 7 steps of 2.
        return 4 if self.small else TABLES[self.table][1] + 14

    def build(self) -> SqueezeNet:
        return SqueezeNet(self)


class Fire(nn.Module):
    """A 1x1 convolution to few channels, then a parallel 1x1 and 3x3 convolution (Fig. 1)."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.slots = Slots({"pre": inputs, "standard": 2 * expanded})

    def body(self, x: Tensor) -> Tensor:
        """The convolutions, each with its ReLU."""
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat((self.expand1x1(x), self.expand3x3(x)), 1))

    def forward(self, x: Tensor) -> Tensor:
        return unit(x, self.slots, self.body)


class SqueezeNet(Classifier):
    """SqueezeNet: built by `SqueezeNetConfig.build`."""

    head_name = "classifier.1"
    _config: SqueezeNetConfig

    def __init__(self, config: SqueezeNetConfig) -> None:
        super().__init__(config)
        inputs, kernel, stages = TABLES[config.table]
        stem = (
            nn.Conv2d(config.in_chans, inputs, 3, padding=1)
            if config.small
            else nn.Conv2d(config.in_chans, inputs, kernel, 2)
        )
        layers: list[nn.Module] = [stem, nn.ReLU(inplace=True)]
        levels = []
        for index, rows in enumerate(stages):
            start = 0 if not index else len(layers)
            # An identity keeps the numbering in the variant for small images.
            pooled = index or not config.small
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True) if pooled else nn.Identity())
            for squeezed, expanded in rows:
                layers.append(Fire(inputs, squeezed, expanded))
                inputs = 2 * expanded
            levels.append([f"features.{at}" for at in range(start, len(layers))])
        self.features = nn.Sequential(*layers)
        widths = [2 * rows[-1][1] for rows in stages]
        self.set_levels(levels, doubling(1 if config.small else 4, len(stages)), widths)
        self.classifier = nn.Sequential(
            dropout(config.dropout), nn.Linear(inputs, config.num_classes)
        )
        init_convs(self, "fan_in")
        nn.init.normal_(self.get_submodule(self.head_name).get_parameter("weight"), std=0.01)
        nn.init.zeros_(self.get_submodule(self.head_name).get_parameter("bias"))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Apply the linear layer and a ReLU to each pixel, and average over the map.

        With `pre_logits`, average the features instead, (N, C); they are not the layer's input.
        """
        if pre_logits:
            return features.mean((2, 3))
        return F.relu(self.classifier(features.permute(0, 2, 3, 1))).mean((1, 2))


FAMILY = Family(
    title="SqueezeNet",
    papers={
        "*": arxiv(
            "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size",
            "1602.07360",
        )
    },
    small="The stem is one 3x3 convolution of stride 1 without a pool: the last map is 8x8.",
    networks={
        "squeezenet1_0": SqueezeNetConfig(),
        "squeezenet1_1": SqueezeNetConfig(table="1_1"),
    },
)
