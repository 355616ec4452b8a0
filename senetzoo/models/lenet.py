"""LeNet: the plain CNN.

LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", Fig. 2: convolutions
of 6 and 16 channels with 5x5 kernels, each followed by pooling, then layers of 120, 84 and
`num_classes`. The paper's sparse C3 and RBF outputs are replaced, as usual, by full connections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from senetzoo.errors import ConfigError
from senetzoo.models.family import Family
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.slots import Slots, unit
from senetzoo.nn.stem import CIFAR, Stem


@dataclass(frozen=True, kw_only=True)
class LeNetConfig(Config):
    """A LeNet for 32x32 images.

    Args:
        act: ``"relu"`` with max pooling (the form used today), or ``"tanh"`` with average
            pooling (1998).
    """

    num_classes: int = 10
    stem: Stem | str = "cifar"
    act: Literal["relu", "tanh"] = "relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stem != CIFAR:
            raise ConfigError(
                f"LeNet got stem={self.stem!r}.",
                "LeNet takes 32x32 images and has no stem to exchange.",
                'Leave stem out, or type stem="cifar"',
            )
        if self.drop_path:
            raise ConfigError(
                f"LeNet got drop_path={self.drop_path}.",
                "LeNet has no residual branches to drop.",
                "Leave drop_path out",
            )
        if self.act not in ("relu", "tanh"):
            raise ConfigError(
                f"act={self.act!r} is not a form of LeNet.", "act is 'relu' or 'tanh'."
            )

    def build(self) -> LeNet:
        return LeNet(self)


class LeNet(Classifier):
    """LeNet-5: built by `LeNetConfig.build`."""

    config: LeNetConfig
    size = 32

    def __init__(self, config: LeNetConfig) -> None:
        super().__init__(config)
        self.conv1 = nn.Conv2d(config.in_chans, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.act: nn.Module = nn.ReLU() if config.act == "relu" else nn.Tanh()
        self.pool: nn.Module = nn.MaxPool2d(2) if config.act == "relu" else nn.AvgPool2d(2)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.dropout = nn.Dropout(config.dropout) if config.dropout else None
        self.fc3 = nn.Linear(84, config.num_classes)
        self.slots1 = Slots({"pre": config.in_chans, "standard": 6})
        self.slots2 = Slots({"pre": 6, "standard": 16})

    def stages(self) -> tuple[tuple[nn.Module, ...], ...]:
        return (self.slots1,), (self.slots2,)

    def forward_features(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling() and tuple(x.shape[2:]) != (self.size, self.size):
            raise ConfigError(
                f"LeNet got an image of {x.shape[2]}x{x.shape[3]} pixels.",
                f"It takes {self.size}x{self.size} pixels.",
                "Resize the images, for example with senetzoo.transforms(model)",
            )
        x = self.pool(unit(x, self.slots1, lambda y: self.act(self.conv1(y))))
        return self.pool(unit(x, self.slots2, lambda y: self.act(self.conv2(y))))  # type: ignore[no-any-return]

    def forward_head(self, features: Tensor) -> Tensor:
        x = self.act(self.fc1(features.flatten(1)))
        x = self.act(self.fc2(x))
        if self.dropout is not None:
            x = self.dropout(x)
        return self.fc3(x)  # type: ignore[no-any-return]

    def classifier_parameters(self) -> tuple[str, ...]:
        return ("fc3.weight", "fc3.bias")

    def input_parameter(self) -> str:
        return "conv1.weight"

    def reset_classifier(self, num_classes: int) -> None:
        self.config = self.config.replace(num_classes=num_classes)
        old = self.fc3.weight
        self.fc3 = nn.Linear(84, num_classes, device=old.device, dtype=old.dtype)
        self.fc3.train(self.training)


FAMILY = Family(
    title="LeNet",
    networks={
        "lenet": LeNetConfig(),
        "lenet5": LeNetConfig(in_chans=1, act="tanh"),
    },
)
