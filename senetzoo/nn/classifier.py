"""What every network of the zoo is: a classifier with a config and declared sites."""

from __future__ import annotations

import dataclasses
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from senetzoo.errors import ConfigError, check_fields
from senetzoo.nn.report import LoadReport
from senetzoo.nn.slots import Site, Slots
from senetzoo.nn.stem import Stem, as_stem

# An ImageNet stem makes a smaller image so small that most of it is gone before the first stage.
SMALL_IMAGE = 64


@dataclass(frozen=True, kw_only=True)
class Config(ABC):
    """The fields that every architecture has. A family adds its own.

    Args:
        num_classes: Outputs of the classifier.
        in_chans: Channels of the input image.
        stem: What comes before the first stage: a `Stem`, or the name of one.
        dropout: Dropout before the classifier, in [0, 1).
        drop_path: Stochastic depth, rising linearly with depth to this rate, in [0, 1).
    """

    num_classes: int = 1000
    in_chans: int = 3
    stem: Stem | str
    dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "stem", as_stem(self.stem))
        for field in ("num_classes", "in_chans"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(
                    f"{field}={value!r} does not make a network.",
                    f"{field} is a whole number of at least 1.",
                    f"Type for example: {field}={10 if field == 'num_classes' else 3}",
                )
        for field in ("dropout", "drop_path"):
            value = getattr(self, field)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0.0 <= value < 1.0:
                raise ConfigError(
                    f"{field}={value!r} is not a probability.",
                    f"{field} is a number from 0 up to, not including, 1.",
                    f"Type for example: {field}=0.2",
                )

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed; an unknown field is a `ConfigError`."""
        known = [field.name for field in dataclasses.fields(self)]
        check_fields(type(self).__name__, changes, known)
        return dataclasses.replace(self, **changes)

    @property
    def input_size(self) -> int:
        """Side in pixels of the images it is meant for: 224, or 32 with a stem that keeps size."""
        return 224 if as_stem(self.stem).stride > 1 else 32

    @abstractmethod
    def build(self) -> Classifier:
        """The network without gates, initialised from torch's global random state."""


class Classifier(nn.Module, ABC):
    """An image classifier: (N, in_chans, H, W) images in, (N, num_classes) logits out."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.load_report: LoadReport | None = None
        self._small_warned = False

    @abstractmethod
    def stages(self) -> tuple[tuple[nn.Module, ...], ...]:
        """The stages, each as its blocks in order. Every `Slots` of the network is in a block."""

    @abstractmethod
    def forward_features(self, x: Tensor) -> Tensor:
        """The feature map before pooling, (N, C, h, w)."""

    @abstractmethod
    def forward_head(self, features: Tensor) -> Tensor:
        """Logits (N, num_classes) from a feature map."""

    @abstractmethod
    def classifier_parameters(self) -> tuple[str, ...]:
        """Names of the last layer's parameters, which depend on the number of classes."""

    @abstractmethod
    def input_parameter(self) -> str:
        """Name of the first convolution's weight, which depends on the number of channels."""

    @abstractmethod
    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a newly initialised one."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, in_chans, H, W)."""
        if not torch.compiler.is_compiling() and isinstance(x, Tensor):
            self._check_input(x)
        return self.forward_head(self.forward_features(x))

    def sites(self) -> tuple[Site, ...]:
        """Every place where a gate can sit, in the order of the forward pass's blocks."""
        return tuple(site for site, _ in self.slots())

    def slots(self) -> Iterator[tuple[Site, Slots]]:
        """Every site with the `Slots` that holds it."""
        paths = {module: path for path, module in self.named_modules()}
        stages = self.stages()
        for stage, blocks in enumerate(stages, 1):
            for block, root in enumerate(blocks, 1):
                for slots in root.modules():
                    if not isinstance(slots, Slots):
                        continue
                    for position, channels in slots.channels.items():
                        yield (
                            Site(
                                path=f"{paths[slots]}.{position}",
                                stage=stage,
                                block=block,
                                stages=len(stages),
                                blocks=len(blocks),
                                position=position,
                                channels=channels,
                                layout=slots.layout,
                            ),
                            slots,
                        )

    def _check_input(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != self.config.in_chans:
            raise ConfigError(
                f"The network got an input of shape {tuple(x.shape)}.",
                f"It takes images of shape (N, {self.config.in_chans}, H, W).",
                "Type x.unsqueeze(0) for a single image"
                if x.ndim == 3
                else "Build it with in_chans= the channels of your images",
            )
        stem = as_stem(self.config.stem)
        if stem.stride >= 4 and min(x.shape[2:]) < SMALL_IMAGE and not self._small_warned:
            self._small_warned = True
            warnings.warn(
                f"The input is {x.shape[2]}x{x.shape[3]} pixels and the stem makes it "
                f"{stem.stride} times smaller. For images under {SMALL_IMAGE} pixels use "
                'stem="cifar".',
                UserWarning,
                # Past forward and the two calls of nn.Module, to the line that calls the network.
                stacklevel=5,
            )
