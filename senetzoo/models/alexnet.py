"""AlexNet: the two-GPU network of 2012, and the one-tower network of 2014.

- Krizhevsky, Sutskever, Hinton 2012, "ImageNet Classification with Deep Convolutional Neural
  Networks", Section 3 and Fig. 2: alexnet_2012.
- Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks"
  (arXiv:1404.5997): alexnet, as implemented in torchvision.

Child names are torchvision's, so its state dict loads strictly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import nn

from senetzoo._utils.checks import Ge, PositiveInt, Rate
from senetzoo.errors import ConfigError
from senetzoo.models.family import Family, Paper, arxiv
from senetzoo.nn.classifier import Config
from senetzoo.nn.maps import doubling
from senetzoo.nn.stack import ConvStack, Unit, dropout, local_response_norm

# Channels of the one-tower network (torchvision).
WIDTHS = (64, 192, 384, 256, 256)


@dataclass(frozen=True, kw_only=True)
class AlexNetConfig(Config):
    """An AlexNet.

    ``stem="cifar"`` is a variant for 32x32 images: the first convolution is a 3x3 of stride 1, the
    pools are padded by 1, so that the map before the head is 4x4, and the two hidden linear
    layers have a quarter of their units (alexnet has 7.7 million parameters with 10 classes).

    Args:
        widths: Channels of the five convolutions.
        groups: Groups of the second, fourth and fifth convolution: 2 in the network of 2012, in
            which each GPU computes half of the channels.
        lrn: Whether the first two convolutions are followed by local response normalization.
        padding: Padding of the first convolution: 2 for 224x224 images, or 0 for 227x227; both
            give maps of 55x55 (the paper says 224, but its numbers fit 227).
        hidden: Units of the two hidden linear layers.
        dropout_on: Whether dropout is applied to the ``"inputs"`` of the two hidden linear layers
            (torchvision) or to their ``"outputs"`` (2012).
    """

    has_branches: ClassVar[bool] = False

    dropout: Rate = 0.5
    widths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt] = WIDTHS
    groups: Literal[1, 2] = 1
    lrn: bool = False
    padding: Literal[0, 2] = 2
    hidden: Annotated[int, Ge(4)] = 4096
    dropout_on: Literal["inputs", "outputs"] = "inputs"

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(width % self.groups for width in self.widths):
            raise ConfigError(
                f"AlexNet got widths={self.widths} with groups={self.groups}.",
                "The channels of each convolution are a multiple of groups.",
                f"Type for example: widths={WIDTHS}",
            )

    @property
    def input_size(self) -> int:
        return 227 if not self.small and self.padding == 0 else super().input_size

    @property
    def min_size(self) -> int:
        # Three unpadded 3x3 pools of stride 2 need a 15x15 map, and the 11x11 convolution of
        # stride 4 needs 67 pixels for it, including the padding.
        return 1 if self.small else 67 - 2 * self.padding

    def build(self) -> AlexNet:
        return AlexNet(self)


class AlexNet(ConvStack):
    """AlexNet: built by `AlexNetConfig.build`."""

    _config: AlexNetConfig

    def __init__(self, config: AlexNetConfig) -> None:
        c1, c2, c3, c4, c5 = config.widths
        groups, small = config.groups, config.small

        def after(lrn: bool) -> tuple[nn.Module, ...]:
            # Overlapping pools: 3x3 windows of stride 2.
            pool = nn.MaxPool2d(3, 2, padding=1 if small else 0)
            return (local_response_norm(), pool) if lrn else (pool,)

        first = (
            nn.Conv2d(config.in_chans, c1, 3, padding=1)
            if small
            else nn.Conv2d(config.in_chans, c1, 11, stride=4, padding=config.padding)
        )
        super().__init__(
            config,
            [
                [Unit(first, after=after(config.lrn))],
                [Unit(nn.Conv2d(c1, c2, 5, padding=2, groups=groups), after=after(config.lrn))],
                [
                    Unit(nn.Conv2d(c2, c3, 3, padding=1)),
                    Unit(nn.Conv2d(c3, c4, 3, padding=1, groups=groups)),
                    Unit(nn.Conv2d(c4, c5, 3, padding=1, groups=groups), after=after(False)),
                ],
            ],
            strides=doubling(2 if small else 8, 3),
        )
        side, hidden = (4, config.hidden // 4) if small else (6, config.hidden)
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        layers: list[nn.Module] = []
        for inputs in (c5 * side**2, hidden):
            linear = [nn.Linear(inputs, hidden), nn.ReLU(inplace=True)]
            drop = dropout(config.dropout)
            layers += [drop, *linear] if config.dropout_on == "inputs" else [*linear, drop]
        self.classifier = nn.Sequential(*layers, nn.Linear(hidden, config.num_classes))
        self.initialize()


KRIZHEVSKY_2012 = Paper(
    "ImageNet Classification with Deep Convolutional Neural Networks",
    2012,
    "https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-neural-networks",
)

FAMILY = Family(
    title="AlexNet",
    papers={
        "alexnet_2012": KRIZHEVSKY_2012,
        "alexnet": arxiv(
            "One weird trick for parallelizing convolutional neural networks", "1404.5997"
        ),
    },
    small="The first convolution is a 3x3 of stride 1, the pools are padded and the hidden linear "
    "layers have 1024 units, not 4096: the last map is 4x4.",
    networks={
        "alexnet": AlexNetConfig(),
        "alexnet_2012": AlexNetConfig(
            widths=(96, 256, 384, 384, 256),
            groups=2,
            lrn=True,
            padding=0,
            dropout_on="outputs",
        ),
    },
)
