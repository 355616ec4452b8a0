"""What every network of the zoo is: a classifier with a config and declared sites."""

from __future__ import annotations

import itertools
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from senetzoo.errors import ConfigError, DataError, WeightsError
from senetzoo.nn.config import Config
from senetzoo.nn.report import LoadReport
from senetzoo.nn.slots import Layout, Site, Slots, TensorMap
from senetzoo.nn.stem import Stem

# An ImageNet stem makes a smaller image so small that most of it is gone before the first stage.
SMALL_IMAGE = 64


class AuxOutput(NamedTuple):
    """What a network with auxiliary heads gives in training mode.

    Args:
        logits: Logits (N, num_classes).
        aux: Logits of the auxiliary heads, from the input on, each (N, num_classes).
    """

    logits: Tensor
    aux: tuple[Tensor, ...]


@dataclass(frozen=True)
class FeatureInfo:
    """One of the maps that `Classifier.feature_maps` gives.

    Args:
        stride: Pixels of the input for one of the map, in each direction.
        channels: Channels of the map.
    """

    stride: int
    channels: int


def finite(logits: Tensor, images: Tensor) -> Tensor:
    """`logits` as they are; for code that would make a guess of anything.

    Args:
        logits: What a network gave (N, num_classes).
        images: What it got.

    Raises:
        WeightsError: Some are NaN or infinite, and the images are not.
        DataError: Some are, and the images are so as well.
    """
    if bool(torch.isfinite(logits).all()):
        return logits
    if not bool(torch.isfinite(images).all()):
        raise DataError(
            "The images hold values that are not finite.",
            "A network can't make anything of NaN or infinity.",
            "Look at what loads and normalizes them",
        )
    raise WeightsError(
        "The network gave logits that are not finite.",
        "Its weights hold NaN or infinity, or are too large for the number format.",
        "Load the weights again, or run in fp32",
    )


class Classifier(nn.Module, ABC):
    """An image classifier: (N, in_chans, H, W) images in, (N, num_classes) logits out."""

    _spec_of: ClassVar[Callable[[Classifier], Any]]
    """Gives `spec`. senetzoo.spec sets it: this room knows neither names nor policies."""
    layout: ClassVar[Layout] = "nchw"
    """Layout of the maps inside the network, and of the output of `cam_layer`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._config = config
        self.load_report: LoadReport | None = None
        self._small_warned = False

    @property
    def spec(self) -> Any:
        """What the network is, a `senetzoo.spec.ModelSpec`: its name, config and policy as of now.

        ``model.spec.replace(num_classes=3).build(seed=0)`` makes another one.

        Raises:
            ConfigError: It has a gate that is not of this zoo.
        """
        return type(self)._spec_of(self)

    @property
    def family(self) -> str:
        """The family of its config: ``"ResNet"``."""
        return self._config.family

    @property
    def num_classes(self) -> int:
        """Outputs."""
        return self._config.num_classes

    @property
    def in_chans(self) -> int:
        """Channels of the input."""
        return self._config.in_chans

    @property
    def input_size(self) -> int:
        """Pixels of a side of the images that this form of the network is made for."""
        return self._config.input_size

    @property
    def min_size(self) -> int:
        """Pixels of a side of the smallest images that it takes."""
        return self._config.min_size

    @abstractmethod
    def stages(self) -> tuple[tuple[nn.Module, ...], ...]:
        """The stages, each as its blocks in order. Every `Slots` of the network is in a block."""

    @abstractmethod
    def levels(self) -> tuple[TensorMap, ...]:
        """The network before its pooling, cut after each stage: maps in `layout` in and out."""

    @property
    @abstractmethod
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        """Stride and channels of the map after each stage."""

    @property
    @abstractmethod
    def cam_layer(self) -> nn.Module:
        """The module whose output, in `layout`, is the last feature map: where Grad-CAM looks."""

    @abstractmethod
    def forward_head(self, features: Tensor) -> Tensor:
        """Logits (N, num_classes) from the last feature map (N, C, h, w)."""

    @abstractmethod
    def classifiers(self) -> tuple[str, ...]:
        """Names of the linear layers whose outputs are the classes; the first is the main one."""

    @abstractmethod
    def input_parameter(self) -> str:
        """Name of the first convolution's weight, which depends on the number of channels."""

    def forward(self, x: Tensor) -> Tensor | AuxOutput:
        """Logits (N, num_classes) of images (N, in_chans, H, W).

        An `AuxOutput` in training mode, for a network that was built with ``aux=True``.
        """
        self.check_input(x)
        return self.forward_checked(x)

    def forward_checked(self, x: Tensor) -> Tensor | AuxOutput:
        """`forward` after `check_input`: what a network with auxiliary heads overrides."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map, before pooling: (N, C, h, w)."""
        for level in self.levels():
            x = level(x)
        return self._nchw(x)

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """The map after each stage, (N, C, h, w) each, as in `feature_info`."""
        self.check_input(x)
        maps = []
        for level in self.levels():
            x = level(x)
            maps.append(self._nchw(x))
        return maps

    def _nchw(self, x: Tensor) -> Tensor:
        return x if self.layout == "nchw" else x.permute(0, 3, 1, 2)

    def classifier_parameters(self) -> tuple[str, ...]:
        """Names of the parameters that depend on the number of classes."""
        return tuple(
            f"{path}.{name}"
            for path in self.classifiers()
            for name, _ in self.get_submodule(path).named_parameters()
        )

    def stem_tensors(self) -> tuple[str, ...]:
        """Names of the parameters and buffers before the first stage: what the stem consists of.

        There are none where the first convolution is in the first stage (LeNet, AlexNet, VGG).
        """
        first = self.stages()[0][0]
        if isinstance(first, Slots):
            return ()
        within = {id(tensor) for tensor in first.state_dict(keep_vars=True).values()}
        tensors = self.state_dict(keep_vars=True).items()
        return tuple(n for n, _ in itertools.takewhile(lambda t: id(t[1]) not in within, tensors))

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layers by newly initialized ones.

        Raises:
            ConfigError: `num_classes` is no whole number of at least 1; nothing is changed then.
        """
        self._config = self._config.replace(num_classes=num_classes)
        for path in self.classifiers():
            old = self.get_submodule(path)
            parent, _, name = path.rpartition(".")
            if not isinstance(old, nn.Linear):
                raise TypeError(path)
            new = nn.Linear(
                old.in_features,
                num_classes,
                bias=old.bias is not None,
                device=old.weight.device,
                dtype=old.weight.dtype,
            )
            setattr(self.get_submodule(parent), name, new.train(old.training))

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
                                branch=slots.branch,
                            ),
                            slots,
                        )

    def check_input(self, x: Tensor) -> None:
        """Refuse what is no batch of images for this network; nothing under a compiler.

        Raises:
            ConfigError: Wrong rank or channels, or an image smaller than the network can take.
        """
        if torch.compiler.is_compiling() or not isinstance(x, Tensor):
            return
        config = self._config
        if x.ndim != 4 or x.shape[1] != config.in_chans:
            raise ConfigError(
                f"The network got an input of shape {tuple(x.shape)}.",
                f"It takes images of shape (N, {config.in_chans}, H, W).",
                "Type x.unsqueeze(0) for a single image"
                if x.ndim == 3
                else "Build it with in_chans= the channels of your images",
            )
        smallest, least = min(x.shape[2:]), config.min_size
        if smallest < least:
            raise ConfigError(
                f"The network got images of {x.shape[2]}x{x.shape[3]} pixels.",
                f"This form of {config.family} takes at least {least}x{least}.",
                "Enlarge the images, for example with senetzoo.transforms(model)"
                if config.small
                else 'Build it with stem="cifar", or enlarge the images',
            )
        shrinks = config.stem.stride >= 4 if isinstance(config.stem, Stem) else not config.small
        if shrinks and smallest < SMALL_IMAGE and not self._small_warned:
            self._small_warned = True
            warnings.warn(
                f"The input is {x.shape[2]}x{x.shape[3]} pixels and the network is built for "
                f"{config.input_size}x{config.input_size}. For images under {SMALL_IMAGE} pixels "
                'use stem="cifar".',
                UserWarning,
                stacklevel=_level_of_caller(),
            )


def _level_of_caller() -> int:
    """The ``stacklevel`` at which a warning of `check_input` points at who called the network.

    ``model(x)`` and ``model.feature_maps(x)`` come by paths of different lengths; each runs
    through this file and `nn.Module` alone.
    """
    inside = (__file__, nn.Module.__call__.__code__.co_filename)
    level, frame = 1, sys._getframe(1)
    while frame.f_code.co_filename in inside and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    return level
