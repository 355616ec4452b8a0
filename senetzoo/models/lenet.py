"""LeNet: the plain CNN.

LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", Fig. 2: convolutions
of 6 and 16 channels with 5x5 kernels, each followed by pooling, then layers of 120, 84 and
`num_classes`. The paper's sparse C3 and RBF outputs are replaced, as usual, by full connections.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from senetzoo._utils.checks import NonNegativeInt
from senetzoo.errors import ConfigError
from senetzoo.models.family import Family, Paper
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.slots import Slots


@dataclass(frozen=True, kw_only=True)
class LeNetConfig(Config):
    """A LeNet for 32x32 images.

    Args:
        act: ``"relu"`` with max pooling (the form used today), or ``"tanh"`` with average
            pooling (1998).
    """

    sizes = MappingProxyType({"cifar": 32})
    has_branches: ClassVar[bool] = False

    num_classes: NonNegativeInt = 10
    stem: str = "cifar"
    act: Literal["relu", "tanh"] = "relu"

    @property
    def min_size(self) -> int:
        return LeNet.size

    def build(self) -> LeNet:
        return LeNet(self)


class LeNet(Classifier):
    """LeNet-5: built by `LeNetConfig.build`."""

    head_name = "fc3"
    _config: LeNetConfig
    size = 32

    def __init__(self, config: LeNetConfig) -> None:
        super().__init__(config)
        self.conv1 = nn.Conv2d(config.in_chans, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.act: nn.Module = nn.ReLU() if config.act == "relu" else nn.Tanh()
        pool = nn.MaxPool2d if config.act == "relu" else nn.AvgPool2d
        self.pool1, self.pool2 = pool(2), pool(2)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.dropout = nn.Dropout(config.dropout) if config.dropout else None
        self.fc3 = nn.Linear(84, config.num_classes)
        self.slots1 = Slots({"pre": config.in_chans, "standard": 6})
        self.slots2 = Slots({"pre": 6, "standard": 16})
        levels = [
            [f"slots{n}.pre", f"conv{n}", "act", f"slots{n}.standard", f"pool{n}"] for n in (1, 2)
        ]
        self.set_levels(levels, (2, 4), (6, 16))

    def stages(self) -> tuple[tuple[nn.Module, ...], ...]:
        return (self.slots1,), (self.slots2,)

    def check_input(self, x: Tensor) -> None:
        super().check_input(x)
        unknown = torch.compiler.is_compiling() or not isinstance(x, Tensor)
        if not unknown and tuple(x.shape[2:]) != (self.size, self.size):
            raise ConfigError(
                f"LeNet got an image of {x.shape[2]}x{x.shape[3]} pixels.",
                f"It takes {self.size}x{self.size} pixels.",
                "Resize the images, for example with senetzoo.transforms(model)",
            )

    def pre_logits(self, features: Tensor) -> Tensor:
        x: Tensor = self.act(self.fc1(features.flatten(1)))
        x = self.act(self.fc2(x))
        return x if self.dropout is None else self.dropout(x)


LECUN_1998 = Paper(
    "Gradient-Based Learning Applied to Document Recognition",
    1998,
    "https://doi.org/10.1109/5.726791",
)

FAMILY = Family(
    title="LeNet",
    papers={"*": LECUN_1998},
    small="LeNet is made for 32x32 pixels; the map before the first linear layer is 5x5.",
    networks={
        "lenet": LeNetConfig(),
        "lenet5": LeNetConfig(in_chans=1, act="tanh"),
    },
)
